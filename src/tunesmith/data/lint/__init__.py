"""Checks of data before it is trained on: one file per group of checks, one line per check in `checks.CHECKS`.

A check of a row is a function from a row to what is wrong with it; a check of a set is a function over the columns of
numbers (hashes, lengths, sketches) that are kept of each row in place of its texts. A check reads no files and prints
nothing; `run.lint` feeds them, `report.LintReport` says what they found.
"""

"""The command line: `main` runs a verb and turns what went wrong into an exit code; one file per verb.

A verb reads its words, calls one function of the package and prints what came of it; whatever else it would do
belongs into the package. Nothing in this folder imports torch or its kind at module level, and a verb's own file is
imported only when the verb runs, so that `--help` and `config check` start at once.
"""

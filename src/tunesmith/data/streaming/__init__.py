"""Training data that is read while training: rows in windows, windows to samples, from any place on.

Belongs here: in which order rows of several datasets are read, where reading goes on after a resume, and one window
after the other as samples that are cut and packed. Does not belong here: reading files (sources), encoding rows
(blocks), micro-batches and ranks (train).
"""

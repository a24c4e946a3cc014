"""Where a library has no public name for what is needed: one file for each such place, and nothing else."""

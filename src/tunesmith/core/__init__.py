"""Nouns and services that every other folder may use: types, errors, the registry, the environment, the log.

Standard library only. Nothing in here imports another tunesmith folder.
"""

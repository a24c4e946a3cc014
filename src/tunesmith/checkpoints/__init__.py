"""Folders `checkpoint-N`: committed, verified, chosen, rotated; and the states that they hold, without pickle.

Nothing here knows of a trainer or a model: what is saved comes as functions that write into a folder.
"""

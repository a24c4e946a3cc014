"""The record of a run, the list of all runs, and the queue that starts them: what happened, where it is, what can be
proven of it.

Plain files are the truth: `run.json` in a run's folder, and one small file for each run in the user's data folder. What
trains is in `train/`; nothing in here imports torch to list, to show, to queue or to stop.
"""

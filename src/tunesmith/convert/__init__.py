"""Checkpoints into other layouts: folders of weights to folders of weights, without a config of a run. What a run saves
belongs to `checkpoints` and `export`."""

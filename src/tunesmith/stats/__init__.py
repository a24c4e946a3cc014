"""Figures about the data, the model and the speed of a config or a run. What a run writes down itself belongs to
`train/throughput.py`; what is right or wrong with rows, to `data/lint`."""

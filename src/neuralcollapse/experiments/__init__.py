"""EXPERIMENTS: a configuration in, a trained network and the history of its geometry out.

`config` says what to train, `data` and `models` build it, `train` runs it, `run` is the folder it leaves.
"""

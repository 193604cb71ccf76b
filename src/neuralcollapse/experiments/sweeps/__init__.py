"""Sweeps: a grid of configurations becomes run folders, on the cores of this machine or on a Dask cluster.

`grid` reads what to run, `folder` is where it goes, `worker` trains one cell, `pools` are who trains, `running` hands
out the cells, `progress` shows them.
"""

from neuralcollapse.experiments.sweeps.grid import GridCell, read_sweep
from neuralcollapse.experiments.sweeps.running import CellState, SweepResult, sweep

__all__ = ["CellState", "GridCell", "SweepResult", "read_sweep", "sweep"]

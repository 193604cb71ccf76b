"""EXPERIMENTS: a configuration in, a trained network and the history of its geometry out.

`config` says what to train, `data` and `models` build it, `train` runs it, `run` is the folder it leaves; `sweeps`
train grids of configurations, `comparison` holds runs side by side, `studies` are whole grids that answer a question.
Reading a run folder needs no torch, so names that do are loaded when used.
"""

from typing import TYPE_CHECKING, Any

from neuralcollapse.rooms import look_up

_LATER = {"TrainConfig": "config", "DATASETS": "data", "MODELS": "models", "PRESETS": "presets", "Run": "run",
          "train": "train", "EpochReport": "train", "STUDIES": "studies", "run_study": "studies",
          "sweep": "sweeps", "SweepResult": "sweeps", "read_sweep": "sweeps", "read_runs": "comparison",
          "runs_table": "comparison"}

__all__ = ["DATASETS", "MODELS", "PRESETS", "STUDIES", "EpochReport", "Run", "SweepResult", "TrainConfig", "read_runs",
           "read_sweep", "run_study", "runs_table", "sweep", "train"]

if TYPE_CHECKING:
    from neuralcollapse.experiments.comparison import read_runs, runs_table
    from neuralcollapse.experiments.config import TrainConfig
    from neuralcollapse.experiments.data import DATASETS
    from neuralcollapse.experiments.models import MODELS
    from neuralcollapse.experiments.presets import PRESETS
    from neuralcollapse.experiments.run import Run
    from neuralcollapse.experiments.studies import STUDIES, run_study
    from neuralcollapse.experiments.sweeps import SweepResult, read_sweep, sweep
    from neuralcollapse.experiments.train import EpochReport, train


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return look_up(f"neuralcollapse.experiments.{_LATER[name]}", name)
    raise AttributeError(f"module 'neuralcollapse.experiments' has no attribute '{name}'")

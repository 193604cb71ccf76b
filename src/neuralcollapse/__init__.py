"""Predict, measure and steer the geometry that deep classifiers collapse to, balanced or not.

    import neuralcollapse as nc

    geometry = nc.predict([500, 500, 5, 5])                  # SELI: what training should lead to
    result = nc.measure(features, labels, head.weight)       # what a network has
    result.to_dict()["distance"]                             # how far apart they are

Importing this package imports neither torch nor matplotlib; names that need them are loaded when used.
"""

from typing import TYPE_CHECKING, Any

from neuralcollapse.checks import InvalidInput, NotConverged, OutsideTheory
from neuralcollapse.citations import citations
from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import Gram
from neuralcollapse.predict import Geometry
from neuralcollapse.rooms import look_up

__version__ = "0.1.0.dev0"

_LATER = {
    "measure": "neuralcollapse.measure", "measure_model": "neuralcollapse.measure",
    "CollapseMetric": "neuralcollapse.measure", "ClassMoments": "neuralcollapse.measure",
    "Measurement": "neuralcollapse.measure", "Probe": "neuralcollapse.measure", "Snapshot": "neuralcollapse.measure",
    "judge": "neuralcollapse.measure", "Watch": "neuralcollapse.measure.callbacks",
    "VSLoss": "neuralcollapse.steer", "advise": "neuralcollapse.steer",
    "exact_cross_entropy": "neuralcollapse.simulate", "simulate": "neuralcollapse.simulate",
    "Run": "neuralcollapse.experiments", "TrainConfig": "neuralcollapse.experiments",
    "train": "neuralcollapse.experiments.train", "write_report": "neuralcollapse.show",
}

__all__ = ["ClassCounts", "ClassMoments", "CollapseMetric", "Geometry", "Gram", "InvalidInput", "Measurement",
           "NotConverged", "OutsideTheory", "Probe", "Run", "Snapshot", "TrainConfig", "VSLoss", "Watch",
           "advise", "citations", "exact_cross_entropy", "judge", "measure", "measure_model",
           "predict", "simulate", "train", "write_report"]

if TYPE_CHECKING:
    from neuralcollapse.experiments import Run, TrainConfig, train
    from neuralcollapse.measure import (
        ClassMoments,
        CollapseMetric,
        Measurement,
        Probe,
        Snapshot,
        judge,
        measure,
        measure_model,
    )
    from neuralcollapse.measure.callbacks import Watch
    from neuralcollapse.predict import predict
    from neuralcollapse.show import write_report
    from neuralcollapse.simulate import exact_cross_entropy, simulate
    from neuralcollapse.steer import VSLoss, advise


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return look_up(_LATER[name], name)
    raise AttributeError(f"module 'neuralcollapse' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

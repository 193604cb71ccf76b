"""MEASURE: a network's features and head to numbers, in one pass."""

# isort: off  # metrics are listed in the order in which these register them: NC1, NC2, NC3, NC4
from neuralcollapse.measure import alignment, arrangement, decisions, variability  # noqa: F401

# isort: on
from neuralcollapse.measure.collapse import CollapseMetric
from neuralcollapse.measure.measured import METRICS, Measured
from neuralcollapse.measure.measurement import Measurement, measure
from neuralcollapse.measure.moments import ClassMoments, Moments
from neuralcollapse.measure.probe import Probe, measure_model
from neuralcollapse.measure.snapshot import Snapshot
from neuralcollapse.rooms import open_room

__all__ = ["METRICS", "ClassMoments", "CollapseMetric", "Measured", "Measurement", "Moments", "Probe", "Snapshot",
           "measure", "measure_model"]

open_room(__name__)
del open_room

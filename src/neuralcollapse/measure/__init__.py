"""MEASURE: a network's features and head to numbers, in one pass."""

# Imported to register their metrics (F401), which are listed in this order (I001): NC1, NC2, NC3, NC4.
from neuralcollapse.measure import variability  # noqa: F401, I001
from neuralcollapse.measure import arrangement  # noqa: F401
from neuralcollapse.measure import alignment  # noqa: F401
from neuralcollapse.measure import decisions  # noqa: F401
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

"""MEASURE: a network's features and head to numbers, in one pass."""

# Imported to register their metrics, which are listed in this order, not the alphabet's (I001): NC1, NC2, NC3, NC4.
from neuralcollapse.measure import variability as _variability  # noqa: I001  # the order of `list`
from neuralcollapse.measure import arrangement as _arrangement
from neuralcollapse.measure import alignment as _alignment
from neuralcollapse.measure import decisions as _decisions
from neuralcollapse.measure.collapse import CollapseMetric
from neuralcollapse.measure.measured import METRICS, Measured
from neuralcollapse.measure.arrays import measure
from neuralcollapse.measure.files import measure_file, measure_files
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.model import measure_model
from neuralcollapse.measure.merging import Moments
from neuralcollapse.measure.moments import ClassMoments
from neuralcollapse.measure.probe import Probe
from neuralcollapse.measure.snapshot import Snapshot
from neuralcollapse.measure.verdict import Verdict, judge
from neuralcollapse.rooms import open_room

__all__ = ["METRICS", "ClassMoments", "CollapseMetric", "Measured", "Measurement", "Moments", "Probe", "Snapshot",
           "Verdict", "judge", "measure", "measure_file", "measure_files", "measure_model"]

open_room(__name__)
del _alignment, _arrangement, _decisions, _variability, open_room

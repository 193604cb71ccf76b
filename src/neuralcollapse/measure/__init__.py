"""MEASURE: a network's features and head to numbers, in one pass."""

from typing import TYPE_CHECKING, Any  # noqa: I001  # the order of `list`

# Imported to register their metrics, which are listed in this order, not the alphabet's (I001): NC1, NC2, NC3, NC4.
from neuralcollapse.measure import variability as _variability
from neuralcollapse.measure import arrangement as _arrangement
from neuralcollapse.measure import alignment as _alignment
from neuralcollapse.measure import decisions as _decisions
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

if TYPE_CHECKING:
    from neuralcollapse.measure.collapse import CollapseMetric

__all__ = ["METRICS", "ClassMoments", "CollapseMetric", "Measured", "Measurement", "Moments", "Probe", "Snapshot",
           "Verdict", "judge", "measure", "measure_file", "measure_files", "measure_model"]


def __getattr__(name: str) -> Any:
    if name != "CollapseMetric":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    # Importing torchmetrics takes longer than importing torch, and only this class needs it.
    from neuralcollapse.measure.collapse import CollapseMetric
    return CollapseMetric


open_room(__name__)
del _alignment, _arrangement, _decisions, _variability, open_room

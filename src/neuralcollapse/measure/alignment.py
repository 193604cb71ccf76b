"""NC3: whether classifiers and class means point the same way."""

from __future__ import annotations

import numpy as np

from neuralcollapse.measure.measured import METRICS, Measured, number


@METRICS.register("nc3", source="papyan2020", scalars={"": "duality"})
def self_duality(measured: Measured) -> float | None:
    """NC3: ‖W/‖W‖_F − M/‖M‖_F‖_F between classifiers and centred class means; 0 only when they are proportional."""
    weight, means = measured.weight, measured.centred_means
    if weight is None or means is None:
        return None
    sizes = np.linalg.norm(weight), np.linalg.norm(means)
    if min(sizes) == 0:
        return None
    return number(float(np.linalg.norm(weight / sizes[0] - means / sizes[1])))

"""Mean and spread of each channel over many samples, in one pass."""

from __future__ import annotations

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.experiments.data.lazy import chunks
from neuralcollapse.experiments.data.samples import Rows


def channel_statistics(rows: Rows, index: Int[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " c"],
                                                                          Float[np.ndarray, " c"]]:
    """Mean and standard deviation of each channel (or feature) over some rows; a constant one keeps its scale.

    Each part's own mean and variance are merged, so that nothing cancels as in E[x²] − E[x]²; all in float64.

    Examples
    --------
    >>> mean, spread = channel_statistics(np.array([[1.0, 7.0], [9.0, 9.0], [5.0, 7.0]]), np.array([0, 2]))
    >>> mean.tolist(), spread.tolist()
    ([3.0, 7.0], [2.0, 1.0])
    """
    mean = variance = np.zeros(rows.shape[1])
    seen = 0
    for chunk in chunks(rows, index):
        axes = (0, *range(2, chunk.ndim))
        seen += len(chunk)
        weight = len(chunk) / seen
        step = chunk.mean(axis=axes, dtype=np.float64) - mean
        variance = ((1 - weight) * variance + weight * chunk.var(axis=axes, dtype=np.float64)
                    + weight * (1 - weight) * step**2)
        mean = mean + weight * step
    spread = np.sqrt(variance)
    # What is left of a constant is the rounding of its mean: to divide by it would blow that up to size one.
    return mean, np.where(spread > np.finfo(np.float32).eps * np.abs(mean), spread, 1.0)

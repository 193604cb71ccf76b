"""A warning when minority classifiers merge, which their cosines show before accuracy does."""

from __future__ import annotations

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.verdict import MERGED, merging


class MinoritiesMerging(UserWarning):
    """Minority classifiers are on their way to one shared direction."""


class MergingAlert:
    """Says so when minority classifiers merge: once per episode, after two measurements in a row.

    With m = (cos − predicted)/(1 − predicted) the share of the way from the predicted mean minority cosine to 1, as
    soon as classes are apart (`verdict.APART`).

    Parameters
    ----------
    threshold : float
        The m in (0, 1] from which it counts as merging.

    Raises
    ------
    InvalidInput
        A threshold outside (0, 1].

    References
    ----------
    fang2021.

    Examples
    --------
    >>> import numpy as np
    >>> from neuralcollapse.measure import measure
    >>> labels = np.repeat([0, 1, 2, 3], [10, 10, 1, 1])
    >>> weight = np.array([[1., 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    >>> merged = measure(weight[labels], labels, weight)
    >>> alert = MergingAlert()
    >>> alert(merged), alert(merged)
    (None, 'minority classifiers are merging: mean minority cosine 1.00 where 0.08 is predicted ...')
    """

    def __init__(self, threshold: float = MERGED):
        if not 0 < threshold <= 1:
            raise InvalidInput(f"the alert's threshold must lie above 0 and at most at 1, got {threshold}")
        self.threshold = threshold
        self._in_a_row = 0

    def __call__(self, measurement: Measurement, last: bool = False) -> str | None:
        """The message, one line, when this measurement calls for it; else None.

        Parameters
        ----------
        measurement : Measurement
        last : bool
            No other will follow: one measurement is then enough.
        """
        found = merging(measurement)
        if found is None or not found.apart or found.share < self.threshold:
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        if self._in_a_row != 2 and not (last and self._in_a_row == 1):
            return None
        return (f"minority classifiers are merging: {found} ({found.share:.0%} of the way to a shared direction); "
                f"{found.advice}")

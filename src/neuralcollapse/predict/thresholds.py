"""The ridge at which classes merge, for plain cross-entropy without a head bias (`theory.md` §4).

λ = √(λ_W λ_H) with the loss summed over samples; for a mean loss over n samples divide these values by n.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from neuralcollapse.counts import ClassCounts


def collapse_thresholds(counts: ClassCounts) -> dict[str, float | None]:
    """λ at which the first group of equal classes merges, and at which everything is zero.

    Two or more classes of count n_j share one classifier iff λ ≥ √n_j; all classifiers vanish iff λ ≥ ‖P D^{1/2}‖₂.

    Returns
    -------
    dict
        "minority_collapse": √ of the smallest count below n_max that two or more classes share, None without one;
        "total_collapse": ‖P D^{1/2}‖₂.

    References
    ----------
    fang2021 (minority collapse); theory.md §4.

    Examples
    --------
    >>> collapse_thresholds(ClassCounts([9, 9, 4, 4]))
    {'minority_collapse': 2.0, 'total_collapse': 3.0}
    """
    groups = counts.groups
    values = counts.values[groups.first]
    shared = values[(groups.sizes > 1) & (values < counts.n_max)]
    return {"minority_collapse": float(np.sqrt(shared.min())) if shared.size else None,
            "total_collapse": float(np.sqrt(_largest_eigenvalue(counts)))}


def no_thresholds(bisect: bool) -> dict[str, float | None]:
    """Thresholds that are not known."""
    return {"minority_collapse": None, "total_collapse": None}


def _largest_eigenvalue(counts: ClassCounts) -> float:
    """The largest eigenvalue of D − ssᵀ/k: n_max when shared, else the top root of the secular equation."""
    groups = counts.groups  # ascending in the count
    n, sizes = counts.values[groups.first], groups.sizes
    top = float(n[-1])
    if sizes[-1] > 1:
        return top

    low, gap = float(n[-2]), top - float(n[-2])

    def secular(above_low: float) -> float:
        # Σ_c n_c/(n_c − λ) = k with λ = low + above_low, multiplied by both poles of the bracket.
        rest = np.sum(sizes[:-2] * n[:-2] / (n[:-2] - low - above_low)) - counts.k
        return float(above_low * (top + (gap - above_low) * rest) - (gap - above_low) * sizes[-2] * low)

    return low + float(brentq(secular, 0.0, gap, xtol=1e-300, rtol=8.9e-16))

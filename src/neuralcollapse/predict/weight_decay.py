"""Weight decay and feature penalties as trainers set them, in the theory's λ; and which weight decay is safe.

A training objective (1/n) Σ_i ℓ_i + (w/2)‖W‖² + (p/2) Σ_i ‖h_i‖², with a MEAN loss over n samples, is n times smaller
than the theory's Σ_i ℓ_i + (λ_W/2)‖W‖² + (λ_H/2)‖H‖² with λ_W = n·w and λ_H = n·p (`theory.md` §1). Only
λ = √(λ_W λ_H) = n√(w·p) shapes the geometry; λ_H/λ_W rescales classifiers against embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralcollapse.checks import positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import Geometry, predict


@dataclass(frozen=True)
class RidgePair:
    """λ_W and λ_H with the loss summed over samples.

    Attributes
    ----------
    head, features : float
        λ_W and λ_H.
    """

    head: float
    features: float

    @property
    def ridge(self) -> float:
        """λ = √(λ_W λ_H), what `predict` takes."""
        return float(np.sqrt(self.head * self.features))

    @property
    def scale(self) -> float:
        """Predicted ‖W‖ and ‖M‖ are those of λ_W = λ_H, ‖W‖ times and ‖M‖ divided by this: (λ_H/λ_W)^{1/4}."""
        return float((self.features / self.head) ** 0.25)


def ridge_from_weight_decay(weight_decay: float, feature_penalty: float | None = None, n: float = 1) -> RidgePair:
    """The theory's λ of a mean loss with (w/2)‖W‖² and (p/2) Σ_i ‖h_i‖² beside it.

    Parameters
    ----------
    weight_decay : float
        w > 0 on the head, as in torch's optimisers.
    feature_penalty : float, optional
        p > 0 per sample; w when left out (the unconstrained-features model with one weight decay for all).
    n : float
        Training samples; 1 when w and p already belong to a summed loss.

    Returns
    -------
    RidgePair

    Raises
    ------
    InvalidInput
        A value that is not positive.

    References
    ----------
    theory.md §1, §4.

    Examples
    --------
    >>> pair = ridge_from_weight_decay(5e-4, 1e-5, n=1000)
    >>> round(pair.ridge, 6), round(pair.scale, 4)
    (0.070711, 0.3761)
    """
    w = positive_number("weight_decay", weight_decay)
    p = w if feature_penalty is None else positive_number("feature_penalty", feature_penalty)
    n = positive_number("n", n)
    return RidgePair(n * w, n * p)


def weight_decay_from_ridge(ridge: float, n: float, feature_penalty: float | None = None) -> float:
    """The weight decay w on the head that gives λ = `ridge` with a mean loss over n samples.

    With `feature_penalty` p held, w = λ²/(n² p); without it both penalties are w, and w = λ/n.

    Parameters
    ----------
    ridge : float
        λ > 0, the loss summed over samples.
    n : float
        Training samples of the mean loss.
    feature_penalty : float, optional
        p > 0 per sample; w too when left out.

    Returns
    -------
    float
        w in (w/2)‖W‖².

    Raises
    ------
    InvalidInput
        A value that is not positive.

    References
    ----------
    theory.md §1.

    Examples
    --------
    >>> weight_decay_from_ridge(0.5, n=1000)
    0.0005
    """
    ridge, n = positive_number("ridge", ridge), positive_number("n", n)
    if feature_penalty is None:
        return ridge / n
    return ridge**2 / (n**2 * positive_number("feature_penalty", feature_penalty))


@dataclass(frozen=True)
class CollapseSafety:
    """Whether a ridge merges classes, and the largest that does not.

    Attributes
    ----------
    ridge : float
        λ in use, summed loss.
    merged : tuple of tuple of str
        The groups of classes that must share one classifier at this λ.
    safe_ridge : float
        The supremum of λ at which no class collapses.
    safe_weight_decay : float
        The same as a weight decay on the head, the feature penalty held (or tied to it when none was given).
    thresholds : dict
        "minority_collapse" and "total_collapse".
    """

    ridge: float
    merged: tuple[tuple[str, ...], ...]
    safe_ridge: float
    safe_weight_decay: float
    thresholds: dict[str, float | None]

    @property
    def safe(self) -> bool:
        """Whether no class collapses."""
        return self.ridge < self.safe_ridge


def collapse_safety(counts: Any, weight_decay: float, feature_penalty: float | None = None, n: float | None = None,
                    loss: str = "ce", **parameters: Any) -> CollapseSafety:
    """Which classes a weight decay must merge, and the largest weight decay at which none does.

    Parameters
    ----------
    counts : ClassCounts or anything `predict` takes
    weight_decay, feature_penalty
        As in `ridge_from_weight_decay`, beside a mean loss.
    n : float, optional
        Training samples; Σ n_c when left out.
    loss, **parameters
        As in `predict`.

    Returns
    -------
    CollapseSafety

    Raises
    ------
    InvalidInput
        As `predict` and `ridge_from_weight_decay`; a loss without a finite-ridge geometry.

    References
    ----------
    fang2021; theory.md §4.

    Examples
    --------
    >>> safety = collapse_safety([500, 500, 5, 5], weight_decay=5e-3)
    >>> safety.safe, safety.merged, round(safety.safe_weight_decay, 5)
    (False, (('2', '3'),), 0.00221)
    """
    profile = ClassCounts.from_counts(counts)
    ridge = ridge_from_weight_decay(weight_decay, feature_penalty, float(profile.n) if n is None else n).ridge
    return safety_of(predict(profile, loss, ridge=ridge, **parameters), feature_penalty, n)


def safety_of(geometry: Geometry, feature_penalty: float | None = None, n: float | None = None) -> CollapseSafety:
    """`collapse_safety` of a geometry that is predicted already at its ridge."""
    assert geometry.ridge is not None
    n = float(geometry.counts.n) if n is None else n
    safe = min(value for value in geometry.thresholds.values() if value is not None)
    return CollapseSafety(geometry.ridge, merged_classes(geometry), safe,
                          weight_decay_from_ridge(safe, n, feature_penalty), dict(geometry.thresholds))


def merged_classes(geometry: Geometry, tolerance: float = 1e-9) -> tuple[tuple[str, ...], ...]:
    """The groups of two or more classes that share one classifier (or have none) in a predicted geometry."""
    gram = geometry.classifiers
    groups = gram.groups
    shared = []
    scale = gram.norms.max() ** 2
    for group in np.flatnonzero(groups.sizes > 1):
        members = np.flatnonzero(groups.index == group)
        apart = gram.block(members[:1], members[:2])[0]
        if apart[0] - apart[1] <= tolerance * scale:  # ‖w_c − w_c'‖² = 2(own − pair)
            shared.append(tuple(geometry.counts.names[c] for c in members))
    return tuple(shared)

"""What the named losses put into the family: weights, temperatures, offsets and margins from class counts.

Every function takes a ClassCounts and gives a (k,) float64 array; `VSLoss` (losses.py) says what each enters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, as_array, did_you_mean, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.given_counts import class_index
from neuralcollapse.steer.amounts import below_one, not_negative, positive

SCHEMES = ("inverse", "effective-number")


def class_weights(counts: ClassCounts, scheme: str = "inverse", beta: float = 0.9999) -> Float[np.ndarray, " k"]:
    """Class weights ω from counts, with Σ_c n_c ω_c = n.

        inverse            ω_c ∝ 1/n_c,   so that ω_c = n/(k n_c)
        effective-number   ω_c ∝ (1 − β)/(1 − β^{n_c})

    The second runs from equal weights (β = 0) to the first (β → 1). Cui et al. scale theirs to Σ_c ω_c = k instead.

    Parameters
    ----------
    counts : ClassCounts
    scheme : str
        "inverse" or "effective-number".
    beta : float
        β in [0, 1), of the effective number.

    Raises
    ------
    InvalidInput
        Another scheme, or β outside [0, 1).

    References
    ----------
    cui2019, Eq. 2.

    Examples
    --------
    >>> class_weights(ClassCounts([4, 1])).tolist()
    [0.625, 2.5]
    >>> class_weights(ClassCounts([4, 1]), "effective-number", beta=0.0).tolist()
    [1.0, 1.0]
    """
    n = counts.values
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise InvalidInput(f"unknown weighting scheme '{shown(scheme)}': {did_you_mean(shown(scheme), SCHEMES)}")
    if scheme == "inverse":
        return normalised(1 / n, counts)
    beta = below_one("beta", beta, ": 'inverse' is its limit at 1")
    # 1 − β^n by expm1: β near 1 would cancel.
    effective = np.ones(counts.k) if beta == 0 else -np.expm1(n * np.log(beta))
    return normalised(1 / effective, counts)


def normalised(weight: Float[np.ndarray, " k"], counts: ClassCounts) -> Float[np.ndarray, " k"]:
    """The weights scaled to Σ_c n_c ω_c = n: a constant of the data set, not of the batch."""
    return weight * (counts.values.sum() / (counts.values @ weight))


def log_priors(counts: ClassCounts, tau: float = 1.0) -> Float[np.ndarray, " k"]:
    """Additive offsets ι_c = τ ln(n_c/n).

    References
    ----------
    menon2021, Eq. 10; ren2020, Eq. 4 (τ = 1).
    """
    return not_negative("tau", tau) * np.log(counts.values / counts.values.sum())


def count_powers(counts: ClassCounts, gamma: float) -> Float[np.ndarray, " k"]:
    """Temperatures (n_c/n_max)^γ, at most 1.

    References
    ----------
    ye2020, Eq. 5; kini2021.
    """
    return (counts.values / counts.values.max()) ** not_negative("gamma", gamma)


def label_margins(counts: ClassCounts, max_margin: float = 0.5) -> Float[np.ndarray, " k"]:
    """Margins C/n_c^{1/4}, the largest of them `max_margin`.

    References
    ----------
    cao2019, Eq. 9.
    """
    return positive("max_margin", max_margin) * (counts.values.min() / counts.values) ** 0.25


def by_class(name: str, values: Any, counts: ClassCounts) -> Any:
    """Values in the order of the classes: a mapping by class name is looked up, anything else is left to be checked.

    Raises
    ------
    InvalidInput
        A mapping with a name that is no class, or without one of the classes.

    Examples
    --------
    >>> by_class("weight", {"dog": 2, "cat": 1}, ClassCounts([500, 5], names=["cat", "dog"]))
    [1, 2]
    """
    if not isinstance(values, Mapping):
        return as_array(values)
    given: dict[str, Any] = {}
    for key, value in values.items():
        index = class_index(key)
        text = str(key) if index is None else str(index)
        if text in given:
            raise InvalidInput(f"{name} must name each class once, got '{text}' twice")
        given[text] = value
    unknown = [key for key in given if key not in counts.names]
    if unknown:
        raise InvalidInput(f"{name} names '{unknown[0]}', which is no class: {did_you_mean(unknown[0], counts.names)}")
    missing = [key for key in counts.names if key not in given]
    if missing:
        raise InvalidInput(f"{name} must name every class, got none for {', '.join(missing[:5])}"
                           + (f" and {len(missing) - 5} more" if len(missing) > 5 else ""))
    return [given[key] for key in counts.names]

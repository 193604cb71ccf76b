"""The loss parameters with which a predicted margin ratio is reached: found on predictions, never on data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scipy.optimize import brentq

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.steer.amounts import not_negative, one_of, positive
from neuralcollapse.steer.predicted_row import margin_ratio
from neuralcollapse.steer.remedies import Remedy

_STEPS = 20  # values tried before the first that reaches a target is refined
_ROUNDING = 1e-12


def gamma_for(counts: Any, target: float, *, tau: float = 0.0, ridge: float | None = None, remedy: str = "vs",
              largest: float = 1.0, **options: Any) -> float:
    """The smallest γ with which minority margins reach `target` times the majority margins in the predicted geometry.

        min γ ≥ 0 with mean_{c minority} m_c ≥ target · mean_{c majority} m_c,   m_c = z_c − max_{j≠c} z_j

    Margins are those of the logits without temperatures and offsets (`class_margins`).

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    target : float
        Of the ratio; 1 is what cross-entropy leads to in the limit.
    tau : float
        Offsets τ ln(n_c/n) beside the temperatures ("vs" only); they move a finite ridge.
    ridge : float, optional
        λ with the loss SUMMED over samples; the limit λ → 0 when left out.
    remedy : str
        "vs", "cdt" or "ldt".
    largest : float
        The largest γ tried.
    **options
        `bias`, `bias_ridge` of `predict`.

    Raises
    ------
    OutsideTheory
        Equal counts, which have no minority. No γ up to `largest` reaches it; the message says what is reached. One
        minority class, or two classes, bound the ratio under class temperatures; not under label temperatures.

    References
    ----------
    kini2021; behnia2023; theory.md §3.

    Examples
    --------
    >>> round(gamma_for([100, 100, 1, 1], 10**0.5, remedy="ldt"), 9)
    0.25
    """
    profile = _imbalanced(counts)
    ridge = None if ridge is None else positive("ridge", ridge)
    remedy, tau = one_of("remedy", remedy, ("vs", "cdt", "ldt")), not_negative("tau", tau)
    extra = {"tau": tau} if remedy == "vs" else {}
    return _first("γ", lambda gamma: margin_ratio(
        Remedy(remedy, profile, {"gamma": gamma, **extra}).geometry(ridge, **options)), target, largest)


def tau_for(counts: Any, target: float, *, gamma: float = 0.0, ridge: float, largest: float = 4.0,
            **options: Any) -> float:
    """The smallest τ with which minority margins reach `target` times the majority margins at a ridge.

    As `gamma_for`, for the offsets τ ln(n_c/n) of "vs", which move nothing in the limit.

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    target : float
    gamma : float
        Of the class temperatures (n_c/n_max)^γ beside the offsets.
    ridge : float
        λ with the loss SUMMED over samples.
    largest : float
        The largest τ tried.
    **options
        `bias`, `bias_ridge` of `predict`.

    Raises
    ------
    OutsideTheory
        Equal counts. No τ up to `largest` reaches it.

    References
    ----------
    menon2021; kini2021; theory.md §4.

    Examples
    --------
    >>> round(tau_for([100, 100, 1, 1], 1.0, ridge=0.01, bias=True), 2)
    0.81
    """
    profile, gamma = _imbalanced(counts), not_negative("gamma", gamma)
    ridge = positive("ridge", ridge)
    return _first("τ", lambda tau: margin_ratio(
        Remedy("vs", profile, {"gamma": gamma, "tau": tau}).geometry(ridge, **options)), target, largest)


def _imbalanced(counts: Any) -> ClassCounts:
    profile = ClassCounts.from_counts(counts)
    if not profile.minority.any():
        raise OutsideTheory("equal counts have no minority whose margins could be steered: VSLoss.ce(counts) leads to "
                            "equal ones")
    return profile


def _first(what: str, ratio: Callable[[float], float], target: float, largest: float) -> float:
    wanted, largest = positive("target", target) * (1 - _ROUNDING), positive("largest", largest)
    best, below = (-1.0, 0.0), 0.0
    for step in range(_STEPS + 1):
        value = largest * step / _STEPS
        reached = ratio(value)
        if reached >= wanted:
            return 0.0 if step == 0 else float(brentq(lambda x: ratio(x) - wanted, below, value, xtol=1e-10))
        best, below = max(best, (reached, value)), value
    raise OutsideTheory(f"no {what} up to {largest:g} gives minority margins of {wanted:.3g} times the majority's: "
                        f"{what} = {best[1]:.3g} gives {best[0]:.3g}; ask for at most that")

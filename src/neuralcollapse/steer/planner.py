"""How many more samples a class needs until its predicted angle, margin or norm reaches a target.

The prediction is the unconstrained-features model's (`theory.md` §2, §4) at the enlarged counts, so the answer is a
necessary size for the optimum of training, not a promise about test samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import Geometry, predict, ridge_from_weight_decay
from neuralcollapse.steer.amounts import finite, given, positive, positive_or_none
from neuralcollapse.steer.class_geometry import class_margins, merging_ridges, nearest_cosines

_ROUNDING = 1e-11
"""Relative slack of "reached", so that an angle which never changes (180° for two classes) counts as itself."""


def samples_needed(counts: Any, cls: Any, *, angle: float | None = None, margin: float | None = None,
                   norm: float | None = None, ridge: float | None = None, weight_decay: float | None = None,
                   feature_penalty: float | None = None, loss: str | Callable[[ClassCounts], Geometry] = "ce",
                   **parameters: Any) -> int:
    """The smallest number of further samples of one class with which its predicted geometry reaches a target.

        min y ≥ 0 with f(n_1, …, n_c + y, …, n_k) ≥ target,   n_c + y ≤ n_max

    Doubling finds a bracket, bisection its end; f is evaluated at y − 1 (missed) and y (reached). For cross-entropy at
    a fixed λ all three f were found to grow with the class's own count, so that this y is the first of all; under a
    weight decay, where λ grows with n, it is the end of the first bracket.

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    cls : int or str
        The class, by index or name.
    angle : float, optional
        Degrees from its classifier to the nearest other one.
    margin : float, optional
        Of its own samples' predicted logits, z_c − max_{j≠c} z_j; with a ridge only, since the limit knows no scale.
    norm : float, optional
        Of its classifier, over the root mean square of all classifiers' norms.
    ridge : float, optional
        λ with the loss SUMMED over samples, held while samples are added; the limit λ → 0 when left out.
    weight_decay, feature_penalty : float, optional
        Instead: w and p beside a MEAN loss, for which λ = n√(wp) grows with the samples.
    loss : str or callable
        What `predict` takes, with **parameters; or a function of ClassCounts that gives a Geometry, for losses whose
        parameters follow the counts.

    Returns
    -------
    int
        0 when the target is reached already.

    Raises
    ------
    InvalidInput
        Not exactly one target, no such class, a ridge given twice or together with a callable loss.
    OutsideTheory
        A target that no count up to n_max reaches; the message says how far n_max goes.

    References
    ----------
    thrampoulidis2022; theory.md §2, §4.

    Examples
    --------
    >>> samples_needed([500, 500, 5, 5], 3, angle=60)
    5
    >>> samples_needed([500, 500, 5, 5], 3, angle=170)
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.OutsideTheory: angle 170 is out of reach for class 3: ... largest class, it is 104.1; ...
    """
    profile = ClassCounts.from_counts(counts)
    c = _class_index(profile, cls)
    target = _target(angle=angle, margin=margin, norm=norm)
    if target.name == "margin" and ridge is None and weight_decay is None and not callable(loss):
        raise OutsideTheory("a margin has a scale at a finite ridge only: give ridge or weight_decay, or a target for "
                            "angle or norm")
    geometry = _geometry(ridge, weight_decay, feature_penalty, loss, parameters)

    def value(extra: int) -> float:
        values = profile.values.copy()
        values[c] += extra
        return target.measure(geometry(ClassCounts(values, profile.names)), c)

    most = max(int(profile.n_max - profile.values[c]), 0)
    def found(extra: int) -> bool:
        return target.reached(value(extra))

    missed, reached = _bracket(found, most)
    if reached is None:
        raise OutsideTheory(f"{target.name} {target.wanted:g} is out of reach for class {profile.names[c]}: with "
                            f"{profile.values[c] + most:g} samples, as many as the largest class, it is "
                            f"{target.shown(value(most))}; ask for less than that")
    return _end(found, missed, reached)


def samples_to_part(counts: Any, cls: Any, ridge: float, merging: Callable[[ClassCounts], Any] = merging_ridges
                    ) -> int | None:
    """The fewest further samples that part merged classes at a weight decay: of the class and of all with its count.

        min y ≥ 0 with λ(n + m y)/n < merging(counts + y)_c,   m classes having n_c samples, n_c + y ≤ n_max

    The ridge is that of a weight decay beside a MEAN loss, λ = n√(wp): it grows with the samples.

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    cls : int or str
        The class, by index or name.
    ridge : float
        λ at these counts, the loss SUMMED over samples.
    merging : function of ClassCounts
        Gives the (k,) λ from which each class merges; √n_c, as under cross-entropy, when left out.

    Returns
    -------
    int or None
        None where as many samples as the largest class has would not do.

    Raises
    ------
    InvalidInput
        No such class, or a ridge that is not positive.

    References
    ----------
    theory.md §4 (minority collapse).

    Examples
    --------
    >>> samples_to_part([100, 100, 4, 4], 3, ridge=3.0)  # 3 (208 + 2·7)/208 < √(4 + 7), and not with 6
    7
    """
    profile = ClassCounts.from_counts(counts)
    c, ridge = _class_index(profile, cls), positive("ridge", ridge)
    alike = profile.values == profile.values[c]

    def parted(more: int) -> bool:
        larger = ClassCounts(profile.values + more * alike, profile.names)
        return bool(ridge * float(larger.n) / float(profile.n) < np.asarray(merging(larger))[c])

    missed, reached = _bracket(parted, max(int(profile.n_max - profile.values[c]), 0))
    return None if reached is None else _end(parted, missed, reached)


@dataclass(frozen=True)
class _Target:
    """A number of one class that is to be reached; `measure` grows with it and is what is compared."""

    name: str
    wanted: float
    level: float
    measure: Callable[[Geometry, int], float]

    def reached(self, value: float) -> bool:
        return bool(value >= self.level - _ROUNDING * max(1.0, abs(self.level)))

    def shown(self, value: float) -> str:
        if np.isnan(value):
            return "undefined, its classifier being zero"
        number = np.degrees(np.arccos(-value)) if self.name == "angle" else value
        return f"{number:.3g}" if number < 100 else f"{number:.4g}"


def _target(**targets: float | None) -> _Target:
    asked = {name: value for name, value in targets.items() if value is not None}
    if len(asked) != 1:
        raise InvalidInput(f"give exactly one target of {', '.join(targets)}, got {', '.join(asked) or 'none'}")
    (name, number), = asked.items()
    wanted = positive(name, number)
    if name == "angle":
        if wanted > 180:
            raise InvalidInput(f"angle must be at most 180 degrees, got {wanted:g}")
        # Compared as −cosine: arccos loses half the digits near 180°.
        return _Target(name, wanted, -float(np.cos(np.radians(wanted))), _opening)
    return _Target(name, wanted, wanted, _margin if name == "margin" else _relative_norm)


def _opening(geometry: Geometry, c: int) -> float:
    return -float(nearest_cosines(geometry.classifiers, np.array([c]))[0])


def _margin(geometry: Geometry, c: int) -> float:
    return float(class_margins(geometry)[c])


def _relative_norm(geometry: Geometry, c: int) -> float:
    norms = geometry.classifiers.norms
    size = np.sqrt(np.mean(norms**2))
    return float(norms[c] / size) if size > 0 else float("nan")


def _geometry(ridge: float | None, weight_decay: float | None, feature_penalty: float | None,
              loss: str | Callable[[ClassCounts], Geometry], parameters: dict[str, Any],
              ) -> Callable[[ClassCounts], Geometry]:
    ridge, weight_decay = positive_or_none("ridge", ridge), positive_or_none("weight_decay", weight_decay)
    feature_penalty = positive_or_none("feature_penalty", feature_penalty)
    if ridge is not None and weight_decay is not None:
        raise InvalidInput(f"give ridge or weight_decay, not both, got {ridge:g} and {weight_decay:g}")
    if feature_penalty is not None and weight_decay is None:
        raise InvalidInput(f"feature_penalty goes with weight_decay, got {feature_penalty:g} alone: give it too")
    if callable(loss):
        extra = [name for name, value in (("ridge", ridge), ("weight_decay", weight_decay)) if value is not None]
        if extra or parameters:
            raise InvalidInput(f"a callable loss gives the geometry at its own ridge and parameters, got "
                               f"{', '.join([*extra, *parameters])}: put them into it")
        return loss
    name = loss

    def predicted(profile: ClassCounts) -> Geometry:
        at = (ridge if weight_decay is None
              else ridge_from_weight_decay(weight_decay, feature_penalty, profile.n).ridge)
        return predict(profile, name, ridge=at, **parameters)

    return predicted


def _bracket(reached: Callable[[int], bool], most: int) -> tuple[int, int | None]:
    """The last doubling that misses and the first that reaches; −1 and 0 when nothing is needed."""
    if reached(0):
        return -1, 0
    missed, extra = 0, min(1, most)
    while extra > missed:
        if reached(extra):
            return missed, extra
        missed, extra = extra, min(2 * extra, most)
    return missed, None


def _end(reached: Callable[[int], bool], missed: int, found: int) -> int:
    """The end of a bracket: the first number that is reached where the one before is missed."""
    while found - missed > 1:
        middle = (missed + found) // 2
        missed, found = (missed, middle) if reached(middle) else (middle, found)
    return found


def _class_index(profile: ClassCounts, cls: Any) -> int:
    if isinstance(cls, str):
        if cls not in profile.names:
            known = ", ".join(profile.names[:10]) + (", …" if profile.k > 10 else "")
            raise InvalidInput(f"there is no class '{cls}': known: {known}")
        return profile.names.index(cls)
    index = finite(cls)
    if index is None or index % 1 or not 0 <= index < profile.k:
        raise InvalidInput(f"cls must be a class name or an index 0 … {profile.k - 1}, got {given(cls)}")
    return int(index)

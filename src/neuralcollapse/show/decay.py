"""Where a run sits along the weight decay: the path for its counts, the nearest λ, and the λ of its own penalties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
import math
from typing import TYPE_CHECKING, TypeVar
import warnings

from jaxtyping import Float
import numpy as np

from neuralcollapse.experiments.records import look
from neuralcollapse.predict import (
    CollapseSafety,
    Geometry,
    RidgeEstimate,
    RidgePair,
    RidgePath,
    collapse_safety,
    predict,
)
from neuralcollapse.predict.estimates import nearest_ridge
from neuralcollapse.predict.path import ridge_path
from neuralcollapse.show.charts import Curve, Mark, Panel, Sweep, widely_spread
from neuralcollapse.show.class_axis import ONE_BY_ONE
from neuralcollapse.show.path_figures import event_marks, path_distances, path_shapes
from neuralcollapse.show.reading import Reading, as_number
from neuralcollapse.show.wording import number

if TYPE_CHECKING:
    from neuralcollapse.experiments.expected import Expected

Found = TypeVar("Found")
_DISTINCT, _POINTS = 40, 40  # counts up to which a path of so many points takes a second or two
_FEW, _MORE_POINTS = 10, 80  # with few, smooth curves cost nothing
_TOLERANCE = 1e-7  # relative gap: no picture shows more
_PARTS = ("classifiers", "embeddings")
_FAILURES = (ArithmeticError, ValueError, RuntimeError, LookupError)  # of a solver; none may break a report
_OWN, _NEAREST, _FLAT = "λ of this run's penalties", "nearest λ", "within 5 % of the nearest"


@dataclass(frozen=True, eq=False)
class AlongDecay:
    """What is known of a run along λ.

    Attributes
    ----------
    path : RidgePath
        For the counts as they were drawn and the run's own loss and bias.
    penalties : (λ_W, λ_H) or None
        As the run recorded them, loss summed; either may be 0.
    estimate : RidgeEstimate or None
        The λ nearest to the last Grams; None when none were kept.
    curves : dict
        The distance of "classifiers" and "embeddings" to the geometry at each λ of the path.
    at_own : float or None
        The same distance as the estimate's, at the λ of the run's own penalties.
    safety : CollapseSafety or None
        What the penalties merge; None unless both are positive and the loss is plain cross-entropy.
    first_collapse : float
        The λ below which nothing collapses.
    center : str
        What the measured class means are centred on.
    """

    path: RidgePath
    penalties: tuple[float, float] | None
    estimate: RidgeEstimate | None
    curves: dict[str, Float[np.ndarray, " p"]]
    at_own: float | None
    safety: CollapseSafety | None
    first_collapse: float
    center: str

    @property
    def own(self) -> float | None:
        """λ = √(λ_W λ_H) of the run's own penalties; None when one is 0 or unknown."""
        return _ridge(self.penalties)

    @property
    def n(self) -> float:
        """Training samples."""
        return float(self.path.geometries[0].counts.n)


def along_decay(reading: Reading) -> AlongDecay | None:
    """Everything above; None with too many classes or distinct counts for it, or where the solver fails."""
    return _attempted(reading, _along)


def decay_path(reading: Reading) -> RidgePath | None:
    """The geometry along λ for a run's counts, loss and bias; None where `along_decay` has none."""
    return _attempted(reading, _path)


def decay_charts(found: AlongDecay) -> dict[str, Sweep]:
    """The pictures of the section: the run's distance against λ, and the geometry along λ."""
    events = event_marks(found.path.events)
    own = () if found.own is None else (Mark(_OWN, found.own, "ink", "own λ", dashed=False),)
    estimate = found.estimate
    if estimate is None:
        marks = (*events, *own)
        return {"along": _shapes(found, marks), "along-distances": path_distances(found.path, marks)}
    marks = (*events, *own, Mark(_NEAREST, estimate.ridge, "blue", "nearest", dashed=False))
    return {"nearest": _curve_chart(found, estimate, (*marks, Mark(_FLAT, estimate.interval[0], "blue",
                                                                   end=estimate.interval[1]))),
            "along": _shapes(found, marks)}


def nearest_along(path: RidgePath, reading: Reading) -> RidgeEstimate | None:
    """λ_eff: the λ whose geometry is nearest to the last measured Grams; None when they were not kept."""
    if not {*_PARTS} & {*reading.grams(reading.last_epoch)}:
        return None
    return nearest_ridge(path, lambda geometry: _both(reading, geometry))


def gram_distance(reading: Reading, geometry: Geometry) -> dict[str, float]:
    """How far the last measured Grams are from a geometry whose class means are centred as the measured ones."""
    kept = reading.grams(reading.last_epoch)
    predicted = geometry.centred(reading.center)
    return {part: getattr(predicted, part).distance_to_product(kept[part]) for part in _PARTS if part in kept}


def _attempted(reading: Reading, solve: Callable[[Reading], Found]) -> Found | None:
    counts = reading.counts
    if counts.k > ONE_BY_ONE or counts.groups.sizes.size > _DISTINCT:
        return None
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return solve(reading)
    except _FAILURES:
        return None


# -- parts ------------------------------------------------------------------------------------------


def _path(reading: Reading) -> RidgePath:
    counts, own, expected = reading.counts, _ridge(_penalties(reading)), _own_loss(reading)
    drawn, options = (counts, {}) if expected is None else expected.in_terms_of_cross_entropy()
    top = predict(drawn, ridge=1.0, **options).total_collapse if options else math.sqrt(counts.n_max)
    low = 1e-4 * top if own is None else min(1e-4 * top, max(own / 3, 1e-8 * top))
    points = _MORE_POINTS if counts.groups.sizes.size <= _FEW else _POINTS
    return ridge_path(drawn, low=low, points=points, tolerance=_TOLERANCE, **options)


def _own_loss(reading: Reading) -> Expected | None:
    """What the settings lead to, where that is not plain cross-entropy."""
    return None if reading.expected is None or reading.expected.plain else reading.expected


def _along(reading: Reading) -> AlongDecay:
    counts, penalties, path = reading.counts, _penalties(reading), _path(reading)
    own = _ridge(penalties)
    kept = [part for part in _PARTS if part in reading.grams(reading.last_epoch)]
    curves = {part: np.array([gram_distance(reading, geometry)[part] for geometry in path.geometries])
              for part in kept}
    known = any(np.isfinite(curve).any() for curve in curves.values())
    at_own = None if own is None or not known else _both(reading, path.at(own))
    safety = None
    if penalties is not None and own is not None and _own_loss(reading) is None:
        safety = collapse_safety(counts, penalties[0] / counts.n, penalties[1] / counts.n)
    estimate = nearest_along(path, reading) if known else None
    first = min(value for value in path.geometries[0].thresholds.values() if value is not None)
    return AlongDecay(path, penalties, estimate, curves, at_own, safety, first, reading.center)


def _both(reading: Reading, geometry: Geometry) -> float:
    far = list(gram_distance(reading, geometry).values())
    return math.sqrt(sum(value**2 for value in far) / len(far))


def _penalties(reading: Reading) -> tuple[float, float] | None:
    found = [as_number(look(dict(reading.run.data), "ridges", part)) for part in _PARTS]
    return None if any(math.isnan(value) or value < 0 for value in found) else (found[0], found[1])


def _ridge(penalties: tuple[float, float] | None) -> float | None:
    return None if penalties is None or min(penalties) == 0 else RidgePair(*penalties).ridge


def _shapes(found: AlongDecay, marks: tuple[Mark, ...]) -> Sweep:
    """Norms and cosines along λ, of the same class means as in the tables of measured and predicted ones."""
    centred = tuple(geometry.centred(found.center) for geometry in found.path.geometries)
    chart = path_shapes(replace(found.path, geometries=centred), marks)
    return replace(chart, caption=f"{chart.caption} Predicted class means are centred as the measured ones.")


def _curve_chart(found: AlongDecay, estimate: RidgeEstimate, marks: tuple[Mark, ...]) -> Sweep:
    curves = (Curve("both (root mean square)", estimate.distances, "ink"),
              *(Curve(part, found.curves[part], colour, dashed=part == "embeddings")
                for part, colour in (("classifiers", "green"), ("embeddings", "purple")) if part in found.curves))
    values = np.concatenate([curve.y for curve in curves])
    panel = Panel("Distance to the geometry at λ", "distance", curves if len(found.curves) > 1 else curves[1:],
                  log_y=widely_spread(values))
    low, high = estimate.interval
    return Sweep("Distance of this network to the geometry at each λ",
                 "Distance of the last measured Gram matrices to those predicted at λ = √(λ_W λ_H), the loss summed "
                 "over samples; predicted class means are centred as the measured ones. The band holds every λ whose "
                 "distance is within 5 % of the nearest.",
                 f"The nearest λ is {number(estimate.ridge)} at a distance of {number(estimate.distance)}; from "
                 f"{number(low)} to {number(high)} the distance is within 5 % of it.",
                 (panel,), 1, found.path.ridges, True, marks=marks)

"""The geometry along λ: warm-started solutions, what happens on the way, and where a measured network sits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float, Int
import numpy as np
from scipy.optimize import minimize_scalar

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry, Setting, geometry_at, predict
from neuralcollapse.predict.symmetry import Point

_FLAT = 1.05  # λ counts as fitting while its distance is within 5 % of the best


@dataclass(frozen=True)
class Event:
    """Something that happens to the geometry at one λ.

    Attributes
    ----------
    kind : str
        "group collapse" (equal classes merge) or "total collapse".
    ridge : float
        Its threshold in closed form (the group's ω_j Δ_j √n_j; ‖Γ(0)‖₂ for the total).
    count : float
        n_j of the group; the largest count for the total.
    classes : int
        How many classes it concerns.
    confirmed : bool or None
        Whether the solutions on the path lie on the right sides of it; None where none was asked.
    """

    kind: str
    ridge: float
    count: float
    classes: int
    confirmed: bool | None = None


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The geometry at ascending ridges.

    Attributes
    ----------
    ridges : (p,) array
        λ, loss summed over samples.
    geometries : tuple of p Geometry
    to_limit, to_etf : dict of (p,) arrays
        Distances of "classifiers" and "embeddings" to the vanishing-ridge geometry and to the simplex ETF; NaN
        where the geometry is zero.
    ranks : (p,) int array
    events : tuple of Event
        Ascending in λ.
    """

    ridges: Float[np.ndarray, " p"]
    geometries: tuple[Geometry, ...]
    to_limit: Mapping[str, Float[np.ndarray, " p"]]
    to_etf: Mapping[str, Float[np.ndarray, " p"]]
    ranks: Int[np.ndarray, " p"]
    events: tuple[Event, ...]
    at: Callable[..., Geometry]

    def to_dict(self) -> dict[str, Any]:
        """The path as JSON-ready numbers, finite or None (`predict --path --json`)."""
        def numbers(values: Float[np.ndarray, " p"]) -> list[float | None]:
            return [float(value) if np.isfinite(value) else None for value in values]

        first = self.geometries[0]
        return {"counts": first.to_dict()["counts"], "loss": first.loss, "bias": first.bias,
                "ridges": self.ridges.tolist(), "ranks": self.ranks.tolist(),
                "objectives": [geometry.objective for geometry in self.geometries],
                "gaps": [geometry.gap for geometry in self.geometries],
                "to_limit": {kind: numbers(values) for kind, values in self.to_limit.items()},
                "to_etf": {kind: numbers(values) for kind, values in self.to_etf.items()},
                "events": [asdict(event) for event in self.events]}

    @property
    def worst_gap(self) -> float:
        """The largest certified relative duality gap on the path."""
        return max(geometry.gap or 0.0 for geometry in self.geometries)


@dataclass(frozen=True, eq=False)
class RidgeEstimate:
    """λ_eff: the ridge whose geometry is nearest to a measured one.

    Attributes
    ----------
    ridge : float
        The nearest λ, loss summed over samples.
    distance : float
        Root mean square of the distances it was found by, at that λ.
    interval : (low, high)
        λ whose distance is within 5 % of the best: how sharply it is known.
    ridges, distances : (p,) arrays
        The curve it was read from.
    """

    ridge: float
    distance: float
    interval: tuple[float, float]
    ridges: Float[np.ndarray, " p"]
    distances: Float[np.ndarray, " p"]


def ridge_path(counts: Any, low: float | None = None, high: float | None = None, points: int = 100, loss: str = "ce",
               *, bias: bool = False, bias_ridge: float | None = None, tolerance: float = 1e-9,
               **parameters: Any) -> RidgePath:
    """The geometry along λ, each solution started from its neighbour and certified.

    Parameters
    ----------
    counts, loss, bias, bias_ridge, tolerance, **parameters
        As in `predict`, for the cross-entropies ("ce", "weighted", "la", "ldt", "cdt", "vs").
    low, high : float, optional
        Ends of the path; 1e-4 and 1.25 times the λ of total collapse when left out.
    points : int
        Log-spaced ridges, at least 2.

    Returns
    -------
    RidgePath

    Raises
    ------
    InvalidInput
        low ≥ high, fewer than two points, and as `predict`.

    References
    ----------
    theory.md §4.

    Examples
    --------
    >>> path = ridge_path([10, 10, 1, 1], points=20)
    >>> [(event.kind, event.ridge, event.confirmed) for event in path.events]
    [('group collapse', 1.0, True), ('group collapse', 3.16..., True), ('total collapse', 3.16..., True)]
    """
    profile = ClassCounts.from_counts(counts)
    if "parent" not in GEOMETRIES[loss].options or GEOMETRIES[loss].options.get("frame") or loss == "etf":
        raise OutsideTheory(f"a path along the ridge is solved for the cross-entropies, got loss '{loss}': "
                            "its geometry is in closed form, ask predict for any ridge")
    top = predict(profile, loss, ridge=1.0, bias=bias, bias_ridge=bias_ridge, **parameters).total_collapse
    low = 1e-4 * top if low is None else positive_number("low", low)
    high = 1.25 * top if high is None else positive_number("high", high)
    if low >= high:
        raise InvalidInput(f"a path needs low < high, got {low:g} and {high:g}")
    if points < 2:
        raise InvalidInput(f"a path needs at least 2 points, got {points}")
    free = bias_ridge if bias_ridge is not None else (0.0 if bias else None)

    def at(ridge: float, start: object = None) -> Geometry:
        return geometry_at(profile, loss, Setting(ridge, free, tolerance, start), parameters)

    ridges = np.geomspace(low, high, points)
    geometries = _follow(ridges, at)
    return _described(profile, loss, parameters, ridges, geometries, at)


def lambda_eff(path: RidgePath, classifiers: Float[np.ndarray, "k d"] | None = None,
               embeddings: Float[np.ndarray, "k d"] | None = None, center: str = "none") -> RidgeEstimate:
    """The λ whose geometry is nearest to measured classifiers and class means.

    Where `balance_ridge` disagrees with it, the run has not converged or the network is outside the model.

    Parameters
    ----------
    path : RidgePath
        For the training counts and loss; the search is refined between its points.
    classifiers, embeddings : (k, d) arrays, optional
        W and the class means; at least one.
    center : str
        What the class means were centred on: "classes", "samples" or "none"; the predicted ones are centred alike.

    Returns
    -------
    RidgeEstimate

    Raises
    ------
    InvalidInput
        Neither classifiers nor embeddings.

    References
    ----------
    theory.md §6 (λ_eff).

    Examples
    --------
    >>> path = ridge_path([10, 10, 1, 1], points=30)
    >>> W, M = predict([10, 10, 1, 1], ridge=0.2).factors()
    >>> round(lambda_eff(path, W, M).ridge, 4)
    0.2
    """
    given = {"classifiers": classifiers, "embeddings": embeddings}
    factors = {name: np.asarray(factor, dtype=np.float64) for name, factor in given.items() if factor is not None}
    if not factors:
        raise InvalidInput("lambda_eff needs classifiers, embeddings or both, got neither")

    def distance(uncentred: Geometry) -> float:
        geometry = uncentred.centred(center)
        squares = [getattr(geometry, name).distance(factor) ** 2 for name, factor in factors.items()]
        return float(np.sqrt(np.mean(squares)))

    return nearest_ridge(path, distance)


def nearest_ridge(path: RidgePath, distance: Callable[[Geometry], float]) -> RidgeEstimate:
    """`lambda_eff` for a distance of one's own: a function of the geometry, NaN where it is zero."""
    curve = np.array([distance(geometry) for geometry in path.geometries])
    known = np.where(np.isnan(curve), np.inf, curve)  # beyond total collapse there is no shape to compare
    best = int(known.argmin())
    bracket = np.log(path.ridges[[max(best - 1, 0), min(best + 1, curve.size - 1)]])
    near = path.geometries[best].point
    found = minimize_scalar(lambda log: _finite(distance(path.at(float(np.exp(log)), near))), bounds=tuple(bracket),
                            method="bounded", options={"xatol": 1e-6})
    ridge, nearest = ((float(np.exp(found.x)), float(found.fun)) if found.fun < known[best]
                      else (float(path.ridges[best]), float(known[best])))
    return RidgeEstimate(ridge, nearest, _flat_interval(path.ridges, known, ridge, nearest), path.ridges, curve)


def balance_ridge(head_ridge: float, weight: Float[np.ndarray, "k d"], feature_norm: float) -> float:
    """λ = λ_W‖W‖_F/‖H‖_F, what λ must be at a stationary point: an estimate independent of the geometry.

    Parameters
    ----------
    head_ridge : float
        λ_W with the loss summed over samples (n·w for a mean loss with weight decay w).
    weight : (k, d) array
    feature_norm : float
        ‖H‖_F over all n samples, uncentred.

    References
    ----------
    theory.md §4 (balance).
    """
    return float(head_ridge * np.linalg.norm(weight) / feature_norm)


def _follow(ridges: Float[np.ndarray, " p"], at: Callable[..., Geometry]) -> tuple[Geometry, ...]:
    """Downwards from the largest ridge, where little has opened yet."""
    geometries: list[Geometry] = []
    start: object = None
    for ridge in ridges[::-1]:
        geometries.append(at(float(ridge), start))
        start = geometries[-1].point
    return tuple(reversed(geometries))


def _described(counts: ClassCounts, loss: str, parameters: Mapping[str, Any], ridges: Float[np.ndarray, " p"],
               geometries: tuple[Geometry, ...], at: Callable[..., Geometry]) -> RidgePath:
    limit = predict(counts, loss, **parameters)
    simplex = predict(counts, "etf")
    kinds = ("classifiers", "embeddings")

    def distances(to: Geometry) -> dict[str, np.ndarray]:
        return {kind: np.array([getattr(g, kind).distance_to(getattr(to, kind)) for g in geometries]) for kind in kinds}

    ranks = np.array([_rank(geometry) for geometry in geometries])
    return RidgePath(ridges, geometries, distances(limit), distances(simplex), ranks,
                     _events(parameters, ridges, geometries), at)


def _point(geometry: Geometry) -> Point:
    assert isinstance(geometry.point, Point)
    return geometry.point


def _rank(geometry: Geometry) -> int:
    """Dimensions spanned: those between the groups plus those inside each group that has not merged."""
    point = _point(geometry)
    sizes = geometry.classifiers.groups.sizes
    singular = np.linalg.svd(point.between, compute_uv=False)
    between = int(np.sum(singular > singular.max(initial=0.0) * 1e-10)) if singular.any() else 0
    return between + int(np.sum((sizes - 1) * (point.within > 0)))


def collapse_events(geometry: Geometry, parameters: Mapping[str, Any]) -> tuple[Event, ...]:
    """Where groups of equal classes merge and where everything vanishes, ascending in λ.

    Parameters
    ----------
    geometry : Geometry
        Of a cross-entropy at a ridge.
    parameters : mapping
        The loss's own.
    """
    return _in_order([*(event for _, event in _merging(geometry, parameters)), _vanishing(geometry)])


def _events(parameters: Mapping[str, Any], ridges: Float[np.ndarray, " p"],
            geometries: tuple[Geometry, ...]) -> tuple[Event, ...]:
    open_at = np.array([_point(g).within > 0 for g in geometries])
    alive = np.array([g.classifiers.frobenius > 0 for g in geometries])

    def checked(event: Event, there: np.ndarray) -> Event:
        return replace(event, confirmed=bool(np.array_equal(there, ridges < event.ridge)))

    merging = [checked(event, open_at[:, j]) for j, event in _merging(geometries[0], parameters)]
    return _in_order([*merging, checked(_vanishing(geometries[0]), alive)])


def _merging(geometry: Geometry, parameters: Mapping[str, Any]) -> list[tuple[int, Event]]:
    """The groups of several classes, each with its threshold ω_j Δ_j √n_j."""
    groups, counts = geometry.classifiers.groups, geometry.counts
    first = groups.first
    factors = [np.asarray(parameters[name], dtype=np.float64)[first] for name in ("weight", "delta")
               if parameters.get(name) is not None]
    thresholds = np.prod([np.sqrt(counts.values[first]), *factors], axis=0)
    return [(int(j), Event("group collapse", float(thresholds[j]), float(counts.values[first][j]),
                           int(groups.sizes[j]))) for j in np.flatnonzero(groups.sizes > 1)]


def _vanishing(geometry: Geometry) -> Event:
    return Event("total collapse", geometry.total_collapse, float(geometry.counts.n_max), geometry.k)


def _in_order(events: list[Event]) -> tuple[Event, ...]:
    # All vanish last: the largest groups merge at the same λ, up to rounding.
    return tuple(sorted(events, key=lambda event: (event.kind == "total collapse", event.ridge)))


def _flat_interval(ridges: Float[np.ndarray, " p"], distances: Float[np.ndarray, " p"], ridge: float,
                   nearest: float) -> tuple[float, float]:
    """Where the curve, refined by the minimum, crosses 1.05 times the best distance, by interpolation in log λ."""
    logs = np.append(np.log(ridges), np.log(ridge))
    order = np.argsort(logs)
    logs, curve = logs[order], np.append(distances, nearest)[order]
    here, level = int(np.searchsorted(logs, np.log(ridge))), _FLAT * nearest
    ends = []
    for step, stop in ((-1, -1), (1, logs.size)):
        end = logs[here]
        for i in range(here + step, stop, step):
            if curve[i] > level:
                rise = (level - curve[i - step]) / (curve[i] - curve[i - step]) if np.isfinite(curve[i]) else 1.0
                end = logs[i - step] + rise * (logs[i] - logs[i - step])
                break
            end = logs[i]
        ends.append(float(np.exp(end)))
    return ends[0], ends[1]


def _finite(value: float) -> float:
    return value if np.isfinite(value) else 10.0

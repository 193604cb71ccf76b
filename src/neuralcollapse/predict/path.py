"""The geometry along λ: warm-started solutions, and what happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory, positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.displays import path_html, path_line
from neuralcollapse.predict.geometry import PARTS, Geometry, Setting, geometry_at, predict
from neuralcollapse.predict.symmetry import Point


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
    at : callable
        The geometry at any λ, and optionally a neighbour's `point` to start from.

    Examples
    --------
    >>> path = ridge_path([10, 10, 1, 1], 0.1, 10, points=4)
    >>> path.ranks.tolist(), path.at(0.5).rank
    ([3, 3, 1, 0], 3)
    """

    ridges: Float[np.ndarray, " p"]
    geometries: tuple[Geometry, ...]
    to_limit: Mapping[str, Float[np.ndarray, " p"]]
    to_etf: Mapping[str, Float[np.ndarray, " p"]]
    ranks: Int[np.ndarray, " p"]
    events: tuple[Event, ...]
    at: Callable[..., Geometry]

    __repr__, _repr_html_ = path_line, path_html

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
    anywhere = predict(profile, loss, ridge=1.0, bias=bias, bias_ridge=bias_ridge, **parameters)
    if anywhere.parameters is None:
        raise OutsideTheory(f"a path along the ridge is solved for the cross-entropies, got loss '{loss}': "
                            "its geometry is in closed form, ask predict for any ridge")
    top = anywhere.total_collapse
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
    return _described(predict(profile, loss, **parameters), ridges, geometries, at)


def _follow(ridges: Float[np.ndarray, " p"], at: Callable[..., Geometry]) -> tuple[Geometry, ...]:
    """Downwards from the largest ridge, where little has opened yet."""
    geometries: list[Geometry] = []
    start: object = None
    for ridge in ridges[::-1]:
        geometries.append(at(float(ridge), start))
        start = geometries[-1].point
    return tuple(reversed(geometries))


def _described(limit: Geometry, ridges: Float[np.ndarray, " p"], geometries: tuple[Geometry, ...],
               at: Callable[..., Geometry]) -> RidgePath:
    simplex = predict(limit.counts, "etf")

    def distances(to: Geometry) -> dict[str, np.ndarray]:
        return {part: np.array([getattr(g, part).distance_to(getattr(to, part)) for g in geometries])
                for part in PARTS[:2]}

    ranks = np.array([_rank(geometry) for geometry in geometries])
    return RidgePath(ridges, geometries, distances(limit), distances(simplex), ranks,
                     _events(ridges, geometries), at)


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


def collapse_events(geometry: Geometry) -> tuple[Event, ...]:
    """Where groups of equal classes merge and where everything vanishes, ascending in λ.

    Parameters
    ----------
    geometry : Geometry
        Of a cross-entropy at a ridge.
    """
    return _in_order([*(event for _, event in _merging(geometry)), _vanishing(geometry)])


def _events(ridges: Float[np.ndarray, " p"], geometries: tuple[Geometry, ...]) -> tuple[Event, ...]:
    open_at = np.array([_point(g).within > 0 for g in geometries])
    alive = np.array([g.classifiers.frobenius > 0 for g in geometries])

    def checked(event: Event, there: np.ndarray) -> Event:
        return replace(event, confirmed=bool(np.array_equal(there, ridges < event.ridge)))

    merging = [checked(event, open_at[:, j]) for j, event in _merging(geometries[0])]
    return _in_order([*merging, checked(_vanishing(geometries[0]), alive)])


def _merging(geometry: Geometry) -> list[tuple[int, Event]]:
    """The groups of several classes, each with its threshold ω_j Δ_j √n_j."""
    assert geometry.parameters is not None
    groups, counts, parameters = geometry.classifiers.groups, geometry.counts, geometry.parameters
    first = groups.first
    factors = [vector[first] for vector in (parameters.weight, parameters.temperature) if vector is not None]
    thresholds = np.prod([np.sqrt(counts.values[first]), *factors], axis=0)
    return [(int(j), Event("group collapse", float(thresholds[j]), float(counts.values[first][j]),
                           int(groups.sizes[j]))) for j in np.flatnonzero(groups.sizes > 1)]


def _vanishing(geometry: Geometry) -> Event:
    return Event("total collapse", geometry.total_collapse, float(geometry.counts.n_max), geometry.k)


def _in_order(events: list[Event]) -> tuple[Event, ...]:
    # All vanish last: the largest groups merge at the same λ, up to rounding.
    return tuple(sorted(events, key=lambda event: (event.kind == "total collapse", event.ridge)))

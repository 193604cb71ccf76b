"""Where along λ a measured network sits: the nearest geometry of a path, and the balance of the norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
import numpy as np
from scipy.optimize import minimize_scalar

from neuralcollapse.checks import InvalidInput, float_array, positive_number
from neuralcollapse.predict.geometry import Geometry
from neuralcollapse.predict.path import RidgePath

_END = 1.001  # λ this close to the end of a path is its end
_FLAT = 1.05  # λ counts as fitting while its distance is within 5 % of the best


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

    @property
    def edge(self) -> str | None:
        """"smallest" or "largest" where it is the end of the λ tried, and a better one may lie beyond; else None."""
        if self.ridge <= self.ridges[0] * _END:
            return "smallest"
        return "largest" if self.ridge * _END >= self.ridges[-1] else None


def lambda_eff(path: RidgePath, classifiers: Any = None, embeddings: Any = None, center: str = "none") -> RidgeEstimate:
    """The λ whose geometry is nearest to measured classifiers and class means.

    Where `balance_ridge` disagrees with it, the run has not converged or the network is outside the model.

    Parameters
    ----------
    path : RidgePath
        For the training counts and loss; the search is refined between its points.
    classifiers, embeddings : (k, d) arrays or tensors, optional
        W and the class means; at least one.
    center : str
        What the class means were centred on: "classes", "samples" or "none"; the predicted ones are centred alike.

    Returns
    -------
    RidgeEstimate

    Raises
    ------
    InvalidInput
        Neither classifiers nor embeddings, one that is zero (class means: once centred) or not finite, another center.

    References
    ----------
    theory.md §6 (λ_eff).

    Examples
    --------
    >>> from neuralcollapse.predict import predict, ridge_path
    >>> path = ridge_path([10, 10, 1, 1], points=30)
    >>> W, M = predict([10, 10, 1, 1], ridge=0.2).factors()
    >>> round(lambda_eff(path, W, M).ridge, 4)
    0.2
    """
    given = {"classifiers": classifiers, "embeddings": embeddings}
    factors = {name: float_array(name, factor) for name, factor in given.items() if factor is not None}
    if not factors:
        raise InvalidInput("lambda_eff needs classifiers, embeddings or both, got neither")

    def distance(uncentred: Geometry) -> float:
        geometry = uncentred.centred(center)
        squares = [getattr(geometry, name).distance(factor) ** 2 for name, factor in factors.items()]
        return float(np.sqrt(np.mean(squares)))

    estimate = nearest_ridge(path, distance)
    if estimate is None:
        raise InvalidInput(f"lambda_eff needs {' and '.join(factors)} that are not zero, and a path "
                           "below total collapse")
    return estimate


def nearest_ridge(path: RidgePath, distance: Callable[[Geometry], float]) -> RidgeEstimate | None:
    """`lambda_eff` for a distance of one's own: a function of the geometry, NaN where it is zero.

    None where it is NaN at every λ.
    """
    curve = np.array([distance(geometry) for geometry in path.geometries])
    known = np.where(np.isnan(curve), np.inf, curve)  # beyond total collapse there is no shape to compare
    if not np.isfinite(known).any():
        return None
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
        ‖H‖_F > 0 over all n samples, uncentred.

    Returns
    -------
    float

    Raises
    ------
    InvalidInput
        A feature norm that is not positive.

    References
    ----------
    theory.md §4 (balance).

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> W, M = predict([10, 10, 1, 1], ridge=0.2).factors()
    >>> size = np.sqrt(np.array([10, 10, 1, 1]) @ np.sum(M**2, axis=1))
    >>> round(balance_ridge(0.2, W, size), 6)
    0.2
    """
    return float(head_ridge * np.linalg.norm(weight) / positive_number("feature_norm", feature_norm))


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

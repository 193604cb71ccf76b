"""NC2 and the norms, angles and distances to a predicted geometry, for classifiers and embeddings."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float
import numpy as np

from neuralcollapse.low_rank import DiagonalPlusLowRank
from neuralcollapse.measure.measured import METRICS, Measured, number, numbers
from neuralcollapse.predict import predict

_ROWS_AT_ONCE = 1024


@METRICS.register("nc2", source=("papyan2020", "zhu2021"),
                  scalars={"norm_cv": "norm_cv", "angle": "angle", "etf_distance": "etf_distance"})
def simplex_arrangement(measured: Measured) -> dict[str, Any]:
    """NC2: how far classifiers and centred class means are from a simplex ETF.

    `norm_cv`: standard deviation over mean of the norms; `angle`: mean over pairs of |cos + 1/(k−1)|;
    `etf_distance`: ‖Ĝ/‖Ĝ‖ − P/‖P‖‖_F with P = I − 11ᵀ/k.
    """
    return {name: _describe(measured, name) for name in ("classifiers", "embeddings")}


@METRICS.register("distance", source="thrampoulidis2022", scalars={})
def distance_to_target(measured: Measured) -> dict[str, Any]:
    """D_W, D_M, D_Z: ‖Ĝ/‖Ĝ‖ − G/‖G‖‖_F of classifiers, class means and logits WᵀM to the main target.

    Measured and predicted class means are centred alike.
    """
    if not measured.targets:
        return {"target": None, "classifiers": None, "embeddings": None, "logits": None}
    target = next(iter(measured.targets))
    return {"target": target, **_distances(measured, target)}


@METRICS.register("distances", source="thrampoulidis2022",
                  scalars={"classifiers": "classifiers", "embeddings": "embeddings", "logits": "logits"})
def distances_to_targets(measured: Measured) -> dict[str, Any]:
    """D_W, D_M, D_Z to every target asked for."""
    return {target: _distances(measured, target) for target in measured.targets}


@METRICS.register("norms", source="thrampoulidis2022", scalars={"classifiers": "norm", "embeddings": "mean_norm"},
                  per_class=("classifiers", "embeddings"))
def norms(measured: Measured) -> dict[str, Any]:
    """The lengths of classifiers and centred class means, per class."""
    means = measured.centred_means
    return {"classifiers": None if measured.weight is None else numbers(np.linalg.norm(measured.weight, axis=1)),
            "embeddings": None if means is None else numbers(np.linalg.norm(means, axis=1))}


@METRICS.register("cosines", source=("thrampoulidis2022", "fang2021"),
                  scalars={"majority_majority": "cosine/majority", "majority_minority": "cosine/across",
                           "minority_minority": "cosine/minority"})
def cosines_by_group(measured: Measured) -> dict[str, Any]:
    """Mean cosine over pairs of majority, majority and minority, and minority classes (→ 1: minority collapse)."""
    return {"classifiers": mean_cosines(measured.weight, measured.minority),
            "embeddings": mean_cosines(measured.centred_means, measured.minority)}


def mean_cosines(factor: Float[np.ndarray, "k d"] | None,
                 minority: Bool[np.ndarray, " k"]) -> dict[str, float | None]:
    """Mean cosines by group without a k × k matrix: Σ_{i≠j} cos = ‖Σ u_i‖² − Σ ‖u_i‖² over unit rows u."""
    keys = ("majority_majority", "majority_minority", "minority_minority")
    if factor is None:
        return dict.fromkeys(keys)
    lengths = np.linalg.norm(factor, axis=1)
    if (lengths == 0).any():
        return dict.fromkeys(keys)
    units = factor / lengths[:, None]
    few = int(minority.sum())
    many = minority.size - few
    sums = {True: units[minority].sum(0), False: units[~minority].sum(0)}

    def inside(size: int, total: np.ndarray) -> float | None:
        return number((total @ total - size) / (size * (size - 1))) if size > 1 else None

    across = number(sums[True] @ sums[False] / (few * many)) if few and many else None
    return dict(zip(keys, (inside(many, sums[False]), across, inside(few, sums[True])), strict=True))


def _describe(measured: Measured, name: str) -> dict[str, float | None]:
    factor = measured.factor(name)
    if factor is None:
        return {"norm_cv": None, "angle": None, "etf_distance": None}
    norms = np.linalg.norm(factor, axis=1)
    simplex = predict(np.ones(measured.k), "etf").classifiers
    return {"norm_cv": number(norms.std() / norms.mean()) if norms.any() else None,
            "angle": _mean_angle(factor, norms, measured.product(name, name)) if norms.all() else None,
            "etf_distance": _distance(measured, simplex, name, name)}


def _distances(measured: Measured, target: str) -> dict[str, float | None]:
    geometry = measured.targets[target]
    return {"classifiers": _distance(measured, geometry.classifiers, "classifiers", "classifiers"),
            "embeddings": _distance(measured, geometry.embeddings, "embeddings", "embeddings"),
            "logits": _distance(measured, geometry.logits, "classifiers", "embeddings")}


def _distance(measured: Measured, predicted: DiagonalPlusLowRank, left: str, right: str) -> float | None:
    product = measured.product(left, right)
    if product is not None:
        return number(predicted.distance_to_product(product))
    one, two = measured.factor(left), measured.factor(right)
    return None if one is None or two is None else number(predicted.distance_between(one, two))


def _mean_angle(factor: Float[np.ndarray, "k d"], norms: Float[np.ndarray, " k"],
                product: Float[np.ndarray, "k k"] | None) -> float | None:
    """Mean over pairs of |cos + 1/(k−1)|, from the product where it was formed, else from blocks of it."""
    k = norms.size
    if product is None:
        # All pairs of 10⁵ classes: the cosines are formed in float32, which leaves their mean 1e-7.
        units = (factor / norms[:, None]).astype(np.float32)
    total = 0.0
    for start in range(0, k, _ROWS_AT_ONCE):
        rows, later = slice(start, start + _ROWS_AT_ONCE), slice(start, k)  # pairs below the diagonal count by symmetry
        if product is None:
            cosines = units[rows] @ units[later].T
        else:
            cosines = product[rows, later] / np.multiply.outer(norms[rows], norms[later])
        cosines += 1 / (k - 1)
        np.abs(cosines, out=cosines)
        own = cosines[:, :cosines.shape[0]]
        np.fill_diagonal(own, 0.0)
        total += 2 * float(cosines.sum(dtype=np.float64)) - float(own.sum(dtype=np.float64))
    return number(total / (k * (k - 1)))

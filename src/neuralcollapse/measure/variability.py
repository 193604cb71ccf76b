"""NC1: how far the samples of a class have collapsed onto its mean."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.measure.measured import METRICS, Measured, number, numbers

_PAIRS_AT_ONCE = 2**22


@METRICS.register("nc1", source=("papyan2020", "tirer2023"),
                  scalars={"pinv": "within", "trace": "within_trace", "per_class": "within"})
def within_class_variability(measured: Measured) -> dict[str, Any]:
    """NC1: within-class variability against between-class variability.

    With Σ_W = (1/n) Σ_i (h_i − μ_c)(h_i − μ_c)ᵀ (each sample weighs the same) and Σ_B = (1/k) Σ_c (μ_c − μ_G)(…)ᵀ:
    `pinv` = tr(Σ_W Σ_B^†)/k, `trace` = tr Σ_W / tr Σ_B, `per_class` = (1/n_c) Σ_{i in c} ‖h_i − μ_c‖² / tr Σ_B.
    """
    means = measured.centred_means
    if means is None:
        return {"pinv": None, "trace": None, "per_class": [None] * measured.k}
    between = np.sum(means**2) / measured.k
    if between == 0:
        return {"pinv": None, "trace": None, "per_class": [None] * measured.k}
    n = measured.seen.sum()
    pinv = None
    if measured.scatter is not None:
        pinv = number(_trace_with_pseudo_inverse(measured.scatter / n, means, measured.center != "none"))
    return {"pinv": pinv, "trace": number(measured.squares.sum() / n / between),
            "per_class": numbers(measured.squares / measured.seen / between)}


@METRICS.register("cdnv", source="galanti2022", scalars={"": "cdnv"})
def class_distance_normalised_variance(measured: Measured) -> float | None:
    """CDNV: mean over pairs of classes of (σ_c² + σ_c'²)/(2‖μ_c − μ_c'‖²), σ_c² the mean squared distance to μ_c."""
    if not measured.complete:
        return None
    variance = measured.squares / measured.seen
    means = measured.means - measured.means.mean(0)
    k = measured.k
    total = 0.0
    rows = max(1, _PAIRS_AT_ONCE // k)
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, k, rows):
            block = np.arange(start, min(start + rows, k))
            ratio = np.add.outer(variance[block], variance) / (2 * _squared_distances(means, block))
            ratio[np.arange(block.size), block] = 0.0
            total += float(ratio.sum())
    return number(total / (k * (k - 1)))


def _trace_with_pseudo_inverse(within: Float[np.ndarray, "d d"], means: Float[np.ndarray, "k d"],
                               centred: bool) -> float:
    """tr(Σ_W Σ_B^†)/k through the smaller of k × k and d × d.

    Eigenvalues of Σ_B below max(k, d)·eps of the largest count as zero, and centred means have rank k − 1 at most.
    """
    k, d = means.shape
    if k <= d:
        eigenvalues, vectors = np.linalg.eigh(means @ means.T / k)
        inside = np.einsum("kj,kj->j", vectors, (means @ within @ means.T) @ vectors) / k
    else:
        eigenvalues, vectors = np.linalg.eigh(means.T @ means / k)
        inside = np.einsum("dj,dj->j", vectors, within @ vectors) * np.maximum(eigenvalues, 0.0)
    kept = eigenvalues > eigenvalues[-1] * max(k, d) * np.finfo(float).eps
    if centred and k <= d:
        kept[0] = False
    return float(np.sum(inside[kept] / eigenvalues[kept] ** 2) / k)


def _squared_distances(means: Float[np.ndarray, "k d"], block: np.ndarray) -> Float[np.ndarray, "b k"]:
    """‖μ_c − μ_c'‖² for c in `block`; pairs too close for the product form are formed by their difference."""
    norms = np.sum(means**2, axis=1)
    scale = np.add.outer(norms[block], norms)
    distances = scale - 2 * means[block] @ means.T
    i, j = np.nonzero(distances < 1e-3 * scale)
    for part in np.array_split(np.arange(i.size), max(1, i.size * means.shape[1] // _PAIRS_AT_ONCE)):
        distances[i[part], j[part]] = np.sum((means[block[i[part]]] - means[j[part]]) ** 2, axis=1)
    return distances

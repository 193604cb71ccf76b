"""NC1: how far the samples of a class have collapsed onto its mean."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.measure.measured import METRICS, Measured, number, numbers

_PAIRS_AT_ONCE = 2**22


@METRICS.register("nc1", source=("papyan2020", "tirer2023"),
                  scalars={"pinv": "within", "trace": "within_trace", "per_class": "within", "rank": "rank",
                           "effective_rank": "effective_rank"}, per_class=("per_class",))
def within_class_variability(measured: Measured) -> dict[str, Any]:
    """NC1: within-class variability against between-class variability.

    With Σ_W = (1/n) Σ_i (h_i − μ_c)(h_i − μ_c)ᵀ (each sample weighs the same) and Σ_B = (1/k) Σ_c (μ_c − μ_G)(…)ᵀ:
    `pinv` = tr(Σ_W Σ_B^†)/k, `trace` = tr Σ_W / tr Σ_B, `per_class` = (1/n_c) Σ_{i in c} ‖h_i − μ_c‖² / tr Σ_B.
    The pseudo-inverse counts eigenvalues of Σ_B up to `cutoff` times the largest as zero; `rank` are left, and
    `effective_rank` is the exponential of their entropy (both k − 1 for a simplex).
    """
    means, spectrum = measured.centred_means, measured.spectrum
    if means is None or spectrum is None or spectrum.values.size == 0:
        return {"pinv": None, "trace": None, "per_class": [None] * measured.k, "rank": None, "effective_rank": None,
                "cutoff": None}
    between = np.sum(means**2) / measured.k
    pinv = None if measured.within is None else float(np.sum(measured.within / spectrum.values)) / measured.k
    return {"pinv": None if pinv is None else number(pinv),
            "trace": number(measured.squares.sum() / measured.seen.sum() / between),
            "per_class": numbers(measured.squares / measured.seen / between),
            "rank": int(spectrum.values.size), "effective_rank": number(spectrum.effective_rank),
            "cutoff": spectrum.cutoff}


@METRICS.register("cdnv", source="galanti2022", scalars={"": "cdnv"})
def class_distance_normalised_variance(measured: Measured) -> float | None:
    """CDNV: mean over pairs of classes of (σ_c² + σ_c'²)/(2‖μ_c − μ_c'‖²), σ_c² the mean squared distance to μ_c."""
    means = measured.centred_means
    if means is None:
        return None
    variance = measured.squares / measured.seen
    # About a centre of the means, where the product form of a distance loses least.
    means = means - means.mean(0) if measured.center == "none" else means
    product = None if measured.center == "none" else measured.product("embeddings", "embeddings")
    k = measured.k
    total = 0.0
    norms = np.sum(means**2, axis=1)
    step = max(1, _PAIRS_AT_ONCE // k)
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, k, step):
            rows, later = slice(start, start + step), slice(start, k)  # pairs below the diagonal count by symmetry
            distances = _squared_distances(means, norms, rows, later, product)
            ratio = np.add.outer(variance[rows], variance[later]) / (2 * distances)
            own = ratio[:, :ratio.shape[0]]
            np.fill_diagonal(own, 0.0)
            total += 2 * float(ratio.sum()) - float(own.sum())
    return number(total / (k * (k - 1)))


def _squared_distances(means: Float[np.ndarray, "k d"], norms: Float[np.ndarray, " k"], rows: slice, columns: slice,
                       product: Float[np.ndarray, "k k"] | None) -> Float[np.ndarray, "b c"]:
    """‖μ_c − μ_c'‖²; pairs too close for the product form are formed by their difference."""
    scale = np.add.outer(norms[rows], norms[columns])
    distances = scale - 2 * (means[rows] @ means[columns].T if product is None else product[rows, columns])
    i, j = np.nonzero(distances < 1e-3 * scale)
    for part in np.array_split(np.arange(i.size), max(1, i.size * means.shape[1] // _PAIRS_AT_ONCE)):
        apart = means[rows.start + i[part]] - means[columns.start + j[part]]
        distances[i[part], j[part]] = np.sum(apart**2, axis=1)
    return distances

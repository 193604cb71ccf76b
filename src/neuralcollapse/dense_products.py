"""Products of dense matrices and the distance between their shapes, to as many digits as they have."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from neuralcollapse.threads import one_blas_thread

_NEAR = 1e-4  # 1 − cosine below which a distance is formed from the difference, entry by entry
_THREADS_PAY_FROM = 256  # columns from which a product gains from several BLAS threads


def inner_products(rows: Float[np.ndarray, "p d"]) -> Float[np.ndarray, "d d"]:
    """RᵀR."""
    if rows.shape[1] >= _THREADS_PAY_FROM:
        return rows.T @ rows
    with one_blas_thread():
        return rows.T @ rows


def unit_distance(one: Float[np.ndarray, "k k"], two: Float[np.ndarray, "k k"]) -> float:
    """‖A/‖A‖ − B/‖B‖‖_F; NaN when either is zero."""
    sizes = np.linalg.norm(one), np.linalg.norm(two)
    if 0 in sizes:
        return float("nan")
    cosine = float(np.vdot(one, two)) / float(sizes[0] * sizes[1])
    if cosine < 1 - _NEAR:  # a third of the passes over k × k, and twelve digits
        return float(np.sqrt(2 - 2 * cosine))
    return float(np.linalg.norm(one / sizes[0] - two / sizes[1]))

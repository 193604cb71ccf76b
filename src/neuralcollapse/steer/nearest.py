"""The nearest other row of a matrix, by distance and by angle, without a k × k matrix."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np

_ENTRIES_AT_ONCE = 2**22


class Nearest(NamedTuple):
    """Per row of a matrix.

    Attributes
    ----------
    row : (k,) int array
        The row at the smallest distance.
    distance : (k,) array
        That distance.
    cosine : (k,) array
        The largest cosine with another row; NaN for a zero row, and zero rows are nobody's nearest.
    """

    row: Int[np.ndarray, " k"]
    distance: Float[np.ndarray, " k"]
    cosine: Float[np.ndarray, " k"]


def nearest_rows(matrix: Float[np.ndarray, "k d"]) -> Nearest:
    """min_{j≠c} ‖v_c − v_j‖ and max_{j≠c} cos(v_c, v_j) for every row, block by block.

    Parameters
    ----------
    matrix : (k, d) array
        At least two rows.

    Examples
    --------
    >>> nearest_rows(np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])).row.tolist()
    [1, 0, 0]
    """
    k = len(matrix)
    squares = np.einsum("kd,kd->k", matrix, matrix)
    units = np.divide(matrix, np.sqrt(squares)[:, None], out=np.zeros_like(matrix), where=squares[:, None] > 0)
    index, cosine = np.empty(k, dtype=np.int64), np.empty(k)
    step = max(1, _ENTRIES_AT_ONCE // k)
    for start in range(0, k, step):
        part = np.arange(start, min(start + step, k))
        local = part - start
        apart = squares - 2 * matrix[part] @ matrix.T
        apart[local, part] = np.inf
        index[part] = apart.argmin(1)
        cosines = units[part] @ units.T
        cosines[:, squares == 0] = -np.inf
        cosines[local, part] = -np.inf
        cosine[part] = cosines.max(1)
    cosine[(squares == 0) | np.isinf(cosine)] = np.nan
    # From the difference itself: the product form loses half the digits where two rows coincide.
    return Nearest(index, np.linalg.norm(matrix - matrix[index], axis=1), cosine)

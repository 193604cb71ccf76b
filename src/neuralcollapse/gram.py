"""Gram matrices in the form of `low_rank.py`: norms, angles and the distance to a measured factor."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.displays import gram_html, gram_line
from neuralcollapse.low_rank import DiagonalPlusLowRank

__all__ = ["DiagonalPlusLowRank", "Gram"]


class Gram(DiagonalPlusLowRank):
    """The Gram matrix of k vectors: their norms and angles, blind to rotation.

    Parameters
    ----------
    groups, diagonal, core, basis, own_diagonal
        As of `DiagonalPlusLowRank`, the core symmetric; `from_dense` and `from_blocks` make one from entries.

    Raises
    ------
    InvalidInput
        Shapes that do not fit together.

    References
    ----------
    theory.md §2 (every predicted Gram matrix is a diagonal plus a low-rank part).

    Examples
    --------
    >>> from neuralcollapse.groups import group_equal
    >>> groups = group_equal(np.zeros(4))
    >>> simplex = Gram.from_blocks(groups, np.array([1.0]), np.array([[-1 / 3]]))
    >>> simplex.cosines()[0].round(3).tolist()
    [1.0, -0.333, -0.333, -0.333]
    """

    __repr__, _repr_html_ = gram_line, gram_html

    @property
    def norms(self) -> Float[np.ndarray, " k"]:
        """The length of each vector."""
        return np.sqrt(np.maximum(self._group_diagonal, 0.0))[self.groups.index]

    def cosines(self, rows: Int[np.ndarray, " p"] | None = None,
                columns: Int[np.ndarray, " q"] | None = None) -> Float[np.ndarray, "p q"]:
        """Cosines between the vectors of `rows` and of `columns` (all when left out); NaN beside a zero vector.

        Parameters
        ----------
        rows, columns : (p,), (q,) int arrays, optional
            Classes.
        """
        rows = np.arange(self.k) if rows is None else rows
        columns = np.arange(self.k) if columns is None else columns
        norms = self.norms
        lengths = np.multiply.outer(norms[rows], norms[columns])
        lengths[lengths == 0] = np.nan
        cosines = np.clip(self.block(rows, columns) / lengths, -1.0, 1.0)
        return np.where(np.equal.outer(rows, columns) & (lengths > 0), 1.0, cosines)

    def distance(self, factor: Any) -> float:
        """‖WWᵀ/‖WWᵀ‖ − G/‖G‖‖_F to the Gram matrix of a measured factor; see `distance_between`.

        Parameters
        ----------
        factor : (k, d) float array or tensor, or Gram
            W, one row per class; or another matrix of this form, which `distance_to` takes.
        """
        if isinstance(factor, DiagonalPlusLowRank):
            return self.distance_to(factor)
        return self.distance_between(factor, factor)

    def unit(self) -> Gram:
        """The same geometry with Frobenius norm 1; a zero matrix stays zero."""
        return self * (1 / self.frobenius) if self.frobenius > 0 else self

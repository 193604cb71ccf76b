"""A diagonal plus a low-rank matrix, shared by groups of alike classes: the form of everything that is predicted.

    G = diag(a) + U S Uᵀ,   classes of one group share their entry of a and their row of U

Every predicted geometry has this form (`theory.md` §2: resolvents of a diagonal minus rank one), so that
a million classes cost O(g r) to hold and O(g r²) to compare, never k × k.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

from jaxtyping import Float, Int
import numpy as np
from scipy import sparse

from neuralcollapse.checks import InvalidInput, float_array, require_finite
from neuralcollapse.dense_products import inner_products, unit_distance
from neuralcollapse.groups import Groups, group_equal
from neuralcollapse.threads import one_blas_thread

_ROWS_AT_ONCE = 8_192  # rows converted to float64 at a time when a factor is float32
DENSE_BELOW = 1_024  # k up to which differences are formed entry by entry whatever d is

M = TypeVar("M", bound="DiagonalPlusLowRank")


class DiagonalPlusLowRank:
    """A k × k matrix diag(a) + U S Uᵀ whose rows repeat within groups of classes.

    Parameters
    ----------
    groups : Groups
        Which of the k classes share their entries.
    diagonal : (g,) array
        a, one entry per group.
    core : (r, r) array
        S; symmetric for a `Gram`, arbitrary for logits.
    basis : (g, r) array, optional
        U, one row per group; the identity (r = g) when left out.
    own_diagonal : (g,) array, optional
        The diagonal of the whole matrix, where the caller knows it more accurately than a + diag(U S Uᵀ)
        gives it (the two parts may cancel).

    Raises
    ------
    InvalidInput
        Shapes that do not fit together.

    Examples
    --------
    >>> groups = Groups(np.array([0, 0, 1]), np.array([2, 1]))
    >>> DiagonalPlusLowRank(groups, np.array([1.0, 2.0]), np.array([[3.0, 4.0], [5.0, 6.0]])).dense().tolist()
    [[4.0, 3.0, 4.0], [3.0, 4.0, 4.0], [5.0, 5.0, 8.0]]
    """

    def __init__(self, groups: Groups, diagonal: Float[np.ndarray, " g"], core: Float[np.ndarray, "r r"],
                 basis: Float[np.ndarray, "g r"] | None = None,
                 own_diagonal: Float[np.ndarray, " g"] | None = None):
        rows = (groups.sizes.size, core.shape[0])
        if diagonal.shape != rows[:1] or (rows[0] != rows[1] if basis is None else basis.shape != rows):
            raise InvalidInput(f"a matrix over {rows[0]} groups with a core of {rows[1]} cannot have a diagonal "
                               f"of {diagonal.shape} and a basis of {None if basis is None else basis.shape}")
        self.groups = groups
        self.diagonal = diagonal
        self.core = core
        self.basis = basis
        self._own_diagonal = own_diagonal

    @classmethod
    def from_dense(cls: type[M], matrix: Float[np.ndarray, "k k"]) -> M:
        """A dense k × k matrix in this form, every class a group of its own.

        Examples
        --------
        >>> float(DiagonalPlusLowRank.from_dense(2 * np.eye(3)).trace)
        6.0
        """
        k = matrix.shape[0]
        singletons = Groups(np.arange(k), np.ones(k, dtype=np.int64))
        return cls(singletons, np.zeros(k), np.asarray(matrix, dtype=np.float64))

    @classmethod
    def from_blocks(cls: type[M], groups: Groups, own: Float[np.ndarray, " g"],
                    between: Float[np.ndarray, "g g"]) -> M:
        """The matrix with `own` on the diagonal and `between[i, j]` for two different classes of groups i, j.

        A group of one class has no pair inside it, so its `between[i, i]` is not looked at.
        """
        alone = groups.sizes == 1
        core = between.copy()
        np.fill_diagonal(core, np.where(alone, own, core.diagonal()))
        return cls(groups, own - core.diagonal(), core, own_diagonal=own)

    # -- entries ------------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Number of classes."""
        return int(self.groups.index.size)

    def diagonal_entries(self) -> Float[np.ndarray, " k"]:
        """The diagonal of the whole matrix."""
        return self._group_diagonal[self.groups.index]

    def block(self, rows: Int[np.ndarray, " p"], columns: Int[np.ndarray, " q"]) -> Float[np.ndarray, "p q"]:
        """The entries of some rows and columns."""
        i, j = self.groups.index[rows], self.groups.index[columns]
        entries = self.core[np.ix_(i, j)] if self.basis is None else self.basis[i] @ self.core @ self.basis[j].T
        same = np.equal.outer(rows, columns)
        return np.where(same, self._group_diagonal[i][:, None], entries)

    def dense(self) -> Float[np.ndarray, "k k"]:
        """All k × k entries."""
        index = self.groups.index
        low_rank = self.core if self.basis is None else self.basis @ self.core @ self.basis.T
        entries = low_rank[index][:, index]
        np.fill_diagonal(entries, self._group_diagonal[index])
        return entries

    @property
    def trace(self) -> float:
        """Sum of the diagonal."""
        return float(self.groups.sizes @ self._group_diagonal)

    # -- Frobenius geometry -------------------------------------------------------------------------

    @cached_property
    def frobenius(self) -> float:
        """Frobenius norm, in O(g r²)."""
        sizes = self.groups.sizes
        own = sizes @ self._group_diagonal**2
        if self.basis is None:  # pairs of different classes counted one by one: nothing cancels
            pairs = np.multiply.outer(sizes, sizes) - np.diag(sizes)
            return float(np.sqrt(own + np.sum(pairs * self.core**2)))
        with one_blas_thread():
            overlap = self.basis.T @ (sizes[:, None] * self.basis)
            low_rank = (np.sum((self.core @ overlap) * (overlap @ self.core))
                        - sizes @ self._low_rank_diagonal**2)
        return float(np.sqrt(max(own + low_rank, 0.0)))

    def inner(self, other: DiagonalPlusLowRank) -> float:
        """Frobenius inner product tr(GᵀF) with another matrix of this form; InvalidInput for another k."""
        if not self.groups.same_as(other.groups):
            joint = self._joint_groups(other)
            return self.regrouped(joint).inner(other.regrouped(joint))
        sizes = self.groups.sizes
        on_diagonal = sizes @ (self._group_diagonal * other._group_diagonal
                               - self._low_rank_diagonal * other._low_rank_diagonal)
        mine, theirs = self._explicit_basis(), other._explicit_basis()
        with one_blas_thread():
            overlap = mine.T @ (sizes[:, None] * theirs)
        return float(on_diagonal + np.sum((self.core @ overlap) * (overlap @ other.core)))

    def distance_between(self, left: Any, right: Any) -> float:
        """‖L Rᵀ/‖L Rᵀ‖ − G/‖G‖‖_F for a product given by its factors, without a k × k matrix when k ≫ d.

        A distance near 0 needs rank k − 1, hence d ≥ k − 1: there k × k is no larger than the factors, and the
        difference is formed entry by entry, exact to rounding. Otherwise √(2 − 2⟨·,·⟩), accurate to 1e-8.

        Parameters
        ----------
        left, right : (k, d) float arrays or tensors
            float32 is converted to float64 block by block.

        Returns
        -------
        float
            In [0, 2]; NaN when either matrix is zero.

        Raises
        ------
        InvalidInput
            Factors that do not have one row of finite numbers per class.
        """
        left, right = (self._factor(left),) * 2 if left is right else (self._factor(left), self._factor(right))
        if self.k <= max(DENSE_BELOW, 2 * left.shape[1]):
            return self.distance_to_product(left.astype(np.float64) @ right.astype(np.float64).T)
        inner, size = self._inner_with_product(left, right)
        if size == 0 or self.frobenius == 0:
            return float("nan")
        return float(np.sqrt(max(2 - 2 * inner / (size * self.frobenius), 0.0)))

    def _factor(self, values: Any) -> Float[np.ndarray, "k d"]:
        """One row of finite numbers per class, or InvalidInput."""
        factor = float_array("a factor", values)
        if factor.ndim != 2 or factor.shape[0] != self.k:
            raise InvalidInput(f"a factor must have one row per class, expected ({self.k}, d), got {factor.shape}")
        require_finite("a factor", factor)
        return factor

    def distance_to_product(self, product: Float[np.ndarray, "k k"]) -> float:
        """The same for a product that was formed already."""
        return unit_distance(product, self.dense())

    def distance_to(self, other: DiagonalPlusLowRank) -> float:
        """‖G/‖G‖ − F/‖F‖‖_F to another matrix of this form, NaN when either is zero; InvalidInput for another k."""
        self._require_same_classes(other)
        if self.frobenius == 0 or other.frobenius == 0:
            return float("nan")
        by_entries = self.basis is None and other.basis is None and self.groups.same_as(other.groups)
        if self.k <= DENSE_BELOW and not by_entries:
            return unit_distance(self.dense(), other.dense())
        return (self * (1 / self.frobenius) + other * (-1 / other.frobenius)).frobenius

    # -- algebra ------------------------------------------------------------------------------------

    def __matmul__(self, factor: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
        """G X for a (k, d) matrix, in O(k d + g r d)."""
        sums = self._indicator @ factor
        projected = sums if self.basis is None else self.basis.T @ sums
        mixed = self.core @ projected
        spread = mixed if self.basis is None else self.basis @ mixed
        index = self.groups.index
        return self.diagonal[index, None] * factor + spread[index]

    def __mul__(self: M, scale: float) -> M:
        own = None if self._own_diagonal is None else self._own_diagonal * scale
        return type(self)(self.groups, self.diagonal * scale, self.core * scale, self.basis, own)

    __rmul__ = __mul__

    def __add__(self: M, other: DiagonalPlusLowRank) -> M:
        """G + F over the same classes; InvalidInput for another k."""
        if not self.groups.same_as(other.groups):
            joint = self._joint_groups(other)
            return self.regrouped(joint) + other.regrouped(joint)
        own = self._group_diagonal + other._group_diagonal
        diagonal = self.diagonal + other.diagonal
        if self.basis is None and other.basis is None:
            return type(self)(self.groups, diagonal, self.core + other.core, own_diagonal=own)
        r, q = self.core.shape[0], other.core.shape[0]
        core = np.zeros((r + q, r + q))
        core[:r, :r], core[r:, r:] = self.core, other.core
        basis = np.hstack([self._explicit_basis(), other._explicit_basis()])
        return type(self)(self.groups, diagonal, core, basis, own)

    def regrouped(self: M, finer: Groups) -> M:
        """The same matrix over a finer partition of the classes."""
        rows = self.groups.index[finer.first]
        own = self._group_diagonal[rows]
        return type(self)(finer, self.diagonal[rows], self.core, self._explicit_basis()[rows], own)

    def columns_centred(self: M, share: Float[np.ndarray, " k"]) -> M:
        """G(I − a1ᵀ): what is left of G = LRᵀ when Σ_c a_c r_c is subtracted from every row of R.

        Parameters
        ----------
        share : (k,) array
            a, constant within groups.
        """
        v = (self @ share[:, None])[self.groups.first, 0]
        return self._minus_outer(v, np.zeros_like(v), 0.0)

    def centred(self: M, share: Float[np.ndarray, " k"]) -> M:
        """(I − 1aᵀ)G(I − a1ᵀ) of a symmetric G: the Gram matrix of the vectors about their weighted mean."""
        means = self @ share[:, None]
        v = means[self.groups.first, 0]
        return self._minus_outer(v, v, float(share @ means[:, 0]))

    def _minus_outer(self: M, rows: Float[np.ndarray, " g"], columns: Float[np.ndarray, " g"], level: float) -> M:
        """G_ij − rows_i − columns_j + level."""
        own = self._group_diagonal - rows - columns + level
        if self.basis is None:
            return type(self).from_blocks(self.groups, own, self.core - rows[:, None] - columns[None, :] + level)
        r = self.core.shape[0]
        core = np.zeros((r + 3, r + 3))
        core[:r, :r] = self.core
        core[r, r], core[r + 1, r], core[r, r + 2] = level, -1.0, -1.0
        return type(self)(self.groups, self.diagonal, core,
                          np.column_stack([self.basis, np.ones_like(rows), rows, columns]), own)

    # -- parts --------------------------------------------------------------------------------------

    @cached_property
    def _low_rank_diagonal(self) -> Float[np.ndarray, " g"]:
        if self.basis is None:
            return self.core.diagonal().copy()
        return np.einsum("gr,gr->g", self.basis @ self.core, self.basis)

    @cached_property
    def _group_diagonal(self) -> Float[np.ndarray, " g"]:
        return self._own_diagonal if self._own_diagonal is not None else self.diagonal + self._low_rank_diagonal

    @cached_property
    def _indicator(self) -> sparse.csr_array:
        """(g, k): sums the rows of each group."""
        order = np.argsort(self.groups.index, kind="stable")
        ends = np.concatenate([[0], np.cumsum(self.groups.sizes)])
        return sparse.csr_array((np.ones(self.k), order, ends), shape=(self.groups.sizes.size, self.k))

    def _explicit_basis(self) -> Float[np.ndarray, "g r"]:
        return np.eye(self.core.shape[0]) if self.basis is None else self.basis

    def _joint_groups(self, other: DiagonalPlusLowRank) -> Groups:
        self._require_same_classes(other)
        return group_equal(self.groups.index, other.groups.index)

    def _require_same_classes(self, other: DiagonalPlusLowRank) -> None:
        if self.k != other.k:
            raise InvalidInput(f"both matrices must have the same classes, got {self.k} and {other.k}")

    def _inner_with_product(self, left: Float[np.ndarray, "k d"],
                            right: Float[np.ndarray, "k d"]) -> tuple[float, float]:
        """⟨L Rᵀ, G⟩ and ‖L Rᵀ‖_F in one sweep over the rows."""
        symmetric = left is right
        r, d = self.core.shape[0], left.shape[1]
        on_diagonal = 0.0
        sums_left, sums_right = np.zeros((r, d)), np.zeros((r, d))
        gram_left, gram_right = np.zeros((d, d)), np.zeros((d, d))
        basis = self._explicit_basis()
        for start in range(0, self.k, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, self.k))
            index = self.groups.index[rows]
            one = left[rows].astype(np.float64, copy=False)
            two = one if symmetric else right[rows].astype(np.float64, copy=False)
            on_diagonal += float(self.diagonal[index] @ np.einsum("kd,kd->k", one, two))
            spread = basis[index].T
            with one_blas_thread():
                sums_left += spread @ one
                sums_right += 0.0 if symmetric else spread @ two
            gram_left += inner_products(one)
            gram_right += 0.0 if symmetric else inner_products(two)
        if symmetric:
            sums_right, gram_right = sums_left, gram_left
        inner = on_diagonal + float(np.sum(self.core * (sums_left @ sums_right.T)))
        return inner, float(np.sqrt(max(np.sum(gram_left * gram_right), 0.0)))

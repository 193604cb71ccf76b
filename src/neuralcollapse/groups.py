"""Classes that are alike: a partition into groups, so that k classes cost as much as their distinct kinds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Int, Shaped
import numpy as np


@dataclass(frozen=True)
class Groups:
    """A partition of k classes into g groups of interchangeable ones.

    Parameters
    ----------
    index : (k,) int array
        The group of each class.
    sizes : (g,) int array
        How many classes each group holds.
    """

    index: Int[np.ndarray, " k"]
    sizes: Int[np.ndarray, " g"]

    @cached_property
    def first(self) -> Int[np.ndarray, " g"]:
        """One class of each group."""
        first = np.empty(self.sizes.size, dtype=np.int64)
        first[self.index[::-1]] = np.arange(self.index.size - 1, -1, -1)
        return first

    def same_as(self, other: Groups) -> bool:
        """Whether both are the same partition, numbered alike."""
        return self is other or (self.sizes.size == other.sizes.size
                                 and np.array_equal(self.index, other.index))


def group_equal(*columns: Shaped[np.ndarray, " k"]) -> Groups:
    """Group the classes whose entries agree in every column; groups ascend in the first column."""
    return refine(_group(columns[0]), *columns[1:])


def refine(groups: Groups, *columns: Shaped[np.ndarray, " k"]) -> Groups:
    """Split groups until the entries of every column agree within each."""
    for column in columns:
        if (column == column[0]).all():  # the common case of neutral parameters
            continue
        inner = _group(column)
        groups = _group(groups.index * inner.sizes.size + inner.index)
    return groups


def _group(column: Shaped[np.ndarray, " k"]) -> Groups:
    # Whole numbers that are not much larger than k are sorted by counting: an order faster than np.unique.
    low, high = column.min(), column.max()
    if low >= 0 and high <= 4 * column.size + 1_000_000:
        whole = column.astype(np.int64)
        if column.dtype.kind in "iu" or np.array_equal(whole, column):
            tally = np.bincount(whole)
            present = np.flatnonzero(tally)
            rank = np.zeros(tally.size, dtype=np.int64)
            rank[present] = np.arange(present.size)
            return Groups(rank[whole], tally[present])
    _, index, sizes = np.unique(column, return_inverse=True, return_counts=True)
    return Groups(index.reshape(-1), sizes)

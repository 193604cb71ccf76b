"""How the classes stand along an axis: one by one, most frequent first, or as groups of similar count."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.show.palette import short_names

ONE_BY_ONE = 200  # classes up to which a run keeps its Grams and bars stay readable
_GROUPS = 10


@dataclass(frozen=True)
class ClassAxis:
    """The places of an axis and which classes stand at each.

    Attributes
    ----------
    names : (m,) tuple of str
    members : (k,) int array
        The place of each class.
    grouped : bool
        Whether places hold several classes each.
    """

    names: tuple[str, ...]
    members: Int[np.ndarray, " k"]
    grouped: bool

    @property
    def description(self) -> str:
        """What the axis shows, as the start of a caption."""
        text = "Classes from most to least frequent in training"
        if not self.grouped:
            return text
        low, high = int(self.sizes.min()), int(self.sizes.max())
        many = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        return f"{text}, in {self.size} groups of {many} classes with n samples each"

    @property
    def size(self) -> int:
        """Number of places, m."""
        return len(self.names)

    @property
    def sizes(self) -> Int[np.ndarray, " m"]:
        """Classes at each place."""
        return np.bincount(self.members, minlength=self.size)

    def values(self, per_class: Float[np.ndarray, " k"]) -> Float[np.ndarray, " m"]:
        """The mean of a per-class number at each place, over the classes that have one."""
        known = np.isfinite(per_class)
        total = np.bincount(self.members, np.where(known, per_class, 0.0), self.size)
        have = np.bincount(self.members, known, self.size)
        return np.divide(total, have, out=np.full(self.size, np.nan), where=have > 0)

    def reorder(self, matrix: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
        """A measured k × k matrix in the order of the axis (class by class only)."""
        order = np.argsort(self.members, kind="stable")
        return np.asarray(matrix, dtype=np.float64)[np.ix_(order, order)]

    def dense(self, matrix: DiagonalPlusLowRank) -> Float[np.ndarray, "k k"]:
        """A predicted matrix at unit Frobenius norm in the order of the axis (class by class only)."""
        size = matrix.frobenius
        return self.reorder(matrix.dense()) / (size if size > 0 else 1.0)

    def mean_cosines(self, gram: Gram) -> Float[np.ndarray, "m m"]:
        """The mean cosine over pairs of different classes of two places; NaN where there is no pair."""
        places = np.zeros((self.members.size, self.size))
        places[np.arange(self.members.size), self.members] = 1.0
        return mean_cosines(gram, places)


def class_axis(counts: ClassCounts, one_by_one: int = ONE_BY_ONE) -> ClassAxis:
    """Class by class up to `one_by_one` classes, beyond that in at most ten groups of similar count."""
    order = np.argsort(-counts.values, kind="stable")
    members = np.empty(counts.k, dtype=np.int64)
    if counts.k <= one_by_one:
        members[order] = np.arange(counts.k)
        names = short_names(counts.names)
        return ClassAxis(tuple(names[c] for c in order), members, False)
    groups = counts.groups
    if groups.sizes.size <= _GROUPS:
        members = groups.sizes.size - 1 - groups.index  # groups ascend in the count
    else:  # halves of the places for majority and minority, so that no place mixes them
        many = counts.k - int(counts.minority.sum())
        half = _GROUPS // 2
        members[order[:many]] = np.arange(many) * half // many
        members[order[many:]] = half + np.arange(counts.k - many) * half // (counts.k - many)
        members = np.unique(members, return_inverse=True)[1]  # no empty place
    size = int(members.max()) + 1
    return ClassAxis(tuple(_group_name(counts.values[members == place]) for place in range(size)), members, True)


def mean_cosines(gram: Gram, places: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "m m"]:
    """The mean cosine over pairs of different classes, one from each of two sets; O(k m) for a predicted Gram.

    Parameters
    ----------
    gram : Gram
    places : (k, m) array of 0 and 1
        Which classes belong to each set; zero vectors are left out.

    Returns
    -------
    (m, m) array
        NaN where two sets share no pair.
    """
    norms = gram.norms
    there = norms > 0
    unit = places * np.where(there, 1.0 / np.where(there, norms, 1.0), 0.0)[:, None]
    sizes = places[there].sum(axis=0)
    total = unit.T @ (gram @ unit) - np.diag(sizes)  # a vector's cosine with itself is no pair
    pairs = np.multiply.outer(sizes, sizes) - np.diag(sizes)
    return np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)


def split_cosines(gram: Gram, minority: Bool[np.ndarray, " k"]) -> dict[str, float | None]:
    """Mean cosines between majority and minority classes, as a measurement reports them."""
    table = mean_cosines(gram, np.stack([~minority, minority], axis=1).astype(np.float64))
    parts = {"majority_majority": table[0, 0], "majority_minority": table[0, 1], "minority_minority": table[1, 1]}
    return {name: None if np.isnan(value) else float(value) for name, value in parts.items()}


def _group_name(counts: Float[np.ndarray, " c"]) -> str:
    low, high = f"{counts.min():.6g}", f"{counts.max():.6g}"
    return f"n = {low}" if low == high else f"n = {high}–{low}"

"""Class counts: how many samples each class has, in profiles the field uses, and which classes are alike.

Everything predicted depends on the data through these numbers alone (`theory.md` §1): k classes, n_c
samples of class c, n = Σ n_c. Positive real counts are allowed, since a temperature δ acts as the
effective count n_c/δ_c² (§3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from neuralcollapse.checks import InvalidInput, as_array, check_labels, parse_numbers, positive_number, shown
from neuralcollapse.displays import counts_html
from neuralcollapse.given_counts import checked, in_order
from neuralcollapse.groups import Groups, group_equal


class ClassCounts:
    """The number of samples of each class.

    Build one with `step`, `long_tail`, `from_labels` or `from_counts`.

    Parameters
    ----------
    values : (k,) sequence of positive numbers, or mapping
        Samples per class; at least two classes. A mapping (a pandas Series too) is read by its keys, as in
        `from_counts`.
    names : (k,) sequence of str, optional
        Class names; "0", "1", … when left out.

    Raises
    ------
    InvalidInput
        Fewer than two classes, a count that is not a positive finite number, or a wrong number of names.

    Examples
    --------
    >>> counts = ClassCounts.step(classes=4, ratio=10, minority=0.5, n_min=1)
    >>> counts
    ClassCounts(10, 10, 1, 1)
    >>> counts.n, counts.ratio, counts.minority.tolist()
    (22, 10.0, [False, False, True, True])
    """

    def __init__(self, values: Any, names: Sequence[str] | None = None):
        array, self._names = checked(*in_order(as_array(values), names))
        self.values: Float[np.ndarray, " k"] = array

    # -- ways to make one ---------------------------------------------------------------------------

    @classmethod
    def from_counts(cls, counts: Any, names: Sequence[str] | None = None) -> ClassCounts:
        """Counts as given: a ClassCounts (kept), a sequence, an array, text such as "10,10,1,1", or by class.

        Parameters
        ----------
        counts : ClassCounts, (k,) sequence, array or tensor of positive numbers, text, or mapping to counts
            Whole numbers as keys are class indices, as in a `collections.Counter` of labels or pandas' `value_counts`,
            in whatever order they come. Text keys are names, digits too, and their order is that of the classes.
        names : (k,) sequence of str, optional

        Raises
        ------
        InvalidInput
            As ClassCounts; keys that are neither all names nor the indices 0 … k−1.

        Examples
        --------
        >>> ClassCounts.from_counts("10, 10, 1, 1").k
        4
        >>> ClassCounts.from_counts({"cat": 500, "dog": 5}).names
        ('cat', 'dog')
        >>> ClassCounts.from_counts({1: 5, 0: 500})
        ClassCounts(500, 5)
        """
        if isinstance(counts, ClassCounts):
            return counts if names is None else ClassCounts(counts.values, names)
        if isinstance(counts, str):
            counts = parse_numbers("counts", counts)
        return cls(counts, names)

    @classmethod
    def step(cls, classes: float, ratio: float, minority: float = 0.5, *,
             n_min: float | None = None, n_max: float | None = None) -> ClassCounts:
        """(R, ρ)-STEP imbalance: (1−ρ)k majority classes of R·n_min samples, then ρk minorities of n_min.

        Parameters
        ----------
        classes : int
            k ≥ 2.
        ratio : float
            R ≥ 1.
        minority : float
            ρ in [0, 1]; ρk must be a whole number.
        n_min, n_max : float
            Samples of a minority or of a majority class: give one.

        Raises
        ------
        InvalidInput
            A parameter outside its range, or not exactly one of n_min and n_max.

        References
        ----------
        thrampoulidis2022, Definition 1; theory.md §1.

        Examples
        --------
        >>> ClassCounts.step(classes=5, ratio=100, minority=0.4, n_max=500)
        ClassCounts(500, 500, 500, 5, 5)
        """
        classes = _check_profile(classes, ratio)
        if (n_min is None) == (n_max is None):
            raise InvalidInput(f"step needs exactly one of n_min and n_max, got n_min={n_min}, n_max={n_max}")
        if not 0 <= minority <= 1:
            raise InvalidInput(f"minority must be a share between 0 and 1, got {minority}")
        few = round(minority * classes)
        if abs(few - minority * classes) > 1e-6:
            raise InvalidInput(f"minority × classes must be a whole number, got {minority} × {classes} = "
                               f"{minority * classes:g}: the nearest share is {few / classes:g}")
        low = positive_number("n_min", n_min) if n_max is None else positive_number("n_max", n_max) / ratio
        high = low * ratio if n_max is None else float(n_max)
        return cls(np.repeat([high, low], [classes - few, few]))

    @classmethod
    def long_tail(cls, classes: float, ratio: float, n_max: float) -> ClassCounts:
        """Exponential long tail as in CIFAR-LT: n_c = ⌊n_max·R^(−c/(k−1))⌋, c = 0 … k−1.

        Parameters
        ----------
        classes : int
            k ≥ 2.
        ratio : float
            R = n_max/n_min ≥ 1, before rounding down.
        n_max : float
            Samples of the first class.

        Raises
        ------
        InvalidInput
            A parameter outside its range, or a tail that would leave a class without a sample.

        References
        ----------
        cui2019, §5.1.

        Examples
        --------
        >>> ClassCounts.long_tail(classes=4, ratio=100, n_max=500)
        ClassCounts(500, 107, 23, 5)
        """
        classes = _check_profile(classes, ratio)
        if not (np.isfinite(n_max) and n_max > 0):
            raise InvalidInput(f"n_max must be a positive number, got {n_max}")
        exact = n_max * ratio ** (-np.arange(classes) / (classes - 1))
        values = np.floor(exact * (1 + 1e-12))  # 500·100^(−1) must not become 4.999… and then 4
        if values[-1] < 1:
            raise InvalidInput(f"n_max / ratio must leave the last class at least 1 sample, got {n_max:g} / "
                               f"{ratio:g} = {n_max / ratio:g}")
        return cls(values)

    @classmethod
    def from_labels(cls, labels: Any, classes: int | None = None,
                    names: Sequence[str] | None = None) -> ClassCounts:
        """Count the labels 0 … k−1.

        Parameters
        ----------
        labels : (n,) array of whole numbers
        classes : int, optional
            k; largest label + 1 when left out.
        names : (k,) sequence of str, optional

        Raises
        ------
        InvalidInput
            A label outside 0 … k−1, labels that are not whole numbers, or a class without a sample.

        Examples
        --------
        >>> ClassCounts.from_labels([0, 2, 1, 0])
        ClassCounts(2, 1, 1)
        """
        index = check_labels(labels, classes)
        if classes is None and index.max() >= index.size:  # and no array that long is made to find it out
            raise InvalidInput(f"every class 0 … k−1 needs a sample, got label {index.max()} among {index.size} labels")
        if index.min() > 0:
            raise InvalidInput("every class needs a sample, and class 0 has none: labels count from 0, and the "
                               f"smallest one here is {index.min()}")
        return cls(np.bincount(index, minlength=classes or 0), names)

    # -- what they say ------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Number of classes."""
        return int(self.values.size)

    @property
    def n(self) -> int | float:
        """Number of samples, Σ n_c."""
        return plain_number(self.values.sum())

    @property
    def n_min(self) -> int | float:
        """The smallest count."""
        return plain_number(self.values.min())

    @property
    def n_max(self) -> int | float:
        """The largest count."""
        return plain_number(self.values.max())

    @property
    def ratio(self) -> float:
        """Imbalance ratio R = n_max/n_min."""
        return float(self.values.max() / self.values.min())

    @property
    def balanced(self) -> bool:
        """Whether all counts are equal."""
        return bool(self.values.min() == self.values.max())

    @property
    def names(self) -> tuple[str, ...]:
        """Class names."""
        return self._names or tuple(str(c) for c in range(self.k))

    @cached_property
    def minority(self) -> Bool[np.ndarray, " k"]:
        """(k,) bool: the minority classes, those with n_c < √(n_min·n_max).

        In a STEP profile these are exactly its minorities; when counts are equal there is none.
        """
        return (self.values / self.values.min()) * (self.values / self.values.max()) < 1 - 1e-12

    @cached_property
    def groups(self) -> Groups:
        """Classes of equal count, in ascending order of count."""
        return group_equal(self.values)

    _repr_html_ = counts_html

    def __len__(self) -> int:
        return self.k

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, ClassCounts) and np.array_equal(self.values, other.values)
                and self.names == other.names)

    def __hash__(self) -> int:
        return hash(self.values.tobytes())  # names given and names left out may be equal

    def __repr__(self) -> str:
        shown_values = [f"{v:g}" if v % 1 else f"{v:.0f}" for v in self.values[:10]]
        tail = f", … {self.k} classes" if self.k > 10 else ""
        return f"ClassCounts({', '.join(shown_values)}{tail})"

    # -- use on a data set --------------------------------------------------------------------------

    def rounded(self) -> ClassCounts:
        """Whole counts, each at least 1: what a data set can realise."""
        return ClassCounts(np.maximum(np.rint(self.values), 1), self._names)

    def subsample(self, labels: Any, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Indices of samples, drawn without replacement, that realise these counts on a data set.

        Parameters
        ----------
        labels : (N,) array of whole numbers
            The label of every sample at hand.
        rng : numpy.random.Generator

        Returns
        -------
        (n,) int array
            Positions in `labels`, ascending.

        Raises
        ------
        InvalidInput
            Counts that are not whole, a label outside 0 … k−1, or classes with too few samples, named.

        Examples
        --------
        >>> kept = ClassCounts([2, 1]).subsample([1, 0, 0, 1, 0], np.random.default_rng(0))
        >>> np.bincount(np.array([1, 0, 0, 1, 0])[kept]).tolist()
        [2, 1]
        """
        if (self.values % 1).any():
            raise InvalidInput(f"counts must be whole numbers to draw samples, got {shown(self)}: "
                               "round them first with .rounded()")
        index = check_labels(labels, self.k)
        available = np.bincount(index, minlength=self.k)
        wanted = self.values.astype(np.int64)
        short = np.flatnonzero(available < wanted)
        if short.size:
            lacks = ", ".join(f"class {self.names[c]} has {available[c]} of {wanted[c]}" for c in short[:5])
            more = f" and {short.size - 5} more classes" if short.size > 5 else ""
            raise InvalidInput(f"the data set is too small for these counts: {lacks}{more}")
        order = rng.permutation(index.size)
        order = order[np.argsort(index[order], kind="stable")]  # shuffled within each class
        start = np.cumsum(available) - available
        position = np.arange(index.size) - start[index[order]]
        return np.sort(order[position < wanted[index[order]]])


def plain_number(value: float) -> int | float:
    """An int when `value` is whole, a float otherwise: how counts are shown and written."""
    number = float(value)
    return int(number) if number.is_integer() else number


def _check_profile(classes: float, ratio: float) -> int:
    if not classes >= 2 or classes % 1:
        raise InvalidInput(f"classes must be a whole number ≥ 2, got {classes:g}")
    if not (np.isfinite(ratio) and ratio >= 1):
        raise InvalidInput(f"ratio must be a number ≥ 1 (largest count over smallest), got {ratio}")
    return int(classes)

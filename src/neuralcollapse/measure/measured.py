"""What the metrics see: the finished statistics of one measurement, in float64 NumPy, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from neuralcollapse.checks import check_center
from neuralcollapse.low_rank import DENSE_BELOW
from neuralcollapse.measure.spectrum import BetweenSpectrum
from neuralcollapse.predict import Geometry
from neuralcollapse.registry import Registry

METRICS: Registry[Any] = Registry("metric")
"""Every metric: a function of `Measured` that returns a number, None, or a dictionary of them."""


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """What needs every sample and the head: decisions and margins (see `decisions.py`).

    Attributes
    ----------
    correct : (k,) int array
        Samples of each class that the head decides correctly.
    margin_min, margin_sum : (k,) arrays
        Smallest and summed margin z_y − max_{c≠y} z_c of each class's samples; +inf and 0 where absent.
    disagreements : int or None
        Samples on which the nearest class mean and the head disagree; None when no pass counted them.
    margins : (n,) array or None
        Every margin, where they were kept.
    labels : (n,) int array or None
        The labels of `margins`.
    """

    correct: Int[np.ndarray, " k"]
    margin_min: Float[np.ndarray, " k"]
    margin_sum: Float[np.ndarray, " k"]
    disagreements: int | None = None
    margins: Float[np.ndarray, " n"] | None = None
    labels: Int[np.ndarray, " n"] | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """The statistics of a network's features and head.

    Attributes
    ----------
    seen : (k,) int array
        Samples per class; 0 for a class without any.
    means : (k, d) array
        Class means.
    squares : (k,) array
        Σ_{i in c} ‖h_i − μ_c‖².
    spectrum : BetweenSpectrum or None
        The directions in which the centred class means differ; None while a class has no sample.
    within : (r,) array or None
        u_jᵀ Σ_W u_j along those directions, Σ_W = (1/n) Σ_i (h_i − μ_c)(h_i − μ_c)ᵀ; None where it was not measured.
    weight, bias : (k, d), (k,) arrays or None
        The head: `Linear.weight` and `Linear.bias`.
    center : str
        What the class means are centred on: "classes" (the mean of the class means), "samples" (the mean of all
        samples) or "none".
    targets : dict of str to Geometry
        Predictions to hold it against; the first is the main one.
    minority : (k,) bool array
    names : tuple of str
        Class names; the classes' numbers where none were given.
    samples : SampleStatistics or None
    nc4_means : str or None
        Whose class means NC4 was taken from: "second-pass" (its own) or "previous" (an earlier measurement's).

    Examples
    --------
    >>> from neuralcollapse.measure import measure
    >>> measured = measure(np.eye(4), [0, 0, 1, 1], np.eye(2, 4)).measured
    >>> measured.k, measured.squares.round(6).tolist(), measured.centred_means[0].tolist()
    (2, [1.0, 1.0], [0.25, 0.25, -0.25, -0.25])
    """

    seen: Int[np.ndarray, " k"]
    means: Float[np.ndarray, "k d"]
    squares: Float[np.ndarray, " k"]
    spectrum: BetweenSpectrum | None
    within: Float[np.ndarray, " r"] | None
    weight: Float[np.ndarray, "k d"] | None
    bias: Float[np.ndarray, " k"] | None
    center: str
    targets: Mapping[str, Geometry]
    minority: Bool[np.ndarray, " k"]
    names: tuple[str, ...]
    samples: SampleStatistics | None = field(default=None)
    nc4_means: str | None = None

    def __post_init__(self) -> None:
        check_center(self.center)

    @property
    def k(self) -> int:
        """Number of classes."""
        return int(self.seen.size)

    @property
    def complete(self) -> bool:
        """Whether every class has a sample."""
        return bool((self.seen > 0).all())

    @cached_property
    def centred_means(self) -> Float[np.ndarray, "k d"] | None:
        """M about μ_G, row by class; None when a class has no sample."""
        return centred(self.means, self.seen, self.center)

    def product(self, left: str, right: str) -> Float[np.ndarray, "k k"] | None:
        """The k × k product of two factors, formed once; None where one is not defined or k × k is too large.

        Parameters
        ----------
        left, right : str
            "classifiers" or "embeddings".
        """
        if (left, right) not in self._products:
            one, two = self.factor(left), self.factor(right)
            if one is None or two is None or self.k > max(DENSE_BELOW, 2 * one.shape[1]):
                self._products[left, right] = None
            else:
                self._products[left, right] = one @ two.T
        return self._products[left, right]

    def factor(self, name: str) -> Float[np.ndarray, "k d"] | None:
        """The (k, d) rows of "classifiers" or of (centred) "embeddings"."""
        return {"classifiers": self.weight, "embeddings": self.centred_means}[name]

    @cached_property
    def _products(self) -> dict[tuple[str, str], Float[np.ndarray, "k k"] | None]:
        """Products formed so far; the spectrum of the means has formed theirs."""
        known = None if self.spectrum is None else self.spectrum.gram
        return {} if known is None else {("embeddings", "embeddings"): known}


def centred(means: Float[np.ndarray, "k d"], seen: Int[np.ndarray, " k"],
            center: str) -> Float[np.ndarray, "k d"] | None:
    """Class means about μ_G; None when a class has no sample."""
    check_center(center)
    if not (seen > 0).all():
        return None
    if center == "none":
        return means
    # Two steps: the first removes a large common offset, so that the second is accurate.
    offset = means - means.mean(0)
    share = seen / seen.sum() if center == "samples" else np.full(seen.size, 1 / seen.size)
    return offset - share @ offset


def number(value: float) -> float | None:
    """`value` as a finite float, or None."""
    return float(value) if np.isfinite(value) else None


def numbers(values: Float[np.ndarray, " k"]) -> list[float | None]:
    """Finite floats, None in place of NaN and infinities."""
    return [number(value) for value in values]

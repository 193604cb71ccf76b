"""What sentences and tables compare: majority against minority, measured beside predicted, at the last epoch."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
import numpy as np

from neuralcollapse.experiments.records import look
from neuralcollapse.gram import Gram
from neuralcollapse.show.class_axis import split_cosines
from neuralcollapse.show.reading import Reading, as_number

PAIRS = (("majority_majority", "two majority classes"), ("majority_minority", "a majority and a minority class"),
         ("minority_minority", "two minority classes"))


@dataclass(frozen=True)
class Lengths:
    """Mean norm of the majority classes over that of the minority classes; None where it is not defined."""

    measured: float | None
    predicted: dict[str, float | None]


@dataclass(frozen=True)
class ComparableNorms:
    """Norms per class at one scale, and how that scale is called."""

    measured: Float[np.ndarray, " k"]
    predicted: dict[str, Float[np.ndarray, " k"]]
    scale: str


@dataclass(frozen=True)
class Gap:
    """Test accuracy of majority classes minus that of minority classes, in shares of 1.

    `error` is one standard error from the size of the test set, None when that is not known.
    """

    majority: float
    minority: float
    error: float | None

    @property
    def value(self) -> float:
        """Majority minus minority."""
        return self.majority - self.minority

    @property
    def clear(self) -> bool:
        """Whether the gap is larger than one point and than two standard errors."""
        return abs(self.value) > max(0.01, 2 * (self.error or 0.0))


def lengths(reading: Reading, part: str) -> Lengths:
    """How much longer majority classifiers (or class means) are than minority ones."""
    measured = reading.last_per_class("measurement", "norms", part)
    return Lengths(None if measured is None else norm_ratio(measured, reading.minority),
                   {target: norm_ratio(_gram(reading, target, part).norms, reading.minority)
                    for target in reading.targets})


def comparable_norms(reading: Reading, part: str) -> ComparableNorms:
    """Measured and predicted norms at unit Frobenius norm of the Gram; at unit mean square where it was not kept."""
    kept = reading.grams(reading.last_epoch).get(part) if reading.measured else None
    grams = {target: _gram(reading, target, part) for target in reading.targets}
    if kept is not None:
        return ComparableNorms(np.sqrt(np.maximum(np.diagonal(kept), 0.0)),
                               {target: gram.unit().norms for target, gram in grams.items()}, "unit Frobenius norm")
    values = reading.last_per_class("measurement", "norms", part)
    measured = np.full(reading.counts.k, np.nan) if values is None else _unit_mean_square(values)
    return ComparableNorms(measured, {target: _unit_mean_square(gram.norms) for target, gram in grams.items()},
                           "unit mean square")


def norm_spread(norms: Float[np.ndarray, " k"]) -> float | None:
    """Largest over smallest norm; None when one is zero or none is known."""
    known = norms[np.isfinite(norms)]
    return float(known.max() / known.min()) if known.size and known.min() > 0 else None


def norm_ratio(norms: Float[np.ndarray, " k"], minority: Bool[np.ndarray, " k"]) -> float | None:
    """Mean norm of majority over mean norm of minority classes; inf when the minority has vanished."""
    few, many = norms[minority & np.isfinite(norms)], norms[~minority & np.isfinite(norms)]
    if not few.size or not many.size or many.mean() == 0:
        return None
    return float(many.mean() / few.mean()) if few.mean() > 0 else float("inf")


def measured_cosine(reading: Reading, part: str, pair: str) -> float | None:
    """A measured mean cosine."""
    return reading.last("measurement", "cosines", part, pair)


def predicted_cosine(reading: Reading, target: str, part: str, pair: str) -> float | None:
    """The mean cosine that a geometry predicts."""
    return split_cosines(_gram(reading, target, part), reading.minority)[pair]


def accuracy_gap(reading: Reading) -> Gap | None:
    """Test accuracy of majority and minority classes; None when either is missing."""
    many, few = (reading.last("test", f"{group}_accuracy") for group in ("majority", "minority"))
    if many is None or few is None:
        return None
    sizes = look(dict(reading.run.data), "test_counts")
    if not isinstance(sizes, (list, tuple)) or len(sizes) != reading.counts.k:
        return Gap(many, few, None)
    tested = np.array([as_number(size) for size in sizes])
    n_many, n_few = tested[~reading.minority].sum(), tested[reading.minority].sum()
    if not n_many > 0 or not n_few > 0:
        return Gap(many, few, None)
    # One hit and one error added to each group keep the bar off zero where every sample was right.
    variance = sum(_variance(share, n) for share, n in ((many, n_many), (few, n_few)))
    return Gap(many, few, float(np.sqrt(variance)))


def still_falling(reading: Reading, part: str) -> bool | None:
    """Whether the distance fell by over a tenth in the second half of the epochs; None when too few are known."""
    values = reading.distances(part, reading.target)
    before = np.flatnonzero((reading.epochs <= reading.last_epoch / 2) & np.isfinite(values))
    if before.size < 3 or not np.isfinite(values[-1]):
        return None
    return bool(values[-1] < 0.9 * values[before[-1]])


def _unit_mean_square(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    size = np.sqrt(np.nanmean(values**2)) if np.isfinite(values).any() else 0.0
    return values / size if size > 0 else values


def _variance(share: float, n: float) -> float:
    smoothed = (share * n + 1) / (n + 2)
    return smoothed * (1 - smoothed) / n


def _gram(reading: Reading, target: str, part: str) -> Gram:
    gram: Gram = getattr(reading.geometry(target), part)
    return gram

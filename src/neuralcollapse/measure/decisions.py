"""NC4, margins and accuracy: what the head decides, sample by sample.

Logits are z = Wh + b with the head's own bias; the margin of a sample is z_y − max_{c≠y} z_c, negative when
it is misclassified. A tie counts as a wrong decision in accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.measure.measured import METRICS, Measured, SampleStatistics, number, numbers
from neuralcollapse.measure.moments import EXACT_UP_TO
from neuralcollapse.measure.sharing import joined, least, summed

LOGITS_AT_ONCE = 2**23  # formed from features and a head
_RADII_BELOW = 8192  # classes up to which the means' mutual distances are worth k² products
_QUANTILES = (0.01, 0.05, 0.25, 0.5)


@METRICS.register("nc4", source="papyan2020", scalars={"": "nearest_mean_disagreement"})
def nearest_mean_disagreement(measured: Measured) -> float | None:
    """NC4: share of samples whose nearest class mean and classifier disagree.

    The means are this measurement's own (a second pass) or those of the measurement before: `nc4_means` says which.
    """
    if measured.samples is None or measured.samples.disagreements is None or not measured.complete:
        return None
    return number(measured.samples.disagreements / measured.seen.sum())


@METRICS.register("margins", source="thrampoulidis2022",
                  scalars={"min": "margin_min", "mean": "margin_mean"})
def margins(measured: Measured) -> dict[str, Any]:
    """Margins z_y − max_{c≠y} z_c over samples: smallest, mean and quantiles, over all and per class."""
    empty: dict[str, Any] = {"min": None, "mean": None, "quantiles": None, "per_class": None}
    samples = measured.samples
    if samples is None:
        return empty
    seen = measured.seen > 0
    low = np.where(seen, samples.margin_min, np.nan)
    mean = np.where(seen, samples.margin_sum / np.maximum(measured.seen, 1), np.nan)
    table = {"min": numbers(low), "mean": numbers(mean)}
    quantiles = None
    if samples.margins is not None and samples.labels is not None:
        quantiles = dict(zip(map(str, _QUANTILES), np.quantile(samples.margins, _QUANTILES).tolist(), strict=True))
        medians = [np.median(part) if part.size else np.nan for part in _by_class(samples, measured.k)]
        table["median"] = numbers(np.array(medians))
    return {"min": number(np.nanmin(low)), "mean": number(samples.margin_sum.sum() / measured.seen.sum()),
            "quantiles": quantiles, "per_class": table}


@METRICS.register("accuracy", source="papyan2020", scalars={"overall": "accuracy", "per_class": "accuracy"},
                  per_class=("per_class",))
def accuracy(measured: Measured) -> dict[str, Any]:
    """Share of the measured samples that the head decides correctly, over all and per class."""
    if measured.samples is None:
        return {"overall": None, "per_class": None}
    correct = measured.samples.correct
    share = np.where(measured.seen > 0, correct / np.maximum(measured.seen, 1), np.nan)
    return {"overall": number(correct.sum() / measured.seen.sum()), "per_class": numbers(share)}


class Decided(NamedTuple):
    """What the head makes of some samples.

    Attributes
    ----------
    classes : (n,) int64 tensor
        The class with the largest logit.
    margins : (n,) float64 tensor
        z_y − max_{c≠y} z_c.
    """

    classes: Int[Tensor, " n"]
    margins: Float[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head: `weight` (k, d) and `bias` (k,) or None, on the device of the features."""

    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"] | None = None

    def to(self, device: torch.device) -> Head:
        """The head on another device."""
        return Head(self.weight.to(device), None if self.bias is None else self.bias.to(device))

    def decide(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> Decided:
        """Decisions and margins of a block of samples.

        Logits are formed in float64 up to 128 features, and beyond in the dtype that features and weight share
        (float32 at least): margins then have the digits of a difference of float32 logits.
        """
        exact = features.shape[1] <= EXACT_UP_TO
        common = torch.promote_types(torch.promote_types(features.dtype, self.weight.dtype),
                                     torch.float64 if exact else torch.float32)
        weight, bias = self.weight.to(common), None if self.bias is None else self.bias.to(common)
        parts = []
        for rows in _blocks(len(features), len(weight)):
            logits = torch.nn.functional.linear(features[rows].to(common), weight, bias)
            parts.append(decide_from_logits(logits, labels[rows]))
        return Decided(*(torch.cat(part) for part in zip(*parts, strict=True)))


def decide_from_logits(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Decided:
    """Decisions and margins from logits that something else has computed, in their own precision."""
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return Decided(logits.argmax(1), own.double() - others.double())


class DecisionCounts:
    """Running per-class counts of correct decisions and margins; every state has a fixed shape.

    Parameters
    ----------
    classes : int
    keep : bool
        Keep every margin as well, so that quantiles can be given.
    """

    STATES = ("correct", "margin_min", "margin_sum")

    def __init__(self, classes: int, keep: bool = False, device: torch.device | str | None = None):
        self._start({name: state.to(device) for name, state in self.initial(classes).items()}, keep)

    @classmethod
    def over(cls, states: Mapping[str, Tensor]) -> DecisionCounts:
        """Counts that go on in these tensors, shaped as `initial` makes them."""
        self = cls.__new__(cls)
        self._start(states, keep=False)
        return self

    def _start(self, states: Mapping[str, Tensor], keep: bool) -> None:
        for name in self.STATES:
            setattr(self, name, states[name])
        self._kept = (_Kept(torch.float64), _Kept(torch.int64)) if keep else None

    correct: Tensor
    margin_min: Tensor
    margin_sum: Tensor

    @staticmethod
    def initial(classes: int) -> dict[str, Tensor]:
        """The state before any sample."""
        return {"correct": torch.zeros(classes, dtype=torch.int64),
                "margin_min": torch.full((classes,), torch.inf, dtype=torch.float64),
                "margin_sum": torch.zeros(classes, dtype=torch.float64)}

    def update(self, labels: Int[Tensor, " n"], decided: Decided) -> None:
        """Add the decisions on a block of samples."""
        self.correct.index_add_(0, labels, (decided.margins > 0).long())
        self.margin_min.scatter_reduce_(0, labels, decided.margins, "amin")
        self.margin_sum.index_add_(0, labels, decided.margins)
        if self._kept is not None:
            self._kept[0].add(decided.margins)
            self._kept[1].add(labels)

    def share(self) -> None:
        """Take the counts of every process of torch.distributed together; all of them call this."""
        place = self.correct.device
        self.correct, self.margin_sum = summed(self.correct), summed(self.margin_sum)
        self.margin_min = least(self.margin_min)
        if self._kept is not None:
            for kept in self._kept:
                kept.replace(joined(kept.values().to(place)).cpu())

    def statistics(self, disagreements: int | None = None) -> SampleStatistics:
        """What was counted, as NumPy arrays."""
        return SampleStatistics(
            self.correct.cpu().numpy(), self.margin_min.cpu().numpy(), self.margin_sum.cpu().numpy(),
            disagreements, *((kept.values().numpy() for kept in self._kept) if self._kept else ()))


class _Kept:
    """Values from every block, in one stretch of memory that doubles.

    One small array a block would lie between the megabytes of its temporaries, and pin them after they are freed.
    """

    def __init__(self, dtype: torch.dtype):
        self._space, self._filled = torch.empty(2**12, dtype=dtype), 0

    def add(self, values: Tensor) -> None:
        end = self._filled + len(values)
        if end > len(self._space):
            grown = self._space.new_empty(max(end, 2 * len(self._space)))
            grown[:self._filled] = self._space[:self._filled]
            self._space = grown
        self._space[self._filled:end] = values
        self._filled = end

    def values(self) -> Tensor:
        return self._space[:self._filled]

    def replace(self, values: Tensor) -> None:
        self._space, self._filled = values, len(values)


class NearestMeans:
    """Which class mean is nearest, exactly; most samples of a collapsed network need no product for it.

    A sample closer to its own mean than half the distance from there to any other mean is nearest to its own (the
    triangle inequality). Only the others are compared with every mean, by h·μ_c − ‖μ_c‖²/2 about the mean of class
    means in float64. Classes without a sample have no mean and are never nearest.

    Parameters
    ----------
    means : (k, d) tensor
    counts : (k,) tensor
        Samples behind each mean.
    """

    def __init__(self, means: Float[Tensor, "k d"], counts: Int[Tensor, " k"]):
        self._class = (counts > 0).nonzero()[:, 0]
        present = means[self._class].double()
        self._origin = present.mean(0)
        self._centred = present - self._origin
        self._half_squares = torch.linalg.vector_norm(self._centred, dim=1).square() / 2
        self._radius = torch.zeros(len(means), dtype=torch.float64, device=means.device)
        if len(self._class) <= _RADII_BELOW:
            self._radius[self._class] = self._half_distances()

    def disagreements(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], to_own_mean: Float[Tensor, " n"],
                      decided: Int[Tensor, " n"]) -> Int[Tensor, ""]:
        """How many samples the nearest mean and the head decide differently.

        Parameters
        ----------
        features, labels : (n, d), (n,) tensors
        to_own_mean : (n,) tensor
            ‖h_i − μ_y‖.
        decided : (n,) tensor
            What the head decides.
        """
        # A thousandth of slack: distances come from float32 features.
        unsure = (to_own_mean >= 0.999 * self._radius[labels]).nonzero()[:, 0]
        nearest = labels.clone()
        for rows in _blocks(len(unsure), len(self._centred)):
            which = unsure[rows]
            exact = features[which].double() - self._origin
            nearest[which] = self._class[(exact @ self._centred.T - self._half_squares).argmax(1)]
        return (nearest != decided).sum()

    def _half_distances(self) -> Float[Tensor, " m"]:
        # By the product form: its error is absolute, 1e-15 of the largest norm, and leaves close pairs no radius.
        squares = 2 * (self._half_squares[:, None] + self._half_squares - self._centred @ self._centred.T)
        squares.fill_diagonal_(torch.inf)
        nearest = squares.amin(1) - 1e-12 * self._half_squares.max()
        return torch.where(torch.isfinite(nearest), nearest.clamp(min=0.0).sqrt() / 2, 0.0)


def _blocks(rows: int, classes: int) -> Iterator[slice]:
    step = max(1, LOGITS_AT_ONCE // max(classes, 1))
    yield from (slice(start, start + step) for start in range(0, rows, step))


def _by_class(samples: SampleStatistics, k: int) -> list[Float[np.ndarray, " m"]]:
    assert samples.margins is not None
    assert samples.labels is not None
    order = np.argsort(samples.labels, kind="stable")
    return np.split(samples.margins[order], np.cumsum(np.bincount(samples.labels, minlength=k))[:-1])

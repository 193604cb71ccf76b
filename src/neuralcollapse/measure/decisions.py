"""NC4, margins and accuracy: what the head decides, sample by sample.

Logits are z = Wh + b with the head's own bias; the margin of a sample is z_y − max_{c≠y} z_c, negative when
it is misclassified.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.measure.measured import METRICS, Measured, SampleStatistics, number, numbers

_LOGITS_AT_ONCE = 2**23
_QUANTILES = (0.01, 0.05, 0.25, 0.5)


@METRICS.register("nc4", source="papyan2020", scalars={"": "nearest_mean_disagreement"})
def nearest_mean_disagreement(measured: Measured) -> float | None:
    """NC4: share of samples whose nearest class mean and classifier disagree; it takes a second pass."""
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


@METRICS.register("accuracy", source="papyan2020", scalars={"overall": "accuracy", "per_class": "accuracy"})
def accuracy(measured: Measured) -> dict[str, Any]:
    """Share of the measured samples that the head decides correctly, over all and per class."""
    if measured.samples is None:
        return {"overall": None, "per_class": None}
    correct = measured.samples.correct
    share = np.where(measured.seen > 0, correct / np.maximum(measured.seen, 1), np.nan)
    return {"overall": number(correct.sum() / measured.seen.sum()), "per_class": numbers(share)}


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
        for name, state in self.initial(classes).items():
            setattr(self, name, state.to(device))
        self._kept: list[tuple[Tensor, Tensor]] | None = [] if keep else None

    correct: Tensor
    margin_min: Tensor
    margin_sum: Tensor

    @staticmethod
    def initial(classes: int) -> dict[str, Tensor]:
        """The state before any sample."""
        return {"correct": torch.zeros(classes, dtype=torch.int64),
                "margin_min": torch.full((classes,), torch.inf, dtype=torch.float64),
                "margin_sum": torch.zeros(classes, dtype=torch.float64)}

    def update(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], weight: Float[Tensor, "k d"],
               bias: Float[Tensor, " k"] | None) -> None:
        """Add a batch; logits are formed in the dtype of `weight`."""
        for rows, part in _row_blocks(features, weight.shape[0], labels):
            logits = torch.nn.functional.linear(rows.to(weight.dtype), weight, bias)
            margin = _margins(logits, part).double()
            self.correct.index_add_(0, part, (margin > 0).long())
            self.margin_min.scatter_reduce_(0, part, margin, "amin")
            self.margin_sum.index_add_(0, part, margin)
            if self._kept is not None:
                self._kept.append((margin.cpu(), part.cpu()))

    def statistics(self, disagreements: int | None = None) -> SampleStatistics:
        """What was counted, as NumPy arrays."""
        kept = list(zip(*self._kept, strict=True)) if self._kept else None
        return SampleStatistics(
            self.correct.cpu().numpy(), self.margin_min.cpu().numpy(), self.margin_sum.cpu().numpy(),
            disagreements, *((torch.cat(part).numpy() for part in kept) if kept else ()))


def count_disagreements(features: Float[Tensor, "n d"], weight: Float[Tensor, "k d"],
                        bias: Float[Tensor, " k"] | None, means: Float[Tensor, "k d"]) -> int:
    """How many samples the nearest class mean and the head decide differently.

    The nearest mean is the largest of h·μ_c − ‖μ_c‖²/2 about the mean of class means, in the dtype of `means`.
    """
    origin = means.mean(0)
    centred = means - origin
    offset = (centred**2).sum(1) / 2
    count = 0
    for rows, _ in _row_blocks(features, weight.shape[0]):
        exact = rows.to(means.dtype)
        nearest = ((exact - origin) @ centred.T - offset).argmax(1)
        decided = torch.nn.functional.linear(exact, weight.to(means.dtype),
                                             None if bias is None else bias.to(means.dtype)).argmax(1)
        count += int((nearest != decided).sum())
    return count


def _margins(logits: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.amax(1)


def _row_blocks(features: Tensor, classes: int,
                labels: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    step = max(1, _LOGITS_AT_ONCE // classes)
    for start in range(0, features.shape[0], step):
        rows = features[start:start + step]
        yield rows, (labels[start:start + step] if labels is not None else rows)


def _by_class(samples: SampleStatistics, k: int) -> list[Float[np.ndarray, " m"]]:
    assert samples.margins is not None
    assert samples.labels is not None
    order = np.argsort(samples.labels, kind="stable")
    return np.split(samples.margins[order], np.cumsum(np.bincount(samples.labels, minlength=k))[:-1])

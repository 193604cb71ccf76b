"""The measurement behind torchmetrics' interface: update with every batch, compute at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Shaped
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import DecisionCounts
from neuralcollapse.measure.measurement import Measurement, finish
from neuralcollapse.measure.moments import ClassMoments, Moments, merged


class CollapseMetric(Metric):
    """Neural collapse of features and head, in one pass, as a torchmetrics metric.

    `compute` gives a flat dictionary of float64 scalars (`nc/within`, `nc/seli/classifiers`,
    `nc/class/NAME/norm`, …), NaN where a class has not been seen; `measurement` gives the whole `Measurement`.
    NC4 takes a second pass and is left to `measure` and `measure_model`.

    Parameters
    ----------
    num_classes : int
        k.
    num_features : int
        d, the width of the head's input.
    head : torch.nn.Linear, optional
        The classifying layer, read when updating (margins) and computing; without it the metrics of the
        features alone are given.
    counts : ClassCounts, optional
        Training counts that targets are predicted from; those of the samples seen when left out.
    targets, center
        As in `measure`.
    scatter : bool
        Keep the (d, d) scatter that NC1's pseudo-inverse form needs; without it NC1 is given by traces only.
    **kwargs
        torchmetrics' own (`sync_on_compute`, `dist_sync_on_step`, …).

    Raises
    ------
    InvalidInput
        As `measure`, and a metric asked before any update.

    Examples
    --------
    >>> metric = CollapseMetric(num_classes=2, num_features=3)
    >>> metric.update(torch.tensor([[1., 0, 0], [3, 0, 0], [0, 5, 0]]), torch.tensor([0, 0, 1]))
    >>> round(metric.compute()["nc/within_trace"].item(), 4)
    0.092
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # a batch's own value needs a state of its own: moments do not add

    counts: Tensor
    correct: Tensor
    margin_min: Tensor
    margin_sum: Tensor

    def __init__(self, num_classes: int, num_features: int, head: nn.Linear | None = None, *,
                 counts: ClassCounts | None = None, targets: Sequence[str] = ("seli", "etf"),
                 center: str = "classes", scatter: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        if num_classes < 2 or num_features < 1:
            raise InvalidInput(f"num_classes must be ≥ 2 and num_features ≥ 1, got {num_classes} and {num_features}")
        if head is not None and tuple(head.weight.shape) != (num_classes, num_features):
            raise InvalidInput(f"head must map {num_features} features to {num_classes} classes, "
                               f"got {head.in_features} to {head.out_features}")
        self.num_classes, self.num_features, self.scatter_kept = num_classes, num_features, scatter
        self.counts_declared, self.targets, self.center = counts, tuple(targets), center
        self._head = (head,)  # in a tuple: the head belongs to the model, not to this module's parameters
        states = ClassMoments.initial(num_classes, num_features, scatter) | DecisionCounts.initial(num_classes)
        for name, default in states.items():
            # Not summed: a sync stacks the states of all ranks, and `_merged` joins them by Chan's formula.
            self.add_state(name, default, dist_reduce_fx=None)
        self._running: tuple[ClassMoments, DecisionCounts] | None = None

    def update(self, features: Float[Tensor, "n d"], labels: Shaped[Tensor, " m"]) -> None:
        """Add a batch of the head's inputs and their labels."""
        moments, decisions = self._accumulators()
        moments.update(features, labels)
        head = self._head[0]
        if head is not None:
            bias = None if head.bias is None else head.bias.detach()
            decisions.update(features.detach(), labels, head.weight.detach(), bias)

    def measurement(self) -> Measurement:
        """The whole measurement of this process's samples (of all processes' inside a sync)."""
        if self.update_count == 0:
            raise InvalidInput("nothing to measure yet: call update(features, labels) first")
        self._flush()
        moments, decisions = self._merged()
        head = self._head[0]
        return finish(moments, None if head is None else decisions.statistics(),
                      None if head is None else head.weight, None if head is None else head.bias,
                      counts=self.counts_declared, names=None, targets=self.targets, center=self.center)

    def compute(self) -> dict[str, Tensor]:
        """Every metric as one flat dictionary of float64 scalars."""
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device)
                for name, value in self.measurement().scalars().items()}

    # -- torchmetrics' life cycle: what is buffered goes into the states before anything reads them ---

    def reset(self) -> None:
        """Forget every sample."""
        self._running = None
        super().reset()

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; see torchmetrics."""
        self._flush()
        super().sync(*args, **kwargs)

    def _copy_state_dict(self) -> dict[str, Any]:
        self._flush()
        return super()._copy_state_dict()

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The states, see torchmetrics."""
        self._flush()
        return super().state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        self._flush()
        return {**super().__getstate__(), "_running": None}

    def _apply(self, *args: Any, **kwargs: Any) -> nn.Module:
        self._flush()
        self._running = None
        return super()._apply(*args, **kwargs)

    def _accumulators(self) -> tuple[ClassMoments, DecisionCounts]:
        """The accumulators, whose tensors are this metric's states (bound anew when torchmetrics replaced one)."""
        if self._running is None or self._running[0].counts is not self.counts:
            moments = ClassMoments(self.num_classes, self.num_features, self.scatter_kept)
            decisions = DecisionCounts(self.num_classes)
            for accumulator in (moments, decisions):
                for name in accumulator.STATES:
                    setattr(accumulator, name, getattr(self, name))
            self._running = moments, decisions
        return self._running

    def _flush(self) -> None:
        if self._running is not None:
            self._running[0].flush()
            self._running = None

    def _merged(self) -> tuple[Moments, DecisionCounts]:
        if self.counts.ndim == 1:
            moments, decisions = self._accumulators()
            return moments.moments(), decisions
        parts = []
        for rank in range(self.counts.shape[0]):
            part = ClassMoments(self.num_classes, self.num_features, self.scatter_kept)
            for name in part.STATES:
                setattr(part, name, getattr(self, name)[rank])
            parts.append(part.moments())
        decisions = DecisionCounts(self.num_classes)
        decisions.correct = self.correct.sum(0)
        decisions.margin_min = self.margin_min.amin(0)
        decisions.margin_sum = self.margin_sum.sum(0)
        return merged(parts), decisions

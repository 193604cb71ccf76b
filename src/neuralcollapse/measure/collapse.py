"""CollapseMetric: the one-pass statistics behind torchmetrics' interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from neuralcollapse.checks import InvalidInput, check_center, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import DecisionCounts, decide_from_logits
from neuralcollapse.measure.displays import metric_html
from neuralcollapse.measure.heads import read_head
from neuralcollapse.measure.labelled import whole_labels
from neuralcollapse.measure.measurement import Measurement, finish
from neuralcollapse.measure.merging import Moments, merged
from neuralcollapse.measure.moments import ClassMoments
from neuralcollapse.measure.passes import KnownMeans
from neuralcollapse.predict.targets import Targets, target_geometries

_INSTANCES = count()
_PLOTTED = ("nc/within_trace", "nc/duality", "nc/accuracy", "/classifiers", "/embeddings")


class CollapseMetric(Metric):
    """Neural collapse of features and head, in one pass, as a torchmetrics metric.

    `compute` gives a flat dictionary of float64 scalars (`nc/within`, `nc/seli/classifiers`,
    `nc/class/NAME/norm`, …), NaN where a class has not been seen; `measurement` gives the whole `Measurement`.
    Over several processes the states have fixed shapes and are merged by Chan's centred formula, so that uneven and
    empty shards give what one process gives.

    Parameters
    ----------
    num_classes : int
        k.
    num_features : int
        d, the width of the head's input.
    head : torch.nn.Module, optional
        The classifying layer with `weight` (k, d) and `bias`, such as `nn.Linear`, read when updating (margins) and
        computing; without it the metrics of the features alone are given.
    counts : ClassCounts or sequence, optional
        Training counts that targets are predicted from; those of the samples seen when left out.
    targets, center
        As in `measure`.
    scatter : bool
        Keep the (d, d) scatter that NC1's pseudo-inverse form needs; without it NC1 is given by traces only.
    nc4 : "previous" or None
        NC4 needs class means that one pass does not have: "previous" takes those of the `measurement` (or `compute`)
        before the last `reset`, None leaves NC4 to `measure` and `measure_model`.
    ignore_index : int, optional
        Samples with this label are left out.
    **kwargs
        torchmetrics' own (`sync_on_compute`, `dist_sync_on_step`, …).

    Raises
    ------
    InvalidInput
        As `measure`, and a metric asked before any update.

    Notes
    -----
    Features may be float16, bfloat16, float32 or float64; the states are float64 whatever `half` or `set_dtype` ask
    for, since a collapsed spread has no digits in less.

    Examples
    --------
    >>> metric = CollapseMetric(num_classes=2, num_features=3)
    >>> metric.update(torch.tensor([[1., 0, 0], [3, 0, 0], [0, 5, 0]]), torch.tensor([0, 0, 1]))
    >>> round(metric.compute()["nc/within_trace"].item(), 4)
    0.092
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    counts: Tensor
    disagreements: Tensor
    correct: Tensor
    margin_min: Tensor
    margin_sum: Tensor
    previous_means: Tensor
    previous_counts: Tensor

    def __init__(self, num_classes: int, num_features: int, head: nn.Module | None = None, *,
                 counts: Any = None, targets: Targets = ("seli", "etf"),
                 center: str = "classes", scatter: bool = True, nc4: str | None = None,
                 ignore_index: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if num_classes < 2 or num_features < 1:
            raise InvalidInput(f"num_classes must be ≥ 2 and num_features ≥ 1, got {num_classes} and {num_features}")
        if head is not None and read_head(head).weight.shape != (num_classes, num_features):
            raise InvalidInput(f"head must map {num_features} features to {num_classes} classes, got a weight of shape "
                               f"{tuple(read_head(head).weight.shape)}")
        if nc4 not in (None, "previous"):
            raise InvalidInput(f"nc4 must be 'previous' or None, got {shown(nc4)!r}")
        self.num_classes, self.num_features = num_classes, num_features
        check_center(center)
        self.targets = targets
        # A misspelt one is told now, not after an epoch.
        target_geometries(self.targets, ClassCounts([1] * num_classes))
        self.counts_declared = None if counts is None else ClassCounts.from_counts(counts)
        if self.counts_declared is not None and self.counts_declared.k != num_classes:
            raise InvalidInput(f"counts must be one per class, expected {num_classes}, got {self.counts_declared.k}")
        self.center = center
        self.nc4, self.ignore_index = nc4, ignore_index
        self._head = (head,)  # in a tuple: the head belongs to the model, not to this module's parameters
        states = ClassMoments.initial(num_classes, num_features, scatter) | DecisionCounts.initial(num_classes)
        states["disagreements"] = torch.zeros((), dtype=torch.int64)
        # Two metrics of a MetricCollection would share states that are equal while rows are buffered: none is.
        states["instance"] = torch.tensor(next(_INSTANCES))
        for name, default in states.items():
            # No reduction by torchmetrics: `_sync_dist` and `_reduce_states` merge all of them at once.
            self.add_state(name, default, dist_reduce_fx=None)
        shape = (num_classes if nc4 else 0, num_features)
        self.register_buffer("previous_means", torch.zeros(shape, dtype=torch.float64), persistent=False)
        self.register_buffer("previous_counts", torch.zeros(shape[0], dtype=torch.int64), persistent=False)
        self._running: tuple[ClassMoments, DecisionCounts] | None = None
        self._known: KnownMeans | None = None

    def update(self, features: Any, labels: Any, logits: Any = None) -> None:
        """Add a batch of the head's inputs and their labels.

        Parameters
        ----------
        features : (n, d) or (batch, sequence, d) tensor or array
        labels : (n,) or (batch, sequence) tensor or array of whole numbers
        logits : (n, k) or (batch, sequence, k) tensor or array, optional
            What the head made of them, where it was computed anyway, in single precision or better; computed from the
            head when left out.
        """
        features, labels, logits = self._flat(_as_tensor(features), whole_labels(labels), _as_tensor(logits))
        moments, decisions = self._accumulators()
        moments.update(features, labels)
        head = self._head[0]
        if head is None or not len(labels):
            return
        usable = labels.long().clamp(0, self.num_classes - 1)  # on an accelerator, bad labels are reported later
        if logits is None or logits.element_size() < 4:  # logits in half precision tie too often to tell who wins
            decided = read_head(head).decide(features, usable)
        else:
            decided = decide_from_logits(logits, usable)
        decisions.update(usable, decided)
        if self._known is not None:
            before = self._known.disagreements
            self._known.add(features, usable, decided.classes)
            self.disagreements += self._known.disagreements - before

    def measurement(self) -> Measurement:
        """The whole measurement of this process's samples (of all processes' inside a sync)."""
        moments, measured = self._measured()
        if self.nc4:
            self.previous_means, self.previous_counts = moments.means, moments.counts
        return measured

    def _measured(self) -> tuple[Moments, Measurement]:
        moments, decisions = self._finished()
        if not bool(moments.counts.any()):
            raise InvalidInput("nothing to measure yet: call update(features, labels) first")
        module = self._head[0]
        head = None if module is None else read_head(module)
        compared = self._known is not None and head is not None
        samples = None if head is None else decisions.statistics(int(self.disagreements) if compared else None)
        return moments, finish(moments, samples, head, nc4_means="previous" if compared else None,
                               counts=self.counts_declared, names=None, targets=self.targets, center=self.center)

    def __repr__(self) -> str:
        return f"CollapseMetric({self.num_classes} classes, {self.num_features} features)"

    def _repr_html_(self) -> str:
        return metric_html(repr(self), self._measured()[1] if bool(self.metric_state["counts"].any()) else None)

    def compute(self) -> dict[str, Tensor]:
        """Every metric as one flat dictionary of float64 scalars."""
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device)
                for name, value in self.measurement().scalars().items()}

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the scalars that sum up a network (NC1, distances, duality, accuracy) with torchmetrics' plot.

        Parameters
        ----------
        val : dict or sequence of dict, optional
            What `compute` or `forward` gave, once or several times; `compute` is called when left out.
        ax : matplotlib axes, optional
        """
        values = self.compute() if val is None else val
        if isinstance(values, Mapping):
            return self._plot(_summary(values), ax)
        return self._plot([_summary(value) for value in values], ax)

    # -- torchmetrics' life cycle: what is buffered goes into the states before anything reads them ---

    def reset(self) -> None:
        """Forget every sample (but not the means that the next NC4 is taken from)."""
        self._running = None
        super().reset()
        seen = self.nc4 is not None and bool(self.previous_counts.any())
        self._known = KnownMeans(self.previous_means, self.previous_counts) if seen else None

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states of all processes; see torchmetrics."""
        self._flush()
        super().sync(*args, **kwargs)

    def set_dtype(self, dst_type: str | torch.dtype) -> CollapseMetric:
        """Does nothing: the states stay float64."""
        return self

    @property
    def metric_state(self) -> dict[str, Any]:
        """The states by name, see torchmetrics."""
        self._flush()
        return super().metric_state

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        super()._sync_dist(*args, **kwargs)
        self._merge([{name: getattr(self, name)[rank] for name in self._defaults}
                     for rank in range(self.counts.shape[0])])

    def _reduce_states(self, incoming_state: Mapping[str, Tensor]) -> None:
        self._flush()
        self._merge([incoming_state, {name: getattr(self, name) for name in self._defaults}])

    def _merge(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        """Put the samples of all parts into this metric's states."""
        together = merged([ClassMoments.over(part).moments() for part in parts])
        states = ClassMoments.states_of(together, torch.stack([part["invalid"] for part in parts]).amax(0))
        states |= {"correct": torch.stack([part["correct"] for part in parts]).sum(0),
                   "margin_min": torch.stack([part["margin_min"] for part in parts]).amin(0),
                   "margin_sum": torch.stack([part["margin_sum"] for part in parts]).sum(0),
                   "disagreements": torch.stack([part["disagreements"] for part in parts]).sum(0)}
        for name, state in states.items():
            setattr(self, name, state)

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

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> nn.Module:
        self._flush()
        # Only where it moves to counts, never to what precision: see Notes.
        return super()._apply(lambda state: state.to(fn(state.new_empty(0)).device), *args, **kwargs)

    def _accumulators(self) -> tuple[ClassMoments, DecisionCounts]:
        """The accumulators, whose tensors are this metric's states (bound anew when torchmetrics replaced one)."""
        if self._running is None or self._running[0].counts is not self.counts:
            states = {name: getattr(self, name) for name in self._defaults}
            self._running = ClassMoments.over(states), DecisionCounts.over(states)
        return self._running

    def _finished(self) -> tuple[Moments, DecisionCounts]:
        moments, decisions = self._accumulators()
        return moments.moments(), decisions

    def _flush(self) -> None:
        if self._running is not None:
            self._running[0].flush()
            self._running = None

    def _flat(self, features: Tensor, labels: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """One row a sample, without the ignored ones."""
        expected = (*features.shape[:-1], self.num_classes)
        if logits is not None and (logits.shape != expected or not logits.is_floating_point()):
            raise InvalidInput(f"logits must be floats of shape {expected}, got {logits.dtype} of shape "
                               f"{tuple(logits.shape)}")
        if features.ndim == 3 and labels.shape == features.shape[:2]:
            features, labels = features.flatten(0, 1), labels.flatten()
            logits = None if logits is None else logits.flatten(0, 1)
        if self.ignore_index is not None:
            kept = labels != self.ignore_index
            features, labels, logits = features[kept], labels[kept], None if logits is None else logits[kept]
        return features, labels, logits


def _as_tensor(values: Any) -> Any:
    return values.detach() if isinstance(values, Tensor) else None if values is None else torch.as_tensor(values)


def _summary(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items()
            if name.endswith(_PLOTTED) and not name.startswith("nc/class/") and not bool(torch.isnan(value))}

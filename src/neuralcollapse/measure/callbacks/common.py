"""What every adapter shares: which epochs are measured, the features of passes that happen anyway, the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from types import TracebackType
from typing import Any
import warnings

from torch import Tensor, distributed, nn

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.callbacks.alert import MergingAlert, MinoritiesMerging
from neuralcollapse.measure.collapse import CollapseMetric
from neuralcollapse.measure.labelled import whole_labels
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.model import measure_model
from neuralcollapse.measure.probe import Probe
from neuralcollapse.measure.verdict import MERGED, Verdict, judge
from neuralcollapse.predict.targets import Targets

_LABEL_NAMES = ("labels", "label", "y", "target", "targets")


@dataclass(frozen=True)
class Report:
    """What one measured epoch has to say.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    measurement : Measurement
    verdict : Verdict
    alert : str or None
        One line, when minority classifiers merge.
    """

    epoch: int
    measurement: Measurement
    verdict: Verdict
    alert: str | None = None

    def scalars(self, per_class: bool = False) -> dict[str, float]:
        """The measurement's finite scalars with those of the verdict; without those of single classes unless asked."""
        values = self.measurement.scalars() | self.verdict.scalars()
        return {name: value for name, value in values.items()
                if isfinite(value) and (per_class or not name.startswith("nc/class/"))}

    def __str__(self) -> str:
        values, (classifiers, means) = self.scalars(), self.verdict.distances
        parts = {"NC1": self.verdict.nc1, "D_W": classifiers, "D_M": means, "accuracy": values.get("nc/accuracy")}
        numbers = "  ".join(f"{name} {value:.3g}" for name, value in parts.items() if value is not None)
        return f"epoch {self.epoch}  {numbers}  {self.verdict.kind}"


class Watch:
    """Measure a model during training from the forward passes it makes anyway.

    Over an epoch the samples are seen by a network that still moves, with dropout and augmentation on; give
    `end_epoch` a data loader to measure the network as it stands. Several processes are merged, and all of them get
    the same report.

    Parameters
    ----------
    model : torch.nn.Module
    counts : ClassCounts or anything `ClassCounts.from_counts` takes
        Training samples per class.
    log : callable, optional
        Hears every `Report` on the main process, such as `print`.
    every : int or "log"
        Which epochs: every so many, or 1, 2, 3, 4, 6, 8, 12, 16, 23, …, √2 apart. The last one always, where `epochs`
        says which it is.
    epochs : int, optional
        How many there will be.
    head, targets, center, ignore_index
        As in `measure_model`.
    next_token : bool
        Labels are the tokens themselves: those at t + 1 belong to the features at t.
    alert : float or None
        `MergingAlert`'s threshold; None for no alert. It is given as a `MinoritiesMerging` warning too.
    stop : bool
        Ask for an end of training (`stopped`) at an alert.

    Raises
    ------
    InvalidInput
        A schedule or threshold that is none, a model without the head, and as `CollapseMetric`.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> images, labels = torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 1, 1])
    >>> watch = Watch(model, [4, 2])
    >>> _ = model(images)
    >>> watch.add(labels)
    >>> watch.end_epoch().measurement.measured.seen.tolist()
    [4, 2]
    """

    def __init__(self, model: nn.Module, counts: Any, *, log: Callable[[Report], object] | None = None,
                 every: int | str = "log", epochs: int | None = None, head: str | nn.Module | None = None,
                 targets: Targets = ("seli", "etf"), center: str = "classes", ignore_index: int = -100,
                 next_token: bool = False, alert: float | None = MERGED, stop: bool = False):
        if every != "log" and not (isinstance(every, int) and every >= 1):
            raise InvalidInput(f"every must be a whole number of epochs or 'log', got {shown(every)!r}")
        if epochs is not None and not (isinstance(epochs, int) and epochs >= 1):
            raise InvalidInput(f"epochs must be a whole number of at least 1, got {shown(epochs)!r}")
        self.counts, self.log, self.every, self.epochs = ClassCounts.from_counts(counts), log, every, epochs
        self.next_token, self.stop, self.stopped = next_token, stop, False
        self._alert = None if alert is None else MergingAlert(alert)
        self._model, self._head, self._probe = model, head, Probe(model, head, classes=self.counts.k)
        self._options: dict[str, Any] = {"counts": self.counts, "targets": targets, "center": center,
                                         "ignore_index": ignore_index}
        self._metric: CollapseMetric | None = None
        self._attached = False
        self.start_epoch(1)

    # -- one epoch ----------------------------------------------------------------------------------

    def start_epoch(self, epoch: int) -> None:
        """Say which epoch comes next (counted from 1); `end_epoch` does so by itself."""
        self.epoch = epoch
        self._attach(self.due)

    @property
    def due(self) -> bool:
        """Whether this epoch is measured."""
        if self.every == "log":
            # The first epoch at or past a power of √2, without rounding: e² ≥ 2^j > (e − 1)².
            scheduled = (self.epoch**2).bit_length() > ((self.epoch - 1) ** 2).bit_length()
        else:
            scheduled = self.epoch % int(self.every) == 0
        return scheduled or self.epoch == self.epochs

    def add(self, labels: Any) -> None:
        """The labels of the forward pass just made; costs nothing in an epoch that is not measured.

        Parameters
        ----------
        labels : (n,) or (batch, sequence) tensor, array or list of whole numbers
        """
        if self._attached:
            self._update(whole_labels(labels))

    def end_epoch(self, batches: Iterable[Any] | None = None) -> Report | None:
        """The report of this epoch, None where it is not measured; the next one begins.

        Parameters
        ----------
        batches : iterable, optional
            Measure these in eval mode instead, batches as of `measure_model`. Each process goes through its own,
            one at least.

        Raises
        ------
        InvalidInput
            No `add` in a measured epoch, or no batch.
        """
        report = self._report(self._measure(batches)) if self.due else None
        self.start_epoch(self.epoch + 1)
        return report

    def close(self) -> None:
        """Leave the model as it was; `with Watch(…) as watch:` does so by itself."""
        self._attach(False)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    # -- below --------------------------------------------------------------------------------------

    def _attach(self, on: bool) -> None:
        if on and not self._attached:
            self._probe.__enter__()
        elif self._attached and not on:
            self._probe.__exit__(None, None, None)
        self._attached = on

    def _update(self, labels: Tensor) -> None:
        features, logits, head = self._probe.features(), self._probe.logits(), self._probe.head
        if features.numel() != labels.numel() * features.shape[-1]:
            raise InvalidInput(f"labels must be one per row that the head saw, expected "
                               f"{features.numel() // features.shape[-1]}, got {labels.numel()}")
        features = features.reshape(*labels.shape, -1)
        logits = None if logits is None else logits.reshape(*labels.shape, -1)
        if self.next_token:
            features, labels = features[..., :-1, :], labels[..., 1:]
            logits = None if logits is None else logits[..., :-1, :]
        if self._metric is None:
            self._metric = CollapseMetric(self.counts.k, features.shape[-1], head, nc4="previous", **self._options)
            self._metric.to(features.device)
        self._metric.update(features, labels.to(features.device), logits)

    def _measure(self, batches: Iterable[Any] | None) -> Measurement:
        if batches is not None:
            if self._metric is not None:
                self._metric.reset()  # what was added on the way is not asked for, nor in the next epoch
            return measure_model(self._model, batches, head=self._head, next_token=self.next_token,
                                 shared=_several_processes(), **self._options)
        if self._metric is None or not self._metric.update_called:
            raise InvalidInput(f"nothing was measured in epoch {self.epoch}: call add(labels) after each forward "
                               "pass, or give end_epoch a data loader")
        with self._metric.sync_context():
            measurement = self._metric.measurement()
        self._metric.reset()
        return measurement

    def _report(self, measurement: Measurement) -> Report:
        message = None if self._alert is None else self._alert(measurement, last=self.epoch == self.epochs)
        report = Report(self.epoch, measurement, judge(measurement), message)
        self.stopped = self.stopped or (self.stop and message is not None)
        if is_main_process():
            if message is not None:
                warnings.warn(f"epoch {self.epoch}: {message}", MinoritiesMerging, stacklevel=3)
            if self.log is not None:
                self.log(report)
        return report


def labels_of(batch: Any) -> Tensor:
    """The labels of a batch: the entry called "labels", "label", "y" or "target", or the second of a pair.

    Raises
    ------
    InvalidInput
        A batch that has neither.

    Examples
    --------
    >>> import torch
    >>> labels_of((torch.zeros(2, 3), torch.tensor([1, 0]))).tolist()
    [1, 0]
    """
    if isinstance(batch, Mapping):
        for name in _LABEL_NAMES:
            if name in batch:
                return batch[name]
        raise InvalidInput(f"a batch must hold its labels under one of {', '.join(_LABEL_NAMES)}, got "
                           f"{', '.join(map(str, batch))}")
    if isinstance(batch, Sequence) and len(batch) >= 2 and isinstance(batch[1], Tensor):
        return batch[1]
    raise InvalidInput(f"a batch must be a pair (inputs, labels) or a dictionary with labels, got "
                       f"{type(batch).__name__}")


def is_main_process() -> bool:
    """Whether this process is the one that logs."""
    return not _several_processes() or distributed.get_rank() == 0


def _several_processes() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

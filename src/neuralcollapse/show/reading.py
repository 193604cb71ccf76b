"""A run as pictures and sentences need it: series over epochs with gaps as NaN, and the geometry predicted for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable
import warnings

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, NotConverged, positive_number
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.records import look
from neuralcollapse.experiments.run import TRAINING, last_epoch
from neuralcollapse.predict import Geometry, target_geometry

if TYPE_CHECKING:
    from neuralcollapse.experiments.expected import Expected

LOSS = "loss"
"""The target that is the limit of the run's own loss."""

PARTS = (("classifiers", "Classifiers", "D_W"), ("embeddings", "Embeddings", "D_M"), ("logits", "Logits", "D_Z"))


@runtime_checkable
class RunLike(Protocol):
    """What a picture reads of a run: `neuralcollapse.experiments.Run`, or anything with these attributes."""

    @property
    def path(self) -> Path:
        """The run folder."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration."""

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions and the machine."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What was trained on."""

    @property
    def counts(self) -> ClassCounts:
        """Training samples per class, with names."""

    @property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """One record per measured epoch."""

    @property
    def state(self) -> str:
        """In words: "finished", "still training", or where it "stopped …"."""

    @property
    def rescue(self) -> Sequence[Mapping[str, Any]] | None:
        """What became of every class, where the finished run says."""

    def grams(self, epoch: int) -> Mapping[str, np.ndarray] | None:
        """The measured Grams of an epoch, None when they were not kept."""


class TerminalPhase(NamedTuple):
    """The epochs asked for after training error is first zero, and when that was; None while it has not been."""

    wanted: int
    zero_error: int | None


class NoisyLabels(NamedTuple):
    """How many training labels were replaced, of how many."""

    replaced: int
    labels: int


class Reading:
    """The numbers of one run.

    Parameters
    ----------
    run : RunLike
        A `Run`, also while it is still being written.
    """

    def __init__(self, run: RunLike):
        self.run = run
        self.counts = run.counts
        self.minority: np.ndarray = np.asarray(run.counts.minority)
        self.history = [record for record in run.history if np.isfinite(as_number(look(record, "epoch")))]
        self.geometry = cache(self._geometry)

    @classmethod
    def of(cls, run: RunLike | Reading) -> Reading:
        """The numbers of a run, or what has been read already: predictions are then not solved again."""
        return run if isinstance(run, Reading) else cls(run)

    def up_to(self, epoch: int | None) -> Reading:
        """The same run as it stood at a measured epoch, held against the same predictions; itself for None."""
        if epoch is None or not self.measured:
            return self
        earlier = copy(self)
        earlier.history = [record for record in self.history if record["epoch"] <= epoch]
        earlier.__dict__ |= {"targets": self.targets, "expected": self.expected}
        earlier.__dict__.pop("epochs", None)
        return earlier

    @property
    def measured(self) -> bool:
        """Whether any epoch has been measured yet."""
        return bool(self.history)

    @cached_property
    def epochs(self) -> Float[np.ndarray, " e"]:
        """Measured epochs."""
        return np.array([record["epoch"] for record in self.history], dtype=np.float64)

    @property
    def last_epoch(self) -> int:
        """The last measured epoch."""
        return int(self.epochs[-1])

    @property
    def center(self) -> str:
        """What the measured class means are centred on."""
        center = look(self.history[-1], "measurement", "center") if self.measured else None
        return center if isinstance(center, str) else "classes"

    def grams(self, epoch: int) -> dict[str, Float[np.ndarray, "k k"]]:
        """The measured Grams of an epoch, those that were kept."""
        kept = self.run.grams(epoch) or {}
        shape = (self.counts.k, self.counts.k)
        return {part: np.asarray(kept[part], dtype=np.float64) for part, _, _ in PARTS
                if part in kept and kept[part].shape == shape}

    @property
    def planned_epochs(self) -> int | None:
        """The epoch the run ends with, as far as is known: earlier than configured where zero error ends it."""
        epochs = last_epoch(self.history, self.run.config.get("epochs"))
        return int(epochs) if isinstance(epochs, (int, float)) else None

    @property
    def finished(self) -> bool:
        """Whether the last planned epoch has been measured."""
        return self.measured and (self.planned_epochs is None or self.last_epoch >= self.planned_epochs)

    @property
    def live(self) -> bool:
        """Whether a process is training the run."""
        return self.run.state == TRAINING

    @property
    def stopped(self) -> bool:
        """Whether it is not finished and no process is training it."""
        return self.run.state.startswith("stopped")

    @property
    def terminal_phase(self) -> TerminalPhase | None:
        """How far a run with `terminal_epochs` has come in it; None for a run of fixed length."""
        wanted = as_number(self.run.config.get("terminal_epochs"))
        if not self.measured or np.isnan(wanted):
            return None
        zero = as_number(look(self.history[-1], "terminal", "zero_error_epoch"))
        return TerminalPhase(int(wanted), None if np.isnan(zero) else int(zero))

    @property
    def noisy_labels(self) -> NoisyLabels | None:
        """How many training labels were replaced; None where none were."""
        noise = look(dict(self.run.data), "label_noise")
        replaced, clean = as_number(look(noise, "replaced")), look(noise, "clean_counts")
        if np.isnan(replaced) or not isinstance(clean, Sequence):
            return None
        return NoisyLabels(int(replaced), int(sum(clean)))

    @cached_property
    def targets(self) -> list[str]:
        """The predicted geometries distances were measured to, the run's own first; one when they coincide."""
        own = look(self.history[-1], "measurement", "distance", "target") if self.measured else None
        own = own if isinstance(own, str) and self.geometry(own) is not None else "seli"
        measured = self._last_table("distances")
        if self.counts.balanced and own in ("seli", "ce") and "etf" in measured:
            own = "etf"  # the same geometry, by the name it has there
        others = [name for name in (*measured, "etf") if name != own and self.geometry(name) is not None]
        return [own] if self.counts.balanced else list(dict.fromkeys([own, *others]))

    @property
    def target(self) -> str:
        """The geometry this run is held against first."""
        return self.targets[0]

    @property
    def own_target(self) -> str | None:
        """The geometry at the λ of the run's own penalties; None where it was not measured."""
        return next((target for target in self.targets if target.startswith("ridge:")), None)

    def _geometry(self, target: str) -> Geometry | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConverged)  # a picture shows what there is
                return self._named(target).centred(self.center)
        except InvalidInput:  # written by a newer version, or a name that is no geometry here
            return None

    def _named(self, target: str) -> Geometry:
        """A target as the run meant it: "loss" and "ridge:λ" are those of its own settings."""
        if target != LOSS and not target.startswith("ridge:"):
            return target_geometry(target, self.counts)
        expected = self.expected
        if expected is None:
            return target_geometry(target, self.counts)
        if target == LOSS:
            return expected.geometry_or_nearest()
        return expected.geometry_or_nearest(positive_number("the λ of ridge:λ", target.removeprefix("ridge:")))

    @cached_property
    def expected(self) -> Expected | None:
        """What the run's settings lead to; None for settings that this version cannot read."""
        from neuralcollapse.experiments.config import TrainConfig
        from neuralcollapse.experiments.expected import Expected

        try:
            return Expected.of(TrainConfig(**self.run.config), self.counts)
        except (InvalidInput, TypeError):
            return None

    @property
    def predicted(self) -> Geometry:
        """The geometry of `target`, its class means centred as the measured ones."""
        geometry = self.geometry(self.target)
        assert geometry is not None, "targets holds known geometries only"
        return geometry

    def series(self, *path: str) -> Float[np.ndarray, " e"]:
        """A number of every record; NaN where it is missing."""
        return np.array([as_number(look(record, *path)) for record in self.history], dtype=np.float64)

    def last(self, *path: str) -> float | None:
        """A number of the last record; None when it is missing."""
        value = as_number(look(self.history[-1], *path)) if self.measured else np.nan
        return None if np.isnan(value) else float(value)

    def last_per_class(self, *path: str) -> Float[np.ndarray, " k"] | None:
        """A list of k numbers of the last record; None when it is missing or of another length."""
        values = look(self.history[-1], *path) if self.measured else None
        if not isinstance(values, Sequence) or len(values) != self.counts.k:
            return None
        return np.array([as_number(value) for value in values], dtype=np.float64)

    def distances(self, part: str, target: str) -> Float[np.ndarray, " e"]:
        """The distance of "classifiers", "embeddings" or "logits" to a target over epochs."""
        series = self.series("measurement", "distances", target, part)
        if np.isnan(series).all() and target == self.target:
            return self.series("measurement", "distance", part)
        return series

    def last_distance(self, part: str, target: str) -> float | None:
        """The distance to a target at the last measured epoch."""
        series = self.distances(part, target)
        return float(series[-1]) if series.size and np.isfinite(series[-1]) else None

    def _last_table(self, name: str) -> Mapping[str, Any]:
        table = look(self.history[-1], "measurement", name) if self.measured else None
        return table if isinstance(table, Mapping) else {}


def as_number(value: Any) -> float:
    """A finite float, or NaN for None, text and anything else."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value)
    return float(value) if usable else float("nan")

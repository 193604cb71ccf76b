"""A run as the explorer holds it open: read once, its predictions solved once."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any

from neuralcollapse.experiments.comparison import ComparedRun
from neuralcollapse.predict import RidgeEstimate, RidgePath
from neuralcollapse.show.decay import decay_path, nearest_along
from neuralcollapse.show.reading import Reading


def key_of(name: str) -> str:
    """A run's name where only plain letters may stand: Dash compares the identities of components as text."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Unreadable:
    """A name that no run can be shown for, and why; `waiting` where one may still come."""

    name: str
    problem: str
    waiting: bool = False


class DecayPath:
    """The geometry along λ for a run's counts and loss: it takes seconds, and all epochs share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._solved: tuple[RidgePath | None] | None = None

    def solved(self, reading: Reading) -> RidgePath | None:
        """The path, solved by who asks first; None where there is none."""
        with self._lock:
            if self._solved is None:
                self._solved = (decay_path(reading),)
            return self._solved[0]


@dataclass(frozen=True, eq=False)
class OpenedRun:
    """A run that could be read.

    Attributes
    ----------
    compared : ComparedRun
    reading : Reading
    path : DecayPath
    version : str
        Another one whenever the run has changed.
    """

    compared: ComparedRun
    reading: Reading
    path: DecayPath
    version: str
    _nearest: dict[int, RidgeEstimate | None] = field(default_factory=dict)

    @classmethod
    def of(cls, compared: ComparedRun, path: DecayPath, version: str) -> OpenedRun:
        """A run whose numbers can be read; raises whatever is raised where they cannot."""
        reading = Reading(compared.run)
        opened = cls(compared, reading, path, version)
        assert opened.state
        assert compared.run.finished in (True, False)
        if reading.measured:
            assert reading.predicted
        return opened

    @property
    def name(self) -> str:
        """The name it has in URLs."""
        return self.compared.name

    @property
    def epochs(self) -> list[int]:
        """The measured epochs."""
        return [int(epoch) for epoch in self.reading.epochs]

    @property
    def state(self) -> str:
        """How far it has come."""
        if self.reading.measured and self.reading.finished:
            return f"finished, epoch {self.reading.last_epoch:,}"
        if self.reading.stopped:
            return self.reading.run.state
        if not self.reading.measured:
            return "nothing measured yet"
        planned = self.reading.planned_epochs
        return f"epoch {self.reading.last_epoch:,}" + (f" of {planned:,}" if planned else "")

    def place(self, epoch: int | None) -> int:
        """The place among the measured epochs of the last one up to `epoch`; of the last one of all for None."""
        upto = [place for place, measured in enumerate(self.epochs) if epoch is None or measured <= epoch]
        return max(upto, default=0)

    def lambda_eff(self, epoch: int) -> RidgeEstimate | None:
        """The λ whose geometry is nearest to the Grams of an epoch; None without Grams or a path."""
        if epoch not in self._nearest:
            path, earlier = self.path.solved(self.reading), self.reading.up_to(epoch)
            self._nearest[epoch] = None if path is None else nearest_along(path, earlier)
        return self._nearest[epoch]

    def setting(self, key: str) -> Any:
        """A setting, None where there is none."""
        return self.reading.run.config.get(key)

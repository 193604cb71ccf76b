"""Train a network from a configuration, measuring its geometry on the way, into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
import platform
import time
from typing import Any

import numpy as np
import torch

from neuralcollapse import __version__
from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.frozen import frozen
from neuralcollapse.experiments.run import GRAMS_UP_TO, Run, RunFolder, require_free
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.rooms import open_room

open_room(__name__)  # `neuralcollapse.experiments.train` is this module once it has been imported


@dataclass(frozen=True)
class EpochReport:
    """What `on_epoch` hears after each epoch.

    Parameters
    ----------
    epoch, epochs : int
        The epoch just finished, counted from 1, and how many there will be.
    loss : float
        Its mean training loss, penalty on the features included.
    record : dict or None
        The line written to the history, when the epoch was measured.
    """

    epoch: int
    epochs: int
    loss: float
    record: dict[str, Any] | None


def train(config: TrainConfig | None, out: str | Path, resume: bool = False,
          on_epoch: Callable[[EpochReport], None] | None = None) -> Run:
    """Train and measure a network, and leave a run folder.

    Parameters
    ----------
    config : TrainConfig or None
        What to train; None only when resuming: the folder's own configuration.
    out : path
        The run folder: new, empty, or with `resume` an unfinished run (a finished one is returned as it is).
    resume : bool
        Continue from the last checkpoint; the history becomes that of an uninterrupted run.
    on_epoch : callable, optional
        Hears an `EpochReport` after every epoch.

    Returns
    -------
    Run

    Raises
    ------
    InvalidInput
        A setting, data set or model that cannot be used, a folder that holds a run or cannot be written, a
        resume with other settings or data than the run's, or a loss that is no longer finite.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 16}), f"{folder}/run")
    ...     run.measured_epochs, sorted(run.history[-1]["test"])[:2]
    ([1, 2], ['accuracy', 'balanced_accuracy'])
    """
    if resume:
        config = _settings_of(Run.open(out), config)
        if Run.open(out).finished:
            return Run.open(out)
    elif config is None:
        raise InvalidInput("train needs a configuration, got none and nothing to resume")
    else:
        require_free(out)
    data = load_data(config)
    with reproducible(config.threads):
        session = Session(config, data)
        folder, clock = _resumed(out, session) if resume else (_created(out, session), _Clock())
        _loop(session, folder, clock, on_epoch)
    if data.counts.k <= GRAMS_UP_TO:
        folder.save_rescue([verdict.to_dict() for verdict in frozen(session, clock.epoch).rescue()])
    return Run.open(out)


@dataclass
class _Clock:
    """Where training stands: the last finished epoch, and the seconds spent so far."""

    epoch: int = 0
    train: float = 0.0
    measure: float = 0.0


def _loop(session: Session, folder: RunFolder, clock: _Clock,
          on_epoch: Callable[[EpochReport], None] | None) -> None:
    config = session.config
    measured = set(config.measured_epochs)
    for epoch in range(clock.epoch + 1, config.epochs + 1):
        begin = time.perf_counter()
        loss = session.run_epoch(epoch)
        clock.train += time.perf_counter() - begin
        clock.epoch = epoch
        session.check_loss(loss, epoch)
        record = _measure(session, folder, clock) if epoch in measured else None
        if on_epoch is not None:
            on_epoch(EpochReport(epoch, config.epochs, loss, record))


def _measure(session: Session, folder: RunFolder, clock: _Clock) -> dict[str, Any]:
    """Measure, then write: the state first, the history last, so that its epochs can be continued from."""
    begin = time.perf_counter()
    values, measurement = session.measure(clock.epoch)
    record = {"epoch": clock.epoch, **values, "learning_rate": session.config.learning_rate_at(clock.epoch),
              "measurement": measurement.to_dict()}
    state = BytesIO()
    torch.save({"clock": asdict(clock), **session.state()}, state)
    folder.save_checkpoint(state.getvalue())
    folder.add_grams(clock.epoch, measurement.grams())
    clock.measure += time.perf_counter() - begin
    record["seconds"] = {"train": round(clock.train, 4), "measure": round(clock.measure, 4)}
    folder.append(record)
    return record


def _created(out: str | Path, session: Session) -> RunFolder:
    data = session.data
    return RunFolder.create(out, session.config.to_yaml(), _environment(session), _data_record(session),
                            {"train": data.indices, "test": data.test_indices})


def _resumed(out: str | Path, session: Session) -> tuple[RunFolder, _Clock]:
    """The folder and the clock of an interrupted run, with its state in `session`."""
    run, folder = Run.open(out), RunFolder(out)
    if _data_record(session) != run.data:
        raise InvalidInput(f"cannot resume '{out}': the data set '{session.config.dataset}' is not what the "
                           "run was trained on any more")
    if not folder.checkpoint.is_file():
        if run.history:
            raise InvalidInput(f"cannot resume '{out}': it has {len(run.history)} measured epochs "
                               "and no checkpoint")
        return folder, _Clock()
    try:
        saved = torch.load(folder.checkpoint, map_location=session.accelerator.device, weights_only=True)
        session.restore(saved)
        clock = _Clock(**saved["clock"])
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, UnpicklingError):
        raise InvalidInput(f"cannot resume '{out}': its checkpoint cannot be read") from None
    folder.mend_history()
    if clock.epoch not in run.measured_epochs:  # killed between state and history
        _measure(session, folder, clock)
    return folder, clock


def _settings_of(run: Run, config: TrainConfig | None) -> TrainConfig:
    """The configuration of a run; InvalidInput when another one was asked for, with the difference."""
    saved = TrainConfig(**run.config)
    if config is None or config == saved:
        return saved
    mine, its = config.model_dump(), saved.model_dump()
    changes = ", ".join(f"{name} is {shown(its[name])} there and {shown(mine[name])} here"
                        for name in mine if mine[name] != its[name])
    raise InvalidInput(f"cannot resume '{run.path}' with other settings: {changes}")


def _environment(session: Session) -> dict[str, Any]:
    return {"neuralcollapse": __version__, "python": platform.python_version(),
            "torch": str(torch.__version__), "numpy": np.__version__, "platform": platform.platform(),
            "device": str(session.accelerator.device), "threads": torch.get_num_threads(),
            "started": datetime.now(UTC).isoformat(timespec="seconds")}


def _data_record(session: Session) -> dict[str, Any]:
    data, counts = session.data, session.data.counts
    ridges = session.config.ridges(float(counts.n))
    return {"dataset": session.config.dataset, "classes": counts.k, "names": list(counts.names),
            "counts": [int(value) for value in counts.values], "minority": counts.minority.tolist(),
            "test_counts": data.test_counts.tolist(), "input_shape": list(data.shape),
            "features": session.head.in_features, "mean": data.mean.tolist(), "spread": data.spread.tolist(),
            "ridges": {"classifiers": ridges[0], "embeddings": ridges[1]}}

"""Train a network from a configuration, measuring its geometry on the way, into a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
import platform
import time
from typing import Any

import numpy as np
import torch

from neuralcollapse import __version__
from neuralcollapse.checks import InvalidInput, counted, shown
from neuralcollapse.experiments.checkpoint import pack, unpack
from neuralcollapse.experiments.clock import Clock
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import load_data
from neuralcollapse.experiments.frozen import Frozen
from neuralcollapse.experiments.processes import from_first, join_processes, lost_processes_named, rank
from neuralcollapse.experiments.run import FORMAT, GRAMS_UP_TO, Run, RunFolder, require_free
from neuralcollapse.experiments.session import Session, reproducible
from neuralcollapse.measure.sharing import processes
from neuralcollapse.rooms import open_room

open_room(__name__)  # `neuralcollapse.experiments.train` is this module once it has been imported


@dataclass(frozen=True)
class EpochReport:
    """What `on_epoch` hears after each epoch.

    Parameters
    ----------
    epoch, epochs : int
        The epoch just finished, counted from 1, and how many there will be as far as is known.
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

    A run that was stopped, by `kill -9` too, loses what came after its last checkpoint; resumed, it writes the history
    of an uninterrupted one: equal to the bit on a CPU with as many threads. Several processes (`torchrun`, `accelerate
    launch`) train one network; a run may be resumed with another number of them.

    Parameters
    ----------
    config : TrainConfig or None
        What to train; None only when resuming: the folder's own configuration.
    out : path
        The run folder: new, empty, or with `resume` an unfinished run (a finished one is returned as it is).
    resume : bool
        Continue from the last checkpoint; the history becomes that of an uninterrupted run.
    on_epoch : callable, optional
        Hears an `EpochReport` after every epoch; of several processes in the first alone.

    Returns
    -------
    Run

    Raises
    ------
    InvalidInput
        A setting, data set or model that cannot be used, a folder that holds a run, is being written by another
        process or cannot be written, a resume with other settings or data than the run's, a loss that is no longer
        finite, or another process of this run that has stopped.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 16}), f"{folder}/run")
    ...     run.measured_epochs, sorted(run.history[-1]["test"])[:2]
    ([1, 2], ['accuracy', 'balanced_accuracy'])
    """
    if resume:
        run = Run.open(out)
        config = _settings_of(run, config)
        if _complete(run):
            return run
    elif config is None:
        raise InvalidInput("train needs a configuration, got none and nothing to resume")
    elif not isinstance(config, TrainConfig):
        raise InvalidInput(f"train needs a TrainConfig, got {type(config).__name__}: give TrainConfig(…)")
    else:
        require_free(out)
    # Before the data: a device that the processes cannot share is refused at once, and `reproducible` keeps the random
    # state of the device that is chosen here. `Session` is then told the same again.
    join_processes(config.device)
    data = load_data(config)
    with lost_processes_named(), reproducible(config.threads), ExitStack() as held:
        session, folder = Session(config, data), RunFolder(out)
        clock = _resumed(folder, session, held) if resume else _created(folder, session, held)
        _loop(session, folder, clock, on_epoch)
        if rank() == 0 and session.data.counts.k <= GRAMS_UP_TO:
            folder.save_rescue([verdict.to_dict() for verdict in Frozen.of_session(session, clock.epoch).rescue()])
    return Run.open(out)


def _loop(session: Session, folder: RunFolder, clock: Clock,
          on_epoch: Callable[[EpochReport], None] | None) -> None:
    config, saved = session.config, clock.train
    while clock.epoch < clock.last(config):
        begin = time.perf_counter()
        loss = session.run_epoch(clock.epoch + 1)
        clock.train += time.perf_counter() - begin
        clock.epoch += 1
        session.check_loss(loss, clock.epoch)
        _look_for_zero_error(session, clock)
        record = _measure(session, folder, clock) if clock.due(config) else None
        if record is None and clock.train - saved >= config.checkpoint_every:
            _save(session, folder, clock)
            saved = clock.train
        elif record is not None:
            saved = clock.train
        if on_epoch is not None and rank() == 0:
            on_epoch(EpochReport(clock.epoch, clock.last(config), loss, record))


def _look_for_zero_error(session: Session, clock: Clock) -> None:
    begin = time.perf_counter()
    if clock.zero_error is None and session.fits_every_sample():
        clock.zero_error = clock.epoch
    clock.measure += time.perf_counter() - begin


def _measure(session: Session, folder: RunFolder, clock: Clock) -> dict[str, Any]:
    """Measure, then write: the state first, the history last, so that its epochs can be continued from."""
    begin = time.perf_counter()
    values, measurement = session.measure(clock.epoch)
    record = {"epoch": clock.epoch, **values, "learning_rate": session.config.learning_rate_at(clock.epoch),
              **clock.terminal(session.config)}
    if rank() > 0:
        return record
    record["measurement"] = measurement.to_dict()
    _save(session, folder, clock)
    folder.add_grams(clock.epoch, measurement.grams())
    clock.measure += time.perf_counter() - begin
    record["seconds"] = {"train": round(clock.train, 4), "measure": round(clock.measure, 4)}
    folder.append(record)
    return record


def _save(session: Session, folder: RunFolder, clock: Clock) -> None:
    if rank() == 0:
        folder.save_checkpoint(pack(session, clock))


def _created(folder: RunFolder, session: Session, held: ExitStack) -> Clock:
    indices = {"train": session.data.indices, "test": session.data.test_indices}
    if session.noise is not None:
        indices |= {"noisy": session.noise.positions, "noisy_labels": session.noise.labels}

    def create() -> None:
        held.enter_context(folder.held())
        RunFolder.create(folder.path, session.config.to_yaml(), _environment(session),
                         {"format": FORMAT, **_data_record(session)}, indices)

    from_first(create)
    return Clock()


def _resumed(folder: RunFolder, session: Session, held: ExitStack) -> Clock:
    """The clock of an interrupted run, with its state in `session`."""
    state, measured = from_first(lambda: _read(folder, session, held))
    if state is None:
        return Clock()
    clock = unpack(session, state)
    if clock is None:
        raise InvalidInput(f"cannot resume '{folder.path}': its checkpoint cannot be read")
    if clock.due(session.config) and clock.epoch not in measured:  # killed between state and history
        _measure(session, folder, clock)
    return clock


def _read(folder: RunFolder, session: Session, held: ExitStack) -> tuple[bytes | None, list[int]]:
    """The checkpoint and the measured epochs of a run that nobody else writes."""
    held.enter_context(folder.held())
    run, out = Run.open(folder.path), folder.path
    if _data_record(session) != {name: value for name, value in run.data.items() if name != "format"}:
        raise InvalidInput(f"cannot resume '{out}': the data set '{session.config.dataset}' is not what the "
                           "run was trained on any more")
    if not folder.checkpoint.is_file():
        if run.history:
            raise InvalidInput(f"cannot resume '{out}': it has {counted(len(run.history), 'measured epoch')} and no "
                               "checkpoint")
        return None, []
    try:
        state = folder.checkpoint.read_bytes()
    except OSError:
        raise InvalidInput(f"cannot resume '{out}': its checkpoint cannot be read") from None
    folder.mend_history()
    return state, run.measured_epochs


def _complete(run: Run) -> bool:
    """Whether nothing is left to do: a kill may have come after the last epoch and before the verdicts."""
    verdicts = run.rescue is not None or run.counts.k > GRAMS_UP_TO or not RunFolder(run.path).checkpoint.is_file()
    return run.finished and verdicts


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
            "device": str(session.device), "threads": torch.get_num_threads(),
            "processes": processes(),
            "started": datetime.now(UTC).isoformat(timespec="seconds")}


def _data_record(session: Session) -> dict[str, Any]:
    data, counts = session.data, session.data.counts
    ridges = session.config.ridges(float(counts.n))
    return {"dataset": session.config.dataset, "classes": counts.k, "names": list(counts.names),
            "counts": [int(value) for value in counts.values], "minority": counts.minority.tolist(),
            "test_counts": data.test_counts.tolist(), "input_shape": list(data.shape),
            "features": session.head.in_features, "mean": data.mean.tolist(), "spread": data.spread.tolist(),
            "ridges": {"classifiers": ridges[0], "embeddings": ridges[1]},
            **({} if session.noise is None else {"label_noise": session.noise.record()})}

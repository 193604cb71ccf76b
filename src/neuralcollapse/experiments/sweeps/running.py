"""`sweep`: train every cell of a grid that is not trained yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
import time
from typing import Any

from joblib import cpu_count

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.run import HISTORY, Run
from neuralcollapse.experiments.run_files import read_history
from neuralcollapse.experiments.sweeps.folder import SweepFolder
from neuralcollapse.experiments.sweeps.grid import GridCell, read_sweep
from neuralcollapse.experiments.sweeps.pools import ClusterPool, LocalPool, Pool
from neuralcollapse.experiments.sweeps.worker import failure, run_cell, unknown_names

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_UNTIL_SEEN = 10.0  # a network file system may take a while to show what another machine wrote


@dataclass
class CellState:
    """Where a cell stands.

    Parameters
    ----------
    name : str
        Of the cell and its folder.
    settings : dict
        Those that vary.
    folder : Path
        The run folder.
    epochs : int
        How many are planned.
    state : str
        waiting, running, done or failed.
    last : dict or None
        The latest record of its history.
    error : dict or None
        Why it failed: type, message, traceback, where.
    """

    name: str
    settings: dict[str, Any]
    folder: Path
    epochs: int
    state: str = "waiting"
    last: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class SweepResult:
    """What became of a sweep.

    Attributes
    ----------
    path : Path
        Its folder.
    cells : tuple of CellState
        In the order in which they were run.
    """

    path: Path
    cells: tuple[CellState, ...]

    @property
    def failed(self) -> tuple[CellState, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if cell.state == "failed")

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON."""
        cells = [{"name": cell.name, "state": cell.state, "folder": str(cell.folder), "settings": cell.settings,
                  "last": cell.last, "error": cell.error} for cell in self.cells]
        count = Counter(cell.state for cell in self.cells)
        return {"sweep": str(self.path), "done": count["done"], "failed": count["failed"], "cells": cells}


def sweep(source: str | Path | Mapping[str, Any], out: str | Path, jobs: int | None = None,
          scheduler: str | None = None,
          progress: Callable[[Sequence[CellState]], None] | None = None) -> SweepResult:
    """Train every cell of a grid that is not trained yet, several at once; a cell that fails does not stop the others.

    Finished cells are kept, unfinished ones go on from where they stand, failed ones are tried again.

    Parameters
    ----------
    source : path of a YAML file, or a mapping
        See `read_sweep`.
    out : path
        The folder of the sweep: new, empty, or of a sweep before this one.
    jobs : int, optional
        Processes on this machine; by default one per core, fewer where the cells give `threads`.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers then train the cells; they must see `out` under the same path.
    progress : callable, optional
        Hears where every cell stands, a few times a second.

    Returns
    -------
    SweepResult

    Raises
    ------
    InvalidInput
        A sweep that cannot be read, a cell that is not valid, a folder in use, a scheduler that does not answer:
        all of them before anything is trained.

    Examples
    --------
    >>> sweep({"base": {"epoch": 2}}, "runs/never")
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.InvalidInput: unknown setting 'epoch' in base: did you mean 'epochs'? known: ...
    """
    if jobs is not None and jobs < 1:
        raise InvalidInput(f"jobs must be at least 1, got {jobs}")
    if jobs is not None and scheduler is not None:
        raise InvalidInput("give jobs for this machine or a scheduler whose workers are the jobs, not both")
    folder, cells = SweepFolder(out), read_sweep(source)
    with folder.opened() as session:
        cells = folder.placed(cells)
        states = [_standing(folder, cell) for cell in cells]
        todo = [(cell, state) for cell, state in zip(cells, states, strict=True) if state.state != "done"]
        tell = progress or (lambda states: None)
        if todo:
            pool = _pool([cell for cell, _ in todo], jobs, scheduler)
            try:
                _require_known_names(pool, cells)
                folder.write_cells(cells)
                _Sweeping(folder, session, pool, states, tell).train(todo)
            finally:
                pool.close()
        else:
            folder.write_cells(cells)
        tell(states)
    return SweepResult(folder.path, tuple(states))


def _pool(cells: Sequence[GridCell], jobs: int | None, scheduler: str | None) -> Pool:
    if scheduler is not None:
        return ClusterPool(scheduler)
    cores = cpu_count()
    wanted = max(cell.config.threads or 1 for cell in cells)
    jobs = min(jobs or max(1, cores // wanted), len(cells))
    return LocalPool(jobs, max(1, cores // jobs))


def _require_known_names(pool: Pool, cells: Iterable[GridCell]) -> None:
    """Asked of the workers, who need torch anyway: importing it here too would cost seconds."""
    names = sorted({(cell.config.dataset, cell.config.model, cell.config.loss) for cell in cells})
    asked = pool.each(unknown_names, names)
    for future in asked:
        while not future.done():  # a wait without an end would not hear Ctrl-C everywhere
            wait([future], timeout=_SECONDS_BETWEEN_LOOKS)
        pool.release(future)
        try:
            problem = future.result()
        except pool.killed:
            continue
        except ImportError as error:
            raise InvalidInput(f"the workers must have neuralcollapse installed: {error}") from None
        if problem is not None:
            raise InvalidInput(problem)


def _standing(folder: SweepFolder, cell: GridCell) -> CellState:
    state = CellState(cell.name, cell.settings, folder.path / cell.name, cell.config.epochs)
    with suppress(InvalidInput, KeyError, TypeError):  # a folder that cannot be read fails when it is trained
        run = Run.open(state.folder)
        state.last = run.history[-1] if run.history else None
        state.state = "done" if run.finished else "waiting"
    return state


@dataclass
class _Sweeping:
    """A sweep in progress."""

    folder: SweepFolder
    session: str
    pool: Pool
    states: list[CellState]
    tell: Callable[[Sequence[CellState]], None]
    killed: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)

    def train(self, todo: Iterable[tuple[GridCell, CellState]]) -> None:
        """Hand out cells until all have ended."""
        waiting, running = deque(todo), dict[Future[Any], tuple[GridCell, CellState]]()
        while waiting or running:
            while waiting and self.pool.free:
                cell, state = waiting.popleft()
                running[self.pool.submit(run_cell, str(self.folder.path), cell.name, cell.config.model_dump(),
                                         self.session, self.pool.threads)] = (cell, state)
            self._look(state for _, state in running.values())
            self.tell(self.states)
            for future in wait(running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
                cell, state = running.pop(future)
                self.pool.release(future)
                if not self._ended(future, state):
                    waiting.appendleft((cell, state))

    def _ended(self, future: Future[Any], state: CellState) -> bool:
        """Record how a cell ended; False when its worker was killed and it is to be tried once more."""
        try:
            outcome = future.result()
        except self.pool.killed:
            where = self.folder.worker(state.name)
            self.killed[state.name] += 1
            if self.killed[state.name] < self.pool.attempts:
                state.state = "waiting"
                return False
            outcome = failure("WorkerKilled", "the worker that trained it was killed, and so was the one that tried "
                              "again: is there enough memory?", where)
        except Exception as error:  # whatever a worker could not send, such as a module it does not have
            outcome = failure(type(error).__name__, str(error), "a worker")
        if outcome["state"] == "stopped":
            if self.folder.session() is None:
                raise InvalidInput(f"cannot write '{self.folder.path}': it was moved or removed while it was written")
            outcome = failure("Superseded", "another sweep has taken over the folder", "a worker")
        if outcome["state"] == "done" and not self._visible(state):
            outcome = failure("NotShared", f"a worker finished it, but '{state.folder}' does not show it here: the "
                              "workers must share its file system", "a worker")
        state.state, state.error = outcome["state"], outcome.get("error")
        if state.error is not None:
            self.folder.save_failure(state.name, state.error)
        else:
            self.folder.forget_failure(state.name)
        return True

    def _visible(self, state: CellState) -> bool:
        """Whether the finished run can be read here; its last record then is."""
        begin = time.monotonic()
        while time.monotonic() < begin + _SECONDS_UNTIL_SEEN:
            with suppress(InvalidInput):
                run = Run.open(state.folder)
                if run.finished:
                    state.last = run.history[-1]
                    return True
            time.sleep(0.2)
        return False

    def _look(self, running: Iterable[CellState]) -> None:
        """Which of the cells handed out are being trained, and how far they are."""
        working = self.folder.working()
        for state in running:
            if state.name not in working:
                continue
            state.state = "running"
            history = state.folder / HISTORY
            with suppress(OSError, InvalidInput):
                size = history.stat().st_size
                if size != self.sizes.get(state.name):  # records are long: read them when there is a new one
                    self.sizes[state.name] = size
                    records = read_history(history)
                    state.last = records[-1] if records else state.last

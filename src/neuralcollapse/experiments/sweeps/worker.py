"""What a worker does: train one cell, from where it stands, and say how it ended.

A run whose settings leave `threads` open takes its share of the cores, set in the worker and not in the settings:
the same sweep then has the same settings on every machine. A run that goes on keeps the number it began with
(environment.json), because only runs of equal threads repeat exactly; give `threads` where machines must agree.
"""

from __future__ import annotations

from collections.abc import Iterable
import json
import os
from pathlib import Path
import signal
import socket
import threading
import time
import traceback
from typing import Any

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.run import CONFIG, DATA, ENVIRONMENT
from neuralcollapse.experiments.sweeps.folder import SweepFolder
from neuralcollapse.experiments.workers import keep_worker

# torch's random state is one per process: of two runs at once in the threads of a Dask worker neither would repeat.
_ONE_AT_A_TIME = threading.Lock()
# A network file system may take seconds to show a new file to another machine.
_PATIENCE = 10.0


class _Superseded(Exception):
    """The sweep that asked for this run is gone."""


def prepare(parent: int) -> None:
    """Ready a process of this machine: it dies with its parent, which alone hears Ctrl-C and then ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_worker()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)  # as by a kill: a run folder loses nothing

    if os.name == "posix":  # elsewhere a process keeps its parent's number
        threading.Thread(target=watch, daemon=True).start()


def unknown_names(configs: Iterable[tuple[str, str, str]]) -> str | None:
    """What is wrong with the names of (data set, model, loss) that need torch to be looked up; None if nothing."""
    from neuralcollapse.experiments.data import DATASETS
    from neuralcollapse.experiments.models import MODELS
    from neuralcollapse.experiments.remedied import require_loss

    for dataset, model, loss in configs:
        try:
            _ = ":" in dataset or DATASETS[dataset], ":" in model or MODELS[model]
            require_loss(loss)
        except InvalidInput as error:
            return str(error)
    return None


def run_cell(sweep: str, name: str, settings: dict[str, Any], session: str, threads: int | None) -> dict[str, Any]:
    """Train one cell.

    Parameters
    ----------
    sweep : str
        The folder of the sweep, absolute.
    name : str
        Of the cell.
    settings : dict
        Of its run.
    session : str
        Which sweep asks.
    threads : int or None
        For a run that leaves them open; None: those of the Dask worker this runs in.

    Returns
    -------
    dict
        `state`: done, stopped or failed, the last with its `error`.
    """
    folder = SweepFolder(sweep)
    here = f"process {os.getpid()} on {socket.gethostname()}"
    begin = time.monotonic()
    while (seen := folder.session()) is None and time.monotonic() < begin + _PATIENCE:
        time.sleep(0.2)
    if seen is None:
        return failure("NotShared", f"{here} does not see the sweep in '{sweep}': the workers must share its file "
                       "system", here)
    try:
        with _ONE_AT_A_TIME, folder.lock(name), folder.at_work(name, here):
            _train(folder, name, TrainConfig(**settings), session, threads)
    except _Superseded:
        return {"state": "stopped"}
    except (Exception, SystemExit) as error:
        return failure(type(error).__name__, str(error), here, traceback.format_exc())
    return {"state": "done"}


def failure(kind: str, message: str, where: str, trace: str = "") -> dict[str, Any]:
    """What is said of a cell that failed."""
    return {"state": "failed", "error": {"type": kind, "message": message, "traceback": trace, "where": where}}


def _train(folder: SweepFolder, name: str, config: TrainConfig, session: str, threads: int | None) -> None:
    import torch

    from neuralcollapse.experiments.train import train

    def go_on(_: Any = None) -> None:
        if folder.session() != session:
            raise _Superseded

    go_on()
    run = folder.path / name
    before = torch.get_num_threads()
    torch.set_num_threads(_threads_of(run) or threads or _threads_of_dask_worker())
    try:
        train(config, run, resume=(run / CONFIG).is_file() and (run / DATA).is_file(), on_epoch=go_on)
    finally:
        torch.set_num_threads(before)


def _threads_of(run: Path) -> int | None:
    """The threads that a run began with."""
    try:
        threads = json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) and threads > 0 else None


def _threads_of_dask_worker() -> int:
    from distributed import get_worker

    return int(get_worker().state.nthreads)

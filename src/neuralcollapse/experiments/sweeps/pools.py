"""Who trains the cells: processes of this machine, or the workers of a Dask cluster.

On this machine every place is a joblib (loky) executor of one process. `joblib.Parallel` has one executor for all
places, which breaks as a whole when one process is killed: it ends the others, and does not say whose cell it was.
For the same reason cells go to Dask through its client and not through joblib's backend for it, which passes on the
first killed worker's error as the end of everything, and names none of its tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
import logging
import os
import signal
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.sweeps.worker import prepare

_SECONDS_TO_CONNECT = 5
_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Pool(ABC):
    """What a sweep hands its cells to."""

    threads: int | None
    """For runs that leave theirs open; None: those that the worker has."""
    attempts: int
    """How many killed workers a cell may cost."""
    killed: tuple[type[BaseException], ...]
    """What a future raises when its worker was killed."""

    @property
    @abstractmethod
    def free(self) -> bool:
        """Whether a cell can be handed over now."""

    @abstractmethod
    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a task."""

    @abstractmethod
    def release(self, future: Future[Any]) -> None:
        """Give back the place of a task that has ended."""

    @abstractmethod
    def each(self, task: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
        """Start a task that every worker should do before its first cell."""

    @abstractmethod
    def close(self) -> None:
        """End everything, also what is still going on."""


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started meanwhile never hears Ctrl-C, also not in the seconds before `prepare` runs in it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LocalPool(Pool):
    """Processes of this machine, which share its cores.

    Parameters
    ----------
    jobs : int
        How many.
    threads : int
        Of each.
    """

    attempts = 2
    killed: tuple[type[BaseException], ...] = (BrokenExecutor,)

    def __init__(self, jobs: int, threads: int):
        self.threads: int | None = threads
        self._environment = dict.fromkeys(_BLAS, str(threads))
        self._idle = [self._start() for _ in range(jobs)]
        self._busy: dict[Future[Any], Any] = {}

    def _start(self) -> Any:
        return ProcessPoolExecutor(1, initializer=prepare, initargs=(os.getpid(),), env=self._environment)

    @property
    def free(self) -> bool:
        """Whether a process is idle."""
        return bool(self._idle)

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Start a task in an idle process."""
        executor = self._idle.pop(0)
        with _interrupts_held():
            future: Future[Any] = executor.submit(task, *arguments)
        self._busy[future] = executor
        return future

    def release(self, future: Future[Any]) -> None:
        """Give back the process of a task that has ended; a new one when it was killed."""
        executor = self._busy.pop(future)
        if isinstance(future.exception(), BrokenExecutor):
            executor.shutdown(kill_workers=True)
            executor = self._start()
        self._idle.append(executor)

    def each(self, task: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
        """Start a task in every process."""
        return [self.submit(task, *arguments) for _ in range(len(self._idle))]

    def close(self) -> None:
        """Kill every process: run folders are made for that."""
        for executor in (*self._idle, *self._busy.values()):
            executor.shutdown(kill_workers=True)


class ClusterPool(Pool):
    """The workers of a Dask cluster, which share a file system with this machine.

    Parameters
    ----------
    address : str
        Of the scheduler: tcp://HOST:PORT.

    Raises
    ------
    InvalidInput
        No scheduler answers there, or Dask is not installed.
    """

    threads: int | None = None
    attempts = 1  # the scheduler has tried other workers itself: distributed.scheduler.allowed-failures

    def __init__(self, address: str):
        try:
            from distributed import Client, KilledWorker
            from distributed.comm.core import connect
        except ImportError:
            raise InvalidInput("a sweep on a cluster needs dask.distributed, which is not installed: "
                               "pip install 'neuralcollapse[cluster]'") from None
        self.address = address
        self.killed: tuple[type[BaseException], ...] = (KilledWorker,)
        for name in ("distributed.client", "distributed.comm"):  # what they have to say, errors say in one line
            logging.getLogger(name).setLevel(logging.CRITICAL)

        async def call() -> None:
            # `connect` waits without end for the first word of something that is no scheduler.
            await (await asyncio.wait_for(connect(address), _SECONDS_TO_CONNECT)).close()

        try:  # a Client that does not connect goes on trying in the background; a thread, as a notebook has a loop
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, call()).result()
            self._client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False, name="neuralcollapse")
        except (OSError, ValueError, TypeError) as error:
            why = shown(error, 120) or f"silent for {_SECONDS_TO_CONNECT} s"
            raise InvalidInput(f"no Dask scheduler answers at '{address}', expected an address that `dask scheduler` "
                               f"printed, such as tcp://10.0.0.1:8786 ({why})") from None
        self._executor = self._client.get_executor(pure=False)

    @property
    def free(self) -> bool:
        """Always: the scheduler keeps the queue."""
        return True

    def submit(self, task: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Queue a task."""
        future: Future[Any] = self._executor.submit(task, *arguments)
        return future

    def release(self, future: Future[Any]) -> None:
        """Raise InvalidInput when the task ended because the scheduler is gone."""
        if future.cancelled() or isinstance(future.exception(), CancelledError):
            raise InvalidInput(f"the Dask scheduler at '{self.address}' is gone: start it again and give the same "
                               "command to go on (nothing that was measured is lost)")

    def each(self, task: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
        """Queue a task once: workers come and go."""
        return [self.submit(task, *arguments)]

    def close(self) -> None:
        """Take back what has not begun; what is going on hears of it from the sweep's folder."""
        self._executor.shutdown(wait=False)
        self._client.close(timeout=_SECONDS_TO_CONNECT)

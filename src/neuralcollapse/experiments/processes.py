"""Several processes that train one network together, as `torchrun` or `accelerate launch` starts them.

Every process builds the same data and the same weights, takes its share of each batch, and measures its share of the
samples; the first one alone writes the run folder and prints. Gradients are averaged by accelerate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
import os
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
import torch
from torch import distributed

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.sharing import processes

T = TypeVar("T")

# After which a process that does not answer counts as lost. One that dies closes its connections: that shows at once.
_PATIENCE = timedelta(minutes=10)
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout")


def join_processes(device: str) -> Accelerator:
    """What accelerate knows of this process: its device, and the others where a launcher started several.

    Parameters
    ----------
    device : str
        "auto" for an accelerator if there is one, or "cpu".

    Raises
    ------
    InvalidInput
        A launcher that started several processes on a device they cannot share, or a process that already uses
        accelerate in another way.
    """
    cpu = device == "cpu" or not torch.accelerator.is_available()
    try:
        # Autocast is the session's own: accelerate's would stay with the process, for measuring and for the next run.
        found = Accelerator(cpu=cpu, mixed_precision="no",
                            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    except ValueError as error:
        raise InvalidInput("training needs accelerate without mixed precision of its own in this process: "
                           + " ".join(str(error).split())) from None
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != found.num_processes and "LOCAL_RANK" in os.environ:
        raise InvalidInput(f"{started} processes were started, but they cannot share '{found.device}': give device cpu")
    return found


def rank() -> int:
    """The number of this process, 0 for one alone; known before the processes have met."""
    if processes() > 1:
        return distributed.get_rank()
    return int(os.environ.get("RANK", "0")) if "LOCAL_RANK" in os.environ else 0


def from_first(find: Callable[[], T]) -> T:
    """What the first process finds, in every process; when it raises InvalidInput, all of them do.

    Examples
    --------
    >>> from_first(lambda: 3)
    3
    """
    if processes() == 1:
        return find()
    told: list[T | str | None] = [None, None]
    if rank() == 0:
        try:
            told[0] = find()
        except InvalidInput as error:
            told[1] = str(error)
    distributed.broadcast_object_list(told)
    if told[1] is not None:
        raise InvalidInput(str(told[1]))
    return told[0]  # type: ignore[return-value]  # what `find` returned, wherever that was


@contextmanager
def lost_processes_named() -> Iterator[None]:
    """One line in place of what the communication library raises once another process is gone.

    Raises
    ------
    InvalidInput
    """
    try:
        yield
    except RuntimeError as error:
        if processes() == 1 or not any(word in str(error).lower() for word in _LOST):
            raise
        raise InvalidInput("another process of this run has stopped (its own message says why): what was written "
                           "stays, and --resume continues from there") from None


def leave_processes() -> None:
    """Part from the others at the end of a command, while Python still runs: at its exit, threads of the group that
    come for the interpreter are ended in the middle of C++, which aborts the process (seen with gloo).
    """
    if processes() > 1:
        distributed.destroy_process_group()

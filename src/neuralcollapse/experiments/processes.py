"""Several processes that train one network together, as `torchrun` or `accelerate launch` starts them.

Every process builds the same data and the same weights, takes its share of each batch, and measures its share of the
samples; the first one alone writes the run folder and prints. Gradients are averaged by accelerate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
import os
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import distributed, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.sharing import processes

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

# After which a process that does not answer counts as lost. One that dies closes its connections: that shows at once.
_PATIENCE = timedelta(minutes=10)
_STARTED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout")


@dataclass(frozen=True)
class Place:
    """Where a run trains.

    Attributes
    ----------
    device : torch.device
    accelerator : accelerate.Accelerator or None
        What averages gradients over the processes, where there are several.
    """

    device: torch.device
    accelerator: Accelerator | None = None

    def shared(self, model: nn.Module) -> nn.Module:
        """A model on this device as it is to be trained: gradients are averaged over the processes."""
        return model if self.accelerator is None else cast(nn.Module, self.accelerator.prepare(model))


def join_processes(device: str) -> Place:
    """The device of this process; where a launcher started several, they meet here.

    Parameters
    ----------
    device : str
        "auto" for an accelerator if there is one, or "cpu".

    Raises
    ------
    InvalidInput
        A launcher that started several processes on a device they cannot share, or a process of several that already
        uses accelerate in another way.

    Examples
    --------
    >>> join_processes("cpu").device
    device(type='cpu')
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    here = torch.device("cpu") if device == "cpu" or found is None else found
    if processes() == 1 and started_processes() == 1:
        return Place(here)  # not accelerate's word: it keeps the device of its first use as long as the process lives
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    try:
        # Autocast is the session's own: accelerate's would stay with the process, for measuring and for the next run.
        joined = Accelerator(cpu=here.type == "cpu", mixed_precision="no",
                             kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)])
    except ValueError as error:
        raise InvalidInput("training needs accelerate without mixed precision of its own in this process: "
                           + " ".join(str(error).split())) from None
    if started_processes() != joined.num_processes and "LOCAL_RANK" in os.environ:
        raise InvalidInput(f"{started_processes()} processes were started, but they cannot share '{joined.device}': "
                           "give device cpu")
    return Place(joined.device, joined)


def started_processes() -> int:
    """How many processes a launcher says that it has started: torchrun and accelerate, or MPI; 1 without one."""
    return next((int(os.environ[name]) for name in _STARTED if os.environ.get(name, "").isdigit()), 1)


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

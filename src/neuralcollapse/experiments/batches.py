"""The batches of an epoch, and the part of each that a process takes.

The order of an epoch comes from the seed and the epoch's number alone, so that it is the same for any number of
processes and needs no state to resume from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from jaxtyping import Float, Int, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput

IGNORED = -100
"""The label of a position that has none, in data of tokens."""


class Batch(NamedTuple):
    """One process's part of a batch.

    Attributes
    ----------
    inputs : (b, …) tensor
    labels : (b,) or (b, length) tensor
        Positions labelled −100 have none.
    own, whole : int
        Labelled positions in this part, and in the batches of all processes together.
    """

    inputs: Shaped[Tensor, "b ..."]
    labels: Int[Tensor, "b ..."]
    own: int
    whole: int


class Batches:
    """The batches of one process.

    An epoch's batches differ by at most one sample: a last batch of one would break batch norm and weigh that sample
    more. Each is shared out in stretches that differ by at most one sample as well.

    Parameters
    ----------
    labels : (n,) or (n, length) tensor
        On the device.
    drawn : (m,) int64 tensor
        Positions of the samples of an epoch, on the CPU.
    bound : (b,) int64 tensor
        Positions of samples that stand in every batch, in the part of each process; none as a rule.
    size : int or None
        Samples of a whole batch at the most; None for one batch of everything.
    rank, processes : int

    Raises
    ------
    InvalidInput
        Batches of fewer samples than there are processes.
    """

    def __init__(self, labels: Int[Tensor, "n ..."], drawn: Int[Tensor, " m"], bound: Int[Tensor, " b"],
                 size: int | None, rank: int = 0, processes: int = 1):
        self._labels, self._drawn, self._bound = labels, drawn, bound
        self._rank, self._processes = rank, processes
        m = len(drawn)
        self._count = 1 if size is None or size >= m else -(-m // size)
        if m // self._count < processes:
            raise InvalidInput(f"every process needs a sample of each batch, got {processes} processes and batches of "
                               f"{m // self._count}")
        self._labelled = (labels != IGNORED).flatten(1).sum(1).cpu() if labels.ndim > 1 else None
        self.positions = self._size(drawn)

    def epoch(self, inputs: Any, seed: int) -> Iterator[Batch]:
        """The batches of this process, in the order that the seed gives.

        Parameters
        ----------
        inputs : (n, …) tensor
            On the device, or what reads its rows when asked for them.
        seed : int
            Of this epoch.
        """
        parts = [[self._rows(part) for part in torch.tensor_split(place, self._processes)]
                 for place in self._places(seed)]
        rows = [each[self._rank] for each in parts]
        for part, index, each in zip(read_ahead(inputs, rows), rows, parts, strict=True):
            yield Batch(part, self._labels[index], self._size(index), sum(self._size(rows) for rows in each))

    def _places(self, seed: int) -> Sequence[Tensor]:
        m = len(self._drawn)
        if self._count == 1:
            return [torch.arange(m)]
        return torch.tensor_split(torch.randperm(m, generator=torch.Generator().manual_seed(seed)), self._count)

    def _rows(self, place: Int[Tensor, " b"]) -> Int[Tensor, " m"]:
        rows = self._drawn[place]
        return torch.cat([rows, self._bound]).unique() if len(self._bound) else rows

    def _size(self, rows: Int[Tensor, " b"]) -> int:
        return len(rows) if self._labelled is None else int(self._labelled[rows].sum())


def read_ahead(inputs: Any, indices: Sequence[Any]) -> Iterator[Tensor]:
    """inputs[index] for every index; what is not in memory is read in a thread while the part before is worked on.

    Examples
    --------
    >>> [part.tolist() for part in read_ahead(torch.arange(4), [slice(0, 3), slice(3, 4)])]
    [[0, 1, 2], [3]]
    """
    if isinstance(inputs, Tensor):
        yield from (inputs[index] for index in indices)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = [thread.submit(inputs.__getitem__, index) for index in indices[:1]]
        for index in indices[1:]:
            ready = coming.pop()
            coming.append(thread.submit(inputs.__getitem__, index))
            yield ready.result()
        yield from (ready.result() for ready in coming)


def own_stretch(n: int, rank: int, processes: int) -> slice:
    """Which of n samples in their stored order this process measures.

    Examples
    --------
    >>> [own_stretch(5, rank, 2) for rank in range(2)]
    [slice(0, 3, None), slice(3, 5, None)]
    """
    part = np.array_split(np.arange(n), processes)[rank]
    return slice(int(part[0]), int(part[-1]) + 1) if part.size else slice(0, 0)


def labelled_rows(labels: Int[Tensor, "b ..."], *rows: Float[Tensor, "b ..."]) -> tuple[Tensor, ...]:
    """Labels and what belongs to each of them, one row a labelled position.

    Parameters
    ----------
    labels : (b,) or (b, length) tensor
        Positions labelled −100 are left out.
    *rows : (b, d) or (b, length, d) tensors
        Logits, features.
    """
    if labels.ndim == 1:
        return (labels, *rows)
    kept = labels != IGNORED
    return (labels[kept], *(part[kept] for part in rows))


def epoch_seed(seed: int, epoch: int, *more: int) -> int:
    """A seed of its own for each epoch of a run."""
    return int(np.random.SeedSequence([seed, epoch, *more]).generate_state(1, np.uint64)[0] >> np.uint64(1))

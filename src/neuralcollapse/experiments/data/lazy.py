"""Inputs that are fetched batch by batch: what a session uses of a tensor, without all of it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.experiments.data.samples import Rows

# Float64 values worked on at once where everything is gone through: small beside a network, large beside a call.
_AT_ONCE = 2**23


@runtime_checkable
class Transform(Protocol):
    """From rows as they are stored to what a network is given."""

    dtype: torch.dtype

    def __call__(self, raw: Tensor) -> Tensor:
        """The rows, ready; on the device that they are on."""


class Normalise:
    """(x − mean)/spread of each channel, in float64, then float32.

    Parameters
    ----------
    mean, spread : (c,) arrays
    """

    dtype = torch.float32

    def __init__(self, mean: Float[np.ndarray, " c"], spread: Float[np.ndarray, " c"]):
        self._mean, self._spread = torch.from_numpy(mean), torch.from_numpy(spread)

    def __call__(self, raw: Shaped[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Normalised rows."""
        if raw.device.type == "mps":  # it has no float64
            return self(raw.cpu()).to(raw.device)
        lifted = (-1, *[1] * (raw.ndim - 2))
        mean, spread = (part.to(raw.device).reshape(lifted) for part in (self._mean, self._spread))
        return ((raw.double() - mean) / spread).float()


class LazyInputs:
    """Some rows of a data set as inputs, read, decoded and transformed when they are asked for.

    Parameters
    ----------
    rows : rows
    index : (n,) int array
        Which of the rows these inputs are, in order.
    transform : callable
    device : torch.device

    Examples
    --------
    >>> halved = Normalise(np.zeros(2), np.full(2, 2.0))
    >>> inputs = LazyInputs(np.arange(8).reshape(4, 2), np.array([3, 0, 2]), halved)
    >>> inputs.shape, inputs[torch.tensor([1, 0])].tolist(), [len(part) for part in inputs.split(2)]
    ((3, 2), [[0.0, 0.5], [3.0, 3.5]], [2, 1])
    """

    def __init__(self, rows: Rows, index: Int[np.ndarray, " n"], transform: Transform,
                 device: torch.device | str = "cpu"):
        self._rows, self._index, self._transform = rows, index, transform
        self.device = torch.device(device)

    def __len__(self) -> int:
        return self._index.size

    def __repr__(self) -> str:
        return f"LazyInputs({len(self)} of shape {self.shape[1:]}, {self.dtype}, on {self.device})"

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, *sample)."""
        return (len(self), *self._rows.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """Type of what is fetched."""
        return self._transform.dtype

    def element_size(self) -> int:
        """Bytes of one number that is fetched."""
        return self.dtype.itemsize

    def to(self, device: torch.device | str) -> LazyInputs:
        """The same inputs, to be fetched onto a device."""
        return LazyInputs(self._rows, self._index, self._transform, device)

    def __getitem__(self, index: int | slice | Int[Tensor, " b"] | Int[np.ndarray, " b"]) -> Tensor:
        """One input, or the inputs of a slice or an index, on the device."""
        if isinstance(index, int):
            return self[np.array([index])][0]
        where = index.cpu().numpy() if isinstance(index, Tensor) else index
        raw = torch.from_numpy(np.ascontiguousarray(self._rows[self._index[where]]))
        return self._transform(raw.to(self.device))

    def split(self, rows: int) -> Iterator[Tensor]:
        """Consecutive chunks of at most `rows` inputs, each fetched when it is asked for."""
        return (self[start : start + rows] for start in range(0, len(self), rows))


def chunks(rows: Rows, index: Int[np.ndarray, " n"]) -> Iterator[Shaped[np.ndarray, "b ..."]]:
    """The rows of an index as they are stored, part by part, for a pass over all of them."""
    step = max(1, _AT_ONCE // max(1, int(np.prod(rows.shape[1:]))))
    for start in range(0, index.size, step):
        yield np.ascontiguousarray(rows[index[start : start + step]])


def in_memory(rows: Rows, index: Int[np.ndarray, " n"], transform: Transform) -> Shaped[Tensor, "n ..."]:
    """The inputs that a `LazyInputs` would fetch, as one tensor."""
    inputs = torch.empty((index.size, *rows.shape[1:]), dtype=transform.dtype)
    start = 0
    for chunk in chunks(rows, index):
        inputs[start : start + len(chunk)] = transform(torch.from_numpy(chunk))
        start += len(chunk)
    return inputs

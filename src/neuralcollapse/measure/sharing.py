"""One measurement of samples that several processes hold: each goes through its own, and all get the whole.

Moments meet in Chan's formula, so that shards may be uneven; per-sample margins stand in the order of the ranks.
"""

from __future__ import annotations

from jaxtyping import Shaped
import torch
from torch import Tensor, distributed

from neuralcollapse.measure.merging import Moments, merged


def processes() -> int:
    """How many processes torch.distributed runs; 1 without it."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def shared_moments(own: Moments) -> Moments:
    """The moments of every process's samples together, the same in all of them.

    Parameters
    ----------
    own : Moments
        Of this process's samples; every process calls this.
    """
    k, d = own.means.shape
    parts = [own.counts.double(), own.means.flatten(), own.squares]
    if own.scatter is not None:
        parts.append(own.scatter.flatten())
    sizes = [len(part) for part in parts]

    def read(row: Tensor) -> Moments:
        counts, means, squares, *scatter = row.split(sizes)  # counts below 2⁵³ are whole in float64
        return Moments(counts.long(), means.reshape(k, d), squares, scatter[0].reshape(d, d) if scatter else None)

    return merged(map(read, _all_gather(torch.cat(parts))))


def summed(own: Tensor) -> Tensor:
    """The sum of what the processes give."""
    total = own.clone()
    distributed.all_reduce(total)
    return total


def least(own: Tensor) -> Tensor:
    """The smallest of what the processes give, entry by entry."""
    low = own.clone()
    distributed.all_reduce(low, distributed.ReduceOp.MIN)
    return low


def joined(own: Shaped[Tensor, " n"]) -> Shaped[Tensor, " N"]:
    """The values of all processes in the order of their ranks; each may have any number of them."""
    sizes = [int(size) for size in _all_gather(torch.tensor([len(own)], device=own.device))]
    padded = own.new_zeros(max(sizes))
    padded[:len(own)] = own
    return torch.cat([part[:n] for part, n in zip(_all_gather(padded), sizes, strict=True)])


def _all_gather(own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own.contiguous())
    return parts

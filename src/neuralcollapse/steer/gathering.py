"""Rows of all processes in one tensor, with gradients that flow back to the process they came from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.measure.sharing import processes


def gathered(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """Rows and labels of all processes in the order of their ranks, and how many stand before this process's own.

    The gradient of a row is the sum of what all processes' losses send it. Numbers of rows may differ.

    Parameters
    ----------
    rows : (n, d) tensor
    labels : (n,) int64 tensor

    Returns
    -------
    (N, d) tensor, (N,) int64 tensor, int

    Raises
    ------
    InvalidInput
        Processes whose rows differ in d.
    """
    shape = torch.tensor(rows.shape, device=rows.device)
    shapes = torch.stack(_all_gather(shape)).tolist()
    sizes = [n for n, _ in shapes]
    dimensions = [d for _, d in shapes]
    if len(set(dimensions)) > 1:
        raise InvalidInput(f"features must have as many dimensions in every process, got {shown(dimensions)}")
    before = sum(sizes[:distributed.get_rank()])
    return _Gathered.apply(rows, sizes, before), _padded_gather(labels, sizes), before


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], before: int) -> Tensor:
        ctx.own = slice(before, before + len(rows))
        return _padded_gather(rows, sizes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        upstream = upstream.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(upstream)
        return upstream[ctx.own], None, None


def _padded_gather(rows: Tensor, sizes: list[int]) -> Tensor:
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[:len(rows)] = rows
    return torch.cat([part[:n] for part, n in zip(_all_gather(padded), sizes, strict=True)])


def _all_gather(own: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(own) for _ in range(processes())]
    distributed.all_gather(parts, own)
    return parts

"""Finished class moments, and how those of several samples join: Chan's centred formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from jaxtyping import Float, Int
import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Finished statistics per class, in float64.

    Attributes
    ----------
    counts : (k,) int64 tensor
    means : (k, d) float64 tensor
        Zero rows where the count is 0; look at `counts`.
    squares : (k,) float64 tensor
        Σ_{i in c} ‖h_i − μ_c‖².
    scatter : (d, d) float64 tensor or None
        Σ_c Σ_{i in c} (h_i − μ_c)(h_i − μ_c)ᵀ.

    Examples
    --------
    >>> one = Moments(torch.tensor([1, 0]), torch.tensor([[1.0], [0.0]]).double(), torch.zeros(2).double(), None)
    >>> two = Moments(torch.tensor([1, 1]), torch.tensor([[3.0], [5.0]]).double(), torch.zeros(2).double(), None)
    >>> both = one.merge(two)
    >>> both.counts.tolist(), both.means.tolist(), both.squares.tolist()
    ([2, 1], [[2.0], [5.0]], [2.0, 0.0])
    """

    counts: Int[Tensor, " k"]
    means: Float[Tensor, "k d"]
    squares: Float[Tensor, " k"]
    scatter: Float[Tensor, "d d"] | None

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together (Chan's centred update, associative to rounding)."""
        counts = self.counts + other.counts
        share = other.counts.double() / counts.clamp(min=1)
        shift = other.means - self.means
        # A class absent on one side takes the other's mean as it is; `share` is then 0 or 1.
        lost = (self.counts * share)[:, None]
        scatter = None
        if self.scatter is not None and other.scatter is not None:
            scatter = self.scatter + other.scatter + shift.T @ (lost * shift)
        return Moments(counts, self.means + share[:, None] * shift,
                       self.squares + other.squares + lost[:, 0] * (shift**2).sum(1), scatter)


def coarse(centres: Tensor) -> Tensor:
    """Numbers near these that float32 holds exactly: batches of any precision then share one and the same centre."""
    near = centres.float().to(centres.dtype)
    return torch.where(torch.isfinite(near), near, centres)


def merged(parts: Iterable[Moments]) -> Moments:
    """The moments of several samples together."""
    return reduce(Moments.merge, parts)

"""Class moments of features in one pass: counts, means, within-class squares and scatter.

Deep collapse means a spread of 1e-6 beside class means of 1: raw second moments, and even one global
provisional centre, return pure rounding there (`theory.md` §6 has the measured comparison). So every sample
is centred on a provisional centre of *its own class*, its mean in the first buffer where the class appears;
the residual means are small and are removed exactly at the end:

    Σ_{i in c} (h_i − μ_c)(h_i − μ_c)ᵀ = Σ zzᵀ − n_c δ_c δ_cᵀ,   z = h − centre_c,   δ_c = mean of z
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from jaxtyping import Float, Int, Shaped
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput

_BUFFER_ROWS = 2048  # rows gathered before one product: batches of 256 alone run far below the product's speed
_DRAIN_EVERY = 8  # buffers summed in float32 before the sum moves to float64
_BLOCK_COLUMNS = 256  # the scatter is symmetric: only its lower block-triangle is formed


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


class ClassMoments:
    """A running, mergeable accumulation of `Moments`.

    Features may be float16, bfloat16, float32 (products in float32, sums in float64) or float64.

    Parameters
    ----------
    classes : int
        k.
    dimension : int
        d.
    scatter : bool
        Keep the (d, d) within-class scatter, which NC1's pseudo-inverse form needs.
    device : torch.device, optional

    Raises
    ------
    InvalidInput
        From `update`: wrong shapes, labels outside 0 … k−1 or non-finite features, named by batch. On an
        accelerator the last two are reported by `moments`, so that no batch waits for the device.

    Examples
    --------
    >>> accumulated = ClassMoments(classes=2, dimension=3)
    >>> accumulated.update(torch.tensor([[1., 0, 0], [3, 0, 0], [0, 5, 0]]), torch.tensor([0, 0, 1]))
    >>> moments = accumulated.moments()
    >>> moments.means[0].tolist(), moments.squares.tolist()
    ([2.0, 0.0, 0.0], [2.0, 0.0])
    """

    STATES = ("counts", "centres", "sums", "squares", "scatter", "invalid")

    def __init__(self, classes: int, dimension: int, scatter: bool = True,
                 device: torch.device | str | None = None):
        self.classes, self.dimension, self.with_scatter = classes, dimension, scatter
        for name, state in self.initial(classes, dimension, scatter).items():
            setattr(self, name, state.to(device))
        self._buffer: Tensor | None = None
        self._buffer_labels: Tensor | None = None
        self._filled = 0
        self._batches = 0
        self._partial: Tensor | None = None  # float32 scatter of the last few buffers
        self._undrained = 0

    counts: Tensor
    centres: Tensor
    sums: Tensor
    squares: Tensor
    scatter: Tensor
    invalid: Tensor

    @staticmethod
    def initial(classes: int, dimension: int, scatter: bool) -> dict[str, Tensor]:
        """The state before any sample, all of fixed shape; row k collects samples that must not count."""
        side = dimension if scatter else 0
        return {
            "counts": torch.zeros(classes + 1, dtype=torch.int64),
            "centres": torch.zeros(classes + 1, dimension, dtype=torch.float64),
            "sums": torch.zeros(classes + 1, dimension, dtype=torch.float64),
            "squares": torch.zeros(classes + 1, dtype=torch.float64),
            "scatter": torch.zeros(side, side, dtype=torch.float64),
            "invalid": torch.zeros(2, dtype=torch.int64),  # first bad batch + 1: features, labels
        }

    def update(self, features: Float[Tensor, "n d"], labels: Shaped[Tensor, " m"]) -> None:
        """Add a batch."""
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise InvalidInput(f"features must have shape (n, {self.dimension}), got {tuple(features.shape)}")
        if labels.shape != features.shape[:1]:
            raise InvalidInput(f"features and labels must have the same length, got {features.shape[0]} "
                               f"and {labels.shape[0]}")
        if labels.is_floating_point() or labels.is_complex():
            raise InvalidInput(f"labels must be whole numbers, got {labels.dtype}")
        self._batches += 1
        rows = features.detach()
        rows = rows if rows.dtype == torch.float64 else rows.float()
        labels = self._screened(rows, labels.detach().long())
        if self._buffer is not None and self._buffer.dtype != rows.dtype:
            self.flush()
            self._buffer = None
        start = 0
        while start < rows.shape[0]:
            start += self._fill(rows[start:], labels[start:])
            if self._filled == _BUFFER_ROWS:
                self.flush()

    def flush(self) -> None:
        """Move what is buffered into the state."""
        if self._filled and self._buffer is not None and self._buffer_labels is not None:
            self._absorb(self._buffer[:self._filled], self._buffer_labels[:self._filled])
        self._filled = 0
        self._drain()

    def moments(self) -> Moments:
        """The statistics of everything seen so far."""
        self.flush()
        self._report_invalid()
        counts = self.counts[:-1]
        residual = self.sums[:-1] / counts.clamp(min=1)[:, None]
        weighted = residual * counts[:, None]
        scatter = None
        if self.with_scatter:
            lower = self.scatter.tril()
            scatter = lower + lower.tril(-1).T - residual.T @ weighted
        return Moments(counts.clone(), self.centres[:-1] + residual,
                       (self.squares[:-1] - (weighted * residual).sum(1)).clamp(min=0.0), scatter)

    # -- one buffer ---------------------------------------------------------------------------------

    def _fill(self, rows: Tensor, labels: Tensor) -> int:
        if self._buffer is None or self._buffer_labels is None:
            self._buffer = torch.empty(_BUFFER_ROWS, self.dimension, dtype=rows.dtype, device=rows.device)
            self._buffer_labels = torch.empty(_BUFFER_ROWS, dtype=torch.int64, device=rows.device)
        taken = min(rows.shape[0], _BUFFER_ROWS - self._filled)
        place = slice(self._filled, self._filled + taken)
        self._buffer[place] = rows[:taken]
        self._buffer_labels[place] = labels[:taken]
        self._filled += taken
        return taken

    def _absorb(self, rows: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> None:
        # Segments are the distinct classes of this buffer, numbered 0, 1, … in a table that cannot overflow: every
        # shape is fixed, so an accelerator never has to tell the host how many there were, and nothing costs O(k).
        table = min(rows.shape[0], self.classes + 1)
        ordered, order = torch.sort(labels)
        segment_of = torch.empty_like(order)
        segment_of[order] = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).long()]).cumsum(0)
        segment_class = labels.new_full((table,), self.classes).index_copy_(0, segment_of, labels)
        sizes = labels.new_zeros(table).index_add_(0, segment_of, torch.ones_like(labels))
        centres = self._segment_centres(rows, segment_of, segment_class, sizes)
        rows.sub_(centres[segment_of])  # the buffer is ours
        residuals = rows.new_zeros(table, self.dimension).index_add_(0, segment_of, rows)
        self.counts.index_add_(0, segment_class, sizes)
        self.sums.index_add_(0, segment_class, residuals.double())
        self.squares.index_add_(0, labels, torch.linalg.vecdot(rows, rows).double())
        if self.with_scatter:
            self._add_scatter(rows)

    def _segment_centres(self, rows: Tensor, segment_of: Tensor, segment_class: Tensor,
                         sizes: Tensor) -> Tensor:
        known = self.counts[segment_class] > 0
        centres = self.centres[segment_class].to(rows.dtype)
        if rows.device.type == "cpu" and bool((known | (sizes == 0)).all()):
            return centres
        first = torch.zeros_like(centres).index_add_(0, segment_of, rows) / sizes.clamp(min=1)[:, None]
        centres = torch.where(known[:, None], centres, first)
        self.centres[segment_class] = centres.double()
        return centres

    def _add_scatter(self, rows: Float[Tensor, "b d"]) -> None:
        if self._partial is None or self._partial.dtype != rows.dtype:
            self._partial = torch.zeros(self.dimension, self.dimension, dtype=rows.dtype, device=rows.device)
        for start in range(0, self.dimension, _BLOCK_COLUMNS):
            end = min(start + _BLOCK_COLUMNS, self.dimension)
            self._partial[start:end, :end].addmm_(rows[:, start:end].T, rows[:, :end])
        self._undrained += 1
        if self._undrained == _DRAIN_EVERY:
            self._drain()

    def _drain(self) -> None:
        if self._undrained and self._partial is not None:
            self.scatter += self._partial
            self._partial.zero_()
        self._undrained = 0

    # -- bad batches --------------------------------------------------------------------------------

    def _screened(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Labels with those of unusable samples moved to row k; on the CPU, raise at once instead."""
        if rows.shape[0] == 0:
            return labels
        outside = (labels < 0) | (labels >= self.classes)
        infinite = ~torch.isfinite(rows.sum())  # one reading of the batch; a sum that overflows is looked at again
        if rows.device.type == "cpu":
            if bool(infinite) and not bool(torch.isfinite(rows).all()):
                self._raise_invalid(0, self._batches)
            if bool(outside.any()):
                self._raise_invalid(1, self._batches, int(labels[outside][0]))
            return labels
        found = torch.stack([infinite, outside.any()]).long() * self._batches
        self.invalid.copy_(torch.where(self.invalid > 0, self.invalid, found))
        return torch.where(outside, self.classes, labels)

    def _report_invalid(self) -> None:
        for kind, batch in enumerate(self.invalid.tolist()):
            if batch:
                self._raise_invalid(kind, batch)

    def _raise_invalid(self, kind: int, batch: int, label: int | None = None) -> None:
        if kind == 0:
            raise InvalidInput(f"features must be finite, got NaN or Inf in batch {batch}")
        given = "one outside" if label is None else str(label)
        raise InvalidInput(f"labels must be in 0 … {self.classes - 1}, got {given} in batch {batch}")


def merged(parts: Iterable[Moments]) -> Moments:
    """The moments of several samples together."""
    return reduce(Moments.merge, parts)

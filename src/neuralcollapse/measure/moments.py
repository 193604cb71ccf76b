"""Class moments of features in one pass: counts, means, within-class squares and scatter.

Deep collapse means a spread of 1e-6 beside class means of 1: raw second moments, and even one global
provisional centre, return pure rounding there (`theory.md` §6 has the measured comparison). So every sample
is centred on a provisional centre of *its own class*, its mean in the first buffer where the class appears;
the residual means are small and are removed exactly at the end:

    Σ_{i in c} (h_i − μ_c)(h_i − μ_c)ᵀ = Σ zzᵀ − n_c δ_c δ_cᵀ,   z = h − centre_c,   δ_c = mean of z
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import math

from jaxtyping import Float, Int, Shaped
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.merging import Moments, coarse

EXACT_UP_TO = 128  # features up to which the products are formed in float64 throughout: it costs nothing there
_BUFFER_ROWS = 2048  # rows gathered before one product: batches of 256 alone run far below the product's speed
_DRAIN_EVERY = 16  # buffers summed in float32 before the sum moves to float64
_BLOCKS = 8  # the scatter is symmetric: only its lower block-triangle is formed, in this many blocks at the most
_BLOCK_COLUMNS = 128  # of at least this many columns: narrower products run below the speed of the others
_TABLE_CLASSES = 16_384  # up to which centres are also kept in the precision of the rows
_CLASSES_AT_ONCE = 8192  # rows of (k, d) float64 temporaries when the state is finished


class NotFinite(InvalidInput):
    """Features with NaN or Inf among them."""


class ClassMoments:
    """A running, mergeable accumulation of `Moments`.

    Features may be float16, bfloat16 or float32 (products in float32, sums in float64) or float64; up to 128
    features, everything is float64.

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
        self._start({name: state.to(device) for name, state in self.initial(classes, dimension, scatter).items()})

    @classmethod
    def over(cls, states: Mapping[str, Tensor]) -> ClassMoments:
        """An accumulation that goes on in these tensors, shaped as `initial` makes them."""
        self = cls.__new__(cls)
        self._start(states)
        return self

    def _start(self, states: Mapping[str, Tensor]) -> None:
        for name in self.STATES:
            setattr(self, name, states[name])
        self.classes, self.dimension = self.centres.shape[0] - 1, self.centres.shape[1]
        self.with_scatter = self.scatter.shape[0] > 0
        self._buffer: Tensor | None = None
        self._buffer_labels: Tensor | None = None
        self._filled = 0
        self._spaces: dict[str, Tensor] = {}
        self._batches = 0
        self._partial: Tensor | None = None  # scatter of the last few buffers, in the precision of the rows
        self._near: Tensor | None = None  # the centres in the precision of the rows
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

    @staticmethod
    def states_of(moments: Moments, invalid: Tensor | None = None) -> dict[str, Tensor]:
        """States that hold finished moments, for an accumulation to go on from."""
        pad, counts = torch.nn.functional.pad, moments.counts[:, None]
        centres = coarse(moments.means)
        residual = moments.means - centres
        scatter = moments.means.new_zeros(0, 0)
        if moments.scatter is not None:
            scatter = torch.addmm(moments.scatter, residual.T, counts * residual)
        return {"counts": pad(moments.counts, (0, 1)), "centres": pad(centres, (0, 0, 0, 1)),
                "sums": pad(counts * residual, (0, 0, 0, 1)), "scatter": scatter,
                "squares": pad(moments.squares + (counts * residual.square()).sum(1), (0, 1)),
                "invalid": moments.counts.new_zeros(2) if invalid is None else invalid}

    def update(self, features: Float[Tensor, "n d"], labels: Shaped[Tensor, ...]) -> None:
        """Add a batch.

        Parameters
        ----------
        features : (n, d) float tensor
        labels : (n,) tensor of whole numbers in 0 … k−1
        """
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise InvalidInput(f"features must have shape (n, {self.dimension}), got {tuple(features.shape)}")
        if labels.ndim != 1:
            raise InvalidInput(f"labels must be one number per sample, shape (n,), got {tuple(labels.shape)}")
        if labels.shape != features.shape[:1]:
            raise InvalidInput(f"features and labels must have the same length, got {features.shape[0]} "
                               f"and {labels.shape[0]}")
        if labels.is_floating_point() or labels.is_complex():
            raise InvalidInput(f"labels must be whole numbers, got {labels.dtype}")
        for name, given in (("features", features), ("labels", labels)):
            if given.device != self.centres.device:
                raise InvalidInput(f"{name} must be on the device of this metric, {self.centres.device}, got "
                                   f"{given.device}: move them, or the metric with .to({given.device.type!r})")
        self._batches += 1
        rows = features.detach()
        rows = rows.to(torch.float64 if self.dimension <= EXACT_UP_TO or rows.dtype == torch.float64
                       else torch.float32)
        labels = self._screened(rows, labels.detach().long())
        if self._buffer is not None and self._buffer.dtype != rows.dtype:
            self.flush()
            self._buffer = None
        start = 0
        while start < rows.shape[0]:
            start += self._fill(rows[start:], labels[start:])
            if self._filled == _BUFFER_ROWS:
                self._absorb_buffer()

    def flush(self) -> None:
        """Move what is buffered into the state."""
        self._absorb_buffer()
        self._drain()

    def _absorb_buffer(self) -> None:
        if self._filled and self._buffer is not None and self._buffer_labels is not None:
            self._absorb(self._buffer[:self._filled], self._buffer_labels[:self._filled])
        self._filled = 0

    def moments(self) -> Moments:
        """The statistics of everything seen so far."""
        self.flush()
        self._report_invalid()
        counts = self.counts[:-1].clone()
        means, squares = self.centres[:-1].clone(), self.squares[:-1].clone()
        scatter = self.scatter.clone() if self.with_scatter else None
        for start in range(0, self.classes, _CLASSES_AT_ONCE):
            rows = slice(start, min(start + _CLASSES_AT_ONCE, self.classes))
            residual = self.sums[rows] / counts[rows].clamp(min=1)[:, None]
            means[rows] += residual
            squares[rows] -= counts[rows] * torch.linalg.vector_norm(residual, dim=1).square_()
            if scatter is not None:
                weighted = counts[rows, None] * residual
                for left, right in self._blocks():
                    scatter[left:right, :right].addmm_(weighted[:, left:right].T, residual[:, :right], alpha=-1)
        return Moments(counts, means, squares.clamp_(min=0.0), None if scatter is None else self._mirrored(scatter))

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
        (self._absorb_known if self._all_known(labels) else self._absorb_segments)(rows, labels)
        # vector_norm, since torch's vecdot of rows runs at a fifteenth of its speed on a CPU
        self.squares.index_add_(0, labels, torch.linalg.vector_norm(rows, dim=1).double().square_())
        if self.with_scatter:
            self._add_scatter(rows)
        self._undrained += 1
        if self._undrained == _DRAIN_EVERY:
            self._drain()

    def _all_known(self, labels: Int[Tensor, " b"]) -> bool:
        """Whether every class here has its centre; not asked of an accelerator, which would have to be waited for."""
        small = self.classes <= _TABLE_CLASSES and self.centres.device.type == "cpu"
        return small and bool((self.counts.index_select(0, labels) > 0).all())

    def _absorb_known(self, rows: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> None:
        if self._near is None or self._near.dtype != rows.dtype:
            self._near = self.centres.to(rows.dtype)
        own_centres = self._space("rows", rows.shape[0], rows.dtype)
        rows.sub_(torch.index_select(self._near, 0, labels, out=own_centres))  # the buffer is ours
        # In float64: residuals share a sign when features drift, and a float32 sum of thousands of them loses digits.
        self.sums.index_add_(0, labels, self._space("double", rows.shape[0], torch.float64).copy_(rows))
        self.counts += torch.bincount(labels, minlength=self.classes + 1)

    def _absorb_segments(self, rows: Float[Tensor, "b d"], labels: Int[Tensor, " b"]) -> None:
        # Segments are the distinct classes of this buffer, numbered 0, 1, … in a table that cannot overflow: every
        # shape is fixed, so an accelerator never has to tell the host how many there were, and nothing costs O(k).
        table = min(rows.shape[0], self.classes + 1)
        ordered, order = torch.sort(labels)
        segment_of = torch.empty_like(order)
        segment_of[order] = torch.cat([ordered.new_zeros(1), (ordered[1:] != ordered[:-1]).long()]).cumsum(0)
        segment_class = labels.new_full((table,), self.classes).index_copy_(0, segment_of, labels)
        sizes = labels.new_zeros(table).index_add_(0, segment_of, torch.ones_like(labels))
        centres = self._segment_centres(rows, segment_of, segment_class, sizes)
        own_centres = self._space("rows", rows.shape[0], rows.dtype)
        rows.sub_(torch.index_select(centres, 0, segment_of, out=own_centres))  # the buffer is ours
        self.counts.index_add_(0, segment_class, sizes)
        self.sums.index_add_(0, labels, self._space("double", rows.shape[0], torch.float64).copy_(rows))

    def _segment_centres(self, rows: Tensor, segment_of: Tensor, segment_class: Tensor,
                         sizes: Tensor) -> Tensor:
        """The centre of each segment: its class's own, or its mean here where the class appears for the first time."""
        exact = self._space("double", len(sizes), torch.float64)
        centres = self._space("segments", len(sizes), rows.dtype)
        centres.copy_(torch.index_select(self.centres, 0, segment_class, out=exact))
        known = self.counts[segment_class] > 0
        if rows.device.type == "cpu" and bool((known | (sizes == 0)).all()):
            return centres
        # Summed in float64 and rounded once: a centre a few roundings off would outweigh a collapsed spread.
        first = exact.zero_().index_add_(0, segment_of, rows.double()) / sizes.clamp(min=1)[:, None]
        first = coarse(first).to(centres.dtype)
        torch.where(known[:, None], centres, first, out=centres)
        self.centres[segment_class] = centres.double()
        self._near = None
        return centres

    def _space(self, name: str, rows: int, dtype: torch.dtype) -> Tensor:
        """Memory that is kept: a fresh block of megabytes costs more in page faults than what is written to it."""
        space = self._spaces.get(name)
        if space is None or space.shape[0] < rows or space.dtype != dtype:
            space = self._spaces[name] = torch.empty(rows, self.dimension, dtype=dtype, device=self.centres.device)
        return space[:rows]

    def _add_scatter(self, rows: Float[Tensor, "b d"]) -> None:
        if self._partial is None or self._partial.dtype != rows.dtype:
            self._partial = torch.zeros(self.dimension, self.dimension, dtype=rows.dtype, device=rows.device)
        for start, end in self._blocks():
            self._partial[start:end, :end].addmm_(rows[:, start:end].T, rows[:, :end])

    def _blocks(self) -> Iterator[tuple[int, int]]:
        width = max(_BLOCK_COLUMNS, -(-self.dimension // _BLOCKS))
        for start in range(0, self.dimension, width):
            yield start, min(start + width, self.dimension)

    def _mirrored(self, scatter: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
        """What stands below the diagonal blocks copied above them, in place."""
        for start, end in self._blocks():
            scatter[:start, start:end] = scatter[start:end, :start].T
        return scatter

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
        if rows.device.type == "cpu":
            lowest, highest = (int(end) for end in torch.aminmax(labels))
            if not 0 <= lowest <= highest < self.classes:
                self._raise_invalid(1, self._batches, lowest if lowest < 0 else highest)
            # One reading of the batch; a sum that overflows is looked at again.
            if not math.isfinite(float(rows.sum())) and not bool(torch.isfinite(rows).all()):
                self._raise_invalid(0, self._batches)
            return labels
        outside = (labels < 0) | (labels >= self.classes)
        infinite = ~torch.isfinite(rows.sum())
        found = torch.stack([infinite, outside.any()]).long() * self._batches
        self.invalid.copy_(torch.where(self.invalid > 0, self.invalid, found))
        return torch.where(outside, self.classes, labels)

    def _report_invalid(self) -> None:
        for kind, batch in enumerate(self.invalid.tolist()):
            if batch:
                self._raise_invalid(kind, batch)

    def _raise_invalid(self, kind: int, batch: int, label: int | None = None) -> None:
        if kind == 0:
            raise NotFinite(f"features must be finite, got NaN or Inf in batch {batch}")
        given = "one outside" if label is None else str(label)
        raise InvalidInput(f"labels must be in 0 … {self.classes - 1}, got {given} in batch {batch}")

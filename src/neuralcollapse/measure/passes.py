"""One pass or two over labelled blocks of features, from wherever they come: arrays, files, a model.

One pass gives everything but NC4, which compares each sample with class means that only a whole pass knows. A
second pass makes up for it, and then no (d, d) scatter is needed either: with the means known, NC1 takes Σ_W only
along the few directions in which they differ (`spectrum.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import Decided, DecisionCounts, Head, NearestMeans
from neuralcollapse.measure.measured import centred
from neuralcollapse.measure.measurement import Measurement, check_size, finish
from neuralcollapse.measure.merging import Moments
from neuralcollapse.measure.moments import ClassMoments
from neuralcollapse.measure.sharing import shared_moments, summed
from neuralcollapse.measure.spectrum import BetweenSpectrum
from neuralcollapse.predict.targets import Targets

SECOND_PASS = "second-pass"

_ROWS_AT_ONCE = 2048


class Block(NamedTuple):
    """Some samples on their way.

    Attributes
    ----------
    features : (n, d) float tensor
    labels : (n,) tensor of whole numbers
    decided : Decided or None
        What the head makes of them, where its logits were at hand; computed from the head when None.
    """

    features: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    decided: Decided | None = None


def measure_blocks(blocks: Iterable[Block], k: int, head: Head | None, *, nc4: str | Measurement | None = SECOND_PASS,
                   scatter: bool = True, counts: ClassCounts | None = None, names: Sequence[str] | None = None,
                   targets: Targets = ("seli",), center: str = "classes", shared: bool = False) -> Measurement:
    """Measure a stream of blocks.

    Parameters
    ----------
    blocks : iterable of Block
        Gone through twice when `nc4` is "second-pass" and there is a head, else once.
    k : int
        Number of classes.
    head : Head, optional
    nc4 : "second-pass", Measurement or None
        Where NC4's class means come from: a second pass with this measurement's own, an earlier measurement, or
        nowhere (no NC4).
    scatter : bool
        False leaves out NC1's pseudo-inverse form, and with it the (d, d) products.
    counts, names, targets, center
        As in `measure`.
    shared : bool
        The blocks are this process's share: every process of torch.distributed gets the measurement of all of them.

    Raises
    ------
    InvalidInput
        No block at all, and as `measure`.
    """
    if k < 2:
        raise InvalidInput(f"a geometry has at least two classes, got {k}: give counts or a head of all classes")
    if head is not None and not bool(torch.isfinite(head.weight).all()):
        raise InvalidInput("weight must be finite, got NaN or Inf")
    means_from = _means_from(nc4, head)
    again = means_from == SECOND_PASS
    first: ClassMoments | None = None
    for block in blocks:
        if first is None:
            d, device = block.features.shape[-1], block.features.device
            # The means differ in k directions at the most: with k ≤ d those are less work than the scatter.
            first = ClassMoments(k, d, scatter and not (again and k <= d), device)
            decisions = DecisionCounts(k, keep=True, device=device)
            known = KnownMeans.of(nc4, device) if isinstance(nc4, Measurement) else None
        first.update(block.features, block.labels)
        if head is not None and not again:
            _decide(block, head, decisions, known)
    if first is None:
        raise InvalidInput("nothing to measure: expected at least one batch, got none")
    moments = shared_moments(first.moments()) if shared else first.moments()
    del first  # its buffers are as large as what comes now
    check_size(moments)
    spectrum = spectrum_of(moments, center)
    if again and head is not None:
        known = KnownMeans(moments.means, moments.counts, spectrum if scatter and moments.scatter is None else None)
        for block in blocks:
            _decide(block, head, decisions, known)
    if shared:
        decisions.share()
        if known is not None:
            known.share()
    samples = None if head is None else decisions.statistics(None if known is None else int(known.disagreements))
    return finish(moments, samples, head, spectrum=spectrum, within=None if known is None else known.within(),
                  nc4_means=means_from, counts=counts, names=names, targets=targets, center=center)


class KnownMeans:
    """What a pass can tell that knows the class means: NC4, and the within-class scatter along some directions.

    Parameters
    ----------
    means, counts : (k, d), (k,) tensors
        Class means and the samples behind them.
    spectrum : BetweenSpectrum, optional
        The directions along which Σ_W is wanted.
    """

    def __init__(self, means: Float[Tensor, "k d"], counts: Int[Tensor, " k"], spectrum: BetweenSpectrum | None = None):
        self._means, self._counts = means, counts
        self._nearest = NearestMeans(means, counts)
        self._directions = None if spectrum is None else torch.from_numpy(spectrum.directions).to(means.device)
        self._squares = means.new_zeros(0 if spectrum is None else len(spectrum.values))
        self._rounded: Tensor | None = None
        self.disagreements: int | Tensor = 0

    @classmethod
    def of(cls, earlier: Measurement, device: torch.device) -> KnownMeans:
        """The class means of an earlier measurement."""
        return cls(torch.from_numpy(earlier.measured.means).to(device),
                   torch.from_numpy(earlier.measured.seen).to(device))

    def add(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], decided: Int[Tensor, " n"]) -> None:
        """Add a block of samples and what the head decides on them."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        if self._rounded is None or self._rounded.dtype != dtype:
            self._rounded = self._means.to(dtype)
        directions = None if self._directions is None else self._directions.to(dtype)
        for start in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            h, y = features[rows].to(dtype), labels[rows]
            residual = h - self._rounded.index_select(0, y)
            distance = torch.linalg.vector_norm(residual, dim=1).double()
            self.disagreements = self.disagreements + self._nearest.disagreements(h, y, distance, decided[rows])
            if directions is not None:
                self._squares += (residual @ directions.T).square_().sum(0)

    def share(self) -> None:
        """Take what every process of torch.distributed has added together; all of them call this."""
        self._squares = summed(self._squares)
        self.disagreements = summed(torch.as_tensor(self.disagreements, device=self._squares.device))

    def within(self) -> Float[np.ndarray, " r"] | None:
        """u_jᵀ (Σ_c Σ_{i in c} (h_i − μ_c)(h_i − μ_c)ᵀ) u_j of every direction; None without directions.

        The residuals were taken from means rounded to the dtype of the features. What that leaves of each class's
        sum, n_c δ_c, is known exactly, and counts as much as a spread of 1e-7 of the means: Σ(z − δ)² = Σz² − n_c δ².
        """
        if self._directions is None or self._rounded is None:
            return None
        lost = (self._means - self._rounded.double()) @ self._directions.T
        return (self._squares - self._counts.double() @ lost.square()).clamp_(min=0.0).cpu().numpy()


def spectrum_of(moments: Moments, center: str) -> BetweenSpectrum | None:
    """The directions in which the class means differ; None while a class has no sample."""
    means = centred(moments.means.cpu().numpy(), moments.counts.cpu().numpy(), center)
    return None if means is None else BetweenSpectrum.of(means)


def _means_from(nc4: str | Measurement | None, head: Head | None) -> str | None:
    """Whose means NC4 is taken from, in the words of the output."""
    if isinstance(nc4, str) and nc4 != SECOND_PASS:
        raise InvalidInput(f"nc4 must be '{SECOND_PASS}', an earlier Measurement or None, got {shown(nc4)!r}")
    if nc4 is None or head is None:
        return None
    return "previous" if isinstance(nc4, Measurement) else SECOND_PASS


def _decide(block: Block, head: Head, decisions: DecisionCounts, known: KnownMeans | None) -> None:
    decided = head.decide(block.features, block.labels) if block.decided is None else block.decided
    decisions.update(block.labels, decided)
    if known is not None:
        known.add(block.features, block.labels, decided.classes)

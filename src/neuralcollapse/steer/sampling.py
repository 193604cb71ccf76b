"""Samplers that set how often classes meet: class-aware sampling and balanced batches (`binding.py` binds examples).

    class c is drawn with probability p_c ∝ n_c^{1−b}:   b = 0 as it comes, b = 1 uniformly over classes

Inside its class a sample is drawn again only once all others of the class have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import distributed
from torch.utils.data import Sampler

from neuralcollapse.checks import InvalidInput, check_labels
from neuralcollapse.measure.sharing import processes
from neuralcollapse.steer.amounts import finite, given, stored, whole

_ORDER, _OFFSETS, _DECKS = range(3)  # what a random generator is for: none shares a seed with another


class ClassAwareSampler(Sampler[int]):
    """Draw the class first, p_c ∝ n_c^{1−b}, then the next sample of a shuffled pass through that class.

    An epoch of N draws holds ⌊N p_c⌋ or ⌈N p_c⌉ of class c (systematic sampling: N p_c on average), in random order.
    Passes go on from epoch to epoch, each in a new order. With b = 0 and N = n an epoch is a plain shuffle.

    Parameters
    ----------
    labels : (n,) array, tensor or list of class indices
        Of the whole data set, by sample. Classes without a sample are never drawn.
    balance : float
        b in [0, 2]; 2 favours small classes as much as 0 does large ones.
    num_samples : int, optional
        N, over all processes; rounded up to a multiple of `world_size`. n when left out.
    seed : int
        Seeds everything, with the epoch: the same in every process.
    rank, world_size : int, optional
        This process draws every `world_size`-th sample of the common sequence, from the `rank`-th on. Those of
        torch.distributed when left out, 0 and 1 without it.

    Raises
    ------
    InvalidInput
        Labels that are not 0 … k−1, a balance outside [0, 2], a number of samples below 1, a rank outside
        0 … world_size−1.

    Notes
    -----
    An epoch drawn to its end is followed by the next; `set_epoch` chooses one, as Lightning and accelerate do by
    themselves. Where something else shares the draws out, pass rank=0, world_size=1: accelerate's `prepare` deals the
    batches of the common sequence to the processes, and Lightning wraps the sampler in one of its own, which also
    shuffles; with `Trainer(use_distributed_sampler=False)` Lightning leaves the sampler as it is.

    To resume inside an epoch, load what `state_dict` gave. Its position is what has been drawn, and worker processes
    draw ahead: there, load {"epoch": e, "position": batches seen × batch size}.

    References
    ----------
    shen2016, §3.2 (class-aware sampling); kang2020 (p_c ∝ n_c^q).

    Examples
    --------
    >>> sampler = ClassAwareSampler([0, 0, 0, 0, 0, 0, 1, 1], num_samples=12)
    >>> drawn = list(sampler)
    >>> sum(i < 6 for i in drawn), sum(i >= 6 for i in drawn)
    (6, 6)
    """

    def __init__(self, labels: Any, *, balance: float = 1.0, num_samples: int | None = None, seed: int = 0,
                 rank: int | None = None, world_size: int | None = None):
        self.passes = _Passes(labels, whole("seed", seed, 0))
        power = finite(balance)
        if power is None or not 0 <= power <= 2:
            raise InvalidInput(f"balance must be a number from 0 (as it comes) to 2, 1 being uniform over classes, got "
                               f"{given(balance)}")
        self.rank, self.world_size = _place(rank, world_size)
        wanted = self.passes.index.size if num_samples is None else whole("num_samples", num_samples, 1)
        self._each = -(-wanted // self.world_size)
        share = self.passes.sizes.astype(np.float64) ** (1 - power)
        # Rounded: a boundary that is a whole number must not fall on either side of it.
        inner = np.round(np.cumsum(share)[:-1] / share.sum() * self._each * self.world_size, 9)
        self._bounds = np.concatenate([[0.0], inner, [float(self._each * self.world_size)]])
        self.seed, self.balance = self.passes.seed, power
        self.epoch = self.position = self._from = 0

    def __len__(self) -> int:
        return self._each

    def __iter__(self) -> Iterator[int]:
        start, self._from = self._from, 0
        epoch, self.position = self.epoch, start
        for index in self.sequence(epoch)[self.rank::self.world_size][start:].tolist():
            self.position += 1
            yield index
        self.epoch, self.position = epoch + 1, 0

    def sequence(self, epoch: int) -> np.ndarray:
        """The draws of all processes together in one epoch.

        Parameters
        ----------
        epoch : int

        Returns
        -------
        (N,) int64 array
            Indices into the data set; process r takes every `world_size`-th from the r-th on.

        Raises
        ------
        InvalidInput
            An epoch below 0.
        """
        epoch = whole("epoch", epoch, 0)
        offsets = np.random.default_rng([self.seed, _OFFSETS]).random(epoch + 1)
        whole_part, fraction = np.floor(self._bounds), self._bounds % 1
        # Of the points u, u + 1, …, those below a bound are ⌊bound⌋, and one more where u is below its fraction.
        before = np.diff(epoch * whole_part + np.searchsorted(np.sort(offsets[:epoch]), fraction))
        drawn = np.diff(whole_part + (offsets[epoch] < fraction)).astype(np.int64)
        order = np.random.default_rng([self.seed, _ORDER, epoch])
        return self.passes.fill(order.permutation(np.repeat(np.arange(drawn.size), drawn)), before.astype(np.int64))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch drawn next; a position loaded for another epoch is dropped."""
        epoch = whole("epoch", epoch, 0)
        self._from = self._from if epoch == self.epoch else 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many indices this process has drawn in it."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where `state_dict` was taken: the next iteration draws the rest of that epoch."""
        state = dict(stored("ClassAwareSampler", state, ("epoch", "position")))
        self.epoch = whole("epoch", state["epoch"], 0)
        self.position = self._from = whole("position", state["position"], 0)


class BalancedBatchSampler(Sampler[list[int]]):
    """Batches of m classes with p samples each, so that every anchor of a contrastive loss has p − 1 positives.

    Classes are dealt from shuffled decks, m different ones a batch: over an epoch they come equally often to within
    one. Samples go through shuffled passes of their class; a batch holds a sample twice only where its class has fewer
    than p.

    Parameters
    ----------
    labels : (n,) array, tensor or list of class indices
    classes_per_batch : int
        m, from 1 to the number of classes that have a sample.
    samples_per_class : int
        p ≥ 1.
    batches : int, optional
        Batches of an epoch over all processes, rounded up to a multiple of `world_size`; ⌈n/(mp)⌉ when left out.
    seed, rank, world_size
        As for `ClassAwareSampler`; whole batches are shared out.

    Raises
    ------
    InvalidInput
        Labels that are not 0 … k−1, numbers below 1, more classes a batch than there are, a rank outside
        0 … world_size−1.

    Notes
    -----
    It goes to `DataLoader(batch_sampler=…)`. With accelerate pass rank=0, world_size=1; with Lightning in several
    processes `Trainer(use_distributed_sampler=False)`, since its own cannot be put under a batch sampler like this one.

    Examples
    --------
    >>> batch = next(iter(BalancedBatchSampler([0, 0, 0, 1, 1, 2], classes_per_batch=2, samples_per_class=2)))
    >>> len(batch)
    4
    """

    def __init__(self, labels: Any, *, classes_per_batch: int, samples_per_class: int, batches: int | None = None,
                 seed: int = 0, rank: int | None = None, world_size: int | None = None):
        self.passes = _Passes(labels, whole("seed", seed, 0))
        self.classes = whole("classes_per_batch", classes_per_batch, 1)
        self.samples = whole("samples_per_class", samples_per_class, 1)
        if self.classes > self.passes.sizes.size:
            raise InvalidInput(f"classes_per_batch must be at most {self.passes.sizes.size}, the classes that have a "
                               f"sample, got {self.classes}")
        self.rank, self.world_size = _place(rank, world_size)
        wanted = -(-self.passes.index.size // (self.classes * self.samples))
        wanted = wanted if batches is None else whole("batches", batches, 1)
        self._each = -(-wanted // self.world_size)
        self.seed, self.epoch = self.passes.seed, 0

    @property
    def sampler(self) -> BalancedBatchSampler:
        """Itself: where Lightning and accelerate look for `set_epoch`."""
        return self

    def __len__(self) -> int:
        return self._each

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch
        rng = np.random.default_rng([self.seed, _DECKS, epoch])
        deck = np.zeros(0, dtype=np.int64)
        chosen = []
        for _ in range(self._each * self.world_size):
            if deck.size < self.classes:  # those left over come first, and in the new deck after all others
                fresh = rng.permutation(self.passes.sizes.size)
                early = fresh[~np.isin(fresh, deck)]
                deck = np.concatenate([deck, early, rng.permutation(deck)])
            chosen.append(np.repeat(deck[:self.classes], self.samples))
            deck = deck[self.classes:]
        drawn = self.passes.fill(np.concatenate(chosen), np.zeros(self.passes.sizes.size, dtype=np.int64), epoch + 1,
                                 self.samples)
        yield from drawn.reshape(len(chosen), -1)[self.rank::self.world_size].tolist()
        self.epoch = epoch + 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch drawn next."""
        self.epoch = whole("epoch", epoch, 0)


class _Passes:
    """Each class as an endless row of shuffled passes through its samples; any stretch of it can be had by itself."""

    def __init__(self, labels: Any, seed: int):
        labels = check_labels(labels)
        self.index = np.argsort(labels, kind="stable")
        self.sizes = np.unique(labels, return_counts=True)[1]  # classes without a sample are passed over
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.seed = seed

    def fill(self, classes: np.ndarray, before: np.ndarray, salt: int = 0, together: int = 1) -> np.ndarray:
        """Samples for a sequence of classes, when `before` samples of each class have been drawn already.

        From the start of a pass, the draws of a class are taken `together` at a time, and differ where they can.
        """
        drawn = np.bincount(classes, minlength=self.sizes.size)
        sizes = self.sizes
        first, last = before // sizes, (before + drawn - 1) // sizes
        passes = np.where(drawn > 0, last - first + 1, 0)
        # One block per pass of a class: the class, which pass, and where its samples stand.
        owner = np.repeat(np.arange(sizes.size), passes)
        which = first[owner] + np.arange(owner.size) - np.repeat(np.cumsum(passes) - passes, passes)
        block = np.repeat(np.arange(owner.size), sizes[owner])
        within = np.arange(block.size) - np.repeat(np.cumsum(sizes[owner]) - sizes[owner], sizes[owner])
        sample = self.starts[owner[block]] + within
        # One sort for all blocks: the block's number before the point, its own shuffling behind it.
        order = np.argsort(block + (mixed(self.seed, salt, which[block], sample) >> np.uint64(11)) * 2.0**-53)
        # The stretch of each class that is wanted: its passes end to end, less what was drawn before.
        length = passes * sizes
        ends = np.cumsum(length)
        for c in np.flatnonzero((sizes >= together) & (sizes % together > 0) & (passes > 1)):
            _keep_apart(order[ends[c] - length[c]:ends[c]], int(sizes[c]), together)
        skipped = ends - length + before % sizes
        wanted = np.arange(classes.size) + np.repeat(skipped - (np.cumsum(drawn) - drawn), drawn)
        result = np.empty(classes.size, dtype=np.int64)
        result[np.argsort(classes, kind="stable")] = self.index[sample[order[wanted]]]
        return result


def _keep_apart(stretch: np.ndarray, size: int, together: int) -> None:
    """Reorder passes of `size`, in place, so that no `together` draws across the end of one hold a sample twice.

    What a pass begins with changes places with what follows, where it has just been drawn.
    """
    for start in range(size, stretch.size, size):
        behind = start % together
        # The order holds places in all blocks: those of two passes of one class differ by a multiple of its size.
        held = set((stretch[start - behind:start] % size).tolist()) if behind else set()
        free = (i for i in range(start + together - behind, start + size) if stretch[i] % size not in held)
        for i in range(start, start + together - behind if behind else start):
            if stretch[i] % size in held:
                other = next(free)
                stretch[i], stretch[other] = stretch[other], stretch[i]


def mixed(*values: Any) -> np.ndarray:
    """64 random-looking bits from whole numbers (SplitMix64): the same in any order of asking."""
    state = np.zeros(1, dtype=np.uint64)
    for value in values:
        state = state ^ np.atleast_1d(np.asarray(value)).astype(np.uint64)
        state = state + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise InvalidInput(f"rank and world_size go together, got rank={rank}, world_size={world_size}")
    if world_size is None:
        several = processes()
        return (distributed.get_rank() if several > 1 else 0), several
    world_size = whole("world_size", world_size, 1)
    if whole("rank", rank, 0) >= world_size:
        raise InvalidInput(f"rank must be in 0 … {world_size - 1} for world_size={world_size}, got {rank}")
    return int(rank or 0), world_size

"""From a configuration to what a run trains and tests on: drawn, verified and normalised.

Inputs that fit are held in memory; more than that are fetched batch by batch (`LazyInputs`), images from a cache of
decoded ones where the disk has room. Either way every sample that will be used has been read once before training
begins. Mean and spread for the normalisation come from the training part alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data.cache import decoded_once
from neuralcollapse.experiments.data.lazy import LazyInputs, Normalise, Transform, chunks, in_memory
from neuralcollapse.experiments.data.samples import Rows, Samples, load_samples
from neuralcollapse.experiments.data.split import split, split_windows
from neuralcollapse.experiments.data.statistics import channel_statistics
from neuralcollapse.experiments.data.tokens import Leading, Renumber, label_counts, next_tokens, tokens_in

# Both parts together, as float32. CIFAR's 60,000 images take 0.7 GiB.
IN_MEMORY = 2**30


@dataclass(frozen=True)
class Data:
    """What a run trains and tests on.

    Parameters
    ----------
    inputs, labels : (n, …) tensor or LazyInputs, (n,) tensor
        The training part, normalised; token ids as whole numbers. Labels of next-token data are (n, length), the
        class of the token after each position, −100 where it has none.
    test_inputs, test_labels : (m, …) tensor or LazyInputs, (m,) tensor
        The test part: the data set's own, or drawn with every class equally often.
    counts : ClassCounts
        Training samples per class, with class names; labels per class for next-token data.
    indices, test_indices : (n,) and (m,) arrays
        Which samples of the data set these are; those of its own test part are numbered after the others.
    mean, spread : (c,) arrays
        What each channel (or feature) was centred and divided by; empty for tokens.
    tokens : int or None
        How many token ids the inputs may hold; None for images and features.
    """

    inputs: Shaped[Tensor, "n ..."] | LazyInputs
    labels: Int[Tensor, " n"] | Int[Tensor, "n l"]
    test_inputs: Shaped[Tensor, "m ..."] | LazyInputs
    test_labels: Int[Tensor, " m"] | Int[Tensor, "m l"]
    counts: ClassCounts
    indices: Int[np.ndarray, " n"]
    test_indices: Int[np.ndarray, " m"]
    mean: Float[np.ndarray, " c"]
    spread: Float[np.ndarray, " c"]
    tokens: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.inputs.shape[1:])

    @property
    def test_counts(self) -> Int[np.ndarray, " k"]:
        """Test samples (or labels) per class."""
        labels = self.test_labels.numpy()
        return np.bincount(labels[labels >= 0], minlength=self.counts.k)


def load_data(config: TrainConfig) -> Data:
    """The training and test parts that a configuration asks for; the same for the same seed.

    Raises
    ------
    InvalidInput
        An unknown data set, one that cannot be read, a sample that will be used and cannot be, or too few of them
        for the test part or the counts.

    Examples
    --------
    >>> data = load_data(TrainConfig(dataset="digits", ratio=10))
    >>> data.counts
    ClassCounts(140, 140, 140, 140, 140, 14, 14, 14, 14, 14)
    >>> data.shape, data.test_counts.tolist()
    ((1, 8, 8), [34, 34, 34, 34, 34, 34, 34, 34, 34, 34])
    """
    samples = load_samples(config.dataset, config.data_options)
    if config.augment != "none" and (samples.tokens or len(samples.inputs.shape) != 4):
        raise InvalidInput(f"augment '{config.augment}' needs images, got samples of shape "
                           f"{tuple(samples.inputs.shape[1:])}")
    if samples.labels is None:
        return _next_token_data(config, samples)
    train, test, counts = split(samples, config)
    part = _AtHand(samples.inputs, train, test)
    transform: Transform
    mean = spread = np.zeros(0)
    if samples.tokens:
        kept = tokens_in(part.rows, part.train)
        transform = Renumber(kept, missing=kept.size)
    else:
        mean, spread = channel_statistics(part.rows, part.train)
        transform = Normalise(mean, spread)
    inputs, test_inputs = part.inputs(part.rows, transform)
    labels, test_labels = (torch.from_numpy(samples.labels[index]) for index in (train, test))
    return Data(inputs, labels, test_inputs, test_labels, counts, train, test, mean, spread,
                kept.size + 1 if samples.tokens else None)


def _next_token_data(config: TrainConfig, samples: Samples) -> Data:
    asked = (f"imbalance '{config.imbalance}'" if config.imbalance != "natural" else
             f"n_max {config.n_max}" if config.n_max is not None else
             f"sampling '{config.sampling}'" if config.sampling != "natural" else None)
    if asked:
        raise InvalidInput(f"{asked} chooses samples by class, which next-token data do not allow, every token of "
                           f"'{config.dataset}' being a class: give imbalance natural, and neither n_max nor sampling")
    windows = len(samples.inputs)
    train, test = ((np.setdiff1d(np.arange(windows), samples.test), np.sort(samples.test))
                   if samples.test is not None else split_windows(windows, config))
    part = _AtHand(samples.inputs, train, test)
    kept, times = label_counts(part.rows, part.train, samples.most)
    counts = ClassCounts(times, [samples.names[token] if samples.names else str(token) for token in kept])
    inputs, test_inputs = part.inputs(Leading(part.rows), Renumber(kept, missing=kept.size))
    labels, test_labels = (next_tokens(part.rows, index, kept) for index in (part.train, part.test))
    if not (test_labels >= 0).any():
        raise InvalidInput(f"no token of the test part of '{config.dataset}' is one that the training part predicts")
    return Data(inputs, labels, test_inputs, test_labels, counts, train, test, np.zeros(0), np.zeros(0),
                kept.size + 1)


class _AtHand:
    """The drawn rows: read into memory where they fit, else verified to be readable when they are fetched."""

    def __init__(self, rows: Rows, train: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"]):
        drawn = np.concatenate([train, test])
        self._fits = 4 * drawn.size * int(np.prod(rows.shape[1:])) <= IN_MEMORY
        self.rows: Rows
        if self._fits:
            self.rows, self.train, self.test = rows[drawn], np.arange(train.size), train.size + np.arange(test.size)
            return
        self.rows, self.train, self.test = decoded_once(rows, drawn), train, test
        if self.rows is rows:
            for _ in chunks(rows, test):  # the training part is gone through anyway
                pass

    def inputs(self, rows: Rows, transform: Transform) -> tuple[Tensor | LazyInputs, Tensor | LazyInputs]:
        """Training and test inputs."""
        if self._fits:
            return in_memory(rows, self.train, transform), in_memory(rows, self.test, transform)
        return LazyInputs(rows, self.train, transform), LazyInputs(rows, self.test, transform)

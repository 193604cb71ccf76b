"""Which samples are trained and tested on: a test part, and a training part with the asked class counts.

A data set's own test part is used whole. Without one it is drawn first, the same number of samples from every class;
what is left is subsampled to the asked counts (`theory.md` §1).
"""

from __future__ import annotations

from math import floor

from jaxtyping import Float, Int, Shaped
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data.samples import Samples


def split(samples: Samples, config: TrainConfig) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], ClassCounts]:
    """Training and test samples, ascending, and the training counts; the same for the same seed.

    Raises
    ------
    InvalidInput
        A data set that is too small for the test part or the counts.
    """
    labels, rng = samples.labels, np.random.default_rng(config.seed)
    assert labels is not None
    k = len(samples.names)
    test = _drawn_test(samples, config, rng) if samples.test is None else _own_test(samples)
    rest = np.setdiff1d(np.arange(labels.size), test)
    counts = profile(config, ClassCounts.from_labels(labels[rest], k, samples.names))
    return rest[counts.subsample(labels[rest], rng)], test, counts


def split_windows(windows: int, config: TrainConfig) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Training and test windows of next-token data, ascending; the same for the same seed.

    Raises
    ------
    InvalidInput
        Too few windows.
    """
    if windows < 2:
        raise InvalidInput(f"the data set is too small for a test part: {windows} window of tokens, expected at "
                           "least 2")
    order = np.random.default_rng(config.seed).permutation(windows)
    few = max(1, floor(config.test_size * windows))
    return np.sort(order[few:]), np.sort(order[:few])


def profile(config: TrainConfig, available: ClassCounts) -> ClassCounts:
    """The training counts a configuration asks for, whole, with the names of `available`.

    Without `n_max` it is the most that `available` allows; for a STEP profile in whole multiples of the
    ratio, so that it is met exactly.
    """
    k, ratio, have = available.k, config.ratio, available.values
    if config.imbalance == "natural":
        values = have if config.n_max is None else np.minimum(have, config.n_max)
    elif config.imbalance == "none":
        values = np.full(k, float(config.n_max or have.min()))
    elif config.imbalance == "long-tail":
        shape = ratio ** (-np.arange(k) / max(k - 1, 1))
        n_max = config.n_max or floor((have / shape).min() * (1 + 1e-12))
        _check_tail(config, n_max)
        values = ClassCounts.long_tail(k, ratio, n_max).values
    else:
        minority = ClassCounts.step(k, max(ratio, 2), config.minority, n_min=1).values == 1
        n_max = config.n_max or _largest_step(have, minority, ratio)
        _check_tail(config, n_max)
        values = ClassCounts.step(k, ratio, config.minority, n_max=n_max).values
    return ClassCounts(values, available.names).rounded()


def _largest_step(have: Float[np.ndarray, " k"], minority: Shaped[np.ndarray, " k"], ratio: float) -> int:
    n_max = min((have[~minority].min() if (~minority).any() else np.inf),
                (ratio * have[minority].min() if minority.any() else np.inf))
    return max(round(floor(n_max / ratio * (1 + 1e-12)) * ratio), 0) or floor(n_max)


def _check_tail(config: TrainConfig, n_max: int) -> None:
    if n_max / config.ratio < 1 - 1e-9:
        raise InvalidInput(f"the data set is too small for ratio {config.ratio:g}: with {n_max} samples in "
                           f"the largest class the smallest would keep {n_max / config.ratio:.2g}; "
                           f"use a ratio of at most {n_max}")


def _drawn_test(samples: Samples, config: TrainConfig, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    counts = ClassCounts.from_labels(samples.labels, len(samples.names), samples.names)
    each = max(1, floor(config.test_size * counts.n_min))
    if counts.n_min < 2:
        c = int(counts.values.argmin())
        raise InvalidInput(f"the data set is too small for a test part: class {counts.names[c]} has 1 "
                           "sample, expected at least 2")
    return ClassCounts(np.full(counts.k, each), counts.names).subsample(samples.labels, rng)


def _own_test(samples: Samples) -> Int[np.ndarray, " m"]:
    assert samples.labels is not None
    assert samples.test is not None
    k, total = len(samples.names), np.bincount(samples.labels, minlength=len(samples.names))
    here = np.bincount(samples.labels[samples.test], minlength=k)
    for part, counts in (("test", here), ("training", total - here)):
        if not counts.all():
            raise InvalidInput(f"every class must be in both parts of the data set, but class "
                               f"{samples.names[int(counts.argmin())]} has no sample in its {part} part: "
                               "data_options.test=none draws a test part instead")
    return np.sort(samples.test)

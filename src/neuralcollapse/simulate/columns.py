"""The columns of H: whose class each is, how much its sample weighs, how many samples it stands for.

A run over n samples has a column per sample, sorted by class. A run that starts within-class symmetric (every sample
of a class equal) stays so under every full-batch method here, since equal samples receive equal gradients: it has a
column per class, which stands for n_c samples. Profiles of different n share a batch by padding with samples of
weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.symmetry import LossParameters


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a batch of runs; a leading 1 in a shape stands for all B runs.

    Attributes
    ----------
    labels : (B, 1, n) int64 tensor
    weight : (1 or B, 1, n) tensor
        ω_y; 0 for padding.
    temperature : (1 or B, 1, n) tensor or None
        δ_y of a label temperature.
    multiplicity : (1 or B, 1, n) tensor or None
        Samples that a column stands for; None where it is one each.
    k : int
    """

    labels: Tensor
    weight: Tensor
    temperature: Tensor | None
    multiplicity: Tensor | None
    k: int

    @property
    def n(self) -> int:
        """Columns per run."""
        return int(self.labels.shape[2])

    @cached_property
    def off(self) -> Tensor:
        """(1 or B, k, n): ω_y, times δ_y, off the label and 0 on it."""
        size = self.weight.shape[0]
        scaled = self.weight if self.temperature is None else self.weight * self.temperature
        return scaled.repeat(1, self.k, 1).scatter_(1, self.labels[:size], 0)

    @cached_property
    def log_weight(self) -> Tensor:
        """(1 or B, 1, n): ln ω_y."""
        return self.weight.log()

    @cached_property
    def samples(self) -> Tensor:
        """(1 or B, 1, n): samples that a column stands for, 0 for padding."""
        real = (self.weight > 0).to(self.weight.dtype)
        return real if self.multiplicity is None else real * self.multiplicity

    @cached_property
    def one_hot(self) -> Tensor:
        """(1 or B, n, k): Yᵀ without the padding."""
        size = self.weight.shape[0]
        zeros = self.weight.new_zeros(size, self.n, self.k)
        return zeros.scatter_(2, self.labels[:size].transpose(1, 2),
                              (self.weight > 0).to(zeros.dtype).transpose(1, 2))

    def at(self, index: Tensor) -> Columns:
        """The columns of a mini-batch, one (B, m) row of positions per run."""
        index = index[:, None, :]
        runs = index.shape[0]

        def taken(of: Tensor) -> Tensor:
            return of.expand(runs, -1, -1).gather(2, index)

        temperature, multiplicity = (None if of is None else taken(of) for of in (self.temperature, self.multiplicity))
        return Columns(taken(self.labels), taken(self.weight), temperature, multiplicity, self.k)


def make_columns(profiles: Sequence[ClassCounts], profile: Sequence[int], loss: LossParameters, symmetric: bool,
                 dtype: torch.dtype, device: torch.device) -> Columns:
    """The columns of every run.

    Parameters
    ----------
    profiles : sequence of ClassCounts
        All of the same k.
    profile : (B,) sequence of int
        Each run's profile.
    loss : LossParameters
    symmetric : bool
        One column per class instead of one per sample.

    Raises
    ------
    InvalidInput
        Counts that are not whole where samples are needed.
    """
    k = profiles[0].k
    labels, weights, multiples = _by_class(profiles, loss) if symmetric else _by_sample(profiles, loss)
    rows = np.asarray(profile)
    shared = rows[:1] if len(profiles) == 1 else rows  # one row serves all runs

    def tensor(values: np.ndarray, which: np.ndarray) -> Tensor:
        return torch.tensor(values[which][:, None, :], dtype=dtype, device=device)

    index = torch.tensor(labels[rows][:, None, :], device=device)
    temperature = None
    if loss.by_label and loss.temperature is not None:
        temperature = tensor(loss.temperature[labels], shared)
    return Columns(index, tensor(weights, shared), temperature,
                   tensor(multiples, shared) if multiples is not None else None, k)


def _by_class(profiles: Sequence[ClassCounts], loss: LossParameters
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    k = profiles[0].k
    weight = np.ones(k) if loss.weight is None else loss.weight
    shape = (len(profiles), k)
    return (np.broadcast_to(np.arange(k), shape), np.broadcast_to(weight, shape),
            np.stack([counts.values for counts in profiles]))


def _by_sample(profiles: Sequence[ClassCounts], loss: LossParameters
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    for counts in profiles:
        if (counts.values % 1).any():
            raise InvalidInput(f"counts must be whole numbers where every sample is free, got {counts}: round them "
                               "with .rounded(), or start within-class symmetric (symmetric=True)")
    k, n = profiles[0].k, max(int(counts.n) for counts in profiles)
    labels = np.full((len(profiles), n), k - 1)
    weights = np.zeros((len(profiles), n))
    for row, counts in enumerate(profiles):
        own = np.repeat(np.arange(k), counts.values.astype(np.int64))
        labels[row, :own.size] = own
        weights[row, :own.size] = 1.0 if loss.weight is None else loss.weight[own]
    return labels, weights, None

"""What a snapshot of every run holds, in float64 whatever the run's own precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.predict.geometry import PARTS as PARTS  # studies take it from here
from neuralcollapse.simulate.grid import Grid
from neuralcollapse.simulate.loss import TrainedLoss
from neuralcollapse.simulate.margins import NAMES, margins
from neuralcollapse.simulate.model import FreeModel

SCALARS = ("log_loss", "log_objective", "norm_ratio/classifiers", "norm_ratio/embeddings",
           "minority_cosine/classifiers", "minority_cosine/embeddings", *NAMES.values(), "nc1", "balanced_accuracy")
TARGETS = ("seli", "ridge", "limit", "etf")
"""What distances can be to; a run has those that are defined for it."""


class Observer:
    """Measures a batch of runs against their predictions.

    Targets: "seli", "etf", "limit" (the vanishing-ridge geometry of the run's own loss, where that is not SELI) and
    "ridge" (the geometry at the run's ridge). Class means are taken about the origin, as the model has them
    (`center="none"` of `measure`).

    Parameters
    ----------
    grid : Grid
    loss : TrainedLoss
    model : FreeModel
    """

    def __init__(self, grid: Grid, loss: TrainedLoss, model: FreeModel):
        self._model = model
        self._targets = {name: torch.tensor(stack, device=model.W.device) for name, stack in _targets(grid, loss)}
        minority = np.stack([grid.counts(cell).minority for cell in range(len(grid.cells))])
        self._minority = torch.tensor(minority, device=model.W.device)

    @property
    def names(self) -> list[str]:
        """Every quantity, in order."""
        return [*SCALARS, *(f"{target}/{part}" for target in self._targets for part in PARTS)]

    def __call__(self) -> dict[str, np.ndarray]:
        """(B,) numbers of every quantity; NaN where one is not defined.

        `log_loss` and `log_objective` are natural logarithms of the summed loss, without and with the ridges.
        `norm_ratio` is the mean norm of majority classes over that of minorities. `margin` is
        min_i (z_y − max_{c≠y} z_c)/(‖W‖_F ‖H‖_F), at most 1/‖Ẑ‖_* for the SEL matrix Ẑ; `margin/spectral` and
        `margin/max` are those of other norms (`margins.py`). `nc1` is tr Σ_W / tr Σ_B about the mean of class means.
        """
        model, columns = self._model, self._model.columns
        W, H = model.W.double(), model.H.double()
        samples, one_hot = columns.samples.double(), columns.one_hot.double()
        means = torch.matmul(H * samples, one_hot) / torch.matmul(samples, one_hot)
        log_loss = model.log_loss()
        found = {"log_loss": log_loss, "log_objective": torch.logaddexp(log_loss, model.penalty().log())}
        for part, vectors in (("classifiers", W), ("embeddings", means.mT)):
            found |= self._arrangement(part, vectors)
        gaps = self._gaps(W, H)
        found |= margins(gaps.amin(2).flatten(), W, H, samples)
        found["nc1"] = _within_over_between(H, means, samples, one_hot)
        correct = torch.matmul((gaps > 0) * samples, one_hot) / torch.matmul(samples, one_hot)
        found["balanced_accuracy"] = correct.mean((1, 2))
        grams = torch.stack([W @ W.mT, means.mT @ means, W @ means], 1)
        for name, target in self._targets.items():
            distances = torch.linalg.matrix_norm(_unit(grams) - target)
            found |= {f"{name}/{part}": distances[:, i] for i, part in enumerate(PARTS)}
        return {name: found[name].reshape(-1).cpu().numpy() for name in self.names}

    def _arrangement(self, part: str, vectors: Tensor) -> dict[str, Tensor]:
        """Norm ratio and minority cosine of (B, k, d) vectors."""
        few = self._minority.double()
        norms = torch.linalg.vector_norm(vectors, dim=2)
        ratio = (norms * (1 - few)).sum(1) / (1 - few).sum(1) * few.sum(1) / (norms * few).sum(1)
        units = vectors / norms[..., None] * few[..., None]
        units = torch.where(self._minority[..., None], units, 0)
        pairs = few.sum(1) * (few.sum(1) - 1)
        cosine = (units.sum(1).square().sum(1) - few.sum(1)) / pairs
        nan = torch.full_like(ratio, torch.nan)
        return {f"norm_ratio/{part}": torch.where(few.any(1), ratio, nan),
                f"minority_cosine/{part}": torch.where(pairs > 0, cosine, nan)}

    def _gaps(self, W: Tensor, H: Tensor) -> Tensor:
        """(B, 1, n): z_y − max_{c≠y} z_c of every column; +∞ for padding."""
        model, labels = self._model, self._model.columns.labels
        logits = torch.bmm(W, H)
        if model.b is not None:
            logits += model.b
        own = logits.gather(1, labels)
        gaps = own - logits.scatter_(1, labels, float("-inf")).amax(1, keepdim=True)
        return torch.where(model.columns.samples > 0, gaps, torch.inf)


def _targets(grid: Grid, loss: TrainedLoss) -> Iterator[tuple[str, np.ndarray]]:
    """Every target with at least one cell that has it: (B, 3, k, k) of unit Frobenius norm, NaN where there is none."""
    plain = TrainedLoss("ce", type(loss.parameters)())
    ridges = grid.column("ridge")
    wanted: dict[str, tuple[TrainedLoss, list[float | None]]] = {
        "seli": (plain, [0.0] * len(ridges)),
        "ridge": (loss, [ridge or None for ridge in ridges]),
        "limit": (loss, [0.0] * len(ridges)),
    }
    if loss.name == "ce" and loss.parameters.neutral and not loss.relu and not loss.bias:
        del wanted["limit"]
    for name, (trained, levels) in wanted.items():
        known: dict[tuple[int, float | None], np.ndarray] = {}
        for place in zip(grid.profile, levels, strict=True):
            if place not in known:
                known[place] = _stack(grid, trained, *place)
        stack = np.stack([known[place] for place in zip(grid.profile, levels, strict=True)])
        if np.isfinite(stack).any():
            yield name, stack
    k = grid.k
    simplex = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    yield "etf", np.broadcast_to(simplex, (len(ridges), 3, k, k)).copy()


def _stack(grid: Grid, loss: TrainedLoss, profile: int, ridge: float | None) -> np.ndarray:
    """(3, k, k): G_W, G_M and the logits, each of unit Frobenius norm; a collapsed one is 0/0."""
    geometry = None if ridge is None else loss.geometry(grid.profiles[profile], ridge)
    if geometry is None:
        return np.full((3, grid.k, grid.k), np.nan)
    grams = np.stack([geometry.classifiers.dense(), geometry.embeddings.dense(), geometry.logits.dense()])
    sizes = np.linalg.norm(grams, axis=(1, 2), keepdims=True)
    return np.divide(grams, sizes, out=np.full_like(grams, np.nan), where=sizes > 0)


def _unit(matrices: Tensor) -> Tensor:
    return matrices / torch.linalg.matrix_norm(matrices, keepdim=True)


def _within_over_between(H: Tensor, means: Tensor, samples: Tensor, one_hot: Tensor) -> Tensor:
    """(B,): tr Σ_W / tr Σ_B, from differences to each column's own class mean."""
    within = ((H - torch.matmul(means, one_hot.mT)).square() * samples).sum((1, 2)) / samples.sum((1, 2))
    between = (means - means.mean(2, keepdim=True)).square().sum((1, 2)) / means.shape[2]
    return within / between

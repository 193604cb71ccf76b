"""The exponential method of multipliers: SELI itself, at a ridge that is held.

At a ridge λ > 0 cross-entropy leads to the finite-λ geometry, which nears SELI only like 1/ln(1/λ). Here every pair of
a sample i and another class j has an offset ι_ij beside its logit,

    loss_i = log(1 + Σ_{j≠y} exp(ι_ij − (z_y − z_j))),      ι_ij ← ι_ij + target − (z_y − z_j)  every so many steps,

which raises what is still missing of a margin. At a fixed point every margin is `target` and the residual balances
the ridge: the optimality conditions of the max-margin problem min ‖Z‖_* subject to margins ≥ target, whose solution
is a multiple of the SEL matrix (`theory.md` §2). The probabilities are its multipliers over λ. Since every margin of
the SEL matrix is active, the offsets converge at a linear rate; a margin that is not would send its offset to −∞.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.simulate.loss import TrainedLoss
from neuralcollapse.simulate.methods import METHODS, Nesterov
from neuralcollapse.simulate.model import FreeModel

# Found on k = 2 … 30 and R = 1 … 2000, in units that make them independent of the counts; docs/findings/rates.md has
# where they end.
_RIDGE, _TARGET, _STEP, _LARGEST_STEP = 0.3, 8.0, 0.8, 0.5
_LEAST_MOMENTUM, _SETTLING = 0.9, 5.0
_FIRST = 4  # a raise from margins still on their way sets the offsets back


@METHODS.register("multipliers", source=("tseng1993", "nesterov1983", "thrampoulidis2022"))
class Multipliers(Nesterov):
    """Nesterov's momentum at a held ridge with multipliers: each margin is raised to `target` every `every` steps.

    It ends at SELI (or the limit of the loss's own temperatures) instead of the geometry of its ridge. What is left
    out is chosen by `fill_in`.

    Parameters
    ----------
    momentum : (B, 1, 1) tensor
    target : (B, 1, 1) tensor
        The margin asked for.
    every : (B, 1, 1) tensor
        Steps between raises, the first after four times as many; 0 leaves the offsets at 0, which is `nesterov`.
    """

    buffers = 3

    def __init__(self, model: FreeModel, momentum: Any = None, target: Any = None, every: Any = None):
        super().__init__(model, momentum)
        if model.loss.square:
            raise InvalidInput("method 'multipliers' raises the margins of cross-entropy, which the square loss 'mse' "
                               "does not have: take another method")
        self._target = target
        self._every = [int(steps) for steps in every.flatten().tolist()]
        self.state["offsets"] = model.offsets = torch.zeros_like(model.logits)

    @staticmethod
    def fill_in(cell: dict[str, Any], counts: ClassCounts, loss: TrainedLoss) -> dict[str, Any]:
        """A cell's ridge, target, step, scale, momentum and every where they were left out.

        λ = 0.3√n_min: the residual at the solution is λ/√n_c times an entry of a matrix of spectral norm 1, so that
        λ < √n_min keeps every probability below 1. With weights ω and temperatures δ that is λ < min ω_cδ_c√n_c, the
        ridge from which a class merges, and the curvature grows with ω_cδ_c².

        target = 8√(k/10), at least 8: with the margin in this unit the offsets contract about as fast for any k.
        step = 0.8/L for the bound L = λ·target·√(n_max/n_min) on the curvature at the solution (‖W‖₂² = target·√n_max
        times 1 − p_y ≤ λ/√n_min), and at most 1/(2√n_max) for the way there. scale = n_max^{-1/4}: H D^{1/2} starts
        no larger than at the solution, which that step needs. momentum = 1 − 2√(step·λ), at least 0.9: Nesterov's for
        the ridge's own curvature. every = 5/(1 − momentum): a raise from margins that still swing can feed the swing.
        """
        ones = np.ones(counts.k)
        weight = ones if loss.parameters.weight is None else loss.parameters.weight
        delta = ones if loss.parameters.temperature is None else loss.parameters.temperature
        merging = float((weight * delta * np.sqrt(counts.values)).min())
        ridge = _RIDGE * merging if cell["ridge"] is None else cell["ridge"]
        if not 0 < ridge < merging:
            raise InvalidInput("method 'multipliers' holds a ridge, which must be positive and below the one at which "
                               f"a class merges, min ω·δ·√n = {merging:.4g}, got {ridge:g}: leave it out for 0.3 of it")
        target = _TARGET * max(1.0, math.sqrt(counts.k / 10)) if cell["target"] is None else cell["target"]
        stiffest = float((weight * delta**2 * np.sqrt(counts.values)).max())
        curvature = ridge * target * stiffest / merging / min(1.0, float(delta.min()))
        step = min(_STEP / curvature, _LARGEST_STEP / stiffest) if cell["step"] is None else cell["step"]
        scale = counts.n_max ** -0.25 if cell["scale"] is None else cell["scale"]
        momentum, every = cell["momentum"], cell["every"]
        if momentum is None:
            momentum = max(_LEAST_MOMENTUM, 1 - 2 * math.sqrt(step * ridge))
        if every is None:
            every = round(_SETTLING / (1 - momentum))
        return {"ridge": ridge, "target": target, "step": step, "scale": scale, "momentum": momentum, "every": every}

    def step(self, move: torch.Tensor, t: int) -> None:
        """One step; the raise takes the margins that the gradient was taken at, so it costs no evaluation."""
        super().step(move, t)
        due = [0 < _FIRST * steps <= t and t % steps == 0 for steps in self._every]
        if any(due):
            self._raise(torch.tensor(due, device=move.device).reshape(-1, 1, 1))

    def _raise(self, due: torch.Tensor) -> None:
        model = self.model
        labels = model.columns.labels
        # The logits hold ι already: ι + target − (z_y − z_j) = target + (ι_j + z_j) − (ι_y + z_y), with ι_y = 0.
        logits = model.logits if model.iota is None else model.logits - model.iota
        raised = (logits - logits.gather(1, labels)).add_(self._target).scatter_(1, labels, 0.0)
        offsets = self.state["offsets"]
        offsets.copy_(torch.where(due, raised, offsets))

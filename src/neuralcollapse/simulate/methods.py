"""The first-order methods: each a class that moves a `FreeModel` by one step, many runs at once.

Hyper-parameters may differ from run to run: they come as (B, 1, 1) tensors. A method whose step does not depend on
the gradient's size (normalised, spectral, sign, Adam with ε = 0) takes the gradient without its scale and keeps its
momentum with a logarithmic scale of its own, so that it is right where the gradient itself would underflow.
A new method is one class here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.registry import Registry
from neuralcollapse.simulate.model import FreeModel
from neuralcollapse.simulate.orthogonal import newton_schulz, polar_factor

METHODS: Registry[Any] = Registry("method")
"""Every method: a class taking a FreeModel and hyper-parameters, with `step(move, t)`.

Option `step`: the default step size, over √n_max for those whose step is a multiple of the gradient.
"""


class Method(ABC):
    """What every method shares.

    Attributes
    ----------
    buffers : int
        How many copies of the parameters it keeps.
    state : dict of str to tensor
        What the next step depends on besides the parameters; the first axis is the run.
    """

    buffers: ClassVar[int] = 0

    def __init__(self, model: FreeModel):
        self.model = model
        self.state: dict[str, Tensor] = {}

    @abstractmethod
    def step(self, move: Tensor, t: int) -> None:
        """Move every run once; `move` is −(step size), (B, 1, 1), and t counts from 0."""

    def _copies(self, name: str) -> list[Tensor]:
        blocks = [torch.zeros_like(block) for block in self.model.blocks]
        self.state.update({f"{name}.{i}": block for i, block in enumerate(blocks)})
        return blocks

    def _scale(self, name: str) -> Tensor:
        """A logarithmic scale, that of an empty buffer."""
        self.state[name] = self.model.W.new_full((self.model.W.shape[0], 1, 1), -math.inf, dtype=torch.float64)
        return self.state[name]

    def _move(self, directions: list[Tensor], move: Tensor) -> None:
        for block, direction in zip(self.model.blocks, directions, strict=True):
            block.addcmul_(direction, move)

    def _carried(self, scale: Tensor, decay: Tensor, power: int = 1) -> tuple[Tensor, Tensor]:
        """Factors of an average β·old + new whose common scale is taken out, and `scale` brought up to date.

        Neither exceeds 1: the scale follows the gradient down no faster than the average itself decays.
        """
        new = self.model.log_scale
        fresh = torch.zeros_like(scale) if new is None else power * new
        kept = scale + decay.double().log()
        torch.maximum(kept, fresh, out=scale)
        dtype = self.model.W.dtype
        return (kept - scale).exp().to(dtype), (fresh - scale).exp().to(dtype)


@METHODS.register("gd", step=0.5, over_root=True)
class GradientDescent(Method):
    """Gradient descent θ ← θ − η∇."""

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual()
        self.model.accumulate(self.model.blocks, 1, move)


@METHODS.register("sgd", source="robbins1951", step=0.1, over_root=True, stochastic=True)
class StochasticGradientDescent(Method):
    """Stochastic gradient descent on batches of `batch` samples, drawn without replacement within an epoch.

    Only the batch's embeddings move; its gradient is scaled by n/m. The order of an epoch depends on the run's seed
    and the epoch's number alone.
    """

    def __init__(self, model: FreeModel, batch: int = 64, seeds: Any = None):
        super().__init__(model)
        samples = model.columns.samples.sum(2).expand(model.W.shape[0], 1)
        self._n = samples[:, 0].cpu().numpy().astype(np.int64)
        self._seeds = np.zeros(self._n.size, dtype=np.int64) if seeds is None else np.asarray(seeds)
        self._size = min(int(batch), int(self._n.min()))
        self._batches = self._n // self._size
        self._epochs = np.full(self._n.size, -1)
        self._order = torch.zeros(self._n.size, model.columns.n, dtype=torch.int64)
        self._share = torch.tensor(self._n / self._size).to(model.W).reshape(-1, 1, 1)

    def step(self, move: Tensor, t: int) -> None:
        """One step on the t-th batch of every run."""
        self.model.minibatch_step(self.batch_at(t).to(self.model.W.device), self._share, move)

    def batch_at(self, t: int) -> Tensor:
        """(B, m): the samples of step t."""
        epochs = t // self._batches
        for run in np.flatnonzero(epochs != self._epochs):
            order = np.random.default_rng([int(self._seeds[run]), int(epochs[run])]).permutation(self._n[run])
            self._order[run, :order.size] = torch.from_numpy(order)
        self._epochs = epochs
        first = torch.from_numpy((t % self._batches) * self._size)
        return self._order.gather(1, first[:, None] + torch.arange(self._size))


@METHODS.register("heavy-ball", source="polyak1964", step=0.1, over_root=True)
class HeavyBall(Method):
    """Heavy-ball momentum V ← βV − η∇, θ ← θ + V."""

    buffers = 1

    def __init__(self, model: FreeModel, momentum: Any = 0.9):
        super().__init__(model)
        self._momentum, self._V = momentum, self._copies("velocity")

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual()
        self.model.accumulate(self._V, self._momentum, move)
        for block, velocity in zip(self.model.blocks, self._V, strict=True):
            block.add_(velocity)


@METHODS.register("nesterov", source="nesterov1983", step=0.1, over_root=True)
class Nesterov(Method):
    """Nesterov's momentum V ← βV − η∇, θ ← θ + βV − η∇, with θ the point the gradient is taken at."""

    buffers = 2

    def __init__(self, model: FreeModel, momentum: Any = 0.9):
        super().__init__(model)
        self._momentum, self._V = momentum, self._copies("velocity")
        self._G = [torch.zeros_like(block) for block in model.blocks]

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual()
        self.model.accumulate(self._G, 0, move)
        for block, velocity, gradient in zip(self.model.blocks, self._V, self._G, strict=True):
            torch.addcmul(gradient, velocity, self._momentum, out=velocity)
            block.add_(gradient).addcmul_(velocity, self._momentum)


@METHODS.register("adam", source="kingma2015", step=0.01, over_root=False)
class Adam(Method):
    """Adam with bias correction; ε = 0 makes its step independent of the gradient's size."""

    buffers = 3

    def __init__(self, model: FreeModel, momentum: Any = 0.9, beta2: Any = 0.999, epsilon: Any = 1e-8):
        super().__init__(model)
        self._momentum, self._beta2, self._epsilon = momentum, beta2, epsilon.double()
        self._M, self._V = self._copies("first"), self._copies("second")
        self._log_M, self._log_V = self._scale("first.scale"), self._scale("second.scale")
        self._G = [torch.zeros_like(block) for block in model.blocks]
        # Entries whose square underflows beside the run's largest fade out instead of being divided by 0.
        self._least = math.sqrt(torch.finfo(model.W.dtype).tiny)

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        model = self.model
        model.residual(scaled=True)
        model.accumulate(self._G, 0, 1.0)
        keep, gain = self._carried(self._log_M, self._momentum)
        keep2, gain2 = self._carried(self._log_V, self._beta2, 2)
        gain, gain2 = gain * (1 - self._momentum), gain2 * (1 - self._beta2)
        # m̂/(√v̂ + ε) with the scales of m and v taken out: e^{log_M}m / (e^{log_V/2}√v + ε).
        half = self._log_V / 2
        first = (1 - self._momentum.double() ** (t + 1)).reciprocal() * (self._log_M - half).exp()
        second = (1 - self._beta2.double() ** (t + 1)).sqrt()
        epsilon = torch.where(self._epsilon > 0, self._epsilon * (-half).exp(), 0) * second
        factor, epsilon = (first * second).to(move.dtype) * move, epsilon.to(move.dtype)
        for block, M, V, G in zip(model.blocks, self._M, self._V, self._G, strict=True):
            M.mul_(keep).addcmul_(G, gain)
            V.mul_(keep2).addcmul_(G.square(), gain2)
            block.addcmul_(M / (V.sqrt() + epsilon).clamp_(min=self._least), factor)


class _Normalised(Method):
    """V ← βV − η∇/size, θ ← θ + V, for a size of the gradient taken out in the log domain."""

    buffers = 2

    def __init__(self, model: FreeModel, momentum: Any = 0.0):
        super().__init__(model)
        self._momentum, self._V = momentum, self._copies("velocity")
        self._G = [torch.zeros_like(block) for block in model.blocks]
        self._least = torch.finfo(model.W.dtype).tiny

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual(scaled=True)
        self.model.accumulate(self._G, 0, 1.0)
        move = move / self._size().clamp_(min=self._least)
        for block, velocity, gradient in zip(self.model.blocks, self._V, self._G, strict=True):
            block.add_(velocity.mul_(self._momentum).addcmul_(gradient, move))

    @abstractmethod
    def _size(self) -> Tensor:
        """(B, 1, 1), in the scale of the gradient."""


@METHODS.register("ngd", source="nacson2019", step=0.1, over_root=False)
class NormalisedByGradient(_Normalised):
    """Normalised gradient descent V ← βV − η∇/‖∇‖, θ ← θ + V, the norm over all parameters."""

    def _size(self) -> Tensor:
        return self.model.norm(self._G)


@METHODS.register("ngd-loss", source="nacson2019", step=0.1, over_root=True)
class NormalisedByLoss(_Normalised):
    """Gradient descent normalised by the loss (ridges included) V ← βV − η∇/L, θ ← θ + V."""

    def _size(self) -> Tensor:
        model = self.model
        if model.log_scale is None:  # the square loss
            size = model.residual_loss() + model.penalty()
        else:
            size = (model.scaled_log_loss() - model.log_scale).exp()
            size += torch.where(model.ridge > 0, model.penalty() * (-model.log_scale).exp(), 0)
        return size.to(model.W.dtype)


class _Momentum(Method):
    """M ← βM + ∇, with its logarithmic scale kept apart."""

    buffers = 1

    def __init__(self, model: FreeModel, momentum: Any = 0.0):
        super().__init__(model)
        self._momentum, self._M, self._log_M = momentum, self._copies("momentum"), self._scale("momentum.scale")

    def _with_samples(self, blocks: list[Tensor], of: Any) -> list[Tensor]:
        """`of` every block, where H's columns stand for several samples through √n_c: (H D^{1/2}) → (…) D^{-1/2}."""
        multiplicity = self.model.columns.multiplicity
        if multiplicity is None:
            return [of(block) for block in blocks]
        root = multiplicity.sqrt()
        return [of(block * root) / root if i == 1 else of(block) for i, block in enumerate(blocks)]


class _OfMomentum(_Momentum):
    """θ ← θ − η·direction(M): directions that do not depend on M's size."""

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual(scaled=True)
        keep, gain = self._carried(self._log_M, self._momentum)
        self.model.accumulate(self._M, keep, gain)
        self._move(self._directions(self._M), move)

    @abstractmethod
    def _directions(self, blocks: list[Tensor]) -> list[Tensor]:
        """Where each block moves, of unit size in the method's norm."""


@METHODS.register("sign", source="balles2018", step=0.01, over_root=False)
class SignDescent(_OfMomentum):
    """Sign descent (idealised Adam): −η·sign of each entry's momentum."""

    def _directions(self, blocks: list[Tensor]) -> list[Tensor]:
        return [block.sign() for block in blocks]


@METHODS.register("spectral", source="carlson2015", step=0.05, over_root=False)
class SpectralDescent(_OfMomentum):
    """Spectral descent (idealised Muon): −η·UVᵀ of each block's momentum UΣVᵀ; its null directions are left alone."""

    def _directions(self, blocks: list[Tensor]) -> list[Tensor]:
        return self._with_samples(blocks, polar_factor)


@METHODS.register("muon", source="jordan2024", step=0.05, over_root=False)
class Muon(_Momentum):
    """Muon: Nesterov momentum orthogonalised by five quintic Newton–Schulz steps, with the published coefficients.

    No factor for a block's shape, in the run's own precision; H counts as one matrix.
    """

    buffers = 2

    def __init__(self, model: FreeModel, momentum: Any = 0.95):
        super().__init__(model, momentum)
        self._G = [torch.zeros_like(block) for block in model.blocks]

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.residual(scaled=True)
        self.model.accumulate(self._G, 0, 1.0)
        keep, gain = self._carried(self._log_M, self._momentum)
        ahead = []
        for M, G in zip(self._M, self._G, strict=True):
            M.mul_(keep).addcmul_(G, gain)
            ahead.append((G * gain).addcmul_(M, self._momentum))
        self._move(self._with_samples(ahead, newton_schulz), move)


@METHODS.register("continuation", step=0.1, over_root=True)
class RidgeContinuation(HeavyBall):
    """Heavy-ball momentum under a ridge that halves every `half_life` steps, from `ridge_start` down to the run's own.

    λ_t = λ + (ridge_start − λ)·2^(−t/half_life), with the balance λ_H/λ_W of the run.
    """

    def __init__(self, model: FreeModel, momentum: Any = 0.9, ridge_start: Any = 1.0, half_life: Any = 100.0):
        super().__init__(model, momentum)
        self._end, self._start, self._half_life = model.ridge, ridge_start.double(), half_life.double()

    def step(self, move: Tensor, t: int) -> None:
        """One step."""
        self.model.set_ridge(self._end + (self._start - self._end) * torch.exp2(-t / self._half_life))
        super().step(move, t)
        self.model.set_ridge(self._end)  # what is recorded is the objective at the run's own ridge

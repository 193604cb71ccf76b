"""The unconstrained-features model, many runs at once, with its gradient in closed form.

    min over W, H, b of  Σ_i ω_{y_i} ℓ(Wᵀh_i + b, y_i) + λ_W/2 ‖W‖² + λ_H/2 ‖H‖²      (`theory.md` §1)

The loss is a SUM over samples, λ = √(λ_W λ_H), and b is free and unregularised. With the residual R = ∂ loss/∂Z
(k, n) the gradient is three small products: Z = WᵀH, ∇W = R Hᵀ, ∇H = W R. Everything is written into buffers made
once. H is stored (B, d, n) and logits (B, k, n): reductions over the classes then run along contiguous samples.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.simulate.columns import Columns
from neuralcollapse.simulate.loss import TrainedLoss
from neuralcollapse.simulate.residual import residual_, scaled_residual_


class FreeModel:
    """B unconstrained-features models on one device.

    Parameters
    ----------
    columns : Columns
    loss : TrainedLoss
    d : int
    ridge, balance : (B,) sequences of numbers
        λ = √(λ_W λ_H) ≥ 0 and λ_H/λ_W > 0 of every run.

    Attributes
    ----------
    blocks : list of tensors
        W (B, k, d), H (B, d, n) and, where there is a bias, b (B, k, 1).
    log_scale : (B, 1, 1) float64 tensor or None
        What `accumulate` leaves out of the gradient: the true one is e^{log_scale} times it. None is 0.
    offsets : (B, k, n) tensor or None
        ι_ij that a method adds to each sample's logits.
    logits : (B, k, n) tensor
        The adjusted ones, offsets included, where a plain residual was formed last.
    iota : (k, 1) tensor or None
        Additive offsets of the loss.
    """

    def __init__(self, columns: Columns, loss: TrainedLoss, d: int, ridge: Sequence[float],
                 balance: Sequence[float] | None = None):
        self.columns, self.loss = columns, loss
        runs, k, n = columns.labels.shape[0], columns.k, columns.n
        new = columns.weight.new_zeros
        self.W, self.H = new(runs, k, d), new(runs, d, n)
        self.b = new(runs, k, 1) if loss.bias else None
        self.blocks = [self.W, self.H] + ([self.b] if self.b is not None else [])
        self.log_scale: Tensor | None = None
        self.offsets: Tensor | None = None
        self.logits, self._residual, self._sums = new(runs, k, n), new(runs, k, n), new(runs, 1, n)
        self._gradient_W, self._scaled_W = new(runs, k, d), new(runs, k, d)
        # Transposed in memory: many small products with a transposed right side are half again as slow.
        self._counted_H = None if columns.multiplicity is None else new(runs, n, d)
        self._slope = self._vector(None if loss.parameters.by_label else loss.parameters.temperature)
        self.iota = self._vector(loss.parameters.offset)
        self._tempered_W = self.W if self._slope is None else new(runs, k, d)
        self._R = self._residual
        self._factor: Tensor | None = None
        self._log_losses: Tensor | None = None
        lean = torch.finfo(columns.weight.dtype)
        # Beside a ridge the loss's gradient is not scaled further up than this, where the ridge's own would overflow.
        self._floor = math.log(lean.tiny) / 4
        ratio = np.ones(runs) if balance is None else np.asarray(balance, dtype=np.float64)
        self._sides = tuple(torch.tensor(ratio ** p, dtype=torch.float64, device=self.W.device).reshape(-1, 1, 1)
                            for p in (-0.5, 0.5))
        self.set_ridge(torch.tensor(np.asarray(ridge, dtype=np.float64), device=self.W.device).reshape(-1, 1, 1))

    # -- the parts of a step --------------------------------------------------------------------------------------

    def set_ridge(self, ridge: Tensor) -> None:
        """Give every run its λ, a (B, 1, 1) float64 tensor."""
        self.ridge = ridge
        self._ridged = bool((ridge > 0).any())
        self._ridges = [ridge * side for side in self._sides]
        self._decays = self._true_decays = [value.to(self.W.dtype) for value in self._ridges]

    def residual(self, scaled: bool = False) -> None:
        """Form R where the parameters are; `accumulate` uses it.

        Parameters
        ----------
        scaled : bool
            Take the gradient's size out into `log_scale`, so that it is right however small it is.
        """
        logits = self._forward(self.H, self.columns, self.logits)
        if self.offsets is not None:
            logits.add_(self.offsets)
        if self.loss.square or not scaled:
            self._factor = self.log_scale = None
            self._decays = self._true_decays
            self._R = self._plain_residual(logits, self.columns, self._residual, self._sums)
            return
        found = scaled_residual_(logits, self.columns.labels, self.columns.log_weight)
        self._log_losses = found.log_losses
        self._R = found.values
        if self.columns.temperature is not None:
            self._R.mul_(self.columns.temperature)
        self.log_scale = found.log_scale.double()
        self._factor = None
        if self._ridged:
            self._leave_room_for_ridge()

    def accumulate(self, into: list[Tensor], keep: Tensor | float, scale: Tensor | float) -> None:
        """Block by block, into ← keep·into + scale·gradient; `into` may be the parameters themselves.

        Parameters
        ----------
        into : list of tensors shaped as `blocks`
        keep : 0, 1 or (B, 1, 1) tensor
        scale : float or (B, 1, 1) tensor
        """
        own = into is self.blocks
        gain = scale if self._factor is None else scale * self._factor
        multiplicity, H = self.columns.multiplicity, self.H.mT
        counted = H if multiplicity is None else torch.mul(H, multiplicity.mT, out=self._counted_H)
        gradient_W = torch.bmm(self._R, counted, out=self._gradient_W)
        if self._slope is not None:
            gradient_W.mul_(self._slope)
        scaled_W = torch.mul(self._tempered_W, gain, out=self._scaled_W)  # before W moves
        decay_W, decay_H = self._decays
        _prepare(into[1], self.H, own, keep, decay_H * scale if self._ridged else None)
        into[1].baddbmm_(scaled_W.mT, self._R)
        _prepare(into[0], self.W, own, keep, decay_W * scale if self._ridged else None)
        into[0].addcmul_(gradient_W, _tensor(gain, gradient_W))
        if self.b is not None:
            self._accumulate_bias(into[2], own, keep, gain)

    def minibatch_step(self, index: Tensor, scale: Tensor, move: Tensor) -> None:
        """One step of stochastic gradient descent on the columns at `index`.

        Parameters
        ----------
        index : (B, m) int64 tensor
            Distinct positions.
        scale : (B, 1, 1) tensor
            n/m, which makes the gradient of the batch an unbiased one of the sum.
        move : (B, 1, 1) tensor
            −step.
        """
        columns = self.columns.at(index)
        where = index[:, None, :].expand(-1, self.H.shape[1], -1)
        H = self.H.gather(2, where)
        logits = self._forward(H, columns, self.logits.new_empty(index.shape[0], columns.k, columns.n))
        R = self._plain_residual(logits, columns, torch.empty_like(logits), self._sums.new_empty(logits[:, :1].shape))
        R.mul_(scale)
        gradient_H = torch.bmm(self._tempered_W.transpose(1, 2), R)
        if self._ridged:
            gradient_H.addcmul_(H, self._true_decays[1] * scale)
        gradient_W = torch.bmm(R, H.transpose(1, 2))
        if self._slope is not None:
            gradient_W.mul_(self._slope)
        if self._ridged:
            gradient_W.addcmul_(self.W, self._true_decays[0])
        if self.b is not None:
            slope = 1 if self._slope is None else self._slope
            self.b.addcmul_(R.sum(2, keepdim=True) * slope, move)
        self.H.scatter_add_(2, where, gradient_H.mul_(move))
        self.W.addcmul_(gradient_W, move)

    def project(self) -> None:
        """Keep features non-negative where the model asks for it."""
        if self.loss.relu:
            self.H.clamp_(min=0)

    def norm(self, blocks: list[Tensor]) -> Tensor:
        """(B, 1, 1): Euclidean norm over all blocks, each column of H as often as it has samples."""
        W, H, *bias = blocks
        square = W.square().sum((1, 2), keepdim=True)
        columns = H.square().sum(1, keepdim=True)
        if self.columns.multiplicity is not None:
            columns.mul_(self.columns.multiplicity)
        square += columns.sum(2, keepdim=True)
        for b in bias:
            square += b.square().sum((1, 2), keepdim=True)
        return square.sqrt_()

    # -- values ---------------------------------------------------------------------------------------------------

    def log_loss(self) -> Tensor:
        """(B, 1, 1) float64: ln of the loss without ridges and offsets, right where the loss itself underflows."""
        offsets, self.offsets = self.offsets, None
        self.residual(scaled=True)
        self.offsets = offsets
        return self.residual_loss().log() if self.loss.square else self.scaled_log_loss()

    def residual_loss(self) -> Tensor:
        """(B, 1, 1) float64: the square loss, of the residual formed last."""
        return (self._R.double().square() * self.columns.samples).sum((1, 2), keepdim=True) / 2

    def scaled_log_loss(self) -> Tensor:
        """`log_loss` of the residual formed last, which must have been a scaled one."""
        assert self._log_losses is not None
        return (self._log_losses + self.columns.samples.log()).double().logsumexp(2, keepdim=True)

    def penalty(self) -> Tensor:
        """(B, 1, 1) float64: λ_W/2 ‖W‖² + λ_H/2 ‖H‖²."""
        W2 = self.W.double().square().sum((1, 2), keepdim=True)
        H2 = (self.H.double().square() * self.columns.samples).sum((1, 2), keepdim=True)
        return (self._ridges[0] * W2 + self._ridges[1] * H2) / 2

    # -- inside ---------------------------------------------------------------------------------------------------

    def _forward(self, H: Tensor, columns: Columns, out: Tensor) -> Tensor:
        """The adjusted logits Δ∘(Wᵀh + b) + ι or δ_y(Wᵀh + b) + ι."""
        if self._slope is not None:
            torch.mul(self.W, self._slope, out=self._tempered_W)
        inner = None
        if self.b is not None:
            inner = self.b if self._slope is None else self.b * self._slope
        if self.iota is not None and columns.temperature is None:
            inner = self.iota if inner is None else inner + self.iota
        if inner is None:
            torch.bmm(self._tempered_W, H, out=out)
        else:
            torch.baddbmm(inner.expand(out.shape), self._tempered_W, H, out=out)
        if columns.temperature is not None:
            out.mul_(columns.temperature)
            if self.iota is not None:
                out.add_(self.iota)
        return out

    def _plain_residual(self, logits: Tensor, columns: Columns, out: Tensor, sums: Tensor) -> Tensor:
        if not self.loss.square:
            return residual_(logits, columns.labels, columns.off, out, sums)
        minus_one = logits.new_full((1, 1, 1), -1.0).expand(columns.labels.shape)
        return torch.mul(logits.scatter_add_(1, columns.labels, minus_one), columns.weight, out=out)

    def _leave_room_for_ridge(self) -> None:
        """Hold the common scale at a floor where there is a ridge, and scale the ridges alike."""
        assert self.log_scale is not None
        small = self.log_scale
        self.log_scale = torch.where(self.ridge > 0, small.clamp(min=self._floor), small)
        self._factor = (small - self.log_scale).exp().to(self.W.dtype)
        ridges = [torch.where(self.ridge > 0, value * (-self.log_scale).exp(), 0) for value in self._ridges]
        self._decays = [value.to(self.W.dtype) for value in ridges]

    def _accumulate_bias(self, into: Tensor, own: bool, keep: Tensor | float, gain: Tensor | float) -> None:
        assert self.b is not None
        R = self._R if self.columns.multiplicity is None else self._R * self.columns.multiplicity
        gradient = R.sum(2, keepdim=True)
        _prepare(into, self.b, own, keep, None)
        into.add_(gradient * gain if self._slope is None else gradient * gain * self._slope)

    def _vector(self, values: np.ndarray | None) -> Tensor | None:
        return None if values is None else self.W.new_tensor(values)[:, None]


def _prepare(into: Tensor, parameter: Tensor, own: bool, keep: Tensor | float, decay: Tensor | None) -> None:
    """In place, into ← keep·into + decay·parameter; a number `keep` is 0 or 1."""
    if decay is not None and own:
        into.mul_(keep + decay)
        return
    if isinstance(keep, Tensor):
        into.mul_(keep)
    elif keep == 0:
        into.zero_()
    if decay is not None:
        into.addcmul_(parameter, decay)


def _tensor(value: Tensor | float, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else like.new_full((1, 1, 1), value)



"""Perturbed inputs: projected gradient ascent in an ℓ∞ ball (PGD), noise and blur; and training on the first.

Sizes are shares of the raw pixel range, from black to white; `PixelRange` knows where normalisation has put it.
Sources: madry2018 for the ascent and the training, hendrycks2019 for noise and blur.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.data import Data
from neuralcollapse.experiments.session import Session
from neuralcollapse.measure.wrapped import evaluating

_OVERSHOOT = 2.5  # steps that could cross the ball's radius so often: enough to get from any start to any corner


@dataclass(frozen=True)
class PixelRange:
    """Normalised values of black and white: (0 − mean)/spread and (white − mean)/spread, by channel.

    Attributes
    ----------
    black, white : (c, 1, 1) tensors
    """

    black: Float[Tensor, "c 1 1"]
    white: Float[Tensor, "c 1 1"]

    @classmethod
    def of(cls, data: Data, white: float) -> PixelRange:
        """The range of images whose raw pixels go from 0 to `white`.

        Parameters
        ----------
        data : Data
        white : float
            16 for digits, 255 for MNIST.
        """
        # In float64 and then rounded, as `load_data` does it: a black pixel is exactly `black`.
        ends = ((raw - data.mean) / data.spread for raw in (0.0, white))
        return cls(*(torch.from_numpy(end.astype(np.float32))[:, None, None] for end in ends))

    def clip(self, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What is darker than black or lighter than white, put back."""
        return inputs.clamp(self.black, self.white)

    def scaled(self, share: float) -> Float[Tensor, "c 1 1"]:
        """A share of the range in normalised units."""
        return share * (self.white - self.black)


def pgd(model: nn.Module, inputs: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], pixels: PixelRange, *,
        eps: float, steps: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Inputs moved within an ℓ∞ ball to where their cross-entropy is large.

        x ← Π(x + α sign ∇_x ℓ(model(x), y)),   α = 2.5 ε/steps

    from a uniformly random start; Π puts x back into ‖x − x₀‖_∞ ≤ ε and into the pixel range. The model is in eval
    mode meanwhile (running statistics of batch norm, no dropout); its modes and gradients are left as they were.

    Parameters
    ----------
    model : torch.nn.Module
    inputs : (n, c, h, w) tensor
        Normalised images.
    labels : (n,) tensor
    pixels : PixelRange
    eps : float
        ε as a share of the pixel range.
    steps : int
    generator : torch.Generator
        Of the random start.

    Raises
    ------
    InvalidInput
        ε that is no finite number ≥ 0, steps below 1.

    References
    ----------
    madry2018.
    """
    if not (np.isfinite(eps) and eps >= 0):
        raise InvalidInput(f"eps must be a finite number ≥ 0, a share of the pixel range, got {shown(eps)}")
    if steps < 1:
        raise InvalidInput(f"steps must be a whole number ≥ 1, got {shown(steps)}")
    radius = pixels.scaled(eps)
    low, high = pixels.clip(inputs - radius), pixels.clip(inputs + radius)
    moved = low + (high - low) * torch.rand(inputs.shape, generator=generator)
    with evaluating(model):
        for _ in range(steps):
            moved = torch.clamp(moved + _OVERSHOOT / steps * radius * _ascent(model, moved, labels), low, high)
    return moved


def with_noise(inputs: Float[Tensor, "n c h w"], pixels: PixelRange, deviation: float, generator: torch.Generator
               ) -> Float[Tensor, "n c h w"]:
    """Images with Gaussian noise of a standard deviation that is a share of the pixel range."""
    return pixels.clip(inputs + pixels.scaled(deviation) * torch.randn(inputs.shape, generator=generator))


def blurred(inputs: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c h w"]:
    """Images whose every pixel is the mean over a box of odd side, the border repeated outwards."""
    edge = side // 2
    return F.avg_pool2d(F.pad(inputs, (edge,) * 4, mode="replicate"), side, stride=1)


def adversarial_epoch(session: Session, epoch: int, pixels: PixelRange, *, eps: float, steps: int) -> float:
    """`Session.run_epoch` for cross-entropy with each batch replaced by its `pgd`; the mean loss, penalty included.

    At ε = 0 it is standard training. Perturbations are searched in eval mode, the step on them is taken in train mode.

    Parameters
    ----------
    session : Session
        With the loss "ce".
    epoch : int
        From 1 on; fixes learning rate, order and random starts.
    pixels : PixelRange
    eps, steps
        As of `pgd`.
    """
    config, data = session.config, session.data
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0]))
    for group in session.optimizer.param_groups:
        group["lr"] = config.learning_rate_at(epoch)
    session.model.train()
    total, found = 0.0, list[Tensor]()
    for index in _batches(len(data.labels), config.batch_size, generator):
        labels = data.labels[index]
        inputs = pgd(session.model, data.inputs[index], labels, pixels, eps=eps, steps=steps, generator=generator)
        with session.head_inputs(found):
            loss = F.cross_entropy(session.model(inputs), labels)
        if config.feature_penalty:  # (p/2) Σ_i ‖h_i‖² over all samples, estimated from the batch
            loss = loss + 0.5 * config.feature_penalty * data.counts.n * found[-1].square().sum(1).mean()
        found.clear()
        session.optimizer.zero_grad()
        loss.backward()
        session.optimizer.step()
        total += float(loss.detach()) * len(labels)
    return total / len(data.labels)


def _ascent(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """The sign of the gradient of the loss by the inputs, and no other gradient."""
    with torch.enable_grad():
        at = inputs.detach().requires_grad_()
        gradient, = torch.autograd.grad(F.cross_entropy(model(at), labels, reduction="sum"), at)
    return gradient.sign()


def _batches(n: int, size: int | None, generator: torch.Generator) -> Iterator[Tensor]:
    if size is None or size >= n:
        yield torch.arange(n)
        return
    yield from torch.tensor_split(torch.randperm(n, generator=generator), -(-n // size))

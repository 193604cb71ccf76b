"""The residual of cross-entropy, exact in the terminal phase (`theory.md` §5, "The residual must be exact").

softmax(z) − e_y rounds to zero once 1 − p_y is below the machine epsilon. Here no 1 is ever subtracted:

    off the label  p_c = exp(z_c − lse),    on the label  −Σ_{c≠y} p_c,    loss = log(1 + Σ_{c≠y} exp(z_c − z_y))

and where even these underflow, in the log domain: with the log-odds against the label a = lse_{c≠y} z_c − z_y,

    residual = σ(a)·(q − e_y),   q = softmax over c ≠ y,   loss = log(1 + e^a)

whose logarithms are right for any a; the largest of them is taken out before exponentiating.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput, shown

REDUCTIONS = ("mean", "sum", "none")
HALF = (torch.float16, torch.bfloat16)
# Below this, log(1 + e^a) is e^a to the last bit of float64.
_TINY_ODDS = -40.0


def exact_cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None, reduction: str = "mean",
                        ignore_index: int = -100) -> Tensor:
    """Cross-entropy whose loss and gradient keep full relative precision however small they are.

    Takes the place of `torch.nn.functional.cross_entropy` with class labels. Every entry of the gradient, the label's
    own included, is right to a few units in the last place of its dtype while it does not underflow; the usual one is
    noise, then zero, once 1 − p_y < 6e-8 (float32). Half precisions compute in float32, and give it under autocast, as
    `cross_entropy` does.

    Parameters
    ----------
    logits : (k,), (n, k) or (n, k, …) float tensor
        A class may be masked by −inf.
    labels : (), (n,) or (n, …) integer tensor
        Values in 0 … k−1, or `ignore_index`.
    weight : (k,) tensor, optional
        ω, as in `cross_entropy`: the mean is Σ ω_y·loss / Σ ω_y. It takes no gradient.
    reduction : str
        "mean", "sum" or "none".
    ignore_index : int
        Samples with this label are left out.

    Returns
    -------
    () tensor, or one of the labels' shape for "none"

    Raises
    ------
    InvalidInput
        Shapes that do not fit, labels outside 0 … k−1, labels that are not integers, an unknown reduction.

    Notes
    -----
    It can be differentiated once; a double backward raises.

    References
    ----------
    theory.md §5.

    Examples
    --------
    >>> logits = torch.tensor([[90.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    >>> exact_cross_entropy(logits, torch.tensor([0])).backward()
    >>> logits.grad
    tensor([[-1.6388e-39,  8.1940e-40,  8.1940e-40]], dtype=torch.float64)
    """
    _check(logits, labels, weight, reduction, ignore_index)
    labels = labels.long()
    if torch.is_autocast_enabled(logits.device.type) and logits.dtype in HALF:
        logits = logits.float()
    classes = logits.movedim(1 if logits.ndim > 1 else 0, -1)
    columns = classes.reshape(-1, classes.shape[-1])
    losses = _ExactCrossEntropy.apply(columns, labels.reshape(-1), weight, reduction, ignore_index)
    return losses.reshape(labels.shape) if reduction == "none" else losses


class _ExactCrossEntropy(torch.autograd.Function):
    """Forward forms the residual as well: it costs one more division."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor | None, reduction: str,
                ignore_index: int) -> Tensor:
        kept = labels != ignore_index
        index = torch.where(kept, labels, 0).long()[:, None]
        z = logits.float() if logits.dtype in HALF else logits
        losses, residual = _losses_and_residual(z, index)
        share = kept.to(z.dtype) if weight is None else kept * weight.to(z.dtype)[index[:, 0]]
        total = share.sum() if reduction == "mean" else 1
        # Selected, not multiplied by 0: an ignored sample may hold anything.
        residual = torch.where(kept[:, None], residual * (share / total)[:, None], 0)
        losses = torch.where(kept, losses * share, 0)
        ctx.save_for_backward(residual)
        ctx.dtype = logits.dtype
        # The mean over no samples is 0/0, as in torch.
        return (losses if reduction == "none" else losses.sum() / total).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.is_grad_enabled():  # the saved residual is a constant: a second derivative would silently be 0
            raise InvalidInput("exact_cross_entropy can be differentiated once, got create_graph=True: use torch's "
                               "cross_entropy for second derivatives")
        residual, = ctx.saved_tensors
        upstream = upstream.to(residual.dtype)
        return (residual * upstream.reshape(-1, 1)).to(ctx.dtype), None, None, None, None


def _losses_and_residual(z: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """−log p_y and p − e_y of each row, from differences that keep their rounding error."""
    top = z.max(1, keepdim=True).values
    odds, label_gap = _shifted_exponentials(z, top, index)
    label = odds.gather(1, index)
    odds.scatter_(1, index, 0)
    others = odds.sum(1, keepdim=True)
    total = label + others
    # Near certainty log1p of the odds; else the label's own gap, which cannot cancel against a total of at least 1.
    sure = label > others
    losses = torch.where(sure, torch.log1p(others / label.where(sure, 1)), torch.log(total) - label_gap)
    residual = (odds / total).scatter_(1, index, -others / total)
    return losses[:, 0], residual


def _shifted_exponentials(z: Tensor, top: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """exp(z − top), and z_y − top.

    The difference of gaps of hundreds is off by many ulps of its exponential; Knuth's two-sum gives what it lost.
    """
    gap = z - top
    back = gap - z
    lost = (z - (gap - back)) - (top + back)
    lost = torch.where(torch.isfinite(lost), lost, 0)  # a masked class, z = −inf
    odds = torch.exp(gap)
    return odds.addcmul_(odds, lost), gap.gather(1, index)


def _check(logits: Tensor, labels: Tensor, weight: Tensor | None, reduction: str, ignore_index: int) -> None:
    if reduction not in REDUCTIONS:
        raise InvalidInput(f"reduction must be one of {', '.join(REDUCTIONS)}, got {shown(reduction)!r}")
    if logits.ndim == 0 or not logits.is_floating_point():
        raise InvalidInput(f"logits must be a float tensor of shape (k,), (n, k) or (n, k, …), got {logits.dtype} of "
                           f"shape {tuple(logits.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidInput(f"labels must be class indices, got {labels.dtype}")
    expected = () if logits.ndim == 1 else (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != expected:
        raise InvalidInput(f"labels must have shape {expected} for logits of shape {tuple(logits.shape)}, got "
                           f"{tuple(labels.shape)}")
    k = logits.shape[1 if logits.ndim > 1 else 0]
    if weight is not None and tuple(weight.shape) != (k,):
        raise InvalidInput(f"weight must have one number per class, ({k},), got {tuple(weight.shape)}")
    labels = labels.long()  # 8-bit ones cannot be held against −100 or more than 127 classes
    outside = ((labels < 0) | (labels >= k)) & (labels != ignore_index)
    if bool(outside.any()):
        raise InvalidInput(f"labels must be in 0 … {k - 1} or {ignore_index}, got {int(labels[outside].flatten()[0])}")


# -- many runs at once: logits (B, k, n), class by row ------------------------------------------------------------


class Residual(NamedTuple):
    """A residual whose scale is kept apart: the true one is e^{log_scale}·values.

    Attributes
    ----------
    values : (B, k, n) tensor
        The largest entry of a run is 1 in absolute value.
    log_scale : (B, 1, 1) tensor
    log_losses : (B, 1, n) tensor
        Logarithm of each sample's loss, its weight included; −inf where the weight is 0.
    """

    values: Tensor
    log_scale: Tensor
    log_losses: Tensor


def residual_(logits: Tensor, labels: Tensor, off: Tensor, out: Tensor, sums: Tensor) -> Tensor:
    """ω_y·(softmax − e_y) into `out`; exact while p_c does not underflow.

    Parameters
    ----------
    logits : (B, k, n) tensor
    labels : (B, 1, n) integer tensor
    off : (B or 1, k, n) tensor
        ω_y off the label and 0 on it.
    out : (B, k, n) tensor
    sums : (B, 1, n) tensor
        Room for the label's entries.
    """
    torch.softmax(logits, 1, out=out)
    out.mul_(off)
    torch.sum(out, 1, keepdim=True, out=sums)
    return out.scatter_(1, labels, sums.neg_())


def scaled_residual_(logits: Tensor, labels: Tensor, log_weight: Tensor) -> Residual:
    """The residual in the log domain, formed in the place of the logits: right for losses of 10⁻³⁰⁰ and far below.

    Parameters
    ----------
    logits : (B, k, n) tensor
        Overwritten.
    labels : (B, 1, n) integer tensor
    log_weight : (B or 1, 1, n) tensor
        ln ω_y; −inf leaves a sample out.

    Examples
    --------
    >>> logits = torch.tensor([[[1e5], [0.0]]], dtype=torch.float64)
    >>> found = scaled_residual_(logits, torch.tensor([[[0]]]), torch.zeros(1, 1, 1, dtype=torch.float64))
    >>> found.values.flatten().tolist(), found.log_scale.item(), found.log_losses.item()
    ([-1.0, 1.0], -100000.0, -100000.0)
    """
    own = logits.gather(1, labels)
    logits.scatter_(1, labels, float("-inf"))
    top = logits.amax(1, keepdim=True)
    sums = logits.sub_(top).exp_().sum(1, keepdim=True)
    against = sums.log().add_(top).sub_(own)
    log_residual = F.logsigmoid(against) + log_weight
    log_scale = log_residual.amax(2, keepdim=True)
    factor = log_residual.sub_(log_scale).exp_().div_(sums)
    logits.scatter_(1, labels, sums.neg_())
    return Residual(logits.mul_(factor), log_scale, log_softplus(against) + log_weight)


def log_softplus(odds: Tensor) -> Tensor:
    """Of a: ln ln(1 + e^a), which is a itself where a is very negative."""
    moderate = odds.clamp(min=_TINY_ODDS)
    softplus = torch.log1p(torch.exp(-moderate.abs())) + moderate.clamp(min=0)
    return torch.where(odds < _TINY_ODDS, odds, softplus.log())

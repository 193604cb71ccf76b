"""Supervised contrastive loss: on ReLU features (an orthogonal frame at any imbalance), with prototypes (their frame).

    ℓ_i = −(1/|P_i|) Σ_{p ∈ P_i} ln( exp(h_iᵀh_p/τ) / Σ_{a ≠ i} exp(h_iᵀh_a/τ) ),   P_i: the others of i's class

(khosla2020, Eq. 2: the mean over positives stands outside the logarithm; kini2023; gill2023.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from neuralcollapse.checks import InvalidInput, OutsideTheory, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.sharing import processes
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.simulate.residual import HALF, REDUCTIONS
from neuralcollapse.steer.amounts import flag, one_of, positive, whole
from neuralcollapse.steer.gathering import gathered


class SupConLoss(nn.Module):
    """Supervised contrastive loss of a batch, over all processes, with ReLU and prototypes where asked for.

        ℓ_i = ln(Σ_{a≠i} e^{h_iᵀh_a/τ} + m Σ_c e^{h_iᵀw_c/τ}) − (Σ_{p∈P_i} h_iᵀh_p + m h_iᵀw_{y_i}) / (τ(|P_i| + m))

    Every view of every sample is an anchor i; P_i holds the other samples of its class, their views and its own other
    views. A prototype w_c stands in the batch as m more samples of class c, anchors like all others. An anchor without
    a positive is left out of the loss and of its mean. There is no factor τ/τ₀ in front.

    Parameters
    ----------
    temperature : float
        τ > 0.
    nonnegative : bool
        ReLU before normalising: class means then go to an orthogonal frame whatever the counts (kini2023). Classify by
        the nearest class mean or a head trained on top.
    prototypes : (k, d) array, tensor or nn.Parameter, optional
        w_c: the rows of any frame that features are to align with, such as a simplex ETF (gill2023). A Parameter is
        trained along; anything else is a buffer, kept in the state dict, since features align with this very frame.
    prototype_copies : int
        m ≥ 1. More copies align features better, minorities above all; "mean" counts them too, so that the gradient of
        a feature falls like n/(n + mk).
    prototype_anchors : bool
        False: prototypes are contrasted with but no anchors. As m grows the loss of a sample then tends to ln m plus
        its cross-entropy with the fixed classifiers w_c/τ.
    normalize : bool
        Features and prototypes are scaled to length 1. A feature of exactly zero stays zero and takes the gradient of
        its inner products, not divided by a length.
    gather : bool
        Where torch.distributed runs several processes, contrast with the features of all. Every process must then call
        the loss, and go backward, at each step; batch sizes may differ.
    ignore_index : int
        Samples with this label are neither anchors nor contrasted with.
    reduction : str
        "mean" over the anchors that have a positive, "sum", or "none" (samples only, without prototypes as anchors).

    Raises
    ------
    InvalidInput
        A temperature that is not positive, a number of copies below 1, an unknown reduction, prototypes that are not
        (k, d), not finite, zero where they are to be normalised, or negative where features cannot be.

    Notes
    -----
    Across W processes "mean" gives each of them W·Σ(its own anchors)/(the anchors of all): the average over processes,
    which is what DistributedDataParallel makes of gradients, is the loss of the whole batch. "sum" gives each process
    its own anchors and 1/W of the prototypes'; the sum over processes is that of the whole batch. A process's gradient
    holds what its features do to the others' anchors. Trained prototypes belong inside the module that
    DistributedDataParallel wraps.

    References
    ----------
    khosla2020, Eq. 2; kini2023; gill2023.

    Examples
    --------
    >>> loss = SupConLoss(temperature=0.5)
    >>> features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> loss(features, torch.tensor([0, 0, 1]))  # ln(e² + 1) − 2, twice; the third sample has no positive
    tensor(0.1269)
    >>> loss.geometry([3, 3]).classifiers.cosines().round(3).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """

    prototypes: Tensor | None

    def __init__(self, temperature: float = 0.1, *, nonnegative: bool = False, prototypes: Any = None,
                 prototype_copies: int = 1, prototype_anchors: bool = True, normalize: bool = True,
                 gather: bool = True, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.temperature = positive("temperature", temperature)
        self.copies = whole("prototype_copies", prototype_copies, 1)
        self.anchored, self.gather = flag("prototype_anchors", prototype_anchors), flag("gather", gather)
        self.nonnegative, self.normalize = flag("nonnegative", nonnegative), flag("normalize", normalize)
        self.ignore_index = whole("ignore_index", ignore_index)
        if prototypes is not None:
            prototypes = self._checked(prototypes)
        if isinstance(prototypes, nn.Parameter):
            self.prototypes = prototypes
        else:
            self.register_buffer("prototypes", prototypes)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        features : (n, d) or (n, views, d) float tensor
            As they leave the network; half precisions compute in float32, under autocast too.
        labels : (n,) integer tensor
            Values from 0, below k where there are prototypes, or `ignore_index`. There is no loss without them.

        Returns
        -------
        () tensor, or one of shape (n,) or (n, views) for "none"
            Zero, with zero gradients, where no anchor has a positive.

        Raises
        ------
        InvalidInput
            Missing labels, shapes that do not fit each other, the prototypes or the other processes, or (on the CPU)
            labels out of range.
        """
        if labels is None:
            raise InvalidInput("labels must be given, one per sample, got none: for two views of unlabelled samples "
                               "pass torch.arange(n)")
        self._check(features, labels)
        device = features.device.type
        autocast = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False):
            x = features.float() if features.dtype in HALF else features
            views = x.shape[1] if x.ndim == 3 else 1
            losses = self._loss(x.reshape(-1, x.shape[-1]), labels.long().repeat_interleave(views))
        losses = losses.reshape(features.shape[:-1]) if self.reduction == "none" else losses
        return losses if autocast else losses.to(features.dtype)

    def _loss(self, rows: Tensor, own: Tensor) -> Tensor:
        kept = own != self.ignore_index
        # Selected here: an ignored sample may hold anything, and NaN times a zero gradient is NaN.
        rows = torch.where(kept[:, None], rows, 0)
        rows = rows.relu() if self.nonnegative else rows
        rows = unit(rows) if self.normalize else rows
        several = self.gather and processes() > 1
        others, theirs, before = gathered(rows, own) if several else (rows, own, 0)
        copies = (theirs != self.ignore_index).to(rows.dtype)
        itself = before + torch.arange(len(own), device=own.device)
        if self.prototypes is not None:
            prototypes = self.prototypes.to(rows.dtype)
            prototypes = unit(prototypes) if self.normalize else prototypes
            classes = torch.arange(len(prototypes), device=own.device)
            if self.anchored:
                rows, own, itself = (torch.cat(pair) for pair in ((rows, prototypes), (own, classes),
                                                                  (itself, len(others) + classes)))
            others, theirs = torch.cat([others, prototypes]), torch.cat([theirs, classes])
            copies = torch.cat([copies, torch.full_like(prototypes[:, 0], self.copies)])
        counted = own != self.ignore_index
        losses, counted = _losses(rows @ others.T / self.temperature, _without(copies, itself),
                                  own[:, None] == theirs, counted)
        return self._reduced(losses, counted, len(kept), several)

    def _reduced(self, losses: Tensor, counted: Tensor, samples: int, several: bool) -> Tensor:
        """The samples' anchors are this process's own, those of the prototypes everyone's."""
        if self.reduction == "none":
            return losses[:samples]
        world_size = processes() if several else 1
        total = losses[:samples].sum() + losses[samples:].sum() * (self.copies / world_size)
        if self.reduction == "sum":
            return total
        anchors = counted[:samples].sum()
        if several:
            distributed.all_reduce(anchors)
        return total * world_size / (anchors + self.copies * counted[samples:].sum()).clamp(min=1)

    def geometry(self, counts: Any) -> Geometry:
        """The geometry of class means this loss leads to when every pair of samples meets in some batch.

        Parameters
        ----------
        counts : ClassCounts, (k,) sequence or tensor, text, or mapping of class names to counts

        Raises
        ------
        OutsideTheory
            Features that may be negative and counts that differ; prototypes; features that are not normalised.

        References
        ----------
        kini2023, Thm. 1 (ReLU); graf2021 (balanced).

        Examples
        --------
        >>> SupConLoss(nonnegative=True).geometry([90, 10]).classifiers.cosines().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        counts = ClassCounts.from_counts(counts)
        if self.prototypes is not None:
            raise OutsideTheory("where prototypes lead is known from experiments (features align with them): leave "
                                "them out, or compare class means with the prototypes themselves")
        if not self.normalize:
            raise OutsideTheory("the contrastive geometry is known for normalised features: use normalize=True")
        if self.nonnegative:
            return predict(counts, "scl")
        if not counts.balanced:
            raise OutsideTheory("the contrastive geometry of imbalanced classes is known for ReLU features: use "
                                "nonnegative=True, which leads to an orthogonal frame")
        return predict(counts, "etf")

    def extra_repr(self) -> str:
        """The options, as the printed module shows them."""
        options = [f"temperature={self.temperature:g}"]
        options += [f"{name}=True" for name in ("nonnegative",) if getattr(self, name)]
        options += [f"{name}=False" for name in ("normalize", "gather") if not getattr(self, name)]
        if self.prototypes is not None:
            options.append(f"prototypes={tuple(self.prototypes.shape)}, prototype_copies={self.copies}")
            options += [] if self.anchored else ["prototype_anchors=False"]
        return ", ".join([*options, f"reduction={self.reduction!r}"])

    def _checked(self, prototypes: Any) -> Tensor:
        if not isinstance(prototypes, Tensor):
            try:
                prototypes = torch.tensor(np.asarray(prototypes, dtype=np.float64), dtype=torch.get_default_dtype())
            except (TypeError, ValueError):
                raise InvalidInput("prototypes must be a (k, d) array of numbers, one row per class, got "
                                   f"{shown(prototypes)}") from None
        if prototypes.ndim != 2 or not prototypes.numel() or not prototypes.is_floating_point():
            raise InvalidInput("prototypes must be a (k, d) float array, one row per class, got "
                               f"{prototypes.dtype} of shape {tuple(prototypes.shape)}")
        if not bool(prototypes.isfinite().all()):
            raise InvalidInput("prototypes must be finite, got NaN or Inf")
        zero = (prototypes == 0).all(1)
        if self.normalize and bool(zero.any()):
            raise InvalidInput(f"prototypes must have a direction, got zero for class {int(zero.int().argmax())}: pass "
                               "normalize=False, or a geometry in which no class vanishes")
        if self.nonnegative and bool((prototypes < 0).any()):
            raise InvalidInput("prototypes must be non-negative where features are (nonnegative=True), got "
                               f"{float(prototypes.min()):g}: pass an orthogonal frame such as torch.eye(k, d)")
        return prototypes

    def _check(self, features: Tensor, labels: Tensor) -> None:
        if features.ndim not in (2, 3) or not features.is_floating_point() or not all(features.shape[1:]):
            raise InvalidInput("features must be a float tensor of shape (n, d) or (n, views, d), got "
                               f"{features.dtype} of shape {tuple(features.shape)}")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InvalidInput(f"labels must be class indices, got {labels.dtype}")
        if tuple(labels.shape) != (len(features),):
            raise InvalidInput(f"labels must have shape ({len(features)},) for features of shape "
                               f"{tuple(features.shape)}, got {tuple(labels.shape)}")
        k = None
        if self.prototypes is not None:
            k, d = self.prototypes.shape
            if features.shape[-1] != d:
                raise InvalidInput(f"features must have the {d} dimensions of the prototypes, got {features.shape[-1]}")
        # On a device, looking would wait for it; a compiler cannot look.
        if labels.device.type == "cpu" and not torch.compiler.is_compiling():
            outside = ((labels < 0) | (labels >= (k or torch.inf))) & (labels != self.ignore_index)
            if bool(outside.any()):
                bound = f"0 … {k - 1}, one per prototype," if k else "0 … k−1"
                raise InvalidInput(f"labels must be in {bound} or {self.ignore_index}, got {int(labels[outside][0])}")


def _losses(products: Tensor, copies: Tensor, same: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ_i of each row of hᵀh/τ, zero where it has no positive, and which rows have one."""
    positive = torch.where(same, copies, 0)
    partners = positive.sum(1)
    counted = kept & (partners > 0)
    push = torch.where(copies > 0, products + copies.log(), -torch.inf)
    # A row of −inf alone has a logarithm whose gradient is NaN, even where it is not selected.
    push = torch.where(counted[:, None], push, 0)
    pull = (products * positive).sum(1) / torch.where(counted, partners, 1)
    return torch.where(counted, push.logsumexp(1) - pull, 0), counted


def _without(copies: Tensor, itself: Tensor) -> Tensor:
    """(anchors, all): how often each sample stands in the batch beside the anchor; 0 leaves it out."""
    beside = copies.repeat(len(itself), 1)
    beside[torch.arange(len(itself), device=itself.device), itself] -= 1
    return beside.clamp(min=0)


def unit(rows: Tensor) -> Tensor:
    """Rows scaled to length 1; a row of zeros stays, with the gradient of its inner products as they are."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1)

"""Cross-entropy of adjusted logits: class weights, temperatures, offsets, margins and focus, for real training loops.

    ℓ_i = ω_y · (1 − p_y)^φ · CE(a, y),   p = softmax(a),

    a = Δ∘z + ι − m_y e_y  (class temperature)   or   a = δ_y·z + ι − m_y e_y  (label temperature)

(kini2021; `theory.md` §3; the margin m is cao2019's, the focus φ lin2017's.) What these are made of is `losses.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse.checks import InvalidInput, finite_vector, positive_vector
from neuralcollapse.simulate.residual import HALF, REDUCTIONS, exact_cross_entropy
from neuralcollapse.steer.amounts import below_one, finite, flag, given, not_negative, one_of, per_class, whole

TEMPERATURES = ("class", "label")


class AdjustedCrossEntropy(nn.Module):
    """Cross-entropy of adjusted logits, whose "mean" divides by the number of samples, never by their weights.

    Parameters
    ----------
    k : int
        Classes.
    weight, delta, iota, margin : (k,) array, optional
        ω > 0; Δ or δ > 0; ι; m ≥ 0, taken from the label's own logit.
    temperature, label_smoothing, focal, reduction, ignore_index, exact
        As `VSLoss`.

    Raises
    ------
    InvalidInput
        Vectors of another length or sign, unknown options, or options that do not go together.

    References
    ----------
    kini2021, Eq. 2; theory.md §3.

    Examples
    --------
    >>> loss = AdjustedCrossEntropy(2, iota=[0.0, -1.0])
    >>> loss(torch.tensor([[1.0, 2.0]]), torch.tensor([1]))
    tensor(0.6931)
    """

    weight: Tensor | None
    delta: Tensor | None
    iota: Tensor | None
    margin: Tensor | None

    def __init__(self, k: int, *, weight: Any = None, delta: Any = None, temperature: str = "class", iota: Any = None,
                 margin: Any = None, label_smoothing: float = 0.0, focal: float = 0.0, reduction: str = "mean",
                 ignore_index: int = -100, exact: bool = False):
        super().__init__()
        self.k, self.ignore_index = whole("k", k, 2), whole("ignore_index", ignore_index)
        self.exact = flag("exact", exact)
        self.temperature = one_of("temperature", temperature, TEMPERATURES)
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.label_smoothing = below_one("label_smoothing", label_smoothing)
        self.focus = not_negative("focal", focal)
        self.vectors: dict[str, np.ndarray | None] = {}
        for name, check, values in (("weight", positive_vector, weight), ("delta", positive_vector, delta),
                                    ("iota", finite_vector, iota), ("margin", finite_vector, margin)):
            self.vectors[name] = None if values is None else check(name, per_class(name, values, k), k)
        self._check_options()
        # Moved along, it says where the loss is and in which dtype, even when there are no parameters.
        self._place = torch.empty(0)
        for name in self.vectors:
            self.register_buffer(name, None, persistent=False)
        self._fill()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AdjustedCrossEntropy:
        """Move the parameters, from their float64 values: half precision would keep three digits of an offset."""
        super()._apply(fn, recurse)
        self._place = fn(self._place)
        self._fill()
        return self

    def _fill(self) -> None:
        dtype = torch.promote_types(self._place.dtype, torch.float32)
        for name, values in self.vectors.items():
            if values is not None:
                setattr(self, name, torch.tensor(values, dtype=dtype, device=self._place.device))
        self._added = None if self.margin is None else -self.margin

    @property
    def _single(self) -> str | None:
        """What asks for one label a sample, so that labels cannot be mixed."""
        return ("label temperatures need" if self.vectors["delta"] is not None and self.temperature == "label" else
                "margins need" if self.vectors["margin"] is not None else "the focal loss needs" if self.focus else
                "exact residuals need" if self.exact else None)

    def forward(self, logits: Tensor, target: Tensor, *, num_items_in_batch: Tensor | float | None = None) -> Tensor:
        """The loss of a batch.

        Parameters
        ----------
        logits : (k,), (n, k) or (n, k, …) float tensor
            A class may be masked by −inf, beside labels that are no probabilities and not smoothed. Half precisions
            compute in float32; dtypes come out as those of `cross_entropy`.
        target : (), (n,) or (n, …) integer tensor, or float tensor of the logits' shape
            Labels 0 … k−1 or `ignore_index`; or class probabilities q (mixed labels, class temperatures only), whose
            loss is Σ_c q_c ω_c CE(Δ∘z + ι, c).
        num_items_in_batch : int or () tensor, optional
            What "mean" divides by in place of the batch's own number of labels: that of all micro-batches together.

        Returns
        -------
        () tensor, or one of the labels' shape for "none"

        Raises
        ------
        InvalidInput
            Logits of another number of classes than there are counts, targets that do not fit or (on the CPU) are
            outside 0 … k−1, mixed labels where each sample must have one, (on the CPU) a `num_items_in_batch` that is
            not positive.
        """
        if not (isinstance(logits, Tensor) and isinstance(target, Tensor)):
            raise InvalidInput("logits and labels must be tensors, got "
                               f"{type(logits).__name__} and {type(target).__name__}")
        mixed = target.is_floating_point()
        self._check_kind(logits, target, mixed)
        if num_items_in_batch is not None:
            self._check_items(num_items_in_batch)
        half = logits.dtype in HALF
        try:
            loss = self._loss(logits.float() if half else logits, target if mixed else target.long(), mixed,
                              num_items_in_batch)
        except (IndexError, RuntimeError, ValueError):
            # Torch looks at shapes, devices and, on the CPU, labels by itself: looking beforehand would cost time.
            self._explain(logits, target, mixed)
            raise
        return loss.to(logits.dtype) if half and not torch.is_autocast_enabled(logits.device.type) else loss

    def _loss(self, z: Tensor, target: Tensor, mixed: bool, items: Tensor | float | None) -> Tensor:
        adjusted = self._adjusted(z, target)
        weight = self._buffers["weight"]
        if weight is not None and weight.dtype != adjusted.dtype:
            weight = weight.to(adjusted.dtype)
        if self.focus or self.exact:
            losses = self._one_by_one(adjusted, target, weight)
            if self.reduction == "none":
                return losses
            return losses.sum() / self._divisor(target, items) if self.reduction == "mean" else losses.sum()
        counted = self.reduction == "mean" and (items is not None or (weight is not None and not mixed))
        loss = F.cross_entropy(adjusted, target, weight, ignore_index=-100 if mixed else self.ignore_index,
                               reduction="sum" if counted else self.reduction, label_smoothing=self.label_smoothing)
        return loss / self._divisor(target, items) if counted else loss

    def _divisor(self, target: Tensor, items: Tensor | float | None) -> Tensor | float:
        if items is None:
            return (target != self.ignore_index).sum()
        if not isinstance(items, Tensor):
            return items
        items = items.to(target.device)
        # Not a label in all micro-batches: 0/1. Looking would wait for the device, so that the CPU alone is told.
        return torch.where(items > 0, items, 1)

    def _adjusted(self, z: Tensor, target: Tensor) -> Tensor:
        """Δ∘z + ι − m_y e_y in one pass over the logits, and none where there is nothing to adjust."""
        # Not by attribute: a module looks for those in vain first.
        delta, iota, added = self._buffers["delta"], self._buffers["iota"], self._added
        axis = 1 if z.ndim > 1 else 0
        slope: Tensor | None
        if delta is not None and self.temperature == "label":
            slope = delta.take(target.clamp(0, self.k - 1)).unsqueeze(axis)  # an ignored sample has any temperature
        else:
            slope = delta if delta is None or z.ndim <= 2 else self._along(delta, z)
        iota = iota if iota is None or z.ndim <= 2 else self._along(iota, z)
        if slope is not None:
            adjusted = z * slope if iota is None else torch.addcmul(iota, z, slope)
        else:
            adjusted = z if iota is None else z + iota
        if added is None:
            return adjusted
        label = target.clamp(0, self.k - 1).unsqueeze(axis)
        added = added.take(label)
        added = added if added.dtype == adjusted.dtype else added.to(adjusted.dtype)
        if adjusted is z:  # which belongs to the caller
            return adjusted.scatter_add(axis, label, added)
        adjusted.detach().scatter_add_(axis, label, added)  # constants: no step for autograd to go back through
        return adjusted

    def _one_by_one(self, adjusted: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """ω_y (1 − p_y)^φ CE of each sample."""
        if self.exact:
            losses = exact_cross_entropy(adjusted, target, reduction="none", ignore_index=self.ignore_index)
        else:
            losses = F.cross_entropy(adjusted, target, reduction="none", ignore_index=self.ignore_index)
        if self.focus:
            missed = -torch.expm1(-losses)  # 1 − p_y = 1 − e^{−CE}
            if self.focus < 2:  # held off 0, where the power of φ < 1 has no slope, of φ < 2 no curvature
                missed = missed.clamp(min=torch.finfo(losses.dtype).tiny)
            losses = losses * missed**self.focus
        if weight is None:
            return losses
        return losses * weight.take(target.clamp(0, self.k - 1))

    @staticmethod
    def _along(vector: Tensor, z: Tensor) -> Tensor:
        """A vector over the classes, shaped to meet the class axis of logits with positions after it."""
        return vector.view(-1, *[1] * (z.ndim - 2))

    # -- checks ---------------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        margin = self.vectors["margin"]
        if margin is not None and (margin < 0).any():
            c = int(np.argmax(margin < 0))
            raise InvalidInput(f"margin must be ≥ 0, got {margin[c]:g} for class {c}")
        if self.label_smoothing and self._single:
            raise InvalidInput(f"label_smoothing mixes labels, and {self._single} one label a sample: leave "
                               "label_smoothing at 0, or use class temperatures, weights and offsets alone")

    def _check_kind(self, logits: Tensor, target: Tensor, mixed: bool) -> None:
        """What torch would let pass."""
        if logits.ndim == 0 or not logits.is_floating_point():
            raise InvalidInput(f"logits must be a float tensor of shape (k,), (n, k) or (n, k, …), got {logits.dtype} "
                               f"of shape {tuple(logits.shape)}")
        k = logits.shape[1 if logits.ndim > 1 else 0]
        if k != self.k:
            raise InvalidInput(f"logits must have one column per class, expected {self.k} as there are counts, got {k} "
                               f"(shape {tuple(logits.shape)})")
        if mixed and self._single:
            raise InvalidInput(f"labels must be class indices, got {target.dtype}: {self._single} one label a "
                               "sample")
        if target.dtype == torch.bool or target.is_complex():
            raise InvalidInput(f"labels must be class indices or probabilities, got {target.dtype}")

    def _check_items(self, items: Tensor | float) -> None:
        if self.reduction != "mean":
            raise InvalidInput(f"num_items_in_batch is what a mean divides by, got reduction='{self.reduction}': leave "
                               "it out")
        if torch.compiler.is_compiling() or (isinstance(items, Tensor) and not items.ndim and not items.is_cpu):
            return  # a compiler cannot look; looking would wait for the device
        number = finite(items)
        if number is None or number <= 0:
            raise InvalidInput(f"num_items_in_batch must be positive, got {given(items)}")

    def _explain(self, logits: Tensor, target: Tensor, mixed: bool) -> None:
        """Say in the library's words what torch has refused, if it is one of these."""
        expected = logits.shape if mixed else logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else ()
        if tuple(target.shape) != tuple(expected):
            what = "probabilities" if mixed else "labels"
            raise InvalidInput(f"{what} must have shape {tuple(expected)} for logits of shape {tuple(logits.shape)}, "
                               f"got {tuple(target.shape)}") from None
        for buffer in self.buffers():
            if buffer.device != logits.device:
                raise InvalidInput(f"the loss is on {buffer.device} and the logits on {logits.device}: move it with "
                                   f"loss.to('{logits.device}')") from None
        outside = ((target < 0) | (target >= self.k)) & (target != self.ignore_index)
        if not mixed and bool(outside.any()):
            raise InvalidInput(f"labels must be in 0 … {self.k - 1} or {self.ignore_index}, got "
                               f"{int(target[outside].flatten()[0])}") from None

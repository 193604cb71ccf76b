"""Dot-regression: features are drawn to the classifier of their class and pushed from none (yang2022)."""

from __future__ import annotations

from jaxtyping import Bool, Shaped
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.simulate.residual import REDUCTIONS
from neuralcollapse.steer.amounts import one_of, positive, whole
from neuralcollapse.steer.cosine import directions


class DotRegressionLoss(nn.Module):
    """Regression of each feature's inner product with its own, fixed classifier on its largest value.

        loss = (w_yᵀh − t_y)² / (2 t_y),   t_y = ‖w_y‖ √E_H,   h scaled to ‖h‖ = √E_H

    With equal lengths √E_W this is the paper's (w_yᵀh − √(E_W E_H))²/(2√(E_W E_H)). Its gradient at the scaled feature
    is −(1 − cos)·w_y: it pulls towards the class's own classifier and pushes from none, so the counts do not tilt it.
    It leads to class means along the rows of the weight: with an `etf_head`, the simplex ETF.

    Parameters
    ----------
    head : torch.nn.Module or (k, d) tensor
        What holds the classifiers: a module with such a `weight`, read at every call, or they themselves. They get no
        gradient.
    feature_energy : float
        E_H > 0, the squared length that features are scaled to.
    reduction : str
        "mean" over the samples that are not ignored, "sum" or "none".
    ignore_index : int
        Samples with this label are left out.

    Raises
    ------
    InvalidInput
        No (k, d) weight or a zero row in it, E_H ≤ 0, an unknown reduction; when called, shapes that do not fit or
        labels outside 0 … k−1.

    Notes
    -----
    Evaluated as t_y‖w_y/‖w_y‖ − h/‖h‖‖⁴/8, since 1 − cos rounds to noise once they align.

    References
    ----------
    yang2022.

    Examples
    --------
    >>> from neuralcollapse.steer.heads import etf_head
    >>> head = etf_head(3, 4)
    >>> DotRegressionLoss(head)(5 * head.weight, torch.arange(3)).item() < 1e-12
    True
    """

    def __init__(self, head: nn.Module | Tensor, feature_energy: float = 1.0, reduction: str = "mean",
                 ignore_index: int = -100):
        super().__init__()
        self.reduction = one_of("reduction", reduction, REDUCTIONS)
        self.length = positive("feature_energy", feature_energy) ** 0.5
        self.ignore_index = whole("ignore_index", ignore_index)
        self._head: tuple[nn.Module, ...] = ()
        if isinstance(head, nn.Module):
            self._head = (head,)  # in a tuple, so that its parameters are not counted as the loss's own
        elif isinstance(head, Tensor):
            self.register_buffer("fixed", head.detach(), persistent=False)
        else:
            raise InvalidInput(f"head must be a module with a weight or a (k, d) tensor, got {shown(head)!r}")
        _check_rows(self.classifiers())

    def classifiers(self) -> Shaped[Tensor, ...]:
        """The rows that features are drawn to, (k, d)."""
        weight = getattr(self._head[0], "weight", None) if self._head else self.fixed
        if not isinstance(weight, Tensor):
            raise InvalidInput("head must have a weight of one row per class, got none in "
                               f"{type(self._head[0]).__name__}")
        return weight.detach()

    def forward(self, features: Shaped[Tensor, ...], labels: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
        """The loss of features with their labels.

        Parameters
        ----------
        features : (..., d) float tensor
        labels : (...) integer tensor
            0 … k−1, or `ignore_index`.

        Returns
        -------
        () tensor, or one of the labels' shape for "none"
            "mean" is NaN where every sample is ignored, as in `cross_entropy`.

        Raises
        ------
        InvalidInput
            Shapes that do not fit each other or the head, or labels out of range.
        """
        weight = self.classifiers()
        kept = _kept(features, labels, weight, self.ignore_index)
        own = weight[labels.where(kept, 0).long()]
        largest = torch.linalg.vector_norm(own, dim=-1) * self.length
        apart = (directions(own) - directions(features)).square().sum(-1)  # 2(1 − cos)
        losses = torch.where(kept, largest * apart.square() / 8, 0)
        if self.reduction == "none":
            return losses
        return losses.sum() / kept.sum() if self.reduction == "mean" else losses.sum()


def _check_rows(weight: Shaped[Tensor, ...]) -> None:
    expected = "head must have a weight of one row per class, none of them zero, got"
    if weight.ndim != 2:
        raise InvalidInput(f"{expected} shape {tuple(weight.shape)}")
    lengths = torch.linalg.vector_norm(weight, dim=1)
    if not bool(lengths.gt(0).all()):
        raise InvalidInput(f"{expected} length {lengths.min().item():g} for class {int(lengths.argmin())}")


def _kept(features: Shaped[Tensor, ...], labels: Shaped[Tensor, ...], weight: Shaped[Tensor, "k d"],
          ignore_index: int) -> Bool[Tensor, ...]:
    """Which samples count, once everything fits."""
    k, d = weight.shape
    if features.ndim == 0 or features.shape[-1] != d or not features.is_floating_point():
        raise InvalidInput(f"features must be floats of shape (…, {d}), got {features.dtype} of shape "
                           f"{tuple(features.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidInput(f"labels must be class indices, got {labels.dtype}")
    if labels.shape != features.shape[:-1]:
        raise InvalidInput(f"labels must have shape {tuple(features.shape[:-1])}, one per feature, got "
                           f"{tuple(labels.shape)}")
    kept = labels != ignore_index
    outside = ((labels < 0) | (labels >= k)) & kept
    if bool(outside.any()):
        raise InvalidInput(f"labels must be in 0 … {k - 1} or {ignore_index}, got "
                           f"{int(labels[outside].flatten()[0])}")
    return kept

"""The penalty on features that makes λ_H real."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.heads import check_input, features_last
from neuralcollapse.measure.probe import Probe
from neuralcollapse.measure.wrapped import is_compiled, without_parallel
from neuralcollapse.steer.amounts import not_negative, positive
from neuralcollapse.steer.parameters import find_head


class FeaturePenalty:
    """(p/2)·n·mean_i ‖h_i‖² over the samples of the latest training pass: a batch's share of (p/2) Σ_i ‖h_i‖².

    Beside a MEAN loss over n samples this is λ_H = n·p. Being a mean over the batch, it adds up as a mean loss does,
    over micro-batches of equal size and over processes. A pass without gradients, such as an evaluation in between,
    changes nothing. It is formed in float32 at least, under autocast too.

    Parameters
    ----------
    model : torch.nn.Module
        What is called inside `with penalty:`, wrapped or not. A compiled model has hooks only where they were there
        before its first call.
    p : float
        ≥ 0; `penalty.p` may be changed while training goes on.
    n : float
        Samples in the training set, Σ n_c.
    head : str, torch.nn.Module or Probe, optional
        As in `parameter_groups`.

    Raises
    ------
    InvalidInput
        A p below 0, an n that is not positive, several layers that could be the head; when called, no forward pass with
        gradients that reached the head since the last call.

    References
    ----------
    thrampoulidis2022; theory.md §1.

    Examples
    --------
    >>> model = nn.Linear(2, 3, bias=False)
    >>> with FeaturePenalty(model, p=1e-2, n=50) as penalty:
    ...     loss = model(torch.tensor([[3.0, 4.0], [0.0, 1.0]])).square().mean() + penalty()
    ...     _ = model(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    ...     round(penalty().item(), 6)
    3.25
    """

    def __init__(self, model: nn.Module, p: float, n: float, head: str | nn.Module | Probe | None = None):
        self._model, self._layer = model, find_head(model, head)
        self.p, self.n = not_negative("p", p), positive("n", n)
        self._inputs: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> FeaturePenalty:
        self._handles = [without_parallel(self._model).register_forward_pre_hook(self._start),
                         self._layer.register_forward_pre_hook(self._take, with_kwargs=True)]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._inputs = [], []

    def __call__(self, kept: Tensor | None = None) -> Tensor:
        """The penalty of the latest forward pass with gradients, once.

        Parameters
        ----------
        kept : bool tensor, optional
            Shaped as the head's input without its features: which positions are samples (padding is not).
        """
        inputs, self._inputs = self._inputs, []
        if not inputs:
            how = (": a compiled model must be called first inside `with penalty:`" if is_compiled(self._model) else
                   ": run the model inside `with penalty:`, gradients on, before each call")
            raise InvalidInput(f"the penalty has no features, since the head was not reached{how}")
        squares = [self._squares(features) for features in inputs]
        if kept is not None:
            if len(squares) > 1 or kept.shape != squares[0].shape:
                raise InvalidInput("kept must have the shape of the head's only input without its features, "
                                   f"{tuple(squares[0].shape)}, got {tuple(kept.shape)}")
            squares = [squares[0][kept]]
        return 0.5 * self.p * self.n * torch.cat([part.flatten() for part in squares]).mean()

    def _start(self, *_: Any) -> None:
        if torch.is_grad_enabled():  # an evaluation in between is not trained on
            self._inputs = []

    def _take(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            self._inputs = [*self._inputs, args[0] if args else next(iter(kwargs.values()))]

    def _squares(self, values: Tensor) -> Tensor:
        features = features_last(self._layer, values)
        check_input(self._layer, type(self._layer).__name__, features)
        return features.to(torch.promote_types(features.dtype, torch.float32)).square().sum(-1)

"""Find the head of a model and capture its input while the model runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import DecisionCounts, count_disagreements
from neuralcollapse.measure.measurement import Measurement, finish
from neuralcollapse.measure.moments import ClassMoments

_KEPT_BYTES = 512 * 2**20  # features kept for the second pass; beyond it the model runs twice


class Probe:
    """The head of a model and what goes into it.

    Parameters
    ----------
    model : torch.nn.Module
    head : str, optional
        Name of the classifying `nn.Linear`, as in `model.named_modules()`; the last one the model reaches
        in its forward pass when left out.

    Raises
    ------
    InvalidInput
        No `nn.Linear` in the model, or no such name.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> probe = Probe(model)
    >>> with probe:
    ...     _ = model(torch.ones(5, 4))
    >>> probe.features().shape, probe.head.out_features
    (torch.Size([5, 8]), 3)
    """

    def __init__(self, model: nn.Module, head: str | None = None):
        linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        if not linears:
            raise InvalidInput(f"the model must have an nn.Linear as its head, got none in {type(model).__name__}")
        if head is not None and head not in linears:
            raise InvalidInput(f"head must name an nn.Linear of the model, got '{head}': {did_you_mean(head, linears)}")
        self._watched = linears if head is None else {head: linears[head]}
        self._captured: tuple[nn.Linear, Tensor] | None = None
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Probe:
        self._captured = None
        self._handles = [module.register_forward_pre_hook(self._capture) for module in self._watched.values()]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _capture(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Linear):
            self._captured = module, inputs[0].detach()

    @property
    def head(self) -> nn.Linear:
        """The layer that was reached last."""
        return self._latest()[0]

    def features(self) -> Tensor:
        """The (n, d) input of the head in the latest forward pass."""
        features = self._latest()[1]
        return features.reshape(-1, features.shape[-1])

    def _latest(self) -> tuple[nn.Linear, Tensor]:
        if self._captured is None:
            raise InvalidInput("the head was never reached: run the model inside `with probe:` "
                               f"(watched: {', '.join(self._watched)})")
        return self._captured


def measure_model(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, counts: ClassCounts,
                  head: str | None = None, targets: Sequence[str] = ("seli", "etf"), center: str = "classes",
                  device: torch.device | str | None = None) -> Measurement:
    """Measure a model on labelled batches, in eval mode and without gradients; its mode is restored.

    Parameters
    ----------
    model : torch.nn.Module
    batches : iterable of (inputs, labels)
        Gone through once, and a second time when the features do not fit in 512 MiB (NC4 needs the means).
    counts : ClassCounts
        The training counts, with class names: k, the predictions and the majority/minority split follow them.
    head : str, optional
        Name of the classifying layer, see `Probe`.
    targets, center
        As in `measure`.
    device : torch.device, optional
        Where inputs are moved to; where the model is when left out.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidInput
        No batch at all, a head whose outputs are not one per class, non-finite features, labels out of range.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> data = [(torch.randn(6, 4), torch.tensor([0, 0, 0, 0, 1, 1]))]
    >>> measure_model(model, data, counts=ClassCounts([4, 2])).measured.seen.tolist()
    [4, 2]
    """
    probe = Probe(model, head)
    place = torch.device(device) if device is not None else next(model.parameters()).device
    pass_one = _FirstPass(counts.k)
    with evaluating(model):
        for inputs, labels in batches:
            with probe:
                model(inputs.to(place))
            pass_one.add(probe, labels.to(place))
        if pass_one.moments is None:
            raise InvalidInput("batches must hold at least one batch, got none")
        layer = probe.head
        finished = pass_one.moments.moments()
        disagreements = None
        if bool((finished.counts > 0).all()):
            again = pass_one.kept if pass_one.kept is not None else _features_again(model, probe, batches, place)
            disagreements = sum(count_disagreements(rows, layer.weight.detach(), _bias(layer), finished.means)
                                for rows in again)
    return finish(finished, pass_one.decisions.statistics(disagreements), layer.weight, layer.bias,
                  counts=counts, names=None, targets=targets, center=center)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; every module's own mode comes back afterwards, whatever happens."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class _FirstPass:
    """Moments and decisions of one pass, and the features themselves while they are small."""

    def __init__(self, classes: int):
        self.classes = classes
        self.moments: ClassMoments | None = None
        self.decisions = DecisionCounts(classes, keep=True)
        self.kept: list[Tensor] | None = []
        self._bytes = 0

    def add(self, probe: Probe, labels: Tensor) -> None:
        features, layer = probe.features(), probe.head
        if self.moments is None:
            if layer.out_features != self.classes:
                raise InvalidInput(f"the head must have one output per class, expected {self.classes}, "
                                   f"got {layer.out_features}")
            self.moments = ClassMoments(self.classes, features.shape[1], device=features.device)
            self.decisions = DecisionCounts(self.classes, keep=True, device=features.device)
        self.moments.update(features, labels)
        self.decisions.update(features, labels, layer.weight.detach(), _bias(layer))
        self._keep(features)

    def _keep(self, features: Tensor) -> None:
        self._bytes += features.numel() * features.element_size()
        if self._bytes > _KEPT_BYTES:
            self.kept = None
        elif self.kept is not None:
            self.kept.append(features)


def _features_again(model: nn.Module, probe: Probe, batches: Iterable[tuple[Tensor, Tensor]],
                    place: torch.device) -> Iterator[Tensor]:
    for inputs, _ in batches:
        with probe:
            model(inputs.to(place))
        yield probe.features()


def _bias(layer: nn.Linear) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach()

"""Layers that can be a head: linear layers and 1×1 convolutions, read as a weight (k, d) and a bias (k,)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.measure.decisions import Head
from neuralcollapse.measure.wrapped import gathered, is_sharded, named_layers, plain_name, whole

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def read_head(layer: nn.Module) -> Head:
    """Weight and bias of a layer as they are now; shards of one are gathered (every process must then call this).

    Raises
    ------
    InvalidInput
        No weight, or one that is not one row of floats per class, such as a quantised one.
    """
    weight, bias = _weight(layer), getattr(layer, "bias", None)
    if not weight.is_floating_point() or weight.ndim < 2 or weight.shape[2:].numel() != 1:
        raise InvalidInput("the head must have a weight of floats, one row per class, got "
                           f"{weight.dtype} of shape {tuple(weight.shape)} in {type(layer).__name__}")
    return Head(whole(weight.detach()).flatten(1), whole(bias.detach()) if isinstance(bias, Tensor) else None)


def read_head_of(model: nn.Module, layer: nn.Module) -> Head:
    """`read_head` of a layer in a model that may be sharded: every process must then call this."""
    if not is_sharded(model):
        return read_head(layer)
    with gathered(model):
        head = read_head(layer)
        # What was gathered is freed on leaving, under the tensors that refer to it.
        return Head(head.weight.clone(), None if head.bias is None else head.bias.clone())


def output_count(layer: nn.Module) -> int:
    """k, without reading the weight, which may be sharded."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, _CONVOLUTIONS) else _weight(layer).shape[0]


def input_count(layer: nn.Module) -> int:
    """d, without reading the weight."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    return layer.in_channels if isinstance(layer, _CONVOLUTIONS) else _weight(layer).shape[1]


def over_positions(layer: nn.Module) -> bool:
    """Whether the layer is a convolution, which is linear at every position."""
    return isinstance(layer, _CONVOLUTIONS)


def is_plain(layer: nn.Module) -> bool:
    """Whether the layer computes Wh + b and nothing else."""
    return type(layer).forward in [kind.forward for kind in (nn.Linear, *_CONVOLUTIONS)]


def features_last(layer: nn.Module, values: Shaped[Tensor, ...]) -> Shaped[Tensor, ...]:
    """What goes into or comes out of a layer, with the features (or classes) as the last axis."""
    return values.movedim(1, -1) if over_positions(layer) and values.ndim > 2 else values


def find_heads(model: nn.Module, head: str | nn.Module | None = None,
               classes: int | None = None) -> dict[str, nn.Module]:
    """The layers that may be the head, by name.

    Parameters
    ----------
    model : torch.nn.Module
    head : str or torch.nn.Module, optional
        The head or its name; it may then be any layer with a matrix as its weight.
    classes : int, optional
        k: layers with this many outputs, where there are any.

    Raises
    ------
    InvalidInput
        None at all, or no such layer.
    """
    layers = named_layers(model)
    linear = {name: layer for name, layer in layers.items() if _is_linear(layer)}
    if head is not None:
        head = _name_of(head, layers)
        if head not in layers or not _has_matrix(layers[head]):
            raise InvalidInput(f"head must name a linear layer of the model, got '{head}': "
                               f"{did_you_mean(head, linear)}")
        return {head: layers[head]}
    if not linear:
        raise InvalidInput("the model must have an nn.Linear or a 1×1 convolution as its head, got none in "
                           f"{type(model).__name__}: name the layer with its weight with "
                           "head= and what makes its input with features=")
    return {name: layer for name, layer in linear.items() if output_count(layer) == classes} or linear


def _name_of(head: Any, layers: Mapping[str, nn.Module]) -> str:
    """The name, without wrappers, of a head that is given by its name or is a layer itself."""
    if isinstance(head, str):
        return plain_name(head, layers)
    name = next((name for name, layer in layers.items() if layer is head), None)
    if name is None:
        raise InvalidInput(f"head must be a layer of the model or its name, got {type(head).__name__}")
    return name


def several_heads(names: Iterable[str]) -> InvalidInput:
    """What to raise where nothing tells which layer is the head."""
    names = sorted(names)
    return InvalidInput(f"{len(names)} layers could be the head, {', '.join(names)}: name one with head=")


def check_input(layer: nn.Module, name: str, features: Shaped[Tensor, ...]) -> None:
    """InvalidInput unless `features`, features last, can be the input of the layer."""
    if not features.is_floating_point():
        raise InvalidInput(f"the input of '{name}' ({type(layer).__name__}) must be features, got {features.dtype}: "
                           "name the module whose output the head takes with features=")
    if features.ndim < 2 or features.shape[-1] != input_count(layer):
        raise InvalidInput(f"features must be the head's input, (…, {input_count(layer)}), got "
                           f"{tuple(features.shape)}")


def tensors_returned(output: Any) -> list[Tensor]:
    """The tensors in what a model returned; only its `logits` where it has any under that name."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return tensors_returned(output["logits"] if "logits" in output else list(output.values()))
    if hasattr(output, "logits"):
        return tensors_returned(output.logits)
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in tensors_returned(part)]
    return []


def _is_linear(layer: nn.Module) -> bool:
    if isinstance(layer, _CONVOLUTIONS):
        return layer.groups == 1 and set(layer.kernel_size) == {1}
    return isinstance(layer, nn.Linear)


def _weight(layer: nn.Module) -> Tensor:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        given = "none" if weight is None else f"a {type(weight).__name__}"  # a quantised layer's is a method
        raise InvalidInput(f"the head must have a weight of floats, one row per class, got {given} in "
                           f"{type(layer).__name__}")
    return weight


def _has_matrix(layer: nn.Module) -> bool:
    weight = getattr(layer, "weight", None)
    return _is_linear(layer) or (isinstance(weight, Tensor) and weight.ndim == 2)

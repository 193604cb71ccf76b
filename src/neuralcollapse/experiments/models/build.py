"""The models a run can name, and how any of them is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
import inspect
from typing import Any

from torch import nn

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.registry import Registry

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


def build_model(name: str, input_shape: tuple[int, ...], classes: int, head_bias: bool = False,
                **options: Any) -> nn.Module:
    """Build a network whose last layer is the `nn.Linear` called `head`.

    Parameters
    ----------
    name : str
        A registered model, or "module:factory" for a callable
        `factory(input_shape, classes, head_bias, **options)` that returns such a network.
    input_shape : tuple of int
        Shape of one sample: (channels, height, width) for images, (d,) for features.
    classes : int
        k.
    head_bias : bool
    **options
        What the model takes beside these, by name.

    Raises
    ------
    InvalidInput
        An unknown model or option, a factory that cannot be imported or called, or no `head` in its result.

    Examples
    --------
    >>> model = build_model("mlp", (1, 8, 8), classes=10, width=32)
    >>> model.head
    Linear(in_features=128, out_features=10, bias=False)
    """
    factory = _imported(name) if ":" in name else MODELS[name].function
    _check_options(name, factory, options)
    try:
        model = factory(tuple(input_shape), classes, head_bias, **options)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"model '{name}' cannot be built for inputs of shape {tuple(input_shape)} with "
                           f"{options or 'no options'}: {shown(error, 120)}") from None
    head = getattr(model, "head", None)
    if not isinstance(model, nn.Module) or not isinstance(head, nn.Linear) or head.out_features != classes:
        raise InvalidInput(f"model '{name}' must end in an nn.Linear called `head` with {classes} outputs, "
                           f"got {shown(head)}")
    return model


def image_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`input_shape` as (channels, height, width); InvalidInput when a sample is no image."""
    if len(input_shape) != 3:
        raise InvalidInput(f"model '{model}' needs images of shape (channels, height, width), got samples of "
                           f"shape {tuple(input_shape)}: the model 'mlp' takes any shape")
    channels, height, width = input_shape
    return channels, height, width


def _imported(name: str) -> Callable[..., nn.Module]:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"model '{name}' must name an importable module:factory, "
                           f"got {shown(error, 120)}") from None
    if not callable(factory):
        raise InvalidInput(f"model '{name}' must name something that can be called, got {shown(factory)}")
    return factory


def _check_options(name: str, factory: Callable[..., nn.Module], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    allowed = [p for p in parameters if p not in ("input_shape", "classes", "head_bias")]
    for option, value in options.items():
        if option not in allowed:
            raise InvalidInput(f"unknown option '{option}' of model '{name}': "
                               f"{did_you_mean(option, allowed)}")
        if name in MODELS:
            _check_option(option, value, parameters[option].default)


def _check_option(option: str, value: Any, default: Any) -> None:
    """Options of the registered models are switches and sizes; which one an option is, its default tells."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InvalidInput(f"model option '{option}' must be true or false, got {shown(value)}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"model option '{option}' must be a whole number ≥ 1, got {shown(value)}")

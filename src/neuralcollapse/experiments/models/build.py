"""The models a run can name, and how any of them is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
import inspect
from typing import Any

import torch
from torch import nn

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.measure.wrapped import evaluating
from neuralcollapse.registry import Registry

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


_FROM_DATA = ("tokens", "next_token")
_GIVEN = ("input_shape", "classes", "head_bias", *_FROM_DATA)


def build_model(name: str, input_shape: tuple[int, ...], classes: int, head_bias: bool = False, *,
                tokens: int | None = None, next_token: bool = False, **options: Any) -> nn.Module:
    """Build a network whose last layer is the `nn.Linear` called `head`.

    Parameters
    ----------
    name : str
        A registered model; "timm:NAME" or "transformers:NAME" for one of those libraries'; or "module:factory" for a
        callable `factory(input_shape, classes, head_bias, **options)` that returns such a network.
    input_shape : tuple of int
        Shape of one sample: (channels, height, width) for images, (d,) for features, (length,) for tokens.
    classes : int
        k.
    head_bias : bool
    tokens : int, optional
        How many token ids the inputs are made of; given to a factory that takes it by name, refused by others.
    next_token : bool
        Whether every position has a label, the token after it; given to a factory that takes it by name. The model
        must then be causal.
    **options
        What the model takes beside these, by name.

    Raises
    ------
    InvalidInput
        An unknown model or option, a factory that cannot be imported or called, no `head` in its result, a model that
        takes no tokens where there are some, or one that sees the tokens it should predict.

    Examples
    --------
    >>> model = build_model("mlp", (1, 8, 8), classes=10, width=32)
    >>> model.head
    Linear(in_features=128, out_features=10, bias=False)
    """
    factory = _factory(name)
    _check_options(name, factory, options)
    from_data = _from_data(name, factory, tokens, next_token)
    try:
        model = factory(tuple(input_shape), classes, head_bias, **from_data, **options)
    except InvalidInput:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(f"model '{name}' cannot be built for inputs of shape {tuple(input_shape)} with "
                           f"{options or 'no options'}: {shown(error, 120)}") from None
    head = getattr(model, "head", None)
    if not isinstance(model, nn.Module) or not isinstance(head, nn.Linear) or head.out_features != classes:
        raise InvalidInput(f"model '{name}' must end in an nn.Linear called `head` with {classes} outputs, "
                           f"got {shown(head)}")
    if next_token and tokens:
        _check_causal(name, model, int(input_shape[0]), tokens)
    return model


def image_shape(model: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`input_shape` as (channels, height, width); InvalidInput when a sample is no image."""
    if len(input_shape) != 3:
        raise InvalidInput(f"model '{model}' needs images of shape (channels, height, width), got samples of "
                           f"shape {tuple(input_shape)}: the model 'mlp' takes any shape")
    channels, height, width = input_shape
    return channels, height, width


def token_length(model: str, input_shape: tuple[int, ...], tokens: int | None) -> tuple[int, int]:
    """(length, token ids); InvalidInput when the data is not made of tokens."""
    if tokens is None or len(input_shape) != 1:
        raise InvalidInput(f"model '{model}' needs sequences of tokens, got samples of shape {tuple(input_shape)}"
                           + ("" if tokens else " that are no tokens"))
    return input_shape[0], tokens


def require(package: str, model: str) -> Any:
    """An optional package's module; InvalidInput says how to get it."""
    try:
        return import_module(package)
    except ImportError as error:
        missing = getattr(error, "name", None) == package
        reason = "which is not installed" if missing else f"which cannot be imported ({shown(error)})"
        raise InvalidInput(f"model '{model}' needs {package}, {reason}: pip install {package}") from None


def _factory(name: str) -> Callable[..., nn.Module]:
    prefix, colon, rest = name.partition(":")
    if not colon and not (name in MODELS and MODELS[name].options.get("argument")):
        return MODELS[name].function
    if prefix not in MODELS:
        return _imported(name)
    argument = MODELS[prefix].options.get("argument")
    if not (argument and rest):
        form = f"'{prefix}:{argument}'" if argument else f"'{prefix}'"
        raise InvalidInput(f"model '{prefix}' must be given as {form}, got '{name}'")
    return partial(MODELS[prefix].function, rest)


def _from_data(name: str, factory: Callable[..., nn.Module], tokens: int | None, next_token: bool) -> dict[str, Any]:
    taken = inspect.signature(factory).parameters
    if tokens is not None and "tokens" not in taken:
        raise InvalidInput(f"model '{name}' takes no tokens, of which this data is made: the model 'transformer' does")
    return {key: value for key, value in (("tokens", tokens), ("next_token", next_token)) if key in taken}


def _check_causal(name: str, model: nn.Module, length: int, tokens: int) -> None:
    """Refuse a model in which what it computes at the first half depends on tokens of the second."""
    half = length // 2
    first = torch.zeros(1, length, dtype=torch.long)
    second = first.clone()
    second[:, half:] = tokens - 1
    with evaluating(model):
        one, other = (model(inputs)[:, :half] for inputs in (first, second))
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-5):
        raise InvalidInput(f"model '{name}' must not see the tokens that it is to predict: it is not causal")


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
    allowed = [p for p in parameters if p not in _GIVEN]
    for option, value in options.items():
        if option not in allowed:
            raise InvalidInput(f"unknown option '{option}' of model '{name}': "
                               f"{did_you_mean(option, allowed)}")
        if name in MODELS:
            _check_option(option, value, parameters[option])


def _check_option(option: str, value: Any, parameter: inspect.Parameter) -> None:
    """Options of the registered models are switches and sizes; which one an option is, its default tells."""
    default = parameter.default
    if value is None and "None" in str(parameter.annotation):
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InvalidInput(f"model option '{option}' must be true or false, got {shown(value)}")
    elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"model option '{option}' must be a whole number ≥ 1, got {shown(value)}")

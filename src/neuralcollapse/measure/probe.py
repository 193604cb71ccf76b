"""Find the head of a model and capture what goes into it and what comes out of it while the model runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from neuralcollapse.checks import InvalidInput, did_you_mean
from neuralcollapse.measure.heads import check_input, features_last, find_heads, several_heads, tensors_returned
from neuralcollapse.measure.wrapped import is_compiled, named_layers, plain_name, without_parallel


class Probe:
    """The head of a model, what goes into it and what comes out of it.

    Without a name, the head is the linear layer (or 1×1 convolution) whose output the model returns; where it returns
    none as it is, the last one that it reaches. The choice is made on the first forward pass, which keeps every
    candidate's input for as long as it runs: name the head of a very large model.

    Parameters
    ----------
    model : torch.nn.Module
        Wrapped (data parallel, fully sharded, compiled) or not: what is called inside `with probe:`.
    head : str or torch.nn.Module, optional
        The classifying layer, or its name as in `model.named_modules()`.
    features : str, optional
        Name of a module whose output is the head's input, for a head that is no module of its own (an embedding's
        weight used again): of several outputs `last_hidden_state`, or the first.
    classes : int, optional
        k: only layers with this many outputs are candidates, where there are any.

    Raises
    ------
    InvalidInput
        No linear layer in the model or no such name; when asked, no forward pass that reached the head, or several
        layers that could be it.

    Notes
    -----
    One forward pass is kept, without its graph. A compiled model has hooks only where they were there before it was
    compiled: enter the probe before the first call, or probe the original model.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> probe = Probe(model)
    >>> with probe:
    ...     logits = model(torch.ones(5, 4))
    >>> probe.features().shape, probe.head.out_features, torch.equal(probe.logits(), logits)
    (torch.Size([5, 8]), 3, True)
    """

    def __init__(self, model: nn.Module, head: str | nn.Module | None = None, features: str | None = None,
                 classes: int | None = None):
        self._model, self._root = model, without_parallel(model)
        self._candidates = find_heads(model, head, classes)
        self._names = {layer: name for name, layer in self._candidates.items()}
        self._choice = next(iter(self._candidates)) if len(self._candidates) == 1 else None
        self._rivals: list[str] = []
        self._source = None if features is None else _source(model, features)
        self._given: Any = None
        self._reached: dict[str, _Reached] = {}
        self._handles: list[RemovableHandle] = []
        self._watched: dict[str, RemovableHandle] = {}
        self._ran = False

    def __enter__(self) -> Probe:
        self._ran = False
        self._start()
        # In this order, since the model itself may be the head.
        handles = [self._root.register_forward_pre_hook(self._start)]
        watched = {name: layer.register_forward_hook(self._capture, with_kwargs=True)
                   for name, layer in self._candidates.items() if self._choice in (None, name)}
        if self._source is not None:
            handles.append(self._source.register_forward_hook(self._take))
        handles.append(self._root.register_forward_hook(self._finish))
        self._handles, self._watched = handles, watched
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in (*self._handles, *self._watched.values()):
            handle.remove()
        self._handles, self._watched = [], {}
        self._detach()

    @property
    def head(self) -> nn.Module:
        """The head's layer."""
        return self._candidates[self.name]

    @property
    def name(self) -> str:
        """The head's name."""
        self._latest()
        return self._chosen()

    def features(self) -> Float[Tensor, "... d"]:
        """The input of the head in the latest forward pass, features last: (n, d), (batch, sequence, d), (n, h, w, d).

        Raises
        ------
        InvalidInput
            The head was not reached, its input is not features, or was changed in place after the head had read it.
        """
        values, version = self._latest()
        name, layer = self._chosen(), self.head
        features = features_last(layer, values)
        check_input(layer, name, features)
        if _changed(values, version):
            raise InvalidInput(f"the input of '{name}' was changed in place after the head had read it: name the "
                               "module it comes from with features=, or make that operation not in place")
        return features

    def logits(self) -> Float[Tensor, "... k"] | None:
        """What the head made of them, classes last; None where something changed it in place, or `features` is set."""
        self._latest()
        if self._source is not None:
            return None
        reached = self._reached[self._chosen()]
        return None if _changed(reached.output, reached.output_version) else features_last(self.head, reached.output)

    # -- hooks --------------------------------------------------------------------------------------

    def _start(self, *_: Any) -> None:
        self._reached, self._given = {}, None

    def _capture(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        name, values, output = self._names[layer], args[0] if args else next(iter(kwargs.values())), _only(output)
        self._reached.pop(name, None)  # the last one reached comes last
        if torch.compiler.is_compiling():  # any operation on a tensor would become part of the compiled code
            self._reached[name] = _Reached(values, output, None, None)
        else:
            self._reached[name] = _Reached(values.detach(), output.detach(), _version(values), _version(output))

    def _take(self, _: nn.Module, __: Any, output: Any) -> None:
        self._given = _only(output)

    def _finish(self, _: nn.Module, __: Any, output: Any) -> None:
        self._ran = True
        if torch.compiler.is_compiling():
            return
        self._detach()
        if self._choice is None and self._reached:
            self._choose(output)

    def _choose(self, output: Any) -> None:
        returned = {tensor.untyped_storage().data_ptr() for tensor in tensors_returned(output) if tensor.numel()}
        shown = [name for name, reached in self._reached.items()
                 if reached.output.untyped_storage().data_ptr() in returned]
        if len(shown) > 1:
            self._rivals = shown
            return
        self._choice = shown[0] if shown else list(self._reached)[-1]
        for name in [name for name in self._watched if name != self._choice]:
            self._watched.pop(name).remove()
        self._reached = {name: reached for name, reached in self._reached.items() if name == self._choice}

    def _detach(self) -> None:
        self._reached = {name: _Reached(reached.input.detach(), reached.output.detach(), *reached[2:])
                         for name, reached in self._reached.items()}
        self._given = None if self._given is None else self._given.detach()

    # -- what was captured --------------------------------------------------------------------------

    def _chosen(self) -> str:
        if self._choice is not None:
            return self._choice
        if self._rivals:
            raise several_heads(self._rivals)
        if not self._reached:
            raise several_heads(self._candidates)
        return list(self._reached)[-1]  # the model's own forward was not what was called: no output to go by

    def _latest(self) -> tuple[Tensor, int | None]:
        """What the head's input is taken from, and the version of it that the head has read."""
        if self._source is not None:
            if self._given is not None:
                return self._given, None
        elif self._reached:
            reached = self._reached.get(self._chosen())
            if reached is not None:
                return reached.input, reached.input_version
        watched = f"(watched: {', '.join(sorted(self._candidates))})"
        if is_compiled(self._model):
            raise InvalidInput("the head was never reached: what torch.compile made before `with probe:` has no hooks; "
                               f"run the original model, or give measure_model a function as features= {watched}")
        if self._ran:
            raise InvalidInput("the model ran without calling a layer that could be its head: name the module whose "
                               f"output the head takes with features=, and the head's weight with head= {watched}")
        raise InvalidInput("the head was never reached: run the model first, where a Probe is used alone inside "
                           f"`with probe:` {watched}")


class _Reached(NamedTuple):
    """A layer's latest input and output, and how often each had been changed in place by then (None: not known)."""

    input: Tensor
    output: Tensor
    input_version: int | None
    output_version: int | None


def _source(model: nn.Module, name: str) -> nn.Module:
    layers = named_layers(model)
    name = plain_name(name, layers)
    if name not in layers:
        raise InvalidInput(f"features must name a module of the model, got '{name}': "
                           f"{did_you_mean(name, filter(None, layers))}")
    return layers[name]


def _only(output: Any) -> Any:
    """The tensor that a module returned, alone or among others."""
    if isinstance(output, Mapping):
        return output["last_hidden_state"] if "last_hidden_state" in output else next(iter(output.values()))
    return output[0] if isinstance(output, list | tuple) else output


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version  # inference tensors do not count changes


def _changed(tensor: Tensor, version: int | None) -> bool:
    return version is not None and version != _version(tensor)

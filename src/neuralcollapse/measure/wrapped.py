"""Models inside wrappers: data parallel, fully sharded, compiled."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
import re
import sys

import torch
from torch import Tensor, nn

_WRAPPER = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?:\.|$)")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside data parallel and compiled wrappers.

    Measuring needs no gradients, so that data parallel wrappers only add broadcasts that every process would have to
    join. Fully sharded models stay as they are: their wrapper gathers the weights.
    """
    model = without_parallel(model)
    inner = getattr(model, "_orig_mod", None)
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


def without_parallel(model: nn.Module) -> nn.Module:
    """The model inside a data parallel wrapper, which calls it."""
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        assert isinstance(model.module, nn.Module)
        return without_parallel(model.module)
    return model


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module by the name it has without wrappers."""
    # A wrapper comes before what is in it and has the same name then: the inner one stays.
    return {_WRAPPER.sub("", name).removesuffix("."): layer for name, layer in unwrapped(model).named_modules()}


def plain_name(name: str, layers: Container[str]) -> str:
    """A module's name without wrappers, where it was given with them."""
    return name if name in layers else _WRAPPER.sub("", name.removeprefix("module.")).removesuffix(".")


def is_compiled(model: nn.Module) -> bool:
    """Whether the model or a part of it runs through torch.compile."""
    return any(hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
               for module in model.modules())


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


def hooks_firing() -> AbstractContextManager[None]:
    """Compiled code is left aside, so that hooks fire that it was compiled without."""
    if "torch._dynamo.eval_frame" not in sys.modules:  # then nothing was compiled, and importing it takes seconds
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP, in either form, lends the model its parameters for no longer than they are in use."""
    return any(hasattr(module, "_fsdp_wrapped_module") or hasattr(module, "set_reshard_after_forward")
               for module in model.modules())


def gathered(model: nn.Module) -> AbstractContextManager[None]:
    """Parameters in one piece while they are read, where the older FullyShardedDataParallel has flattened them."""
    if not any(hasattr(module, "_fsdp_wrapped_module") for module in model.modules()):
        return nullcontext()
    from torch.distributed.fsdp import FullyShardedDataParallel

    everything: AbstractContextManager[None] = FullyShardedDataParallel.summon_full_params(model, writeback=False)
    return everything


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece: a distributed one is gathered from all processes."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()

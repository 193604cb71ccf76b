"""Parameter groups that make λ_W real, and a warning where it merges classes.

With a MEAN loss over n samples and (w/2)‖W‖² on the head's weight, λ_W = n·w (`ridge.py` has the whole objective).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
import warnings

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.heads import find_heads, several_heads
from neuralcollapse.measure.probe import Probe
from neuralcollapse.measure.wrapped import unwrapped
from neuralcollapse.predict import CollapseSafety, collapse_safety, weight_decay_from_ridge
from neuralcollapse.steer.amounts import given, not_negative, positive

CLASSIFIER = "classifier"
"""The name of the group that holds the head's weight."""

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_LISTED = 3  # groups of merging classes that a warning names
_ROUNDING = 1e-12


class MinorityCollapseWarning(UserWarning):
    """At this weight decay the optimum gives several classes one classifier."""


def parameter_groups(model: nn.Module, weight_decay: float | None = None, *, ridge: float | None = None,
                     backbone_decay: float | None = None, feature_penalty: float | None = None, counts: Any = None,
                     head: str | nn.Module | Probe | None = None) -> list[dict[str, Any]]:
    """Groups for a torch optimiser: the head's weight with the decay that theory speaks of, every parameter in one.

    "classifier" holds the head's weight, with w; "backbone" the other matrices, with `backbone_decay`; "plain" what
    has no decay: vectors and scalars (biases, gains, scales) and all that norm layers hold. Empty groups are left out.
    Which module holds a parameter and its shape decide, never a name. An embedding tied to the head is the head's
    weight, and decays as the classifier.

    Parameters
    ----------
    model : torch.nn.Module
        Not in `FullyShardedDataParallel`, which flattens parameters; data parallel, `fully_shard` and compiled will do.
    weight_decay : float, optional
        w ≥ 0 on the head's weight, beside a MEAN loss: λ_W = n·w. Give this or `ridge`.
    ridge : float, optional
        λ = √(λ_W λ_H) > 0, the loss SUMMED over samples: w = λ²/(n²p) with a `feature_penalty` p, else w = p = λ/n.
    backbone_decay : float, optional
        ≥ 0; w when left out.
    feature_penalty : float, optional
        p of a `FeaturePenalty` used beside it.
    counts : ClassCounts or anything it is made from, optional
        Training samples per class: `check_weight_decay` is then called. Needed with `ridge`.
    head : str, torch.nn.Module or Probe, optional
        The head's name, the layer itself, or a probe that has seen a forward pass; the model's only linear layer (of k
        outputs, with counts) when left out.

    Returns
    -------
    list of dict
        "params", "weight_decay" and "name"; frozen parameters too, so that they may be thawed.

    Raises
    ------
    InvalidInput
        Neither or both of weight_decay and ridge, a decay below 0, several layers that could be the head, or a model
        whose parameters are flattened.

    References
    ----------
    fang2021; loshchilov2019; theory.md §1, §4.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    >>> groups = parameter_groups(model, 5e-4, backbone_decay=1e-4, head="2")
    >>> [(group["name"], len(group["params"]), group["weight_decay"]) for group in groups]
    [('classifier', 1, 0.0005), ('backbone', 1, 0.0001), ('plain', 4, 0.0)]
    >>> from torch.optim import SGD
    >>> optimizer = SGD(groups, lr=0.1, momentum=0.9)
    """
    profile = None if counts is None else ClassCounts.from_counts(counts)
    w = _head_decay(weight_decay, ridge, feature_penalty, profile)
    backbone = w if backbone_decay is None else not_negative("backbone_decay", backbone_decay)
    layer = find_head(model, head, profile)
    if profile is not None and w > 0:
        _, message = _judged(profile, w, feature_penalty)
        if message is not None:
            warnings.warn(message, MinorityCollapseWarning, stacklevel=2)
    inner = unwrapped(model)
    if any(hasattr(module, "_fsdp_wrapped_module") for module in model.modules()):
        raise InvalidInput("parameter groups need parameters in their own shapes, got a model inside "
                           "FullyShardedDataParallel: use torch's fully_shard, or make the groups before wrapping with "
                           "use_orig_params=True")
    without = {id(parameter) for parameter in _never_decayed(inner)}
    members: dict[str, list[nn.Parameter]] = {CLASSIFIER: [], "backbone": [], "plain": []}
    for parameter in inner.parameters():  # each once, however often it is shared
        is_head = parameter is layer.weight
        name = CLASSIFIER if is_head else "plain" if parameter.ndim < 2 or id(parameter) in without else "backbone"
        members[name].append(parameter)
    if not members[CLASSIFIER]:
        raise InvalidInput("head must be a layer of the model whose weight is one of its parameters, got "
                           f"{type(layer).__name__}")
    decays = {CLASSIFIER: w, "backbone": backbone, "plain": 0.0}
    return [{"params": held, "weight_decay": decays[name], "name": name} for name, held in members.items() if held]


def check_weight_decay(counts: Any, weight_decay: float, feature_penalty: float | None = None) -> CollapseSafety:
    """Warn where a weight decay must merge classes: λ = n√(w·p) ≥ √n_c for classes that share the count n_c.

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    weight_decay : float
        w > 0 on the head's weight, beside a MEAN loss.
    feature_penalty : float, optional
        p > 0; w when left out, which for a network with weight decay everywhere is a guess.

    Returns
    -------
    CollapseSafety
        `safe_weight_decay` is what keeps all classes apart.

    Warns
    -----
    MinorityCollapseWarning
        At the threshold and above it: which classes merge, and below which weight decay they would be apart.

    Raises
    ------
    InvalidInput
        A value that is not positive.

    References
    ----------
    fang2021; theory.md §4.

    Examples
    --------
    >>> check_weight_decay([500, 500, 5, 5], 5e-4).safe
    True
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = check_weight_decay([500, 500, 5, 5], 5e-3)
    >>> print(caught[0].message)
    weight decay 0.005 (λ = 5.05) gives one classifier to classes 2, 3: they stay apart below 0.002214 (λ < 2.236)
    """
    safety, message = _judged(ClassCounts.from_counts(counts), weight_decay, feature_penalty)
    if message is not None:
        warnings.warn(message, MinorityCollapseWarning, stacklevel=2)
    return safety


def find_head(model: nn.Module, head: str | nn.Module | Probe | None, counts: ClassCounts | None = None) -> nn.Module:
    """The head's layer: as given, as a probe found it, by name, or the only one that it could be."""
    if isinstance(head, Probe):
        return head.head
    if isinstance(head, nn.Module):
        return head
    found = find_heads(model, head, None if counts is None else counts.k)
    if len(found) > 1:
        raise several_heads(found)
    return next(iter(found.values()))


def _head_decay(weight_decay: float | None, ridge: float | None, feature_penalty: float | None,
                counts: ClassCounts | None) -> float:
    if (weight_decay is None) == (ridge is None):
        raise InvalidInput(f"give weight_decay or ridge, one of them, got {given(weight_decay)} and {given(ridge)}")
    if weight_decay is not None:
        return not_negative("weight_decay", weight_decay)
    if counts is None:
        raise InvalidInput("ridge needs counts, whose sum n turns λ into a weight decay: give counts too")
    assert ridge is not None
    penalty = None if feature_penalty is None else positive("feature_penalty", feature_penalty)
    return weight_decay_from_ridge(positive("ridge", ridge), float(counts.n), penalty)


def _never_decayed(model: nn.Module) -> Iterator[Tensor]:
    """What norm layers hold, whatever its shape, and the biases that attention keeps as matrices."""
    for module in model.modules():
        if isinstance(module, _NORMS):
            yield from module.parameters(recurse=False)
        elif isinstance(module, nn.MultiheadAttention):
            yield from (bias for bias in (module.bias_k, module.bias_v) if bias is not None)


def _judged(counts: ClassCounts, weight_decay: float, feature_penalty: float | None
            ) -> tuple[CollapseSafety, str | None]:
    """Where a weight decay stands, and the warning that it deserves."""
    penalty = None if feature_penalty is None else positive("feature_penalty", feature_penalty)
    safety = collapse_safety(counts, positive("weight_decay", weight_decay), penalty)
    if safety.ridge < safety.safe_ridge * (1 - _ROUNDING):
        return safety, None
    total = safety.thresholds["total_collapse"]
    if total is not None and safety.ridge >= total * (1 - _ROUNDING):
        what = "makes every classifier zero: all differ"
    elif safety.merged:
        listed = "; ".join(", ".join(group) for group in safety.merged[:_LISTED])
        more = len(safety.merged) - _LISTED
        what = (f"gives one classifier to classes {listed}{f' (and {more} more such groups)' if more > 0 else ''}: "
                "they stay apart")
    else:
        what = f"leaves the {counts.k} classifiers fewer than {counts.k - 1} dimensions: they keep them"
    return safety, (f"weight decay {weight_decay:.4g} (λ = {safety.ridge:.4g}) {what} below "
                    f"{safety.safe_weight_decay:.4g} (λ < {safety.safe_ridge:.4g})")

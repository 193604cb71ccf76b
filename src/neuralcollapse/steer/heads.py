"""Heads that hold, or start from, a chosen geometry; each stands in for `nn.Linear`.

With classifiers fixed in W, cross-entropy pulls the features of class c towards the geometry that W asks for: a simplex
ETF of classifiers makes one of the class means whatever the counts (zhu2021; yang2022). `.weight` is always the
matrix that the features are multiplied by, a learned scale included, so that what is measured is what acts.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import Gram
from neuralcollapse.measure.heads import find_heads, input_count, output_count, several_heads
from neuralcollapse.measure.wrapped import is_sharded, unwrapped
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.amounts import flag, positive, sizes, whole
from neuralcollapse.steer.codes import frame, gram_of

_COINCIDE = 1e-6  # distance, relative to their mean length, below which two classifiers are one


class GeometryHead(nn.Linear):
    """A linear head with the classifiers of a predicted geometry, fixed or to start from.

        z = Wh + b,   W Wᵀ = scale² · G_W · k / tr G_W

    Its state dict has the keys of an `nn.Linear` and their meaning, a learned scale multiplied in: either loads the
    other's, and a head takes over the classifiers that it loads.

    Parameters
    ----------
    geometry : Geometry or Gram
        What `predict` gives, or a Gram matrix of classifiers.
    d : int
        Feature dimension, at least the rank of the geometry; for the simplex ETF at least 2 (`frame`).
    learn : bool
        Whether the classifiers are trained from there on; fixed when False.
    learn_scale : bool
        Whether fixed classifiers have one trained factor in common, e^`log_scale`. Trained ones carry their own.
    scale : float
        Root mean square of the classifiers' lengths: at the start where it is learned, else for good.
    bias : bool
        Whether there is a trained bias, from zero.
    seed : int
        Seed of the rotation.
    device, dtype
        As in `nn.Linear`.

    Raises
    ------
    InvalidInput
        d below the rank, a scale ≤ 0; for fixed classifiers a geometry in which a class has none (length 0) or shares
        it with another, as after minority collapse.

    Notes
    -----
    Weight decay does not reach fixed classifiers; it does reach `log_scale`, where it pulls the scale to 1.

    References
    ----------
    thrampoulidis2022; zhu2021; yang2022.

    Examples
    --------
    >>> head = GeometryHead(predict([10, 10, 1, 1]), d=8)
    >>> head(torch.zeros(2, 8)).shape, [p.requires_grad for p in head.parameters()]
    (torch.Size([2, 4]), [False])
    """

    log_scale: nn.Parameter | None

    def __init__(self, geometry: Geometry | Gram, d: int, *, learn: bool = False, learn_scale: bool = False,
                 scale: float = 1.0, bias: bool = False, seed: int = 0,
                 device: torch.device | str | None = None, dtype: torch.dtype | None = None):
        nn.Module.__init__(self)  # nn.Linear's own would draw from the global generator
        self._gram = gram_of(geometry)
        self.out_features, self.in_features = k, d = sizes(self._gram.k, d)
        self._scale, self._seed = positive("scale", scale), whole("seed", seed, 0)
        learn, learn_scale, bias = flag("learn", learn), flag("learn_scale", learn_scale), flag("bias", bias)

        def parameter(*shape: int, learned: bool = True) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype), learned)

        self.register_parameter("weight", parameter(k, d, learned=learn))
        self.register_parameter("bias", parameter(k) if bias else None)
        self.register_parameter("log_scale", parameter() if learn_scale and not learn else None)
        self.reset_parameters()

    @property
    def weight(self) -> Float[Tensor, "k d"]:  # type: ignore[override]  # nn.Linear has a parameter here; the scale is part of it
        """W, its scale multiplied in."""
        own = nn.Module.__getattr__(self, "weight")
        assert isinstance(own, Tensor)
        return own if self.log_scale is None else own * self.log_scale.exp()

    def reset_parameters(self) -> None:
        """Return to the geometry, the scale of the start and a bias of zero."""
        own = self._parameters["weight"]
        assert own is not None
        if own.is_meta:  # to be called again once there is memory
            return
        classifiers = frame(self._gram, self.in_features, seed=self._seed)
        if not own.requires_grad:
            _require_distinct(classifiers)
        with torch.no_grad():
            own.copy_(torch.from_numpy(classifiers * (self._scale if self.log_scale is None else 1.0)))
            if self.log_scale is not None:
                self.log_scale.fill_(float(np.log(self._scale)))
            if self.bias is not None:
                self.bias.zero_()

    def extra_repr(self) -> str:
        """What `print` shows."""
        own = self._parameters["weight"]
        learned = own is not None and own.requires_grad
        return f"{super().extra_repr()}, learn={learned}, learn_scale={self.log_scale is not None}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.log_scale is not None:
            del destination[prefix + "log_scale"]
            destination[prefix + "weight"] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if self.log_scale is not None and weight is not None:
            length = torch.linalg.vector_norm(weight, dtype=torch.float64) / len(weight) ** 0.5
            if not length > 0:
                rest[-1].append(f"{prefix}weight must not be zero where its scale is learned: its classifiers have no "
                                "geometry")
                return
            # The scale is rounded first: the weight then takes up what it lost.
            log_scale = length.log().to(self.log_scale.dtype)
            state_dict = {**state_dict, prefix + "weight": weight / log_scale.exp(), prefix + "log_scale": log_scale}
        super()._load_from_state_dict(state_dict, prefix, *rest)


def etf_head(k: int, d: int, **options: Any) -> GeometryHead:
    """A `GeometryHead` of k classes at the simplex ETF; a spherical code in its place where d < k − 1.

    Parameters
    ----------
    k, d : int
        Number of classes and feature dimension, d ≥ 2 (1 for two classes).
    **options
        As in `GeometryHead`.

    Returns
    -------
    GeometryHead

    Raises
    ------
    InvalidInput
        k < 2, d too small.

    References
    ----------
    zhu2021; yang2022; jiang2024.

    Examples
    --------
    >>> W = etf_head(4, 8).weight
    >>> (W @ W.T)[0].round(decimals=3).abs().tolist()
    [1.0, 0.333..., 0.333..., 0.333...]
    """
    k, d = sizes(k, d)
    return GeometryHead(predict(np.ones(k), "etf"), d, **options)


def seli_head(counts: Any, d: int, **options: Any) -> GeometryHead:
    """A `GeometryHead` at the SELI of these class counts, to which cross-entropy leads as the ridge vanishes.

    Parameters
    ----------
    counts : ClassCounts, (k,) sequence or tensor, text, or mapping of classes to counts
    d : int
        Feature dimension, at least k − 1: `etf_head` alone has a substitute in fewer, at equal counts too.
    **options
        As in `GeometryHead`.

    Returns
    -------
    GeometryHead

    Raises
    ------
    InvalidInput
        Counts that are not positive, d < k − 1.

    References
    ----------
    thrampoulidis2022, Theorem 1.

    Examples
    --------
    >>> lengths = torch.linalg.vector_norm(seli_head([10, 10, 1, 1], 8).weight, dim=1)
    >>> round((lengths[0] / lengths[2]).item(), 3)
    1.413
    """
    counts = ClassCounts.from_counts(counts)
    k, d = sizes(counts.k, d)
    if d < k - 1:
        other = f", or take etf_head({k}, {d}), a spherical code" if d > 1 else ""
        raise InvalidInput(f"d must be at least {k - 1}, the rank of SELI for {k} classes, got {d}: widen the "
                           f"features{other}")
    return GeometryHead(predict(counts), d, **options)


def geometry_head(geometry: Geometry | Gram, d: int, **options: Any) -> GeometryHead:
    """A `GeometryHead` at any predicted geometry, as `etf_head` and `seli_head` are at theirs.

    Parameters
    ----------
    geometry : Geometry or Gram
    d : int
        Feature dimension, at least the geometry's rank.
    **options
        As in `GeometryHead`.

    Returns
    -------
    GeometryHead

    Raises
    ------
    InvalidInput
        As `GeometryHead`.

    Examples
    --------
    >>> geometry_head(predict([10, 10, 1, 1], "ldt", delta=[3, 3, 1, 1]), 8).weight.shape
    torch.Size([4, 8])
    """
    return GeometryHead(geometry, d, **options)


def replace_head(model: nn.Module, new: nn.Module, head: str | None = None) -> nn.Module:
    """Put `new` in the place of a model's last linear layer, on its device and in its dtype.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place; not wrapped yet (data parallel, sharded, compiled).
    new : torch.nn.Module
        A head of this module or any linear layer.
    head : str, optional
        Name of the layer to replace; the linear layer with as many outputs as `new` when left out.

    Returns
    -------
    torch.nn.Module
        The layer that was replaced.

    Raises
    ------
    InvalidInput
        No linear layer, several with as many outputs, none, or one with other inputs; a wrapped model, or one that is
        itself the layer.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> replace_head(model, etf_head(3, 8))
    Linear(in_features=8, out_features=3, bias=True)
    """
    if unwrapped(model) is not model or is_sharded(model):
        raise InvalidInput(f"model must not be wrapped yet, got {type(model).__name__}: replace its head first")
    k, d = output_count(new), input_count(new)
    name, old = _head_to_replace(model, head, k)
    if not isinstance(old, nn.Linear) or old is model:
        what = "the model itself" if old is model else type(old).__name__
        raise InvalidInput(f"the head must be an nn.Linear inside the model, got {what}")
    if (output_count(old), input_count(old)) != (k, d):
        raise InvalidInput(f"the new head must fit '{name}', with {input_count(old)} features and {output_count(old)} "
                           f"classes, got {d} features and {k} classes")
    new.to(old.weight).train(old.training)
    for parent in list(model.modules()):  # one layer may have several names
        for part, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, part, new)
    return old


def _head_to_replace(model: nn.Module, head: str | None, k: int) -> tuple[str, nn.Module]:
    layers = find_heads(model, head)
    if head is None:
        fitting = {name: layer for name, layer in layers.items() if output_count(layer) == k}
        if not fitting:
            last = list(layers)[-1]
            raise InvalidInput(f"the model must have a linear layer with {k} outputs, one per class of the new head, "
                               f"got {output_count(layers[last])} outputs in its last one, '{last}'")
        layers = fitting
    if len(layers) > 1:
        raise several_heads(layers)
    (found,) = layers.items()
    return found


def _require_distinct(classifiers: Float[np.ndarray, "k d"]) -> None:
    """InvalidInput where a class has no classifier or two have the same one."""
    remedy = "ask for a smaller ridge, or start there with learn=True"
    lengths = np.linalg.norm(classifiers, axis=1)
    if lengths.min() < _COINCIDE:
        raise InvalidInput("a fixed head must have a classifier for every class, got length 0 for class "
                           f"{int(lengths.argmin())} in this geometry: {remedy}")
    # Equal rows are neighbours in any order of their values along one direction.
    order = np.argsort(classifiers @ np.random.default_rng(0).standard_normal(classifiers.shape[1]))
    gaps = np.linalg.norm(np.diff(classifiers[order], axis=0), axis=1)
    nearest = int(gaps.argmin())
    if gaps[nearest] < _COINCIDE:
        one, other = sorted(order[nearest:nearest + 2].tolist())
        raise InvalidInput(f"a fixed head must tell its classes apart, but {one} and {other} share their classifier "
                           f"in this geometry: {remedy}")

"""A post-hoc remedy's answer, a linear rule, and the trained head with its frozen features that it is made from.

A remedy is a function (features, labels, weight, bias, counts, **options) → `FittedRule`: features (n, d) and labels
(n,) of the training part, the trained head's weight (k, d) and bias (k,), the training counts. It reads what it needs,
in float64, and changes none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, check_labels
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.arrays import check_head
from neuralcollapse.measure.decisions import Head
from neuralcollapse.measure.heads import read_head
from neuralcollapse.registry import Registry


@dataclass(frozen=True, eq=False)
class FittedRule:
    """A linear rule for the features of a trained network: z = W'h + b'.

    Attributes
    ----------
    name : str
        The remedy that made it.
    weight : (k, d) float64 tensor
    bias : (k,) float64 tensor
    parameters : dict
        What it was made with, JSON-ready.
    """

    name: str
    weight: Float[Tensor, "k d"]
    bias: Float[Tensor, " k"]
    parameters: dict[str, Any] = field(default_factory=dict)

    def logits(self, features: Any) -> Float[Tensor, "n k"]:
        """The rule's logits of (n, d) features, float64, on the device of the features.

        Raises
        ------
        InvalidInput
            Features that are no finite matrix, or have another number of columns than the rule's weight.
        """
        rows = as_matrix("features", features)
        if rows.shape[1] != self.weight.shape[1]:
            raise InvalidInput(f"features must have {self.weight.shape[1]} columns, as the rule's weight, got "
                               f"{rows.shape[1]}")
        return nn.functional.linear(rows, self.weight.to(rows.device), self.bias.to(rows.device))

    @property
    def head(self) -> Head:
        """Weight and bias, as the measuring functions take them."""
        return Head(self.weight, self.bias)

    def linear(self, dtype: torch.dtype = torch.float32) -> nn.Linear:
        """A layer that can take the trained head's place."""
        k, d = self.weight.shape
        layer = nn.Linear(d, k, device=self.weight.device, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)
        return layer


POSTHOC: Registry[Callable[..., FittedRule]] = Registry("post-hoc remedy")
"""Every remedy that leaves the network as it is: (features, labels, weight, bias, counts, **options) → FittedRule."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained head, its training counts, and the frozen features of the training part: checked, float64."""

    remedy: str
    counts: ClassCounts
    given_head: Head | None
    given_features: Float[Tensor, "n d"] | None
    given_labels: Int[Tensor, " n"] | None

    @classmethod
    def of(cls, remedy: str, features: Any, labels: Any, weight: Any, bias: Any, counts: Any) -> Trained:
        """Check what a remedy was given; InvalidInput when parts of it do not fit together."""
        rows = None if features is None else as_matrix("features", features)
        profile = None if counts is None else ClassCounts.from_counts(counts)
        head = _head(weight, bias, rows)
        known = head.weight.shape[0] if head is not None else None if profile is None else profile.k
        index = None if labels is None else check_labels(labels, known)
        if rows is not None and (index is None or len(index) != len(rows)):
            given = "none" if index is None else str(len(index))
            raise InvalidInput(f"labels must be one for each of the {len(rows)} rows of features, got {given}")
        if profile is None:
            if index is None:
                raise InvalidInput(f"remedy '{remedy}' needs the training counts, got neither counts nor labels: give "
                                   "one of them")
            profile = ClassCounts.from_labels(index, known)
        if known not in (None, profile.k):
            raise InvalidInput(f"counts must be one per row of weight, expected {known}, got {profile.k}")
        return cls(remedy, profile, head, rows, None if index is None else torch.from_numpy(index))

    @property
    def weight(self) -> Float[Tensor, "k d"]:
        """The head's weight."""
        if self.given_head is None:
            raise InvalidInput(f"remedy '{self.remedy}' needs the trained head, got no weight: give its weight (k, d)")
        return self.given_head.weight

    @property
    def bias(self) -> Float[Tensor, " k"]:
        """The head's bias; zeros where it has none."""
        weight = self.weight
        assert self.given_head is not None
        return weight.new_zeros(len(weight)) if self.given_head.bias is None else self.given_head.bias

    @property
    def features(self) -> Float[Tensor, "n d"]:
        """The features of the training part."""
        if self.given_features is None:
            raise InvalidInput(f"remedy '{self.remedy}' needs the training features, got none: give features (n, d) "
                               "and labels (n,)")
        return self.given_features

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """Their labels."""
        rows = self.features
        assert self.given_labels is not None
        return self.given_labels.to(rows.device)

    @cached_property
    def sizes(self) -> Float[Tensor, " k"]:
        """Rows of features of each class, all positive."""
        k = self.counts.k
        sizes = torch.bincount(self.labels, minlength=k)
        if not bool((sizes > 0).all()):
            raise InvalidInput(f"remedy '{self.remedy}' needs features of every class, got none of class "
                               f"{self.counts.names[int((sizes == 0).int().argmax())]}")
        return sizes.double()

    @cached_property
    def class_means(self) -> Float[Tensor, "k d"]:
        """μ_c, row by class."""
        sizes = self.sizes
        sums = self.features.new_zeros(len(sizes), self.features.shape[1])
        return sums.index_add_(0, self.labels, self.features) / sizes[:, None]

    def per_class(self, values: Any) -> Float[Tensor, " k"]:
        """Numbers per class, beside the head."""
        vector = torch.from_numpy(np.array(values, dtype=np.float64))
        return vector.to((self.weight if self.given_head is not None else self.features).device)

    def rule(self, weight: Float[Tensor, "k d"], bias: Float[Tensor, " k"], **parameters: Any) -> FittedRule:
        """The remedy's answer."""
        return FittedRule(self.remedy, weight, bias, parameters)


def as_matrix(name: str, values: Any) -> Float[Tensor, "n d"]:
    """A matrix of finite numbers as a float64 tensor, on its own device."""
    try:
        matrix = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float64))
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be a matrix of numbers, got rows of different lengths, or text") from None
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InvalidInput(f"{name} must be a matrix with at least one row and column, got shape "
                           f"{tuple(matrix.shape)}")
    finite = torch.isfinite(matrix).all(1)
    if not bool(finite.all()):
        bad = (~finite).nonzero()[:, 0]
        raise InvalidInput(f"{name} must be finite, got NaN or Inf in row {int(bad[0])} ({len(bad)} of {len(matrix)} "
                           "rows)")
    return matrix.double()


def _head(weight: Any, bias: Any, rows: Tensor | None) -> Head | None:
    if isinstance(weight, nn.Module):
        layer = read_head(weight)
        weight, bias = layer.weight, layer.bias if bias is None else bias
    if rows is None and weight is not None:  # then no features to fit but the head's own
        weight = as_matrix("weight", weight)
    dimension = weight.shape[1] if rows is None and weight is not None else 0 if rows is None else rows.shape[1]
    found = check_head(weight, bias, dimension)
    if found is None:
        return None
    device = found.weight.device if rows is None else rows.device
    return Head(found.weight.double().to(device), None if found.bias is None else found.bias.double().to(device))

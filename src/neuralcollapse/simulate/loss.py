"""What free features are trained with: the registered losses that a first-order method can descend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory, did_you_mean
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES, Geometry, predict
from neuralcollapse.predict.symmetry import LossParameters

LOSSES = ("ce", "weighted", "la", "ldt", "cdt", "vs", "mse", "relu-ce")
"""The registered losses that are a function of the logits of free features."""
PARAMETERS = ("weight", "delta", "temperature", "iota")


@dataclass(frozen=True, eq=False)
class TrainedLoss:
    """A loss, summed over samples, and the geometry it leads to.

    Attributes
    ----------
    name : str
        As registered for `predict`.
    parameters : LossParameters
        ω, δ, ι.
    relu : bool
        Whether features are kept non-negative.
    bias : bool
        Whether the head has a free bias.
    given : dict
        The parameters as `predict` takes them.
    """

    name: str
    parameters: LossParameters
    relu: bool = False
    bias: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def square(self) -> bool:
        """Whether this is ½Σ‖z_i − e_{y_i}‖²."""
        return self.name == "mse"

    def geometry(self, counts: ClassCounts, ridge: float) -> Geometry | None:
        """What is predicted at this ridge (0: the vanishing limit); None where no theorem covers it."""
        name = self.name
        if self.relu and not self.square:  # non-negative features are what the square loss prefers anyway
            if not self.parameters.neutral:
                return None
            name = "relu-ce"
        given = {} if name == "relu-ce" else self.given
        try:
            return predict(counts, name, ridge=ridge or None, bias=self.bias, **given)
        except OutsideTheory:
            return None


def trained_loss(name: str, k: int, relu: bool, bias: bool, given: Mapping[str, Any]) -> TrainedLoss:
    """Check a loss and its parameters as `predict` does.

    Raises
    ------
    InvalidInput
        A name without a loss of free features, or parameters that `predict` refuses.
    """
    entry = GEOMETRIES[name]
    if entry.name not in LOSSES:
        raise InvalidInput(f"loss must be one of logits, which free features can be trained with, got '{name}': "
                           f"{did_you_mean(name, LOSSES)}")
    given = {key: value for key, value in given.items() if value is not None}
    parameters = predict(ClassCounts(np.ones(k)), entry.name, **given).parameters or LossParameters()
    return TrainedLoss(entry.name, parameters, relu or entry.name == "relu-ce", bias, given)

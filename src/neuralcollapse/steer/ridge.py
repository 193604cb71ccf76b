"""Theory's λ_W and λ_H in a real training loop: parameter groups, a feature penalty, and how both move.

With a MEAN loss over n samples, head weight W and head inputs h_i, the objective of this module is

    (1/n) Σ_i ℓ_i + (w/2)‖W‖² + (p/2) Σ_i ‖h_i‖² + (w'/2)‖other matrices‖²

and n times it is the sum-normalised one of `theory.md` §1 with λ_W = n·w and λ_H = n·p; λ = √(λ_W λ_H) = n√(w·p)
shapes the geometry. A batch stands for all samples: its penalty is (p/2)·n·mean_i ‖h_i‖².

w is torch's `weight_decay` where the optimiser adds w·W to the gradient (coupled): SGD, with momentum or without, and
Adam. Stationary points are then those of the objective. AdamW decouples (loshchilov2019): it subtracts lr·w·W beside an
update divided by the gradient's size, so that its stationary points belong to no such objective, and no λ of the theory
describes them.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.steer.amounts import one_of, positive, stored, whole
from neuralcollapse.steer.parameters import CLASSIFIER, MinorityCollapseWarning, check_weight_decay, parameter_groups
from neuralcollapse.steer.penalty import FeaturePenalty

__all__ = ["FeaturePenalty", "MinorityCollapseWarning", "RidgeSchedule", "check_weight_decay", "parameter_groups"]

_STATE = ("last_step", "start", "end", "steps", "kind")


class RidgeSchedule:
    """λ from `start` to `end` over `steps` calls of `step()`, by the weight decay of the head and the feature penalty.

    λ = n√(w·p), the loss SUMMED over samples, and w/p as they are found; without a penalty λ = n·w, and every decaying
    group keeps its ratio to the head's (p = w, as `ridge_from_weight_decay` assumes). A continuation from large λ down
    starts from few merged classes, which part one after another as λ passes √n_c.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        With a group "classifier" from `parameter_groups`, which decays.
    penalty : FeaturePenalty, optional
        With p > 0.
    start, end : float
        λ > 0 at step 0, and from `steps` on.
    steps : int
        ≥ 1.
    kind : str
        "geometric" (equal ratios), "halving" (steps of a factor two, evenly spaced, the last one shorter), "cosine"
        (half a cosine) or "constant" (`end` throughout).
    n : float, optional
        Training samples, where there is no penalty that knows.

    Raises
    ------
    InvalidInput
        An unknown kind, a value that is not positive, no such group, or not exactly one of penalty and n.

    References
    ----------
    theory.md §4.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 3)
    >>> optimizer = torch.optim.SGD(parameter_groups(model, 1e-3), lr=0.1)
    >>> schedule = RidgeSchedule(optimizer, FeaturePenalty(model, p=1e-3, n=100), start=8.0, end=1.0, steps=3)
    >>> for _ in range(3):
    ...     schedule.step()
    >>> round(schedule.ridge, 12), round(optimizer.param_groups[0]["weight_decay"], 12)
    (1.0, 0.01)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, penalty: FeaturePenalty | None = None, *, start: float,
                 end: float, steps: int, kind: str = "geometric", n: float | None = None):
        kind = one_of("kind", kind, tuple(_SHAPES))
        if (n is None) == (penalty is None):
            raise InvalidInput("a schedule needs the number of training samples once, from its penalty or as n, got "
                               f"{'neither' if n is None else 'both'}: give n where there is no penalty")
        self.optimizer, self.penalty, self.kind = optimizer, penalty, kind
        self.start, self.end = positive("start", start), positive("end", end)
        self.steps, self.last_step = whole("steps", steps, 1), 0
        w = _classifier_decay(optimizer)
        p = w if penalty is None else positive("penalty.p", penalty.p)
        ridge = positive("n", n if penalty is None else penalty.n) * math.sqrt(w * p)
        # With w/p kept, each goes as λ: these are what they are at λ = 1. Groups are known by their place.
        self._unit_penalty = p / ridge
        self._unit_decays = {place: group["weight_decay"] / ridge for place, group in enumerate(optimizer.param_groups)
                             if group.get("name") == CLASSIFIER or (penalty is None and group["weight_decay"] > 0)}
        self._apply()

    @property
    def ridge(self) -> float:
        """λ now."""
        if self.last_step >= self.steps:
            return self.end
        return _SHAPES[self.kind](self.start, self.end, self.last_step / self.steps)

    def step(self) -> None:
        """Move on by one."""
        self.last_step += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as plain numbers."""
        return {**{name: getattr(self, name) for name in _STATE}, "unit_penalty": self._unit_penalty,
                "unit_decays": dict(self._unit_decays)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned, whatever decays the optimiser and the penalty have by now."""
        stored("RidgeSchedule", state, (*_STATE, "unit_penalty", "unit_decays"))
        for name in _STATE:
            setattr(self, name, state[name])
        self._unit_penalty, self._unit_decays = state["unit_penalty"], dict(state["unit_decays"])
        self._apply()

    def _apply(self) -> None:
        for place, unit in self._unit_decays.items():
            self.optimizer.param_groups[place]["weight_decay"] = self.ridge * unit
        if self.penalty is not None:
            self.penalty.p = self.ridge * self._unit_penalty


def _classifier_decay(optimizer: torch.optim.Optimizer) -> float:
    head = [group["weight_decay"] for group in optimizer.param_groups if group.get("name") == CLASSIFIER]
    if len(head) != 1 or not head[0] > 0:
        raise InvalidInput(f"optimizer must have one group named '{CLASSIFIER}' with a weight decay above 0: make its "
                           "groups with parameter_groups")
    return float(head[0])


def _geometric(start: float, end: float, share: float) -> float:
    return start * (end / start) ** share


def _halving(start: float, end: float, share: float) -> float:
    factors = math.ceil(abs(math.log2(start / end)) - 1e-9)
    done = math.floor(share * factors + 1e-9)
    return max(end, start / 2**done) if start >= end else min(end, start * 2**done)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _constant(start: float, end: float, share: float) -> float:
    return end


_SHAPES = {"geometric": _geometric, "halving": _halving, "cosine": _cosine, "constant": _constant}

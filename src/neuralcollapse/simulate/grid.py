"""The cells of a simulation: the product of every list among profiles, ridges, steps, hyper-parameters and seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
import itertools
import math
import re
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, did_you_mean, positive_number, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.registry import Entry
from neuralcollapse.simulate.loss import PARAMETERS, TrainedLoss
from neuralcollapse.simulate.methods import METHODS

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES_PER_CELL = 1_000  # of a cell's own dictionary
_SCHEDULES = {"constant": 0.0, "sqrt": 0.5}


@dataclass(frozen=True, eq=False)
class Grid:
    """Every run of a simulation.

    Attributes
    ----------
    profiles : tuple of ClassCounts
        All of the same k.
    method : Entry
    cells : list of dict
        "profile" (its position), "ratio", "ridge", "balance", "step", "decay", "scale", the method's own, "seed".
    """

    profiles: tuple[ClassCounts, ...]
    method: Entry[Any]
    cells: list[dict[str, Any]]

    @property
    def k(self) -> int:
        """Number of classes."""
        return self.profiles[0].k

    @cached_property
    def profile(self) -> list[int]:
        """Each cell's profile."""
        return [cell["profile"] for cell in self.cells]

    def counts(self, cell: int) -> ClassCounts:
        """A cell's class counts."""
        return self.profiles[self.profile[cell]]

    def column(self, name: str) -> list[float]:
        """One number of every cell."""
        return [cell[name] for cell in self.cells]

    def name(self, cell: int) -> str:
        """A cell as a message names it: its number and what varies over the grid."""
        varying = [f"{key}={value:g}" for key, value in self.cells[cell].items()
                   if len({other[key] for other in self.cells}) > 1]
        return f"cell {cell}" + (f" ({', '.join(varying)})" if varying else "")


def make_grid(counts: Any, method: str, axes: Mapping[str, Any], seeds: Any, options: Mapping[str, Any],
              make_loss: Callable[[int, dict[str, Any]], TrainedLoss], memory: Any) -> tuple[Grid, TrainedLoss]:
    """Check every axis and form the product, the seeds varying fastest.

    Parameters
    ----------
    counts : as of `simulate`
    method : str
    axes : dict
        "ridge", "step", "scale" (None for the method's own), "balance" and "schedule": numbers or lists of them.
    seeds : int or list of int
        How many (0, 1, …), or which.
    options : dict
        What was given beyond: the method's hyper-parameters and the loss's parameters.
    make_loss : callable
        The loss from k and those of the options that are its parameters.
    memory : str
        Budget; a grid whose list of cells alone exceeds it is refused before it is formed.

    Returns
    -------
    grid : Grid
    loss : TrainedLoss
    """
    entry = METHODS[method]
    profiles = make_profiles(counts)
    known = {name: p.default for name, p in entry.parameters.items() if name not in ("model", "seeds")}
    for name in options:
        if name not in known and name not in PARAMETERS:
            others = [other.name for other in METHODS if name in other.parameters]
            takes = f"{', '.join(others)} do" if others else did_you_mean(name, [*known, *PARAMETERS])
            raise InvalidInput(f"method '{entry.name}' takes no {name}: {takes}")
    parameters = {name: value for name, value in options.items() if name in PARAMETERS and name not in known}
    listed: dict[str, Sequence[Any]] = {"profile": list(range(len(profiles)))}
    listed["ridge"] = _left_out_or_numbers("ridge", axes["ridge"], _not_negative)
    listed["balance"] = _numbers("balance", axes["balance"], positive_number)
    listed["step"] = _left_out_or_numbers("step", axes["step"], positive_number)
    listed["decay"] = _exponents(axes["schedule"])
    listed["scale"] = _left_out_or_numbers("scale", axes["scale"], positive_number)
    for name, default in known.items():
        listed[name] = _left_out_or_numbers(name, options.get(name, default), _CHECKS[name])
    listed["seed"] = _seeds(seeds)
    runs = math.prod(len(values) for values in listed.values())
    if runs * _BYTES_PER_CELL > parse_bytes(memory):
        raise InvalidInput(f"this grid of {runs:,} runs needs more than the memory of {memory}: raise memory, or ask "
                           "for fewer runs")
    loss = make_loss(profiles[0].k, parameters)
    if "batch" in listed:
        _check_batch(listed["batch"], profiles)
    cells = [_cell(dict(zip(listed, values, strict=True)), profiles, entry, loss)
             for values in itertools.product(*listed.values())]
    return Grid(profiles, entry, cells), loss


def make_profiles(counts: Any) -> tuple[ClassCounts, ...]:
    """One profile of class counts, or several of the same k."""
    many = isinstance(counts, (list, tuple)) and any(
        isinstance(one, (ClassCounts, Mapping, Sequence)) or getattr(one, "ndim", 0) > 0 for one in counts)
    profiles = tuple(ClassCounts.from_counts(one) for one in (counts if many else [counts]))
    different = {profile.k for profile in profiles}
    if len(different) > 1:
        raise InvalidInput("counts of one simulation must have the same number of classes, got "
                           f"{', '.join(str(k) for k in sorted(different))}")
    return profiles


def whole_number(name: str, value: Any) -> int:
    """`value` as an int of at least 1."""
    numeric = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not numeric or not value >= 1 or value % 1:
        raise InvalidInput(f"{name} must be a whole number ≥ 1, got {shown(value)}")
    return int(value)


def parse_bytes(text: Any) -> float:
    """A memory budget such as "1GB" or "500 MB" in bytes."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kKMGT]?B?)\s*", str(text))
    if match is None or match[2] not in _UNITS:
        raise InvalidInput(f"memory must be a size such as 500MB or 2GB, got {shown(text)!r}")
    return positive_number("memory", match[1]) * _UNITS[match[2]]


def bytes_needed(grid: Grid, loss: TrainedLoss, d: int, n: int, itemsize: int, snapshots: int,
                 quantities: int) -> float:
    """What a simulation will hold at its largest, in bytes.

    Parameters
    ----------
    n : int
        Columns of H per run.
    itemsize : int
        Bytes per number.
    quantities : int
        Numbers per cell and snapshot.
    """
    k, runs = grid.k, len(grid.cells)
    parameters = k * d + d * n + k * loss.bias
    copies = 2 + grid.method.function.buffers  # the parameters, the counted or batched H, and the method's own
    masks = 2 * k * n if len(grid.profiles) > 1 else 0
    step = itemsize * (copies * parameters + 2 * k * n + 3 * n + masks) + 8 * n
    observing = 8 * (2 * k * n + 2 * d * n + 24 * k * k)
    return float(runs * (step + observing + 8 * snapshots * quantities))


def _check_batch(batch: Sequence[Any], profiles: Sequence[ClassCounts]) -> None:
    """One size for all runs; with several profiles no larger than the smallest, which would shrink all others'."""
    if len(batch) > 1:
        raise InvalidInput(f"batch must be one number for all runs, got {shown(batch)}")
    fewest = min(profile.n for profile in profiles)
    if len(profiles) > 1 and batch[0] > fewest:
        raise InvalidInput(f"batch must be at most {fewest:g}, the samples of the smallest profile, got {batch[0]:g}: "
                           "give a smaller batch, or simulate that profile on its own")


def _cell(values: dict[str, Any], profiles: Sequence[ClassCounts], entry: Entry[Any], loss: TrainedLoss
          ) -> dict[str, Any]:
    counts = profiles[values["profile"]]
    if hasattr(entry.function, "fill_in"):
        values |= entry.function.fill_in(values, counts, loss)
    if "batch" in values:
        values["batch"] = min(values["batch"], int(counts.n))
    for name, plain in (("ridge", 0.0), ("scale", 1.0)):
        values[name] = plain if values[name] is None else values[name]
    if values["step"] is None:
        root = float(np.sqrt(counts.n_max)) if entry.options["over_root"] else 1.0
        values["step"] = entry.options["step"] / root
    return {"profile": values.pop("profile"), "ratio": counts.ratio, **values}


def _left_out_or_numbers(name: str, value: Any, check: Callable[[str, Any], float]) -> list[Any]:
    return [None] if value is None else _numbers(name, value, check)


def _numbers(name: str, value: Any, check: Callable[[str, Any], float]) -> list[float]:
    return [check(name, one) for one in _listed(name, value)]


def _listed(name: str, value: Any) -> list[Any]:
    values = np.atleast_1d(value).tolist() if isinstance(value, np.ndarray) else (
        list(value) if isinstance(value, (list, tuple, range)) else [value])
    if not values:
        raise InvalidInput(f"{name} must hold at least one number, got an empty list")
    return values


def _exponents(schedule: Any) -> list[float]:
    """The exponents p of η_t = η/(t + 1)^p."""
    exponents = []
    for value in _listed("schedule", schedule):
        if isinstance(value, str):
            if value not in _SCHEDULES:
                raise InvalidInput(f"schedule must be an exponent, or one of {', '.join(_SCHEDULES)}, "
                                   f"got {shown(value)!r}")
            value = _SCHEDULES[value]
        exponents.append(_finite("schedule", value))
    return exponents


def _seeds(seeds: Any) -> Sequence[int]:
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        return range(whole_number("seeds", seeds))
    values = list(seeds) if isinstance(seeds, (list, tuple, range, np.ndarray)) else []
    whole = [value for value in values if isinstance(value, (int, np.integer)) and value >= 0]
    if not values or len(whole) < len(values):
        raise InvalidInput(f"seeds must be how many runs to make, or a list of whole numbers ≥ 0, got {shown(seeds)}")
    return [int(value) for value in whole]


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise InvalidInput(f"{name} must be a finite number, got {shown(value)!r}")
    return number


def _not_negative(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number < 0:
        raise InvalidInput(f"{name} must be a number ≥ 0, got {value}")
    return number


def _whole_or_zero(name: str, value: Any) -> float:
    number = _not_negative(name, value)
    if number % 1:
        raise InvalidInput(f"{name} must be a whole number ≥ 0, got {value}")
    return number


def _below_one(name: str, value: Any) -> float:
    number = _finite(name, value)
    if not 0 <= number < 1:
        raise InvalidInput(f"{name} must be in [0, 1), got {value}")
    return number


_CHECKS: dict[str, Callable[[str, Any], float]] = {
    "momentum": _below_one, "beta2": _below_one, "epsilon": _not_negative, "ridge_start": _not_negative,
    "half_life": positive_number, "batch": whole_number, "target": positive_number, "every": _whole_or_zero,
}

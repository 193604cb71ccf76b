"""What a simulation is asked to do, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralcollapse.checks import InvalidInput, counted, shown
from neuralcollapse.simulate.grid import Grid, bytes_needed, parse_bytes, whole_number
from neuralcollapse.simulate.loss import TrainedLoss
from neuralcollapse.simulate.model import FreeModel
from neuralcollapse.simulate.quantities import PARTS, SCALARS, TARGETS

STATE = "state.npz"
"""The file of a checkpoint."""

_MOST_SNAPSHOTS = 1_000_000
_DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Setup:
    """Everything that a run's numbers depend on, and where it is kept."""

    grid: Grid
    loss: TrainedLoss
    d: int
    steps: int
    snapshots: np.ndarray
    symmetric: bool
    dtype: torch.dtype
    device: torch.device
    start: tuple[np.ndarray, np.ndarray] | None
    folder: Path | None

    def fingerprint(self) -> dict[str, Any]:
        """What must agree for a run to be resumed."""
        start = None if self.start is None else [sha256(side.tobytes()).hexdigest() for side in self.start]
        given = {key: np.asarray(value).tolist() for key, value in self.loss.given.items()}
        return {"method": self.grid.method.name, "loss": self.loss.name, "parameters": given, "relu": self.loss.relu,
                "bias": self.loss.bias, "counts": [p.values.tolist() for p in self.grid.profiles],
                "cells": self.grid.cells, "d": self.d, "steps": self.steps, "snapshots": self.snapshots.tolist(),
                "symmetric": self.symmetric, "dtype": str(self.dtype), "start": start}


def snapshot_steps(snapshots: Any, steps: int) -> np.ndarray:
    """The start, and steps spaced evenly on a log scale up to the last, or those asked for.

    Examples
    --------
    >>> snapshot_steps(4, 1000).tolist()
    [0, 1, 10, 100, 1000]
    """
    if isinstance(snapshots, (int, np.integer)) and not isinstance(snapshots, bool):
        many = min(whole_number("snapshots", snapshots), steps)  # more cannot be told apart
        if many > _MOST_SNAPSHOTS:
            raise InvalidInput(f"snapshots must be at most {_MOST_SNAPSHOTS:,}, got {snapshots:,}")
        spaced = np.geomspace(1, steps, many) if many != 1 else [steps]
        return np.unique(np.rint([0, *spaced]).astype(np.int64))
    values = list(snapshots) if isinstance(snapshots, (Sequence, np.ndarray)) and not isinstance(snapshots, str) else []
    numbers = all(isinstance(value, (int, float, np.integer, np.floating)) for value in values)
    if not values or not numbers or any(not 0 <= value <= steps or value % 1 for value in values):
        raise InvalidInput(f"snapshots must be how many to take, or a list of steps in 0 … {steps}, "
                           f"got {shown(snapshots)}")
    return np.unique(np.asarray(values, dtype=np.int64))


def fill(model: FreeModel, setup: Setup) -> None:
    """Put every run at its start, which depends on its seed, counts and scale alone."""
    grid, k, d = setup.grid, setup.grid.k, setup.d
    for run, cell in enumerate(grid.cells):
        n = k if setup.symmetric else int(grid.counts(run).n)
        if setup.start is None:
            normal = np.random.default_rng(cell["seed"]).standard_normal((k + n, d)) * (cell["scale"] / math.sqrt(d))
            W, H = normal[:k], np.abs(normal[k:]) if setup.loss.relu else normal[k:]
        else:
            W, H = setup.start[0], np.maximum(setup.start[1], 0) if setup.loss.relu else setup.start[1]
            if H.shape[0] == k and not setup.symmetric:
                H = np.repeat(H, grid.counts(run).values.astype(np.int64), axis=0)
            if W.shape != (k, d) or H.shape != (n, d):
                raise InvalidInput(f"start must be W of shape {(k, d)} and H of shape {(n, d)}, got {W.shape} and "
                                   f"{H.shape}")
        model.W[run] = torch.from_numpy(W)
        model.H[run, :, :n] = torch.from_numpy(H).mT


def as_start(start: tuple[Any, Any] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """W and H as float64 arrays."""
    if start is None:
        return None
    try:
        W, H = (np.ascontiguousarray(side.detach().cpu() if isinstance(side, torch.Tensor) else side,
                                     dtype=np.float64) for side in start)
    except (TypeError, ValueError):
        raise InvalidInput(f"start must be two arrays of numbers, W (k, d) and H (n, d), got {shown(start)}") from None
    for name, side in (("W", W), ("H", H)):
        if side.ndim != 2 or not np.isfinite(side).all():
            raise InvalidInput(f"start must be two matrices of finite numbers, W (k, d) and H (n, d), got {name} of "
                               f"shape {side.shape}" + (" with NaN or Inf" if side.ndim == 2 else ""))
    return W, H


def default_width(k: int, start: tuple[np.ndarray, np.ndarray] | None) -> int:
    """The width d of the start, or 2k."""
    return 2 * k if start is None or start[0].ndim != 2 else max(1, start[0].shape[1])


def check_memory(setup: Setup, memory: Any) -> None:
    """InvalidInput when the grid needs more than its budget."""
    budget = parse_bytes(memory)
    n = setup.grid.k if setup.symmetric else max(int(counts.n) for counts in setup.grid.profiles)
    needed = bytes_needed(setup.grid, setup.loss, setup.d, n, setup.dtype.itemsize, setup.snapshots.size,
                          len(SCALARS) + len(TARGETS) * len(PARTS))
    if needed > budget:
        alike = "" if setup.symmetric else ", or start within-class symmetric (symmetric=True)"
        runs = counted(len(setup.grid.cells), "run")
        raise InvalidInput(f"this grid of {runs} needs about {needed / 1e6:,.0f} MB, more than the memory of "
                           f"{budget / 1e6:,.0f} MB: raise memory, or ask for fewer runs{alike}")


def check_folder(folder: Path | None, resume: bool) -> None:
    """InvalidInput when there is no folder to resume from, or one that would be overwritten."""
    if folder is None and resume:
        raise InvalidInput("resume needs the folder to resume from, got none")
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"'{folder}' is a file: give a folder for checkpoints")
    if resume and not (folder / STATE).is_file():
        raise InvalidInput(f"'{folder}' holds no simulation to resume")
    if not resume and (folder / STATE).exists():
        raise InvalidInput(f"'{folder}' holds a simulation already: resume it, or give another folder")
    others = [] if resume or not folder.exists() else sorted(entry.name for entry in folder.iterdir())
    if others:
        raise InvalidInput(f"a simulation needs a new or empty folder, got '{folder}' that holds "
                           f"{shown(', '.join(others))}")


def as_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of "float64" or "float32"."""
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise InvalidInput(f"dtype must be float64 or float32, got {shown(dtype)!r}")
    return _DTYPES[name]


def as_device(device: Any) -> torch.device:
    """The torch device, tried out."""
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InvalidInput(f"device must be one that torch can use, such as cpu or cuda, got {shown(device)!r}: "
                           f"{shown(str(error).splitlines()[0])}") from None
    return found

"""The engine: a whole grid of runs as one batch of tensors, with snapshots, checkpoints and cells that stop alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import heapq
import itertools
import json
import math
from pathlib import Path
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.files import make_folder
from neuralcollapse.simulate.columns import make_columns
from neuralcollapse.simulate.grid import make_grid, whole_number
from neuralcollapse.simulate.interruption import between_steps
from neuralcollapse.simulate.loss import trained_loss
from neuralcollapse.simulate.methods import Method
from neuralcollapse.simulate.model import FreeModel
from neuralcollapse.simulate.quantities import Observer
from neuralcollapse.simulate.setup import (
    STATE,
    Setup,
    as_device,
    as_dtype,
    as_start,
    check_folder,
    check_memory,
    default_width,
    fill,
    snapshot_steps,
)
from neuralcollapse.simulate.simulation import Simulation, read_arrays, write_arrays

_CHECK_EVERY = 100  # steps between looks for runs that diverged
_GROWTH = 1e6  # of the objective, beyond which a run counts as diverged
_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_THREADS_PAY_FROM = 50_000  # logits of all runs


@dataclass(frozen=True)
class Progress:
    """Where a simulation is.

    Attributes
    ----------
    step, steps : int
        Done, and to do in all.
    running : int
        Cells that have not diverged.
    diverged : dict of str to int
        Cells that were stopped, by name, with the step at which it was found.
    """

    step: int
    steps: int
    running: int
    diverged: dict[str, int]


def simulate(counts: Any, method: str = "gd", *, loss: str = "ce", ridge: Any = None, balance: Any = 1.0,
             steps: float = 1000, step: Any = None, schedule: Any = "constant", seeds: Any = 1, d: float | None = None,
             scale: Any = None, symmetric: bool = False, relu: bool = False, bias: bool = False,
             start: tuple[Any, Any] | None = None, dtype: Any = "float64", device: Any = "cpu", memory: Any = "1GB",
             snapshots: Any = 40, folder: Path | str | None = None, resume: bool = False,
             progress: Callable[[Progress], None] | None = None, **options: Any) -> Simulation:
    """Train the unconstrained-features model by a first-order method, a whole grid of runs at once.

    Any of `counts`, `ridge`, `balance`, `step`, `schedule`, `scale`, `seeds` and the method's hyper-parameters may be
    a list: the grid is the product of all lists, and advances as one batch.

    Parameters
    ----------
    counts : class counts as in `predict`, or a list of several with equal k
    method : str
        A registered name: "gd", "sgd", "heavy-ball", "nesterov", "adam", "ngd", "ngd-loss", "sign", "spectral",
        "muon", "continuation", "multipliers" (the one that reaches SELI; see docs/findings/rates.md).
    loss : str
        A loss of `predict` that acts on logits, with its parameters `weight`, `delta`, `temperature`, `iota`.
    ridge : float
        λ = √(λ_W λ_H) ≥ 0, the loss SUMMED over samples; 0 when left out ("multipliers": 0.3√n_min).
    balance : float
        λ_H/λ_W.
    steps : int
        Gradients per run.
    step : float
        Step size η > 0 for the summed loss; the method's own default when left out.
    schedule : "constant", "sqrt" or float
        η_t = η/(t + 1)^p with p = 0, ½ or the number.
    seeds : int or list of int
        How many starts, or which seeds.
    d : int
        Feature dimension; when left out that of `start`, or 2k: with d close to k random frames of W and H may start
        with opposite orientations, and turning through a singular one takes normalised methods thousands of steps.
    scale : float
        Entries of W and H start as independent normals of standard deviation scale/√d; 1 when left out
        ("multipliers": n_max^{-1/4}).
    symmetric : bool
        Start every sample of a class equal: advanced in k × k, exactly, whatever n is.
    relu : bool
        Keep features non-negative (projected after each step). This model, unlike the free one, has minima above the
        global one that `predict` gives: compare several seeds.
    bias : bool
        Give the head a free, unregularised bias.
    start : (W, H), optional
        (k, d) and (n, d), or (k, d) for class means, to start every run from.
    dtype : "float64" or "float32"
    device : str
    memory : str
        Budget, checked before starting.
    snapshots : int or list of int
        How many, spaced evenly in log step besides the start, or after which steps.
    folder : path, optional
        Where the state is checkpointed and the result written.
    resume : bool
        Continue from the state in `folder`, with the same numbers.
    progress : callable, optional
        Given a `Progress` about every hundred steps.
    **options
        The method's hyper-parameters (`momentum`, `beta2`, `epsilon`, `batch`, `ridge_start`, `half_life`,
        `target`, `every`) and the loss's parameters.

    Returns
    -------
    Simulation

    Raises
    ------
    InvalidInput
        Names, numbers and shapes that cannot be, more memory than the budget, a folder of another simulation.

    References
    ----------
    thrampoulidis2022; theory.md §1, §5.

    Examples
    --------
    >>> runs = simulate([10, 10, 1, 1], "nesterov", ridge=0.5, steps=3000, momentum=0.95, seeds=2)
    >>> bool((runs["ridge/classifiers"][:, -1] < 1e-6).all())
    True
    """
    axes = {"ridge": ridge, "balance": balance, "step": step, "schedule": schedule, "scale": scale}
    grid, trained = make_grid(counts, method, axes, seeds, options,
                              lambda k, parameters: trained_loss(loss, k, relu, bias, parameters), memory)
    if symmetric and grid.method.options.get("stochastic"):
        raise InvalidInput(f"method '{method}' draws samples, which a symmetric run does not have: leave symmetric out")
    last = whole_number("steps", steps)
    pair = as_start(start)
    width = default_width(grid.k, pair) if d is None else whole_number("d", d)
    setup = Setup(grid, trained, width, last, snapshot_steps(snapshots, last), symmetric, as_dtype(dtype),
                  as_device(device), pair, None if folder is None else Path(folder))
    check_memory(setup, memory)
    check_folder(setup.folder, resume)
    with torch.no_grad(), _threads_that_pay(setup):
        return _Engine(setup, resume).go(progress)


@contextmanager
def _threads_that_pay(setup: Setup) -> Iterator[None]:
    """One thread for small grids: handing them out costs more than they save, thirteen times more beside other work."""
    threads = torch.get_num_threads()
    columns = setup.grid.k if setup.symmetric else max(int(counts.n) for counts in setup.grid.profiles)
    if len(setup.grid.cells) * setup.grid.k * columns < _THREADS_PAY_FROM:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Engine:
    """A simulation in progress."""

    def __init__(self, setup: Setup, resume: bool):
        self._setup = setup
        grid = setup.grid
        columns = make_columns(grid.profiles, grid.profile, setup.loss.parameters, setup.symmetric, setup.dtype,
                               setup.device)
        self._model = FreeModel(columns, setup.loss, setup.d, grid.column("ridge"), grid.column("balance"))
        fill(self._model, setup)
        self._method = self._make_method()
        self._steps = self._per_run("step", torch.float64)
        self._decay = self._per_run("decay", torch.float64) if any(grid.column("decay")) else None
        self._observe = Observer(grid, setup.loss, self._model)
        self._values = {name: np.full((len(grid.cells), setup.snapshots.size), np.nan) for name in self._observe.names}
        self._diverged: dict[int, int] = {}
        self._done = 0
        self._whole = True  # not within a step
        # At the origin the loss is n ln k: a start deep in the terminal phase has hardly any loss to grow from.
        origin = torch.tensor([c.n * math.log(c.k) for c in grid.profiles], dtype=torch.float64, device=setup.device)
        self._bound = _GROWTH * torch.maximum(self._objective(), origin[grid.profile])
        if resume:
            self._restore()

    def go(self, progress: Callable[[Progress], None] | None) -> Simulation:
        """Advance to the end."""
        setup, saved = self._setup, time.monotonic()
        if self._done == 0:
            self._record()
            self._checkpoint()  # from here on there is something to resume, however soon the run is stopped
        with between_steps() as interrupted:
            try:
                for stop in self._stops():
                    self._advance(stop)
                    if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                        self._checkpoint()
                        saved = time.monotonic()
                    if progress is not None:
                        progress(self._progress())
                    interrupted()
            finally:
                if self._whole:  # else the last whole state on disk stays
                    self._checkpoint()
        result = self._result()
        if setup.folder is not None:
            result.save(setup.folder / "simulation.npz")
        return result

    def _stops(self) -> Iterator[int]:
        """Steps after which something is looked at."""
        last = self._setup.steps
        stops = heapq.merge(self._setup.snapshots.tolist(), range(0, last, _CHECK_EVERY), [last])
        return (stop for stop, _ in itertools.groupby(stops) if stop > self._done)

    def _advance(self, stop: int) -> None:
        self._whole = False
        move = (-self._steps).to(self._setup.dtype)
        for t in range(self._done, stop):
            if self._decay is not None:
                move = (-self._steps * (t + 1.0) ** -self._decay).to(self._setup.dtype)
            self._method.step(move, t)
            self._model.project()
        self._done = stop
        self._stop_diverged()
        self._record()
        self._whole = True

    def _stop_diverged(self) -> None:
        """Put cells that diverged at rest, so that they cannot disturb the others."""
        found = ~(self._objective() <= self._bound)  # not ≤: NaN counts as diverged
        for block in self._model.blocks:
            found |= ~torch.isfinite(block).all(2).all(1)
        for cell in torch.nonzero(found).flatten().tolist():
            self._diverged.setdefault(cell, self._done)
            self._steps[cell] = 0
            for tensor in [*self._model.blocks, *self._method.state.values()]:
                tensor[cell] = 0

    def _objective(self) -> Tensor:
        return (self._model.log_loss().exp() + self._model.penalty()).flatten()

    def _record(self) -> None:
        place = np.flatnonzero(self._setup.snapshots == self._done)
        if place.size == 0:
            return
        for name, numbers in self._observe().items():
            self._values[name][:, place[0]] = numbers
            self._values[name][list(self._diverged), place[0]] = np.nan

    def _make_method(self) -> Method:
        entry = self._setup.grid.method
        hyper: dict[str, Any] = {name: self._per_run(name, self._setup.dtype) for name in entry.parameters
                                 if name not in ("model", "batch", "seeds")}
        if "batch" in entry.parameters:
            cells = self._setup.grid.cells
            hyper |= {"batch": cells[0]["batch"], "seeds": [cell["seed"] for cell in cells]}
        method: Method = entry.function(self._model, **hyper)
        return method

    def _per_run(self, name: str, dtype: torch.dtype) -> Tensor:
        column = torch.tensor(self._setup.grid.column(name), dtype=dtype, device=self._setup.device)
        return column.reshape(-1, 1, 1)

    def _progress(self) -> Progress:
        grid = self._setup.grid
        return Progress(self._done, self._setup.steps, len(grid.cells) - len(self._diverged),
                        {grid.name(cell): at for cell, at in self._diverged.items()})

    def _checkpoint(self) -> None:
        if self._setup.folder is None:
            return
        make_folder(self._setup.folder)
        meta = {"setup": self._setup.fingerprint(), "done": self._done, "diverged": sorted(self._diverged.items())}
        arrays = {name: tensor.cpu().numpy() for name, tensor in self._tensors().items()}
        write_arrays(self._setup.folder / STATE, meta, arrays | {f"value:{n}": v for n, v in self._values.items()})

    def _restore(self) -> None:
        assert self._setup.folder is not None
        meta, arrays = read_arrays(self._setup.folder / STATE)
        ours, theirs = json.loads(json.dumps(self._setup.fingerprint())), meta.get("setup", {})
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise InvalidInput(f"the simulation in '{self._setup.folder}' has another {key}: expected "
                                   f"{shown(theirs.get(key))}, got {shown(value)}")
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(arrays[name]))
        self._values = {name: arrays[f"value:{name}"] for name in self._values}
        self._done = meta["done"]
        self._diverged = dict(meta["diverged"])
        self._steps[list(self._diverged)] = 0

    def _tensors(self) -> dict[str, Tensor]:
        return {**{f"block.{i}": block for i, block in enumerate(self._model.blocks)}, **self._method.state}

    def _result(self) -> Simulation:
        setup, model = self._setup, self._model
        for cell in self._diverged:
            for block in model.blocks:
                block[cell] = torch.nan
        bias = None if model.b is None else model.b[..., 0].cpu().numpy()
        return Simulation(setup.grid.method.name, setup.loss.name, setup.grid.profiles, setup.grid.cells,
                          setup.snapshots, self._values, dict(self._diverged), model.W.cpu().numpy(),
                          model.H.mT.contiguous().cpu().numpy(), bias, setup.symmetric)

"""The picture of the study of rates: distances against the step, a panel per method, and times against R."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse.experiments.studies.drawing import save_figure
from neuralcollapse.simulate import Simulation
from neuralcollapse.simulate.quantities import PARTS
from neuralcollapse.simulate.rates import time_to

_ACROSS = 4
_TIME_EPSILON = 1e-2


def save_rates(runs: dict[str, Simulation], ratios: tuple[float, ...], folder: Path) -> None:
    """`rates.png` and `rates.pdf`: medians over seeds of the largest distance; crosses mark what was not reached."""
    # Not pyplot: its state would outlive the study.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    down = -(-len(runs) // _ACROSS) + 1
    figure = Figure(figsize=(14, 3.1 * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(down, _ACROSS)
    for place, (label, of) in enumerate(runs.items()):
        axes = figure.add_subplot(grid[place // _ACROSS, place % _ACROSS])
        _draw_distances(axes, of, ratios)
        axes.set_title(label)
        if place == 0:
            axes.legend(fontsize=7, ncols=2, loc="lower left")
    _draw_times(figure.add_subplot(grid[down - 1, :]), runs, ratios)
    save_figure(figure, folder, "rates", dpi=110)


def _draw_distances(axes: object, of: Simulation, ratios: tuple[float, ...]) -> None:
    from matplotlib import colormaps
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    largest = np.max([of[f"seli/{part}"] for part in PARTS], axis=0)
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(ratios)))
    for place, ratio in enumerate(ratios):
        cells = [c for c, cell in enumerate(of.cells) if cell["profile"] == place]
        shown = of.steps > 0
        axes.plot(of.steps[shown], np.median(largest[cells], axis=0)[shown], color=colours[place], lw=1.2,
                  label=f"R = {ratio:g}")
    axes.set(xscale="log", yscale="log", ylim=(1e-6, 2), xlabel="gradients", ylabel="max(D_W, D_M, D_Z) to SELI")
    axes.grid(alpha=0.25)


def _draw_times(axes: object, runs: dict[str, Simulation], ratios: tuple[float, ...]) -> None:
    from matplotlib import colormaps
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for number, (label, of) in enumerate(runs.items()):
        times = time_to(of, [f"seli/{part}" for part in PARTS], _TIME_EPSILON)
        median = np.array([np.sort(times[[c for c, cell in enumerate(of.cells) if cell["profile"] == place]])
                           [(len(of.cells) // len(ratios) - 1) // 2] for place in range(len(ratios))])
        reached = np.isfinite(median)
        colour = colormaps["tab20"](number % 20)
        axes.plot(np.array(ratios)[reached], median[reached], "o-", color=colour, label=label, ms=4)
        axes.plot(np.array(ratios)[~reached], np.full((~reached).sum(), float(of.steps[-1])), "x", color=colour)
    axes.set(xscale="log", yscale="log", xlabel="imbalance ratio R",
             ylabel=f"gradients until ≤ {_TIME_EPSILON:g} (×: not reached)")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=4)

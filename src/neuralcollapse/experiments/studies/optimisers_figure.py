"""The picture of the study of optimisers: shares of the best margins against the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, save_figure
from neuralcollapse.simulate import Simulation
from neuralcollapse.simulate.margins import NAMES

_COLOURS = {"nuclear": COLOURS["blue"], "spectral": COLOURS["vermillion"], "max": COLOURS["green"]}


def save_optimisers(runs: dict[str, Simulation], shares: Callable[[Simulation, str], np.ndarray],
                    places: Sequence[tuple[str, float]], folder: Path) -> None:
    """`optimisers.png` and `optimisers.pdf`: mean over seeds, with the range of seeds, at the largest ratio."""
    # Not pyplot: its state would outlive the study.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = max(ratio for _, ratio in places)
    rows = [place for place, (_, ratio) in enumerate(places) if ratio == largest]
    figure = Figure(figsize=(2.4 * len(runs) + 0.6, 2.5 * len(rows) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(runs), sharex=True, sharey=True, squeeze=False)
    for column, (label, of) in enumerate(runs.items()):
        found = {norm: shares(of, norm) for norm in NAMES}
        for row, place in enumerate(rows):
            axes = grid[row, column]
            cells = [c for c, cell in enumerate(of.cells) if cell["profile"] == place]
            for norm, colour in _COLOURS.items():
                values = found[norm][cells][:, of.steps > 0]
                steps = of.steps[of.steps > 0]
                axes.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
                axes.plot(steps, values.mean(0), color=colour, lw=1.6, label=norm)
            axes.set(xscale="log", ylim=(0, 1.03))
            axes.grid(alpha=0.25)
            if row == 0:
                axes.set_title(label, fontsize=10)
            if column == 0:
                axes.set_ylabel(f"{places[place][0]}, R = {places[place][1]:g}\nshare of the best margin", fontsize=9)
            if row == len(rows) - 1:
                axes.set_xlabel("gradients", fontsize=9)
    grid[0, 0].legend(fontsize=8, loc="upper left", title="norm", title_fontsize=8)
    save_figure(figure, folder, "optimisers", dpi=110)

"""The picture of the study of convergence: distances over epochs, NC1, norms and angles beside their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralcollapse.experiments.studies.convergence_reading import Convergence, arrangement
from neuralcollapse.experiments.studies.drawing import COLOURS, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours mean what they mean in every picture: blue is SELI, vermillion the ETF, orange a ridge, ink is measured.
_TARGETS = {"seli": ("to SELI", COLOURS["blue"]), "etf": ("to the ETF", COLOURS["vermillion"]),
            "ridge": ("to λ_eff", COLOURS["orange"])}
_NORMS = {"classifiers": ("classifiers", COLOURS["green"]), "embeddings": ("class means", COLOURS["purple"])}
_ANGLES = {"majority_majority": ("majority", COLOURS["green"]), "minority_minority": ("minority", COLOURS["purple"])}
_STYLES = ("-", "--", ":", "-.")  # from the largest R down
_PREDICTED = {"ridge": "--", "seli": ":"}
Found = Sequence[tuple[dict[str, Any], Convergence]]


def save_convergence(found: Found, folder: Path) -> None:
    """`deepnet-convergence.png` and `.pdf`: a row per network and way of training; means over seeds.

    Distances are those of the largest two R above 1, norms and angles those of the largest.
    """
    # Not pyplot: its state would outlive the study.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys((cell["network"], cell["recipe"]) for cell, _ in found))
    figure = Figure(figsize=(16, 2.4 * len(kinds) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(kinds), 6, squeeze=False)
    for row, kind in zip(grid, kinds, strict=True):
        _draw_row(row, [pair for pair in found if (pair[0]["network"], pair[0]["recipe"]) == kind])
        row[0].set_ylabel(f"{kind[0]}\n{kind[1]}", fontsize=9)
    largest = f"R = {max(cell['ratio'] for cell, _ in found):g}"
    titles = ("D_W, classifiers", "D_M, class means", "D_Z, logits", "NC1", f"norms, majority / minority\n{largest}",
              f"cosines of classifiers\n{largest}")
    for column, title in enumerate(titles):
        grid[0, column].set_title(title, fontsize=10)
        if grid[0, column].lines and column not in (1, 2):  # those are drawn as the first
            grid[0, column].legend(fontsize=6.5, loc="best")
        grid[-1, column].set_xlabel("epoch", fontsize=9)
    for axes in grid.ravel():
        axes.set_xscale("log")
        axes.tick_params(labelsize=7, which="both")
        axes.grid(alpha=0.25)
    for axes in grid[:, :3].ravel():
        axes.set_ylim(*_limits(found))
    spreads = np.concatenate([one.nc1 for _, one in found])
    for axes in grid[:, 3]:
        axes.set_ylim(0.5 * np.nanmin(spreads), 2 * np.nanmax(spreads))
    save_figure(figure, folder, "deepnet-convergence", dpi=110)


def _limits(found: Found) -> tuple[float, float]:
    """One scale for every distance: a panel that has not moved should look so."""
    smallest = min(float(each.min()) for _, one in found for each in one.distances.values())
    return max(0.6 * smallest, 1e-4), 2.0


def _draw_row(row: np.ndarray, here: Found) -> None:
    ratios = sorted({cell["ratio"] for cell, _ in here}, reverse=True)
    uneven = [ratio for ratio in ratios if ratio > 1] or ratios
    for ratio, style in zip(uneven[:2], _STYLES, strict=False):
        runs = _of(here, ratio)
        for name, (label, colour) in _TARGETS.items():
            # The logits of SELI are those of the ETF: drawn thinner, the ETF leaves SELI to be seen under it.
            width = 0.7 if name == "etf" else 1.6
            means = np.mean([one.distances[name] for one in runs], axis=0)  # (3, e): seeds measure the same epochs
            for axes, values in zip(row[:3], means, strict=True):
                axes.plot(runs[0].epochs, values, style, color=colour, lw=width, label=f"{label}, R = {ratio:g}")
    for ratio, style in zip(ratios, _STYLES, strict=False):
        runs = _of(here, ratio)
        row[3].plot(runs[0].epochs, np.mean([one.nc1 for one in runs], axis=0), style, color=COLOURS["ink"], lw=1.4,
                    label=f"R = {ratio:g}")
    for axes in row[:4]:
        axes.set_yscale("log")
    if uneven[0] > 1:
        _draw_shapes(row[4], _of(here, uneven[0]), {label: (part, "norm_ratio", colour)
                                                    for part, (label, colour) in _NORMS.items()})
        _draw_shapes(row[5], _of(here, uneven[0]), {label: ("classifiers", pair, colour)
                                                    for pair, (label, colour) in _ANGLES.items()})


def _draw_shapes(axes: Axes, runs: Sequence[Convergence], curves: dict[str, tuple[str, str, str]]) -> None:
    """Measured norms or cosines, and in the same colour what SELI and the geometry at λ_eff say of them."""
    for label, (part, name, colour) in curves.items():
        axes.plot(runs[0].epochs, np.mean([one.arrangements[part][name] for one in runs], axis=0), color=colour, lw=1.4,
                  label=label)
        for target, style in _PREDICTED.items():
            levels = [arrangement(getattr(one.geometries[target], part).dense(), one.run.counts.minority)[name]
                      for one in runs]
            axes.axhline(float(np.mean(levels)), color=colour, ls=style, lw=1)
    for target, style in _PREDICTED.items():
        axes.plot([], [], style, color=COLOURS["ink"], lw=1, label={"ridge": "at λ_eff", "seli": "SELI"}[target])


def _of(here: Found, ratio: float) -> list[Convergence]:
    return [one for cell, one in here if cell["ratio"] == ratio]

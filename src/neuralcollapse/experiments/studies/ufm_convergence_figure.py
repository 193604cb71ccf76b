"""The picture of the study of gradient descent on free features: distances over epochs, a column per arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import (
    COLOURS,
    legend_below,
    make_figure,
    ordered_colours,
    save_figure,
)
from neuralcollapse.simulate.quantities import PARTS

_LOWEST = 1e-4
_DASHES = {"seli": "-", "ridge": "--", "etf": ":"}
_NAMES = {"seli": "to SELI", "ridge": "to the certified geometry at the held λ", "etf": "to the simplex"}


def save_convergence(history: Sequence[dict[str, Any]], folder: Path) -> None:
    """`ufm-convergence.png` and `.pdf`: medians over seeds, the range of seeds shaded for SELI."""
    arms = list(dict.fromkeys(row["arm"] for row in history))
    ratios = list(dict.fromkeys(row["ratio"] for row in history))
    figure, grid = make_figure(len(PARTS), len(arms), (3.1 * len(arms), 7.6), sharex=True, sharey=True)
    for across, arm in enumerate(arms):
        for axes, part, symbol in zip(grid[:, across], PARTS, ("$D_W$", "$D_M$", "$D_Z$"), strict=True):
            for ratio, colour in zip(ratios, ordered_colours(len(ratios)), strict=True):
                here = [row for row in history if (row["arm"], row["ratio"]) == (arm, ratio) and row["epoch"] > 0]
                _draw(axes, here, part, colour, f"R = {ratio:g}")
            for target, dashes in _DASHES.items():
                axes.plot([], [], dashes, color=COLOURS["ink"], lw=1.2, label=_NAMES[target])
            axes.set(xscale="log", yscale="log", ylim=(_LOWEST, 2))
            if across == 0:
                axes.set_ylabel(symbol, fontsize=10)
        grid[0, across].set_title(arm.replace("n_min", r"$n_{\min}$"), fontsize=10)
        grid[-1, across].set_xlabel("full-batch epochs", fontsize=9)
    legend_below(figure, grid[0], len(ratios) + len(_DASHES))
    save_figure(figure, folder, "ufm-convergence")


def _draw(axes: Any, rows: Sequence[dict[str, Any]], part: str, colour: Any, label: str) -> None:
    epochs = list(dict.fromkeys(row["epoch"] for row in rows))
    for target, dashes in _DASHES.items():
        values = np.array([[np.nan if row[f"{target}/{part}"] is None else row[f"{target}/{part}"] for row in rows
                            if row["epoch"] == epoch] for epoch in epochs])
        if np.isnan(values).all():
            continue
        main = target == "seli"
        axes.plot(epochs, np.median(values, axis=1), dashes, color=colour, lw=1.5 if main else 1.0,
                  alpha=1 if main else 0.8, label=label if main else None)
        if main:
            axes.fill_between(epochs, values.min(1), values.max(1), color=colour, alpha=0.15, lw=0)

"""The picture of the study of losses: distances to what is predicted for each loss, and to plain SELI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, legend_below, make_figure, save_figure
from neuralcollapse.simulate.quantities import PARTS

_LOWEST = 1e-3
_PANELS = {"limit": "free features, vanishing limit", "held": "free features, held ridge",
           "network": "networks on the digits, held ridge"}
_TARGETS = {"own": ("o", 7.5, "orange", "to the loss's own prediction"), "seli": ("s", 5, "blue", "to plain SELI")}


def save_losses(rows: Sequence[dict[str, Any]], losses: Sequence[str], folder: Path) -> None:
    """`loss-geometries.png` and `.pdf`: every seed a mark; what is below 10⁻³ stands at the edge."""
    places = sorted(dict.fromkeys((row["where"], row["ratio"]) for row in rows),
                    key=lambda place: (list(_PANELS).index(place[0]), place[1]))
    figure, grid = make_figure(len(PARTS), len(places), (2.7 * len(places) + 1, 6.6), sharex=True, sharey=True)
    for column, (where, ratio) in enumerate(places):
        here = [row for row in rows if (row["where"], row["ratio"]) == (where, ratio)]
        for axes, part in zip(grid[:, column], PARTS, strict=True):
            _draw(axes, here, losses, part)
        grid[0, column].set_title(f"{_PANELS[where]}\nR = {ratio:g}", fontsize=9)
        grid[-1, column].set_xlabel("distance (at the edge: below)", fontsize=8)
    for axes, symbol in zip(grid[:, 0], ("$D_W$", "$D_M$", "$D_Z$"), strict=True):
        axes.set_yticks(range(len(losses)), losses, fontsize=8)
        axes.set_ylabel(symbol, fontsize=10)
    legend_below(figure, grid[0], len(_TARGETS))
    save_figure(figure, folder, "loss-geometries")


def _draw(axes: Any, rows: Sequence[dict[str, Any]], losses: Sequence[str], part: str) -> None:
    for place, loss in enumerate(losses):
        ends = []
        for target, (marker, size, colour, label) in _TARGETS.items():
            values = np.array([row[f"{target}/{part}"] for row in rows if row["loss"] == loss])
            values = np.maximum(values, _LOWEST)
            axes.plot(values, np.full(values.size, place), marker, color=COLOURS[colour], ms=size, mew=0.6, mec="white",
                      label=label, zorder=3, clip_on=False)
            ends.append(float(np.median(values)))
        axes.plot(ends, (place, place), color=COLOURS["ink"], lw=0.8, alpha=0.5)
    axes.set(xscale="log", xlim=(_LOWEST, 2), ylim=(len(losses) - 0.5, -0.5))

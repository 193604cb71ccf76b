"""The picture of the study of steering: balanced, majority and minority accuracy under every remedy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, save_figure
from neuralcollapse.simulate.rates import mean_interval

_MARKS = {"majority": ("^", COLOURS["blue"]), "minority": ("v", COLOURS["vermillion"]),
          "balanced": ("o", COLOURS["ink"])}
_ACROSS = 4


def save_steering(rows: Sequence[dict[str, Any]], places: Sequence[tuple[str, str, float]], folder: Path) -> None:
    """`steering.png` and `steering.pdf`: means over seeds, with 95 % t intervals of the balanced accuracy."""
    # Not pyplot: its state would outlive the study.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Sorting is stable: what needs no retraining comes last, as in the tables.
    names = sorted(dict.fromkeys(row["remedy"] for row in rows), key=lambda name: ", then " in name)
    across = min(_ACROSS, len(places))
    down = -(-len(places) // across)
    figure = Figure(figsize=(3.1 * across + 1.4, (0.21 * len(names) + 0.9) * down), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (dataset, profile, ratio) in zip(grid, places, strict=False):
        here = [row for row in rows if (row["dataset"], row["profile"], row["ratio"]) == (dataset, profile, ratio)]
        for key, (mark, colour) in _MARKS.items():
            values = [np.array([row[key] for row in here if row["remedy"] == name and row[key] is not None])
                      for name in names]
            means = [one.mean() if one.size else np.nan for one in values]
            axes.plot(means, range(len(names)), mark, color=colour, ms=4.5, label=key)
            if key == "balanced":
                for height, one in enumerate(values):
                    axes.plot(mean_interval(one), (height, height), color=colour, lw=1.2)
        axes.set_title(f"{dataset}, {profile}, R = {ratio:g}", fontsize=9)
        axes.set(xlim=(-0.02, 1.02))
        axes.grid(alpha=0.25)
    for axes in grid[len(places):]:
        axes.set_visible(False)
    for axes in grid[::across]:
        axes.set_yticks(range(len(names)), names, fontsize=7)
    grid[0].invert_yaxis()
    grid[0].legend(fontsize=7, loc="lower left")
    figure.supxlabel("accuracy on a balanced test part", fontsize=9)
    save_figure(figure, folder, "steering", dpi=110)

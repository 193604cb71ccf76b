"""The picture of the study of robustness: collapse, geometry and accuracy over training, by kind of input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, MARKERS, legend_below, make_figure, save_figure

_PANELS = {"nc1": "NC1, training part", "seli/embeddings": "$D_M$ to SELI, training part",
           "test/majority": "test accuracy, majorities", "test/minority": "test accuracy, minorities"}
_NAMES = ("ink", "green", "orange", "blue", "vermillion")  # of colours, for inputs from the harmless on


def save_robustness(rows: Sequence[dict[str, Any]], ratio: float, folder: Path) -> None:
    """`robustness.png` and `.pdf`: medians over seeds, bands from the smallest to the largest.

    Parameters
    ----------
    rows : sequence of dict
    ratio : float
        The imbalance ratio drawn.
    folder : Path
    """
    rows = [row for row in rows if row["ratio"] == ratio]
    places = list(dict.fromkeys((row["dataset"], row["training"]) for row in rows))
    figure, grid = make_figure(len(places), len(_PANELS), (12.5, 2.3 * len(places) + 0.8), sharey="col")
    for line, place in zip(grid, places, strict=True):
        here = [row for row in rows if (row["dataset"], row["training"]) == place]
        for axes, (key, title) in zip(line, _PANELS.items(), strict=True):
            kinds = dict.fromkeys(row["inputs"] for row in here)
            for inputs, name, marker in zip(kinds, _NAMES, MARKERS, strict=False):
                _draw(axes, [row for row in here if row["inputs"] == inputs], key,
                      {"color": COLOURS[name], "marker": marker, "label": inputs})
            axes.set(xscale="log")
            if key == "nc1":
                axes.set(yscale="log")
            elif "test" in key:
                axes.set(ylim=(-0.03, 1.03))
            if place == places[0]:
                axes.set_title(title, fontsize=10)
            if place == places[-1]:
                axes.set_xlabel("epoch", fontsize=9)
        line[0].set_ylabel(f"{place[0]}\n{place[1]} training", fontsize=10)
    figure.suptitle(f"STEP, R = {ratio:g}", fontsize=11)
    legend_below(figure, grid[:, 0], len(_NAMES))
    save_figure(figure, folder, "robustness")


def _draw(axes: Any, rows: Sequence[dict[str, Any]], key: str, style: dict[str, Any]) -> None:
    epochs = sorted({row["epoch"] for row in rows})
    values = [np.array([row[key] for row in rows if row["epoch"] == epoch and row[key] is not None])
              for epoch in epochs]
    low, middle, high = (np.array([function(one) if one.size else np.nan for one in values])
                         for function in (np.min, np.median, np.max))
    axes.fill_between(epochs, low, high, color=style["color"], alpha=0.15, lw=0)
    axes.plot(epochs, middle, lw=1.4, ms=4, **style)

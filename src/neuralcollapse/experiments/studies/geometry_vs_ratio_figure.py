"""The picture of the study of geometry against R: a panel per ratio of norms and kind of angle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuralcollapse.experiments.studies.drawing import (
    MARKERS,
    legend_below,
    make_figure,
    ordered_colours,
    save_figure,
)

_PANELS = {"norm_ratio": "norm, majority / minority", "minority": "angle, two minorities",
           "across": "angle, majority and minority", "majority": "angle, two majorities"}


def save_geometry(curves: Sequence[dict[str, Any]], dots: Sequence[dict[str, Any]], folder: Path) -> None:
    """`geometry-vs-ratio.png` and `.pdf`: lines in closed form, marks trained."""
    classes = list(dict.fromkeys(row["k"] for row in curves))
    figure, grid = make_figure(2, len(_PANELS), (12, 5.6), sharex=True)
    for down, part in enumerate(("classifiers", "embeddings")):
        for axes, (name, title) in zip(grid[down], _PANELS.items(), strict=True):
            for k, colour, marker in zip(classes, ordered_colours(len(classes)), MARKERS, strict=False):
                line = [row for row in curves if (row["k"], row["part"]) == (k, part)]
                marks = [row for row in dots if (row["k"], row["part"]) == (k, part)]
                axes.plot([row["ratio"] for row in line], [row[name] for row in line], color=colour, lw=1.3)
                axes.plot([row["ratio"] for row in marks], [row[name] for row in marks], marker, color=colour, ms=5,
                          mew=0.8, mec="white", label=f"k = {k}")
            axes.set(xscale="log")
            if name != "norm_ratio":
                low, high, apart = (0, 180, 30) if name == "minority" else (85, 125, 10)
                angles = range(-(-low // apart) * apart, high + 1, apart)
                axes.set_yticks(angles, [f"{angle}°" for angle in angles])
                axes.set_ylim(low, high)
            if down == 0:
                axes.set_title(title, fontsize=10)
            else:
                axes.set_xlabel("imbalance ratio R", fontsize=9)
        grid[down, 0].set_ylabel(part, fontsize=10)
    legend_below(figure, grid[:, 0], len(classes))
    save_figure(figure, folder, "geometry-vs-ratio")

"""The picture of the study of the ridge: distances, norm ratio and minority cosine against λ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import (
    COLOURS,
    MARKERS,
    legend_below,
    make_figure,
    ordered_colours,
    save_figure,
)

_PANELS = {"seli": "distance to SELI", "etf": "distance to the simplex", "norm_ratio": "norm, majority / minority",
           "minority_cosine": "cosine, two minorities"}
_MERGING = r"minority collapse, $\lambda = \sqrt{n_{\min}}$"
_TOTAL = r"total collapse, $\lambda = \sqrt{n_{\max}}$, of each R"
_RATIOS = (0.3, 15)


def save_ridge_path(rows: Sequence[dict[str, Any]], descents: Sequence[dict[str, Any]], root: float, folder: Path
                    ) -> None:
    """`ridge-path.png` and `.pdf`: lines certified, marks from descents, thresholds upright.

    Parameters
    ----------
    rows, descents : sequences of dict
    root : float
        √n_min, the unit of λ.
    folder : Path
    """
    ratios = list(dict.fromkeys(row["ratio"] for row in rows))
    figure, grid = make_figure(2, len(_PANELS), (12.5, 5.8), sharex=True)
    for down, part in enumerate(("classifiers", "embeddings")):
        for axes, (name, title) in zip(grid[down], _PANELS.items(), strict=True):
            key = f"{name}/{part}"
            for ratio, colour, marker in zip(ratios, ordered_colours(len(ratios)), MARKERS, strict=False):
                line = [row for row in rows if row["ratio"] == ratio]
                marks = [row for row in descents if row["ratio"] == ratio]
                axes.plot([row["ridge"] / root for row in line], [row[key] for row in line], color=colour, lw=1.4)
                axes.plot([row["ridge"] / root for row in marks], [row[key] for row in marks], marker, color=colour,
                          ms=5, mew=0.8, mec="white", label=f"R = {ratio:g}")
                axes.axvline(np.sqrt(ratio), color=colour, lw=1, ls=":")
            axes.axvline(1, color=COLOURS["vermillion"], lw=1, ls="--", label=_MERGING)
            axes.axvline(np.nan, color=COLOURS["ink"], lw=1, ls=":", label=_TOTAL)
            axes.set(xscale="log")
            if name == "norm_ratio":
                axes.set(yscale="log", ylim=_RATIOS)  # minorities that vanish leave it above
                axes.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
                axes.minorticks_off()
            if down == 0:
                axes.set_title(title, fontsize=10)
            else:
                axes.set_xlabel(r"$\lambda\,/\sqrt{n_{\min}}$", fontsize=9)
        grid[down, 0].set_ylabel(part, fontsize=10)
    legend_below(figure, grid[:, 0], len(ratios) + 2)
    save_figure(figure, folder, "ridge-path")

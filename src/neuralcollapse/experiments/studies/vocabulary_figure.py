"""The picture of the study of a vocabulary: lengths against token counts, and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, legend_below, make_figure, save_figure

_PARTS = {"classifiers": "classifiers", "embeddings": "class means"}


def save_vocabulary(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """`vocabulary.png` and `.pdf`: a mark per token, lines for the predictions.

    Parameters
    ----------
    rows : sequence of dict
        As `token_rows` gives them, of one run.
    folder : Path
    """
    figure, grid = make_figure(1, 3, (12.0, 3.9))
    counts = np.array([row["count"] for row in rows])
    for axes, (part, title) in zip(grid[0], _PARTS.items(), strict=False):
        axes.plot(counts, [row[part] for row in rows], "o", ms=3, color=COLOURS["ink"], alpha=0.5, label="measured")
        axes.plot(counts, [row[f"seli/{part}"] for row in rows], color=COLOURS["blue"], lw=1.6, label="SELI")
        axes.plot(counts, [row[f"ridge/{part}"] for row in rows], color=COLOURS["orange"], lw=1.6, ls="--",
                  label="at the model's own λ")
        axes.set(xscale="log", yscale="log")
        axes.set_title(f"length of {title}", fontsize=10)
        axes.set_ylabel("over their root mean square", fontsize=9)
    seen = [row for row in rows if row["recall"] is not None]
    axes = grid[0, 2]
    axes.plot([row["count"] for row in seen], [row["recall"] for row in seen], "o", ms=3, color=COLOURS["green"],
              alpha=0.5)
    axes.set(xscale="log")
    axes.set_title("next-token accuracy on held-out text", fontsize=10)
    axes.set_ylabel("recall", fontsize=9)
    for axes in grid[0]:
        axes.set_xlabel("times the token occurs as a label", fontsize=9)
    legend_below(figure, grid[0], 3)
    save_figure(figure, folder, "vocabulary")

"""The picture of the study of a vocabulary: lengths against token counts, and which tokens are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.studies.drawing import COLOURS, legend_below, make_figure, save_figure

_TITLES = {"classifiers": r"classifiers, $\|w_c\|$", "embeddings": r"class means, $\|\mu_c-\mu_G\|$"}


def save_vocabulary(tokens: Sequence[Mapping[str, Any]], model: Mapping[str, Any], folder: Path) -> None:
    """`vocabulary.png` and `.pdf`.

    Parameters
    ----------
    tokens : sequence of dict
        Of one model.
    model : dict
    folder : Path
    """
    figure, grid = make_figure(1, 4, (14, 3.9))
    counts = np.array([row["count"] for row in tokens])
    order = np.argsort(-counts, kind="stable")
    grid[0, 0].plot(np.arange(1, counts.size + 1), counts[order], color=COLOURS["ink"], lw=1.4)
    grid[0, 0].set(xscale="log", yscale="log", xlabel="rank")
    grid[0, 0].set_title("training count $n_c$", fontsize=10)
    for axes, (part, title) in zip(grid[0, 1:3], _TITLES.items(), strict=True):
        for source, name, marker, label in (("", "blue", "o", "measured"),
                                            ("seli/", "vermillion", "D", "SELI, scaled to the same geometric mean")):
            lengths = np.array([row[source + part] for row in tokens])
            axes.plot(counts, lengths, marker, color=COLOURS[name], ms=3, mew=0, alpha=0.6, label=label)
            slope = model[f"{source}slope/{part}"]
            line = np.exp(np.log(lengths).mean() + slope * (np.log(counts) - np.log(counts).mean()))
            axes.plot(counts[order], line[order], color=COLOURS[name], lw=1.4)
            axes.text(0.03, 0.97 if source else 0.9, f"slope {slope:.2f}", color=COLOURS[name], fontsize=9, va="top",
                      transform=axes.transAxes)
        axes.set(xscale="log", yscale="log", xlabel="$n_c$")
        axes.set_title(title, fontsize=10)
    recall = np.array([np.nan if row["recall"] is None else row["recall"] for row in tokens], dtype=float)
    grid[0, 3].plot(counts, recall, "o", color=COLOURS["blue"], ms=3, mew=0, alpha=0.6)
    grid[0, 3].set(xscale="log", xlabel="$n_c$", ylim=(-0.03, 1.03))
    grid[0, 3].set_title("test recall of the token", fontsize=10)
    legend_below(figure, grid[0, 1:2], 2)
    save_figure(figure, folder, "vocabulary")

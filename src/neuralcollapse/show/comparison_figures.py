"""The picture of many runs: their curves on common axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuralcollapse.experiments.comparison import ComparedRun, ComparedRuns
from neuralcollapse.experiments.records import look
from neuralcollapse.show.charts import Curve, ManyRuns, Panel, widely_spread
from neuralcollapse.show.palette import MARKERS, short_names
from neuralcollapse.show.reading import as_number
from neuralcollapse.show.ticks import log_spaced
from neuralcollapse.show.wording import number, setting

_COLOURS = ("blue", "vermillion", "green", "purple", "orange", "ink")
_MOST_GROUPS = 24  # that a legend can name
_MOST_CURVES = 200  # per panel, evenly chosen from more runs; the table has all
# Title, axis, where in a record the number is, and whether it is a share.
_PANELS: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("Test accuracy, balanced", "share correct", ("test", "balanced_accuracy"), True),
    ("Test accuracy, minority", "share correct", ("test", "minority_accuracy"), True),
    ("Training loss", "mean loss", ("train", "loss"), False),
    ("NC1 · spread within classes", "NC1", ("measurement", "nc1", "pinv"), False),
    ("Classifiers to SELI", "D_W", ("measurement", "distances", "seli", "classifiers"), False),
    ("Embeddings to SELI", "D_M", ("measurement", "distances", "seli", "embeddings"), False),
    ("Classifiers to the simplex ETF", "D_W", ("measurement", "distances", "etf", "classifiers"), False),
    ("Embeddings to the simplex ETF", "D_M", ("measurement", "distances", "etf", "embeddings"), False),
    ("NC3 · classifiers against means", "NC3", ("measurement", "nc3"), False),
)


def curves(runs: ComparedRuns, by_name: bool = False) -> ManyRuns | None:
    """Accuracy, loss and distances of every run over epochs, a colour and marker per group of like runs.

    Parameters
    ----------
    runs : ComparedRuns
    by_name : bool
        A colour and marker per run, called by its name, as long as a legend can name all of them.

    Returns
    -------
    ManyRuns or None
        A panel per number that any run has; None when nothing has been measured.
    """
    step = -(-len(runs.runs) // _MOST_CURVES)
    shown = [one for one in runs.runs if one.run.history][::step]
    epochs = np.unique([float(record["epoch"]) for one in shown for record in one.run.history])
    if not epochs.size:
        return None
    named = by_name and len(shown) <= _MOST_GROUPS
    labels = short_names([one.name for one in shown], 40) if named else _labels(runs, shown)
    styles = {label: (_COLOURS[i % len(_COLOURS)], list(MARKERS)[i // len(_COLOURS) % len(MARKERS)], i % 2 == 1)
              for i, label in enumerate(dict.fromkeys(labels))}
    panels = []
    for title, y_label, path, share in _PANELS:
        lines = tuple(Curve(label, _series(one, epochs, path), *styles[label])
                      for one, label in zip(shown, labels, strict=True))
        panel = Panel(title, y_label, lines, percent=share)
        if panel.values().size:
            panels.append(panel if share else Panel(title, y_label, lines, log_y=widely_spread(panel.values())))
    if not panels:
        return None
    described = [f"{panel.title}, last values from {number(min(ends))} to {number(max(ends))}."
                 for panel in panels if (ends := [float(curve.y[np.isfinite(curve.y)][-1]) for curve in panel.curves
                                                  if np.isfinite(curve.y).any()])]
    few = "" if step == 1 else f" Of {len(runs.runs)} runs one in {step} is drawn; the table has all."
    alike = "" if named else "; runs that differ in their seed alone look the same"
    return ManyRuns("Runs over training", f"A curve per run{alike}.{few}",
                    " ".join(described), tuple(panels), 3, epochs, log_spaced(epochs))


def _series(one: ComparedRun, epochs: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    y = np.full(epochs.size, np.nan)
    for record in one.run.history:
        y[np.searchsorted(epochs, float(record["epoch"]))] = as_number(look(record, *path))
    return y


def _labels(runs: ComparedRuns, shown: Sequence[ComparedRun]) -> list[str]:
    """What a run is drawn as: what tells it from others but for the seed, as long as a legend can name all of these."""
    keys = [key for key in runs.differing if key != "seed"]
    while keys:
        labels = [", ".join(f"{key} {setting(one.settings.get(key))}" for key in keys) for one in shown]
        if len(set(labels)) <= _MOST_GROUPS:
            return labels
        keys.pop()
    return ["every run"] * len(shown)

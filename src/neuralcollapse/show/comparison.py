"""`write_comparison`: many runs on one self-contained page, their curves on common axes, their last numbers a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.experiments.comparison import ComparedRun, ComparedRuns
from neuralcollapse.show.charts import Curve, ManyRuns, Panel, log_spaced, widely_spread
from neuralcollapse.show.markup import Table, details, paragraph, section, table
from neuralcollapse.show.page import Page, write_text
from neuralcollapse.show.palette import MARKERS
from neuralcollapse.show.reading import as_number, look
from neuralcollapse.show.wording import number, percent

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
# Header and name in `ComparedRun.last`.
_LAST: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "epoch": ("epoch", number), "balanced accuracy": ("test.balanced_accuracy", percent),
    "minority accuracy": ("test.minority_accuracy", percent), "training accuracy": ("train.accuracy", percent),
    "NC1": ("nc1.pinv", number), "NC3": ("nc3", number),
    "D_W SELI": ("distances.seli.classifiers", number), "D_M SELI": ("distances.seli.embeddings", number),
    "D_Z SELI": ("distances.seli.logits", number), "D_W ETF": ("distances.etf.classifiers", number),
    "D_M ETF": ("distances.etf.embeddings", number), "D_W own λ": ("distances.ridge.classifiers", number),
    "seconds": ("seconds.train", number)}


def write_comparison(runs: ComparedRuns, path: str | Path) -> Path:
    """Write the report on several runs: one page that stands alone.

    Parameters
    ----------
    runs : ComparedRuns
    path : str or Path
        Where to write.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    InvalidInput
        A place that cannot be written.
    """
    return write_text(Path(path), render_comparison(runs))


def render_comparison(runs: ComparedRuns) -> str:
    """The report on several runs as text of HTML."""
    page = Page(f"{len(runs.runs)} runs · neuralcollapse comparison")
    unfinished = sum(not one.run.finished for one in runs.runs)
    state = f"{unfinished} of {len(runs.runs)} still training" if unfinished else "all finished"
    differ = f"They differ in {', '.join(runs.differing)}." if runs.differing else "All of their settings are the same."
    body = [f'<header><p class="kicker">neuralcollapse comparison</p><h1>{len(runs.runs)} runs</h1>'
            f'{paragraph(f"{differ} {state.capitalize()}.", "subtitle")}</header>',
            section("problems", "What is missing", *map(paragraph, runs.problems)),
            section("curves", "Over training", page.figure(curves(runs), "curves", titled=False)),
            section("last", "Last measured numbers", _means(runs), table(_last(runs))),
            section("settings", "Settings that all runs share", details("Every one of them", table(
                Table("Settings that all runs share", ["setting", "value"],
                      [[key, _value(value)] for key, value in runs.common.items()]))))]
    return page.html("\n".join(part for part in body if part))


def curves(runs: ComparedRuns) -> ManyRuns | None:
    """Accuracy, loss and distances of every run over epochs, a colour and marker per group of like runs.

    Parameters
    ----------
    runs : ComparedRuns

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
    labels = _labels(runs, shown)
    styles = {label: (_COLOURS[i % len(_COLOURS)], list(MARKERS)[i // len(_COLOURS) % len(MARKERS)], i % 2 == 1)
              for i, label in enumerate(dict.fromkeys(labels))}
    panels = []
    for title, y_label, path, share in _PANELS:
        lines = tuple(Curve(label, _series(one, epochs, path), *styles[label])
                      for one, label in zip(shown, labels, strict=True))
        panel = Panel(title, y_label, lines, percent=share)
        if panel.values().size:
            panels.append(panel if share else Panel(title, y_label, lines, log_y=widely_spread(panel.values())))
    described = [f"{panel.title}, last values from {number(min(ends))} to {number(max(ends))}."
                 for panel in panels if (ends := [float(curve.y[np.isfinite(curve.y)][-1]) for curve in panel.curves
                                                  if np.isfinite(curve.y).any()])]
    few = "" if step == 1 else f" Of {len(runs.runs)} runs one in {step} is drawn; the table has all."
    return ManyRuns("Runs over training", "A curve per run; runs that differ in their seed alone look the same." + few,
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
        labels = [", ".join(f"{key} {_value(one.settings.get(key))}" for key in keys) for one in shown]
        if len(set(labels)) <= _MOST_GROUPS:
            return labels
        keys.pop()
    return ["every run"] * len(shown)


# -- tables -----------------------------------------------------------------------------------------


def _columns(runs: ComparedRuns) -> dict[str, tuple[str, Callable[[float | None], str]]]:
    return {title: (key, show) for title, (key, show) in _LAST.items()
            if any(np.isfinite(as_number(one.last.get(key))) for one in runs.runs)}


def _last(runs: ComparedRuns) -> Table:
    columns = _columns(runs)
    rows = [[one.name, *(_value(one.settings.get(key)) for key in runs.differing),
             "finished" if one.run.finished else "training",
             *(show(as_number(one.last.get(key))) for key, show in columns.values())] for one in runs.runs]
    return Table("Last measured numbers of every run", ["run", *runs.differing, "state", *columns], rows)


def _means(runs: ComparedRuns) -> str:
    """Means over seeds, with the standard deviation, where several runs differ in nothing else."""
    keys = [key for key in runs.differing if key != "seed"]
    groups: dict[tuple[str, ...], list[ComparedRun]] = {}
    for one in runs.runs:
        if one.run.finished:
            groups.setdefault(tuple(_value(one.settings.get(key)) for key in keys), []).append(one)
    if "seed" not in runs.differing or not keys or max(map(len, groups.values()), default=0) < 2:
        return ""
    columns = {title: way for title, way in _columns(runs).items() if title not in ("epoch", "seconds")}
    rows = [[", ".join(f"{key} {value}" for key, value in zip(keys, group, strict=True)), str(len(members)),
             *(_spread([as_number(one.last.get(key)) for one in members], show) for key, show in columns.values())]
            for group, members in groups.items()]
    return table(Table("Finished runs: means over seeds ± standard deviation", ["settings", "seeds", *columns], rows))


def _spread(values: list[float], show: Callable[[float | None], str]) -> str:
    known = np.array(values)[np.isfinite(values)]
    if not known.size:
        return "–"
    return show(float(known.mean())) + (f" ± {show(float(known.std(ddof=1)))}" if known.size > 1 else "")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else "–" if value is None else (
        f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str))

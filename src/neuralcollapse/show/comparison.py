"""`write_comparison`: many runs on one self-contained page, their curves on common axes, their last numbers a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuralcollapse.experiments.comparison import ComparedRun, ComparedRuns
from neuralcollapse.experiments.run import TRAINING
from neuralcollapse.files import write_text
from neuralcollapse.show.comparison_figures import curves
from neuralcollapse.show.markup import Table, details, paragraph, section, table
from neuralcollapse.show.page import Page
from neuralcollapse.show.reading import as_number
from neuralcollapse.show.wording import number, percent, setting

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
    body = [f'<header><p class="kicker">neuralcollapse comparison</p><h1>{len(runs.runs)} runs</h1>'
            f'{paragraph(f"{runs.difference} {_states(runs).capitalize()}.", "subtitle")}</header>',
            section("problems", "What is missing", *map(paragraph, runs.problems)),
            section("curves", "Over training", page.figure(curves(runs), "curves", titled=False)),
            section("last", "Last measured numbers", _means(runs), table(last_numbers(runs))),
            section("settings", "Settings that all runs share", details("Every one of them", table(
                Table("Settings that all runs share", ["setting", "value"],
                      [[key, setting(value)] for key, value in runs.common.items()]))))]
    return page.html("\n".join(part for part in body if part))


def _states(runs: ComparedRuns) -> str:
    """How many are not finished: those that a process is training, and the others."""
    states = [one.run.state for one in runs.runs if not one.run.finished]
    training = states.count(TRAINING)
    many = {TRAINING: training, "stopped or unfinished": len(states) - training}
    return ", ".join(f"{count:,} of {len(runs.runs):,} {state}" for state, count in many.items() if count
                     ) or "all finished"


# -- tables -----------------------------------------------------------------------------------------


def _columns(runs: ComparedRuns) -> dict[str, tuple[str, Callable[[float | None], str]]]:
    return {title: (key, show) for title, (key, show) in _LAST.items()
            if any(np.isfinite(as_number(one.last.get(key))) for one in runs.runs)}


def last_numbers(runs: ComparedRuns) -> Table:
    """What tells each run from the others, and its last measured numbers."""
    columns = _columns(runs)
    rows = [[one.name, *(setting(one.settings.get(key)) for key in runs.differing),
             one.run.state,
             *(show(as_number(one.last.get(key))) for key, show in columns.values())] for one in runs.runs]
    return Table("Last measured numbers of every run", ["run", *runs.differing, "state", *columns], rows)


def _means(runs: ComparedRuns) -> str:
    """Means over seeds, with the standard deviation, where several runs differ in nothing else."""
    keys = [key for key in runs.differing if key != "seed"]
    groups: dict[tuple[str, ...], list[ComparedRun]] = {}
    for one in runs.runs:
        if one.run.finished:
            groups.setdefault(tuple(setting(one.settings.get(key)) for key in keys), []).append(one)
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


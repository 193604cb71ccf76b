"""The parts of the page of runs, each from runs that are open: the list, one run, one epoch of it, several compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import re
from typing import Any

from dash import dcc, html

from neuralcollapse.experiments.comparison import ComparedRuns
from neuralcollapse.show import figures, tables
from neuralcollapse.show.charts import Lines, Mark
from neuralcollapse.show.class_axis import ONE_BY_ONE
from neuralcollapse.show.comparison import last_numbers
from neuralcollapse.show.epoch_tables import epoch_distances, epoch_measures, epoch_scores, nearest_sentence
from neuralcollapse.show.explorer.frame import attribute, called, picture, subscripted, table
from neuralcollapse.show.explorer.run_opened import OpenedRun, Unreadable, key_of
from neuralcollapse.show.reading import Reading
from neuralcollapse.show.sentences import verdict
from neuralcollapse.show.wording import plain

_MARKED = 9  # epochs named below the slider


def run_list(runs: Sequence[OpenedRun | Unreadable], chosen: str | None, others: Sequence[str]) -> list[Any]:
    """A row per run: a box to compare it, a button to look at it, what it is and how far it has come."""
    head = html.Tr([html.Th(text, scope="col") for text in
                    ("Compare", "Run", "Data", "Model", "Classes", "Ratio R", "State")])
    rows = [_row(run, run.name == chosen, run.name in others) for run in runs]
    below = html.P(html.A(f"Compared with {len(others)} other{'s' if len(others) > 1 else ''}, below",
                          href="#runs-comparison"), className="hint") if others else None
    return [html.Div(html.Table([html.Caption("Runs", className="unseen"), html.Thead(head), html.Tbody(rows)]),
                     className="scroll runs", role="region", tabIndex="0", **called("Runs")), below]


def _row(run: OpenedRun | Unreadable, chosen: bool, compared: bool) -> Any:
    name = html.Span(run.name, dir="auto")
    if isinstance(run, Unreadable):
        state = html.Span(run.problem, className="waiting" if run.waiting else "problem")
        return html.Tr([html.Td(), html.Th(name, scope="row"), html.Td(state, colSpan=5)])
    box = dcc.Checklist(
        [{"label": html.Span(f"Compare {run.name}", className="unseen"), "value": run.name, "disabled": chosen}],
        [run.name] if compared or chosen else [], id={"type": "runs-compare", "run": key_of(run.name)}, className="box")
    look = html.Button(name, id={"type": "runs-look", "run": key_of(run.name)}, className="look", n_clicks=0,
                       **attribute("aria-pressed", "true" if chosen else "false"))
    counts, data = run.reading.counts, run.reading.run.data
    cells = [_said(data.get("dataset")), _said(run.setting("model")), f"{counts.k:,}",
             "1, balanced" if counts.balanced else plain(counts.ratio)]
    live = "state live" if run.reading.live else "state"
    return html.Tr([html.Td(box), html.Th(look, scope="row"), *(html.Td(text, dir="auto") for text in cells),
                    html.Td(html.Span(run.state, className=live))], className="here" if chosen else "")


def run_head(run: OpenedRun) -> list[Any]:
    """Name, key numbers and verdict of a run as it stands now."""
    reading = run.reading
    state = [] if reading.finished else [
        html.Span(reading.run.state, className="state live" if reading.live else "state")]
    tiles = [html.Li([html.Span(tile.value, className="value"), html.Span(subscripted(tile.label), className="label"),
                      html.Span(tile.beside, className="against")]) for tile in tables.tiles(reading)]
    return [html.H2([html.Span(run.name, dir="auto"), " ", *state], id="run-title"),
            html.P(tables.subtitle(reading), className="subtitle"),
            *([html.Ul(tiles, className="tiles", **called("Key numbers"))] if tiles else []),
            html.Dl([html.Div([html.Dt(sentence.topic), html.Dd(_prose(sentence.text))])
                     for sentence in verdict(reading)], className="verdict")]


def run_curves(run: OpenedRun, place: int, dark: bool) -> list[Any]:
    """What was measured over the epochs, with a line at the epoch looked at."""
    reading = run.reading
    if not reading.measured:
        return []
    charts = {"distances": figures.distances(reading), "training": figures.training(reading),
              "collapse": figures.collapse(reading)}
    return [html.H2("Over training"),
            *(part for name, chart in charts.items()
              for part in picture(_marked(chart, place), f"run-{name}", dark))]


def epoch_position(run: OpenedRun, place: int) -> float:
    """Where the line of an epoch stands in the pictures over epochs."""
    return float(figures.distances(run.reading).positions[place])


def _marked(chart: Lines, place: int) -> Lines:
    return replace(chart, marks=(Mark("epoch looked at", float(chart.positions[place]), "ink", dashed=False),))


def epoch_tables(reading: Reading) -> Any:
    """The numbers of the last epoch read."""
    return html.Div([table(part(reading)) for part in (epoch_distances, epoch_measures, epoch_scores)],
                    className="beside")


def epoch_pictures(reading: Reading, dark: bool) -> list[Any]:
    """The last epoch read: Grams beside predicted ones, norms, accuracy and margins per class."""
    per_class = [picture(figures.accuracies(reading), "run-accuracies", dark),
                 picture(figures.margins(reading), "run-margins", dark)]
    return [*_grams(reading, dark), *picture(figures.norms(reading), "run-norms", dark),
            html.Div([html.Div(chart) for chart in per_class if chart], className="pair")]


def _grams(reading: Reading, dark: bool) -> list[Any]:
    chart = figures.grams(reading)
    if chart is not None:  # all that is measured in one row, what is predicted for it below
        rows = (*chart.panels[::2], *chart.panels[1::2])
        return picture(replace(chart, panels=rows, columns=len(rows) // 2), "run-grams", dark)
    k = reading.counts.k
    why = "The Gram matrices of this epoch were not kept." if k <= ONE_BY_ONE else \
        f"With {k:,} classes a run keeps no k × k matrices: below are groups of classes."
    return [html.P(why, className="hint")]


def nearest(run: OpenedRun, epoch: int) -> list[Any]:
    """The λ whose geometry is nearest to an epoch's Grams."""
    return [html.P(["λ", html.Sub("eff"), nearest_sentence(run.lambda_eff(epoch))])]


def comparison(runs: Sequence[OpenedRun], dark: bool) -> list[Any]:
    """Curves of several runs on one axis, and their last numbers."""
    if len(runs) < 2:
        return []
    compared = ComparedRuns(tuple(run.compared for run in runs), [])
    return [html.H2(f"{len(runs)} runs compared", id="compared"), html.P(compared.difference, className="subtitle"),
            *picture(figures.curves(compared, by_name=True), "runs-curves", dark, titled=False),
            table(last_numbers(compared))]


def epoch_marks(epochs: Sequence[int]) -> dict[int, str]:
    """What stands below the slider: as many of the epochs as have room, the first and the last among them."""
    last = len(epochs) - 1
    steps = range(min(_MARKED, last + 1))
    places = {round(step * last / max(len(steps) - 1, 1)) for step in steps}
    return {place: f"{epochs[place]:,}" for place in sorted(places)}


def _said(value: Any) -> str:
    return value if isinstance(value, str) and value else "–"


def _prose(text: str) -> list[Any]:
    """A sentence; what stands between backticks is set as code."""
    return [html.Code(part) if place % 2 else html.Span(subscripted(part))
            for place, part in enumerate(re.split(r"`([^`]+)`", text))]

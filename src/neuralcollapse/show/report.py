"""`write_report`: a run as one self-contained page.

The sections stand in the order a reader asks: what came out, what was trained, how far it is from theory, what the
geometry looks like, and how to do it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from neuralcollapse.files import write_text
from neuralcollapse.registry import references
from neuralcollapse.show import figures, tables
from neuralcollapse.show.charts import Chart, Heatmaps
from neuralcollapse.show.class_axis import ONE_BY_ONE
from neuralcollapse.show.decay import along_decay, decay_charts
from neuralcollapse.show.decay_sentences import decay_sentences
from neuralcollapse.show.frames import gram_frames
from neuralcollapse.show.markup import colour_bar, details, paragraph, prose, section, side_by_side, table
from neuralcollapse.show.page import Page
from neuralcollapse.show.reading import Reading, RunLike
from neuralcollapse.show.sentences import Sentence, verdict

_ALWAYS_CITED = ("thrampoulidis2022", "papyan2020", "behnia2023")


def write_report(run: RunLike | str | Path, path: str | Path | None = None) -> Path:
    """Write report.html: self-contained, readable from disk without a network, at any point of a run.

    Parameters
    ----------
    run : Run, or the path of a run folder
    path : str or Path, optional
        Where to write; `report.html` in the run folder when left out.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    InvalidInput
        Not a run folder, or a place that cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from neuralcollapse import TrainConfig, train
    >>> with TemporaryDirectory() as folder:
    ...     run = train(TrainConfig(epochs=2, threads=1, model_options={"width": 8}), f"{folder}/run")
    ...     write_report(run).name
    'report.html'
    """
    if isinstance(run, (str, Path)):
        from neuralcollapse.experiments.run import Run

        return write_report(Run.open(run), path)
    return write_text(run.path / "report.html" if path is None else Path(path), render(run))


def render(run: RunLike) -> str:
    """The report as text of HTML."""
    reading = Reading(run)
    name = tables.run_name(run)
    page = Page(f"{name} · neuralcollapse report")
    body = [_header(name, reading), _verdict(reading)]
    if reading.measured:
        body += _findings(page, reading)
    body += [section("trained", "What was trained", table(tables.trained(reading)),
                     details("Full configuration", table(tables.configuration(reading))),
                     details("Class by class", table(tables.classes(reading))) if tables.listed(reading) else ""),
             _reproduce(reading)]
    return page.html("\n".join(part for part in body if part))


def write_charts(title: str, charts: Sequence[Chart], path: Path) -> Path:
    """Write pictures alone as a self-contained page."""
    page = Page(title)
    parts = [page.figure(chart, f"figure-{place}", colour_bar(chart.limit) if isinstance(chart, Heatmaps) else "")
             for place, chart in enumerate(charts)]
    return write_text(path, page.html(f"<header><h1>{escape(title)}</h1></header>\n" + "\n".join(parts)))


# -- sections ---------------------------------------------------------------------------------------


def _header(name: str, reading: Reading) -> str:
    state = "" if reading.finished else f'<span class="state">{escape(reading.run.state)}</span>'
    return (f'<header><p class="kicker">neuralcollapse report {state}</p><h1>{escape(name)}</h1>'
            f'{paragraph(tables.subtitle(reading), "subtitle")}</header>')


def _verdict(reading: Reading) -> str:
    tiles = "".join(f'<li><span class="value">{escape(tile.value)}</span><span class="label">{escape(tile.label)}'
                    f'</span><span class="against">{escape(tile.beside)}</span></li>' for tile in tables.tiles(reading))
    row = f'<ul class="tiles" aria-label="Key numbers">{tiles}</ul>' if tiles else ""
    return section("verdict", "What came out", row, _statements(verdict(reading.run)))


def _statements(sentences: Sequence[Sentence]) -> str:
    items = "".join(f"<div><dt>{escape(sentence.topic)}</dt><dd>{prose(sentence.text)}</dd></div>"
                    for sentence in sentences)
    return f'<dl class="verdict">{items}</dl>'


def _findings(page: Page, reading: Reading) -> list[str]:
    run = reading.run
    return [
        section("distances", "Distance to the predicted geometry",
                page.figure(figures.distances(run), "distances", titled=False)),
        _grams(page, reading),
        section("norms", "Norms and angles, measured beside predicted",
                page.figure(figures.norms(run), "norms", titled=False),
                side_by_side(table(tables.norms(reading)), table(tables.angles(reading)))),
        _decay(page, reading),
        section("collapse", "Neural collapse, measure by measure",
                page.figure(figures.collapse(run), "collapse", titled=False)),
        section("accuracy", "Accuracy and margins", page.figure(figures.accuracies(run), "accuracy"),
                page.figure(figures.margins(run), "margins"), page.figure(figures.training(run), "training")),
        _rescue(reading),
    ]


def _grams(page: Page, reading: Reading) -> str:
    chart = figures.grams(reading.run)
    title = "Gram matrices, measured beside predicted"
    if chart is None:
        few = reading.counts.k <= ONE_BY_ONE
        why = ("The Gram matrices of this run were not kept." if few else
               f"With {reading.counts.k:,} classes the run keeps no k × k matrices: the norms and angles below say "
               "the same by groups of classes.")
        return section("grams", title, paragraph(why))
    frames = gram_frames(reading, chart)
    body = page.figure(chart, "grams", colour_bar(chart.limit) + _slider(frames["epochs"]), False)
    page.data["grams"] = frames
    for place in range(len(chart.panels)):  # the entries are in the frames
        del page.specs[f"grams-{place}"]["data"][0]["z"]
    return section("grams", title, body)


def _decay(page: Page, reading: Reading) -> str:
    found = along_decay(reading)
    if found is None:
        return ""
    charts = decay_charts(found)
    return section("decay", "Along the weight decay", _statements(decay_sentences(found)),
                   *(page.figure(chart, identity) for identity, chart in charts.items()))


def _rescue(reading: Reading) -> str:
    verdicts = reading.run.rescue
    if not verdicts:
        return ""
    lost = [Sentence(f"{one['name']} ({one['count']:g})", f"{one['kind'].capitalize()}. {one['rule']} {one['advice']}")
            for one in verdicts if one["kind"] != "safe"]
    return section("rescue", "What became of every class",
                   _statements(lost) if lost else paragraph("Every class is safe: the head decides it about as well as "
                                                            "the majority classes."),
                   table(tables.rescue(verdicts)))


def _slider(epochs: list[int]) -> str:
    if len(epochs) < 2:
        return ""
    last = len(epochs) - 1
    return (f'<p class="slider"><label for="epoch">Measured at epoch <output id="epoch-shown" for="epoch">{epochs[-1]}'
            f'</output></label><input type="range" id="epoch" min="0" max="{last}" step="1" value="{last}"></p>')


def _reproduce(reading: Reading) -> str:
    bibliography = references()
    sources: tuple[Any, ...] = (*_ALWAYS_CITED, *(reading.predicted.source if reading.measured else ()))
    entries = "\n\n".join(bibliography[key] for key in dict.fromkeys(sources) if key in bibliography)
    return section(
        "again", "Reproduce and cite", paragraph("On the same machine this gives the same numbers:"),
        f'<pre tabindex="0" aria-label="Command"><code>{escape(tables.command(reading.run))}</code></pre>',
        details("Versions and machine", table(tables.environment(reading))),
        paragraph("The predictions and measures on this page come from:"),
        f'<pre tabindex="0" aria-label="BibTeX entries"><code>{escape(entries)}</code></pre>')

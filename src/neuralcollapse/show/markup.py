"""HTML by hand: every text that comes from a run goes through `escape` here, and nowhere else is markup made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
import re
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.show.charts import (
    Bars,
    Chart,
    ClassPanel,
    Curve,
    Heatmap,
    Heatmaps,
    Level,
    Lines,
    ManyRuns,
    Mark,
    Sweep,
    legend_entries,
)
from neuralcollapse.show.palette import COLOURS
from neuralcollapse.show.wording import number, percent, with_subscripts

_ENTRIES_OF = 20  # classes up to which a table has every entry of a matrix
SUBSCRIPT = r"\1<sub>\2</sub>"
_SHAPES = {
    "circle": '<circle cx="14" cy="6" r="3.5"/>',
    "square": '<rect x="10.7" y="2.7" width="6.6" height="6.6"/>',
    "diamond": '<path d="M14 1.5 18.5 6 14 10.5 9.5 6Z"/>',
    "triangle": '<path d="M14 1.8 18.3 9.6H9.7Z"/>',
    "cross": '<path d="M10.5 2.5 17.5 9.5M17.5 2.5 10.5 9.5" stroke-width="2.4"/>',
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row, and a row of one cell names those below it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def table(content: Table) -> str:
    """An HTML table that scrolls sideways where it must."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in content.header)
    head = f"<thead><tr>{head}</tr></thead>" if any(content.header) else ""
    rows = "".join(_row(row, len(content.header)) for row in content.rows)
    label = escape(content.caption)
    return (f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption>{label}</caption>'
            f"{head}<tbody>{rows}</tbody></table></div>")


def _row(row: Sequence[str], width: int) -> str:
    if len(row) == 1:
        return f'<tr class="group"><th scope="rowgroup" colspan="{width}">{escape(row[0])}</th></tr>'
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr><th scope="row">{escape(row[0])}</th>{cells}</tr>'


def details(summary: str, body: str) -> str:
    """A part that opens on demand."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def prose(text: str) -> str:
    """A sentence; what stands between backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", with_subscripts(escape(text), SUBSCRIPT))


def side_by_side(*parts: str) -> str:
    """Parts beside each other where there is room."""
    return f'<div class="beside">{"".join(parts)}</div>'


def paragraph(text: str, css: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{css}"' if css else ""
    return f"<p{attribute}>{escape(text)}</p>"


def section(identity: str, title: str, *body: str) -> str:
    """A titled part of the page; empty when there is nothing in it."""
    content = "\n".join(part for part in body if part)
    if not content:
        return ""
    return (f'<section id="{identity}" aria-labelledby="{identity}-title">'
            f'<h2 id="{identity}-title">{escape(title)}</h2>\n{content}\n</section>')


def figure(chart: Chart, identity: str, extra: str = "", titled: bool = True) -> str:
    """The frame of a picture: title, legend, one place per panel, caption, and its numbers as a table.

    Parameters
    ----------
    chart : Chart
    identity : str
        Panels are drawn into the elements `identity`-0, `identity`-1, ….
    extra : str
        Markup between legend and panels.
    titled : bool
        False where a heading above says what the picture is.
    """
    height = "tall" if isinstance(chart.panels[0], Heatmap) else "flat"
    panels = "".join(
        f'<div class="panel">{_heading(chart, panel)}<div class="plot {height}" id="{identity}-{place}" role="img" '
        f'aria-label="{escape(f"{chart.title}: {panel.title}")}"></div></div>'
        for place, panel in enumerate(chart.panels))
    described = f'<span class="unseen"> {escape(chart.description)}</span>'
    caption = f"<figcaption>{with_subscripts(escape(chart.caption), SUBSCRIPT)}{described}</figcaption>"
    title = f"<h3>{escape(chart.title)}</h3>" if titled else ""
    numbers = chart_numbers(chart)
    return (f'<figure aria-label="{escape(chart.title)}">{title}{_legend(chart)}{extra}'
            f'<div class="panels columns-{chart.columns}">{panels}</div>{caption}'
            f'{details("The numbers of this figure", table(numbers)) if numbers else ""}</figure>')


def _heading(chart: Chart, panel: Any) -> str:
    return f"<h4>{escape(panel.title)}</h4>" if len(chart.panels) > 1 else ""


def _legend(chart: Chart) -> str:
    entries = legend_entries(chart)
    if len(entries) < 2:
        return ""
    bars = {bar.name for panel in chart.panels if isinstance(panel, ClassPanel) for bar in panel.bars}
    marks = isinstance(chart, Bars)
    bare = isinstance(chart, Lines) and not chart.dotted
    items = "".join(f"<li>{_swatch(entry, entry.name in bars, marks, bare)}"
                    f"{with_subscripts(escape(entry.name), SUBSCRIPT)}</li>" for entry in entries)
    return f'<ul class="legend" aria-label="Legend">{items}</ul>'


def _swatch(entry: Curve | Level | Mark, bar: bool, mark: bool, bare: bool) -> str:
    colour = f"var(--{entry.colour})"
    if bar:
        shape = f'<rect x="4" y="1" width="20" height="10" fill="{colour}"/>'
    elif isinstance(entry, Mark):
        dash = ' stroke-dasharray="3 2"' if entry.dashed else ""
        shape = (f'<path d="M14 0V12" stroke="{colour}" stroke-width="2"{dash}/>' if entry.end is None else
                 f'<rect x="6" y="0" width="16" height="12" fill="{colour}" opacity=".25"/>')
    elif isinstance(entry, Level):
        shape = f'<path d="M0 6H28" stroke="{colour}" stroke-width="2" stroke-dasharray="2 3"/>'
    else:
        dash = ' stroke-dasharray="6 3"' if entry.dashed else ""
        line = "" if mark else f'<path d="M0 6H28" stroke="{colour}" stroke-width="2"{dash}/>'
        marker = f'<g fill="{colour}" stroke="{colour}" stroke-width="0">{_SHAPES[entry.marker]}</g>'
        shape = line if bare else line + marker
    return f'<svg width="28" height="12" viewBox="0 0 28 12" aria-hidden="true">{shape}</svg>'


def chart_numbers(chart: Chart) -> Table | None:
    """The numbers of a picture as a table; None where that would be no table."""
    if isinstance(chart, ManyRuns):  # a column per run and panel would be no table; the page has one of last numbers
        return None
    if isinstance(chart, Lines):
        columns = [(f"{panel.title}: {curve.name}", curve.y, percent if panel.percent else number)
                   for panel in chart.panels for curve in panel.curves]
        form = ".3g" if isinstance(chart, Sweep) else ".0f"
        return _columns(chart.title, chart.x_label, [f"{x:{form}}" for x in chart.x], columns)
    if isinstance(chart, Heatmaps):
        return _matrices(chart) if len(chart.names) <= _ENTRIES_OF else None
    if isinstance(chart, Bars):
        columns = [(f"{panel.title}: {curve.name}", curve.y, percent if panel.percent else number)
                   for panel in chart.panels for curve in (*panel.bars, *panel.marks)]
        return _columns(chart.title, "class", chart.names, columns)
    return None


def _matrices(chart: Heatmaps) -> Table:
    rows: list[list[str]] = []
    for panel in chart.panels:
        rows += [[panel.title], *([name, *map(number, entries.tolist())] for name, entries in
                                  zip(chart.names, panel.values, strict=True))]
    return Table(chart.title, ["", *chart.names], rows)


def _columns(title: str, first: str, names: Iterable[str],
             columns: Sequence[tuple[str, Float[np.ndarray, " v"], Callable[[float | None], str]]]) -> Table:
    rows = [[name, *(show(float(y[i])) for _, y, show in columns)] for i, name in enumerate(names)]
    return Table(title, [first, *(name for name, _, _ in columns)], rows)


def colour_ticks(limit: float) -> list[str]:
    """What stands below the colour scale, from one end to the other: strength follows the square root."""
    return [number(limit * sign * step * step, 2) for sign, step in ((-1, 1), (-1, 0.5), (1, 0), (1, 0.5), (1, 1))]


def colour_bar(limit: float) -> str:
    """The one colour scale of all heatmaps, with its ends and middle."""
    ticks = "".join(f"<span>{escape(tick)}</span>" for tick in colour_ticks(limit))
    return f'<div class="colour-bar" aria-hidden="true"><div class="ramp"></div><div class="ticks">{ticks}</div></div>'


def colour_variables(dark: bool) -> str:
    """The palette as CSS custom properties."""
    return "".join(f"--{name}:{pair[int(dark)]};" for name, pair in COLOURS.items())

"""Charts and tables as parts of a page: what `markup.py` is to the report, in Dash's components.

Dash escapes every text it is given; plotly reads `<b>` in labels as markup, and `draw_plotly` escapes those.
"""

from __future__ import annotations

import json
from typing import Any

from dash import dcc, html

from neuralcollapse.show.charts import (
    Bars,
    Chart,
    ClassPanel,
    Curve,
    Heatmap,
    Heatmaps,
    Level,
    Lines,
    Mark,
    Space,
    SpacePanel,
    legend_entries,
)
from neuralcollapse.show.markup import Table, chart_numbers, colour_ticks
from neuralcollapse.show.palette import COLOURS, diverging_scale
from neuralcollapse.show.wording import SYMBOL

_DARK = dict(COLOURS.values())
_CONFIG: Any = {"displaylogo": False, "displayModeBar": False, "responsive": True}
_DECORATION: dict[str, Any] = {"aria-hidden": "true"}
_HOVER = {True: {"bgcolor": "#2a3137", "bordercolor": "#59646c", "font": {"color": "#e6eaed", "size": 12}},
          False: {"bgcolor": "#ffffff", "bordercolor": "#a3aeb6", "font": {"color": "#1d2327", "size": 12}}}


def picture(chart: Chart | None, identity: str, dark: bool = False, titled: bool = True) -> list[Any]:
    """A chart with title, legend, one graph per panel, caption, description for who cannot see it, and its numbers.

    Parameters
    ----------
    chart : Chart or None
        Nothing is shown for None.
    identity : str
        Panels are the graphs `identity`-0, `identity`-1, ….
    dark : bool
        Whether the page is dark.
    titled : bool
        False where a heading above says what the picture is.
    """
    if chart is None:
        return []
    height = "tall" if isinstance(chart.panels[0], Heatmap | SpacePanel) else "flat"
    panels = [html.Div([*([html.H4(subscripted(panel.title))] if len(chart.panels) > 1 else []),
                        html.Div(graph(dressed(chart.panel(place).plotly(), dark), f"{identity}-{place}"),
                                 className=f"plot {height}", role="img",
                                 **called(f"{chart.title}: {panel.title}"))], className="panel")
              for place, panel in enumerate(chart.panels)]
    numbers = chart_numbers(chart)
    caption = [*subscripted(chart.caption), html.Span(f" {chart.description}", className="unseen")]
    return [html.Figure([
        *([html.H3(subscripted(chart.title))] if titled else []), *_legend(chart),
        *([_colour_bar(chart.limit)] if isinstance(chart, Heatmaps) else []),
        html.Div(panels, className=f"panels columns-{chart.columns}"), html.Figcaption(caption),
        *([html.Details([html.Summary("The numbers of this figure"), table(numbers)])] if numbers else [])])]


def graph(figure: dict[str, Any], identity: str, config: dict[str, Any] | None = None) -> Any:
    """A plotly figure that fills the element it stands in."""
    return dcc.Graph(id=identity, figure=figure, config=_CONFIG | (config or {}), responsive=True,
                     style={"height": "100%"})


def dressed(figure: Any, dark: bool) -> dict[str, Any]:
    """A plotly figure in the colours of the theme, as JSON."""
    plain = json.loads(figure.to_json())
    layout = {name: value for name, value in plain["layout"].items() if name != "height"}
    layout |= {"autosize": True, "dragmode": False, "hoverlabel": _HOVER[dark]}
    # Only colours are touched: a class may be called "#0072B2".
    themed: dict[str, Any] = _themed({"data": plain["data"], "layout": layout}, dark)
    return themed


def _themed(value: Any, dark: bool, key: str = "") -> Any:
    if key == "colorscale":
        return [list(stop) for stop in diverging_scale(dark)]
    if isinstance(value, list):
        return [_themed(item, dark) for item in value]
    if isinstance(value, dict):
        return {name: _themed(item, dark, name) for name, item in value.items()}
    if dark and key in ("color", "fillcolor"):
        return _DARK.get(value, "#15191c" if value == "#ffffff" else value)
    return value


def table(content: Table) -> Any:
    """A table that scrolls sideways where it must; its first column names the rows."""
    head = [html.Thead(html.Tr([html.Th(text, scope="col") for text in content.header]))] if any(content.header) else []
    rows = [html.Tr(html.Th(row[0], scope="rowgroup", colSpan=len(content.header)), className="group")
            if len(row) == 1 else
            html.Tr([html.Th(row[0], scope="row"), *(html.Td(cell) for cell in row[1:])]) for row in content.rows]
    return html.Div(html.Table([html.Caption(content.caption), *head, html.Tbody(rows)]), className="scroll",
                    role="region", tabIndex="0", **called(content.caption))


def called(name: str) -> dict[str, Any]:
    """What a component is called by a screen reader."""
    return {"aria-label": name}


def attribute(name: str, value: str) -> dict[str, Any]:
    """An attribute such as aria-live or data-copies, which is no name in Python."""
    return {name: value}


def subscripted(text: str) -> list[Any]:
    """A text with its symbols such as D_W set with their index below."""
    parts: list[Any] = []
    for place, part in enumerate(SYMBOL.split(text)):
        kind = place % 3
        parts.append(html.Sub(part) if kind == 2 else part)
    return [part for part in parts if part != ""]


def _legend(chart: Chart) -> list[Any]:
    entries = legend_entries(chart)
    if len(entries) < 2:
        return []
    bars = {bar.name for panel in chart.panels if isinstance(panel, ClassPanel) for bar in panel.bars}
    items = [html.Li([html.Span(className=f"swatch {_kind(entry, chart, entry.name in bars)}",
                                style={"color": f"var(--{entry.colour})"}), *subscripted(entry.name)])
             for entry in entries]
    return [html.Ul(items, className="legend", **called("Legend"))]


def _kind(entry: Curve | Level | Mark, chart: Chart, bar: bool) -> str:
    if bar:
        return "bar"
    if isinstance(entry, Mark):
        return "upright" if entry.end is None else "band"
    if isinstance(entry, Level):
        return "line dotted"
    if isinstance(chart, Bars):
        return f"marker {entry.marker}"
    dash = "line dashed" if entry.dashed else "line"
    dotted = isinstance(chart, Space) or (isinstance(chart, Lines) and chart.dotted)
    return f"{dash} marker {entry.marker}" if dotted else dash


def _colour_bar(limit: float) -> Any:
    ticks = [html.Span(tick) for tick in colour_ticks(limit)]
    return html.Div([html.Div(className="ramp"), html.Div(ticks, className="ticks")], className="colour-bar",
                    **_DECORATION)

"""The pictures in plotly: interactive, on a transparent background, so that a page can set its own colours.

Class names reach plotly escaped, because it reads `<b>` and `<a href>` in labels as markup.
"""

from __future__ import annotations

from functools import singledispatch
from html import escape
from typing import Any

from jaxtyping import Float
import numpy as np
import plotly.graph_objects as go

from neuralcollapse.show.charts import (
    Arrows,
    Bars,
    Chart,
    ClassPanel,
    Curve,
    Heatmaps,
    Lines,
    Panel,
    Space,
    legend_entries,
    panel_parts,
)
from neuralcollapse.show.palette import COLOURS, MARKERS, diverging_scale
from neuralcollapse.show.ticks import log_ticks
from neuralcollapse.show.wording import with_subscripts

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_GRID = "rgba(128,128,128,0.25)"
_HALVED = 5  # the length of an axis below which plotly may set ticks between whole numbers


@singledispatch
def draw(chart: Chart) -> go.Figure:
    """The figure of a chart; one panel alone is drawn without title and legend, which the page then gives."""
    # Put together as plain data: plotly's own update methods take thirty times as long, too long for the explorer.
    return go.Figure(_parts(chart), _validate=False)


@singledispatch
def _parts(chart: Chart) -> dict[str, Any]:
    raise TypeError(f"no plotly drawer for {type(chart).__name__}")


def _whole_x(chart: Lines) -> dict[str, Any]:
    """A linear axis from 0 on; whole ticks where plotly would halve them."""
    return {"rangemode": "tozero"} | ({"dtick": 1} if chart.positions.max(initial=0) < _HALVED else {})


@_parts.register
def _(chart: Lines) -> dict[str, Any]:
    figure = _grid(chart, height=300)
    unnamed = _to_name(chart)
    ticks = chart.ticks()
    for place, panel in enumerate(chart.panels):
        at = _axes_of(place)
        for curve in panel.curves:
            figure["data"].append(_line(chart, panel, curve, curve.name in unnamed) | at)
        for level in panel.levels:
            figure["data"].append(_level(chart, level, level.name in unnamed) | at)
        unnamed -= {part.name for part in panel_parts(panel)}
        _add_marks(figure["layout"], chart, place, unnamed)
        x = {"type": "log", "tickvals": ticks[0], "ticktext": ticks[1]} if chart.log_x else _whole_x(chart)
        if chart.x_limits is not None:
            x["range"] = np.log10(chart.x_limits).tolist()
        _update(figure, "x", place, title={"text": chart.x_label}, **x)
        y_label = with_subscripts(panel.y_label, r"\1<sub>\2</sub>")
        _update(figure, "y", place, title={"text": y_label}, **_y_scale(chart, panel))
    return figure


@_parts.register
def _(chart: Heatmaps) -> dict[str, Any]:
    figure = _grid(chart, height=420)
    long = max(map(len, chart.names)) > 3 or len(chart.names) > 20
    names = [escape(name, quote=False) for name in chart.names]
    for place, panel in enumerate(chart.panels):
        figure["data"].append({
            "type": "heatmap", "z": panel.values.astype(np.float32), "x": names, "y": names, "coloraxis": "coloraxis",
            "hovertemplate": "%{y} · %{x}: %{z:.4f}<extra></extra>"} | _axes_of(place))
        axis: dict[str, Any] = {"type": "category", "showgrid": False, "constrain": "domain",
                                "tickvals": _some(names, 20)}
        _update(figure, "x", place, **axis, tickangle=-60 if long else 0)
        _update(figure, "y", place, **axis, autorange="reversed", scaleanchor=_axes_of(place)["xaxis"])
    figure["layout"]["coloraxis"] = {
        "cmin": -chart.limit, "cmax": chart.limit, "showscale": len(chart.panels) > 1,
        "colorscale": [list(stop) for stop in diverging_scale()], "colorbar": {"thickness": 12, "outlinewidth": 0}}
    return figure


@_parts.register
def _(chart: Bars) -> dict[str, Any]:
    figure = _grid(chart, height=320)
    names = [escape(name, quote=False) for name in chart.names]
    labelled = _some(names, 16 if len(names) > 32 else 32)
    unnamed = _to_name(chart)
    for place, panel in enumerate(chart.panels):
        for trace in _class_traces(panel, names):
            figure["data"].append(trace | _axes_of(place) | {"showlegend": trace["legendgroup"] in unnamed})
        unnamed -= {part.name for part in panel_parts(panel)}
        _update(figure, "x", place, type="category", showgrid=False, tickvals=labelled)
        _update(figure, "y", place, title={"text": panel.y_label},
                **({"tickformat": ".0%", "range": [0, 1.03]} if panel.percent else {"rangemode": "tozero"}))
    figure["layout"] |= {"barmode": "overlay", "bargap": 0.25 if len(names) <= 60 else 0.05}
    return figure


@_parts.register
def _(chart: Space) -> dict[str, Any]:
    """One panel: a second scene would need a second camera."""
    hidden = {"visible": False, "range": [-1.0, 1.0]}
    layout = {
        "template": {}, "paper_bgcolor": "rgba(0,0,0,0)", "height": 420, "showlegend": False,
        "font": {"family": FONT, "size": 12, "color": COLOURS["ink"][0]}, "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "hoverlabel": {"font": {"family": FONT}},
        "scene": {"aspectmode": "cube", "dragmode": "orbit", "xaxis": hidden, "yaxis": hidden, "zaxis": hidden,
                  "camera": {"eye": {"x": 0.8, "y": 0.8, "z": 0.5}}}}
    return {"data": [trace for arrows in chart.panels[0].arrows for trace in _arrows(arrows)], "layout": layout}


# -- traces -----------------------------------------------------------------------------------------


def _line(chart: Lines, panel: Panel, curve: Curve, first: bool) -> dict[str, Any]:
    colour = COLOURS[curve.colour][0]
    value = "%{y:.1%}" if panel.percent else "%{y:.4g}"
    drawn = chart.drawn(curve)
    return {
        "type": "scatter", "x": _plain(chart.positions[drawn]), "y": _plain(curve.y[drawn]),
        "customdata": _plain(chart.x[drawn]), "name": escape(curve.name, quote=False),
        "mode": "lines+markers" if chart.dotted else "lines", "legendgroup": curve.name, "showlegend": first,
        "line": {"color": colour, "width": 2, "dash": "dash" if curve.dashed else "solid"},
        "marker": {"color": colour, "size": 6, "symbol": MARKERS[curve.marker][0]},
        "hovertemplate": f"{chart.x_label} %{{customdata}}: {value}"}


def _add_marks(layout: dict[str, Any], chart: Lines, place: int, unnamed: set[str]) -> None:
    """Vertical lines and bands as shapes over the whole height, their labels above the panel."""
    at = _axes_of(place)
    for mark in chart.marks:
        colour = COLOURS[mark.colour][0]
        look: dict[str, Any] = (
            {"type": "line", "x1": mark.x, "line": {"color": colour, "width": 1.4 if mark.dashed else 2,
                                                    "dash": "dash" if mark.dashed else "solid"}}
            if mark.end is None else
            {"type": "rect", "x1": mark.end, "fillcolor": colour, "opacity": 0.18, "line": {"width": 0}})
        layout.setdefault("shapes", []).append({
            "xref": at["xaxis"], "yref": f"{at['yaxis']} domain", "x0": mark.x, "y0": 0, "y1": 1, "layer": "below",
            "name": escape(mark.name, quote=False), "legendgroup": mark.name, "showlegend": mark.name in unnamed,
            **look})
        unnamed.discard(mark.name)
    labels = chart.labels()
    if not labels:
        return
    rows = max(label.row + 1 for label in labels)
    layout["margin"]["t"] = max(layout["margin"]["t"], 6 + 12 * rows)
    if len(chart.panels) > 1:
        layout["annotations"][place]["yshift"] = 12 * rows
    layout.setdefault("annotations", []).extend(
        {"xref": f"{at['xaxis']} domain", "yref": f"{at['yaxis']} domain", "x": label.at, "y": 1, "yanchor": "bottom",
         "yshift": 1 + 12 * label.row, "text": escape(label.text, quote=False), "showarrow": False,
         "font": {"size": 10, "color": COLOURS[label.colour][0]}} for label in labels)


def _level(chart: Lines, level: Any, first: bool) -> dict[str, Any]:
    ends = chart.positions[[0, -1]] if chart.x.size else np.array([0.0, 1.0])
    return {"type": "scatter", "x": _plain(ends), "y": _plain(np.array([level.y, level.y])),
            "name": escape(level.name, quote=False), "mode": "lines", "legendgroup": level.name, "showlegend": first,
            "hovertemplate": "predicted %{y:.4g}",
            "line": {"color": COLOURS[level.colour][0], "width": 1.5, "dash": "dot"}}


def _class_traces(panel: ClassPanel, names: list[str]) -> list[dict[str, Any]]:
    value = "%{y:.1%}" if panel.percent else "%{y:.4f}"
    few = len(names) <= 60

    def shared(part: Curve) -> dict[str, Any]:
        return {"x": names, "y": _plain(part.y), "name": escape(part.name, quote=False), "legendgroup": part.name,
                "hovertemplate": f"%{{x}}: {value}"}

    bars = [{"type": "bar", **shared(bar), "marker": {"color": COLOURS[bar.colour][0], "line": {"width": 0}}}
            for bar in panel.bars]
    marks = [{"type": "scatter", **shared(mark), "mode": "markers", "marker": {
        "color": COLOURS[mark.colour][0], "symbol": MARKERS[mark.marker][0], "size": 9 if few else 5,
        "line": {"width": 1.5 if few else 0.5, "color": "#ffffff"}}} for mark in panel.marks]
    return [*bars, *marks]


def _arrows(arrows: Arrows) -> list[dict[str, Any]]:
    """Shafts and heads as one line, and a marker at each end to point at."""
    colour = COLOURS[arrows.colour][0]
    shafts = np.stack([np.zeros_like(arrows.ends), arrows.ends, np.full_like(arrows.ends, np.nan)], axis=1)
    heads = np.concatenate([_barbs(end) for end in arrows.ends])
    shared = {"type": "scatter3d", "name": escape(arrows.name, quote=False), "legendgroup": arrows.name,
              "showlegend": False}
    lines = [{**_axes(points), **shared, "mode": "lines", "hoverinfo": "skip",
              "line": {"color": colour, "width": 5, "dash": dash}}
             for points, dash in ((shafts.reshape(-1, 3), "dash" if arrows.dashed else "solid"), (heads, "solid"))]
    ends = {**_axes(arrows.ends), **shared, "mode": "markers", "hovertemplate": "%{text}<extra></extra>",
            "text": [escape(label, quote=False) for label in arrows.labels],
            "marker": {"color": colour, "size": 4, "symbol": MARKERS[arrows.marker][0]}}
    return [*lines, ends]


def _axes(points: Float[np.ndarray, "p 3"]) -> dict[str, Any]:
    return {name: _plain(values) for name, values in zip("xyz", points.T, strict=True)}


def _barbs(end: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "s 3"]:
    """The head of an arrow: four short lines, each followed by a gap."""
    length = float(np.linalg.norm(end))
    if length == 0:
        return np.empty((0, 3))
    foot = end * (1 - 0.07 / max(length, 0.14))
    across = np.linalg.svd(end[None])[2][1:]
    return np.array([point for normal in across for side in (-1, 1)
                     for point in (foot + side * 0.03 * normal, end, np.full(3, np.nan))])


def _to_name(chart: Chart) -> set[str]:
    return {entry.name for entry in legend_entries(chart)} if len(chart.panels) > 1 else set()


# -- layout -----------------------------------------------------------------------------------------


def _grid(chart: Chart, height: int) -> dict[str, Any]:
    """Axes for every panel, row by row from the top, and the titles above them."""
    rows, columns = -(-len(chart.panels) // chart.columns), chart.columns
    alone = len(chart.panels) == 1
    across = _shares(columns, 0.32 / max(columns, 2) if rows * columns > 1 else 0.0)
    down = [[1 - high, 1 - low] for low, high in _shares(rows, 0.3 / max(rows, 2))]
    layout: dict[str, Any] = {
        "template": {}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "height": height * rows,
        "font": {"family": FONT, "size": 12, "color": COLOURS["ink"][0]}, "hoverlabel": {"font": {"family": FONT}},
        "margin": {"l": 8, "r": 8, "t": 8 if alone else 40, "b": 8}, "showlegend": not alone,
        "legend": {"orientation": "h", "y": -0.18 / rows, "yanchor": "top"}}
    for place, panel in enumerate(chart.panels):
        at, x, y = _axes_of(place), across[place % columns], down[place // columns]
        layout[_layout_name("x", place)] = _axis(at["yaxis"], x)
        layout[_layout_name("y", place)] = _axis(at["xaxis"], y)
        if not alone:
            layout.setdefault("annotations", []).append(
                {"text": panel.title, "x": sum(x) / 2, "y": y[1], "xref": "paper", "yref": "paper",
                 "xanchor": "center", "yanchor": "bottom", "showarrow": False, "font": {"size": 16}})
    return {"data": [], "layout": layout}


def _shares(parts: int, gap: float) -> list[list[float]]:
    """[0, 1] in equal parts with gaps between them."""
    size = (1 - gap * (parts - 1)) / parts
    return [[part * (size + gap), part * (size + gap) + size] for part in range(parts)]


def _axis(anchor: str, domain: list[float]) -> dict[str, Any]:
    return {"anchor": anchor, "domain": domain, "gridcolor": _GRID, "zerolinecolor": _GRID,
            "linecolor": "rgba(128,128,128,0.6)", "automargin": True, "title": {"standoff": 6}}


def _axes_of(place: int) -> dict[str, str]:
    """The axes of a panel, as its traces name them."""
    suffix = str(place + 1) if place else ""
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def _layout_name(axis: str, place: int) -> str:
    return f"{axis}axis{place + 1 if place else ''}"


def _update(figure: dict[str, Any], axis: str, place: int, title: dict[str, Any] | None = None, **values: Any) -> None:
    own = figure["layout"][_layout_name(axis, place)]
    own["title"] |= title or {}
    own |= values


def _y_scale(chart: Lines, panel: Panel) -> dict[str, Any]:
    if panel.percent:
        top = float(panel.values().max(initial=0.0))
        return {"tickformat": ".0%" if top > 0.05 else ".1~%", "rangemode": "tozero"}
    limits = chart.y_limits
    if panel.log_y:
        values = panel.values()
        low, high = limits or (float(values.min()) / 1.25, float(values.max()) * 1.25)
        ticks, labels = log_ticks(low, high)
        return {"type": "log", "tickvals": ticks, "ticktext": labels,
                "range": [float(np.log10(low)), float(np.log10(high))]}
    if panel.signed:
        return {"rangemode": "normal"}
    return {"rangemode": "tozero"} if limits is None else {"range": list(limits)}


def _some(names: list[str], most: int) -> list[str]:
    """Evenly spaced names, so that labels do not run into each other."""
    return names[::-(-len(names) // most)]


def _plain(values: Float[np.ndarray, " v"]) -> list[float | None]:
    """Numbers as short text: five digits are more than a screen shows and keep the page small."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in values.tolist()]

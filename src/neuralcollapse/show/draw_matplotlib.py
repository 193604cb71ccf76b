"""The pictures in matplotlib, for papers and the README. No pyplot: no global state, no window, nothing to close."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
import numpy as np

from neuralcollapse.show.charts import (
    Bars,
    Chart,
    ClassPanel,
    Heatmaps,
    Lines,
    Panel,
    Space,
    legend_entries,
)
from neuralcollapse.show.palette import COLOURS, MARKERS, diverging_scale
from neuralcollapse.show.ticks import log_ticks
from neuralcollapse.show.wording import with_subscripts

_MOST_LABELS = 24


@singledispatch
def draw(chart: Chart, into: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """The figure of a chart."""
    raise TypeError(f"no matplotlib drawer for {type(chart).__name__}")


@draw.register
def _(chart: Lines, into: Figure | SubFigure | None = None) -> Figure | SubFigure:
    figure, cells = _cells(chart, into, (3.4, 2.8))
    for axes, panel in zip(cells, chart.panels, strict=True):
        _draw_curves(axes, chart, panel)
        rows = _draw_marks(axes, chart)
        axes.set_title(panel.title, fontsize=10, pad=6 + 9 * rows)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(_math(panel.y_label))
        _despine(axes)
    _legend(chart, figure, cells)
    return figure


@draw.register
def _(chart: Heatmaps, into: Figure | SubFigure | None = None) -> Figure | SubFigure:
    figure, cells = _cells(chart, into, (3.2, 3.0))
    colours = LinearSegmentedColormap.from_list("signed root", diverging_scale())
    image = None
    for place, (axes, panel) in enumerate(zip(cells, chart.panels, strict=True)):
        image = axes.imshow(panel.values, cmap=colours, vmin=-chart.limit, vmax=chart.limit, interpolation="nearest")
        axes.set_title(panel.title, fontsize=10)
        _name_classes(axes, chart.names, turned=max(map(len, chart.names)) > 3)
        axes.set_yticks(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], fontsize=7)
        axes.tick_params(labelleft=place % chart.columns == 0)
    if image is not None:
        figure.colorbar(image, ax=cells, shrink=0.8, pad=0.02)
    return figure


@draw.register
def _(chart: Bars, into: Figure | SubFigure | None = None) -> Figure | SubFigure:
    figure, cells = _cells(chart, into, (4.4, 2.9))
    for axes, panel in zip(cells, chart.panels, strict=True):
        _draw_classes(axes, panel, len(chart.names))
        axes.set_title(panel.title, fontsize=10)
        axes.set_ylabel(panel.y_label)
        _name_classes(axes, chart.names, turned=max(map(len, chart.names)) > 3)
        _despine(axes)
    _legend(chart, figure, cells)
    return figure


@draw.register
def _(chart: Space, into: Figure | SubFigure | None = None) -> Figure | SubFigure:
    figure = into if into is not None else Figure(figsize=(4.6, 4.8), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    for arrows in chart.panels[0].arrows:
        x, y, z = arrows.ends.T
        origin = np.zeros(x.size)
        axes.quiver(origin, origin, origin, x, y, z, color=COLOURS[arrows.colour][0], linewidth=1.5,
                    linestyle="--" if arrows.dashed else "-", arrow_length_ratio=0.1)
        axes.plot(x, y, z, linestyle="none", marker=MARKERS[arrows.marker][1], color=COLOURS[arrows.colour][0],
                  markersize=3.5, label=arrows.name)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1), box_aspect=(1, 1, 1))
    axes.set_axis_off()
    axes.set_title(chart.panels[0].title, fontsize=10)
    _legend(chart, figure, [axes])
    return figure


def _draw_curves(axes: Axes, chart: Lines, panel: Panel) -> None:
    for curve in panel.curves:
        drawn = chart.drawn(curve)
        axes.plot(chart.positions[drawn], curve.y[drawn], color=COLOURS[curve.colour][0], label=curve.name,
                  markersize=3.5, marker=MARKERS[curve.marker][1] if chart.dotted else None,
                  linestyle="--" if curve.dashed else "-", linewidth=1.6)
    for level in panel.levels:
        axes.axhline(level.y, color=COLOURS[level.colour][0], linestyle=":", linewidth=1.3, label=level.name)
    if chart.log_x:
        axes.set_xscale("log")
        axes.set_xticks(*chart.ticks())
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    if panel.log_y:
        low, high = chart.y_limits or (float(panel.values().min()) / 1.25, float(panel.values().max()) * 1.25)
        axes.set_yscale("log")
        axes.set_yticks(*log_ticks(low, high))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(low, high)
    elif panel.signed:
        axes.axhline(0, color="0.6", linewidth=0.6, zorder=1)
    else:
        axes.set_ylim(bottom=0)
    if chart.y_limits is not None:
        axes.set_ylim(*chart.y_limits)
    if panel.percent:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def _draw_marks(axes: Axes, chart: Lines) -> int:
    """Vertical lines and bands with their labels above the panel; how many rows those take."""
    for mark in chart.marks:
        colour = COLOURS[mark.colour][0]
        if mark.end is not None:
            axes.axvspan(mark.x, mark.end, color=colour, alpha=0.18, linewidth=0, label=mark.name)
        else:
            axes.axvline(mark.x, color=colour, linestyle=(0, (4, 3)) if mark.dashed else "-",
                         linewidth=1.1 if mark.dashed else 1.5, label=mark.name, zorder=1.5)
    if chart.x_limits is not None:
        axes.set_xlim(*chart.x_limits)
    labels = chart.labels()
    for label in labels:
        axes.annotate(label.text, (label.at, 1), (0, 3 + 9 * label.row), xycoords="axes fraction",
                      textcoords="offset points", ha="center", fontsize=7, color=COLOURS[label.colour][0])
    return max((label.row + 1 for label in labels), default=0)


def _draw_classes(axes: Axes, panel: ClassPanel, places: int) -> None:
    x = np.arange(places)
    for bar in panel.bars:
        axes.bar(x, bar.y, width=0.75, color=COLOURS[bar.colour][0], label=bar.name, alpha=0.85)
    for mark in panel.marks:
        axes.plot(x, mark.y, linestyle="none", marker=MARKERS[mark.marker][1], color=COLOURS[mark.colour][0],
                  markersize=5 if places <= 60 else 2.5, markeredgecolor="white", markeredgewidth=0.7, label=mark.name)
    if panel.percent:
        axes.set_ylim(0, 1.03)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


# -- layout -----------------------------------------------------------------------------------------


def _cells(chart: Chart, into: Figure | SubFigure | None,
           size: tuple[float, float]) -> tuple[Figure | SubFigure, list[Axes]]:
    rows = -(-len(chart.panels) // chart.columns)
    figure = into if into is not None else Figure(
        figsize=(size[0] * chart.columns, size[1] * rows + 0.3), layout="constrained")
    cells = figure.subplots(rows, chart.columns, squeeze=False).ravel().tolist()
    for unused in cells[len(chart.panels):]:
        unused.remove()
    return figure, cells[:len(chart.panels)]


def _name_classes(axes: Axes, names: tuple[str, ...], turned: bool) -> None:
    step = -(-len(names) // _MOST_LABELS)
    places = np.arange(0, len(names), step)
    # A dollar sign would start mathematics.
    axes.set_xticks(places, [names[i].replace("$", r"\$") for i in places], fontsize=7)
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=60, horizontalalignment="right", rotation_mode="anchor")


def _despine(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(chart: Chart, figure: Any, cells: list[Axes]) -> None:
    named = [entry.name for entry in legend_entries(chart)]
    entries: dict[str, Any] = {}
    for axes in cells:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if len(named) > 1:
        figure.legend([entries[name] for name in named], [_math(name) for name in named], loc="outside lower center",
                      ncols=min(len(named), max(4, 2 * chart.columns)), frameon=False, fontsize=8)


def _math(text: str) -> str:
    return with_subscripts(text, r"$\1_\2$")

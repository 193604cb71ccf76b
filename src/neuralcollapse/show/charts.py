"""Kinds of picture as plain data: curves over epochs or along λ, heatmaps with one scale, values per class.

A picture is prepared once (`figures.py`) and drawn by plotly (report, explorer) or matplotlib (papers, README)
from the same numbers: `chart.plotly()`, `chart.matplotlib()`. Neither library is imported before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Bool, Float
import numpy as np

from neuralcollapse.show.ticks import log_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_LETTER = 0.026  # width of a letter above a narrow panel, as a share of its axis
_SAME_PLACE = 0.012


@dataclass(frozen=True)
class Curve:
    """One line of a panel; NaN where nothing was measured."""

    name: str
    y: Float[np.ndarray, " e"]
    colour: str
    marker: str = "circle"
    dashed: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line: what is predicted."""

    name: str
    y: float
    colour: str


@dataclass(frozen=True)
class Mark:
    """A vertical line through every panel, or a band when it has a second end; `label` stands above it."""

    name: str
    x: float
    colour: str
    label: str = ""
    dashed: bool = True
    end: float | None = None


@dataclass(frozen=True)
class Panel:
    """Axes with curves; `signed` where values may be negative."""

    title: str
    y_label: str
    curves: tuple[Curve, ...]
    levels: tuple[Level, ...] = ()
    log_y: bool = False
    percent: bool = False
    signed: bool = False

    def values(self) -> Float[np.ndarray, " v"]:
        """Every finite value drawn."""
        every = np.concatenate([*(curve.y for curve in self.curves), [level.y for level in self.levels]])
        return every[np.isfinite(every)]


@dataclass(frozen=True)
class ClassPanel:
    """Axes with one bar per class, and marks over it."""

    title: str
    y_label: str
    bars: tuple[Curve, ...]
    marks: tuple[Curve, ...] = ()
    percent: bool = False


@dataclass(frozen=True)
class Heatmap:
    """One k × k matrix."""

    title: str
    values: Float[np.ndarray, "k k"]


@dataclass(frozen=True)
class Arrows:
    """Arrows of one look from the origin; `labels` say which class each is."""

    name: str
    ends: Float[np.ndarray, "m 3"]
    labels: tuple[str, ...]
    colour: str
    marker: str = "circle"
    dashed: bool = False

    @property
    def key(self) -> Curve:
        """What stands for them in a legend."""
        return Curve(self.name, np.empty(0), self.colour, self.marker, self.dashed)


@dataclass(frozen=True)
class SpacePanel:
    """A space of three dimensions with arrows."""

    title: str
    arrows: tuple[Arrows, ...]


@dataclass(frozen=True)
class Chart:
    """What all pictures have: a title, a caption, and a description for who cannot see it."""

    title: str
    caption: str
    description: str
    panels: tuple[Any, ...]
    columns: int

    def panel(self, i: int) -> Chart:
        """The i-th panel as a picture of its own."""
        return replace(self, panels=(self.panels[i],), columns=1)

    def plotly(self) -> Any:
        """The picture as a plotly Figure."""
        from neuralcollapse.show import draw_plotly
        return draw_plotly.draw(self)

    def matplotlib(self, into: Figure | SubFigure | None = None) -> Any:
        """The picture as a matplotlib Figure, or drawn into the (sub)figure given."""
        from neuralcollapse.show import draw_matplotlib
        return draw_matplotlib.draw(self, into)


@dataclass(frozen=True)
class Lines(Chart):
    """Panels of curves over epochs."""

    x: Float[np.ndarray, " e"]
    log_x: bool
    y_limits: tuple[float, float] | None = None
    marks: tuple[Mark, ...] = ()
    x_label: ClassVar[str] = "epoch"

    @property
    def dotted(self) -> bool:
        """Whether every value gets a marker of its own."""
        return self.x.size <= 60

    @property
    def x_limits(self) -> tuple[float, float] | None:
        """The ends of the axis; None where they follow from the curves."""
        return None

    def labels(self) -> list[PlacedLabel]:
        """Where the labels of the marks stand."""
        return []

    @property
    def positions(self) -> Float[np.ndarray, " e"]:
        """Where the epochs stand: on a logarithmic axis epoch 0 stands one half before epoch 1."""
        return np.maximum(self.x, 0.5) if self.log_x else self.x

    def drawn(self, curve: Curve) -> Bool[np.ndarray, " e"]:
        """Which values of a curve are drawn; a missing number leaves a gap."""
        return np.ones(curve.y.shape, dtype=bool)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Tick positions and labels of a logarithmic epoch axis."""
        top = float(self.x.max(initial=1))
        decades = [float(10**p) for p in range(8) if 10**p <= top]
        steps = decades if len(decades) > 2 else sorted(
            {d * f for d in decades for f in (1, 2, 5) if d * f <= top})
        zero = ([0.5], ["0"]) if self.x.min(initial=1) < 1 else ([], [])
        return zero[0] + steps, zero[1] + [f"{step:g}" for step in steps]


@dataclass(frozen=True)
class ManyRuns(Lines):
    """Panels with a curve per run over all of their epochs, each drawn through the epochs it was measured at."""

    def drawn(self, curve: Curve) -> Bool[np.ndarray, " e"]:
        """Where there is a number: other runs were measured at other epochs."""
        return np.isfinite(curve.y)


@dataclass(frozen=True)
class PlacedLabel:
    """A mark's label: its centre as a share of the axis, in a row above the panel, 0 the lowest."""

    text: str
    at: float
    row: int
    colour: str


@dataclass(frozen=True)
class Sweep(Lines):
    """Panels of curves along the ridge λ, on a logarithmic axis."""

    x_label: ClassVar[str] = "λ"

    @property
    def dotted(self) -> bool:
        """Curves along λ are smooth: no markers."""
        return False

    @property
    def positions(self) -> Float[np.ndarray, " e"]:
        """λ itself."""
        return self.x

    @property
    def x_limits(self) -> tuple[float, float]:
        """All of the curves and all of the marks."""
        places = [float(self.x[0]), float(self.x[-1]), *(mark.x for mark in self.marks if mark.end is None)]
        low, high = min(places), max(places)
        return (low, high) if low < high else (low / 1.25, high * 1.25)  # a path of one point so far

    def ticks(self) -> tuple[list[float], list[str]]:
        """Ticks of λ."""
        return log_ticks(*self.x_limits)

    def labels(self) -> list[PlacedLabel]:
        """The marks' labels, those at one place joined, in as many rows as keep them apart."""
        low, high = np.log(self.x_limits)
        joined: list[tuple[float, Mark, str]] = []
        for mark in sorted((mark for mark in self.marks if mark.label), key=lambda mark: mark.x):
            at = float((np.log(mark.x) - low) / (high - low))
            if joined and at - joined[-1][0] < _SAME_PLACE:
                joined[-1] = (joined[-1][0], mark, f"{joined[-1][2]}, {mark.label}")
            else:
                joined.append((at, mark, mark.label))
        placed: list[PlacedLabel] = []
        for at, mark, text in joined:
            half = _LETTER * (len(text) + 1) / 2
            centre = float(np.clip(at, half, max(1 - half, half)))
            taken = {label.row for label in placed
                     if abs(label.at - centre) < half + _LETTER * (len(label.text) + 1) / 2}
            placed.append(PlacedLabel(text, centre, min(set(range(len(placed) + 1)) - taken), mark.colour))
        return placed


@dataclass(frozen=True)
class AgainstRatio(Sweep):
    """Panels of curves along the imbalance ratio R, on a logarithmic axis."""

    x_label: ClassVar[str] = "R"


@dataclass(frozen=True)
class Ranked(Lines):
    """Panels of values from the largest to the smallest, against their rank."""

    x_label: ClassVar[str] = "number"


@dataclass(frozen=True)
class Space(Chart):
    """Arrows in three dimensions."""


@dataclass(frozen=True)
class Heatmaps(Chart):
    """Matrices over the same classes on one colour scale centred at 0."""

    names: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Bars(Chart):
    """Values per class."""

    names: tuple[str, ...]


def colour_limit(panels: Sequence[Heatmap]) -> float:
    """The largest absolute entry of all panels."""
    largest = [np.abs(panel.values[np.isfinite(panel.values)]).max(initial=0.0) for panel in panels]
    return float(max(largest)) or 1.0


def widely_spread(values: Float[np.ndarray, " v"], factor: float = 8.0) -> bool:
    """Whether positive values span so much that a linear axis would hide the small ones."""
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > factor * finite.min())


def shared_limits(panels: Sequence[Panel]) -> tuple[float, float] | None:
    """One y range for several panels, with a margin; None when there is nothing to draw."""
    values = np.concatenate([panel.values() for panel in panels])
    if not values.size:
        return None
    if panels[0].log_y:
        return float(values.min() / 1.25), float(values.max() * 1.25)
    return 0.0, float(values.max() * 1.06) or 1.0


def panel_parts(panel: Any) -> tuple[Any, ...]:
    """What is drawn in a panel and can be named: curves, bars, marks and levels."""
    if isinstance(panel, Heatmap):
        return ()
    if isinstance(panel, SpacePanel):
        return tuple(arrows.key for arrows in panel.arrows)
    return (*panel.bars, *panel.marks) if isinstance(panel, ClassPanel) else (*panel.curves, *panel.levels)


def legend_entries(chart: Chart) -> list[Curve | Level | Mark]:
    """What a legend names, once each; a curve that is alone in its panel is named by the panel's title."""
    entries: dict[str, Curve | Level | Mark] = {}
    for panel in chart.panels:
        parts = panel_parts(panel)
        if sum(isinstance(part, Curve) for part in parts) > 1:
            for part in parts:
                entries.setdefault(part.name, part)
    for mark in chart.marks if isinstance(chart, Lines) else ():
        entries.setdefault(mark.name, mark)
    return list(entries.values())

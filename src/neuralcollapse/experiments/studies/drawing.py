"""How studies draw: matplotlib without pyplot, the colours of every picture, a PNG and a PDF of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralcollapse.files import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"ink": "#3b4248", "blue": "#0072B2", "vermillion": "#BF4B00", "green": "#007F5F", "purple": "#A4508B",
           "orange": "#B88A00"}
"""As in `show/palette.py`, which stands above this room; a test holds the two together."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
"""They repeat what colour says."""


def make_figure(down: int, across: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure of panels, (down, across), laid out by itself.

    Parameters
    ----------
    down, across : int
    size : (width, height)
        In inches.
    **shared
        As of `Figure.subplots`: sharex, sharey.
    """
    # Not pyplot: its state would outlive the study.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, **shared)
    for axes in grid.ravel():
        axes.grid(alpha=0.25, lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    return figure, grid


def ordered_colours(many: int) -> list[Any]:
    """So many colours from dark to light, for what has an order, such as ratios."""
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0, 0.85, many)))


def legend_below(figure: Figure, axes: Iterable[Axes], columns: int) -> None:
    """One legend under all panels, each label once."""
    handles: dict[str, Any] = {}
    for one in axes:
        handles |= {label: handle for handle, label in zip(*one.get_legend_handles_labels(), strict=True)
                    if label not in handles}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=8,
                  frameon=False)


def save_figure(figure: Figure, folder: Path, name: str, dpi: int = 160) -> None:
    """`NAME.png` and `NAME.pdf`."""
    with writing(folder):
        figure.savefig(folder / f"{name}.png", dpi=dpi)
        figure.set_layout_engine("none")  # it is laid out, which costs as much as drawing it
        figure.savefig(folder / f"{name}.pdf")

"""The geometry along the ridge λ as pictures: norms, cosines, distances, rank, and what happens where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import positive_number
from neuralcollapse.predict.path import Event, RidgePath
from neuralcollapse.show.along import PAIRS, PathSummary, event_name, summarise
from neuralcollapse.show.charts import Chart, Curve, Mark, Panel, Sweep
from neuralcollapse.show.palette import target_name
from neuralcollapse.show.prediction import save_picture
from neuralcollapse.show.wording import number, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MERGE, _VANISH = "equal classes merge", "all classes vanish"
_LABELLED = 3  # groups whose threshold is labelled; with more, the first and the last
_COLOURS = {"majority_majority": "green", "majority_minority": "orange", "minority_minority": "purple"}


def path_charts(path: RidgePath, ridge: float | None = None, name: str = "your λ") -> list[Chart]:
    """Everything there is to see of a path.

    Parameters
    ----------
    path : RidgePath
    ridge : float, optional
        A λ to mark.
    name : str
        What it is called.

    Returns
    -------
    list of Sweep
        Norms and cosines; distances and rank.
    """
    marks = event_marks(path.events)
    if ridge is not None:
        marks += (Mark(name, positive_number("ridge", ridge), "ink", name, dashed=False),)
    return [path_shapes(path, marks), path_distances(path, marks)]


def path_shapes(path: RidgePath, marks: tuple[Mark, ...]) -> Sweep:
    """Mean norms and cosines of majority and minority, classifiers and embeddings, along λ."""
    return shapes_along(summarise(path), path.ridges, marks, told(path.events))


def shapes_along(summary: PathSummary, ridges: Float[np.ndarray, " p"], marks: tuple[Mark, ...],
                 story: str) -> Sweep:
    """`path_shapes` of what is known of a path so far."""
    panels = shape_panels(summary)
    return Sweep(
        "Norms and angles along λ",
        "Means over majority and minority classes, at unit Frobenius norm of the Gram matrix; λ = √(λ_W λ_H) with "
        "the loss summed over samples.", f"{described(panels)} {story}", panels, 2, ridges, True, marks=marks)


def path_distances(path: RidgePath, marks: tuple[Mark, ...]) -> Sweep:
    """Distances to the vanishing-ridge limit and to the simplex ETF, and the rank, along λ."""
    return distances_along(path.to_limit, path.to_etf, path.ranks.astype(np.float64), path.ridges, limit_name(path),
                           marks, told(path.events))


def distances_along(to_limit: Mapping[str, Float[np.ndarray, " p"]], to_etf: Mapping[str, Float[np.ndarray, " p"]],
                    ranks: Float[np.ndarray, " p"], ridges: Float[np.ndarray, " p"], limit: str,
                    marks: tuple[Mark, ...], story: str) -> Sweep:
    """`path_distances` of what is known of a path so far."""
    panels = [Panel(f"Distance of {kind}", "distance", (
        Curve(f"to {limit}", to_limit[kind], "blue"),
        Curve("to the simplex ETF", to_etf[kind], "vermillion", "square", dashed=True)))
        for kind in ("classifiers", "embeddings")]
    panels.append(Panel("Rank", "dimensions", (Curve("rank", ranks, "ink"),)))
    return Sweep(
        "Distances and rank along λ",
        f"How far the geometry at λ is from its limit λ → 0, {limit}, and from the simplex ETF (0 is a perfect match, "
        "1.41 no resemblance), and how many dimensions it spans.", f"{described(panels)} {story}",
        tuple(panels), 3, ridges, True, marks=marks)


def path_figure(path: RidgePath, ridge: float | None = None) -> Figure:
    """Norms and cosines above distances and rank, as one matplotlib Figure.

    Parameters
    ----------
    path : RidgePath
    ridge : float, optional
        λ to mark as yours.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from neuralcollapse.predict.path import ridge_path
    >>> len(path_figure(ridge_path([10, 10, 1, 1], points=5), ridge=0.5).subfigs)
    2
    """
    from matplotlib.figure import Figure
    counts = path.geometries[0].counts
    figure = Figure(figsize=(12, 7), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False).ravel()
    shapes, distances = path_charts(path, ridge)
    replace(shapes, columns=4).matplotlib(above)
    distances.matplotlib(below)
    spread = "balanced" if counts.balanced else f"ratio {plain(counts.ratio)}"
    figure.suptitle(f"The geometry along λ ({path.geometries[0].loss}, {counts.k:,} classes, {spread})", fontsize=11)
    return figure


def save_path(path: RidgePath, file: str | Path, ridge: float | None = None) -> Path:
    """Write the picture of a path, in the format its suffix names (.html is interactive).

    Parameters
    ----------
    path : RidgePath
    file : str or Path
        Ends in .png, .pdf, .svg, .jpg or .html.
    ridge : float, optional
        λ to mark as yours.

    Returns
    -------
    Path

    Raises
    ------
    InvalidInput
        Another suffix, or a place that cannot be written.
    """
    return save_picture("The geometry along λ", lambda: path_charts(path, ridge), lambda: path_figure(path, ridge),
                        file)


def event_marks(events: Sequence[Event]) -> tuple[Mark, ...]:
    """A vertical line at each event; labels for all of few groups, for the first and the last of many."""
    merging = [event for event in events if event.kind == "group collapse"]
    marks = []
    for event in events:
        if event.kind == "group collapse":
            shown = len(merging) <= _LABELLED or event in (merging[0], merging[-1])
            marks.append(Mark(_MERGE, event.ridge, "purple", f"n = {plain(event.count)}" if shown else ""))
        else:
            marks.append(Mark(_VANISH, event.ridge, "vermillion", "all"))
    return tuple(marks)


def limit_name(path: RidgePath) -> str:
    """What the geometry for λ → 0 is called."""
    return limit_of(path.geometries[0].loss)


def limit_of(loss: str) -> str:
    """What the geometry that a loss leads to as λ → 0 is called."""
    return target_name("seli") if loss in ("seli", "ce") else "the limit λ → 0"


def shape_panels(summary: PathSummary) -> tuple[Panel, ...]:
    """Norms and cosines of classifiers, then of embeddings."""
    panels = []
    for kind in ("classifiers", "embeddings"):
        panels.append(Panel(f"Norms of {kind}", "norm", _norm_curves(summary, kind)))
        panels.append(Panel(f"Cosines of {kind}", "mean cosine", _cosine_curves(summary, kind), signed=True))
    return tuple(panels)


# -- parts ------------------------------------------------------------------------------------------


def _norm_curves(summary: PathSummary, kind: str) -> tuple[Curve, ...]:
    if np.isnan(summary.norms[kind, True]).all():
        return (Curve("all classes", summary.norms[kind, False], "green"),)
    return (Curve("majority", summary.norms[kind, False], "green"),
            Curve("minority", summary.norms[kind, True], "purple", "square", dashed=True))


def _cosine_curves(summary: PathSummary, kind: str) -> tuple[Curve, ...]:
    if np.isnan(summary.norms[kind, True]).all():
        return (Curve("all classes", summary.cosines[kind, "majority_majority"], "green"),)
    names = {"majority_majority": "majority", "majority_minority": "majority to minority",
             "minority_minority": "minority"}
    return tuple(Curve(names[pair], summary.cosines[kind, pair], _COLOURS[pair],
                       "square" if pair == "minority_minority" else "circle", dashed=pair == "minority_minority")
                 for pair in PAIRS if np.isfinite(summary.cosines[kind, pair]).any())


def described(panels: Sequence[Panel], at: str = "λ") -> str:
    """The ends of every curve, for who cannot see it."""
    parts = []
    for panel in panels:
        for curve in panel.curves:
            known = curve.y[np.isfinite(curve.y)]
            if known.size:
                parts.append(f"{panel.title}, {curve.name}: {number(float(known[0]))} at the smallest {at}, "
                             f"{number(float(known[-1]))} at the largest that has one.")
    return " ".join(parts)


def told(events: Sequence[Event]) -> str:
    """What happens along λ, in a sentence."""
    if not events:
        return ""
    shown = events if len(events) <= _LABELLED + 1 else [events[0], *events[-2:]]
    return "; ".join(f"from λ = {number(event.ridge)} on {event_name(event)}" for event in shown) + "."

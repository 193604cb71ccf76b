"""What the page of predictions shows of a geometry: facts, figures, the table, and how to get the same elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import html
from jaxtyping import Float
import numpy as np

from neuralcollapse.gram import Gram
from neuralcollapse.predict import GEOMETRIES, Geometry, predict
from neuralcollapse.predict.path import Event, collapse_events
from neuralcollapse.predict.symmetry import Point
from neuralcollapse.show.along import KINDS, joined, summarise_one
from neuralcollapse.show.charts import Chart, Mark
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.explorer.frame import picture, table
from neuralcollapse.show.explorer.theory_controls import counts_name, ridge_name
from neuralcollapse.show.explorer.theory_solver import Solved
from neuralcollapse.show.explorer.theory_state import TheoryState
from neuralcollapse.show.facts import PAIRS
from neuralcollapse.show.markup import Table
from neuralcollapse.show.path_figures import distances_along, event_marks, limit_of, shapes_along, told
from neuralcollapse.show.prediction import predicted_grams, predicted_norms
from neuralcollapse.show.ratio_figures import against_ratio
from neuralcollapse.show.space import drawing
from neuralcollapse.show.spectrum import singular_values, spectrum
from neuralcollapse.show.wording import cosine, degrees, number, plain

_LISTED = 100  # classes listed one by one


def heading(state: TheoryState) -> str:
    """What is shown, in a line."""
    return f"{GEOMETRIES[state.loss].summary.split(':')[0]} {ridge_name(state.ridge)}: {counts_name(state)}"


def facts(geometry: Geometry) -> Any:
    """The numbers one looks at first."""
    means = summarise_one(geometry)
    simplex = predict(geometry.counts, "etf")
    angles = {name: float(means.cosines["classifiers", pair][0]) for pair, name in PAIRS}
    between, angle = next(((name, value) for name, value in reversed(angles.items()) if np.isfinite(value)),
                          ("two classes", float("nan")))
    entries = [
        ("‖w‖, majority : minority", number(float(means.ratio("classifiers")[0])), "1 in an ETF"),
        ("‖μ‖, majority : minority", number(float(means.ratio("embeddings")[0])), "1 in an ETF"),
        (f"angle between classifiers of {between}", degrees(angle), f"{degrees(-1 / (geometry.k - 1))} in an ETF"),
        ("distance to the simplex ETF", number(geometry.classifiers.distance_to(simplex.classifiers)),
         f"embeddings {number(geometry.embeddings.distance_to(simplex.embeddings))}"),
        ("rank", f"{spectrum(geometry).rank:,}", f"with k = {geometry.k:,} classes"),
    ]
    return html.Ul([html.Li([html.Span(value, className="value"), html.Span(label, className="label"),
                             html.Span(beside, className="against")]) for label, value, beside in entries],
                   className="tiles")


def provenance(geometry: Geometry) -> list[Any]:
    """What has to hold, how sure the numbers are, and where it is from."""
    sure = ("in closed form" if geometry.gap is None else
            f"certified to a relative duality gap of {geometry.gap:.0e}")
    return [html.P([f"Assumes {geometry.assumes}. Solved {sure}. Source: ", html.Code(", ".join(geometry.source)), "."],
                   className="hint")]


def drawn(geometry: Geometry, state: TheoryState, dark: bool) -> list[Any]:
    """The geometry in three dimensions."""
    chart = drawing(geometry, four=state.drawn == "four")
    return picture(chart, "theory-drawing", dark, titled=False) or [
        html.P("At this λ every classifier and every class mean is zero: there is nothing to draw.", className="note")]


def matrices(geometry: Geometry, limit: Geometry | None, dark: bool) -> list[Any]:
    """Gram heatmaps, norms per class and singular values."""
    spectra = {"λ → 0": geometry} if geometry.ridge is None else {f"λ = {geometry.ridge:.4g}": geometry}
    if limit is not None:
        spectra["λ → 0"] = limit
    charts: dict[str, Chart] = {"grams": predicted_grams(geometry), "norms": predicted_norms(geometry),
                                "singular": singular_values(spectra)}
    return [part for name, chart in charts.items() for part in picture(chart, f"theory-{name}", dark)]


def numbers_table(geometry: Geometry) -> tuple[Table, str]:
    """Norms and mean cosines class by class, or by groups of classes, to read and as tab-separated text to copy."""
    axis = class_axis(geometry.counts, _LISTED)
    w, m = geometry.classifiers, geometry.embeddings
    own = geometry.logits.diagonal_entries()
    with np.errstate(invalid="ignore", divide="ignore"):
        together = own / (w.norms * m.norms)
    columns: dict[str, tuple[Float[np.ndarray, " m"], Any]] = {
        "samples": (axis.values(geometry.counts.values), plain),
        "‖w‖": (axis.values(w.norms), _four), "‖μ‖": (axis.values(m.norms), _four),
        "mean cos(w, w′)": (axis.values(_mean_cosine(w)), cosine),
        "mean cos(μ, μ′)": (axis.values(_mean_cosine(m)), cosine),
        "cos(w, μ)": (axis.values(together), cosine)}
    if axis.grouped:
        columns = {"classes": (axis.sizes.astype(np.float64), plain)} | columns
    first = "group" if axis.grouped else "class"
    rows = [[name, *(show(float(values[i])) for values, show in columns.values())]
            for i, name in enumerate(axis.names)]
    lines = [[first, *columns], *([name, *(f"{values[i]:.12g}" for values, _ in columns.values())]
                                  for i, name in enumerate(axis.names))]
    caption = "Groups of classes, means over each" if axis.grouped else "Class by class"
    return Table(f"{caption}; cosines to all other classes", [first, *columns], rows), "\n".join(map("\t".join, lines))


def numbers(geometry: Geometry) -> list[Any]:
    """The table with its button."""
    content, text = numbers_table(geometry)
    return [table(content), html.Pre(text, id="theory-tsv", hidden=True)]


def along_ratio(state: TheoryState, points: Mapping[float, Solved | str], dark: bool) -> list[Any]:
    """Norms and angles against R."""
    known = {ratio: found for ratio, found in sorted(points.items()) if isinstance(found, Solved)}
    if not known:
        return []
    chart = against_ratio(list(known), [found.means for found in known.values()], state.ratio, ridge_name(state.ridge))
    return picture(chart, "theory-ratio", dark)


def along_ridge(state: TheoryState, points: Mapping[float, Solved | str], at: Geometry | None, dark: bool) -> list[Any]:
    """Norms, angles, distances and rank along λ, with the collapse thresholds and the λ chosen."""
    known = {ridge: found for ridge, found in sorted(points.items()) if isinstance(found, Solved)}
    if not known:
        return []
    marks, story = thresholds(at)
    if state.ridge is not None:
        marks += (Mark("your λ", state.ridge, "ink", "your λ", dashed=False),)
    ridges, found = np.array(list(known)), list(known.values())
    to_limit, to_etf = ({kind: np.array([getattr(one, name)[kind] for one in found]) for kind in KINDS}
                        for name in ("to_limit", "to_etf"))
    shapes = shapes_along(joined([one.means for one in found]), ridges, marks, story)
    distances = distances_along(to_limit, to_etf, np.array([float(one.rank) for one in found]), ridges,
                                limit_of(state.loss), marks, story)
    return [*picture(shapes, "theory-shapes", dark), *picture(distances, "theory-distances", dark)]


def thresholds(geometry: Geometry | None) -> tuple[tuple[Mark, ...], str]:
    """Marks where classes merge or vanish, and the same in words."""
    if geometry is None:
        return (), ""
    if isinstance(geometry.point, Point):
        events: Sequence[Event] = collapse_events(geometry)
        return event_marks(events), told(events)
    # Cross-entropy merges classes of few samples; the losses that have no parameters of its kind let them vanish.
    fate = "vanish" if geometry.parameters is None else "merge"
    names = {"minority_collapse": (f"the rarest classes {fate}", "purple", "rarest"),
             "total_collapse": ("all classes vanish", "vermillion", "all")}
    known = {key: value for key, value in geometry.thresholds.items() if value is not None}
    marks = tuple(Mark(names[key][0], value, *names[key][1:]) for key, value in known.items())
    return marks, "; ".join(f"from λ = {number(value)} on {names[key][0]}" for key, value in known.items()) + "."


def _mean_cosine(gram: Gram) -> Float[np.ndarray, " k"]:
    """The mean cosine of each vector to all others that are not zero; NaN for zero vectors."""
    norms = gram.norms
    there = norms > 0
    unit = np.where(there, 1 / np.where(there, norms, 1.0), 0.0)
    others = max(int(there.sum()) - 1, 1)
    return np.where(there, (unit * (gram @ unit[:, None])[:, 0] - 1) / others, np.nan)


def _four(value: float) -> str:
    return number(value, 4)

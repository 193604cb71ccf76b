"""Predictions and measurements as compact tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxtyping import Bool
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralcollapse.predict import Geometry
from neuralcollapse.show.class_axis import split_cosines
from neuralcollapse.show.facts import PAIRS, norm_ratio

if TYPE_CHECKING:  # it loads torch, which a prediction can do without
    from neuralcollapse.measure import Measurement

_CLASSES_LISTED = 20
_NUMERIC = ("samples", "‖w‖", "‖μ‖", "classifiers", "embeddings", "both")


def print_geometry(geometry: Geometry, console: Console) -> None:
    """Norms and angles of a prediction, class by class for few classes and one of each count for many."""
    counts, groups = geometry.counts, geometry.counts.groups
    one_by_one = counts.k <= _CLASSES_LISTED
    _title(console, f"Predicted geometry: {geometry.loss}, {counts.k:,} classes, n = {counts.n:,}, "
                   f"ratio {counts.ratio:g}")
    table = _table("class" if one_by_one else "one class of", "samples", "‖w‖", "‖μ‖")
    w, m = geometry.classifiers.norms, geometry.embeddings.norms
    for c in range(counts.k) if one_by_one else _spread(groups.first[::-1].tolist()):
        label = counts.names[c] if one_by_one else f"{groups.sizes[groups.index[c]]:,}"
        table.add_row(escape(label), f"{counts.values[c]:,g}", f"{w[c]:.4g}", f"{m[c]:.4g}")
    console.print(table)
    console.print()
    angles = _table("mean cosine of", "classifiers", "embeddings")
    cosines = [split_cosines(gram, counts.minority) for gram in (geometry.classifiers, geometry.embeddings)]
    for key, label in PAIRS:
        if cosines[0][key] is not None:
            angles.add_row(label, *(_number(part[key]) for part in cosines))
    console.print(angles)
    merge, total = (geometry.thresholds[key] for key in ("minority_collapse", "total_collapse"))
    if total is not None:
        first = "" if merge is None else f"equal classes merge from λ = {merge:.4g} on, "
        console.print(f"\nWith a ridge λ: {first}all vanish from λ = {total:.4g} on.")
    console.print(f"\nAssumes {geometry.assumes}. Source: {', '.join(geometry.source)}.", style="dim")


def print_measurement(measurement: Measurement, console: Console) -> None:
    """The metrics of a measurement, and norms and angles beside their prediction."""
    values = measurement.to_dict()
    measured = measurement.measured
    _title(console, f"Measured on {int(measured.seen.sum()):,} samples of {measured.k:,} classes "
                   f"(class means centred on: {measured.center})")
    table = _table("", "classifiers", "embeddings", "both")
    distance, nc1, nc2 = values["distance"], values["nc1"], values["nc2"]
    table.add_row("NC1  within-class / between-class (pinv; trace)", "", "",
                  f"{_number(nc1['pinv'])}; {_number(nc1['trace'])}")
    table.add_row("CDNV", "", "", _number(values["cdnv"]))
    for label, key in (("NC2  variation of norms", "norm_cv"), ("NC2  angles off the simplex", "angle"),
                       ("NC2  distance to ETF", "etf_distance")):
        table.add_row(label, _number(nc2["classifiers"][key]), _number(nc2["embeddings"][key]), "")
    table.add_row("NC3  duality", "", "", _number(values["nc3"]))
    table.add_row("NC4  disagreement with nearest mean", "", "", _number(values["nc4"]))
    table.add_row(f"Distance to {distance['target']}", _number(distance["classifiers"]),
                  _number(distance["embeddings"]), _number(distance["logits"]))
    table.add_row("Margin, smallest; accuracy", "", "",
                  f"{_number(values['margins']['min'])}; {_number(values['accuracy']['overall'])}")
    console.print(table)
    _print_groups(measurement, values, console)


def _print_groups(measurement: Measurement, values: dict[str, Any], console: Console) -> None:
    measured = measurement.measured
    geometry = measured.targets.get(measurement.target)
    if geometry is None or not measured.minority.any():
        return
    console.print()
    _title(console, f"Majority and minority, measured (in brackets: {measurement.target})")
    table = _table("", "classifiers", "embeddings")
    grams = {"classifiers": geometry.classifiers, "embeddings": geometry.embeddings}
    table.add_row("mean norm, majority / minority",
                  *(f"{_number(_norm_ratio(values['norms'][kind], measured.minority))} "
                    f"({_number(norm_ratio(gram.norms, measured.minority))})" for kind, gram in grams.items()))
    predicted = {kind: split_cosines(gram, measured.minority) for kind, gram in grams.items()}
    for key, label in PAIRS:
        table.add_row(f"mean cosine of {label}", *(f"{_number(values['cosines'][kind][key])} "
                                                   f"({_number(predicted[kind][key])})" for kind in grams))
    console.print(table)


def _title(console: Console, text: str) -> None:
    console.print(escape(text), style="bold", highlight=False)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMERIC else "left")
    return table


def _norm_ratio(norms: list[float | None] | None, minority: Bool[np.ndarray, " k"]) -> float | None:
    return None if norms is None else norm_ratio(np.array(norms, dtype=np.float64), minority)


def _spread(classes: list[int]) -> list[int]:
    """At most `_CLASSES_LISTED` of them, first and last included."""
    if len(classes) <= _CLASSES_LISTED:
        return classes
    step = (len(classes) - 1) / (_CLASSES_LISTED - 1)
    return [classes[round(i * step)] for i in range(_CLASSES_LISTED)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"

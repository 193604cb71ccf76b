"""Predictions and measurements as compact tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralcollapse.predict import CollapseSafety, Geometry
from neuralcollapse.predict.path import RidgePath
from neuralcollapse.show.along import KINDS, event_line, summarise
from neuralcollapse.show.class_axis import split_cosines
from neuralcollapse.show.facts import PAIRS, norm_ratio
from neuralcollapse.show.path_figures import limit_name

if TYPE_CHECKING:  # it loads torch, which a prediction can do without
    from neuralcollapse.measure import Measurement

_CLASSES_LISTED = 20
_ROWS, _BLOCKS, _ZERO = 12, "▁▂▃▄▅▆▇█", 1e-9
# What several measurements are told apart by, and where in `Measurement.to_dict` it is.
_EPOCH_NUMBERS = {
    "NC1": ("nc1", "pinv"), "NC1 trace": ("nc1", "trace"), "D_W": ("distance", "classifiers"),
    "D_M": ("distance", "embeddings"), "D_Z": ("distance", "logits"), "NC3": ("nc3",), "NC4": ("nc4",),
    "accuracy": ("accuracy", "overall"), "cos(w) min": ("cosines", "classifiers", "minority_minority"),
    "cos(μ) min": ("cosines", "embeddings", "minority_minority")}
_NUMERIC = (*_EPOCH_NUMBERS, "λ", "‖w‖ maj/min", "‖μ‖ maj/min", "to SELI", "to the limit λ → 0", "to ETF", "rank",
            "samples", "‖w‖", "‖μ‖", "classifiers", "embeddings", "both")


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
    if geometry.norm is not None:
        console.print(f"\nMargin {geometry.margin:.6g} in the {geometry.norm} norm; this geometry is "
                      f"{'the only one' if geometry.unique else 'one of many'} that attains it"
                      + ("" if geometry.gap is None else f" (certified: gap {geometry.gap:.0e})") + ".",
                      highlight=False)
    console.print(f"\nAssumes {geometry.assumes}. Source: {', '.join(geometry.source)}.", style="dim")


def print_safety(safety: CollapseSafety, console: Console) -> None:
    """Whether a weight decay merges classes, and the largest that does not."""
    console.print(f"\nThis weight decay is λ = {safety.ridge:.4g} with the loss summed over samples.", highlight=False)
    if safety.safe:
        console.print(f"No classes merge: up to a weight decay of {safety.safe_weight_decay:.3g} none does.",
                      highlight=False)
        return
    groups = "; ".join(", ".join(map(escape, group[:8])) + (", …" if len(group) > 8 else "")
                       for group in safety.merged[:5])
    merged = f"These classes share one classifier: {groups}." if groups else "It spans fewer than k − 1 dimensions."
    console.print(f"{merged} Below a weight decay of {safety.safe_weight_decay:.3g} no class collapses.",
                  style="bold", highlight=False)


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
    estimate = measurement.lambda_eff()
    if estimate is not None:
        low, high = estimate.interval
        console.print(f"\nNearest finite-ridge geometry: λ = {estimate.ridge:.3g} (loss summed; {low:.2g} to "
                      f"{high:.2g} fit within 5 %), at distance {estimate.distance:.3g}.", highlight=False)


def print_measurements(names: Sequence[str], measurements: Sequence[Measurement], console: Console) -> None:
    """The main numbers of several measurements, a row each in the order given."""
    first = measurements[0]
    same = all(np.array_equal(each.measured.seen, first.measured.seen) for each in measurements)
    samples = f", {int(first.measured.seen.sum()):,} samples of {first.measured.k:,} classes each" if same else ""
    _title(console, f"Measured {len(measurements):,} files in the order given{samples} "
                   f"(D: distance to {first.target}; class means centred on: {first.measured.center})")
    table = _table("file", *_EPOCH_NUMBERS)
    for name, measurement in zip(names, measurements, strict=True):
        values: Any = measurement.to_dict()
        table.add_row(escape(name), *(_number(reduce(getitem, path, values)) for path in _EPOCH_NUMBERS.values()))
    console.print(table)


def print_path(path: RidgePath, console: Console) -> None:
    """A path along λ: about twelve of its points, what happens on the way, and a sketch of the distance."""
    counts, summary = path.geometries[0].counts, summarise(path)
    _title(console, f"Along the ridge λ: {path.geometries[0].loss}, {counts.k:,} classes, n = {counts.n:,}, "
                   f"ratio {counts.ratio:g}")
    one, limit = counts.balanced, limit_name(path)
    table = _table("λ", *(() if one else ("‖w‖ maj/min", "‖μ‖ maj/min", "cos(w) min")), f"to {limit}", "to ETF", "rank")
    ratios = [summary.ratio(kind) for kind in KINDS]
    for i in np.unique(np.linspace(0, path.ridges.size - 1, _ROWS).round().astype(int)):
        shape = () if one else (ratios[0][i], ratios[1][i], summary.cosines["classifiers", "minority_minority"][i])
        far = [0.0 if values[i] < _ZERO else values[i]
               for values in (path.to_limit["classifiers"], path.to_etf["classifiers"])]
        values = (*shape, *far)
        table.add_row(f"{path.ridges[i]:.2g}", *(_number(None if np.isnan(value) else value) for value in values),
                      f"{path.ranks[i]:,}")
    console.print(table)
    console.print(f"\nDistance to {limit} from λ = {path.ridges[0]:.2g} to {path.ridges[-1]:.2g}:  "
                  f"{sparkline(path.to_limit['classifiers'])}", highlight=False)
    console.print()
    events = path.events if len(path.events) <= _ROWS else (*path.events[:_ROWS - 2], *path.events[-2:])
    for event in events:
        console.print(f"• {event_line(event)}", highlight=False)
    if len(events) < len(path.events):
        console.print(f"  ({len(path.events) - len(events)} groups in between are left out)", highlight=False)
    console.print(f"\nDistances are those of the classifiers. Largest certified gap: {path.worst_gap:.1e}.",
                  style="dim", highlight=False)


def sparkline(values: Float[np.ndarray, " p"], width: int = 40) -> str:
    """Values from 0 to their largest as one line of blocks; a dot where there is none.

    Examples
    --------
    >>> sparkline(np.array([0.0, 0.5, 1.0, np.nan]))
    '▁▅█·'
    """
    places = np.unique(np.linspace(0, values.size - 1, min(width, values.size)).round().astype(int))
    top = float(values[np.isfinite(values)].max(initial=_ZERO))  # rounding is no shape
    return "".join("·" if np.isnan(value) else _BLOCKS[min(int(value / top * len(_BLOCKS)), len(_BLOCKS) - 1)]
                   for value in values[places].tolist())


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

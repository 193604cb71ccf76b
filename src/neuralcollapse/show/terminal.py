"""Predictions and measurements as compact tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import TYPE_CHECKING, Any

from jaxtyping import Bool, Float
import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from neuralcollapse.console import print_table, sketch
from neuralcollapse.notebook import number, spread
from neuralcollapse.predict import CollapseSafety, Geometry
from neuralcollapse.predict.path import RidgePath
from neuralcollapse.show.along import KINDS, event_line, summarise
from neuralcollapse.show.class_axis import split_cosines
from neuralcollapse.show.facts import PAIRS, norm_ratio
from neuralcollapse.show.path_figures import limit_name
from neuralcollapse.show.wording import at_ridge

if TYPE_CHECKING:  # it loads torch, which a prediction can do without
    from neuralcollapse.measure import Measurement

_CLASSES_LISTED = 20
_EPOCHS, _WIDEST = 3, 40  # files from which their course is sketched, and the width of a sketch
_ROWS, _ZERO = 12, 1e-9
_ROUNDING = 1e-12  # cosines below are zero
_SHAPE = 6  # values from which a sketch says more than the numbers
# What several measurements are told apart by, and where in `Measurement.to_dict` it is.
_EPOCH_NUMBERS = {
    "NC1": ("nc1", "pinv"), "NC1 trace": ("nc1", "trace"), "D_W": ("distance", "classifiers"),
    "D_M": ("distance", "embeddings"), "D_Z": ("distance", "logits"), "NC3": ("nc3",), "NC4": ("nc4",),
    "accuracy": ("accuracy", "overall"), "cos(w) min": ("cosines", "classifiers", "minority_minority"),
    "cos(μ) min": ("cosines", "embeddings", "minority_minority")}


def print_geometry(geometry: Geometry, console: Console) -> None:
    """Norms and angles of a prediction, class by class for few classes and one of each count for many."""
    counts, groups = geometry.counts, geometry.counts.groups
    one_by_one = counts.k <= _CLASSES_LISTED
    _title(console, f"Predicted geometry: {geometry.loss}, {counts.k:,} classes, n = {counts.n:,}, "
                   f"ratio {counts.ratio:g}")
    told = _asked_for(geometry)
    if told:
        console.print(told, highlight=False)
    w, m = geometry.classifiers.norms, geometry.embeddings.norms
    print_table(console, ["class" if one_by_one else "one class of", "samples", "‖w‖", "‖μ‖"], [
        [counts.names[c] if one_by_one else f"{groups.sizes[groups.index[c]]:,}", f"{counts.values[c]:,g}",
         f"{w[c]:.4g}", f"{m[c]:.4g}"]
        for c in (range(counts.k) if one_by_one else spread(groups.first[::-1].tolist(), _CLASSES_LISTED))])
    if groups.sizes.size >= _SHAPE:
        many_to_few = groups.first[::-1]
        _print_sketches(console, f"from n = {counts.n_max:,g} to {counts.n_min:,g}",
                        {"‖w‖": (w[many_to_few],), "‖μ‖": (m[many_to_few],)})
    console.print()
    cosines = [split_cosines(gram, counts.minority) for gram in (geometry.classifiers, geometry.embeddings)]
    if w.any():
        print_table(console, ["mean cosine of", "classifiers", "embeddings"], [
            [label, *(_cosine(part[key]) for part in cosines)] for key, label in PAIRS if cosines[0][key] is not None])
    else:
        console.print("All classes have vanished: the ridge is too large for any of them.")
    _print_thresholds(geometry, console)
    if geometry.norm is not None:
        console.print(f"\nMargin {geometry.margin:.6g} in the {geometry.norm} norm; this geometry is "
                      f"{'the only one' if geometry.unique else 'one of many'} that attains it"
                      + ("" if geometry.gap is None else f" (certified: gap {_gap(geometry.gap)})") + ".",
                      highlight=False)
    console.print(f"\nAssumes {geometry.assumes}. Source: {', '.join(geometry.source)}.", style="dim")


def _asked_for(geometry: Geometry) -> str:
    """What the prediction is of, where it is more than a loss in its limit."""
    of = geometry.parameters
    parts = [] if of is None else [name for name, value in (
        ("class weights", of.weight), ("label temperatures" if of.by_label else "class temperatures", of.temperature),
        ("offsets", of.offset)) if value is not None]
    if geometry.bias:
        parts.append("a head bias")
    with_what = f"with {', '.join(parts)}" if parts else ""
    if geometry.ridge is None:
        return f"{with_what[:1].upper()}{with_what[1:]}, in the limit λ → 0." if parts else ""
    where = " ".join(filter(None, (f"At λ = {geometry.ridge:.4g}", with_what)))
    return f"{where}{'' if geometry.gap is None else f'; certified, relative duality gap {_gap(geometry.gap)}'}."


def _print_thresholds(geometry: Geometry, console: Console) -> None:
    merge, total = (geometry.thresholds[key] for key in ("minority_collapse", "total_collapse"))
    if total is None:
        return
    what = ("the rarest classes vanish" if geometry.parameters is None else "equal classes merge"
            if (geometry.counts.groups.sizes[:-1] > 1).any() else "a dimension is lost")
    first = "" if merge is None else f"{what} from λ = {merge:.4g} on, "
    console.print(f"\nWith a ridge λ: {first}all vanish from λ = {total:.4g} on.")


def _gap(gap: float) -> str:
    return "0" if gap == 0 else f"{gap:.0e}"


def _cosine(value: float | None) -> str:
    return number(0.0 if value is not None and abs(value) < _ROUNDING else value)


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
    distance, nc1, nc2 = values["distance"], values["nc1"], values["nc2"]
    print_table(console, ["", "classifiers", "embeddings", "both"], [
        ["NC1  within / between classes (pinv)", "", "", number(nc1["pinv"])],
        ["NC1  the same by traces", "", "", number(nc1["trace"])],
        ["CDNV", "", "", number(values["cdnv"])],
        *([label, number(nc2["classifiers"][key]), number(nc2["embeddings"][key]), ""] for label, key in (
            ("NC2  variation of norms", "norm_cv"), ("NC2  angles off the simplex", "angle"),
            ("NC2  distance to ETF", "etf_distance"))),
        ["NC3  duality", "", "", number(values["nc3"])],
        ["NC4  disagreement with nearest mean", "", "", number(values["nc4"])],
        *([f"Distance to {name}", *(number(far[part]) for part in ("classifiers", "embeddings", "logits"))]
          for name, far in (values["distances"] or {distance["target"]: distance}).items()),
        ["Smallest margin", "", "", number(values["margins"]["min"])],
        ["Accuracy", "", "", number(values["accuracy"]["overall"])]])
    absent = int((measured.seen == 0).sum())
    if absent:
        console.print(f"\n{absent:,} of {measured.k:,} classes {'has' if absent == 1 else 'have'} no sample here: "
                      "what needs all class means is left out, and a prediction needs the training counts (--counts).")
    _print_classes(measurement, values, console)
    _print_groups(measurement, values, console)
    estimate = measurement.lambda_eff()
    if estimate is not None:
        low, high = estimate.interval
        fit = f"loss summed; {low:.2g} to {high:.2g} fit within 5 %"
        known = f"= {estimate.ridge:.3g} ({fit})" if estimate.edge is None else at_ridge(estimate)
        console.print(f"\nNearest finite-ridge geometry: λ {known}, at distance {estimate.distance:.3g}.",
                      highlight=False)


def print_measurements(names: Sequence[str], measurements: Sequence[Measurement], console: Console) -> None:
    """The main numbers of several measurements, a row each in the order given."""
    first = measurements[0]
    same = all(np.array_equal(each.measured.seen, first.measured.seen) for each in measurements)
    samples = f", {int(first.measured.seen.sum()):,} samples of {first.measured.k:,} classes each" if same else ""
    _title(console, f"Measured {len(measurements):,} files in the order given{samples} "
                   f"(D: distance to {first.target}; class means centred on: {first.measured.center})")
    dictionaries = [measurement.to_dict() for measurement in measurements]
    series = {title: np.array([reduce(getitem, path, values) for values in dictionaries], dtype=np.float64)
              for title, path in _EPOCH_NUMBERS.items()}
    print_table(console, ["file", *series], [[name, *(number(values[i]) for values in series.values())]
                                             for i, name in enumerate(names)])
    if len(names) >= _EPOCHS:
        _print_sketches(console, f"over the {len(names):,} files", {
            title: (values,) for title, values in series.items() if np.isfinite(values).any()})
        console.print("\nA sketch goes from 0, or the smallest value if that is below, to the largest.", style="dim")


def print_path(path: RidgePath, console: Console) -> None:
    """A path along λ: about twelve of its points, what happens on the way, and a sketch of the distance."""
    counts, summary = path.geometries[0].counts, summarise(path)
    _title(console, f"Along the ridge λ: {path.geometries[0].loss}, {counts.k:,} classes, n = {counts.n:,}, "
                   f"ratio {counts.ratio:g}")
    one, limit = counts.balanced, limit_name(path)
    headings = ["λ", *(() if one else ("‖w‖ maj/min", "‖μ‖ maj/min", "cos(w) min")), f"to {limit}", "to ETF", "rank"]
    rows = []
    ratios = [summary.ratio(kind) for kind in KINDS]
    for i in np.unique(np.linspace(0, path.ridges.size - 1, _ROWS).round().astype(int)):
        shape = () if one else (ratios[0][i], ratios[1][i], summary.cosines["classifiers", "minority_minority"][i])
        far = [0.0 if values[i] < _ZERO else values[i]
               for values in (path.to_limit["classifiers"], path.to_etf["classifiers"])]
        values = (*shape, *far)
        rows.append([f"{path.ridges[i]:.2g}", *map(number, values), f"{path.ranks[i]:,}"])
    print_table(console, headings, rows, left=0)
    _print_sketches(console, f"from λ = {path.ridges[0]:.2g} to {path.ridges[-1]:.2g}",
                    {f"Distance to {limit}": (path.to_limit["classifiers"],)})
    console.print()
    events = path.events if len(path.events) <= _ROWS else (*path.events[:_ROWS - 2], *path.events[-2:])
    for event in events:
        console.print(f"• {event_line(event)}", highlight=False)
    if len(events) < len(path.events):
        console.print(f"  ({len(path.events) - len(events)} groups in between are left out)", highlight=False)
    console.print(f"\nDistances are those of the classifiers. Largest certified gap: {path.worst_gap:.1e}.",
                  style="dim", highlight=False)


def _print_classes(measurement: Measurement, values: dict[str, Any], console: Console) -> None:
    """Norms beside their prediction and margins as sketches over the classes, from many samples to few."""
    measured = measurement.measured
    geometry = measured.targets.get(measurement.target)
    if geometry is None or measured.k < _SHAPE:
        return
    n = geometry.counts.values
    order = np.argsort(-n, kind="stable")
    margins = values["margins"]["per_class"]
    series = {"‖w‖": (values["norms"]["classifiers"], geometry.classifiers.norms),
              "‖μ‖": (values["norms"]["embeddings"], geometry.embeddings.norms),
              "margin": (margins and margins["mean"], np.full(n.size, np.nan))}
    _print_sketches(console, f"by class, n = {n[order[0]]:,g} to {n[order[-1]]:,g}", {
        name: tuple(np.array(values, dtype=np.float64)[order] for values in pair)
        for name, pair in series.items() if pair[0] is not None}, ("measured", measurement.target))


def _print_sketches(console: Console, along: str, series: Mapping[str, tuple[Float[np.ndarray, " p"], ...]],
                    headings: Sequence[str] = ("",)) -> None:
    """A row of sketches per name; nothing where the output cannot show them."""
    name = max(map(cell_len, (along, *series)))
    width = min(_WIDEST, max(8, (console.width - name) // len(headings) - 2))
    rows = [[name, *(sketch(console, values, width) if np.isfinite(values).any() else "" for values in each)]
            for name, each in series.items()]
    if any("".join(row[1:]) for row in rows):
        console.print()
        print_table(console, [along, *headings], rows, left=1 + len(headings))


def _print_groups(measurement: Measurement, values: dict[str, Any], console: Console) -> None:
    measured = measurement.measured
    geometry = measured.targets.get(measurement.target)
    if geometry is None or not measured.minority.any():
        return
    console.print()
    _title(console, f"Majority and minority, measured (in brackets: {measurement.target})")
    grams = {"classifiers": geometry.classifiers, "embeddings": geometry.embeddings}
    rows = [["mean norm, majority / minority",
             *(f"{number(_norm_ratio(values['norms'][kind], measured.minority))} "
               f"({number(norm_ratio(gram.norms, measured.minority))})" for kind, gram in grams.items())]]
    predicted = {kind: split_cosines(gram, measured.minority) for kind, gram in grams.items()}
    rows += [[f"mean cosine of {label}", *(f"{number(values['cosines'][kind][key])} "
                                           f"({number(predicted[kind][key])})" for kind in grams)]
             for key, label in PAIRS]
    print_table(console, ["", "classifiers", "embeddings"], rows)


def _title(console: Console, text: str) -> None:
    console.print(escape(text), style="bold", highlight=False)


def _norm_ratio(norms: list[float | None] | None, minority: Bool[np.ndarray, " k"]) -> float | None:
    return None if norms is None else norm_ratio(np.array(norms, dtype=np.float64), minority)

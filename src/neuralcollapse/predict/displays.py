"""How a prediction shows itself: a line in a terminal, a card in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcollapse.displays import counts_line, drawn, drawn_note, listed
from neuralcollapse.notebook import card, number, spread, table

if TYPE_CHECKING:
    from neuralcollapse.predict.geometry import Geometry
    from neuralcollapse.predict.path import RidgePath

_POINTS, _EVENTS = 8, 6


def geometry_line(geometry: Geometry) -> str:
    """What was asked for."""
    return f"Geometry({geometry.loss}, {counts_line(geometry.counts)}, {_where(geometry)})"


def geometry_html(geometry: Geometry) -> str:
    """Both Gram matrices, and the lengths of classifiers and class means."""
    w, m = geometry.classifiers.norms, geometry.embeddings.norms
    n = geometry.counts.values
    rows = [[label, f"{n[c]:,g}", number(float(w[c])), number(float(m[c]))] for label, c in listed(geometry.counts)]
    gap = "" if geometry.gap is None else f"Certified gap {geometry.gap:.0e}. "
    return card(f"Predicted geometry of {geometry.loss}, {_where(geometry)}: {counts_line(geometry.counts)}",
                drawn("classifiers", geometry.classifiers), drawn("class means", geometry.embeddings),
                table(["", "samples", "‖w‖", "‖μ‖"], rows),
                note=f"{gap}Assumes {geometry.assumes}. Source: {', '.join(geometry.source)}. "
                     f"{drawn_note(geometry.classifiers)}".strip())


def _where(geometry: Geometry) -> str:
    if geometry.norm is not None:
        return f"margin {geometry.margin:.4g} in the {geometry.norm} norm"
    return "λ → 0" if geometry.ridge is None else f"λ = {geometry.ridge:.4g}"


def path_line(path: RidgePath) -> str:
    """How far it goes and what happens on the way."""
    first = path.geometries[0]
    return (f"RidgePath({first.loss}, {counts_line(first.counts)}, {path.ridges.size} ridges from "
            f"{path.ridges[0]:.3g} to {path.ridges[-1]:.3g}, {len(path.events)} events)")


def path_html(path: RidgePath) -> str:
    """Some of its points, and where classes merge."""
    first = path.geometries[0]
    rows = [[number(float(path.ridges[i])), number(float(path.to_limit["classifiers"][i])),
             number(float(path.to_etf["classifiers"][i])), f"{path.ranks[i]:,}"]
            for i in spread(range(path.ridges.size), _POINTS)]
    events = [[event.kind, number(event.ridge), f"{event.classes:,} of n = {event.count:,g}"]
              for event in spread(path.events, _EVENTS)]
    return card(f"Geometry of {first.loss} along the ridge: {counts_line(first.counts)}",
                table(["λ", "to the limit", "to ETF", "rank"], rows), table(["event", "λ", "classes"], events),
                note=f"Distances are those of the classifiers. Largest certified gap: {path.worst_gap:.1e}.")

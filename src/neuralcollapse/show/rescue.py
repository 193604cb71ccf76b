"""What became of every class, and what needs no retraining, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
import math

from rich.console import Console
from rich.markup import escape

from neuralcollapse.console import print_table
from neuralcollapse.notebook import number
from neuralcollapse.steer import ClassVerdict, PosthocRow

_SHORT = {"safe": "safe", "the loss can save it": "loss", "merged by the ridge": "ridge",
          "entangled in the features": "features"}
"""The verdicts as one word: what the class needs changed."""

_LEGEND = ("‖w‖: classifier length over the root mean square; angle: degrees to the nearest other classifier; margin: "
           "10 % quantile on the test part;\nrecall and probe: share of the class's test samples that the head, and a "
           "probe of the features, decide rightly; –: not known")


def print_rescue(verdicts: Sequence[ClassVerdict], console: Console) -> None:
    """A row per class, measured and (predicted), and what to do where a class is not safe."""
    console.print("Every class, measured (predicted)", style="bold", highlight=False)
    print_table(console, ["class", "verdict", "samples", "‖w‖", "angle", "margin", "recall", "probe"], [
        [one.name, _SHORT[one.kind], f"{one.count:g}",
         *(f"{number(each.measured)} ({number(each.predicted)})"
           for each in (one.classifier_norm, one.classifier_angle, one.margin)),
         f"{one.recall:.2f}", "–" if one.probe is None else f"{one.probe:.2f}"] for one in verdicts], left=2)
    console.print(_LEGEND, style="dim", highlight=False)
    for one in verdicts:
        if one.kind != "safe":
            console.print(escape(f"• {one}"))


def print_posthoc(rows: Sequence[PosthocRow], epoch: int, console: Console) -> None:
    """A row per remedy, the head as it was trained first."""
    console.print(f"After training (epoch {epoch:,}), on the test part", style="bold", highlight=False)
    print_table(console, ["remedy", "balanced", "overall", "majority", "minority", "ECE", "log-loss"], [
        [row.name, *(["–"] * 6 if row.scores is None else [_three_digits(value) for value in (
            row.scores.balanced, row.scores.overall, row.scores.majority, row.scores.minority, row.scores.ece,
            row.scores.nll)])] for row in rows])
    for row in rows:
        if row.refused:
            console.print(escape(f"• {row.name}: {row.refused}"))


def _three_digits(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"

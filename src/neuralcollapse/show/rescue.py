"""What became of every class, and what needs no retraining, as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralcollapse.steer import ClassVerdict, PosthocRow

_SHORT = {"safe": "safe", "the loss can save it": "loss", "merged by the ridge": "ridge",
          "entangled in the features": "features"}
"""The verdicts as one word: what the class needs changed."""


def print_rescue(verdicts: Sequence[ClassVerdict], console: Console) -> None:
    """A row per class, measured and (predicted), and what to do where a class is not safe."""
    table = Table(title="Every class, measured (predicted)", title_justify="left", box=None)
    table.add_column("class", no_wrap=True)
    for heading in ("samples", "‖w‖", "angle", "margin", "recall", "probe"):
        table.add_column(heading, justify="right")
    table.add_column("verdict", no_wrap=True)
    for one in verdicts:
        paired = (one.classifier_norm, one.classifier_angle, one.margin)
        table.add_row(escape(one.name), f"{one.count:g}",
                      *(f"{_number(each.measured)} ({_number(each.predicted)})" for each in paired),
                      f"{one.recall:.2f}", "–" if one.probe is None else f"{one.probe:.2f}", _SHORT[one.kind])
    console.print(table)
    for one in verdicts:
        if one.kind != "safe":
            console.print(escape(f"• {one}"))


def print_posthoc(rows: Sequence[PosthocRow], epoch: int, console: Console) -> None:
    """A row per remedy, the head as it was trained first."""
    table = Table(title=f"After training (epoch {epoch:,}), on the test part", title_justify="left", box=None)
    table.add_column("remedy", no_wrap=True)
    for heading in ("balanced", "overall", "majority", "minority", "ECE", "log-loss"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row.scores is None:
            table.add_row(row.name, "outside theory")
            continue
        found = row.scores
        table.add_row(row.name, *(f"{value:.3f}" for value in (found.balanced, found.overall, found.majority,
                                                               found.minority, found.ece, found.nll)))
    console.print(table)
    for row in rows:
        if row.refused:
            console.print(escape(f"• {row.name}: {row.refused}"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"

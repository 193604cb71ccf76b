"""How advice shows itself: a line in a terminal, a card in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcollapse.displays import counts_line
from neuralcollapse.notebook import card, number, table

if TYPE_CHECKING:
    from neuralcollapse.steer.advise import Advice
    from neuralcollapse.steer.predicted_row import Row

_ROUNDING = 1e-12  # below which a table shows 0


def advice_line(advice: Advice) -> str:
    """For which counts, and what to use."""
    return f"Advice({counts_line(advice.counts)}: {advice.recommended.line})"


def advice_at(advice: Advice) -> str:
    """Where its predictions are: in the limit, or at which ridge."""
    return "in the limit of vanishing ridge" if advice.ridge is None else f"at λ = {advice.ridge:.4g} (summed loss)"


def advice_table(advice: Advice) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row per remedy: – for what lies outside theory, empty for what a remedy has none of."""
    headings = ["remedy", "‖w‖ maj/min", "angle min", "margin maj", "margin min", "to ETF", "merges at λ ≥"]
    ridge = [] if advice.ridge is None else ["merged"]
    return headings + ridge, [_cells(row, row == advice.recommended.row, bool(ridge)) for row in advice.rows]


def _cells(row: Row, chosen: bool, ridge: bool) -> list[str]:
    values = (row.norm_ratio, row.minority_angle, row.majority_margin, row.minority_margin, row.etf_distance,
              row.merging_ridge)
    none = "" if row.outside is None else "–"
    merged = {None: none, False: "no", True: "yes"}[row.beyond]
    return [f"{'→' if chosen else ' '} {row.remedy}",
            *(none if value is None else number(0.0 if abs(value) < _ROUNDING else value) for value in values),
            *([merged] if ridge else [])]


def advice_html(advice: Advice) -> str:
    """What each remedy leads to, and which one to use."""
    chosen = advice.recommended
    return card(f"Predicted {advice_at(advice)}: {counts_line(advice.counts)}", table(*advice_table(advice)),
                note=f"For {advice.goal}: {chosen.line} – {chosen.why} {advice.rule}")

"""How advice shows itself: a line in a terminal, a card in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralcollapse.displays import counts_line
from neuralcollapse.notebook import card, number, table

if TYPE_CHECKING:
    from neuralcollapse.steer.advise import Advice


def advice_line(advice: Advice) -> str:
    """For which counts, and what to use."""
    return f"Advice({counts_line(advice.counts)}: {advice.recommended.line})"


def advice_html(advice: Advice) -> str:
    """What each remedy leads to, and which one to use."""
    chosen = advice.recommended
    rows = [[f"{'→ ' if row == chosen.row else ''}{row.remedy}", *map(number, (
        row.norm_ratio, row.minority_angle, row.majority_margin, row.minority_margin, row.etf_distance,
        row.merging_ridge))] for row in advice.rows]
    header = ["remedy", "‖w‖ maj/min", "angle min", "margin maj", "margin min", "to ETF", "merges at λ ≥"]
    at = "in the limit of vanishing ridge" if advice.ridge is None else f"at λ = {advice.ridge:.4g}"
    return card(f"Predicted {at}: {counts_line(advice.counts)}", table(header, rows),
                note=f"For {advice.goal}: {chosen.line} – {chosen.why} {advice.rule}")

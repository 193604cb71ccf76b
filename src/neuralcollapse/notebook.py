"""Small static HTML for notebooks: cards of tables and matrices, with nothing to load or to run.

Knows texts and numbers only, so that what is predicted, measured and trained can all show itself with it. Text takes
the notebook's own colour, and zero in a matrix is transparent: both are readable on light and on dark.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TypeVar

from jaxtyping import Float
import numpy as np

_RULE = "1px solid rgba(128,128,128,.35)"
_NEGATIVE, _POSITIVE = (45, 140, 210), (224, 100, 30)  # blue and vermillion that show on white and on black
_SIDE = 132

T = TypeVar("T")


def card(title: str, *parts: str, note: str = "") -> str:
    """Parts made by the functions below, side by side under a title and above a note.

    Examples
    --------
    >>> "<b>a &lt; b</b>" in card("a < b", table(["x"], [["1"]]), note="really")
    True
    """
    below = f'<div style="opacity:.75;margin-top:.4em;max-width:60em">{escape(note)}</div>' if note else ""
    return (f'<div style="font-size:13px;line-height:1.45;color:inherit"><div><b>{escape(title)}</b></div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:.6em 2em;align-items:flex-start;margin-top:.4em">'
            f'{"".join(parts)}</div>{below}</div>')


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the row."""
    lines = "".join(_row("td", row) for row in rows)
    return ('<table style="border-collapse:collapse;margin:0;color:inherit;font-size:inherit">'
            f'<thead>{_row("th", header)}</thead><tbody>{lines}</tbody></table>')


def _row(tag: str, row: Sequence[str]) -> str:
    cells = "".join(f'<{tag} style="padding:2px 14px 2px 0;text-align:{"right" if place else "left"}">{escape(cell)}'
                    f"</{tag}>" for place, cell in enumerate(row))
    return f'<tr style="border-bottom:{_RULE};background:none">{cells}</tr>'


def matrix(title: str, values: Float[np.ndarray, "p q"]) -> str:
    """A matrix as a picture with one pixel per entry: blue below zero, vermillion above, deeper for larger ones.

    Strength follows the square root of the entry, so that small ones can be told apart; NaN is left empty.
    """
    from PIL import Image

    finite = np.nan_to_num(values)
    largest = float(np.abs(finite).max(initial=0.0))
    pixels = np.empty((*finite.shape, 4), dtype=np.uint8)
    pixels[..., :3] = np.where((finite < 0)[..., None], _NEGATIVE, _POSITIVE)
    pixels[..., 3] = np.rint(255 * np.sqrt(np.abs(finite) / (largest or 1.0)))
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    text = f"{title}: {finite.shape[0]} × {finite.shape[1]}, entries from {number(float(finite.min()))} to " \
           f"{number(float(finite.max()))}"
    return (f'<div><div>{escape(title)}</div><img alt="{escape(text)}" title="{escape(text)}" width="{_SIDE}" '
            f'height="{_SIDE}" style="image-rendering:pixelated;border:{_RULE};margin:.2em 0 0" '
            f'src="data:image/png;base64,{b64encode(file.getvalue()).decode()}"></div>')


def number(value: float | None) -> str:
    """Three significant digits; a dash where there is no number.

    Examples
    --------
    >>> number(0.12345), number(None), number(float("nan"))
    ('0.123', '–', '–')
    """
    return "–" if value is None or np.isnan(value) else f"{value:.3g}"


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of them, evenly chosen, the first and the last included.

    Examples
    --------
    >>> spread([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]

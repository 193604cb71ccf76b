"""What is printed in a terminal: tables that keep their numbers whole where it is narrow, and sketches of a line.

Knows texts and numbers only, so that advice can print itself with the tables that every command prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from jaxtyping import Float
import numpy as np
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_BLOCKS, _ZERO = "▁▂▃▄▅▆▇█", 1e-9
_GAP = 2


def print_table(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print `laid_out` at the width of the console."""
    for part in laid_out(headings, rows, console.width, left):
        console.print(part)


def laid_out(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, left: int = 1
             ) -> Iterator[RenderableType]:
    """A table without lines; columns that do not fit beside each other go into tables below, under the same names.

    Parameters
    ----------
    headings, rows : sequences of str
        Plain text; the first column names the row and is folded where it is long.
    width : int
        Cells beside each other.
    left : int
        How many columns stand to the left; the others are numbers, to the right, and never folded.
    """
    cells = [max([0, *(cell_len(row[c]) for row in rows)]) for c in range(len(headings))]
    widths = list(map(max, cells, map(cell_len, headings)))
    if sum(each + _GAP for each in widths) - _GAP > width:  # headings may be folded between words
        widths = [max(each, *map(cell_len, heading.split() or [""]), 0)
                  for each, heading in zip(cells, headings, strict=True)]
    first = min(max(widths[0], cell_len(headings[0])), max(width // 3, width - _GAP - sum(
        each + _GAP for each in widths[1:])))
    starts = [1]
    for c in range(1, len(widths)):
        taken = first + sum(each + _GAP for each in widths[starts[-1]:c + 1])
        if taken > width and c > starts[-1]:
            starts.append(c)
    for begin, end in pairwise([*starts, len(headings)]):
        if begin > 1:
            yield Text()
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), collapse_padding=True)
        for c in (0, *range(begin, end)):
            table.add_column(Text(headings[c]), justify="left" if c < left else "right", overflow="fold",
                             width=first if c == 0 else widths[c])
        for row in rows:
            table.add_row(*(Text(row[c]) for c in (0, *range(begin, end))))
        yield table


def sketch(console: Console, values: Float[np.ndarray, " p"], width: int = 40) -> str:
    """A sparkline, or nothing where the output's encoding has no blocks."""
    try:
        _BLOCKS.encode(console.encoding)
    except UnicodeEncodeError:
        return ""
    return sparkline(values, width)


def sparkline(values: Float[np.ndarray, " p"], width: int = 40) -> str:
    """Values from 0 (or their smallest, if below) to their largest as one line of blocks; a dot where there is none.

    Examples
    --------
    >>> sparkline(np.array([0.0, 0.5, 1.0, np.nan])), sparkline(np.array([-1.0, 0.0, 1.0]))
    ('▁▅█·', '▁▅█')
    """
    places = np.unique(np.linspace(0, values.size - 1, min(width, values.size)).round().astype(int))
    finite = values[np.isfinite(values)]
    low, top = float(finite.min(initial=0.0)), float(finite.max(initial=_ZERO))  # rounding is no shape
    return "".join("·" if np.isnan(value) else _BLOCKS[min(int((value - low) / (top - low) * len(_BLOCKS)),
                                                           len(_BLOCKS) - 1)] for value in values[places].tolist())

"""What a person sees of a sweep: a live table in a terminal, a line per finished cell elsewhere, on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from neuralcollapse.checks import counted, shown
from neuralcollapse.experiments.records import look
from neuralcollapse.experiments.sweeps.running import CellState
from neuralcollapse.notebook import number

_STATES = ("done", "running", "waiting", "failed")
_COLOURS = {"done": "green", "running": "cyan", "waiting": "dim", "failed": "red"}
# Who stays in a table that is too long for the terminal.
_FIRST = ("running", "failed", "done", "waiting")
_LINES_AROUND = 4
# Title and where in a record its number is.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "balanced accuracy": ("test", "balanced_accuracy"), "NC1": ("measurement", "nc1", "pinv"),
    "D_W": ("measurement", "distance", "classifiers")}


class SweepProgress:
    """Shows a sweep; give it to `sweep` as `progress`, inside a `with`.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to; stderr when left out, so that stdout keeps the result alone.

    Examples
    --------
    >>> from io import StringIO
    >>> from pathlib import Path
    >>> console = Console(file=StringIO(), width=80)
    >>> cell = CellState("ratio-10", {"ratio": 10}, Path("runs/ratio-10"), epochs=5)
    >>> with SweepProgress(console) as progress:
    ...     progress([cell])
    ...     cell.state, cell.last = "done", {"epoch": 5, "test": {"balanced_accuracy": 0.75}}
    ...     progress([cell])
    >>> print(console.file.getvalue().strip())
    1 of 1  ratio-10  done  balanced accuracy 0.75
    """

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._cells: Sequence[CellState] = ()
        self._told: dict[str, str] | None = None
        self._live = Live(console=self._console, get_renderable=self._view) if self._console.is_terminal else None

    def __enter__(self) -> SweepProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, cells: Sequence[CellState]) -> None:
        """Show where the cells stand."""
        self._cells = cells
        states = {cell.name: cell.state for cell in cells}
        if self._live is None:
            self._tell(cells, self._told)
        self._told = states

    def _tell(self, cells: Sequence[CellState], told: dict[str, str] | None) -> None:
        if told is None:
            kept = sum(cell.state == "done" for cell in cells)
            if kept:
                self._line(f"{kept} of {len(cells)} cells are done already")
            return
        ended = len([cell for cell in cells if told[cell.name] in ("done", "failed")])
        for cell in cells:
            if cell.state != told[cell.name] and cell.state in ("done", "failed"):
                ended += 1
                numbers = "  ".join(f"{title} {text}" for title, text in _numbers(cell).items() if text != "–")
                self._line(f"{ended} of {len(cells)}  {cell.name}  {cell.state}  {_why(cell) or numbers}")

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _view(self) -> Group:
        table = Table("cell", "state", "epoch", *_COLUMNS, box=None, pad_edge=False)
        for column in table.columns[2:]:
            column.justify = "right"
        room = max(self._console.height - _LINES_AROUND, 4)
        chosen = sorted(range(len(self._cells)), key=lambda i: _FIRST.index(self._cells[i].state))[:room]
        for cell in (self._cells[i] for i in sorted(chosen)):
            epoch = 0 if cell.last is None else cell.last["epoch"]
            numbers = _numbers(cell).values()
            table.add_row(escape(cell.name), f"[{_COLOURS[cell.state]}]{cell.state}[/]", f"{epoch}/{cell.epochs}",
                          *([Text(_why(cell), overflow="ellipsis", no_wrap=True)] if cell.error else numbers))
        return Group(table, Text(summary(self._cells)))


def summary(cells: Sequence[CellState]) -> str:
    """How many cells are in which state."""
    count = Counter(cell.state for cell in cells)
    states = ", ".join(f"{count[state]} {state}" for state in _STATES if count[state])
    return f"{counted(len(cells), 'cell')}: {states}"


def _why(cell: CellState) -> str:
    return shown(cell.error["message"] or cell.error["type"], 160) if cell.error is not None else ""


def _numbers(cell: CellState) -> dict[str, str]:
    return {title: number(look(cell.last, *path)) for title, path in _COLUMNS.items()}

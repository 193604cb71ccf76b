"""What a person sees while a run goes on: a bar and a table in a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from neuralcollapse.experiments.records import look
from neuralcollapse.experiments.train import EpochReport
from neuralcollapse.notebook import number

# Rows that stay in the live table; older ones are in the history.
_ROWS = 12
# Title and where in a record its number is.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "loss": ("train", "loss"), "train acc": ("train", "accuracy"), "test acc": ("test", "balanced_accuracy"),
    "minority": ("test", "minority_accuracy"), "NC1": ("measurement", "nc1", "pinv"),
    "D_W SELI": ("measurement", "distances", "seli", "classifiers"),
    "D_M SELI": ("measurement", "distances", "seli", "embeddings"),
    "D_W ETF": ("measurement", "distances", "etf", "classifiers"),
    "D_M ETF": ("measurement", "distances", "etf", "embeddings")}


class TrainProgress:
    """Shows a run; give it to `train` as `on_epoch`, inside a `with`.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to; stderr when left out, so that stdout keeps the result alone.

    Examples
    --------
    >>> import io
    >>> console = Console(file=io.StringIO())
    >>> with TrainProgress(console) as progress:
    ...     progress(EpochReport(epoch=1, epochs=1, loss=0.5, record={"epoch": 1, "train": {"loss": 0.25}}))
    >>> print(console.file.getvalue().strip())
    epoch 1/1  loss 0.25
    """

    def __init__(self, console: Console | None = None):
        self._console = console or Console(stderr=True)
        self._rows: list[dict[str, Any]] = []
        self._bar = Progress(TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"),
                             TextColumn("loss {task.fields[loss]:.2e}"), TimeRemainingColumn(),
                             console=self._console)
        self._task = self._bar.add_task("epochs", total=None, loss=float("nan"))
        self._live = Live(console=self._console, get_renderable=self._view) if self._console.is_terminal else None

    def __enter__(self) -> TrainProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, report: EpochReport) -> None:
        """Show one more epoch."""
        self._bar.update(self._task, completed=report.epoch, total=report.epochs, loss=report.loss)
        if report.record is None:
            return
        self._rows.append(report.record)
        if self._live is None:
            self._console.print(f"epoch {report.epoch}/{report.epochs}  {_line(report.record)}", markup=False,
                                highlight=False, soft_wrap=True)

    def _view(self) -> Group:
        table = Table("epoch", *_COLUMNS, box=None, pad_edge=False)
        for column in table.columns:
            column.justify = "right"
        for record in self._rows[-_ROWS:]:
            values = (look(record, *path) for path in _COLUMNS.values())
            table.add_row(str(record["epoch"]), *map(number, values))
        return Group(table, self._bar)


def _line(record: dict[str, Any]) -> str:
    values = {title: look(record, *path) for title, path in _COLUMNS.items()}
    return "  ".join(f"{title} {number(value)}" for title, value in values.items() if value is not None)

"""What a person sees while large files are measured: a bar on stderr, in a terminal and after a second only."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:  # it loads torch
    from neuralcollapse.measure.files import Reading


class FileProgress:
    """Shows how far `measure_files` has come; give it as `on_rows`, inside a `with`.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to; stderr when left out. Nothing is shown unless it is a terminal.
    after : float
        Seconds of silence: most files are done by then.

    Examples
    --------
    >>> import io
    >>> from neuralcollapse.measure.files import Reading
    >>> console = Console(file=io.StringIO(), force_terminal=True, width=60)
    >>> with FileProgress(console, after=0.0) as progress:
    ...     progress(Reading("epoch-1.npz", file=0, files=2, done=500, total=1000))
    >>> "epoch-1.npz" in console.file.getvalue()
    True
    """

    def __init__(self, console: Console | None = None, after: float = 1.0):
        self._console, self._after = console or Console(stderr=True), after
        self._bar: Progress | None = None

    def __enter__(self) -> FileProgress:
        self._start = monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, reading: Reading) -> None:
        """Show where it is."""
        if self._bar is None and self._console.is_terminal and monotonic() - self._start >= self._after:
            self._bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
                                 TimeRemainingColumn(), console=self._console, transient=True)
            self._task = self._bar.add_task("", total=float(reading.files))
            self._bar.start()
        if self._bar is not None:
            self._bar.update(self._task, description=reading.name,
                             completed=reading.file + reading.done / max(reading.total, 1))

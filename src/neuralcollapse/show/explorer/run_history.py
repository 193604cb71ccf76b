"""A history that grows while it is read: what is new is parsed, what was read before is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.experiments.records import look
from neuralcollapse.show.reading import as_number

_REMEMBERED = 256  # bytes before the end that tell a file that grew from another one


class GrowingHistory:
    """The records of one history file.

    Parameters
    ----------
    path : Path
        history.jsonl of a run folder.
    """

    def __init__(self, path: Path):
        self._path = path
        self._forget()

    def read(self) -> list[dict[str, Any]]:
        """The records so far; a last line that is still being written is left out.

        Raises
        ------
        InvalidInput
            A line that is no JSON object, unless it is the last one; a file that cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(max(self._end - len(self._tail), 0))
                if file.read(len(self._tail)) != self._tail:  # replaced, or cut and written anew
                    self._forget()
                    file.seek(0)
                return self._parsed(file.read())
        except FileNotFoundError:
            self._forget()
            return []
        except OSError as error:
            raise InvalidInput(f"cannot read '{self._path}': {error.strerror}") from None

    def _forget(self) -> None:
        self._end, self._tail, self._records, self._lines = 0, b"", list[dict[str, Any]](), 0

    def _parsed(self, content: bytes) -> list[dict[str, Any]]:
        *whole, last = content.split(b"\n")
        for place, line in enumerate(whole):
            record = _record(line)
            if record is None and line.strip():
                if not any(after.strip() for after in (*whole[place + 1:], last)):
                    return list(self._records)
                raise InvalidInput(f"line {self._lines + 1} of '{self._path}' must be a JSON object, got {shown(line)}")
            self._lines += 1
            self._end += len(line) + 1
            self._tail = (self._tail + line + b"\n")[-_REMEMBERED:]
            if record is not None and np.isfinite(as_number(look(record, "epoch"))):
                self._records.append(record)
        unfinished = _record(last)  # whole but for its line break
        known = unfinished is not None and np.isfinite(as_number(look(unfinished, "epoch")))
        return [*self._records, *([unfinished] if known and unfinished is not None else [])]


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None

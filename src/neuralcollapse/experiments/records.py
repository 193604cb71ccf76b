"""How to read a record of a run: nested tables, of which older versions wrote fewer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def look(record: Any, *path: str) -> Any:
    """The value at a path of nested dictionaries, None where the path ends early.

    Examples
    --------
    >>> look({"train": {"loss": 0.5}}, "train", "loss"), look({"train": None}, "train", "loss")
    (0.5, None)
    """
    for key in path:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record

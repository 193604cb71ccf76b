"""How the files of a run folder are written, so that neither a kill nor a full disk loses any, and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import json
import os
from pathlib import Path
import time
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.files import replacing, writing

_A_LOOK = 0.05  # seconds; a look at a lock takes microseconds


def read_history(path: Path) -> list[dict[str, Any]]:
    """The records of a history; a last line that is not whole is left out: it is still being written."""
    try:
        lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(f"cannot read '{path}': {error.strerror}") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            if number < len(lines):
                raise InvalidInput(f"line {number} of '{path}' must be JSON, got {shown(line)}") from None
    return records


def mend_history(path: Path) -> None:
    """Cut off a last line that a kill left half-written, in place: a full disk has no room for a copy."""
    whole = len(read_history(path))
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        kept = b"".join(line + b"\n" for line in content.split(b"\n")[:whole])
        if len(kept) > len(content):  # all but the end of the last line
            file.write(b"\n")
        else:
            file.truncate(len(kept))
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, content: bytes) -> None:
    """Add a line; it is on disk when this returns."""
    with path.open("ab") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_geometry(path: Path) -> dict[str, np.ndarray]:
    """The Grams by name; none when the file is missing or not whole, as after a copy of a running run."""
    try:
        return dict(safetensors.load(path.read_bytes()))
    except (OSError, SafetensorError):
        return {}


def is_verdict(content: Any) -> bool:
    """Whether this is what `steer.ClassVerdict.to_dict` gives, as far as it is shown."""
    if not isinstance(content, dict):
        return False

    def number(value: Any) -> bool:
        return value is None or isinstance(value, (int, float))

    pairs = [content.get(name) for name in ("classifier_norm", "classifier_angle", "margin")]
    return (all(isinstance(content.get(name), str) for name in ("name", "kind", "rule", "advice"))
            and isinstance(content.get("confused_with"), str | None)
            and isinstance(content.get("count"), int | float)
            and all(name in content and number(content[name]) for name in ("recall", "probe"))
            and all(isinstance(pair, dict) and all(name in pair and number(pair[name])
                                                   for name in ("measured", "predicted")) for pair in pairs))


def json_bytes(content: Mapping[str, Any], indent: int | None = None) -> bytes:
    """JSON of finite numbers."""
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False).encode()


def write(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file of a folder that this process holds, as a whole."""
    with replacing(path, durable, alone=True) as part:
        part.write_bytes(content)


@contextmanager
def sole_writer(path: Path, name: str) -> Iterator[None]:
    """Hold a run folder, made if need be, for one process; the system lets go of it when that process dies.

    It asks twice, as somebody may just be looking whether it is held (`is_held`).

    Raises
    ------
    InvalidInput
        Another process holds it.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / name).open("ab")
    with file:
        held = _locked(file.fileno())
        if not held:
            time.sleep(_A_LOOK)
            held = _locked(file.fileno())
        if not held:
            raise InvalidInput(f"'{path}' is being written by another process: wait for it, or choose another folder")
        yield


def is_held(path: Path) -> bool | None:
    """Whether a process holds a lock file; None where that cannot be known. Nothing is written."""
    try:
        import fcntl

        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return None
    return False


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without it: nothing is checked
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system that knows no locks
        return True
    return True

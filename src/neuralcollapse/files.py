"""Files that are written as a whole or not at all, and one line where they cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path

from neuralcollapse.checks import InvalidInput


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """One line in place of what the system says when a file, a folder or the disk cannot be written.

    Raises
    ------
    InvalidInput
        Any OSError inside.
    """
    try:
        yield
    except FileNotFoundError:
        reason = (f"there is no folder '{path.parent}'" if not path.parent.is_dir() else
                  "it was moved or removed while it was written")
        raise InvalidInput(f"cannot write '{path}': {reason}") from None
    except OSError as error:
        raise InvalidInput(f"cannot write '{path}': {error.strerror or error}") from None


@contextmanager
def replacing(path: Path, durable: bool = True, alone: bool = False) -> Iterator[Path]:
    """The path of a new file that takes the place of `path` once it is complete (and, when durable, on disk).

    `alone` says that no other process writes `path`: then what a kill leaves behind is replaced the next time.
    """
    part = path.with_name(f".{path.name}.tmp" if alone else f".{path.name}.{os.getpid()}.tmp")
    try:
        yield part
        if durable:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)  # half a file would fill a full disk further
        raise


def require_file(path: Path, what: str = "file") -> None:
    """InvalidInput when there is no such file, or a folder stands there."""
    if path.is_dir():
        raise InvalidInput(f"expected a {what}, got the folder '{path}'")
    if not path.is_file():
        raise InvalidInput(f"no such {what}: '{path}'")


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing; InvalidInput when the system refuses."""
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"expected a folder, got the file '{path}'")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file, UTF-8 with Unix line ends; InvalidInput when the place cannot be written."""
    with writing(path), replacing(path, durable=False) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
    return path

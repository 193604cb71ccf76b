"""The runs the explorer may open: those of its command line, read anew when they have changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from threading import Lock
from time import monotonic

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.comparison import compared, distinct_names
from neuralcollapse.experiments.run import CONFIG, DATA, GEOMETRY, HISTORY, LOCK, RESCUE, Run
from neuralcollapse.experiments.run_files import is_held
from neuralcollapse.experiments.sweeps.folder import run_folders
from neuralcollapse.show.explorer.run_history import GrowingHistory
from neuralcollapse.show.explorer.run_opened import DecayPath, OpenedRun, Unreadable

_FILES = (CONFIG, DATA, HISTORY, GEOMETRY, RESCUE)
_LOOK_AGAIN = 1.0  # seconds after which a folder of runs may hold others

Stamp = tuple[tuple[int, int, int] | bool | None, ...]
"""Of every file of a run: when it was written, its size and which file it is; None for one that is not there. At the
end whether a process holds the folder."""


@dataclass
class RunShelf:
    """Run folders by the name they have in URLs; a name is looked up here and never becomes a path.

    Attributes
    ----------
    given : tuple of Path
        Run folders, or folders of them; runs may come into being later.
    """

    given: tuple[Path, ...]
    _found: tuple[float, dict[str, Path]] = (float("-inf"), {})
    _kept: dict[Path, _Kept] = field(default_factory=lambda: defaultdict(_Kept))
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, paths: Sequence[str | Path]) -> RunShelf:
        """The runs in some folders: run folders, or folders of them.

        Raises
        ------
        InvalidInput
            A path that is no folder.
        """
        for path in paths:
            if not Path(path).is_dir():
                reason = "it is a file" if Path(path).exists() else "there is no such folder"
                raise InvalidInput(f"'{path}' is not a folder of runs: {reason}")
        return cls(tuple(Path(path) for path in paths))

    @property
    def folders(self) -> dict[str, Path]:
        """Name to folder, in the order given; a folder without runs stands for itself."""
        with self._lock:
            when, found = self._found
            if monotonic() - when > _LOOK_AGAIN:
                runs = {folder.absolute(): folder for path in self.given for folder in _runs(path)}
                found = dict(zip(distinct_names([path.resolve() for path in runs]), runs.values(), strict=True))
                self._found = monotonic(), found
            return found

    def open(self, name: str) -> OpenedRun | Unreadable:
        """The run of a name, read anew where a file of it has changed; or why it cannot be read."""
        folder = self.folders.get(name)
        if folder is None:
            return Unreadable(name, "no run of this name was given to the explorer")
        with self._lock:
            kept = self._kept[folder]
        with kept.lock:
            stamp = _stamp(folder)
            if kept.run is None or stamp != kept.stamp or kept.run.name != name:
                kept.run, kept.stamp = _read(name, folder, kept, stamp), stamp
            return kept.run

    def signature(self) -> str:
        """Changes whenever a run does, and costs a look at the files' dates."""
        now = [(name, _stamp(folder)) for name, folder in self.folders.items()]
        return _digest(now)


class _Kept:
    """What is kept of one folder between looks at it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.run: OpenedRun | Unreadable | None = None
        self.stamp: Stamp = ()
        self.history: GrowingHistory | None = None
        self.path: DecayPath | None = None


def _runs(path: Path) -> list[Path]:
    """The run folders in a folder and in the folders in it (sweeps), or the folder itself."""
    if (path / CONFIG).exists() or (path / DATA).exists():
        return [path]
    try:
        own = run_folders(path)
        inner = [run for child in sorted(path.iterdir()) if child not in own and child.is_dir() and
                 not child.name.startswith(".") for run in run_folders(child)]
    except (InvalidInput, OSError):
        return [path]
    return [*own, *inner] or [path]


def _stamp(folder: Path) -> Stamp:
    found: list[tuple[int, int, int] | bool | None] = []
    for name in _FILES:
        try:
            status = (folder / name).stat()
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except (OSError, ValueError):
            found.append(None)
    return (*found, is_held(folder / LOCK))


def _read(name: str, folder: Path, kept: _Kept, stamp: Stamp) -> OpenedRun | Unreadable:
    try:
        run = Run.open(folder)
        if kept.history is None:
            kept.history = GrowingHistory(folder / HISTORY)
        run.history = kept.history.read()
        if kept.path is None or stamp[:2] != kept.stamp[:2]:  # other settings or data: another prediction
            kept.path = DecayPath()
        return OpenedRun.of(compared(name, run), kept.path, _digest((name, stamp)))
    except InvalidInput as error:
        waiting = stamp[:2] == (None, None)
        return Unreadable(name, "there is no run in this folder yet" if waiting else str(error), waiting)
    except Exception as error:  # the folder may hold anything at all, and must not hide the other runs
        what = " ".join(str(error).split())[:120]
        return Unreadable(name, f"'{folder}' holds something else than a run: {type(error).__name__} {what}".rstrip())


def _digest(content: object) -> str:
    return sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]

"""The runs the explorer may open: those of its command line, read anew when they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralcollapse.checks import InvalidInput


@dataclass(frozen=True)
class RunShelf:
    """Run folders by the name they have in URLs; a name is looked up here and never becomes a path.

    Attributes
    ----------
    folders : dict
        Name to folder, in the order given.
    """

    folders: dict[str, Path]

    @classmethod
    def of(cls, paths: Sequence[str | Path]) -> RunShelf:
        """The runs in some folders: run folders, or folders of them."""
        for path in paths:
            if not Path(path).is_dir():
                raise InvalidInput(f"'{path}' is not a folder of runs: there is no such folder")
        return cls({Path(path).resolve().name: Path(path) for path in paths})

"""How a geometry, metric, data set, model or study makes itself known.

A registry is an ordered table from names to entries. An entry carries what the command line, the
documentation and the contract tests need to know about a thing: its name, one line of summary, the
key of its paper in `references.bib`, and the thing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
import inspect
import re
from typing import Any, Generic, TypeVar

from neuralcollapse.checks import InvalidInput, did_you_mean

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[F]):
    """One registered thing."""

    name: str
    function: F
    summary: str
    source: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """What the function takes, by name."""
        return dict(inspect.signature(self.function).parameters)


class Registry(Generic[F]):
    """Names to entries, in the order of registration.

    Examples
    --------
    >>> COLOURS = Registry("colour")
    >>> @COLOURS.register("teal", source="papyan2020")
    ... def teal():
    ...     "Between green and blue."
    >>> COLOURS["teal"].summary
    'Between green and blue.'
    >>> COLOURS["tael"]
    Traceback (most recent call last):
        ...
    neuralcollapse.checks.InvalidInput: unknown colour 'tael': did you mean 'teal'? known: teal
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry[F]] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, *, source: str | tuple[str, ...] = (), aliases: tuple[str, ...] = (),
                 **options: Any) -> Callable[[F], F]:
        """A decorator that adds a function under `name`; its first docstring line is the summary."""
        def add(function: F) -> F:
            taken = {name, *aliases} & (self._entries.keys() | self._aliases.keys())
            if taken:
                raise ValueError(f"{self.kind} {sorted(taken)} is registered already")
            summary = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
            sources = (source,) if isinstance(source, str) else source
            self._entries[name] = Entry(name, function, summary, sources, aliases, options)
            self._aliases.update(dict.fromkeys(aliases, name))
            return function
        return add

    def __getitem__(self, name: str) -> Entry[F]:
        """The entry called `name`; InvalidInput with the nearest name when there is none."""
        entry = self._entries.get(self._aliases.get(name, name))
        if entry is None:
            raise InvalidInput(f"unknown {self.kind} '{name}': {did_you_mean(name, self.names)}")
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[Entry[F]]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def names(self) -> list[str]:
        """Every name that `[...]` accepts, aliases included."""
        return [*self._entries, *self._aliases]


@cache
def references() -> dict[str, str]:
    """The BibTeX entries of `references.bib`, by key."""
    text = files("neuralcollapse").joinpath("references.bib").read_text(encoding="utf-8")
    return {key: entry.strip() for entry, key in re.findall(r"(@\w+\{([^,]+),.*?\n\})", text, re.S)}

"""How a geometry, metric, data set, model or study makes itself known.

A registry is an ordered table from names to entries. An entry carries what the command line, the
documentation and the contract tests need to know about a thing: its name, one line of summary, the
key of its paper in `references.bib`, and the thing itself.

Other packages add to a registry by an entry point: a module that registers something when it is imported, in the
group `neuralcollapse.KIND` (`neuralcollapse.loss`, `.metric`, `.remedy`, `.study`, `.data-set`, …). It is imported
when a name of that kind is first looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
import inspect
import re
from typing import Any, Generic, TypeVar
import warnings

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
        self._complete = False

    @property
    def group(self) -> str:
        """The group of entry points that plug-ins add themselves to."""
        return f"neuralcollapse.{self.kind.replace(' ', '-')}"

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
        entry = self._with_plugins().get(self._aliases.get(name, name))
        if entry is None:
            raise InvalidInput(f"unknown {self.kind} '{name}': {did_you_mean(name, self.names)}")
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._with_plugins() or name in self._aliases

    def __iter__(self) -> Iterator[Entry[F]]:
        return iter(self._with_plugins().values())

    def __len__(self) -> int:
        return len(self._with_plugins())

    @property
    def names(self) -> list[str]:
        """Every name that `[...]` accepts, aliases included."""
        return [*self._with_plugins(), *self._aliases]

    def _with_plugins(self) -> dict[str, Entry[F]]:
        """The entries, those of installed plug-ins among them; one that cannot be imported is named and left out."""
        if not self._complete:
            self._complete = True  # first: a plug-in may look names up
            for plugin in entry_points(group=self.group):
                try:
                    plugin.load()
                except Exception as error:  # whatever another package does must not end this one
                    warnings.warn(f"the plug-in {plugin.name} ({plugin.value}) cannot be loaded: "
                                  f"{type(error).__name__}: {error}", stacklevel=3)
        return self._entries


@cache
def references() -> dict[str, str]:
    """The BibTeX entries of `references.bib`, by key, and those that plug-ins brought."""
    return bibtex_entries(files("neuralcollapse").joinpath("references.bib").read_text(encoding="utf-8"))


def add_references(bibtex: str) -> None:
    r"""Bring the papers of a plug-in, so that `source` can name them and `cite` print them.

    Parameters
    ----------
    bibtex : str
        Entries, each ending in a brace on a line of its own.

    Raises
    ------
    ValueError
        No entry, or a key that stands for another paper already.

    Examples
    --------
    >>> add_references("@misc{you2026,\n  title = {A geometry of your own},\n}")
    >>> references()["you2026"].splitlines()[0]
    '@misc{you2026,'
    >>> del references()["you2026"]
    """
    found = bibtex_entries(bibtex)
    if not found:
        raise ValueError(f"expected BibTeX entries, each ending in a brace on a line of its own, got {bibtex[:60]!r}")
    known = references()
    for key, entry in found.items():
        if known.setdefault(key, entry) != entry:
            raise ValueError(f"the key '{key}' stands for another paper already")


def bibtex_entries(text: str) -> dict[str, str]:
    """BibTeX entries by key."""
    return {key: entry.strip() for entry, key in re.findall(r"(@\w+\{([^,]+),.*?\n\})", text, re.S)}

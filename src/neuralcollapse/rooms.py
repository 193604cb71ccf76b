"""A room that is also its verb: `neuralcollapse.measure` is a package, and calling it measures."""

from __future__ import annotations

from importlib import import_module
import inspect
import sys
from types import ModuleType
from typing import Any


class Room(ModuleType):
    """A package that can be called like the function of its own name inside it."""

    @property
    def verb(self) -> Any:
        """The function."""
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.verb)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the verb."""
        return self.verb(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


def open_room(name: str) -> None:
    """Make the package `name` callable.

    Examples
    --------
    >>> import neuralcollapse.measure
    >>> neuralcollapse.measure([[1.0], [2.0]], [0, 1]).measured.k
    2
    """
    sys.modules[name].__class__ = Room


def look_up(module: str, name: str) -> Any:
    """A name of a module: the module itself, where it is the room of that name, as any import of it gives."""
    found = import_module(module)
    return found if isinstance(found, Room) and module.endswith(f".{name}") else getattr(found, name)

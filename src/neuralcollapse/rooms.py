"""A room that is also its verb: `neuralcollapse.measure` is a package, and calling it measures."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class Room(ModuleType):
    """A package that can be called like the function of its own name inside it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the verb."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def open_room(name: str) -> None:
    """Make the package `name` callable.

    Examples
    --------
    >>> import neuralcollapse
    >>> neuralcollapse.predict([5, 5]).k
    2
    """
    sys.modules[name].__class__ = Room

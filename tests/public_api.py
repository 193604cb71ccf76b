"""The public names with what they take, as text: `python tests/public_api.py` writes public_api.txt anew.

Public is what stands in the `__all__` of the package or of a room, and the public members of its classes.
"""

import importlib
import inspect
from pathlib import Path
import re

from neuralcollapse.registry import Registry

LISTED = Path(__file__).with_name("public_api.txt")
ROOMS = ("neuralcollapse", *(f"neuralcollapse.{room}" for room in (
    "predict", "measure", "measure.callbacks", "simulate", "steer", "experiments", "show")))


def signature(function):
    """Names, kinds and defaults; annotations are for the type checker to keep."""
    try:
        given = inspect.signature(function)
    except ValueError:
        return "(…)"
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in given.parameters.values()]
    text = str(given.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (\S+) at \w+>", r"\1", text)


def members(cls):
    """The public members that come from this library, by name."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("neuralcollapse"):
            fields = inspect.get_annotations(base)
            found |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
            found |= {name: found.get(name) for name in fields if not name.startswith("_")}
    for name, value in sorted(found.items()):
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        yield f".{name}{signature(function) if inspect.isfunction(function) else ''}"


def described(name, value):
    """One public thing, a line and a line for every member."""
    if isinstance(value, Registry):
        yield f"{name}: {', '.join(value.names)}"
    elif inspect.isclass(value):
        yield f"{name}{'' if issubclass(value, Exception) else signature(value)}"
        yield from (f"  {line}" for line in members(value))
    elif callable(value):
        yield f"{name}{signature(value)}"
    else:
        yield f"{name} = {value!r}"


def public():
    """Rooms to their public names and things; what the package takes from a room is described there."""
    things = {room: {name: getattr(importlib.import_module(room), name)
                     for name in importlib.import_module(room).__all__} for room in ROOMS}
    top = things["neuralcollapse"]
    of_rooms = {name for named in things.values() if named is not top for name in named}
    return things | {"neuralcollapse": {name: None if name in of_rooms else thing for name, thing in top.items()}}


def text():
    """All of it."""
    lines = []
    for room, named in public().items():
        lines.append(f"# {room}")
        for name, thing in sorted(named.items()):
            lines += [name] if thing is None else described(name, thing)
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    LISTED.write_text(text(), encoding="utf-8")

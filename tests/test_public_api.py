"""The public names: a change of them is deliberate, they fit on a page, and the reference shows each."""

import inspect
import re

import pytest

from neuralcollapse.registry import Registry
from pages import ROOT
import public_api

REFERENCE = ROOT / "docs" / "reference"


def directives():
    """What the reference shows: paths to the pages that show them."""
    return {path: page for page in sorted(REFERENCE.glob("*.md"))
            for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)}


PUBLIC = [(room, name, thing) for room, named in public_api.public().items() for name, thing in named.items()
          if thing is not None]


def test_the_public_names_and_what_they_take_are_those_listed():
    assert public_api.text() == public_api.LISTED.read_text(encoding="utf-8"), (
        "the public interface has changed: where a name or an argument went, deprecate it first (CONTRIBUTING.md); "
        "then run python tests/public_api.py, and say it in CHANGELOG.md")


def test_they_fit_on_a_page():
    assert len(PUBLIC) <= 120


@pytest.mark.parametrize(("room", "name", "thing"), PUBLIC, ids=[f"{room}.{name}" for room, name, _ in PUBLIC])
def test_the_reference_shows_it(room, name, thing):
    if not isinstance(thing, Registry):  # docs/registered.md lists what is in these
        # `train` is a module that can be called, too.
        thing = thing if inspect.isclass(thing) or inspect.isfunction(thing) else getattr(thing, name)
        assert f"{thing.__module__}.{thing.__qualname__}" in directives()
    listed = (REFERENCE / "index.md").read_text(encoding="utf-8")
    assert f"`{name}`" in listed


def test_the_reference_shows_no_inner_part():
    names = {name for _, name, _ in PUBLIC}
    beside = {"neuralcollapse", "CollapseCallback", "Row"}  # each said on its page
    for path in directives():
        assert path.rpartition(".")[2] in names | beside, path

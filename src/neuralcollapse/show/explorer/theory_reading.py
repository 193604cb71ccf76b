"""What was typed or linked as a state: a value that cannot be is left as it was, and a message says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES
from neuralcollapse.predict.geometry import Setting, geometry_at
from neuralcollapse.show.explorer.class_rules import number_of, plain_text, vector
from neuralcollapse.show.explorer.theory_state import (
    CHOICES,
    DEFAULT,
    DRAWN,
    MOST_GROUPS,
    PROFILES,
    VECTORS,
    TheoryState,
)

MOST_CLASSES = 1_000_000
MOST_SAMPLES = 1e9  # of one class
LARGEST_RATIO = 1e6
LONGEST_TEXT = 8_000
_RIDGES = (1e-9, 1e9)
_KNOWN = {*(field.name for field in fields(TheoryState)), *VECTORS, *CHOICES}
_FIRST_GUESS = "n^0.25"  # of a parameter that a loss cannot do without


def from_query(text: object) -> tuple[TheoryState, list[str]]:
    """The state of a URL, whatever it says, and what could not be used of it.

    Examples
    --------
    >>> from_query("?k=20&loss=mse")[0].k
    20
    >>> from_query("k=-3")[1]
    ['k must be a whole number from 2 to 1,000,000, got -3: showing 10']
    """
    if not isinstance(text, str):
        return DEFAULT, []
    try:
        values = parse_qs(text.removeprefix("?"), keep_blank_values=False, max_num_fields=100)
    except ValueError:
        return DEFAULT, ["This address has too many parts to be read: showing the start."]
    state, messages = read({name: given[-1] for name, given in values.items()}, DEFAULT)
    twice = sorted(name for name, given in values.items() if len(given) > 1 and name in _KNOWN)
    messages += [f"{name} was given more than once: the last one counts" for name in twice]
    return state, messages


def read(values: Mapping[str, Any], before: TheoryState) -> tuple[TheoryState, list[str]]:
    """A state from what was typed or linked; what cannot be stays as it was `before`.

    Parameters
    ----------
    values : mapping of str to anything
        By the names in a URL; a missing or empty one is the default.
    before : TheoryState
        A state that can be.
    """
    messages: list[str] = []

    def take(name: str, check: Any, old: Any) -> Any:
        given = values.get(name)
        if given is None or given == "":
            return getattr(DEFAULT, name)
        try:
            return check(name, given)
        except InvalidInput as error:
            messages.append(f"{error}: showing {old if isinstance(old, str) else plain_text(old)}")
            return old

    state = TheoryState(
        profile=take("profile", _one_of(tuple(PROFILES)), before.profile), k=take("k", _whole, before.k),
        ratio=take("ratio", _between(1, LARGEST_RATIO), before.ratio),
        minority=take("minority", _between(0, 1), before.minority),
        n_min=take("n_min", _between(1e-3, MOST_SAMPLES), before.n_min),
        n_max=take("n_max", _between(1, MOST_SAMPLES), before.n_max), counts=take("counts", _text, before.counts),
        loss=take("loss", _loss, before.loss), drawn=take("drawn", _one_of(tuple(DRAWN)), before.drawn))
    state = _with_counts_that_can_be(_relevant(state), before, messages)
    state = _with_parameters(state, values, before, messages)
    return _with_ridge(state, values.get("ridge"), before, messages), messages


@cache
def why_no_ridge(loss: str) -> str:
    """Why a loss has no geometry at a finite λ; empty where it has."""
    entry = GEOMETRIES[loss]
    needed = {name: [1.0, 1.0] for name in needs(loss)}
    try:
        entry.function(ClassCounts([2, 1]), Setting(1.0), **needed)
    except OutsideTheory as error:
        return str(error)
    return ""


def takes(loss: str) -> tuple[str, ...]:
    """The parameters of a loss."""
    return tuple(name for name in GEOMETRIES[loss].parameters if name not in ("counts", "at"))


def needs(loss: str) -> tuple[str, ...]:
    """Those of them it cannot do without."""
    return tuple(name for name, parameter in GEOMETRIES[loss].parameters.items()
                 if name not in ("counts", "at") and parameter.default is parameter.empty)


# -- parts ------------------------------------------------------------------------------------------

def _relevant(state: TheoryState) -> TheoryState:
    """Without what another profile uses, so that one geometry is one state."""
    unused = {"step": ("n_max", "counts"), "long-tail": ("minority", "n_min", "counts"),
              "counts": ("k", "ratio", "minority", "n_min", "n_max")}[state.profile]
    return replace(state, **{name: getattr(DEFAULT, name) for name in unused})


def _with_counts_that_can_be(state: TheoryState, before: TheoryState, messages: list[str]) -> TheoryState:
    try:
        state.class_counts()
    except InvalidInput as error:
        messages.append(f"{error}: the class counts stay as they were")
        kept = {name: getattr(before, name) for name in
                ("profile", "k", "ratio", "minority", "n_min", "n_max", "counts")}
        return replace(state, **kept)
    if state.profile == "step" and abs(state.minority - state.share) > 1e-9:
        messages.append(f"ρ = {state.share:.4g}: {round(state.minority * state.k):,} of {state.k:,} classes, the "
                        f"share nearest to {state.minority:g}")
    return state


def _with_parameters(state: TheoryState, values: Mapping[str, Any], before: TheoryState,
                     messages: list[str]) -> TheoryState:
    counts, kept = state.class_counts(), dict(before.parameters)
    found: dict[str, str] = {}
    for name in takes(state.loss):
        given = values.get(name)
        needed = [_FIRST_GUESS] if name in needs(state.loss) else []
        before_that = [kept[name]] if name in kept else []
        for text in [given, *before_that, *needed] if given not in (None, "") else needed:
            try:
                found[name] = _parameter(name, text, counts, state.loss, found)
                break
            except InvalidInput as error:
                messages.append(str(error))
    return replace(state, parameters=tuple((name, text) for name, text in found.items()
                                           if CHOICES.get(name, ("",))[0] != text))


def _parameter(name: str, text: Any, counts: ClassCounts, loss: str, others: Mapping[str, str]) -> str:
    """A parameter's text, once the loss itself takes what it says."""
    text = _text(name, text)
    if name in CHOICES:
        return str(_one_of(CHOICES[name])(name, text))
    numbers = vector(name, text, counts)
    # One class of each kind and one more: the loss checks sign and size, in no time for a million classes.
    some = np.unique(np.r_[counts.groups.first, int(numbers.argmin()), int(numbers.argmax())])
    few = ClassCounts(counts.values[some]) if some.size > 1 else ClassCounts(np.repeat(counts.values[some], 2))
    given = {needed: [1.0] * few.k for needed in needs(loss)} | {name: np.resize(numbers[some], few.k)}
    geometry_at(few, loss, Setting(), given)
    return text


def _with_ridge(state: TheoryState, given: Any, before: TheoryState, messages: list[str]) -> TheoryState:
    if given is None or given == "":
        return state
    try:
        ridge = _between(*_RIDGES)("λ", given)
    except InvalidInput as error:
        messages.append(str(error))
        ridge = before.ridge
    if ridge is not None and why_no_ridge(state.loss):
        messages.append(f"{why_no_ridge(state.loss)}; showing the limit")
        return state
    if ridge is not None and not state.solvable_at_a_ridge:
        messages.append(f"λ > 0 is solved in this page for up to {MOST_GROUPS} kinds of classes, got "
                        f"{state.groups:,}: showing the limit; the Python line takes any number")
        return state
    return replace(state, ridge=ridge)


def _one_of(known: tuple[str, ...]) -> Any:
    def check(name: str, given: Any) -> str:
        if given not in known:
            raise InvalidInput(f"{name} must be one of {', '.join(known)}, got {shown(given, 40)!r}")
        return str(given)
    return check


def _between(low: float, high: float) -> Any:
    def check(name: str, given: Any) -> float:
        number = number_of(given)
        if number is None or not low <= number <= high:
            raise InvalidInput(f"{name} must be a number from {low:g} to {high:,g}, got {shown(given, 40)}")
        return number
    return check


def _whole(name: str, given: Any) -> int:
    number = number_of(given)
    if number is None or number % 1 or not 2 <= number <= MOST_CLASSES:
        raise InvalidInput(f"{name} must be a whole number from 2 to {MOST_CLASSES:,}, got {shown(given, 40)}")
    return int(number)


def _loss(name: str, given: Any) -> str:
    if not isinstance(given, str) or given not in GEOMETRIES:
        raise InvalidInput(f"loss must be one of {', '.join(entry.name for entry in GEOMETRIES)}, "
                           f"got {shown(given, 40)!r}")
    return GEOMETRIES[given].name


def _text(name: str, given: Any) -> str:
    text = str(given)
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(f"{name} must be a text of at most {LONGEST_TEXT:,} characters, got {len(text):,}")
    return " ".join(text.split())

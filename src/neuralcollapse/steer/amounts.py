"""Numbers as this room takes them: text, truth values, None, NaN and lists are refused in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import math
from numbers import Real
from typing import Any

from jaxtyping import Float
import numpy as np
from torch import Tensor

from neuralcollapse.checks import InvalidInput, as_array, shown


def finite(value: Any) -> float | None:
    """`value` as a float where it is one finite real number; None where it is not, be it text that reads like one."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.item() if value.ndim == 0 else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def positive(name: str, value: Any) -> float:
    """`value` as a finite float above 0."""
    number = finite(value)
    if number is None or number <= 0:
        raise InvalidInput(f"{name} must be a positive number, got {given(value)}")
    return number


def not_negative(name: str, value: Any) -> float:
    """`value` as a finite float ≥ 0."""
    number = finite(value)
    if number is None or number < 0:
        raise InvalidInput(f"{name} must be a number ≥ 0, got {given(value)}")
    return number


def positive_or_none(name: str, value: Any) -> float | None:
    """As `positive`, where None is to leave it out."""
    return None if value is None else positive(name, value)


def finite_number(name: str, value: Any) -> float:
    """`value` as a finite float of either sign."""
    number = finite(value)
    if number is None:
        raise InvalidInput(f"{name} must be a finite number, got {given(value)}")
    return number


def below_one(name: str, value: Any, why: str = "") -> float:
    """`value` as a float in [0, 1); `why` ends the message."""
    number = finite(value)
    if number is None or not 0 <= number < 1:
        raise InvalidInput(f"{name} must be a number in [0, 1), got {given(value)}{why}")
    return number


def whole(name: str, value: Any, least: int | None = None) -> int:
    """`value` as an int, of at least `least`."""
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_floating_point() and not value.is_complex():
        value = value.item()
    bound = "" if least is None else f" ≥ {least}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or (least is not None and value < least):
        raise InvalidInput(f"{name} must be a whole number{bound}, got {given(value)}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a bool; text such as "False", which Python takes for true, is refused."""
    if not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} must be True or False, got {given(value)}")
    return bool(value)


def sizes(k: Any, d: Any) -> tuple[int, int]:
    """Both as ints; InvalidInput unless there are two classes and a dimension."""
    k, d = whole("k", k), whole("d", d)
    if k < 2:
        raise InvalidInput(f"k must be at least 2 classes, got {k}")
    if d < 1:
        raise InvalidInput(f"d must be at least 1, got {d}")
    return k, d


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """`value` where it is one of the names known."""
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{name} must be one of {', '.join(known)}, got {shown(value)!r}")
    return value


def array_of(name: str, values: Any) -> Float[np.ndarray, ...]:
    """Numbers of any library, a `Linear.weight` among them, as a float64 array of their shape."""
    try:
        array = np.asarray(as_array(values))
        if array.dtype.kind in "USbc":
            raise TypeError(array.dtype)
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be numbers, got {given(values)}") from None


def stored(what: str, state: Any, names: Iterable[str]) -> Mapping[str, Any]:
    """`state` where it is a state dict that holds all the names."""
    missing = [name for name in names if not isinstance(state, Mapping) or name not in state]
    if missing:
        raise InvalidInput(f"the state of a {what} must be what its state_dict gave, got none of its "
                           f"{', '.join(missing)}")
    return state


def per_class(name: str, values: Any, k: int) -> Any:
    """`values`, to be checked for size and sign, where they are no text, truth values or complex numbers."""
    try:
        kind = np.asarray(as_array(values)).dtype.kind
    except ValueError:
        return values  # of different lengths: what checks the size says so
    if kind in "USbc":
        raise InvalidInput(f"{name} must be {k} numbers, one per class, got {shown(values)}")
    return values


def given(value: Any) -> str:
    """A value as a message quotes it: text in quotation marks, so that '0.5' is not taken for 0.5."""
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    return repr(shown(value)) if isinstance(value, str) else shown(value)

"""A loss's numbers per class as a person types them: a list, one number, two, or a rule of the counts."""

from __future__ import annotations

import re
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.counts import ClassCounts

_POWER = re.compile(r"\s*n\s*\^\s*([+-]?\d{1,3}(?:\.\d{1,12})?)\s*")
_LOG = re.compile(r"\s*(?:([+-]?\d{1,3}(?:\.\d{1,12})?)\s*\*?\s*)?log\s*n\s*")


def vector(name: str, text: str, counts: ClassCounts) -> Float[np.ndarray, " k"]:
    """A parameter with one number per class.

    Parameters
    ----------
    name : str
    text : str
        k numbers; one number for all; "2, 1" for majority and minority; "n^0.5" for (n_c/n_max)^0.5; "log n" or
        "0.5 log n" for multiples of ln(n_c/n).
    counts : ClassCounts

    Examples
    --------
    >>> vector("delta", "n^0.5", ClassCounts([100, 25, 1])).tolist()
    [1.0, 0.5, 0.1]
    >>> vector("weight", "1, 4", ClassCounts([100, 25, 1])).tolist()
    [1.0, 1.0, 4.0]
    """
    power, log = _POWER.fullmatch(text), _LOG.fullmatch(text)
    if power:
        return (counts.values / counts.n_max) ** float(power[1])
    if log:
        return float(log[1] or 1) * np.log(counts.values / counts.n)
    numbers = numbers_of(text, f"{name} must be")
    if len(numbers) == counts.k:
        return np.array(numbers)
    if len(numbers) == 1:
        return np.full(counts.k, numbers[0])
    if len(numbers) == 2:
        return np.where(counts.minority, numbers[1], numbers[0])
    raise InvalidInput(f"{name} must be {counts.k:,} numbers, one, two (majority, minority), n^0.5 or log n, "
                       f"got {shown(text, 40)!r}")


def expression(name: str, text: str, counts: ClassCounts) -> str:
    """A parameter as short Python."""
    power, log = _POWER.fullmatch(text), _LOG.fullmatch(text)
    if power:
        return f"(counts.values / counts.n_max) ** {float(power[1])!r}"
    if log:
        return f"{float(log[1] or 1)!r} * np.log(counts.values / counts.n)"
    numbers = numbers_of(text)
    if len(numbers) == counts.k:
        return f"[{', '.join(plain_text(number) for number in numbers)}]"
    if len(numbers) == 1:
        return f"np.full(counts.k, {numbers[0]!r})"
    return f"np.where(counts.minority, {numbers[1]!r}, {numbers[0]!r})"


def numbers_of(text: str, start: str = "expected") -> list[float]:
    """The numbers of a list."""
    numbers = [number_of(part) for part in re.split(r"[\s,;]+", text.strip(" ,;"))]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        raise InvalidInput(f"{start} numbers separated by commas, such as 10, 10, 1, 1, got {shown(text, 40)!r}")
    return known


def number_of(given: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def plain_text(value: float) -> str:
    """A number that reads back as itself."""
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e16 else repr(float(value))

"""The errors this library raises and the few checks made at its public edge.

Every message says what was wrong, what was expected and what was given, on one line;
the command line prints it and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
import re
from tokenize import TokenError
from typing import Any
import zipfile
import zlib

from jaxtyping import Int
import numpy as np

# Powers of ten within which n_c/δ_c² and the ratio of two of them stay far from overflow.
_DECADES = 40

_NAMED = 40  # names that a message lists: the settings of a run, and fewer than the sources of `cite`

CENTERS = ("classes", "samples", "none")
"""What class means can be taken about: their mean, that of all samples, the origin."""


def one_line(text: str) -> str:
    """`text` with spaces where it has line breaks, escape sequences or other characters that are not to be printed."""
    return text if text.isprintable() else " ".join("".join(c if c.isprintable() else " " for c in text).split())


class InvalidInput(ValueError):
    """Something the user gave cannot be used; the message is one line, whatever names of others it quotes."""

    def __init__(self, message: str = ""):
        super().__init__(one_line(message))


class OutsideTheory(InvalidInput):
    """What was asked lies outside a theorem's assumptions; the message names the nearest valid thing."""


class NotConverged(RuntimeWarning):
    """An iterative solver stopped before the accuracy asked for; what it has is returned with its certificate."""


def shown(value: Any, limit: int = 60) -> str:
    """`value` as it should be quoted in a one-line message."""
    text = " ".join(str(value.tolist() if isinstance(value, np.ndarray) else value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def counted(number: int, what: str) -> str:
    """"1 run", "2 runs", "1,200 runs"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


UNREADABLE: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, EOFError, KeyError, RuntimeError,
                                           AttributeError, zipfile.BadZipFile, zlib.error, TokenError)
"""What reading a broken or foreign file of arrays can raise."""


def why_unreadable(error: Exception) -> str:
    """Why a file of arrays could not be read, without NumPy's advice to unpickle it."""
    text = shown(error, 200)  # zipfile quotes whatever bytes stand where a name should
    if "pickle" in text:
        return "it must hold plain arrays, nothing pickled"
    return "it holds one array, expected an archive of named ones" if isinstance(error, TypeError) else text


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A tail for messages about unknown names: the nearest one, then all of them, or the first few of many."""
    known = sorted(set(known))
    nearest = get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    return f"{hint}known: {first_of(known)}"


def first_of(names: Sequence[str]) -> str:
    """Names as a message lists them: all, or the first of many and how many more there are."""
    more = f", … ({len(names) - _NAMED:,} more)" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def finite_or_none(value: Any) -> float | None:
    """A number for JSON: None in place of NaN and Inf."""
    return float(value) if np.isfinite(value) else None


def require_finite(name: str, values: np.ndarray) -> None:
    """Raise InvalidInput when `values` holds NaN or Inf."""
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(np.ravel(values)))
        raise InvalidInput(f"{name} must be finite, got {np.ravel(values)[bad[0]]} at position {bad[0]} "
                           f"({bad.size} of {values.size} values)")


def positive_number(name: str, value: Any) -> float:
    """`value` as a positive finite float."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be a positive number, got {shown(value)!r}") from None
    if not (np.isfinite(number) and number > 0):
        raise InvalidInput(f"{name} must be a positive number, got {value}")
    return number


def whole_number(name: str, value: Any) -> int:
    """`value` as an int, where it is whole."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value:
        raise InvalidInput(f"{name} must be a whole number, got {shown(value)!r}")
    return number


def require_moderate(name: str, vector: np.ndarray) -> None:
    """Raise InvalidInput for positive numbers whose ratios and squares could leave the range of float64."""
    extreme = np.abs(np.log10(vector)) > _DECADES
    if extreme.any():
        c = int(np.argmax(extreme))
        raise InvalidInput(f"{name} must lie between 1e-{_DECADES} and 1e+{_DECADES}, got {vector[c]:g} for class {c}")


def positive_vector(name: str, values: Any, length: int) -> np.ndarray:
    """`values` as a float64 vector of `length` positive finite numbers."""
    vector = finite_vector(name, values, length)
    if (vector <= 0).any():
        c = int(np.flatnonzero(vector <= 0)[0])
        raise InvalidInput(f"{name} must be positive, got {vector[c]:g} for class {c}")
    require_moderate(name, vector)
    return vector


def finite_vector(name: str, values: Any, length: int) -> np.ndarray:
    """`values` as a float64 vector of `length` finite numbers."""
    try:
        vector = np.asarray(as_array(values), dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be {length} numbers, one per class, got {shown(values)}") from None
    if vector.shape != (length,):
        raise InvalidInput(f"{name} must be {length} numbers, one per class, got {vector.size} "
                           f"({shown(values)})")
    require_finite(name, vector)
    return vector


def check_center(center: str) -> None:
    """InvalidInput unless `center` is one of CENTERS."""
    if center not in CENTERS:
        raise InvalidInput(f"center must be one of {', '.join(CENTERS)}, got {shown(center)!r}")


def parse_numbers(name: str, text: str) -> list[float]:
    """The numbers of a comma list such as "1,0.5,2"."""
    try:
        return [float(field) for field in re.split(r"\s*,\s*|\s+", text.strip().removesuffix(","))]
    except ValueError:
        raise InvalidInput(f"{name} must be numbers separated by commas, such as 10,10,1,1, "
                           f"got {shown(text)!r}") from None


def as_array(values: Any) -> Any:
    """A tensor as a NumPy array, whatever its device and with or without a gradient; anything else as it is."""
    return values.detach().cpu().numpy() if hasattr(values, "detach") else values


def float_array(name: str, values: Any) -> np.ndarray:
    """`values` as an array of floats, as wide as they are; of tensors that NumPy has no type for in float32."""
    if hasattr(values, "detach") and getattr(values, "itemsize", 4) < 4:
        values = values.float()
    try:
        array = np.asarray(as_array(values))
        return array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name} must be numbers, got {type(values).__name__}") from None


def check_labels(labels: Any, classes: int | None = None) -> Int[np.ndarray, " n"]:
    """`labels` as an int64 vector in 0 … classes−1; InvalidInput names the first one that is not."""
    array = np.asarray(as_array(labels))
    if array.ndim != 1 or array.size == 0:
        raise InvalidInput(f"labels must be a vector of at least one class index, got shape {array.shape}")
    whole = array.dtype.kind in "iub" or (array.dtype.kind == "f" and np.isfinite(array).all()
                                          and not (array % 1).any())
    if not whole:
        hint = ("" if array.dtype.kind not in "OSU" else ": give class indices, such as "
                                                         "np.unique(labels, return_inverse=True)[1]")
        raise InvalidInput(f"labels must be whole numbers 0 … k−1, got {array.dtype} ({shown(array[:5])}){hint}")
    index = array.astype(np.int64)
    high = index.max() if classes is None else classes - 1
    outside = (index < 0) | (index > high)
    if outside.any():
        i = int(np.argmax(outside))
        bound = f"0 … {high}" if classes is not None else "0 … k−1"
        raise InvalidInput(f"labels must be in {bound}, got {index[i]} at position {i}")
    return index

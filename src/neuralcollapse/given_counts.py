"""Class counts as people give them: mappings by class, whose keys are names or indices, and what can be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import InvalidInput, require_finite, require_moderate, shown


def class_index(key: Any) -> int | None:
    """The key of a mapping as a class index, where it is a whole number of any library; None for text and the rest."""
    if getattr(key, "ndim", None) == 0:
        key = key.item()
    return int(key) if isinstance(key, int) or (isinstance(key, float) and key.is_integer()) else None


def in_order(counts: Any, names: Sequence[str] | None = None) -> tuple[Any, Sequence[str] | None]:
    """Counts in the order of the classes, and their names; what is not by class comes back as it is.

    By class are mappings and what is like one: a pandas Series, whose `value_counts` are sorted by size.
    """
    if not isinstance(counts, Mapping) and not (hasattr(counts, "items") and hasattr(counts, "index")):
        return counts, names
    keys, values = _by_key(list(counts.items()))
    return values, keys if names is None else names


def _by_key(items: Sequence[tuple[Any, Any]]) -> tuple[list[str] | None, list[Any]]:
    """Names, where the keys are text, and the counts in the order of the classes."""
    index = {class_index(key): count for key, count in items}
    texts = [key for key, _ in items if isinstance(key, str)]
    if len(texts) == len(items):
        return texts, [count for _, count in items]
    if texts or None in index:
        other = next(key for key, _ in items if not isinstance(key, str) and (texts or class_index(key) is None))
        what = f"both {texts[0]!r} and {shown(other)}" if texts else shown(other)
        raise InvalidInput(f"the keys of counts must be class names, or the class indices 0 … k−1, got {what}")
    found = sorted(key for key in index if key is not None)
    if len(found) < len(items):
        raise InvalidInput(f"the keys of counts must differ, got {len(items)} for {len(found)} classes: a Counter "
                           "takes every element of a tensor as another key, so count labels.tolist()")
    if found[0] < 0:
        raise InvalidInput(f"class indices must be 0 … k−1, got {found[0]} among the keys of counts: leave out labels "
                           "that are ignored")
    missing = next((c for c, key in enumerate(found) if c != key), None)
    if missing is not None:
        raise InvalidInput(f"every class 0 … {found[-1]} needs a count, got none for class {missing}: drop it from "
                           "labels and head, or give it a small positive count")
    return None, [index[c] for c in found]


def checked(values: Any, names: Sequence[str] | None) -> tuple[Float[np.ndarray, " k"], tuple[str, ...] | None]:
    """Counts as a read-only array and their names as text; InvalidInput where they cannot be counts."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"counts must be numbers, one per class, got {shown(values)}") from None
    if array.ndim != 1 or array.size < 2:
        given = f"{array.size}" if array.ndim == 1 else f"an array of shape {array.shape}"
        raise InvalidInput(f"counts must name at least two classes, got {given} ({shown(values)})")
    require_finite("counts", array)
    texts = checked_names(names, array.size)
    _require_samples(array, texts)
    require_moderate("counts", array)
    array.setflags(write=False)
    return array, texts


def checked_names(names: Sequence[str] | None, k: int) -> tuple[str, ...] | None:
    """Class names as text; InvalidInput unless they are one per class and differ."""
    if names is None:
        return None
    texts = tuple(str(name) for name in names)
    if len(texts) != k:
        raise InvalidInput(f"names must be one per class, expected {k}, got {len(texts)}")
    if len(set(texts)) < k:
        twice = next(name for name in texts if texts.count(name) > 1)
        raise InvalidInput(f"names must differ, got '{twice}' twice")
    return texts


def _require_samples(values: Float[np.ndarray, " k"], names: Sequence[str] | None) -> None:
    if (values > 0).all():
        return
    c = int(np.argmin(values > 0))
    if values[c] < 0:
        raise InvalidInput(f"counts must be at least two positive numbers, got {values[c]:g} for class {c}: "
                           "drop empty classes first")
    which = f"class {c}" if names is None else f"class '{names[c]}'"
    others = int((values == 0).sum()) - 1
    more = f" (nor have {others} more)" if others else ""
    raise InvalidInput(f"every class needs a sample, and {which} has none{more}: drop it from labels and head, or "
                       "give it a small positive count (class_counts does with absent=1)")

"""Mappings by class: keys that are names, in their own order, or class indices, in that of the indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from neuralcollapse.checks import InvalidInput, shown


def class_index(key: Any) -> int | None:
    """The key of a mapping as a class index, where it is a whole number of any library; None for text and the rest."""
    if isinstance(key, Tensor | np.ndarray | np.generic) and key.ndim == 0:
        key = key.item()
    return int(key) if isinstance(key, int) or (isinstance(key, float) and key.is_integer()) else None


def by_key(counts: Mapping[Any, Any]) -> tuple[list[str] | None, list[Any]]:
    """Names, where the keys are text, and the counts in the order of the classes."""
    index = {class_index(key): count for key, count in counts.items()}
    texts = [key for key in counts if isinstance(key, str)]
    if len(texts) == len(counts):
        return texts, list(counts.values())
    if texts or None in index:
        other = next(key for key in counts if not isinstance(key, str) and (texts or class_index(key) is None))
        what = f"both {texts[0]!r} and {shown(other)}" if texts else shown(other)
        raise InvalidInput(f"the keys of counts must be class names, or the class indices 0 … k−1, got {what}")
    found = sorted(key for key in index if key is not None)
    if len(found) < len(counts):
        raise InvalidInput(f"the keys of counts must differ, got {len(counts)} for {len(found)} classes: a Counter "
                           "takes every element of a tensor as another key, so count labels.tolist()")
    if found[0] < 0:
        raise InvalidInput(f"class indices must be 0 … k−1, got {found[0]} among the keys of counts: leave out labels "
                           "that are ignored")
    missing = next((c for c, key in enumerate(found) if c != key), None)
    if missing is not None:
        raise InvalidInput(f"every class 0 … {found[-1]} needs a count, got none for class {missing}: drop it from "
                           "labels and head, or give it a small positive count")
    return None, [index[c] for c in found]

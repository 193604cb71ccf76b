"""Labels of any kind as 0 … k−1 with class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Int, Shaped
import numpy as np

from neuralcollapse.checks import InvalidInput, shown


def encode_labels(where: str, labels: Shaped[np.ndarray, ...], samples: int,
                  names: Any = None) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """Labels as 0 … k−1 and class names: the distinct labels in order, or `names` when labels are indices.

    Parameters
    ----------
    where : str
        What they are read from, for messages.
    labels : (N,) array
        Whole numbers or text.
    samples : int
        N.
    names : (k,) sequence of str, optional

    Raises
    ------
    InvalidInput
        Not one label per sample, fractions, or labels that are not the indices of all `names`.

    Examples
    --------
    >>> encode_labels("pets", np.array(["dog", "cat", "dog"]), 3)
    (array([1, 0, 1]), ('cat', 'dog'))
    """
    if labels.ndim != 1 or len(labels) != samples:
        raise InvalidInput(f"'{where}' must hold one label per sample, expected {samples}, got shape {labels.shape}")
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and not (labels % 1).any()):
        raise InvalidInput(f"labels of '{where}' must be whole numbers or text, got {shown(labels[:5])}")
    whole = labels.astype(np.int64) if labels.dtype.kind in "fiub" else labels
    found, index = np.unique(whole, return_inverse=True)
    if names is None:
        return index.astype(np.int64), tuple(map(str, found))
    if whole.dtype.kind != "i" or not np.array_equal(found, np.arange(len(names))):
        raise InvalidInput(f"'{where}' names {len(names)} classes: its labels must be 0 … {len(names) - 1}, "
                           f"each at least once, got {shown(found)}")
    return whole, tuple(map(str, names))


def encode_named(where: str, labels: Int[np.ndarray, " N"], names: Sequence[str],
                 advice: str) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    """Indices of declared class names, renumbered to the classes that occur.

    Raises
    ------
    InvalidInput
        An index that is no name's, such as the −1 that public test parts have in place of labels.

    Examples
    --------
    >>> encode_named("pets", np.array([2, 0, 2]), ["cat", "cow", "dog"], "")
    (array([1, 0, 1]), ('cat', 'dog'))
    """
    outside = (labels < 0) | (labels >= len(names))
    if outside.any():
        i = int(outside.argmax())
        raise InvalidInput(f"labels of '{where}' must be in 0 … {len(names) - 1}, got {labels[i]} in row {i}{advice}")
    found, index = np.unique(labels, return_inverse=True)
    return index.astype(np.int64), tuple(str(names[c]) for c in found)

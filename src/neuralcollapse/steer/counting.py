"""How many samples each class has, from whatever holds the labels: the first thing a loss for imbalance needs.

What is not said plainly by the source (its label column, the order of class names) is asked for, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from neuralcollapse.checks import InvalidInput, as_array, check_labels, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.steer.amounts import positive, whole

_KEYS = ("label", "labels")
_ATTRIBUTES = ("targets", "labels")


def class_counts(source: Any, *, label: str | int | None = None, names: Sequence[str] | None = None,
                 k: int | None = None, absent: float | None = None, ignore_index: int = -100) -> ClassCounts:
    """Count the labels of a data set, a column, a loader or an array.

    Labels are whole numbers 0 … k−1, or text where `names` says in which order the head has its outputs; one per sample
    or, in an integer array of more axes, per token. One-hot rows and probabilities are refused. They are looked for, in
    this order, in: an array, tensor or list; a pandas Series or DataFrame column (a categorical's categories are the
    names); a Hugging Face data set's column (a ClassLabel brings its names); the `targets`, `labels` or second of the
    `tensors` of a torch data set, through `Subset` and `ConcatDataset` (an ImageFolder's `classes` are the names). Any
    other data set, a list of pairs, and every DataLoader, is gone through ONCE, item by item or batch by batch: pairs
    (input, label), or dictionaries. A loader gives what its sampler draws.

    Parameters
    ----------
    source : array, tensor, list, Series, DataFrame, data set or DataLoader
    label : str or int, optional
        The column, key or attribute that holds the labels, or their place in each item; "label", "labels" or
        "targets" when left out, whichever is there.
    names : (k,) sequence of str, optional
        Class names, in the order of the head's outputs.
    k : int, optional
        Number of classes; that of the names, else the largest label + 1.
    absent : float, optional
        The count given to a class without a sample, such as 1; without it such a class is refused.
    ignore_index : int
        Labels of this value are not counted.

    Returns
    -------
    ClassCounts

    Raises
    ------
    InvalidInput
        No labels where they were looked for, more than one place that may hold them, labels that are not 0 … k−1 or
        come as one-hot rows, a class without a sample.

    Examples
    --------
    >>> import torch
    >>> data = torch.utils.data.TensorDataset(torch.zeros(4, 3), torch.tensor([0, 0, 0, 1]))
    >>> class_counts(data, names=["cat", "dog"])
    ClassCounts(3, 1)
    >>> class_counts(torch.utils.data.DataLoader(data, batch_size=2))
    ClassCounts(3, 1)
    """
    if isinstance(source, ClassCounts):
        return source
    k, ignore_index = None if k is None else whole("k", k, 1), whole("ignore_index", ignore_index)
    names = names if names is not None else _names(source, label)
    if names is not None and (isinstance(names, str) or not hasattr(names, "__len__")):
        raise InvalidInput(f"names must be a list of class names, got {shown(names)}")
    if names is not None and k is not None and len(names) != k:
        raise InvalidInput(f"names must be one per class, expected k = {k}, got {len(names)}")
    k = k if names is None else len(names)
    tally = np.zeros(k or 0, dtype=np.int64)
    in_rows = []  # whether each part of several columns looks one-hot: rows of 0 and 1 may be tokens of two classes
    for part in map(_array, _parts(source, label)):
        in_rows += [_is_one_hot(part)] if part.ndim > 1 and part.shape[-1] > 1 else []
        counted = np.bincount(_numbered(part, names, k, ignore_index), minlength=tally.size)
        counted[:tally.size] += tally
        tally = counted
    if in_rows and all(in_rows):
        raise InvalidInput("labels must be class indices, got what looks like one-hot rows: pass labels.argmax(-1)")
    if not tally.any():
        raise InvalidInput("the data set must hold at least one label, got none")
    if absent is not None:
        return ClassCounts(np.where(tally == 0, positive("absent", absent), tally), names)
    return ClassCounts(tally, names)


def _is_one_hot(rows: np.ndarray) -> bool:
    """Whether each row is zero but for a single one; rows that cannot be labels are refused."""
    if rows.dtype.kind in "fcb":
        raise InvalidInput(f"labels must be class indices, one per sample or token, got {rows.dtype} of shape "
                           f"{rows.shape}: of one-hot rows or probabilities pass labels.argmax(-1)")
    if rows.dtype.kind not in "iu" or not rows.size:
        return False
    return bool(rows.min() == 0 and rows.max() == 1 and (rows.sum(-1) == 1).all())


def _numbered(array: np.ndarray, names: Sequence[str] | None, k: int | None, ignore_index: int) -> np.ndarray:
    """Labels as whole numbers, those that are not counted left out."""
    array = array.ravel()
    if array.dtype.kind in "OUS" and all(isinstance(value, str) for value in array.tolist()):
        if names is None:
            raise InvalidInput(f"labels are text, such as {shown(array[0])!r}: pass names=[...] in the order of the "
                               "head's outputs")
        place = {str(name): c for c, name in enumerate(names)}
        unknown = next((value for value in array.tolist() if value not in place), None)
        if unknown is not None:
            raise InvalidInput(f"labels must be among names ({shown(', '.join(place))}), got {unknown!r}")
        return np.array([place[value] for value in array.tolist()], dtype=np.int64)
    array = array if array.dtype.kind == "O" else array[array != ignore_index]
    return check_labels(array, k) if array.size else np.zeros(0, dtype=np.int64)


# -- where labels are ----------------------------------------------------------------------------------------------


def _parts(source: Any, label: str | int | None) -> Iterator[Any]:
    """The labels of the source: in one piece where it has them so, else from each of its items."""
    held = _held(source, label)
    if held is not None:
        yield held
    elif isinstance(source, str) or not (isinstance(source, Iterable) or hasattr(source, "__getitem__")):
        raise InvalidInput("labels must come from an array, a column, a data set or a DataLoader, got "
                           f"{type(source).__name__}: pass the labels themselves")
    elif hasattr(source, "__iter__") or not hasattr(source, "__len__"):
        found = (_of_item(item, label) for item in source)
        yield from found if isinstance(source, DataLoader) else map(_one, found)
    else:  # a torch data set by index need not end by itself
        yield from (_one(_of_item(source[i], label)) for i in range(len(source)))


def _one(labels: Any) -> np.ndarray:
    """What a single item has: one label, or a row of them."""
    array = _array(labels)
    return array[None] if array.ndim == 1 else array


def _held(source: Any, label: str | int | None) -> Any:
    """All labels at once, None where only the items have them."""
    if isinstance(source, DataLoader):
        return None
    if isinstance(source, Tensor | np.ndarray | list | tuple | range):
        return None if isinstance(source, list | tuple) and len(source) and _is_item(source[0]) else source
    if hasattr(source, "iloc"):
        return _of_pandas(source, label)
    if _is_table(source):
        return source[_key(source.column_names, label, "column")][:]
    if isinstance(source, Mapping):
        return _of_mapping(source, label)
    if hasattr(source, "indices") and hasattr(source, "dataset"):
        whole = _held(source.dataset, label)
        return None if whole is None else _array(whole)[np.asarray(source.indices)]
    if hasattr(source, "datasets"):
        parts = [_held(part, label) for part in source.datasets]
        return None if any(part is None for part in parts) else np.concatenate([_array(part) for part in parts])
    return _of_attributes(source, label)


def _is_item(part: Any) -> bool:
    """Whether a list's first part is an input with its label, and not a label or the labels of a text."""
    if isinstance(part, list) and len(part) == 2:
        return np.ndim(part[1]) == 0 and not isinstance(part[0], int | float | str | np.generic)
    return isinstance(part, tuple) or hasattr(part, "keys")


def _array(labels: Any) -> np.ndarray:
    try:
        return np.asarray(as_array(labels))
    except ValueError:  # of different lengths, as the tokens of texts are
        rows = [_array(row) for row in labels]
        if any(row.ndim != 1 for row in rows):
            raise InvalidInput("labels must be one array or list, or lists of tokens, got parts of shapes "
                               f"{shown([row.shape for row in rows])}: pass the labels themselves") from None
        return np.concatenate(rows)


def _of_pandas(source: Any, label: str | int | None) -> Any:
    column = source[_key(source.columns, label, "column")] if hasattr(source, "columns") else source
    if not hasattr(column, "cat"):
        return column.to_numpy()
    codes = column.cat.codes.to_numpy()
    if (codes < 0).any():
        raise InvalidInput(f"labels must not be missing, got none at position {int(np.argmax(codes < 0))}")
    # Whatever they are called: the names, given or its own, are matched in `_numbered`.
    return np.array([str(name) for name in column.cat.categories], dtype=object)[codes]


def _of_mapping(source: Mapping[Any, Any], label: str | int | None) -> Any:
    if any(_is_table(part) for part in source.values()):
        raise InvalidInput(f"a data set's splits are counted one at a time, got {shown(', '.join(map(str, source)))}: "
                           "pass one, such as dataset['train']")
    return source[_key(source, label, "key")]


def _of_attributes(source: Any, label: str | int | None) -> Any:
    """What a torch data set carries beside its items."""
    tensors = getattr(source, "tensors", None)
    if tensors is not None:
        if label is None and len(tensors) != 2:
            raise InvalidInput(f"the data set has {len(tensors)} tensors: say which holds the labels, such as label="
                               f"{len(tensors) - 1}")
        if not isinstance(label, int | None) or not -len(tensors) <= (label or 0) < len(tensors):
            raise InvalidInput(f"label must be the place of one of the data set's {len(tensors)} tensors, got "
                               f"{shown(label)!r}")
        return tensors[1 if label is None else label]
    if isinstance(label, str):
        return getattr(source, label, None)
    found = [name for name in _ATTRIBUTES if getattr(source, name, None) is not None]
    if label is None and len(found) > 1:
        raise InvalidInput(f"the data set has both {' and '.join(found)}: say which with label='{found[0]}'")
    return getattr(source, found[0]) if label is None and found else None


def _of_item(item: Any, label: str | int | None) -> Any:
    if isinstance(item, Mapping) or hasattr(item, "keys"):
        return item[_key(item.keys(), label, "key")]
    if isinstance(item, tuple | list) and isinstance(label, int) and -len(item) <= label < len(item):
        return item[label]
    if isinstance(item, tuple | list) and len(item) == 2 and label is None:
        return item[1]
    what = f"{len(item)} parts" if isinstance(item, tuple | list) else type(item).__name__
    raise InvalidInput(f"items must be pairs (input, label) or dictionaries, got {what}: say where the labels are with "
                       "label=, or pass the labels themselves")


def _key(names: Iterable[Any], label: str | int | None, kind: str) -> Any:
    known = list(names)
    if label is not None:
        if label not in known:
            raise InvalidInput(f"there is no {kind} {label!r}, got {shown(', '.join(map(str, known)))}")
        return label
    found = [key for key in _KEYS if key in known]
    if len(found) != 1:
        what = f"both {' and '.join(found)}" if found else f"no {kind} 'label' or 'labels'"
        raise InvalidInput(f"there {'are' if found else 'is'} {what} among {shown(', '.join(map(str, known)))}: say "
                           f"which {kind} holds the labels with label=")
    return found[0]


def _names(source: Any, label: str | int | None) -> list[str] | None:
    """Class names that the source itself declares."""
    while hasattr(source, "dataset"):
        source = source.dataset
    if hasattr(source, "iloc"):
        column = source[_key(source.columns, label, "column")] if hasattr(source, "columns") else source
        return [str(name) for name in column.cat.categories] if hasattr(column, "cat") else None
    if _is_table(source):
        features = getattr(source, "features", None) or {}
        declared = getattr(features.get(_key(source.column_names, label, "column")), "names", None)
    else:
        declared = getattr(source, "classes", None)
    is_names = isinstance(declared, list | tuple) and all(isinstance(name, str) for name in declared)
    return list(declared) if is_names and declared else None


def _is_table(source: Any) -> bool:
    """Whether columns can be read by name: a Hugging Face data set in memory, not a stream of one; an Arrow table."""
    return hasattr(source, "column_names") and hasattr(source, "num_rows")

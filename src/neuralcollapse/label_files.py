"""Class counts from a file of labels: one label a line, a NumPy array, or any table's label column saved as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse.checks import UNREADABLE, InvalidInput, shown, why_unreadable
from neuralcollapse.counts import ClassCounts
from neuralcollapse.files import require_file

_KEYS = ("labels", "y")


def counts_from_file(path: Path | str) -> ClassCounts:
    r"""Count the labels in a file.

    Whole numbers are classes 0 … k−1; any other labels are class names, in alphabetical order.

    Parameters
    ----------
    path : Path
        `.npy` or `.npz` (an array `labels` or `y`), else text with one label a line.

    Raises
    ------
    InvalidInput
        A file that is missing, unreadable or without labels, or a table.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.txt"
    >>> _ = path.write_text("cat\ndog\ncat\n")
    >>> counts_from_file(path).names
    ('cat', 'dog')
    """
    path = Path(path)
    require_file(path, "file of labels")
    labels = _read(path)
    if labels.size == 0:
        raise InvalidInput(f"'{path.name}' must hold at least one label, got none")
    if labels.dtype.kind not in "US":
        return ClassCounts.from_labels(labels)
    try:
        numbers = labels.astype(np.float64)
    except ValueError:
        _refuse_a_table(path, labels)
    else:
        return ClassCounts.from_labels(numbers)
    names, tally = np.unique(labels, return_counts=True)
    return ClassCounts(tally, [str(name) for name in names])


def _refuse_a_table(path: Path, labels: np.ndarray) -> None:
    """Text with a heading over numbers, or with several numbers a line, is not one label a line."""
    first, others = str(labels[0]), labels[1:]
    if not _is_number(first) and others.size and all(map(_is_number, np.unique(others))):
        raise InvalidInput(f"'{path.name}' must hold one label a line, but '{shown(first)}' stands over whole numbers: "
                           "leave the heading out")
    several = next((line for line in np.unique(labels) if "," in line and all(map(_is_number, line.split(",")))), None)
    if several is not None:
        raise InvalidInput(f"'{path.name}' must hold one label a line, got '{shown(several)}'")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                key = next((key for key in _KEYS if key in archive.files), None)
                if key is None:
                    raise InvalidInput(f"'{path.name}' must hold an array 'labels' or 'y', "
                                       f"got {', '.join(archive.files) or 'nothing'}")
                return np.asarray(archive[key])
        return np.array([line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except InvalidInput:
        raise
    except UNREADABLE as error:
        raise InvalidInput(f"'{path.name}' cannot be read as labels: {why_unreadable(error)}") from None

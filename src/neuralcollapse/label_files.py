"""Class counts from a file of labels: one label a line, a NumPy array, or any table's label column saved as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse.checks import UNREADABLE, InvalidInput, why_unreadable
from neuralcollapse.counts import ClassCounts

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
        A file that is missing, unreadable or without labels.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "labels.txt"
    >>> _ = path.write_text("cat\ndog\ncat\n")
    >>> counts_from_file(path).names
    ('cat', 'dog')
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"no such file of labels: '{path}'")
    labels = _read(path)
    if labels.size == 0:
        raise InvalidInput(f"'{path.name}' must hold at least one label, got none")
    try:
        labels = labels.astype(np.float64) if labels.dtype.kind in "US" else labels
    except ValueError:
        names, tally = np.unique(labels, return_counts=True)
        return ClassCounts(tally, [str(name) for name in names])
    return ClassCounts.from_labels(labels)


def _read(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False)).ravel()
        if path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                key = next((key for key in _KEYS if key in archive.files), None)
                if key is None:
                    raise InvalidInput(f"'{path.name}' must hold an array 'labels' or 'y', "
                                       f"got {', '.join(archive.files) or 'nothing'}")
                return np.asarray(archive[key]).ravel()
        return np.array([line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()])
    except InvalidInput:
        raise
    except UNREADABLE as error:
        raise InvalidInput(f"'{path.name}' cannot be read as labels: {why_unreadable(error)}") from None

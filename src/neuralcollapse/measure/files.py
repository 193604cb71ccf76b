"""Measure what is saved in files, larger than memory if need be: one file, or several as epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Shaped
import numpy as np

from neuralcollapse.checks import InvalidInput, check_labels, did_you_mean, first_of, shown
from neuralcollapse.measure.array_files import ArrayFile, open_arrays, require_real
from neuralcollapse.measure.arrays import measure_rows
from neuralcollapse.measure.measurement import Measurement
from neuralcollapse.measure.passes import SECOND_PASS
from neuralcollapse.predict.targets import Targets

FEATURES = ("features", "embedding", "embeddings")
"""What features may be called in a file, first choice first."""

LABELS = ("labels", "label")
"""What labels may be called in a file, first choice first."""

PREVIOUS, NONE = "previous", "none"

NC4 = (SECOND_PASS, PREVIOUS, NONE)
"""Where `measure_files` can take NC4's class means from."""

_BLOCK_BYTES = 2**23  # of features in float64 read at a time: what is made of them on the way takes several times that
_MOST_ROWS = 2**14


class Reading(NamedTuple):
    """How far a measurement of files has come.

    Attributes
    ----------
    name : str
        The file that is being read.
    file, files : int
        Which file it is, from 0, and of how many.
    done, total : int
        Rows of it gone through, in all passes.
    """

    name: str
    file: int
    files: int
    done: int
    total: int


def measure_file(path: Path | str, *, head: Path | str | None = None, labels: Path | str | None = None,
                 column: str | None = None, label_column: str | None = None, counts: Any = None,
                 names: Sequence[str] | None = None, targets: Targets = ("seli",), center: str = "classes",
                 nc4: str | Measurement | None = SECOND_PASS, scatter: bool = True,
                 on_rows: Callable[[int, int], None] | None = None) -> Measurement:
    """Measure features and labels in a file, a block of rows at a time.

    Parameters
    ----------
    path : Path
        `.npz` or `.safetensors` with features (n, d), labels (n,) and, for the metrics of the head, weight (k, d) and
        bias (k,); `.parquet` with a column of lists and one of labels; or `.npy` features.
    head : Path or str, optional
        Another file with the head's weight and bias: "head.npz", or "model.safetensors:lm_head" for the tensors
        `lm_head.weight` and `lm_head.bias`, or `.npy` weights.
    labels : Path, optional
        Another file with the labels.
    column, label_column : str, optional
        What features and labels are called; FEATURES and LABELS are looked for when left out.
    on_rows : callable, optional
        Told now and then how many rows have been gone through, and of how many in all passes.
    counts, names, targets, center, nc4, scatter
        As in `measure`.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidInput
        A file that is missing, broken, pickled or without what is needed, and as `measure`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "epoch-3.npz"
    >>> np.savez(path, features=np.eye(4), labels=np.array([0, 0, 1, 1]))
    >>> measure_file(path).to_dict()["counts"]
    [2, 2]
    """
    path = Path(path)
    file = open_arrays(path)
    weight, bias = _head_in(file, path) if head is None else load_head(head)
    rows = file.rows(_named(file, path, column, FEATURES))
    index = check_labels(_labels_in(file, path, label_column) if labels is None else
                         _labels_in(open_arrays(labels, "labels"), Path(labels), label_column))
    width = max(1, int(np.prod(rows.shape[1:], dtype=object)))
    return measure_rows(rows, index, weight, bias, counts=counts, names=names, targets=targets, center=center,
                        nc4=nc4, scatter=scatter, on_rows=on_rows,
                        at_once=max(1, min(_MOST_ROWS, _BLOCK_BYTES // (8 * width))))


def measure_files(paths: Iterable[Path | str], *, nc4: str | Measurement | None = SECOND_PASS,
                  on_rows: Callable[[Reading], None] | None = None, **options: Any) -> list[Measurement]:
    """Measure several files as epochs, in the order given.

    Parameters
    ----------
    paths : iterable of Path
    nc4 : "second-pass", "previous", "none", Measurement or None
        As in `measure`; "none" is None; "previous" takes each file's class means from the file before it, and so
        one pass a file (and leaves the first without NC4).
    on_rows : callable, optional
        Told now and then how far it has come.
    **options
        As in `measure_file`, the same for every file.

    Returns
    -------
    list of Measurement

    Raises
    ------
    InvalidInput
        As `measure_file`; the message names the file.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for epoch, spread in enumerate([0.1, 0.01]):
    ...     features = np.eye(4)[[0, 0, 1, 1]] + spread * np.eye(4)
    ...     np.savez(folder / f"{epoch}.npz", features=features, labels=np.array([0, 0, 1, 1]))
    >>> [f"{each.to_dict()['nc1']['trace']:.1e}" for each in measure_files([folder / "0.npz", folder / "1.npz"])]
    ['1.0e-02', '1.0e-04']
    """
    files = [Path(path) for path in paths]
    measurements: list[Measurement] = []
    if isinstance(nc4, str) and nc4 not in NC4:
        raise InvalidInput(f"nc4 must be one of {', '.join(NC4)}, got {shown(nc4)!r}")
    if nc4 == PREVIOUS and len(files) == 1:
        raise InvalidInput("nc4 'previous' takes the class means of the file before: give several files, or "
                           f"'{SECOND_PASS}'")
    for number, path in enumerate(files):
        report = None if on_rows is None else _Report(on_rows, path.name, number, len(files))
        before = measurements[-1] if measurements else None
        means = before if nc4 == PREVIOUS else None if nc4 == NONE else nc4
        try:
            measurements.append(measure_file(path, nc4=means, on_rows=report, **options))
        except InvalidInput as error:
            if len(files) == 1 or path.name in str(error):
                raise
            raise type(error)(f"{path.name}: {error}") from None
    return measurements


def load_head(source: Path | str) -> tuple[Shaped[np.ndarray, ...], Shaped[np.ndarray, ...] | None]:
    """Weight and bias of a head from "FILE", or from the tensors NAME.weight and NAME.bias of "FILE:NAME".

    Raises
    ------
    InvalidInput
        A file without a `weight`, or without tensors of that name.
    """
    path, name = Path(source), ""
    if not path.exists() and ":" in path.name:
        folder, _, name = str(source).rpartition(":")
        path = Path(folder)
    file = open_arrays(path, "weight")
    wanted = f"{name}.weight" if name else "weight"
    if name in file.names:  # the tensor itself, such as tied embeddings
        wanted = name
    if wanted not in file.names:
        raise InvalidInput(f"'{path.name}' holds no head {wanted!r}: {shown(did_you_mean(wanted, file.names), 200)}")
    bias = f"{wanted.removesuffix('weight')}bias"
    return _numbers(file, path, wanted), _numbers(file, path, bias) if bias in file.names else None


def load_snapshot(path: Path | str) -> tuple[Any, Any, Any, Any]:
    """Features, labels, weight and bias of a file, as arrays in memory; weight and bias are None where left out."""
    path = Path(path)
    file = open_arrays(path)
    weight, bias = _head_in(file, path)
    return _numbers(file, path, _named(file, path, None, FEATURES)), _labels_in(file, path, None), weight, bias


class _Report:
    """`on_rows` of one file, as a `Reading` among several."""

    def __init__(self, on_rows: Callable[[Reading], None], name: str, file: int, files: int):
        self._on_rows, self._place = on_rows, (name, file, files)

    def __call__(self, done: int, total: int) -> None:
        self._on_rows(Reading(*self._place, done, total))


def _head_in(file: ArrayFile, path: Path) -> tuple[Any, Any]:
    names = file.names if file.holds_head else ()
    weight, bias = (_numbers(file, path, name) if name in names else None for name in ("weight", "bias"))
    return weight, bias


def _labels_in(file: ArrayFile, path: Path, asked: str | None) -> Shaped[np.ndarray, ...]:
    return file.whole(_named(file, path, asked, LABELS))


def _named(file: ArrayFile, path: Path, asked: str | None, known: tuple[str, ...]) -> str:
    """The name of an array: what was asked for, or the first of the known names that is there."""
    if asked is not None:
        if asked not in file.names:
            raise InvalidInput(f"'{path.name}' holds no {asked!r}: {did_you_mean(asked, file.names)}")
        return asked
    for name in known:
        if name in file.names:
            return name
    raise InvalidInput(f"'{path.name}' must hold features (n, d), labels (n,) and, for a head, weight (k, d) and bias "
                       f"(k,): {known[0]} missing, got {first_of(file.names) or 'nothing'}")


def _numbers(file: ArrayFile, path: Path, name: str) -> Shaped[np.ndarray, ...]:
    array = file.whole(name)
    require_real(name, path, array.dtype)
    return array

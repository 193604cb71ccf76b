"""A table of Hugging Face `datasets` as samples: which column is what, and rows read from its memory map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import logging
from pathlib import Path
from typing import Any

from jaxtyping import Int, Shaped
import numpy as np

from neuralcollapse.checks import InvalidInput, did_you_mean, shown
from neuralcollapse.experiments.data.images import DecodedImages
from neuralcollapse.experiments.data.labels import encode_labels, encode_named
from neuralcollapse.experiments.data.samples import TEST_PARTS, Samples
from neuralcollapse.experiments.data.tokens import token_samples

try:
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError:
    raise InvalidInput("this data set needs Hugging Face datasets, which is not installed: "
                       "pip install 'neuralcollapse[hub]'") from None

_INPUTS = ("image", "img", "input_ids", "features", "embedding", "embeddings", "X")
_LABELS = ("label", "labels", "y", "target")


def samples_of(where: str, parts: Mapping[str, datasets.Dataset], inputs: str | None = None,
               labels: str | None = None, size: int | None = None, train: str | None = None,
               test: str | None = None) -> Samples:
    """Samples from the splits of a data set.

    Parameters
    ----------
    where : str
        What it was read from, for messages.
    parts : mapping of split to table
    inputs, labels : str, optional
        Columns; found by kind and name when left out.
    size : int, optional
        Side that images are brought to.
    train, test : str, optional
        Splits; "none" as `test` draws a test part from the training part.

    Raises
    ------
    InvalidInput
        No such split or column, several columns that could be meant, or columns that cannot be used.
    """
    train = train or ("train" if "train" in parts else next(iter(parts)) if len(parts) == 1 else None)
    chosen = [_split(where, parts, train)]
    test = next((name for name in TEST_PARTS if name in parts and name != train), "none") if test is None else test
    if test != "none":
        chosen.append(_split(where, parts, test))
    inputs = _inputs(where, chosen[0], inputs)
    labels = _labels(where, chosen[0], labels, optional=_are_tokens(chosen[0], inputs))
    table = _joined(where, [part.select_columns([inputs, *([labels] if labels else [])]) for part in chosen])
    own = len(chosen[0]) + np.arange(len(chosen[1])) if len(chosen) > 1 else None
    encoded = None if labels is None else _encoded(where, table, labels)
    if _is_image(_type(table, inputs)):
        assert encoded is not None
        return Samples(DecodedImages(TableImages(where, table, inputs), size), *encoded, own)
    if size is not None:
        raise InvalidInput(f"data option 'size' needs images, got column '{inputs}' of '{where}'")
    rows = TableRows(where, table, inputs)
    if rows.tokens:
        return token_samples(where, rows, encoded, own)
    assert encoded is not None
    return Samples(rows, *encoded, own)


def read_parquet(file: str) -> datasets.Dataset:
    """A Parquet file as a table, mapped from the library's own cache of it.

    Raises
    ------
    InvalidInput
        A file that is not there or is something else.
    """
    place = Path(file).expanduser()
    if not place.is_file():
        reason = "it is a folder, to be given as hf:PATH" if place.is_dir() else "No such file or directory"
        raise InvalidInput(f"cannot read the data set '{file}': {reason}")
    try:
        with quiet():
            return datasets.Dataset.from_parquet(str(place))
    except (ValueError, OSError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise InvalidInput(f"'{file}' cannot be read as a Parquet table: "
                           f"{shown(error.__cause__ or error, 120)}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars and log lines, which stand beside our own; both are as before afterwards."""
    said, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(said)
        if bars:
            datasets.enable_progress_bars()


def _split(where: str, parts: Mapping[str, datasets.Dataset], name: str | None) -> datasets.Dataset:
    if name is None:
        raise InvalidInput(f"'{where}' has no split 'train': give data_options.train, one of {', '.join(parts)}")
    if name not in parts:
        raise InvalidInput(f"'{where}' has no split '{name}': {did_you_mean(name, parts)}")
    if not len(parts[name]):
        raise InvalidInput(f"split '{name}' of '{where}' must hold samples, got none")
    return parts[name]


def _joined(where: str, parts: list[datasets.Dataset]) -> datasets.Dataset:
    try:
        return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    except ValueError:
        raise InvalidInput(f"the splits of '{where}' must have columns of the same kinds: give data_options.test=none "
                           "to use one of them") from None


def _type(table: datasets.Dataset, column: str) -> pa.DataType:
    kind = table.data.schema.field(column).type
    return kind.storage_type if isinstance(kind, pa.ExtensionType) else kind


def _is_image(kind: pa.DataType) -> bool:
    return (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
            or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _are_tokens(table: datasets.Dataset, column: str) -> bool:
    """Lists of whole numbers under a name such as "input_ids"."""
    kind = _type(table, column)
    return column.endswith("ids") and _is_list(kind) and pa.types.is_integer(kind.value_type)


def _inputs(where: str, table: datasets.Dataset, asked: str | None) -> str:
    usable = [name for name in table.column_names if _is_image(_type(table, name)) or _is_list(_type(table, name))]
    if asked is not None:
        return _column(where, table, asked, usable, "images or lists of numbers")
    images = [name for name in usable if _is_image(_type(table, name))]
    named = [name for name in _INPUTS if name in usable]
    for found in (images, named, usable):
        if len(found) == 1:
            return found[0]
    raise InvalidInput(f"'{where}' must have one column of images or lists of numbers, got "
                       f"{', '.join(usable) or 'none among ' + ', '.join(table.column_names)}: name it by "
                       "data_options.inputs")


def _labels(where: str, table: datasets.Dataset, asked: str | None, optional: bool) -> str | None:
    single = [name for name in table.column_names if not pa.types.is_nested(_type(table, name))]
    if asked is not None:
        return _column(where, table, asked, single, "single labels")
    classes = [name for name in single if isinstance(table.features[name], datasets.ClassLabel)]
    named = [name for name in _LABELS if name in single]
    for found in (classes, named):
        if len(found) == 1:
            return found[0]
    if optional and not classes + named:
        return None
    raise InvalidInput(f"'{where}' must have one column of labels, got "
                       f"{', '.join(classes or named) or 'none among ' + ', '.join(table.column_names)}: name it by "
                       "data_options.labels")


def _column(where: str, table: datasets.Dataset, asked: str, usable: list[str], kind: str) -> str:
    if asked not in table.column_names:
        raise InvalidInput(f"'{where}' has no column '{asked}': {did_you_mean(asked, table.column_names)}")
    if asked not in usable:
        raise InvalidInput(f"column '{asked}' of '{where}' must hold {kind}, got {_type(table, asked)}")
    return asked


def _encoded(where: str, table: datasets.Dataset, column: str) -> tuple[Int[np.ndarray, " N"], tuple[str, ...]]:
    values = _fetched(table.select_columns([column]), slice(None), column)
    if values.null_count:
        row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise InvalidInput(f"column '{column}' of '{where}' must hold no nulls, got one in row {row}")
    labels, kind = values.to_numpy(zero_copy_only=False), table.features[column]
    if isinstance(kind, datasets.ClassLabel):
        return encode_named(where, labels, kind.names, ": give another split by data_options.test, or none")
    return encode_labels(where, labels.astype(str) if labels.dtype.kind == "O" else labels, len(table))


def _fetched(table: datasets.Dataset, index: Any, column: str) -> pa.Array:
    where = index.tolist() if isinstance(index, np.ndarray) else index
    values = table.with_format("arrow")[where].column(column).combine_chunks()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return values.storage if isinstance(values, pa.ExtensionArray) else values


class TableImages:
    """Images in a column: bytes, or a struct of bytes or path."""

    def __init__(self, where: str, table: datasets.Dataset, column: str):
        self.where, self._column = where, column
        self._table = table.select_columns([column])

    def __len__(self) -> int:
        return len(self._table)

    def read(self, index: Int[np.ndarray, " b"]) -> list[Any]:
        """Bytes, or paths where the table holds no bytes."""
        found = _fetched(self._table, index, self._column).to_pylist()
        return [value if not isinstance(value, dict) else
                value["bytes"] if value["bytes"] is not None else value.get("path") for value in found]

    def name(self, i: int) -> str:
        """The row, counted through the splits in use."""
        return f"image {i}"

    def fingerprint(self) -> str:
        """The library's own mark of what the table holds."""
        return f"{self.where} {self._table._fingerprint} {len(self)}"


class TableRows:
    """Lists of numbers of one shape in a column; images as lists have their channels moved first."""

    def __init__(self, where: str, table: datasets.Dataset, column: str):
        self._where, self._column = where, column
        self._table = table.select_columns([column])
        kind, shape = _type(table, column), []
        first = _fetched(self._table, np.array([0]), column)
        while _is_list(kind):
            shape.append(-1 if first[0].as_py() is None else len(first[0]))
            kind, first = kind.value_type, first.flatten()
            if shape[-1] < 1:
                break
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or min(shape) < 1 or len(shape) > 3:
            raise InvalidInput(f"column '{column}' of '{where}' must hold numbers of shape (d,), (h, w) or (c, h, w), "
                               f"got {_type(table, column)} of shape {tuple(shape)} in row 0")
        self.tokens = _are_tokens(table, column)
        self._stored = tuple(shape)
        self._last = len(shape) == 3 and shape[0] not in (1, 3) and shape[2] in (1, 3)
        sample = (1, *shape) if len(shape) == 2 else (shape[2], *shape[:2]) if self._last else tuple(shape)
        self.shape = (len(table), *sample)
        self.dtype = np.dtype(np.int64 if self.tokens else np.uint8 if pa.types.is_uint8(kind) else np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Shaped[np.ndarray, "b ..."]:
        index = np.asarray(index)
        if not index.size:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        values = _fetched(self._table, index, self._column)
        owner = index
        for length in self._stored:
            sizes = pc.list_value_length(values).fill_null(-1).to_numpy(zero_copy_only=False)
            if (sizes != length).any():
                self._refuse(owner[int((sizes != length).argmax())], f"lists of {length}")
            values, owner = values.flatten(), np.repeat(owner, length)
        if values.null_count:
            self._refuse(owner[int(values.is_null().to_numpy(zero_copy_only=False).argmax())], "no nulls")
        with np.errstate(over="ignore"):  # what is too large for float32 becomes Inf and is refused
            numbers = values.to_numpy(zero_copy_only=False).astype(self.dtype)
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            self._refuse(owner[int((~np.isfinite(numbers)).argmax())], "finite numbers")
        rows = numbers.reshape(index.size, *self._stored)
        return np.moveaxis(rows, 3, 1) if self._last else rows.reshape(index.size, *self.shape[1:])

    def _refuse(self, row: Any, expected: str) -> None:
        raise InvalidInput(f"column '{self._column}' of '{self._where}' must hold {expected} in every row, but does "
                           f"not in row {row}")

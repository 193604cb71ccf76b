"""Features and labels in the columns of a Parquet table, read batch by batch. Needs the extra `parquet`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtyping import Float, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.measure.array_files import Rows, as_floats, readable

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError:
    raise InvalidInput("reading Parquet needs pyarrow: pip install 'neuralcollapse[parquet]'") from None

_BUFFER = 2**20  # bytes of a column read at once; by default, and when pre-buffered, it is all of its row group
_MAGIC = b"PAR1"


class ParquetFile:
    """A Parquet table as a file of arrays: its columns are the arrays.

    Parameters
    ----------
    path : Path
        Features are a column of lists of numbers, all of one length.
    """

    holds_head = False

    def __init__(self, path: Path):
        self.path = path
        with readable(path):
            _require_magic(path)
        with readable(path), self.table() as table:
            self._schema, self._n = table.schema_arrow, table.metadata.num_rows
        self.names = tuple(self._schema.names)

    def table(self) -> Any:
        """The table, open."""
        return pq.ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)

    def rows(self, name: str) -> Rows:
        """A column of lists, to be read in blocks; InvalidInput names the first row that is not as long as row 0."""
        kind = self._schema.field(name).type
        listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not (listed and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))):
            raise InvalidInput(f"column '{name}' of {self.path.name} must hold lists of numbers, got {kind}")
        return _Column(self, name, self._n)

    def whole(self, name: str) -> Shaped[np.ndarray, ...]:
        """A column of single values in memory."""
        with readable(self.path), self.table() as table:
            column = table.read([name], use_threads=False)[name].combine_chunks()
        if column.null_count:
            _refuse(self, name, int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))), "null")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column.to_numpy(zero_copy_only=False)


class _Column:
    """A column of lists, all of one length."""

    def __init__(self, file: ParquetFile, name: str, n: int):
        self._file, self._name = file, name
        first = next(self._batches(1), None)
        self._width = 0 if first is None else self._matrix(first, 0, None).shape[1]
        self.shape = (n, self._width)

    def split(self, rows: int) -> Iterator[Tensor]:
        """Blocks of rows."""
        start = 0
        for column in self._batches(rows):
            yield self._matrix(column, start, self._width)
            start += len(column)

    def _batches(self, rows: int) -> Iterator[Any]:
        with readable(self._file.path), self._file.table() as table:
            for batch in table.iter_batches(rows, columns=[self._name], use_threads=False):
                if len(batch):
                    yield batch.column(0)

    def _matrix(self, column: Any, start: int, width: int | None) -> Float[Tensor, "n d"]:
        """One batch as a matrix; InvalidInput names the first row that does not fit."""
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if width is None else width
        odd = lengths != width
        if odd.any() or width < 1:
            row = int(np.argmax(odd))
            given = "null" if column[row].as_py() is None else f"{lengths[row]} numbers"
            _refuse(self._file, self._name, start + row, given, "" if width < 1 else f" of {width} numbers each")
        values = column.flatten()
        if values.null_count:
            at = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
            _refuse(self._file, self._name, start + at // width, "a null among them", f" of {width} numbers each")
        matrix = values.to_numpy(zero_copy_only=False).reshape(-1, width)
        # A copy, since Arrow's memory is read-only and torch's is not.
        return as_floats(torch.from_numpy(np.array(matrix, None if matrix.dtype.kind == "f" else np.float64)))


def _require_magic(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
        file.seek(max(0, path.stat().st_size - len(_MAGIC)))
        if not start == file.read() == _MAGIC:
            raise ValueError("it must begin and end with PAR1; it is cut short, or something else")


def _refuse(file: ParquetFile, name: str, row: int, given: str, wanted: str | None = None) -> None:
    expected = "no nulls" if wanted is None else f"lists{wanted}"
    raise InvalidInput(f"column '{name}' of {file.path.name} must hold {expected}, got {given} in row {row}")

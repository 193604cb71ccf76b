"""Named arrays in `.npz`, `.npy` and `.safetensors` files, read a block of rows at a time and never unpickled.

Rows are read in order with plain reads rather than mapped: a file larger than memory costs one block, a file that is
being rewritten raises an error instead of a bus error, and an archive's checksums are verified on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
import struct
from typing import Any, Protocol, runtime_checkable
import zipfile

from jaxtyping import Float, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import UNREADABLE, InvalidInput, why_unreadable
from neuralcollapse.files import require_file

_REAL = "fiub"
_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name and extra field


@runtime_checkable
class Rows(Protocol):
    """A matrix that can be gone through in blocks of rows, again and again; a tensor is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def split(self, rows: int, /) -> Any:
        """The matrix from its first row to its last, as tensors of at most so many rows."""


@runtime_checkable
class ArrayFile(Protocol):
    """A file of named arrays.

    Attributes
    ----------
    names : tuple of str
        What it holds.
    holds_head : bool
        Whether an array `weight` in it is a head (in a table it is one more column of the samples).
    """

    names: tuple[str, ...]
    holds_head: bool

    def rows(self, name: str) -> Rows:
        """An array of real numbers, to be read in blocks."""

    def whole(self, name: str) -> Shaped[np.ndarray, ...]:
        """An array in memory."""


def open_arrays(path: Path | str, alone: str = "features") -> ArrayFile:
    """Open a file of arrays by the ending of its name.

    Parameters
    ----------
    path : Path
        `.npz`, `.npy`, `.safetensors` or `.parquet` (needs the extra `parquet`).
    alone : str
        What to call the one array of a `.npy` file.

    Raises
    ------
    InvalidInput
        A missing, broken or pickled file, or another ending.
    """
    path = Path(path)
    if (path / "config.yaml").is_file():
        raise InvalidInput(f"expected a file of features, got the run folder '{path}': its measurements are in its "
                           "report (neuralcollapse report)")
    require_file(path)
    if path.suffix in (".parquet", ".pq"):
        from neuralcollapse.measure.parquet import ParquetFile

        return ParquetFile(path)
    with readable(path):
        if path.suffix == ".npz":
            return NpzFile(path)
        if path.suffix == ".npy":
            return NpyFile(path, alone)
        if path.suffix == ".safetensors":
            return SafetensorsFile(path)
    raise InvalidInput(f"a snapshot must be a .npz, .npy, .safetensors or .parquet file, got '{path.name}'")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever reading a broken file raises into one line that names the file."""
    try:
        yield
    except (InvalidInput, TypeError):  # the latter would be ours
        raise
    except UNREADABLE as error:
        raise InvalidInput(f"'{path.name}' cannot be read as {path.suffix} arrays: {why_unreadable(error)}") from None


def as_floats(rows: Shaped[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows in a dtype that the measurement computes with; narrow ones become float32, whole numbers float64."""
    if not rows.is_floating_point():
        return rows.double()
    return rows.float() if rows.element_size() < 4 else rows


class NpzFile:
    """The arrays of an `.npz` archive, stored or compressed."""

    holds_head = True

    def __init__(self, path: Path):
        self._path = path
        # NumPy's own opening tells pickles and lone arrays from archives. Given the file open, it leaks none.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, expected an archive of named ones")
            self.names = tuple(archive.files)
            archive.close()
        with zipfile.ZipFile(path) as members:
            self._members = {info.filename.removesuffix(".npy"): info for info in members.infolist()}

    def rows(self, name: str) -> Rows:
        """An array of real numbers, to be read in blocks."""
        info = self._members[name]
        with readable(self._path):
            header = self._header(info)
            require_real(name, self._path, header.dtype)
            if not header.by_columns:
                return _Streamed(self._path, header, lambda: self._open(info))
            if info.compress_type != zipfile.ZIP_STORED:
                return _InMemory(self.whole(name))
            return _Mapped(self._path, header, self._start(info) + header.size)

    def whole(self, name: str) -> Shaped[np.ndarray, ...]:
        """An array in memory."""
        with readable(self._path), self._path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            self._header(self._members[name])
            return archive[name]

    def _header(self, info: zipfile.ZipInfo) -> _Header:
        with self._open(info) as member:
            header = _Header(member)
        if header.bytes != info.file_size:  # said before so much memory is asked for
            raise ValueError(f"{info.filename} has {info.file_size} bytes, expected {header.bytes}")
        return header

    @contextmanager
    def _open(self, info: zipfile.ZipInfo) -> Iterator[Any]:
        with zipfile.ZipFile(self._path) as archive, archive.open(info) as member:
            yield member

    def _start(self, info: zipfile.ZipInfo) -> int:
        with self._path.open("rb") as file:
            file.seek(info.header_offset)
            name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[-4:])
        return info.header_offset + _LOCAL_HEADER + name + extra


class NpyFile:
    """The one array of an `.npy` file, under a name of our own."""

    holds_head = False

    def __init__(self, path: Path, name: str):
        self._path = path
        self.names: tuple[str, ...] = (name,)
        with path.open("rb") as file:
            self._header = _Header(file)

    def rows(self, name: str) -> Rows:
        """An array of real numbers, to be read in blocks."""
        with readable(self._path):
            require_real(name, self._path, self._header.dtype)
            if self._path.stat().st_size < self._header.bytes:
                raise ValueError(f"it has {self._path.stat().st_size} bytes, expected {self._header.bytes}")
            if self._header.by_columns:
                return _Mapped(self._path, self._header, self._header.size)
            return _Streamed(self._path, self._header, lambda: self._path.open("rb"))

    def whole(self, name: str) -> Shaped[np.ndarray, ...]:
        """The array in memory."""
        with readable(self._path), self._path.open("rb") as file:
            return np.load(file, allow_pickle=False)


class SafetensorsFile:
    """The tensors of a `.safetensors` file."""

    holds_head = True

    def __init__(self, path: Path):
        self._path = path
        with self._open() as file:
            self.names = tuple(file.keys())

    def rows(self, name: str) -> Rows:
        """An array of real numbers, to be read in blocks."""
        with readable(self._path), self._open() as file:
            view = file.get_slice(name)
            if view.get_dtype().startswith("C"):
                raise InvalidInput(f"{name} in {self._path.name} must hold real numbers, got {view.get_dtype()}")
            return _Sliced(self, name, tuple(view.get_shape()))

    def whole(self, name: str) -> Shaped[np.ndarray, ...]:
        """An array in memory; types that NumPy lacks, such as bfloat16, become float32."""
        with readable(self._path), self._open() as file:
            tensor = file.get_tensor(name)
            return (tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor).numpy()

    def part(self, name: str, rows: slice) -> Tensor:
        """Some rows of an array. The file is mapped for as long as they are in use, and no longer."""
        with readable(self._path), self._open() as file:
            return as_floats(file.get_slice(name)[rows])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._path, "pt") as file:  # through torch, since NumPy has no bfloat16
                yield file
        except SafetensorError as error:
            raise ValueError(str(error)) from None


class _Header:
    """The header of an array in NumPy's format, read from where the file stands."""

    def __init__(self, file: BufferedIOBase):
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self.by_columns, self.dtype = read(file)
        if self.dtype.hasobject:
            raise ValueError("pickled objects")
        self.by_columns = self.by_columns and len(self.shape) > 1
        self.size = file.tell()
        self.row_bytes = int(np.prod(self.shape[1:], dtype=object)) * self.dtype.itemsize
        self.bytes = self.size + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


class _Streamed:
    """Rows stored one after the other, read as they come."""

    def __init__(self, path: Path, header: _Header, opened: Any):
        self._path, self._header, self._opened = path, header, opened
        self.shape = header.shape

    def split(self, rows: int) -> Iterator[Tensor]:
        """Blocks of rows."""
        header = self._header
        with readable(self._path), self._opened() as file:
            file.read(header.size)
            for start in range(0, self.shape[0], rows):
                taken = min(rows, self.shape[0] - start)
                buffer = bytearray(taken * header.row_bytes)
                if file.readinto(buffer) != len(buffer):
                    raise ValueError(f"it ends within rows {start} … {start + taken - 1}")
                yield _tensor(np.frombuffer(buffer, header.dtype).reshape(taken, *self.shape[1:]))
            file.read(1)  # an archive compares checksums at the end


class _Mapped:
    """Rows of an array stored column by column; mapped one block at a time, so that no page stays."""

    def __init__(self, path: Path, header: _Header, offset: int):
        self._path, self._header, self._offset = path, header, offset
        self.shape = header.shape

    def split(self, rows: int) -> Iterator[Tensor]:
        """Blocks of rows."""
        for start in range(0, self.shape[0], rows):
            with readable(self._path):
                mapped = np.memmap(self._path, self._header.dtype, "r", self._offset, self.shape, "F")
            yield _tensor(np.array(mapped[start:start + rows], order="C", subok=False))


class _InMemory:
    """Rows that could not be read apart: compressed columns."""

    def __init__(self, array: Shaped[np.ndarray, ...]):
        self._array, self.shape = array, array.shape

    def split(self, rows: int) -> Iterator[Tensor]:
        """Blocks of rows."""
        return (_tensor(self._array[start:start + rows].copy()) for start in range(0, self.shape[0], rows))


class _Sliced:
    """Rows of a tensor in a `.safetensors` file."""

    def __init__(self, file: SafetensorsFile, name: str, shape: tuple[int, ...]):
        self._file, self._name, self.shape = file, name, shape

    def split(self, rows: int) -> Iterator[Tensor]:
        """Blocks of rows."""
        for start in range(0, self.shape[0], rows):
            yield self._file.part(self._name, slice(start, min(start + rows, self.shape[0])))


def require_real(name: str, path: Path, dtype: np.dtype[Any]) -> None:
    """InvalidInput for an array that cannot be features or a head."""
    if dtype.kind not in _REAL:
        raise InvalidInput(f"{name} in {path.name} must hold real numbers, got {dtype}")


def _tensor(array: Shaped[np.ndarray, "n d"]) -> Float[Tensor, "n d"]:
    kept = array.dtype.kind == "f" and array.dtype.itemsize <= 8
    return as_floats(torch.from_numpy(array.astype(array.dtype.newbyteorder("=") if kept else np.float64, copy=False)))

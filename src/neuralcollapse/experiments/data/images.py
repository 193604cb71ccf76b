"""Encoded images (files, or bytes in a table) as rows of one shape, decoded when they are fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from typing import Any, Protocol, TypeVar, runtime_checkable
import zlib

from jaxtyping import Int, UInt8
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
import torch

from neuralcollapse.checks import InvalidInput, shown

A = TypeVar("A")
B = TypeVar("B")

# What Pillow raises for files that are cut short, altered or something else.
_BROKEN: tuple[type[Exception], ...] = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, StructError,
                                        zlib.error, Image.DecompressionBombError)
_GREY = ("1", "L", "LA")
_HEADERS_AT_ONCE = 1024


@runtime_checkable
class Encoded(Protocol):
    """Images as they are stored."""

    where: str

    def __len__(self) -> int:
        """N."""

    def read(self, index: Int[np.ndarray, " b"]) -> list[Any]:
        """Paths or bytes of some of them."""

    def name(self, i: int) -> str:
        """What to call one of them in a message."""

    def fingerprint(self) -> str:
        """A text that changes when they do."""


class DecodedImages:
    """Images of one shape (channels, height, width), uint8, decoded when they are fetched.

    Parameters
    ----------
    encoded : Encoded
    size : int, optional
        Side that they are brought to: the shorter side is resized, then the centre cut out. Without it they must all
        have one size.

    Raises
    ------
    InvalidInput
        No image at all, a header that cannot be read, images of several sizes where no size is given. When fetching:
        an image that cannot be decoded.

    Notes
    -----
    They are grey when every header says so, else RGB. More than 8 bits a channel are refused: Pillow would cut them
    off.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, encoded: Encoded, size: int | None = None):
        self.encoded, grey, common = encoded, True, None
        for i, (mode, width, height) in self._headers():
            grey = grey and mode in _GREY
            common = common or (height, width)
            if size is None and common != (height, width):
                raise InvalidInput(f"images of '{encoded.where}' must have one size, got {common[1]}×{common[0]} for "
                                   f"{encoded.name(0)} and {width}×{height} for {encoded.name(i)}: give "
                                   "data_options.size to resize the shorter side and cut out the centre")
        if common is None:
            raise InvalidInput(f"'{encoded.where}' must hold images, got none")
        side = common if size is None else (size, size)
        self._mode = "L" if grey else "RGB"
        self.shape = (len(encoded), 1 if grey else 3, *side)

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: Any, /) -> UInt8[np.ndarray, "b c h w"]:
        where = np.asarray(index)
        decoded = in_parallel(self._decode, zip(where.tolist(), self.encoded.read(where), strict=True))
        return np.stack(decoded) if decoded else np.zeros((0, *self.shape[1:]), np.uint8)

    def _headers(self) -> Iterator[tuple[int, tuple[str, int, int]]]:
        def header(item: tuple[int, Any]) -> tuple[int, tuple[str, int, int]]:
            with self._opened(*item) as image:
                return item[0], (image.mode, *image.size)

        for start in range(0, len(self.encoded), _HEADERS_AT_ONCE):
            some = np.arange(start, min(start + _HEADERS_AT_ONCE, len(self.encoded)))
            yield from in_parallel(header, zip(some.tolist(), self.encoded.read(some), strict=True))

    def _decode(self, item: tuple[int, Any]) -> UInt8[np.ndarray, "c h w"]:
        with self._opened(*item) as image:
            # A palette's transparent colour would otherwise be taken for black, with a warning.
            plain = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
            pixels = plain.convert(self._mode)
            if (pixels.height, pixels.width) != self.shape[2:]:
                pixels = ImageOps.fit(pixels, (self.shape[3], self.shape[2]), Image.Resampling.BILINEAR)
            array = np.asarray(pixels)
        return array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)

    @contextmanager
    def _opened(self, i: int, source: Any) -> Iterator[Image.Image]:
        try:
            if source is None:
                raise ValueError("there is none")
            with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"it has more than 8 bits a channel (mode {image.mode})")
                yield image
        except _BROKEN as error:
            reason = ("its format is not known" if isinstance(error, UnidentifiedImageError) else
                      getattr(error, "strerror", None) or shown(error, 120))
            raise InvalidInput(f"cannot decode {self.encoded.name(i)} of '{self.encoded.where}': {reason}; mend or "
                               "remove it") from None


def in_parallel(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """The function of each item, by as many threads as torch uses: decoding does not hold Python's lock."""
    threads, items = torch.get_num_threads(), list(items)
    if threads == 1 or len(items) < 2 * threads:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


class Files:
    """Image files below one folder.

    Parameters
    ----------
    folder : Path
    paths : list of Path
    """

    def __init__(self, folder: Path, paths: list[Path]):
        self.where, self._folder, self._paths = str(folder), folder, paths

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: Int[np.ndarray, " b"]) -> list[Any]:
        """Paths."""
        return [self._paths[i] for i in index]

    def name(self, i: int) -> str:
        """The path below the folder."""
        return f"image '{self._paths[i].relative_to(self._folder).as_posix()}'"

    def fingerprint(self) -> str:
        """Names, sizes and times of change."""
        return "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}"
                         for path, stat in ((path.absolute(), path.stat()) for path in self._paths))

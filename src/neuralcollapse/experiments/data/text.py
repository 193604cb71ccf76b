"""A text file as next-token data: words or bytes in windows."""

from __future__ import annotations

from pathlib import Path
import re

from jaxtyping import Integer
import numpy as np

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.data.samples import DATASETS, Samples

# A word with its apostrophes, or one mark.
_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_UNITS = ("word", "byte")


@DATASETS.register("text", argument="PATH")
def text(path: str, *, unit: str = "word", length: int = 64, vocabulary: int | None = None) -> Samples:
    """A text file to predict the next token of: its words in lower case and marks (or its bytes) in windows.

    Parameters
    ----------
    path : str
        UTF-8 where it is words.
    unit : "word" or "byte"
        Words are found in memory; bytes are read from the file when asked for.
    length : int
        Tokens that a window holds, each with the one after it as its label.
    vocabulary : int, optional
        Only so many words become classes, the most frequent of the training part.

    Raises
    ------
    InvalidInput
        A file that cannot be read, is no text, or is too short.
    """
    if unit not in _UNITS:
        raise InvalidInput(f"data option 'unit' must be {' or '.join(_UNITS)}, got {unit}")
    ids, names = (_words if unit == "word" else _bytes)(path)
    if ids.size <= length:
        raise InvalidInput(f"'{path}' must hold more than {length} {unit}s for one window, got {ids.size}")
    # The last token of a window is the first of the next: every token but the first is predicted once.
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::length]
    return Samples(windows, None, names, tokens=True, most=vocabulary)


def _words(path: str) -> tuple[Integer[np.ndarray, " n"], tuple[str, ...]]:
    try:
        content = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the data set '{path}': "
                           f"{getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
    number: dict[str, int] = {}
    ids = [number.setdefault(match[0], len(number)) for match in _WORDS.finditer(content.lower())]
    return np.array(ids, dtype=np.int32), tuple(number)


def _bytes(path: str) -> tuple[Integer[np.ndarray, " n"], tuple[str, ...]]:
    try:
        size = Path(path).stat().st_size
        ids = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
    except OSError as error:
        raise InvalidInput(f"cannot read the data set '{path}': {error.strerror}") from None
    return ids, tuple(chr(b) if 32 < b < 127 else f"0x{b:02x}" for b in range(256))

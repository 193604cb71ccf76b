"""Token ids: renumbered to those of the training part, as inputs and, for next-token data, as labels.

Ids that do not occur there share one more id, "unknown". In next-token data the classes are the tokens that occur as
a label in the training part (at most a given number, the most frequent): class c is input id c, and "unknown" is an
input only. Where the next token is none of them there is no label (−100).
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Int, Shaped
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.experiments.batches import IGNORED
from neuralcollapse.experiments.data.labels import encode_labels
from neuralcollapse.experiments.data.lazy import chunks
from neuralcollapse.experiments.data.npz import read_npz
from neuralcollapse.experiments.data.samples import DATASETS, Rows, Samples


class Renumber:
    """Ids as positions among kept ones.

    Parameters
    ----------
    kept : (v,) array of ids, ascending
    missing : int
        What every other id becomes.

    Examples
    --------
    >>> Renumber(np.array([5, 9]), missing=2)(torch.tensor([[9, 7, 5]])).tolist()
    [[1, 2, 0]]
    """

    dtype = torch.int64

    def __init__(self, kept: Int[np.ndarray, " v"], missing: int):
        self._kept, self._missing = torch.from_numpy(kept), missing

    def __call__(self, raw: Shaped[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """Positions."""
        kept, ids = self._kept.to(raw.device), raw.long()
        place = torch.searchsorted(kept, ids).clamp(max=len(kept) - 1)
        return torch.where(kept[place] == ids, place, self._missing)


class Leading:
    """Windows of length + 1 tokens without their last: the inputs of next-token data."""

    def __init__(self, windows: Rows):
        self._windows = windows
        self.shape = (windows.shape[0], windows.shape[1] - 1)
        self.dtype = windows.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Shaped[np.ndarray, "b l"]:
        return self._windows[index][:, :-1]


def tokens_in(rows: Rows, index: Int[np.ndarray, " n"]) -> Int[np.ndarray, " v"]:
    """The distinct ids of some rows, ascending; negative ones mean "no token" and are left out."""
    found = np.zeros(0, np.int64)
    for chunk in chunks(rows, index):
        found = np.union1d(found, chunk.astype(np.int64))
    return found[found >= 0]


def label_counts(windows: Rows, index: Int[np.ndarray, " n"],
                 most: int | None) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """The ids that some windows predict, ascending, and how often each; the `most` frequent of them."""
    ids, times = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for chunk in chunks(windows, index):
        more, often = np.unique(chunk[:, 1:].astype(np.int64), return_counts=True)
        ids, place = np.unique(np.concatenate([ids, more]), return_inverse=True)
        times = np.bincount(place, np.concatenate([times, often])).astype(np.int64)
    ids, times = ids[ids >= 0], times[ids >= 0]
    kept = np.sort(np.lexsort((ids, -times))[:most])
    return ids[kept], times[kept]


def next_tokens(windows: Rows, index: Int[np.ndarray, " n"], kept: Int[np.ndarray, " k"]) -> Int[Tensor, "n l"]:
    """The label of every position of some windows: the token after it, as its class."""
    classes, labels = Renumber(kept, IGNORED), torch.empty((index.size, windows.shape[1] - 1), dtype=torch.int64)
    start = 0
    for chunk in chunks(windows, index):
        labels[start : start + len(chunk)] = classes(torch.from_numpy(chunk[:, 1:].astype(np.int64)))
        start += len(chunk)
    return labels


def token_samples(where: str, ids: Rows, labels: tuple[np.ndarray, tuple[str, ...]] | None,
                  test: Int[np.ndarray, " m"] | None = None) -> Samples:
    """Samples of token ids, with labels or to predict the next token of.

    Raises
    ------
    InvalidInput
        Windows that are too short to predict anything.
    """
    if labels is None:
        if ids.shape[1] < 2:
            raise InvalidInput(f"'{where}' must hold at least 2 token ids per row to predict the next, got 1")
        return Samples(ids, None, (), test, tokens=True)
    return Samples(ids, *labels, test, tokens=True)


@DATASETS.register("tokens", argument="PATH")
def tokens(path: str) -> Samples:
    """Token ids (N, length): `input_ids` in .npz or .parquet, with `labels` (N,), or without to predict the next token.

    Negative ids mean "no token", such as padding.
    """
    if not path.endswith(".npz"):
        from neuralcollapse.experiments.data.parquet import parquet

        return parquet(path, inputs="input_ids")
    arrays = read_npz(path)
    if "input_ids" not in arrays:
        raise InvalidInput(f"'{path}' must hold an array 'input_ids', got {', '.join(arrays) or 'none'}")
    ids = _whole(path, arrays["input_ids"])
    labels = arrays.get("labels")
    return token_samples(path, ids, None if labels is None else
                         encode_labels(path, labels, len(ids), arrays.get("names")))


def _whole(path: str, ids: Shaped[np.ndarray, ...]) -> Int[np.ndarray, "N l"]:
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or ids.size == 0:
        raise InvalidInput(f"input_ids of '{path}' must be whole numbers of shape (N, length), got {ids.dtype} of "
                           f"shape {ids.shape}")
    return ids.astype(np.int64)

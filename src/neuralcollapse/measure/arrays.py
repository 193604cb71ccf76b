"""Measure features, labels and head that lie in memory: NumPy arrays or tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from warnings import catch_warnings, simplefilter

from jaxtyping import Int
import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse.checks import InvalidInput, check_labels, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.array_files import Rows
from neuralcollapse.measure.decisions import Head
from neuralcollapse.measure.estimators import fitted_head, is_estimator
from neuralcollapse.measure.heads import read_head
from neuralcollapse.measure.measurement import LARGEST, Measurement
from neuralcollapse.measure.moments import NotFinite
from neuralcollapse.measure.passes import SECOND_PASS, Block, measure_blocks
from neuralcollapse.predict.targets import Targets

_ROWS_AT_ONCE = 2_048  # what a pass reads twice is still in the cache
_MOST_UNDECLARED = 1_000_000  # classes that labels alone may speak of, however few samples there are


def measure(features: Any, labels: Any, weight: Any = None, bias: Any = None, *,
            counts: Any = None, names: Sequence[str] | None = None, targets: Targets = ("seli",),
            center: str = "classes", nc4: str | Measurement | None = SECOND_PASS,
            scatter: bool = True) -> Measurement:
    """Measure the geometry of features and head.

    Parameters
    ----------
    features : (n, d) array or tensor of floats
        Inputs of the last linear layer.
    labels : (n,) array or tensor of whole numbers
    weight : (k, d) array, tensor or layer, or fitted classifier, optional
        `Linear.weight`; without it only the metrics of the features are given. A fitted linear classifier of
        scikit-learn stands for weight and bias; labels are then any of its classes.
    bias : (k,) array or tensor, optional
        `Linear.bias`.
    counts : ClassCounts or sequence, optional
        The training counts that targets are predicted from; the labels' own when left out.
    names : (k,) sequence of str, optional
        Class names.
    targets : sequence of str, or mapping of names to Geometry
        Geometries to hold it against, the main one first: "seli", "etf", "ridge:0.1", …; or what `predict` gave, by the
        name it is to go by.
    center : str
        Centre the class means on the mean of the "classes" (where SELI's are centred: Σ_c μ_c = 0 at any imbalance),
        on the mean of all "samples", or on "none".
    nc4 : "second-pass", Measurement or None
        Which class means NC4 compares the samples with: their own (a second pass over them), those of an earlier
        measurement (one pass), or none (no NC4).
    scatter : bool
        False leaves out NC1's pseudo-inverse form and is several times faster.

    Returns
    -------
    Measurement

    Raises
    ------
    InvalidInput
        Arrays that do not fit together, non-finite features (named by row), a label outside 0 … k−1.

    References
    ----------
    papyan2020; thrampoulidis2022; theory.md §6.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> W, M = predict([10, 10, 1, 1]).factors(d=6, seed=0)
    >>> labels = np.repeat([0, 1, 2, 3], [10, 10, 1, 1])
    >>> result = measure(M[labels], labels, W)
    >>> result.to_dict()["distance"]["classifiers"] < 1e-12
    True
    """
    if is_estimator(weight):
        if bias is not None:
            raise InvalidInput("bias was given beside a fitted classifier, which has its own: leave it out")
        fitted = fitted_head(weight)
        labels, weight, bias, names = fitted.rows_of(labels), fitted.weight, fitted.bias, names or fitted.names
    if isinstance(weight, nn.Module):
        layer = read_head(weight)
        weight, bias = layer.weight, layer.bias if bias is None else bias
    rows, index = _as_matrix("features", features), check_labels(_to_numpy(labels))
    return measure_rows(rows, index, weight, bias, counts=counts, names=names, targets=targets, center=center,
                        nc4=nc4, scatter=scatter)


def _classes_of(labels: Int[np.ndarray, " n"]) -> int:
    """The largest label + 1, where nothing else says how many classes there are; some may have no sample here."""
    k = int(labels.max()) + 1
    if k > max(_MOST_UNDECLARED, 100 * len(labels)):  # an identifier, say: no array that long is made to find it out
        raise InvalidInput(f"labels must be class indices 0 … k−1, got {k - 1} among {len(labels)} samples: give the "
                           "head or the counts where there are so many classes")
    return k


def measure_rows(rows: Rows, labels: Int[np.ndarray, " n"], weight: Any, bias: Any, *, counts: Any,
                 names: Sequence[str] | None, targets: Targets, center: str, nc4: str | Measurement | None,
                 scatter: bool, at_once: int = _ROWS_AT_ONCE,
                 on_rows: Callable[[int, int], None] | None = None) -> Measurement:
    """Measure features that come in blocks of rows; the rest as in `measure`.

    Parameters
    ----------
    rows : Rows
        A tensor, or what reads a matrix from a file.
    at_once : int
        Rows in a block.
    on_rows : callable, optional
        Told how many rows have been gone through, and of how many in all passes.
    """
    shape = tuple(rows.shape)
    if len(shape) != 2 or 0 in shape:
        raise InvalidInput(f"features must be a matrix with at least one row and column, got shape {shape}")
    if shape[0] != len(labels):
        raise InvalidInput(f"features and labels must have the same length, got {shape[0]} and {len(labels)}")
    head = check_head(weight, bias, shape[1])
    declared = None if counts is None else ClassCounts.from_counts(counts, names)
    k = head.weight.shape[0] if head else declared.k if declared else _classes_of(labels)
    check_labels(labels, k)
    if isinstance(nc4, Measurement) and nc4.measured.means.shape != (k, shape[1]):
        raise InvalidInput(f"nc4 must be a measurement with class means of shape {(k, shape[1])}, got one of shape "
                           f"{nc4.measured.means.shape}")
    passes = 2 if nc4 == SECOND_PASS and head is not None else 1
    blocks = _Labelled(rows, torch.from_numpy(labels), at_once, passes, on_rows)
    device = rows.device if isinstance(rows, Tensor) else torch.device("cpu")
    try:
        return measure_blocks(blocks, k, head and head.to(device), nc4=nc4, scatter=scatter, counts=declared,
                              names=names, targets=targets, center=center)
    except NotFinite:
        bad = blocks.rows_not_finite()
        raise InvalidInput(f"features must be finite, got NaN or Inf in row {bad[0]} ({len(bad)} of {shape[0]} "
                           "rows)") from None


class _Labelled:
    """Rows with their labels, as blocks."""

    def __init__(self, rows: Rows, labels: Int[Tensor, " n"], at_once: int, passes: int,
                 on_rows: Callable[[int, int], None] | None):
        self._rows, self._labels, self._at_once = rows, labels, at_once
        self._done, self._all, self._on_rows = 0, passes * len(labels), on_rows

    def __iter__(self) -> Iterator[Block]:
        start = 0
        for part in self._rows.split(self._at_once):
            yield Block(part, self._labels[start:start + len(part)].to(part.device))
            start += len(part)
            self._done += len(part)
            if self._on_rows is not None:
                self._on_rows(self._done, self._all)

    def rows_not_finite(self) -> list[int]:
        bad = [~torch.isfinite(part).all(dim=1) for part in self._rows.split(self._at_once)]
        return torch.cat(bad).nonzero()[:, 0].tolist()


def check_head(weight: Any, bias: Any, dimension: int) -> Head | None:
    """The head; InvalidInput when it does not fit features of this dimension."""
    if weight is None:
        if bias is not None:
            raise InvalidInput("bias was given without weight: a head needs weight of shape (k, d)")
        return None
    matrix = _as_matrix("weight", weight)
    if matrix.shape[1] != dimension or matrix.shape[0] < 2:
        hint = ": give its transpose" if matrix.shape[0] == dimension else ""
        raise InvalidInput(f"weight must have shape (k, {dimension}), one row per class as in torch's Linear, "
                           f"got {tuple(matrix.shape)}{hint}")
    if not bool(torch.isfinite(matrix).all()):
        raise InvalidInput("weight must be finite, got NaN or Inf")
    if not float(matrix.abs().max()) < LARGEST:
        raise InvalidInput(f"weight must be small enough to square, below {LARGEST:g}, got "
                           f"{float(matrix.abs().max()):.2g}")
    if bias is None:
        return Head(matrix)
    vector = bias.detach() if isinstance(bias, Tensor) else _tensor("bias", bias)
    if vector.shape != matrix.shape[:1] or not bool(torch.isfinite(vector).all()):
        raise InvalidInput(f"bias must be {matrix.shape[0]} finite numbers, one per class, "
                           f"got shape {tuple(vector.shape)} ({shown(vector.tolist())})")
    return Head(matrix, vector)


def _as_matrix(name: str, values: Any) -> Tensor:
    tensor = values.detach() if isinstance(values, Tensor) else _tensor(name, values)
    if tensor.ndim != 2 or tensor.shape[0] == 0 or tensor.shape[1] == 0:
        raise InvalidInput(f"{name} must be a matrix with at least one row and column, got shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        return tensor.double()
    return tensor


def _tensor(name: str, values: Any) -> Tensor:
    """The same memory as a tensor where torch can take it, read-only and memory-mapped arrays too: none is written."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidInput(f"{name} must be a matrix of numbers, got rows of different lengths") from None
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must hold numbers, got {array.dtype}")
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif not array.dtype.isnative or min(array.strides, default=0) < 0:
        array = array.astype(array.dtype.newbyteorder("="))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # torch's, about writing to it
        return torch.from_numpy(array)


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)

"""One measurement of a network: every registered metric, from features and head."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput, check_labels, shown
from neuralcollapse.counts import ClassCounts
from neuralcollapse.measure.decisions import DecisionCounts, count_disagreements
from neuralcollapse.measure.measured import METRICS, Measured, SampleStatistics
from neuralcollapse.measure.moments import ClassMoments, Moments
from neuralcollapse.predict import RidgeEstimate, lambda_eff, ridge_path, target_geometry

_ROWS_AT_ONCE = 16_384
_PATH_BELOW = 40  # distinct counts
_LARGEST = 1e100  # products of two squares must stay within float64


class Measurement:
    """What was measured on one network at one moment.

    Made by `measure`, `measure_model` or `CollapseMetric.measurement`.

    Parameters
    ----------
    measured : Measured
        The statistics that the metrics are functions of.
    target : str
        Name of the main target.
    """

    def __init__(self, measured: Measured, target: str):
        self.measured = measured
        self.target = target

    def __repr__(self) -> str:
        values = self.to_dict()
        parts = {"classes": self.measured.k, "samples": int(self.measured.seen.sum()),
                 "nc1": values["nc1"]["pinv"], "target": self.target,
                 "D_W": values["distance"]["classifiers"], "D_M": values["distance"]["embeddings"]}
        return "Measurement(" + ", ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in parts.items()) + ")"

    @cached_property
    def _values(self) -> dict[str, Any]:
        values = {entry.name: entry.function(self.measured) for entry in METRICS}
        values["distance"]["target"] = self.target
        return values

    def to_dict(self) -> dict[str, Any]:
        """Every metric as JSON-ready numbers, finite or None (the contract of `measure --json`)."""
        return {"counts": self.measured.seen.tolist(), "center": self.measured.center, **self._values,
                "lambda_eff": None}

    def scalars(self) -> dict[str, float]:
        """Every metric as one flat dictionary with stable names, NaN where it is not defined.

        Names are `nc/within`, `nc/seli/classifiers`, `nc/class/NAME/norm`, …
        """
        flat: dict[str, float] = {}
        for entry in METRICS:
            _flatten(self._values[entry.name], (), entry.options["scalars"], self.measured.names, flat)
        return flat

    def lambda_eff(self, points: int = 40) -> RidgeEstimate | None:
        """The ridge whose cross-entropy geometry is nearest to the measured one, refined between `points` of a path.

        None without a head, with a class that has no sample, or above 40 distinct counts (a path is then slow: call
        `ridge_path` and `lambda_eff` of the predict room yourself).
        """
        measured = self.measured
        means = measured.centred_means
        if measured.weight is None or means is None or np.unique(measured.seen).size > _PATH_BELOW:
            return None
        geometry = next(iter(measured.targets.values()), None)
        path = ridge_path(measured.seen if geometry is None else geometry.counts, points=points)
        return lambda_eff(path, measured.weight, means, center=measured.center)

    def grams(self) -> dict[str, Float[np.ndarray, "k k"]]:
        """Measured G_W, G_M and WᵀM with unit Frobenius norm; those that are not defined are left out."""
        weight, means = self.measured.weight, self.measured.centred_means
        pairs = {"classifiers": (weight, weight), "embeddings": (means, means), "logits": (weight, means)}
        grams = {}
        for name, (left, right) in pairs.items():
            if left is not None and right is not None:
                product = left @ right.T
                size = np.linalg.norm(product)
                grams[name] = product / size if size > 0 else product
        return grams


def measure(features: Any, labels: Any, weight: Any = None, bias: Any = None, *,
            counts: Any = None, names: Sequence[str] | None = None,
            targets: Sequence[str] = ("seli",), center: str = "classes") -> Measurement:
    """Measure the geometry of features and head, in one pass for the moments and one for the decisions.

    Parameters
    ----------
    features : (n, d) array or tensor of floats
        Inputs of the last linear layer.
    labels : (n,) array or tensor of whole numbers
    weight : (k, d) array or tensor, optional
        `Linear.weight`; without it only the metrics of the features are given.
    bias : (k,) array or tensor, optional
        `Linear.bias`.
    counts : ClassCounts or sequence, optional
        The training counts that targets are predicted from; the labels' own when left out.
    names : (k,) sequence of str, optional
        Class names.
    targets : sequence of str
        Geometries to hold it against, the main one first: "seli", "etf", ….
    center : str
        Centre the class means on the mean of the "classes" (where SELI's are centred: Σ_c μ_c = 0 at any imbalance),
        on the mean of all "samples", or on "none".

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
    rows = _as_matrix("features", features)
    index = torch.from_numpy(check_labels(_to_numpy(labels)))
    if rows.shape[0] != index.shape[0]:
        raise InvalidInput(f"features and labels must have the same length, got {rows.shape[0]} and {index.shape[0]}")
    head = check_head(weight, bias, rows.shape[1])
    declared = None if counts is None else ClassCounts.from_counts(counts, names)
    k = head[0].shape[0] if head[0] is not None else declared.k if declared else int(index.max()) + 1
    check_labels(index.numpy(), k)
    index = index.to(rows.device)
    finished = _accumulated(rows, index, k)
    samples = None if head[0] is None else _decisions(rows, index, head[0], head[1], finished)
    return finish(finished, samples, *head, counts=declared, names=names, targets=targets, center=center)


def finish(moments: Moments, samples: SampleStatistics | None, weight: Tensor | None, bias: Tensor | None, *,
           counts: ClassCounts | None, names: Sequence[str] | None, targets: Sequence[str],
           center: str) -> Measurement:
    """A Measurement from finished moments and decisions; targets follow `counts`, or the samples seen."""
    seen = moments.counts.cpu().numpy()
    largest = max(float(moments.means.abs().max()), float(moments.squares.max()) ** 0.5)
    if not largest < _LARGEST:
        raise InvalidInput("features must be small enough to square, below 1e+18 in single and 1e+100 in double "
                           f"precision, got class means or spreads of {largest:.2g}")
    if counts is None and (seen > 0).all() and seen.size > 1:
        counts = ClassCounts(seen, names)
    if counts is not None and counts.k != seen.size:
        raise InvalidInput(f"counts must be one per class, expected {seen.size}, got {counts.k}")
    geometries = {} if counts is None else {name: target_geometry(name, counts).centred(center) for name in targets}
    minority = np.zeros(seen.size, dtype=bool) if counts is None else counts.minority
    known = counts.names if counts is not None else tuple(names or map(str, range(seen.size)))
    return Measurement(Measured(
        seen, _to_numpy64(moments.means), _to_numpy64(moments.squares),
        None if moments.scatter is None else _to_numpy64(moments.scatter),
        None if weight is None else _to_numpy64(weight), None if bias is None else _to_numpy64(bias),
        center, geometries, minority, known, samples), targets[0] if targets else "none")


def check_head(weight: Any, bias: Any, dimension: int) -> tuple[Tensor | None, Tensor | None]:
    """Weight (k, d) and bias (k,) as float64 tensors; InvalidInput when they do not fit the features."""
    if weight is None:
        if bias is not None:
            raise InvalidInput("bias was given without weight: a head needs weight of shape (k, d)")
        return None, None
    matrix = _as_matrix("weight", weight).double()
    if matrix.shape[1] != dimension or matrix.shape[0] < 2:
        hint = ": give its transpose" if matrix.shape[0] == dimension else ""
        raise InvalidInput(f"weight must have shape (k, {dimension}), one row per class as in torch's Linear, "
                           f"got {tuple(matrix.shape)}{hint}")
    if not bool(torch.isfinite(matrix).all()):
        raise InvalidInput("weight must be finite, got NaN or Inf")
    if not float(matrix.abs().max()) < _LARGEST:
        raise InvalidInput(f"weight must be small enough to square, below {_LARGEST:g}, got "
                           f"{float(matrix.abs().max()):.2g}")
    if bias is None:
        return matrix, None
    vector = torch.from_numpy(np.ascontiguousarray(_to_numpy(bias))).double()
    if vector.shape != matrix.shape[:1] or not bool(torch.isfinite(vector).all()):
        raise InvalidInput(f"bias must be {matrix.shape[0]} finite numbers, one per class, "
                           f"got shape {tuple(vector.shape)} ({shown(vector.tolist())})")
    return matrix, vector


def _accumulated(rows: Float[Tensor, "n d"], labels: Int[Tensor, " n"], k: int) -> Moments:
    """The moments of all rows; a row that is not finite is named by its place, not by that of its block."""
    moments = ClassMoments(k, rows.shape[1], device=rows.device)
    try:
        for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
            moments.update(rows[start:start + _ROWS_AT_ONCE], labels[start:start + _ROWS_AT_ONCE])
        return moments.moments()
    except InvalidInput:
        bad = (~torch.isfinite(rows).all(dim=1)).nonzero()[:, 0]
        if not len(bad):
            raise
        raise InvalidInput(f"features must be finite, got NaN or Inf in row {int(bad[0])} ({len(bad)} of {len(rows)} "
                           "rows)") from None


def _decisions(rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None,
               moments: Moments) -> SampleStatistics:
    weight, bias = weight.to(rows.device), None if bias is None else bias.to(rows.device)
    decisions = DecisionCounts(weight.shape[0], keep=True, device=rows.device)
    decisions.update(rows, labels, weight, bias)
    complete = bool((moments.counts > 0).all())
    return decisions.statistics(count_disagreements(rows, weight, bias, moments.means) if complete else None)


def _flatten(value: Any, path: tuple[str, ...], scalars: dict[str, str], names: tuple[str, ...],
             flat: dict[str, float]) -> None:
    """Walk a metric's value: numbers go under their path, per-class lists under `nc/class/NAME/`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, (*path, key), scalars, names, flat)
        return
    name = scalars.get(path[-1] if path else "")
    if name is None:
        return
    if isinstance(value, list):
        flat.update({f"nc/class/{label}/{name}": _nan(entry) for label, entry in zip(names, value, strict=True)})
    elif value is None or isinstance(value, float):
        flat["/".join(("nc", *path[:-1], name))] = _nan(value)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _as_matrix(name: str, values: Any) -> Tensor:
    tensor = values.detach() if isinstance(values, Tensor) else torch.from_numpy(_writable(np.asarray(values)))
    if tensor.ndim != 2 or tensor.shape[0] == 0 or tensor.shape[1] == 0:
        raise InvalidInput(f"{name} must be a matrix with at least one row and column, got shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        return tensor.double()
    return tensor


def _writable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"arrays must hold numbers, got {array.dtype}")
    return array if array.flags.writeable and array.dtype.isnative else np.array(array)


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _to_numpy64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


"""One measurement of a network: every registered metric, as JSON, as flat scalars, as Gram matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

from jaxtyping import Float
import numpy as np
import torch
from torch import Tensor

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.given_counts import checked_names
from neuralcollapse.measure.decisions import Head
from neuralcollapse.measure.displays import measurement_html
from neuralcollapse.measure.measured import METRICS, Measured, SampleStatistics, centred
from neuralcollapse.measure.merging import Moments
from neuralcollapse.measure.spectrum import BetweenSpectrum
from neuralcollapse.predict import RidgeEstimate, lambda_eff, ridge_path
from neuralcollapse.predict.targets import Targets, listed, target_geometries
from neuralcollapse.threads import one_blas_thread

_PATH_BELOW = 40  # distinct counts
_THREADS_PAY_FROM = 2**18  # entries of the class means
LARGEST = 1e100  # products of two squares must stay within float64


class Measurement:
    """What was measured on one network at one moment.

    Made by `measure`, `measure_model` or `CollapseMetric.measurement`.

    Parameters
    ----------
    measured : Measured
        The statistics that the metrics are functions of.
    target : str
        Name of the main target.

    Examples
    --------
    >>> from neuralcollapse.measure import measure
    >>> result = measure(np.eye(4), [0, 0, 1, 1], np.array([[1.0, 1, 0, 0], [0, 0, 1, 1]]))
    >>> values = result.to_dict()
    >>> values["accuracy"]["overall"], round(values["distance"]["classifiers"], 3)
    (1.0, 0.765)
    """

    def __init__(self, measured: Measured, target: str):
        self.measured = measured
        self.target = target

    _repr_html_ = measurement_html

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
        with one_blas_thread() if self.measured.means.size < _THREADS_PAY_FROM else nullcontext():
            values = {entry.name: entry.function(self.measured) for entry in METRICS}
        values["distance"]["target"] = self.target
        return values

    def to_dict(self) -> dict[str, Any]:
        """Every metric as JSON-ready numbers, finite or None (the contract of `measure --json`).

        "lambda_eff" is None here, as its path takes seconds: call `lambda_eff`, which the command line fills in.
        """
        return {"counts": self.measured.seen.tolist(), "center": self.measured.center, **self._values,
                "nc4_means": self.measured.nc4_means,
                "lambda_eff": None}

    def scalars(self) -> dict[str, float]:
        """Every metric as one flat dictionary with stable names, NaN where it is not defined.

        Names are `nc/within`, `nc/seli/classifiers`, `nc/class/NAME/norm`, …
        """
        flat: dict[str, float] = {}
        for entry in METRICS:
            _flatten(self._values[entry.name], (), entry.options, self.measured.names, flat)
        return flat

    def lambda_eff(self, points: int = 40) -> RidgeEstimate | None:
        """The ridge whose cross-entropy geometry is nearest to the measured one, refined between `points` of a path.

        None without a head, with a class that has no sample, where all weights are zero or all class means equal (to
        within what can be squared), or above 40 distinct counts (a path is then slow: call `ridge_path` and
        `lambda_eff` of the predict room yourself).
        """
        measured = self.measured
        means = measured.centred_means
        if measured.weight is None or means is None or np.unique(measured.seen).size > _PATH_BELOW:
            return None
        grams = self.grams()
        if not (grams["classifiers"].any() and grams["embeddings"].any()):
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


def finish(moments: Moments, samples: SampleStatistics | None, head: Head | None, *,
           spectrum: BetweenSpectrum | None = None, within: Float[np.ndarray, " r"] | None = None,
           nc4_means: str | None = None, counts: ClassCounts | None, names: Sequence[str] | None,
           targets: Targets, center: str) -> Measurement:
    """A Measurement from finished moments and decisions; targets follow `counts`, or the samples seen.

    `within` are the sums of (u_jᵀ(h_i − μ_c))² along the directions of `spectrum`, from a second pass; without them
    they are taken from the scatter, where that was kept.
    """
    seen, means = moments.counts.cpu().numpy(), _to_numpy64(moments.means)
    check_size(moments)
    if counts is None and (seen > 0).all() and seen.size > 1:
        counts = ClassCounts(seen, names)
    if counts is not None and counts.k != seen.size:
        raise InvalidInput(f"counts must be one per class, expected {seen.size}, got {counts.k}")
    about = centred(means, seen, center)
    with one_blas_thread() if means.size < _THREADS_PAY_FROM else nullcontext():
        if spectrum is None and about is not None:
            spectrum = BetweenSpectrum.of(about)
        if within is None and spectrum is not None and moments.scatter is not None:
            within = spectrum.along(_to_numpy64(moments.scatter))
    geometries = {} if counts is None else {name: geometry.centred(center) for name, geometry in
                                            target_geometries(targets, counts).items()}
    minority = np.zeros(seen.size, dtype=bool) if counts is None else counts.minority
    known = counts.names if counts is not None else (checked_names(names, seen.size) or
                                                         tuple(map(str, range(seen.size))))
    return Measurement(Measured(
        seen, means, _to_numpy64(moments.squares), spectrum, None if within is None else within / seen.sum(),
        # Copied: training goes on changing a head in float64 on the CPU, which would be the same memory.
        None if head is None else _to_numpy64(head.weight, copy=True),
        None if head is None or head.bias is None else _to_numpy64(head.bias, copy=True),
        center, geometries, minority, known, samples, nc4_means), next(iter(listed(targets)), "none"))


def check_size(moments: Moments) -> None:
    """InvalidInput for features whose squares would overflow."""
    largest = max(float(moments.means.abs().max()), float(moments.squares.max()) ** 0.5)
    if not largest < LARGEST:
        raise InvalidInput("features must be small enough to square, below 1e+18 in single and 1e+100 in double "
                           f"precision, got class means or spreads of {largest:.2g}")


def _flatten(value: Any, path: tuple[str, ...], options: Mapping[str, Any], names: tuple[str, ...],
             flat: dict[str, float]) -> None:
    """Walk a metric's value: numbers go under their path, per-class lists under `nc/class/NAME/`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, (*path, key), options, names, flat)
        return
    key = path[-1] if path else ""
    name = options["scalars"].get(key)
    if name is None:
        return
    if key in options.get("per_class", ()):
        values = [None] * len(names) if value is None else value
        flat.update({f"nc/class/{label}/{name}": _nan(entry) for label, entry in zip(names, values, strict=True)})
    elif value is None or isinstance(value, int | float):
        flat["/".join(("nc", *path[:-1], name))] = _nan(value)


def _nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _to_numpy64(tensor: Tensor, copy: bool = False) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64, copy=copy).numpy()

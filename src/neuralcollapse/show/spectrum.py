"""The singular values of what is predicted: of the logits of all samples, Z = WᵀH."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int
import numpy as np

from neuralcollapse.predict import Geometry
from neuralcollapse.show.charts import Curve, Panel, Ranked
from neuralcollapse.show.wording import number

_ZERO = 1e-9  # relative to the largest
_ALIKE = 1e-6
_ONE_BY_ONE = 60  # values up to which each gets a marker
_LISTED = 6
_COLOURS = ("green", "ink")


@dataclass(frozen=True)
class Spectrum:
    """Distinct singular values, descending, and how often each occurs; k in all.

    Attributes
    ----------
    values : (r,) array
    times : (r,) int array
    """

    values: Float[np.ndarray, " r"]
    times: Int[np.ndarray, " r"]

    @property
    def rank(self) -> int:
        """How many are not zero."""
        return int(self.times[self.values > _ZERO * self.values.max(initial=0.0)].sum())

    def at(self, places: Int[np.ndarray, " p"]) -> Float[np.ndarray, " p"]:
        """The values at some ranks, 1 the largest."""
        return self.values[np.searchsorted(np.cumsum(self.times), places)]

    def unit(self) -> Spectrum:
        """At unit Frobenius norm; zeros stay."""
        size = float(np.sqrt(self.times @ self.values**2))
        return self if size == 0 else Spectrum(self.values / size, self.times)


def spectrum(geometry: Geometry) -> Spectrum:
    """The singular values of C D^{1/2}, which are those of Z, at the cost of its groups.

    Inside a group of m equal classes C D^{1/2} acts as a multiple of the centring matrix, m − 1 equal singular values;
    the others are those of its means over the groups.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    Spectrum

    References
    ----------
    thrampoulidis2022, §3 (the SEL matrix); theory.md §1–2.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> found = spectrum(predict([9, 9, 9, 4, 4]))
    >>> found.values.round(3).tolist(), found.times.tolist(), found.rank
    ([3.0, 2.449, 2.0, 0.0], [2, 1, 1, 1], 4)
    """
    # Where W and M are the balanced factors WWᵀ has the same singular values, at a tenth of the cost.
    form = geometry.classifiers if geometry.balanced else geometry.logits
    sizes, n = form.groups.sizes, geometry.counts.values[form.groups.first]
    root, scale = np.sqrt(sizes), np.ones_like(n) if geometry.balanced else np.sqrt(n)
    entries = form.core if form.basis is None else form.basis @ form.core @ form.basis.T
    between = np.multiply.outer(root, root) * entries * scale + np.diag(form.diagonal * scale)
    joint = np.abs(np.linalg.eigvalsh(between)) if geometry.balanced else np.linalg.svd(between, compute_uv=False)
    values = np.concatenate([joint, np.abs(form.diagonal) * scale])
    times = np.concatenate([np.ones(sizes.size, dtype=np.int64), sizes - 1])
    return _distinct(values[times > 0], times[times > 0])


def singular_values(geometries: Mapping[str, Geometry]) -> Ranked:
    """Singular values of the logits of all samples, from the largest, of one or two geometries over the same classes.

    Parameters
    ----------
    geometries : mapping of str to Geometry
        By the names of their curves.

    Returns
    -------
    Ranked
        Both at unit Frobenius norm.
    """
    found = {name: spectrum(geometry).unit() for name, geometry in geometries.items()}
    k = next(iter(geometries.values())).k
    places = np.arange(1, k + 1)
    if k > _ONE_BY_ONE:  # the ends of every run of equal values
        ends = np.unique(np.concatenate([np.cumsum(part.times) for part in found.values()]))
        places = np.unique(np.concatenate([[1], ends, ends[:-1] + 1]))
    curves = tuple(Curve(name, part.at(places), colour, marker, dashed)
                   for (name, part), colour, marker, dashed in zip(found.items(), _COLOURS, ("circle", "square"),
                                                                   (False, True), strict=False))
    panel = Panel("Singular values of Z", "singular value", curves)
    first = next(iter(found.values()))
    return Ranked("Singular values", f"Of the logits of all samples, Z = WᵀH (in the limit the SEL matrix), scaled to "
                  f"norm 1. {_listed(first)} Rank {first.rank:,} of {k:,}.", _listed(first), (panel,), 1,
                  places.astype(np.float64), False)


def _distinct(values: Float[np.ndarray, " v"], times: Int[np.ndarray, " v"]) -> Spectrum:
    """Descending, with those that are equal up to rounding joined."""
    order = np.argsort(-values, kind="stable")
    values, times = values[order], times[order]
    values = np.where(values > _ZERO * values.max(initial=0.0), values, 0.0)
    new = np.concatenate([[True], values[:-1] - values[1:] > _ALIKE * values[:-1]])
    starts = np.flatnonzero(new)
    return Spectrum(values[starts], np.add.reduceat(times, starts))


def _listed(found: Spectrum) -> str:
    if found.values.size > _LISTED:
        return (f"{found.values.size:,} different values, from {number(float(found.values[0]))} to "
                f"{number(float(found.values[-1]))}.")
    return ", ".join(f"{number(float(value))} ({'once' if many == 1 else f'{many:,} times'})"
                     for value, many in zip(found.values, found.times.tolist(), strict=True)) + "."

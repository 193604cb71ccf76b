"""A path along λ in a few numbers per point: norms and cosines of majority and minority, at the cost of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
import numpy as np

from neuralcollapse.gram import Gram
from neuralcollapse.predict import Geometry
from neuralcollapse.predict.path import Event, RidgePath
from neuralcollapse.show.wording import number, plain

KINDS = ("classifiers", "embeddings")
PAIRS = {"majority_majority": (False, False), "majority_minority": (False, True), "minority_minority": (True, True)}


@dataclass(frozen=True)
class PathSummary:
    """What is drawn and listed of a path; NaN where the geometry is zero or there is nothing to average.

    Attributes
    ----------
    norms : dict
        (kind, minority) to (p,): mean norm at unit Frobenius norm of the Gram.
    cosines : dict
        (kind, pair) to (p,): mean cosine over pairs of different classes, pairs named as in a measurement.
    """

    norms: Mapping[tuple[str, bool], Float[np.ndarray, " p"]]
    cosines: Mapping[tuple[str, str], Float[np.ndarray, " p"]]

    def ratio(self, kind: str) -> Float[np.ndarray, " p"]:
        """Mean norm of majority over mean norm of minority classes."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.norms[kind, False] / self.norms[kind, True]


def summarise(path: RidgePath) -> PathSummary:
    """Means over majority and minority, in O(k + p g²) for p points and g groups."""
    some = _Members.of(path.geometries[0].classifiers)
    return joined([_means(geometry, some) for geometry in path.geometries])


def summarise_one(geometry: Geometry) -> PathSummary:
    """The same of one geometry, p = 1."""
    return _means(geometry, _Members.of(geometry.classifiers))


def joined(parts: Sequence[PathSummary]) -> PathSummary:
    """Summaries one after the other."""
    return PathSummary({key: np.concatenate([part.norms[key] for part in parts]) for key in parts[0].norms},
                       {key: np.concatenate([part.cosines[key] for part in parts]) for key in parts[0].cosines})


def _means(geometry: Geometry, some: _Members) -> PathSummary:
    few = np.asarray(geometry.counts.minority)[some.first]
    norms: dict[tuple[str, bool], Float[np.ndarray, " p"]] = {}
    cosines: dict[tuple[str, str], Float[np.ndarray, " p"]] = {}
    for kind in KINDS:
        own, cosine = some.blocks(getattr(geometry, kind))
        for minority in (False, True):
            norms[kind, minority] = np.array([_mean(own, some.sizes * (few == minority))])
        for pair, (one, two) in PAIRS.items():
            weight = some.pairs * np.multiply.outer(few == one, few == two)
            cosines[kind, pair] = np.array([_mean(cosine, weight)])
    return PathSummary(norms, cosines)


def event_name(event: Event) -> str:
    """An event in words, such as "the 5 classes with n = 14 merge"."""
    if event.kind == "total collapse":
        return "all classes vanish"
    return f"the {event.classes:,} classes with n = {plain(event.count)} merge"


def event_line(event: Event) -> str:
    """An event with its λ and whether the solutions agree."""
    agree = "the solutions confirm it" if event.confirmed else "NOT confirmed by the solutions"
    return f"from λ = {number(event.ridge)} on {event_name(event)} ({agree})"


@dataclass(frozen=True)
class _Members:
    """One class of each group and, where there is one, another of the same."""

    first: np.ndarray
    second: np.ndarray
    sizes: np.ndarray
    pairs: np.ndarray

    @classmethod
    def of(cls, gram: Gram) -> _Members:
        groups = gram.groups
        rest = np.ones(gram.k, dtype=bool)
        rest[groups.first] = False
        others = np.flatnonzero(rest)
        second = groups.first.copy()
        second[groups.index[others]] = others
        return cls(groups.first, second, groups.sizes, np.multiply.outer(groups.sizes, groups.sizes) -
                   np.diag(groups.sizes))

    def blocks(self, gram: Gram) -> tuple[np.ndarray, np.ndarray]:
        """The norm of each group's vectors at unit Frobenius norm, and cosines between two groups' vectors."""
        size = gram.frobenius
        own = np.sqrt(np.maximum(gram.block(self.first, self.first).diagonal(), 0.0))
        lengths = np.multiply.outer(own, own)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = np.clip(gram.block(self.first, self.second) / lengths, -1.0, 1.0)
        return (own / np.sqrt(size) if size > 0 else np.full(own.shape, np.nan)), cosines


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    """The weighted mean over what is known."""
    weight = np.where(np.isfinite(values), weight, 0)
    total = weight.sum()
    return float(np.sum(np.where(weight > 0, values, 0.0) * weight) / total) if total else float("nan")

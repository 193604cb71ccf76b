"""The parameterised cross-entropies and the geometry each leads to as the ridge vanishes.

    ω_y · CE(adjusted logits, y),   adjusted = Δ∘z + ι  (class temperature)  or  δ_y·z + ι  (label temperature)

Only the multiplicative part moves the limit (behnia2023; `theory.md` §3). A new loss is one function here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, finite_vector, positive_vector
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry
from neuralcollapse.predict.limit import interpolating_grams
from neuralcollapse.predict.thresholds import collapse_thresholds

_ASSUMES = "unconstrained features, d ≥ k − 1, no head bias, zero training error, ridge → 0"
_TEMPERATURES = ("class", "label")


@GEOMETRIES.register("ce", source="thrampoulidis2022", aliases=("seli",), parent=None)
def cross_entropy(counts: ClassCounts, weight: Any = None, delta: Any = None, temperature: str = "class",
                  iota: Any = None) -> Geometry:
    """Cross-entropy: SELI, from the SVD of the simplex-encoded label matrix.

    Class weights ω (`weight`) and additive offsets ι (`iota`) leave the limit where it is; temperatures δ
    (`delta`) move it, per `temperature`.
    """
    if temperature not in _TEMPERATURES:
        raise InvalidInput(f"temperature must be 'class' or 'label', got '{temperature}'")
    k = counts.k
    if weight is not None:
        positive_vector("weight", weight, k)
    if iota is not None:
        finite_vector("iota", iota, k)
    scale = np.ones(k) if delta is None else positive_vector("delta", delta, k)
    direction = np.ones(k) if temperature == "label" else 1 / scale
    grams = interpolating_grams(counts.values, scale, direction)
    geometry = Geometry(counts, "ce", grams.classifiers, grams.embeddings, grams.logits, _ASSUMES,
                        ("thrampoulidis2022",))
    plain = weight is None and delta is None and iota is None
    return replace(geometry, thresholds=collapse_thresholds(counts)) if plain else geometry


@GEOMETRIES.register("weighted", source="thrampoulidis2022", parent="ce")
def weighted(counts: ClassCounts, weight: Any = None) -> Geometry:
    """Class-weighted cross-entropy ω_y·CE: the limit is SELI whatever the weights."""
    return _renamed(cross_entropy(counts, weight=weight), "weighted", "thrampoulidis2022")


@GEOMETRIES.register("la", source="menon2021", parent="ce")
def logit_adjusted(counts: ClassCounts, iota: Any = None) -> Geometry:
    """Logit adjustment z_c + ι_c (balanced softmax when ι_c = ln n_c): the limit is SELI whatever the offsets."""
    return _renamed(cross_entropy(counts, iota=iota), "la", "menon2021", "behnia2023")


@GEOMETRIES.register("ldt", source="behnia2023", parent="ce")
def label_dependent_temperature(counts: ClassCounts, delta: Any) -> Geometry:
    """Label-dependent temperature δ_y·z: SELI of the effective counts n_c/δ_c²; δ ∝ √n gives a simplex ETF."""
    return _renamed(cross_entropy(counts, delta=delta, temperature="label"), "ldt", "behnia2023")


@GEOMETRIES.register("cdt", source=("ye2020", "behnia2023"), parent="ce")
def class_dependent_temperature(counts: ClassCounts, delta: Any) -> Geometry:
    """Class-dependent temperature Δ∘z: margins are set per class, and the simplex leans along 1/Δ."""
    return _renamed(cross_entropy(counts, delta=delta), "cdt", "ye2020", "behnia2023")


@GEOMETRIES.register("vs", source=("kini2021", "behnia2023"), parent="cdt")
def vector_scaling(counts: ClassCounts, delta: Any, iota: Any = None) -> Geometry:
    """Vector scaling Δ∘z + ι: the limit is that of the class temperatures Δ alone."""
    return _renamed(cross_entropy(counts, delta=delta, iota=iota), "vs", "kini2021", "behnia2023")


@GEOMETRIES.register("etf", source=("papyan2020", "zhu2021"), parent=None)
def simplex(counts: ClassCounts) -> Geometry:
    """The simplex equiangular tight frame of balanced classes, whatever the counts."""
    grams = interpolating_grams(np.ones(counts.k), np.ones(counts.k), np.ones(counts.k))
    return Geometry(counts, "etf", grams.classifiers, grams.embeddings, grams.logits,
                    "balanced classes", ("papyan2020", "zhu2021"))


def _renamed(geometry: Geometry, loss: str, *source: str) -> Geometry:
    return replace(geometry, loss=loss, source=source)

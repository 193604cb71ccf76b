"""The parameterised cross-entropies and the geometry each leads to, in the limit and at a finite ridge.

    ω_y · CE(adjusted logits, y),   adjusted = Δ∘z + ι  (class temperature)  or  δ_y·z + ι  (label temperature)

Only the multiplicative part moves the limit (behnia2023; `theory.md` §3); all of it moves a finite ridge (§4).
A new loss is one function here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from neuralcollapse.checks import InvalidInput, OutsideTheory, finite_vector, positive_vector
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry, Setting
from neuralcollapse.predict.limit import interpolating_grams
from neuralcollapse.predict.newton import within_thresholds
from neuralcollapse.predict.ridge import rank_loss, solve_ridge, total_collapse
from neuralcollapse.predict.symmetry import LossParameters, Point, ReducedProblem, reduce_problem
from neuralcollapse.predict.thresholds import collapse_thresholds, no_thresholds

_ASSUMES = "unconstrained features, d ≥ k − 1"
_IN_THE_LIMIT = f"{_ASSUMES}, no head bias, zero training error, ridge → 0"
_TEMPERATURES = ("class", "label")
_BRACKETED_BELOW = 64  # groups up to which a rank threshold without a closed form is bisected for


@GEOMETRIES.register("ce", source="thrampoulidis2022", aliases=("seli",), parent=None)
def cross_entropy(counts: ClassCounts, at: Setting, weight: Any = None, delta: Any = None,
                  temperature: str = "class", iota: Any = None) -> Geometry:
    """Cross-entropy: SELI in the limit, the certified convex optimum at a ridge.

    Class weights ω (`weight`) and additive offsets ι (`iota`) leave the limit where it is; temperatures δ
    (`delta`) move it, per `temperature`.
    """
    if temperature not in _TEMPERATURES:
        raise InvalidInput(f"temperature must be 'class' or 'label', got '{temperature}'")
    parameters = LossParameters(
        None if weight is None else positive_vector("weight", weight, counts.k),
        None if delta is None else positive_vector("delta", delta, counts.k),
        None if iota is None else finite_vector("iota", iota, counts.k), temperature == "label")
    return _limit(counts, at, parameters) if at.ridge is None else _finite(counts, at, parameters)


@GEOMETRIES.register("weighted", source="thrampoulidis2022", parent="ce")
def weighted(counts: ClassCounts, at: Setting, weight: Any = None) -> Geometry:
    """Class-weighted cross-entropy ω_y·CE: the limit is SELI whatever the weights."""
    return _renamed(cross_entropy(counts, at, weight=weight), "weighted", "thrampoulidis2022")


@GEOMETRIES.register("la", source="menon2021", parent="ce")
def logit_adjusted(counts: ClassCounts, at: Setting, iota: Any = None) -> Geometry:
    """Logit adjustment z_c + ι_c (balanced softmax when ι_c = ln n_c): the limit is SELI whatever the offsets."""
    return _renamed(cross_entropy(counts, at, iota=iota), "la", "menon2021", "behnia2023")


@GEOMETRIES.register("ldt", source="behnia2023", parent="ce")
def label_dependent_temperature(counts: ClassCounts, at: Setting, delta: Any) -> Geometry:
    """Label-dependent temperature δ_y·z: SELI of the effective counts n_c/δ_c²; δ ∝ √n gives a simplex ETF."""
    return _renamed(cross_entropy(counts, at, delta=delta, temperature="label"), "ldt", "behnia2023")


@GEOMETRIES.register("cdt", source=("ye2020", "behnia2023"), parent="ce")
def class_dependent_temperature(counts: ClassCounts, at: Setting, delta: Any) -> Geometry:
    """Class-dependent temperature Δ∘z: margins are set per class, and the simplex leans along 1/Δ."""
    return _renamed(cross_entropy(counts, at, delta=delta), "cdt", "ye2020", "behnia2023")


@GEOMETRIES.register("vs", source=("kini2021", "behnia2023"), parent="cdt")
def vector_scaling(counts: ClassCounts, at: Setting, delta: Any, iota: Any = None) -> Geometry:
    """Vector scaling Δ∘z + ι: the limit is that of the class temperatures Δ alone."""
    return _renamed(cross_entropy(counts, at, delta=delta, iota=iota), "vs", "kini2021", "behnia2023")


def _limit(counts: ClassCounts, at: Setting, parameters: LossParameters) -> Geometry:
    if at.bias_ridge is not None:
        raise OutsideTheory("the limit of vanishing ridge is known without a head bias only: leave the bias out, or "
                            "give a small ridge such as 1e-6")
    grams = interpolating_grams(counts, parameters)
    return Geometry(counts, "ce", grams.classifiers, grams.embeddings, grams.logits, _IN_THE_LIMIT,
                    ("thrampoulidis2022",), parameters=parameters,
                    find_thresholds=lambda bisect: _thresholds_of_limit(counts, parameters, bisect))


def _finite(counts: ClassCounts, at: Setting, parameters: LossParameters) -> Geometry:
    assert at.ridge is not None
    groups, problem = reduce_problem(counts, parameters, at.bias_ridge)
    start = at.start if isinstance(at.start, Point) else None
    found = solve_ridge(groups, problem, at.ridge, at.tolerance, start)
    return Geometry(counts, "ce", found.classifiers, found.embeddings, found.logits, _ASSUMES, ("thrampoulidis2022",),
                    at.ridge, at.bias_ridge is not None, found.solution.objective, found.solution.gap,
                    lambda bisect: _thresholds(problem, bisect), found.bias, found.solution.point,
                    parameters=parameters)


def _thresholds_of_limit(counts: ClassCounts, parameters: LossParameters, bisect: bool) -> dict[str, float | None]:
    """Those of a ridge; beyond a few groups only what plain cross-entropy has in closed form."""
    if parameters.groups(counts).sizes.size <= _BRACKETED_BELOW:
        return _thresholds(reduce_problem(counts, parameters, None)[1], bisect)
    return collapse_thresholds(counts) if parameters.neutral else no_thresholds(bisect)


def _thresholds(problem: ReducedProblem, bisect: bool) -> dict[str, float | None]:
    """Total collapse, and the first collapse below it: in closed form for equal classes, else by bisection."""
    top = total_collapse(problem)[0]
    first: float | None = None
    merging = within_thresholds(problem)[problem.repeated]
    if (merging < top * (1 - 1e-9)).any():
        first = float(merging.min())
    elif bisect and 1 < problem.g <= _BRACKETED_BELOW:
        low, high = rank_loss(problem, top)
        first = float(np.sqrt(low * high)) if high < top * (1 - 1e-9) else None
    return {"minority_collapse": first, "total_collapse": top}


def _renamed(geometry: Geometry, loss: str, *source: str) -> Geometry:
    return replace(geometry, loss=loss, source=source)

"""Class by class: norms, nearest angles and margins of a predicted geometry, at scales on which losses compare.

Margins are those of the logits WᵀM themselves, with no temperature or offset of the loss: what a test sample meets.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Float, Int
import numpy as np

from neuralcollapse.checks import positive_vector
from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.predict import Geometry

_ENTRIES_AT_ONCE = 2**22


def class_margins(geometry: Geometry) -> Float[np.ndarray, " k"]:
    """Margins z_c − max_{j≠c} z_j of each class's own samples, in units of the predicted logits, a head bias included.

    Parameters
    ----------
    geometry : Geometry

    Returns
    -------
    (k,) float64 array
        Times 1/δ for a label temperature δ in the limit of vanishing ridge; 0 where a class has merged with another.

    References
    ----------
    thrampoulidis2022; behnia2023; theory.md §3.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> class_margins(predict([10, 10, 1, 1], "ldt", delta=[2, 2, 1, 1])).round(12).tolist()
    [0.5, 0.5, 1.0, 1.0]
    """
    logits = geometry.logits
    first = logits.groups.first
    bias = np.zeros(first.size) if geometry.bias_values is None else geometry.bias_values[first]
    own = logits.diagonal_entries()[first] + bias
    return np.asarray((own - _largest_of_others(logits, bias))[logits.groups.index])


def margin_scale(geometry: Geometry) -> float:
    """What turns margins into shares of the balanced one: (k−1)√(n/k) / (‖W‖_F ‖H‖_F), H over all n samples.

    With it every class has margin 1 when the counts are equal; a rescaling of W or H changes nothing. NaN where W or H
    is zero.

    Parameters
    ----------
    geometry : Geometry

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> round(float(margin_scale(predict([5, 5, 5])) * class_margins(predict([5, 5, 5]))[0]), 12)
    1.0
    """
    counts = geometry.counts.values
    size = np.sqrt(geometry.classifiers.trace * float(counts @ geometry.embeddings.norms**2))
    return float((geometry.k - 1) * np.sqrt(counts.sum() / geometry.k) / size) if size > 0 else float("nan")


def nearest_cosines(gram: Gram, classes: Int[np.ndarray, " m"] | None = None) -> Float[np.ndarray, " m"]:
    """The cosine of each class's vector with its nearest other vector, max_{j≠c} cos(v_c, v_j).

    Parameters
    ----------
    gram : Gram
    classes : (m,) int array, optional
        All when left out.

    Returns
    -------
    (m,) float64 array
        NaN for a zero vector; zero vectors are nobody's nearest.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> nearest_cosines(predict([7, 7, 7]).classifiers).round(12).tolist()
    [-0.5, -0.5, -0.5]
    """
    index, sizes, first = gram.groups.index, gram.groups.sizes, gram.groups.first
    asked = np.arange(gram.k) if classes is None else np.asarray(classes)
    wanted, place = np.unique(index[asked], return_inverse=True)
    found = np.empty(wanted.size)
    step = max(1, _ENTRIES_AT_ONCE // first.size)
    for start in range(0, wanted.size, step):
        part = wanted[start:start + step]
        cosines = gram.cosines(first[part], first)
        alone = sizes[part] == 1
        pair = np.full(part.size, np.nan)
        pair[~alone] = [gram.cosines(members[:1], members[1:2])[0, 0] for members in
                        (np.flatnonzero(index == group)[:2] for group in part[~alone])]
        cosines[np.arange(part.size), part] = pair
        known = ~np.isnan(cosines)
        found[start:start + step] = np.where(known.any(1), np.where(known, cosines, -np.inf).max(1), np.nan)
    return found[place]


def mean_cosine(gram: Gram, chosen: Bool[np.ndarray, " k"]) -> float | None:
    """Mean cosine over pairs of different classes among the chosen ones, in O(k r).

    None for fewer than two of them, or where one is zero.

    Parameters
    ----------
    gram : Gram
    chosen : (k,) bool array

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> geometry = predict([10, 10, 1, 1])
    >>> round(mean_cosine(geometry.classifiers, geometry.counts.minority), 4)
    0.0794
    """
    m, norms = int(chosen.sum()), gram.norms
    if m < 2 or not (norms[chosen] > 0).all():
        return None
    x = np.zeros(gram.k)
    x[chosen] = 1 / norms[chosen]
    return float(np.clip((x @ (gram @ x[:, None])[:, 0] - m) / (m * (m - 1)), -1, 1))


def merging_ridges(counts: Any, weight: Any = None, delta: Any = None) -> Float[np.ndarray, " k"]:
    """λ = ω_c Δ_c √n_c from which a class merges with the others of its count and loss parameters.

    Exact for two or more classes that share n_c, ω_c and Δ_c (any offsets they share); the loss is a SUM over samples.

    Parameters
    ----------
    counts : ClassCounts or anything it is made from
    weight, delta : (k,) positive numbers, optional
        ω and Δ (or the label temperature δ); 1 when left out.

    Returns
    -------
    (k,) float64 array

    References
    ----------
    fang2021; theory.md §4.

    Examples
    --------
    >>> merging_ridges([9, 9, 4, 4]).tolist()
    [3.0, 3.0, 2.0, 2.0]
    """
    profile = ClassCounts.from_counts(counts)
    ridges = np.sqrt(profile.values)
    for name, vector in (("weight", weight), ("delta", delta)):
        if vector is not None:
            ridges = ridges * positive_vector(name, vector, profile.k)
    return ridges


def _largest_of_others(logits: DiagonalPlusLowRank, bias: Float[np.ndarray, " g"]) -> Float[np.ndarray, " g"]:
    """max_{i≠c} z_ic + b_i over one class c of each group."""
    sizes, core = logits.groups.sizes, logits.core
    g = sizes.size
    rows, columns = np.nonzero(core)
    if logits.basis is not None and rows.size == 1 and not bias.any():
        return _largest_of_rank_one(logits.basis[:, rows[0]], core[rows[0], columns[0]] * logits.basis[:, columns[0]],
                                    sizes)
    largest = np.empty(g)
    step = max(1, _ENTRIES_AT_ONCE // g)
    for start in range(0, g, step):
        part = np.arange(start, min(start + step, g))
        entries = (core[:, part] if logits.basis is None else logits.basis @ (core @ logits.basis[part].T)
                   ) + bias[:, None]
        alone = part[sizes[part] == 1]
        entries[alone, alone - start] = -np.inf
        largest[part] = entries.max(0)
    return largest


def _largest_of_rank_one(rows: Float[np.ndarray, " g"], columns: Float[np.ndarray, " g"],
                         sizes: Int[np.ndarray, " g"]) -> Float[np.ndarray, " g"]:
    """The same for entries u_i v_j, by the two extremes of u: linear in g, as the limit's logits are."""
    signed = np.where(columns >= 0, 1.0, -1.0)
    largest = np.empty(sizes.size)
    for sign in (1.0, -1.0):
        u = sign * rows
        top = int(np.argmax(u))
        rest = np.delete(u, top).max(initial=-np.inf) if sizes[top] == 1 else u[top]
        best = np.full(u.size, u[top])
        best[top] = rest
        here = signed == sign
        largest[here] = (best * np.abs(columns))[here]
    return largest

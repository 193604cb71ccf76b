"""Which geometry an optimiser prefers when the loss vanishes: the largest margin in the norm of its own steps.

Steepest descent in a norm maximises the margin in that norm (fan2025, for linear models; `theory.md` §5). On free W and
H = M Y, with logits Z = WᵀH = C Y, A = C D^{1/2} and margins C_cc − C_jc (1/δ_c of them for label temperatures):

    norm       optimiser (idealised)                bounded at 1         the problem it comes to
    nuclear    gradient descent, vanishing ridge    ½‖W‖² + ½‖H‖²        min ‖A‖_* at margins ≥ 1: SELI
    spectral   spectral descent (Muon)              ‖W‖₂, ‖H‖₂           min ‖A‖₂ at margins ≥ 1
    max        sign descent (Adam)                  max|W|, max|H|       min gauge of C in conv{uvᵀ : u, v ∈ {±1}^k}

Each `Geometry` has margins of exactly 1 at least, `objective` the norm that takes, and `margin` its inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
import warnings

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import NotConverged, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.groups import Groups, refine
from neuralcollapse.predict.geometry import Geometry, Setting, geometry_at
from neuralcollapse.predict.spectral import SpectralOptimum, block_singular_values, spectral_optimum
from neuralcollapse.predict.thresholds import no_thresholds
from neuralcollapse.registry import Registry

NORMS: Registry[Any] = Registry("norm")
"""Every norm whose largest margin is known: a function of a loss's limit, its temperatures and a tolerance."""

_CERTIFIED_BELOW = 1_024  # distinct classes up to which SELI's dual certificate, a dense SVD of them, is computed
_FREE = "unconstrained features, no head bias, zero training error"


def geometry_in_norm(counts: ClassCounts, loss: str, norm: str, at: Setting, parameters: Mapping[str, Any]) -> Geometry:
    """The geometry of the largest margin in `norm`: `predict` with its norm given.

    Parameters
    ----------
    counts : ClassCounts
    loss : str
        A registered loss of the cross-entropy family.
    norm : str
        "nuclear", "spectral" or "max".
    at : Setting
        Without ridge and bias.
    parameters : mapping
        The loss's own.

    Raises
    ------
    InvalidInput
        An unknown norm, and whatever the loss itself refuses.
    OutsideTheory
        A ridge, a bias, another loss, or temperatures that this norm's solution does not cover.

    References
    ----------
    fan2025; thrampoulidis2022, Theorem 1; theory.md §5.

    Examples
    --------
    >>> from neuralcollapse.predict import predict
    >>> for norm in ("nuclear", "spectral", "max"):
    ...     geometry = predict([10, 10, 1, 1], norm=norm)
    ...     print(norm, round(geometry.margin, 4), geometry.unique, geometry.classifiers.norms.round(3).tolist())
    nuclear 0.1537 True [1.472, 1.472, 1.042, 1.042]
    spectral 0.3162 False [1.54, 1.54, 1.54, 1.54]
    max 1.3333 True [0.866, 0.866, 0.866, 0.866]
    """
    largest_margin = NORMS[norm]
    if at.ridge is not None:
        raise OutsideTheory("the optimiser's norm decides where a vanishing ridge leads, a finite ridge leads to its "
                            f"own optimum, got ridge {at.ridge:g} and norm '{norm}': leave one of them out")
    limit = geometry_at(counts, loss, at, parameters)  # refuses a bias and bad parameters
    if limit.parameters is None:
        raise OutsideTheory(f"the optimiser's norm is known to matter for the cross-entropy family, got loss '{loss}': "
                            "ask for loss 'ce', or leave the norm out")
    return largest_margin.function(limit, limit.parameters.temperature, limit.parameters.by_label, at.tolerance)


@NORMS.register("nuclear", source="thrampoulidis2022")
def nuclear(limit: Geometry, delta: Float[np.ndarray, " k"] | None, by_label: bool, tolerance: float) -> Geometry:
    """Gradient descent, or a vanishing ridge: min ‖C D^{1/2}‖_* at margins ≥ 1, SELI and its kin, unique.

    The dual point of the certificate is the polar factor of A, with its signs and its spectral norm made feasible.
    """
    counts = limit.counts
    groups = counts.groups if delta is None else refine(counts.groups, delta)
    objective = limit.classifiers.trace  # (AAᵀ)^{1/2}
    gap = None
    if groups.sizes.size <= _CERTIFIED_BELOW:
        bound = _dual_of_seli(groups, counts.values[groups.first], None if delta is None else delta[groups.first],
                              by_label)
        gap = max(objective - bound, 0.0) / objective
    return replace(limit, objective=objective, gap=gap, norm="nuclear", margin=1 / objective, unique=True)


@NORMS.register("spectral", source="fan2025")
def spectral(limit: Geometry, delta: Float[np.ndarray, " k"] | None, by_label: bool, tolerance: float) -> Geometry:
    """Spectral descent (idealised Muon): min ‖C D^{1/2}‖₂ at margins ≥ 1. Never unique; shown with simplex classifiers.

    √n_max when two classes have n_max, else between √max((n_1 + n_2)/2, n_1(1 − 1/k)) and √n_1 (`spectral.py`). SELI
    has ‖A‖₂ ≤ √n_max too: where two classes have n_max it is another optimum, and this margin does not tell them apart.
    """
    if delta is not None and not by_label and (delta != delta[0]).any():
        raise OutsideTheory("the spectral norm's largest margin is known for label temperatures, not for class "
                            "temperatures: ask for loss 'ldt', or for norm 'nuclear'")
    counts = limit.counts
    groups = counts.groups if delta is None else refine(counts.groups, delta)
    n = counts.values[groups.first]
    found = spectral_optimum(groups.sizes, n if delta is None else n / delta[groups.first] ** 2, tolerance)
    if found.gap > tolerance:
        warnings.warn(f"norm 'spectral': relative duality gap {found.gap:.1e} instead of {tolerance:.1e}",
                      NotConverged, stacklevel=2)
    classifiers, embeddings, logits = _isometry(groups, n, found)
    return replace(limit, classifiers=classifiers, embeddings=embeddings, logits=logits, objective=found.norm,
                   gap=found.gap, norm="spectral", margin=1 / found.norm, unique=False, find_thresholds=no_thresholds,
                   source=(*limit.source, "fan2025"),
                   assumes=f"{_FREE}, d ≥ k − 1, steepest descent in the spectral norm (idealised Muon) on W and H, as "
                           "proved for linear models; many geometries have this margin, shown is one whose classifiers "
                           "are a simplex")


@NORMS.register("max", source="fan2025")
def largest_entry(limit: Geometry, delta: Float[np.ndarray, " k"] | None, by_label: bool, tolerance: float) -> Geometry:
    """Sign descent (idealised Adam): the largest margin of WᵀH/d with entries in [−1, 1], whatever the counts; unique.

    With d free these logits are the convex hull of {uvᵀ : u, v ∈ {±1}^k}, in which columns may repeat: counts drop out.
    Averaged over permutations of the classes the margin of uvᵀ is uᵀPv/(k − 1), largest at u = v with |Σu| ≤ 1. With K
    the even one of k and k + 1 that is K/(K − 1), and only one C attains it, (K I − 11ᵀ)/(K − 1): k corners of the
    simplex of K. Rows of bounded length (the norm γ₂, which relaxes signs) would allow k/(k − 1).
    """
    if delta is not None and (delta != 1).any():
        raise OutsideTheory("the max norm's largest margin is known without temperatures: leave delta out, or ask for "
                            "norm 'nuclear'")
    k, groups = limit.k, limit.counts.groups
    corners = k + k % 2
    frame = Gram(groups, np.ones(groups.sizes.size), np.array([[-1 / corners]]), np.ones((groups.sizes.size, 1)),
                 np.full(groups.sizes.size, 1 - 1 / corners))
    return replace(limit, classifiers=frame, embeddings=frame, logits=frame, objective=1 - 1 / corners, gap=0.0,
                   norm="max", margin=corners / (corners - 1), unique=True, balanced=False,
                   find_thresholds=no_thresholds, source=(*limit.source, "fan2025"),
                   assumes=f"{_FREE}, steepest descent in the largest entry (idealised Adam) on W and H, as proved "
                           f"for linear models, logits divided by d; attained when d is a multiple of {corners - 1} "
                           f"(given a Hadamard matrix of order {corners}) or of the number of ways to halve {corners} "
                           "classes, an upper bound at any d")


def _dual_of_seli(groups: Groups, n: Float[np.ndarray, " g"], delta: Float[np.ndarray, " g"] | None,
                  by_label: bool) -> float:
    """Σ Λ_jc of a feasible dual point: Λ ≥ 0 with ‖G‖₂ ≤ 1, G_jc = −δ_j Λ_jc/√n_c off the diagonal and eᵀG = 0."""
    m = groups.sizes.astype(np.float64)
    inverse = np.ones_like(n) if delta is None else 1 / delta
    e = np.ones_like(n) if by_label else inverse
    e = e / np.sqrt(m @ e**2)
    root = np.sqrt(n) * inverse
    # The polar factor of (I − eeᵀ) diag(root), between groups in orthonormal coordinates; inside them it is I − J/m.
    lengths = np.sqrt(m) * e
    left, _, right = np.linalg.svd(np.diag(root) - np.multiply.outer(lengths, lengths * root))
    between = (left[:, :-1] @ right[:-1]) / np.sqrt(np.multiply.outer(m, m)) - np.diag(1 / m)
    between = np.minimum(between, 0.0)
    # eᵀG = 0 gives the diagonal once the entries off it are feasible.
    rivals = between * m[:, None]
    np.fill_diagonal(rivals, between.diagonal() * (m - 1))
    own = -(e @ rivals) / e
    within, joint = block_singular_values(m, own, between)
    return float(m @ (root * own) / max(joint[0], within.max()))


def _isometry(groups: Groups, n: Float[np.ndarray, " g"], found: SpectralOptimum
              ) -> tuple[Gram, Gram, DiagonalPlusLowRank]:
    """G_W = σP, G_M = σD^{-1/2}(I − zzᵀ)D^{-1/2} and C = A D^{-1/2}, from AAᵀ = σ²P and AᵀA = σ²(I − zzᵀ)."""
    sigma, kind, g = found.norm, found.kind, groups.sizes.size
    k = groups.sizes.sum()
    classifiers = Gram(groups, np.full(g, sigma), np.array([[-sigma / k]]), np.ones((g, 1)),
                       np.full(g, sigma * (1 - 1 / k)))
    null = found.null[kind]
    embeddings = Gram(groups, sigma / n, np.array([[-sigma]]), (null / np.sqrt(n))[:, None],
                      sigma * (1 - null**2) / n)
    b = found.own.size
    member = np.eye(b)[kind]
    core = np.block([[np.zeros((b, b)), found.between], [np.zeros((b, 2 * b))]])
    own = found.own[kind] / np.sqrt(n)
    logits = DiagonalPlusLowRank(groups, own - found.between.diagonal()[kind] / np.sqrt(n), core,
                                 np.hstack([member, member / np.sqrt(n)[:, None]]), own)
    return classifiers, embeddings, logits

"""Geometries in closed form at any ridge: square loss, cross-entropy on non-negative features, contrastive, ETF."""

from __future__ import annotations

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.groups import Groups
from neuralcollapse.predict.geometry import GEOMETRIES, Geometry, Setting

_HEAD = "unconstrained features, no head bias"


@GEOMETRIES.register("mse", source="dang2023", parent=None, frame="orthogonal")
def square_loss(counts: ClassCounts, at: Setting) -> Geometry:
    """Square loss ½Σ‖z_i − e_{y_i}‖²: an orthogonal frame of lengths set by the count; classes vanish at λ = √n_c.

    With ζ_c = (1 − λ/√n_c)₊: Z = diag(ζ)Y, ‖w_c‖² = ζ_c√n_c, ‖μ_c‖² = ζ_c/√n_c for λ_W = λ_H (theory.md §5).
    """
    _no_bias(at, "square loss")
    ridge = at.ridge or 0.0
    groups, n = counts.groups, counts.values[counts.groups.first]
    zeta = np.maximum(1 - ridge / np.sqrt(n), 0.0)
    loss = groups.sizes @ (0.5 * n * (zeta - 1) ** 2 + ridge * np.sqrt(n) * zeta)
    return Geometry(counts, "mse", _diagonal(groups, zeta * np.sqrt(n)), _diagonal(groups, zeta / np.sqrt(n)),
                    _diagonal(groups, zeta), f"{_HEAD}, d ≥ k", ("dang2023",), at.ridge,
                    objective=None if at.ridge is None else float(loss),
                    find_thresholds=lambda _: _vanishing(n, np.sqrt(n)))


@GEOMETRIES.register("relu-ce", source="dang2024", parent=None, frame="orthogonal")
def nonnegative_cross_entropy(counts: ClassCounts, at: Setting) -> Geometry:
    """Cross-entropy on non-negative (ReLU) features: orthogonal class means, classifiers centred and scaled per class.

    With κ_c = λ√(n_c(k−1)/k) the logit gap is g_c = ln((k−1)(n_c/κ_c − 1)) where positive, ‖μ_c‖² = κ_c g_c/(λ n_c)
    for λ_W = λ_H (theory.md §5). As λ → 0 all gaps grow alike; the limit is given with gaps of 1.
    """
    _no_bias(at, "cross-entropy on non-negative features")
    k, groups, n = counts.k, counts.groups, counts.values[counts.groups.first]
    shape = np.sqrt(n * (k - 1) / k)  # κ_c/λ
    if at.ridge is None:
        gap, objective = np.ones_like(n), None
    else:
        kappa = at.ridge * shape
        gap = np.log(np.maximum((k - 1) * (n / kappa - 1), 1.0))
        objective = float(groups.sizes @ (n * np.log1p((k - 1) * np.exp(-gap)) + kappa * gap))
    means2 = shape * gap / n
    length2 = np.divide(gap**2, means2, out=np.zeros_like(gap), where=means2 > 0)  # w ∝ P diag(g/‖μ‖)
    mean = float(groups.sizes @ length2) / k**2
    classifiers = Gram.from_blocks(groups, length2 * (1 - 2 / k) + mean,
                                   mean - np.add.outer(length2, length2) / k)
    logits = DiagonalPlusLowRank.from_blocks(groups, gap * (1 - 1 / k),
                                             -np.repeat(gap[None, :] / k, gap.size, axis=0))
    return Geometry(counts, "relu-ce", classifiers, _diagonal(groups, means2), logits,
                    f"{_HEAD}, non-negative features, d ≥ k", ("dang2024",), at.ridge, objective=objective,
                    find_thresholds=lambda _: _vanishing(n, shape), balanced=False)


@GEOMETRIES.register("scl", source="kini2023", parent=None, frame="orthogonal")
def supervised_contrastive(counts: ClassCounts, at: Setting) -> Geometry:
    """Supervised contrastive loss on non-negative (ReLU) features: an orthogonal frame of equal lengths.

    There is no head in the loss; `classifiers` are those of the nearest class mean.
    """
    if at.ridge is not None or at.bias_ridge is not None:
        raise OutsideTheory("the supervised contrastive geometry is known for normalised features, without ridge or "
                            "bias: leave both out")
    frame = _diagonal(counts.groups, np.ones(counts.groups.sizes.size))
    return Geometry(counts, "scl", frame, frame, frame, "non-negative unit features, d ≥ k, batches in which every "
                    "pair of samples meets", ("kini2023",), balanced=False)


@GEOMETRIES.register("etf", source=("papyan2020", "zhu2021"), parent=None)
def simplex(counts: ClassCounts, at: Setting) -> Geometry:
    """The simplex equiangular tight frame of balanced classes, whatever the counts."""
    if at.ridge is not None or at.bias_ridge is not None:
        raise OutsideTheory("the simplex ETF has no ridge or bias: leave both out, or ask for loss 'ce'")
    k, g = counts.k, counts.groups.sizes.size
    frame = Gram.from_blocks(counts.groups, np.full(g, 1 - 1 / k), np.full((g, g), -1 / k))
    return Geometry(counts, "etf", frame, frame, frame, "balanced classes", ("papyan2020", "zhu2021"), balanced=False)


def _diagonal(groups: Groups, own: Float[np.ndarray, " g"]) -> Gram:
    return Gram.from_blocks(groups, own, np.zeros((own.size, own.size)))


def _vanishing(n: Float[np.ndarray, " g"], threshold: Float[np.ndarray, " g"]) -> dict[str, float | None]:
    """λ at which the smallest class vanishes, and at which the largest does."""
    return {"minority_collapse": float(threshold.min()) if n.min() < n.max() else None,
            "total_collapse": float(threshold.max())}


def _no_bias(at: Setting, what: str) -> None:
    if at.bias_ridge is not None:
        raise OutsideTheory(f"the geometry of {what} is known without a head bias only: leave the bias out, or use "
                            "loss 'ce', whose bias may be free or have a ridge")

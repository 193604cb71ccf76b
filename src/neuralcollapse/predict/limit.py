"""Vanishing ridge: SELI and its kin in closed form and linear time.

Every loss of `theory.md` §3 interpolates Ẑ = (I − eeᵀ) diag(1/δ) Y with a unit vector e. With effective
counts u_c = n_c/δ_c² and A = (I − eeᵀ) diag(√u),

    G_W = (AAᵀ)^{1/2},    G_M = D^{-1/2} (AᵀA)^{1/2} D^{-1/2},    AᵀA = diag(u) − (√u∘e)(√u∘e)ᵀ

Resolvents of a diagonal minus rank one are known (Sherman–Morrison), so the quadrature of
`quadrature.py` makes both square roots a diagonal plus a low-rank part.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.groups import Groups
from neuralcollapse.predict.quadrature import square_root_rule
from neuralcollapse.predict.symmetry import LossParameters

# Up to this many groups the low-rank part is stored as its g × g entries, formed without cancellation.
_ENTRIES_BELOW = 64


@dataclass(frozen=True)
class LimitGrams:
    """The three matrices of a vanishing-ridge geometry."""

    classifiers: Gram
    embeddings: Gram
    logits: DiagonalPlusLowRank


def interpolating_grams(counts: ClassCounts, loss: LossParameters | None = None) -> LimitGrams:
    """G_W, G_M and the class logits of the embeddings that interpolate (I − eeᵀ) diag(1/δ).

    Parameters
    ----------
    counts : ClassCounts
    loss : LossParameters, optional
        Its temperatures δ give e: the uniform direction for label temperatures, 1/δ for class temperatures.

    Returns
    -------
    LimitGrams
        In the scale of the max-margin problem (margins 1/δ_y or 1, λ_W = λ_H).

    References
    ----------
    thrampoulidis2022, Theorem 1; behnia2023; theory.md §2–3.
    """
    loss = LossParameters(temperature=loss.temperature, by_label=loss.by_label) if loss else LossParameters()
    groups = loss.groups(counts)
    n = counts.values[groups.first]
    delta = np.ones_like(n) if loss.temperature is None else loss.temperature[groups.first]
    e2 = np.ones_like(n) if loss.by_label else delta**-2.0
    e2 = e2 / (groups.sizes @ e2)
    nodes, weights = square_root_rule(float((n / delta**2).min()), float((n / delta**2).max()))
    root = _SquareRoot(groups, n / delta**2, e2, nodes, weights)
    embeddings = _embeddings(root, n)
    e = np.sqrt(e2)
    logits = DiagonalPlusLowRank(groups, 1 / delta, np.array([[0.0, -1.0], [0.0, 0.0]]),
                                 np.column_stack([e, e / delta]),
                                 own_diagonal=_sum_of_others(groups, e2, np.ones_like(e2))[1] / delta)
    return LimitGrams(root.outer, embeddings, logits)


class _SquareRoot:
    """Both square roots of A = (I − eeᵀ) diag(√u): `outer` = (AAᵀ)^{1/2} and `inner` = (AᵀA)^{1/2}.

    With x = u/(u + t²) and y = 1 − x per node and δ = Σ e²y, the integrands are
    diag(x) − eeᵀ + (ey)(ey)ᵀ/δ for the outer root and diag(x) − u^{1/2}(ey)(ey)ᵀu^{1/2}/(δt²) for the inner one.
    """

    def __init__(self, groups: Groups, u: np.ndarray, e2: np.ndarray, nodes: np.ndarray, weights: np.ndarray):
        self.groups, self.u, self.e2 = groups, u, e2
        self.nodes, self.weights = nodes, weights
        g = u.size
        self.as_entries = g <= max(_ENTRIES_BELOW, nodes.size + 1)
        self.outer_diagonal, self.inner_diagonal = np.zeros(g), np.zeros(g)
        r = g if self.as_entries else nodes.size + 1
        self.outer_core, self.inner_core = np.zeros((r, r)), np.zeros((r, r))
        self.basis = np.sqrt(e2)[:, None] if self.as_entries else np.empty((g, r), order="F")
        self.basis[:, 0] = np.sqrt(e2)
        _, rest = _sum_of_others(groups, e2, np.ones(g))
        for j, (t2, weight) in enumerate(zip(nodes, weights, strict=True)):
            self._add_node(j, t2, weight, rest)

    def _add_node(self, j: int, t2: float, weight: float, rest: np.ndarray) -> None:
        x = self.u / (self.u + t2)
        y = t2 / (self.u + t2)
        delta, other_y = _sum_of_others(self.groups, self.e2, y)
        mean_x, other_x = _sum_of_others(self.groups, self.e2, x)
        # The diagonals as sums of positive terms: each norm keeps its relative accuracy at any spread.
        self.inner_diagonal += weight * x * other_y / delta
        self.outer_diagonal += weight * (rest * x * other_y + self.e2 * y * other_x) / delta
        if self.as_entries:
            self._add_entries(x, y, t2, weight / delta, delta, mean_x)
        else:
            self._add_column(j + 1, x, y, t2, weight / delta, delta, mean_x)

    def _add_entries(self, x: np.ndarray, y: np.ndarray, t2: float, scale: float, delta: float,
                     mean_x: float) -> None:
        e = self.basis[:, 0]
        ee = np.multiply.outer(e, e)
        # y_i y_j − δ, written in the smaller of x and y.
        excess = (np.multiply.outer(y, y) - delta if mean_x > 0.5
                  else mean_x - np.add.outer(x, x) + np.multiply.outer(x, x))
        self.outer_core += scale * ee * excess
        side = np.sqrt(self.u) * e * y
        self.inner_core -= scale / t2 * np.multiply.outer(side, side)

    def _add_column(self, j: int, x: np.ndarray, y: np.ndarray, t2: float, scale: float, delta: float,
                    mean_x: float) -> None:
        small = y if mean_x > 0.5 else x
        np.multiply(self.basis[:, 0], small, out=self.basis[:, j])
        self.outer_core[j, j] = scale
        self.inner_core[j, j] = -scale / t2
        if mean_x > 0.5:
            self.outer_core[0, 0] -= scale * delta
        else:  # (ey)(ey)ᵀ = (e − ex)(e − ex)ᵀ
            self.outer_core[0, 0] += scale * mean_x
            self.inner_core[0, 0] -= scale / t2
            self.outer_core[0, j] = self.outer_core[j, 0] = -scale
            self.inner_core[0, j] = self.inner_core[j, 0] = scale / t2

    @property
    def outer(self) -> Gram:
        """(AAᵀ)^{1/2}."""
        if self.as_entries:
            return Gram.from_blocks(self.groups, self.outer_diagonal, self.outer_core)
        return Gram(self.groups, np.sqrt(self.u), self.outer_core, self.basis, self.outer_diagonal)


def _embeddings(root: _SquareRoot, n: Float[np.ndarray, " g"]) -> Gram:
    """D^{-1/2} (AᵀA)^{1/2} D^{-1/2}; with δ = 1 it shares the (g, r) basis of the classifiers."""
    own = root.inner_diagonal / n
    if root.as_entries:
        scale = np.sqrt(np.multiply.outer(n, n))
        return Gram.from_blocks(root.groups, own, root.inner_core / scale)
    side = np.sqrt(root.u / n)
    basis = root.basis if (side == 1).all() else root.basis * side[:, None]
    return Gram(root.groups, np.sqrt(root.u) / n, root.inner_core, basis, own)


def _sum_of_others(groups: Groups, e2: Float[np.ndarray, " g"],
                   values: Float[np.ndarray, " g"]) -> tuple[float, Float[np.ndarray, " g"]]:
    """Σ_c e_c² v_c, and for every class the same sum over the other classes, without cancellation."""
    single = e2 * values
    terms = groups.sizes * single
    total = float(terms.sum())
    others = total - single
    top = int(np.argmax(single))
    if groups.sizes[top] == 1:  # the one term that can dominate the sum
        terms[top] = 0.0
        others[top] = terms.sum()
    return total, others

"""The finite-ridge problem reduced to one unknown per pair of class groups (`theory.md` §4).

Classes with the same count and loss parameters are interchangeable, so the optimal class logits C have the form
a_j on the diagonal, b_j inside group j, c_ij from group j's columns to group i's rows. In orthonormal coordinates of
A = C D^{1/2} these are

    T (g, g):  T_jj = (a_j + (m_j − 1) b_j)√n_j,   T_ij = √(m_i m_j) c_ij √n_j
    p (g,):    p_j = √(m_j − 1) (a_j − b_j) √n_j,

so that ‖A‖_F² = ‖T‖_F² + ‖p‖² and ‖A‖_* = ‖T‖_* + Σ √(m_j − 1)|p_j|: g² + g unknowns whatever k is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from neuralcollapse.counts import ClassCounts
from neuralcollapse.groups import Groups, refine


@dataclass(frozen=True, eq=False)
class LossParameters:
    """ω, δ (or Δ) and ι of a parameterised cross-entropy, None where neutral (no array over a million classes then).

    Attributes
    ----------
    weight, temperature, offset : (k,) arrays or None
    by_label : bool
        Whether δ_y multiplies all logits of class y's samples (LDT) or Δ_c logit c of every sample (CDT, VS).
    """

    weight: Float[np.ndarray, " k"] | None = None
    temperature: Float[np.ndarray, " k"] | None = None
    offset: Float[np.ndarray, " k"] | None = None
    by_label: bool = False

    @property
    def neutral(self) -> bool:
        """Whether this is plain cross-entropy."""
        return self.weight is None and self.temperature is None and self.offset is None

    def groups(self, counts: ClassCounts) -> Groups:
        """Classes that are interchangeable: equal in count and in every parameter."""
        given = (self.weight, self.temperature, self.offset)
        return refine(counts.groups, *(column for column in given if column is not None))


def reduce_problem(counts: ClassCounts, loss: LossParameters,
                   bias_ridge: float | None) -> tuple[Groups, ReducedProblem]:
    """Group interchangeable classes and write the problem over the groups.

    Parameters
    ----------
    counts : ClassCounts
    loss : LossParameters
    bias_ridge : float or None
        λ_b of the head's bias; 0 leaves it free, None means there is no bias.
    """
    groups = loss.groups(counts)
    first, sizes = groups.first, groups.sizes.astype(np.float64)
    weight, delta = (np.ones(sizes.size) if column is None else column[first]
                     for column in (loss.weight, loss.temperature))
    offset = np.zeros(sizes.size) if loss.offset is None else loss.offset[first]
    slope = np.repeat(delta[:, None], delta.size, axis=1)
    null = np.sqrt(sizes) / (1.0 if loss.by_label else delta)
    problem = ReducedProblem(sizes, counts.values[first], weight, offset, slope.T.copy() if loss.by_label else slope,
                             null / np.linalg.norm(null), bias_ridge)
    return groups, problem


class Point(NamedTuple):
    """A point, a direction or a gradient of the reduced problem; leading axes are batches."""

    between: Float[np.ndarray, "*batch g g"]
    within: Float[np.ndarray, "*batch g"]
    bias: Float[np.ndarray, "*batch g"]

    def dot(self, other: Point) -> float:
        """Inner product."""
        return float(np.vdot(self.between, other.between) + np.vdot(self.within, other.within)
                     + np.vdot(self.bias, other.bias))

    def plus(self, other: Point, scale: float) -> Point:
        """Self + scale · other."""
        return Point(self.between + scale * other.between, self.within + scale * other.within,
                     self.bias + scale * other.bias)


class Probabilities(NamedTuple):
    """Softmax of each group's samples off the label; the label's own is 1 − `off`'s column sum, never formed."""

    losses: Float[np.ndarray, " g"]
    off: Float[np.ndarray, "g g"]
    total: Float[np.ndarray, " g"]


@dataclass(frozen=True, eq=False)
class ReducedProblem:
    """Σ_c n_c ω_c CE(adjusted logits, c) over groups of interchangeable classes.

    Attributes
    ----------
    sizes : (g,) array
        m_j, classes per group.
    counts, weight, offset : (g,) arrays
        n_j, ω_j, ι_j.
    slope : (g, g) array
        What multiplies the logit of a class of group i for samples of group j: Δ_i (class temperature) or
        δ_j (label temperature).
    null : (g,) array
        Unit vector that T's columns can be shifted along without changing a softmax.
    bias_ridge : float or None
        λ_b; 0 is a free bias, None no bias.
    """

    sizes: Float[np.ndarray, " g"]
    counts: Float[np.ndarray, " g"]
    weight: Float[np.ndarray, " g"]
    offset: Float[np.ndarray, " g"]
    slope: Float[np.ndarray, "g g"]
    null: Float[np.ndarray, " g"]
    bias_ridge: float | None

    @property
    def g(self) -> int:
        """Number of groups."""
        return int(self.sizes.size)

    @cached_property
    def repeated(self) -> np.ndarray:
        """(g,) bool: groups of two or more classes, which have a `within` unknown."""
        return self.sizes > 1

    @cached_property
    def within_slope(self) -> Float[np.ndarray, " g"]:
        """√(m_j − 1): what `within` costs per unit in the nuclear norm."""
        return np.sqrt(self.sizes - 1)

    def zero(self) -> Point:
        """The origin."""
        return Point(np.zeros((self.g, self.g)), np.zeros(self.g), np.zeros(self.g))

    # -- logits and back ----------------------------------------------------------------------------

    def probabilities(self, point: Point) -> Probabilities:
        """Losses and off-label probabilities, to relative precision however small they are."""
        exponents = self.differences(point) + self._log_odds
        top = np.maximum(exponents.max(axis=0), 0.0)
        scaled = np.exp(exponents - top)
        sums = scaled.sum(axis=0)
        # log(1 + Σ e^x), either by log1p or about the largest exponent.
        denominator = np.exp(-top) + sums
        losses = np.where(top > 0, top + np.log(denominator), np.log1p(sums))
        off = scaled / denominator
        return Probabilities(losses, off, off.sum(axis=0))

    def objective(self, point: Point, ridge: float) -> float:
        """Loss and λ times the nuclear norm, without the bias's own ridge."""
        norm = np.linalg.norm(point.between, "nuc") + self.within_slope @ np.abs(point.within)
        return float(self.mass @ self.probabilities(point).losses + ridge * norm)

    def differences(self, point: Point) -> Float[np.ndarray, "*batch g g"]:
        """Adjusted logit of a class of group i (another one, if i = j) minus that of the label, offsets left out."""
        own, same = self._own_and_same(point)
        logits = point.between * self._between_scale
        logits[..., self._diagonal, self._diagonal] = same
        logits += point.bias[..., :, None]
        return self.slope * logits - (self._own_slope * (own + point.bias))[..., None, :]

    def pull_back(self, off: Float[np.ndarray, "*batch g g"]) -> Point:
        """The adjoint of `differences`: the gradient of a function from its gradient in the differences."""
        pushed = self.slope * off
        own = self._own_slope * off.sum(axis=-2)
        bias = pushed.sum(axis=-1) - own
        between = pushed * self._between_scale
        alpha, beta = -own * self._own_scale, pushed[..., self._diagonal, self._diagonal] * self._same_scale
        c, s = self._rotation
        between[..., self._diagonal, self._diagonal] = c * alpha + s * beta
        return Point(between, s * alpha - c * beta, bias if self.bias_ridge is not None else np.zeros_like(bias))

    def from_differences(self, differences: Float[np.ndarray, "g g"]) -> Point:
        """The point without bias whose `differences` are these, with the free part of each column removed."""
        logits = differences / self.slope
        between = logits / self._between_scale
        c, s = self._rotation
        same = logits.diagonal() * self.repeated / np.where(self.repeated, self._same_scale, 1.0)
        between[self._diagonal, self._diagonal] = s * same
        return Point(self.project(between), -c * same, np.zeros(self.g))

    @property
    def prior(self) -> tuple[Float[np.ndarray, "g g"], Float[np.ndarray, " g"]]:
        """Probability of one wrong class of group i, and of the label, for samples of group j at zero logits."""
        scaled = np.exp(self.offset[:, None] - self.offset[None, :])
        total = 1 + self.wrong_total(scaled)
        return scaled / total, 1 / total

    def wrong_total(self, share: Float[np.ndarray, "g g"]) -> Float[np.ndarray, " g"]:
        """Sum over all wrong classes of a number given per class."""
        return (share * self._multiplicity).sum(axis=0)

    def gradient(self, probabilities: Probabilities) -> Point:
        """Gradient of the loss part."""
        return self.pull_back(self.mass * probabilities.off)

    def curvature(self, probabilities: Probabilities, direction: Point) -> Point:
        """Hessian of the loss part times a direction (or a batch of them)."""
        change = self.differences(direction)
        off = probabilities.off
        return self.pull_back(self.mass * off * (change - (off * change).sum(axis=-2, keepdims=True)))

    @cached_property
    def jacobian(self) -> Float[np.ndarray, "g g h"]:
        """For each column j the matrix from (T_·j, p_j) to the differences of group j's samples, h = g + 1."""
        g = self.g
        units = np.eye(g)
        spread = np.repeat(units[:, :, None], g, axis=2)  # row i of every column at once: columns do not mix
        batch = np.concatenate([spread, np.zeros((1, g, g))])
        within = np.concatenate([np.zeros((g, g)), np.ones((1, g))])
        return self.differences(Point(batch, within, np.zeros((g + 1, g)))).transpose(2, 1, 0).copy()

    # -- approximate inverse ------------------------------------------------------------------------

    def inverse_curvature(self, probabilities: Probabilities, residual: Point, shift: float) -> Point:
        """The inverse of the loss's Hessian in (T, p), column by column, for residuals orthogonal to its null space.

        A column's Hessian is diag(q) − qqᵀ scaled, whose inverse on the complement of its null vector divides by q;
        `shift` is added to q.
        """
        c, s = self._rotation
        diagonal = residual.between[self._diagonal, self._diagonal]
        alpha, beta = c * diagonal + s * residual.within, s * diagonal - c * residual.within
        q = self.weight * self.slope**2 * probabilities.off / np.maximum(self._multiplicity, 1) + shift
        q[self._diagonal[~self.repeated], self._diagonal[~self.repeated]] = 1.0  # no such unknown
        own = self.weight * self._own_slope**2 * (1 - probabilities.total) + shift
        between = residual.between / q
        alpha, beta = alpha / own, beta / q[self._diagonal, self._diagonal]
        between[self._diagonal, self._diagonal] = c * alpha + s * beta
        return Point(self.project(between), s * alpha - c * beta, residual.bias)

    def bias_curvature(self, probabilities: Probabilities) -> Float[np.ndarray, "g g"]:
        """Hessian in the bias, made regular along the shift that changes nothing."""
        units = np.eye(self.g)
        batch = Point(np.zeros((self.g, self.g, self.g)), np.zeros((self.g, self.g)), units)
        hessian = self.curvature(probabilities, batch).bias
        assert self.bias_ridge is not None
        shift = self.bias_null
        return hessian + np.diag(self.bias_ridge * self.sizes) + np.multiply.outer(shift, shift) * np.trace(hessian)

    # -- the spaces ---------------------------------------------------------------------------------

    def project(self, between: Float[np.ndarray, "*batch g g"]) -> Float[np.ndarray, "*batch g g"]:
        """T without its part along the null vector."""
        return between - self.null[:, None] * (self.null @ between)[..., None, :]

    @cached_property
    def bias_null(self) -> Float[np.ndarray, " g"]:
        """Unit vector of the bias shift that changes no softmax."""
        shift = self.null / np.sqrt(self.sizes)
        return shift / np.linalg.norm(shift)

    def project_bias(self, bias: Float[np.ndarray, "*batch g"]) -> Float[np.ndarray, "*batch g"]:
        """The bias with its free shift removed (Σ over classes of b along it is 0)."""
        shift = self.bias_null
        along = (bias @ (self.sizes * shift)) / (self.sizes @ shift**2)
        return bias - along[..., None] * shift

    # -- constants ----------------------------------------------------------------------------------

    @cached_property
    def mass(self) -> Float[np.ndarray, " g"]:
        """n_j m_j ω_j: the weight of group j's samples in the loss."""
        return self.counts * self.sizes * self.weight

    @cached_property
    def _diagonal(self) -> np.ndarray:
        return np.arange(self.g)

    @cached_property
    def _multiplicity(self) -> Float[np.ndarray, "g g"]:
        """How many wrong classes of group i a sample of group j has."""
        many = np.repeat(self.sizes[:, None], self.g, axis=1)
        many[self._diagonal, self._diagonal] = self.sizes - 1
        return many

    @cached_property
    def _log_odds(self) -> Float[np.ndarray, "g g"]:
        exponents = self.log_multiplicity + self.offset[:, None] - self.offset[None, :]
        exponents[self._diagonal[~self.repeated], self._diagonal[~self.repeated]] = -np.inf
        return exponents

    @cached_property
    def log_multiplicity(self) -> Float[np.ndarray, "g g"]:
        """Logarithm of how many wrong classes of group i a sample of group j has, 0 where there is none."""
        return np.log(np.maximum(self._multiplicity, 1))

    @cached_property
    def _own_slope(self) -> Float[np.ndarray, " g"]:
        return self.slope.diagonal().copy()

    @cached_property
    def _between_scale(self) -> Float[np.ndarray, "g g"]:
        return 1 / np.sqrt(np.multiply.outer(self.sizes, self.sizes * self.counts))

    @cached_property
    def _own_scale(self) -> Float[np.ndarray, " g"]:
        return 1 / np.sqrt(self.sizes * self.counts)

    @cached_property
    def _same_scale(self) -> Float[np.ndarray, " g"]:
        return self._own_scale / np.sqrt(np.maximum(self.sizes - 1, 1)) * self.repeated

    @cached_property
    def _rotation(self) -> tuple[np.ndarray, np.ndarray]:
        return np.sqrt(1 / self.sizes), np.sqrt(1 - 1 / self.sizes)

    def _own_and_same(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the label and of another class of its group, from T_jj and p_j by a rotation."""
        c, s = self._rotation
        diagonal = point.between[..., self._diagonal, self._diagonal]
        return ((c * diagonal + s * point.within) * self._own_scale,
                (s * diagonal - c * point.within) * self._same_scale)

"""Finite ridge: min over C (and b) of Σ_c n_c ω_c CE(adjusted logits, c) + λ‖C D^{1/2}‖_*, with a certificate.

Newton's method on the manifold of matrices of the optimum's rank, where the nuclear norm is smooth. Its linear
systems are solved by conjugate gradients preconditioned with the loss's own Hessian, which is diagonal but for rank
one in each column; directions whose singular value would turn negative are dropped, and added again while the
dual is violated there. Whatever the iteration did, the duality gap is computed from the returned point alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from scipy.special import xlogy

from neuralcollapse.predict.dense_newton import Frame, newton_direction
from neuralcollapse.predict.symmetry import Point, Probabilities, ReducedProblem

_ITERATIONS = 200
_RESOLUTION = 64 * np.finfo(float).eps  # relative change of the objective that can still be seen
_IDLE = 6  # steps without one after which nothing more is to be had
_HURRY = 1.05  # a dual violated by this factor is mended before the current rank is solved
_LONGEST = 2.0  # largest change of a logit in one step: where a softmax saturates, Newton's own is far too long
_DENSE_GROUPS = 12  # up to here a Newton system is formed and solved densely
_TINY = 1e-300


@dataclass(frozen=True)
class Solution:
    """A point with its certificate.

    Attributes
    ----------
    point : Point
    objective : float
        Loss part + λ‖A‖_* (+ λ_b/2‖b‖²) at the point, summed over samples.
    gap : float
        (objective − dual value)/objective ≥ relative suboptimality, from the point alone.
    rank : int
        Rank of the between-group part.
    iterations : int
    """

    point: Point
    objective: float
    gap: float
    rank: int
    iterations: int


class _State(NamedTuple):
    """Everything known at a point."""

    point: Point
    left: Float[np.ndarray, "g r"]
    singular: Float[np.ndarray, " r"]
    right: Float[np.ndarray, "g r"]
    probabilities: Probabilities
    objective: float


def solve(problem: ReducedProblem, ridge: float, tolerance: float, start: Point) -> Solution:
    """Minimise from `start` until the certified relative gap is at most `tolerance` or no step helps.

    Parameters
    ----------
    problem : ReducedProblem
    ridge : float
        λ > 0, loss summed over samples.
    tolerance : float
        Relative duality gap asked for.
    start : Point
        Where to begin; its rank is taken as the first guess.

    Returns
    -------
    Solution
        With the gap it reached, which the caller compares with what was asked.
    """
    collapsed = ~problem.repeated | (ridge >= within_thresholds(problem))
    solver = _Newton(problem, ridge, collapsed)
    state = solver.evaluate(start.between, np.where(collapsed, 0.0, start.within), start.bias)
    best = state, solver.certificate(state)
    idle = iterations = 0
    while best[1] > tolerance and idle < _IDLE and iterations < _ITERATIONS:
        following = solver.step(state)
        if following is None:
            break
        iterations += 1
        idle = idle + 1 if state.objective - following.objective < _RESOLUTION * abs(state.objective) else 0
        state = following
        best = min(best, (state, solver.certificate(state)), key=lambda pair: pair[1])
    state, gap = best
    return Solution(state.point, state.objective, max(gap, 0.0), state.singular.size, iterations)


def within_thresholds(problem: ReducedProblem) -> Float[np.ndarray, " g"]:
    """λ from which a group of equal classes is merged: ω_j Δ_j √n_j (theory.md §4)."""
    return problem.weight * problem.slope.diagonal() * np.sqrt(problem.counts)


class _Newton:
    """Steps of Newton's method at one ridge."""

    def __init__(self, problem: ReducedProblem, ridge: float, collapsed: np.ndarray):
        self.problem, self.ridge = problem, ridge
        self.active = ~collapsed
        self.slope = np.where(self.active, ridge, 0.0) * problem.within_slope
        self.has_bias = problem.bias_ridge is not None

    # -- values -------------------------------------------------------------------------------------

    def evaluate(self, between: np.ndarray, within: np.ndarray, bias: np.ndarray, rank: int | None = None,
                 polar: np.ndarray | None = None) -> _State:
        """The state at a point, cut to `rank` and to directions that `polar` has not turned against."""
        problem = self.problem
        left, singular, right = np.linalg.svd(problem.project(between))
        # Rounding of a rank that has gone, beside the largest value or beside logits of 1: exactly zero.
        keep = singular > 1e-13 * max(singular[0], float(np.sqrt(problem.counts.max())))
        keep[problem.g - 1:] = False
        if rank is not None:
            keep[rank:] = False
        if polar is not None:
            keep &= np.einsum("ij,ij->j", left, polar @ right.T) > 0
        left, singular, right = left[:, keep], singular[keep], right[keep].T
        point = Point((left * singular) @ right.T, within, problem.project_bias(bias) if self.has_bias else bias)
        probabilities = problem.probabilities(point)
        penalty = self.ridge * singular.sum() if singular.size else 0.0
        objective = float(problem.mass @ probabilities.losses + penalty + self.slope @ within)
        if problem.bias_ridge:
            objective += 0.5 * problem.bias_ridge * float(problem.sizes @ point.bias**2)
        return _State(point, left, singular, right, probabilities, objective)

    def certificate(self, state: _State) -> float:
        """Relative duality gap: θ = Γ·min(1, λ/‖Γ‖₂) is dual feasible, and its conjugate bounds the optimum below."""
        problem, (_, off, total) = self.problem, state.probabilities
        gradient = problem.gradient(state.probabilities)
        within = np.abs(gradient.within[problem.repeated]) / problem.within_slope[problem.repeated]
        size = max(np.linalg.norm(gradient.between, 2), within.max(initial=0.0))
        s = min(1.0, self.ridge / size) if size > 0 else 1.0
        # Conjugate of the scaled cross-entropy: q = s·p off the label and 1 − s·Σp on it, minus the offsets' part.
        entropy = xlogy(s * off, s * off) - s * off * problem.log_multiplicity
        offsets = s * off * (problem.offset[:, None] - problem.offset[None, :])
        remainder = 1 - s * total
        negative = np.where(remainder > 0, remainder * np.log1p(-np.minimum(s * total, 1 - 1e-16)), 0.0)
        conjugate = float(problem.mass @ (entropy.sum(axis=0) + negative - offsets.sum(axis=0)))
        gap = state.objective + conjugate + self._bias_conjugate(state, s * gradient.bias)
        return gap / max(abs(state.objective), _TINY)

    def _bias_conjugate(self, state: _State, slack: np.ndarray) -> float:
        """What the bias adds to the conjugate; a free bias must be stationary, and what is left is charged in full."""
        if not self.has_bias:
            return 0.0
        if self.problem.bias_ridge:
            return 0.5 * float(np.sum(slack**2 / self.problem.sizes)) / self.problem.bias_ridge
        reach = 2 * np.abs(state.point.bias).max() + 10
        return float(np.abs(slack).sum() * reach)

    # -- one step -----------------------------------------------------------------------------------

    def step(self, state: _State) -> _State | None:
        """A Newton step on the current rank, or a step to a higher rank where the dual is violated."""
        gradient = self.problem.gradient(state.probabilities)
        tangent = self._riemannian(state, gradient)
        grown = self._grow(state, gradient, 1 + 1e-12 if self._settled(state, tangent) else _HURRY)
        if grown is not None:
            return grown
        direction = self._newton_direction(state, gradient, tangent)
        slope = direction.dot(tangent)
        if slope >= 0:
            direction, slope = Point(-tangent.between, -tangent.within, -tangent.bias), -tangent.dot(tangent)
        return self._search(state, direction, slope)

    def _riemannian(self, state: _State, gradient: Point) -> Point:
        """Gradient of the whole objective along the manifold."""
        between = self._tangent(state, gradient.between) + self.ridge * state.left @ state.right.T
        within = np.where(self.active, gradient.within + self.slope, 0.0)
        bias = gradient.bias
        if self.problem.bias_ridge:
            bias = bias + self.problem.bias_ridge * self.problem.sizes * state.point.bias
        return Point(between, within, bias)

    def _tangent(self, state: _State, ambient: np.ndarray) -> np.ndarray:
        """Projection onto the tangent space of the manifold of this rank."""
        ambient = self.problem.project(ambient)
        if state.singular.size == self.problem.g - 1:
            return ambient
        if state.singular.size == 0:
            return np.zeros_like(ambient)
        left, right = state.left, state.right
        rows = left @ (left.T @ ambient)
        rest = ambient - rows
        return rows + (rest @ right) @ right.T

    def _settled(self, state: _State, tangent: Point) -> bool:
        """Whether the current rank is solved well enough to look beyond it."""
        if state.singular.size == 0:
            return True
        return bool(np.linalg.norm(tangent.between) < 1e-2 * self.ridge * np.sqrt(state.singular.size))

    def _normal(self, state: _State, gradient: Point) -> np.ndarray:
        return self.problem.project(gradient.between) - self._tangent(state, gradient.between)

    def _grow(self, state: _State, gradient: Point, factor: float) -> _State | None:
        """Open the directions in which the dual constraint ‖Γ‖₂ ≤ λ is violated by more than `factor`."""
        if state.singular.size >= self.problem.g - 1:
            return None
        left, sizes, right = np.linalg.svd(self._normal(state, gradient))
        beyond = sizes > self.ridge
        if sizes[0] <= self.ridge * factor:
            return None
        opened = (left[:, beyond] * (sizes[beyond] - self.ridge)) @ right[beyond]
        batch = self.problem.curvature(state.probabilities, Point(opened, np.zeros(self.problem.g),
                                                                  np.zeros(self.problem.g)))
        curvature = float(np.vdot(batch.between, opened))
        length = float(np.vdot(opened, opened)) / max(curvature, _TINY)
        point = state.point
        for _ in range(60):
            trial = self.evaluate(point.between - length * opened, point.within, point.bias)
            if trial.objective < state.objective:
                return trial
            length *= 0.3
        return None

    def _search(self, state: _State, direction: Point, slope: float) -> _State | None:
        """Backtracking; where the objective no longer resolves a step, the gradient decides."""
        point, length = state.point, 1.0
        shrinking = (direction.within < 0) & self.active
        if shrinking.any():  # `within` stays positive: go most of the way to its boundary at the most
            length = min(1.0, 0.95 * float((point.within[shrinking] / -direction.within[shrinking]).min()))
        change = float(np.abs(self.problem.differences(direction)).max())
        length = min(length, _LONGEST / change) if change > 0 else length
        polar = state.left @ state.right.T
        resolution = _RESOLUTION * abs(state.objective)
        for _ in range(40):
            moved = point.plus(direction, length)
            trial = self.evaluate(moved.between, moved.within, moved.bias, state.singular.size, polar)
            if trial.objective <= state.objective + 1e-4 * length * slope:
                return trial
            if abs(length * slope) <= resolution and trial.objective <= state.objective + resolution:
                return trial
            length *= 0.5
        return None

    # -- the Newton system --------------------------------------------------------------------------

    def _newton_direction(self, state: _State, gradient: Point, tangent: Point) -> Point:
        if self.problem.g <= _DENSE_GROUPS and not self.has_bias and state.singular.size:
            frame = Frame(state.left, state.singular, state.right, self._normal(state, gradient), self.active)
            direction = newton_direction(self.problem, frame, state.probabilities, self.ridge, tangent)
            if direction is not None:
                return direction
        apply = self._hessian(state, gradient)
        residual = Point(-tangent.between, -tangent.within, -tangent.bias)
        return self._conjugate_gradients(state, apply, residual)

    def _hessian(self, state: _State, gradient: Point) -> Callable[[Point], Point]:
        """The Riemannian Hessian as a function of a tangent direction."""
        problem, (left, singular, right) = self.problem, (state.left, state.singular, state.right)
        full = singular.size == problem.g - 1
        normal = self._normal(state, gradient)
        with np.errstate(divide="ignore"):
            sums = self.ridge / np.add.outer(singular, singular)

        def apply(direction: Point) -> Point:
            curved = problem.curvature(state.probabilities, direction)
            rows = left.T @ direction.between
            core = rows @ right
            side = rows.T - right @ core.T
            inside = sums * (core - core.T)
            if full:  # nothing stands outside the columns of V: no Y part, no normal part
                between = curved.between + left @ (inside @ right.T + (self.ridge / singular * side).T)
            else:
                up = direction.between @ right - left @ core
                rows = left.T @ curved.between
                rest = curved.between @ right - left @ (rows @ right) + (self.ridge * up + normal @ side) / singular
                between = (left @ (rows + inside @ right.T + ((self.ridge * side + normal.T @ up) / singular).T)
                           + rest @ right.T)
            bias = curved.bias
            if problem.bias_ridge:
                bias = bias + problem.bias_ridge * problem.sizes * direction.bias
            return Point(between, np.where(self.active, curved.within, 0.0), bias)
        return apply

    def _conjugate_gradients(self, state: _State, apply: Callable[[Point], Point], residual: Point) -> Point:
        """Preconditioned conjugate gradients, stopped at negative curvature or at a residual that Newton deserves."""
        precondition = self._preconditioner(state)
        solution = self.problem.zero()
        scaled = precondition(residual)
        direction, energy = scaled, residual.dot(scaled)
        target = energy * min(1e-2, max(1e-6, energy / max(state.objective, _TINY)))
        for _ in range(400):
            image = apply(direction)
            curvature = direction.dot(image)
            if curvature <= 0:
                break
            length = energy / curvature
            solution, residual = solution.plus(direction, length), residual.plus(image, -length)
            scaled = precondition(residual)
            following = residual.dot(scaled)
            if following <= target:
                break
            direction, energy = scaled.plus(direction, following / energy), following
        return solution if solution.dot(solution) > 0 else direction

    def _preconditioner(self, state: _State) -> Callable[[Point], Point]:
        problem = self.problem
        # The nuclear norm's own curvature, at least in part: it bounds the inverse where a softmax is saturated.
        shift = self.ridge / (2 * state.singular[0]) if state.singular.size else _TINY
        bias_inverse = None
        if self.has_bias:
            bias_inverse = np.linalg.pinv(problem.bias_curvature(state.probabilities), hermitian=True)

        def apply(residual: Point) -> Point:
            rough = problem.inverse_curvature(state.probabilities, residual, shift)
            bias = residual.bias if bias_inverse is None else problem.project_bias(bias_inverse @ residual.bias)
            return Point(self._tangent(state, rough.between), np.where(self.active, rough.within, 0.0), bias)
        return apply


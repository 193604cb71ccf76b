"""Finite ridge: the geometry at a real weight decay, certified, and where classes collapse.

    min over C, b of Σ_c n_c ω_c CE(adjusted logits, c) + λ‖C D^{1/2}‖_*,    λ = √(λ_W λ_H), loss summed over samples

From A = C D^{1/2} = VΛUᵀ follow G_W = VΛVᵀ and G_M = D^{-1/2}UΛUᵀD^{-1/2} (`theory.md` §1, §4).
"""

from __future__ import annotations

from dataclasses import dataclass
import warnings

from jaxtyping import Float
import numpy as np

from neuralcollapse.checks import NotConverged
from neuralcollapse.gram import DiagonalPlusLowRank, Gram
from neuralcollapse.groups import Groups
from neuralcollapse.predict.newton import Solution, solve, within_thresholds
from neuralcollapse.predict.symmetry import Point, ReducedProblem
from neuralcollapse.threads import one_blas_thread

_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class RidgeSolution:
    """The optimum at one ridge over k classes.

    Attributes
    ----------
    classifiers, embeddings : Gram
        With λ_W = λ_H.
    logits : DiagonalPlusLowRank
        C, without the bias.
    bias : (k,) array or None
        b, where there is one.
    solution : Solution
        The reduced point, objective, certified relative gap and rank.
    """

    classifiers: Gram
    embeddings: Gram
    logits: DiagonalPlusLowRank
    bias: Float[np.ndarray, " k"] | None
    solution: Solution


def solve_ridge(groups: Groups, problem: ReducedProblem, ridge: float, tolerance: float,
                start: Point | None = None) -> RidgeSolution:
    """The certified optimum of the reduced problem, as Gram matrices over all classes.

    Newton from `start` (or from the limit's dual solution); when that gets lost, along λ from total collapse.

    Parameters
    ----------
    groups : Groups
        Which class belongs to which group of the problem.
    problem : ReducedProblem
    ridge : float
        λ > 0, loss summed over samples.
    tolerance : float
        Relative duality gap asked for; NotConverged is warned when it is not reached.
    start : Point, optional

    Returns
    -------
    RidgeSolution
    """
    with one_blas_thread(), np.errstate(over="ignore", under="ignore"):
        best = solve(problem, ridge, tolerance, first_guess(problem, ridge) if start is None else start)
        if best.gap > tolerance:
            best = min(best, _solve_by_continuation(problem, ridge, tolerance), key=lambda found: found.gap)
        assembled = _assemble(groups, problem, best)
    if best.gap > tolerance:
        warnings.warn(f"ridge {ridge:.4g}: relative duality gap {best.gap:.1e} instead of {tolerance:.1e}",
                      NotConverged, stacklevel=2)
    return assembled


def first_guess(problem: ReducedProblem, ridge: float) -> Point:
    """Logits whose residual is λ times the limit's dual solution, −VUᵀ of A = VΛUᵀ: exact up to 1/ln(1/λ) as λ → 0.

    Wrong classes together get no more than they have at zero logits.
    """
    g, sizes = problem.g, problem.sizes
    own_slope = problem.slope.diagonal()
    left, _, right = np.linalg.svd(problem.project(np.diag(np.sqrt(problem.counts) / own_slope)))
    polar = left[:, :g - 1] @ right[:g - 1] / np.sqrt(np.multiply.outer(sizes, sizes)) - np.diag(1 / sizes)
    polar[~problem.repeated, ~problem.repeated] = 0.0
    asked = ridge * np.abs(polar) / (problem.weight * problem.slope * np.sqrt(problem.counts))
    prior, prior_own = problem.prior
    share = np.where(asked > _TINY, asked, prior)
    share = share * np.minimum(1.0, (1 - prior_own) / np.maximum(problem.wrong_total(share), _TINY))
    own = np.maximum(1 - problem.wrong_total(share), prior_own)
    guess = problem.from_differences(np.log(share / own) - np.log(prior / prior_own))
    if not problem.repeated.any():
        return guess
    # In large groups T is a small difference of many logits: there the limit's own T, at the scale that the guess
    # gives inside the groups, is the better start.
    inside = problem.within_slope * np.sqrt(problem.counts) / own_slope
    between = problem.project(np.diag(np.sqrt(problem.counts) / own_slope))
    scaled = guess._replace(between=between * float(guess.within @ inside / (inside @ inside)))
    return min((guess, scaled), key=lambda point: problem.objective(point, ridge))


def total_collapse(problem: ReducedProblem) -> tuple[float, Point]:
    """The smallest λ at which every logit but the bias is zero, ‖Γ(0, b*)‖₂, and the point with that bias."""
    hopeless = 1e3 * float(problem.mass.sum() * problem.slope.max())  # above any threshold: only the bias moves
    with one_blas_thread():
        point = solve(problem, hopeless, 1e-14, problem.zero()).point
    gradient = problem.gradient(problem.probabilities(point))
    within = np.abs(gradient.within[problem.repeated]) / problem.within_slope[problem.repeated]
    return max(float(np.linalg.norm(gradient.between, 2)), float(within.max(initial=0.0))), point


def rank_loss(problem: ReducedProblem, top: float, precision: float = 1e-5) -> tuple[float, float]:
    """A bracket of the smallest λ at which the geometry spans fewer than k − 1 dimensions, by certified solves.

    Groups of equal classes lose theirs at ω_j Δ_j √n_j exactly; the rest is bisected down to `precision`.

    Parameters
    ----------
    problem : ReducedProblem
    top : float
        λ of total collapse.
    precision : float
        Relative width of the bracket.

    Returns
    -------
    low, high : float
        Full rank at `low`, not at `high`; equal where the threshold is exact.
    """
    each = within_thresholds(problem)
    high = min(top, float(each[problem.repeated].min(initial=np.inf)))
    if problem.g < 2 or _full(problem, _solved(problem, high * (1 - 1e-9))):
        return high, high
    low = min(high, float(each.min()))  # at long tails it lies just above: from there on upwards, in growing steps
    last = _solved(problem, low)
    while not _full(problem, last) and low > top * 1e-12:
        high, low = low, low / 2
        last = _solved(problem, low)
    step = 4 * precision
    while high > low * (1 + precision):
        middle = min(low * (1 + step), float(np.sqrt(low * high)))
        found = _solved(problem, middle, last.point)
        if _full(problem, found):
            low, last, step = middle, found, 4 * step
        else:
            high = middle
    return low, high


def _solved(problem: ReducedProblem, ridge: float, start: Point | None = None) -> Solution:
    with one_blas_thread():
        return solve(problem, ridge, 1e-9, first_guess(problem, ridge) if start is None else start)


def _full(problem: ReducedProblem, solution: Solution) -> bool:
    return solution.rank == problem.g - 1


def _solve_by_continuation(problem: ReducedProblem, ridge: float, tolerance: float, factor: float = 4.0) -> Solution:
    """Follow the solution from total collapse down to `ridge`: slower, and it does not get lost."""
    top, point = total_collapse(problem)
    steps = int(np.ceil(np.log(max(top / ridge, 1.0)) / np.log(factor)))
    for step in range(1, steps):
        point = solve(problem, top * (ridge / top) ** (step / steps), 1e-3, point).point
    return solve(problem, ridge, tolerance, point)


def _assemble(groups: Groups, problem: ReducedProblem, solution: Solution) -> RidgeSolution:
    """Grams and logits of all classes from the reduced point."""
    sizes, n, point = problem.sizes, problem.counts, solution.point
    left, singular, right = np.linalg.svd(point.between)
    # Within a group A acts as the centring matrix times this singular value.
    inside = np.where(problem.repeated, point.within / np.where(problem.repeated, problem.within_slope, 1.0), 0.0)

    def gram(vectors: np.ndarray, scale: np.ndarray) -> Gram:
        between = (vectors * singular) @ vectors.T / np.sqrt(np.multiply.outer(sizes, sizes)) - np.diag(inside / sizes)
        own = inside * (1 - 1 / sizes) + np.einsum("ir,r,ir->i", vectors, singular, vectors) / sizes
        return Gram.from_blocks(groups, own / scale, between / np.sqrt(np.multiply.outer(scale, scale)))

    between = point.between / np.sqrt(np.multiply.outer(sizes, sizes * n))
    spread = inside / np.sqrt(n)
    own = between.diagonal() + spread * (1 - 1 / sizes)
    between = between - np.diag(spread / sizes)
    logits = DiagonalPlusLowRank.from_blocks(groups, own, between)
    bias = None if problem.bias_ridge is None else point.bias[groups.index]
    return RidgeSolution(gram(left, np.ones_like(n)), gram(right.T, n), logits, bias, solution)

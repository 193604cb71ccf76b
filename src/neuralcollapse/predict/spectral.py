"""The largest margin in the spectral norm: min ‖A‖₂, A = C D^{1/2}, with every margin C_cc − C_jc ≥ 1, certified.

With two largest classes σ² = n_max, attained by A = σP. With one, a, only the margins of a and those against a bind.
In N_jc = A_jc − A_ac, j, c ≠ a, the problem is the smallest σ for which a matrix has

    N Nᵀ = Q = σ²I − (n_a − σ²)11ᵀ    and    N_cc ≥ √n_c,

and its dual has one ν_c ≥ 0 per class: f_σ(ν) = tr (diag(ν) Q diag(ν))^{1/2} ≥ Σ ν_c √n_c for every ν exactly when N
exists. At the optimum diag(ν) N = (diag(ν) Q diag(ν))^{1/2} is the root of an M-matrix, hence an M-matrix: off the
diagonal N ≤ 0, and the margins left out hold by themselves. Always σ² ≥ max((n_1 + n_2)/2, n_1(1 − 1/k)) for the two
largest counts, mostly with equality. A Aᵀ = σ²P throughout, so the classifiers are a simplex at any counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
import numpy as np
from scipy.linalg import lapack
from scipy.optimize import brentq

from neuralcollapse.threads import one_blas_thread

_TIED = 1e-12  # relative difference below which two counts are one: it moves σ by a quarter of that
_LISTED = 12  # distinct counts below the largest that are told apart at first
_CLOSE = 0.05  # relative residual at which a point counts as on the central path
_FURTHER = 1e-3  # a decade of τ is a Newton step or two, and what blocks add to the gap shrinks with it
_REACH = 100.0  # of the logarithms, far from underflow
_FLOOR, _NIL = 1e-18, 1e-24  # barrier, and excess of σ²/n_a over its least value, at which rounding ends the path


@dataclass(frozen=True, eq=False)
class SpectralOptimum:
    """An optimal A, constant on blocks of classes.

    Attributes
    ----------
    kind : (g,) int array
        The block of each group of classes.
    own, between : (b,) and (b, b) arrays
        Entries of A on the diagonal, and in row i and column j for two different classes of blocks i and j. Margins are
        at least 1.
    null : (b,) array
        The unit vector z with A z = 0, per class: AᵀA = σ²(I − zzᵀ).
    norm, bound : float
        σ = ‖A‖₂, and a lower bound on it from a feasible point of the dual.
    """

    kind: Int[np.ndarray, " g"]
    own: Float[np.ndarray, " b"]
    between: Float[np.ndarray, "b b"]
    null: Float[np.ndarray, " b"]
    norm: float
    bound: float

    @property
    def gap(self) -> float:
        """Certified relative duality gap."""
        return max(self.norm - self.bound, 0.0) / self.norm


def spectral_optimum(sizes: Int[np.ndarray, " g"], counts: Float[np.ndarray, " g"],
                     tolerance: float) -> SpectralOptimum:
    """Minimise ‖A‖₂ over the A = C D^{1/2} with margins ≥ 1, for g groups of `sizes` classes with these counts.

    The optimum is never unique: adding 1wᵀ to A, with w orthogonal to its rows and ‖w‖ ≤ σ/√k, changes neither margins
    nor norm. Given is the end of the solver's central path, with the counts that do not matter raised to one another.

    Parameters
    ----------
    sizes : (g,) int array
    counts : (g,) array
        n_c, or n_c/δ_c² where the margins asked for are 1/δ_c.
    tolerance : float
        Relative duality gap asked for; the one reached is `gap`.
    """
    values, kind = np.unique(-counts, return_inverse=True)
    values, kind = -values, kind.reshape(-1)
    multiple = np.bincount(kind, weights=sizes)
    k = multiple.sum()
    if multiple[0] > 1 or values[1] > values[0] * (1 - _TIED):
        norm, bound = np.sqrt(values[0]), np.sqrt(values[0] if multiple[0] > 1 else (values[0] + values[1]) / 2)
        return SpectralOptimum(np.zeros_like(kind), np.array([norm * (1 - 1 / k)]), np.array([[-norm / k]]),
                               np.array([k**-0.5]), float(norm), float(bound))
    listed = _LISTED
    while True:
        # Raising small counts costs nothing as long as their margins do not bind; the gap, taken with the true counts,
        # says whether it did.
        block = np.minimum(np.arange(values.size), listed + 1)
        found = _one_largest(np.bincount(block, weights=multiple), values, multiple, block, tolerance)
        if found.gap <= tolerance or listed + 2 >= values.size:
            return SpectralOptimum(block[kind], found.own, found.between, found.null, found.norm, found.bound)
        listed *= 4


def block_singular_values(sizes: Float[np.ndarray, " b"], own: Float[np.ndarray, " b"],
                          between: Float[np.ndarray, "b b"]
                          ) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """Singular values of a matrix constant on blocks: |own_j − between_jj|, m_j − 1 times each, and those between."""
    within = np.where(sizes > 1, own - between.diagonal(), 0.0)
    # In the normalised indicators of the blocks; a block of one class has no pair inside it.
    inner = np.where(sizes > 1, own + (sizes - 1) * between.diagonal(), own)
    coupled = between * np.sqrt(np.multiply.outer(sizes, sizes))
    np.fill_diagonal(coupled, inner)
    return np.abs(within), np.linalg.svd(coupled, compute_uv=False)


class _State(NamedTuple):
    """Everything at one point of the path, in orthonormal coordinates of the h blocks below the largest class."""

    dual: Float[np.ndarray, " h"]  # ν
    excess: float  # σ²/n_a − (1 − 1/k)
    square: float  # σ²/n_a
    spread: Float[np.ndarray, " h"]  # √m ν
    vectors: Float[np.ndarray, "h h"]
    values: Float[np.ndarray, " h"]  # singular values of diag(ν) Q^{1/2}
    slope: Float[np.ndarray, "h h"]  # ∂(diag(ν) Q diag(ν))/∂σ² in the basis `vectors`

    @property
    def root(self) -> Float[np.ndarray, "h h"]:
        """(diag(ν) Q diag(ν))^{1/2}."""
        return (self.vectors * self.values) @ self.vectors.T


class _CentralPath:
    """Saddle points of σ² − f_σ(ν) + Σ ν_c√n_c + τ Σ ln ν_c: min over σ², max over ν (counts in units of n_a).

    It is convex in σ² (the root is operator concave) and concave in ν (f is a nuclear norm); N_cc − √n_c = τ/ν_c on the
    path. Coordinates are ln ν and ln(σ² − 1 + 1/k), in which it is asymptotically straight as τ → 0.
    """

    def __init__(self, sizes: Float[np.ndarray, " h"], roots: Float[np.ndarray, " h"]):
        self.sizes, self.roots, self.lengths = sizes, roots, np.sqrt(sizes)
        self.k = float(sizes.sum()) + 1
        uniform = np.sqrt(sizes / (self.k - 1))
        self.uniform = np.multiply.outer(uniform, uniform)

    def start(self, barrier: float) -> Float[np.ndarray, " x"]:
        """The point of the path for Q = σ²I."""
        top = float(self.roots.max())
        sigma = brentq(lambda s: float(np.sum(self.sizes * barrier / (s - self.roots))) - 2 * s,
                       top * (1 + 1e-9), top + 50)
        return np.append(np.log(barrier / (sigma - self.roots)), np.log(max(sigma**2 - 1 + 1 / self.k, 0.05)))

    def state(self, point: Float[np.ndarray, " x"]) -> _State:
        """Factor the point. Jacobi's SVD keeps the digits of the ν_c that tend to zero."""
        dual, excess = np.exp(point[:-1]), float(np.exp(point[-1]))
        square = 1 - 1 / self.k + excess
        root_q = np.sqrt(square) * (np.eye(dual.size) - self.uniform) + np.sqrt(self.k * excess) * self.uniform
        values, _, vectors, work, _, _ = lapack.dgejsv(root_q * dual, joba=0, jobu=3, jobv=0)
        spread = self.lengths * dual
        along = vectors.T @ spread
        slope = (vectors.T * dual**2) @ vectors + np.multiply.outer(along, along)
        return _State(dual, excess, square, spread, vectors, values * (work[0] / work[1]), slope)

    def residual(self, at: _State, barrier: float) -> Float[np.ndarray, " x"]:
        """The gradient in the coordinates, which is zero on the path."""
        m, sigma = self.sizes, np.sqrt(at.square)
        binding = (m - 1) * sigma * at.dual + at.root.diagonal() - m * self.roots * at.dual - barrier * m
        scale = (m - 1) @ at.dual / (2 * sigma) + np.sum(at.slope.diagonal() / at.values) / 2 - 1
        return np.append(binding, scale * at.excess)

    def off_path(self, residual: Float[np.ndarray, " x"], at: _State, barrier: float) -> float:
        """The residual relative to the barrier and to the normalisation."""
        return float(np.sqrt(np.sum(residual[:-1]**2 / self.sizes) / barrier**2 + (residual[-1] / at.excess)**2))

    def direction(self, at: _State, right: Float[np.ndarray, " x"]) -> Float[np.ndarray, " x"]:
        """Solve with the derivative of the residual."""
        m, sigma, theta, vectors = self.sizes, np.sqrt(at.square), at.values, at.vectors
        h, total = m.size, np.add.outer(at.values, at.values)
        # Σ_pq v_jp v_ap v_jq v_aq 2θ_pθ_q/(θ_p + θ_q): the Cauchy-like kernel has few eigenvectors that count.
        half = np.sqrt(theta)
        weights, factors = np.linalg.eigh(2 * np.multiply.outer(half, half) / total)
        system = np.zeros((h + 1, h + 1))
        for weight, factor in zip(weights, factors.T, strict=True):
            if weight > 1e-9 * weights[-1]:
                system[:h, :h] -= weight * ((vectors * (factor * half)) @ vectors.T) ** 2
        system[range(h), range(h)] += (m - 1) * sigma * at.dual - m * self.roots * at.dual + 2 * at.root.diagonal()
        side = (m - 1) * at.dual / (2 * sigma) + np.sum((vectors @ (at.slope / total)) * vectors, axis=1)
        system[:h, h] = system[h, :h] = side * at.excess
        curvature = (m - 1) @ at.dual / (4 * sigma**3) + np.sum(
            at.slope**2 / (np.multiply.outer(theta, theta) * total)) / 2
        system[h, h] = -curvature * at.excess**2
        scale = 1 / np.sqrt(np.abs(system.diagonal()) + 1e-300)
        try:
            return scale * np.linalg.solve(system * np.multiply.outer(scale, scale), scale * right)
        except np.linalg.LinAlgError:
            return np.full_like(right, np.nan)

    def corrected(self, point: Float[np.ndarray, " x"], barrier: float
                  ) -> tuple[Float[np.ndarray, " x"], _State, int] | None:
        """Newton's method to the path at this barrier and the steps it took; None when it gets nowhere."""
        if not np.abs(point).max() < _REACH:  # NaN included
            return None
        at = self.state(point)
        residual = self.residual(at, barrier)
        off = self.off_path(residual, at, barrier)
        for steps in range(30):
            if off < _CLOSE:
                return point, at, steps
            move = -self.direction(at, residual)
            length = min(1.0, 2 / float(np.abs(move).max()))
            while np.abs(point + length * move).max() < _REACH:
                trial = self.state(point + length * move)
                residual = self.residual(trial, barrier)
                reached = self.off_path(residual, trial, barrier)
                if reached < (1 - 0.1 * length) * off:
                    break
                length /= 2
                if length < 1e-3:
                    return None
            else:
                return None
            point, at, off = point + length * move, trial, reached
        return None

    def follow(self, tolerance: float) -> _State:
        """The point of the path at which the bounds on σ are within `tolerance`, or the last one reached."""
        barrier, factor = 0.2 / (self.k - 1), 0.1
        found = self.corrected(self.start(barrier), barrier)
        if found is None:
            return self.state(self.start(barrier))
        point, at, _ = found
        # τ(k − 1) is the gap in σ² between the barrier problem and its limit.
        while barrier * (self.k - 1) > tolerance and barrier > _FLOOR and at.excess > _NIL:
            tangent = self.direction(at, np.append(barrier * self.sizes, 0.0))  # ∂/∂ln τ
            found = None
            while found is None:
                found = self.corrected(point + np.log(factor) * tangent, barrier * factor)
                if found is None and factor > 0.9:
                    return at
                factor = factor if found is not None else np.sqrt(factor)
            (point, at, steps), barrier = found, barrier * factor
            factor = max(0.01, factor**2) if steps <= 3 else factor
        return at


def _one_largest(sizes: Float[np.ndarray, " b"], values: Float[np.ndarray, " v"], multiple: Float[np.ndarray, " v"],
                 block: Int[np.ndarray, " v"], tolerance: float) -> SpectralOptimum:
    """The optimum when class 0 alone has the largest count, for blocks of classes raised to their largest count."""
    first = np.searchsorted(block, np.arange(sizes.size))
    roots = np.sqrt(values[first] / values[0])
    m = sizes[1:]
    path = _CentralPath(m, roots[1:])
    with one_blas_thread(), np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        at = path.follow(tolerance * _FURTHER)
    root, lengths = at.root, path.lengths
    # N, then A = E(I + 11ᵀ)^{-1}[−1, N] with the columns e_c − e_0 of E.
    own = ((m - 1) * np.sqrt(at.square) + root.diagonal() / at.dual) / m
    between = root / np.multiply.outer(lengths * at.dual, lengths)
    np.fill_diagonal(between, (root.diagonal() / at.dual - np.sqrt(at.square)) / m)
    column = (lengths / at.dual) @ root / lengths / path.k
    entries = np.empty((sizes.size, sizes.size))
    entries[:, 0], entries[0, 1:], entries[1:, 1:] = -1 / path.k, -column, between - column
    diagonal = np.append(1 - 1 / path.k, own - column)
    null = np.append(1.0, at.vectors @ ((at.vectors.T @ at.spread) / at.values) / lengths)
    within, joint = block_singular_values(sizes, diagonal, entries)
    margin = float(np.min(_margins(sizes, diagonal, entries) / roots))
    norm = max(float(within.max()), float(joint[0])) / margin
    unit = np.sqrt(values[0])
    bound = max(_dual_bound(m, at.dual, at.dual * null[1:], multiple, np.sqrt(values / values[0]), block),
                float(np.sqrt(max((1 + values[1] / values[0]) / 2, 1 - 1 / path.k))))
    return SpectralOptimum(block, diagonal / margin * unit, entries / margin * unit, null / np.sqrt(sizes @ null**2),
                           norm * float(unit), bound * float(unit))


def _margins(sizes: Float[np.ndarray, " b"], own: Float[np.ndarray, " b"],
             between: Float[np.ndarray, "b b"]) -> Float[np.ndarray, " b"]:
    rivals = between.copy()
    np.fill_diagonal(rivals, np.where(sizes > 1, rivals.diagonal(), -np.inf))
    return own - rivals.max(axis=0)


def _dual_bound(m: Float[np.ndarray, " h"], dual: Float[np.ndarray, " h"], top: Float[np.ndarray, " h"],
                multiple: Float[np.ndarray, " v"], roots: Float[np.ndarray, " v"],
                block: Int[np.ndarray, " v"]) -> float:
    """⟨G, C D^{1/2}⟩ ≥ Σ multipliers for every feasible C, so this sum over ‖G‖_* bounds the spectral norm from below.

    G has −top_c, dual_c ≥ 0 times e_c − e_0 in column 0 and in the columns c; the true counts make the sum.
    """
    own = np.append(m @ top, dual)
    between = np.zeros((own.size, own.size))
    between[1:, 0], between[0, 1:] = -top, -dual
    within, joint = block_singular_values(np.append(1.0, m), own, between)
    total = m @ top + multiple[1:] @ (dual[block[1:] - 1] * roots[1:])
    return float(total / ((m - 1) @ within[1:] + joint.sum()))

"""Classifiers in d dimensions: frames with a given Gram matrix, and spherical codes where d is too small for one.

A Gram matrix G of rank r is realised by W with W Wᵀ = G in any d ≥ r. The simplex of k classes needs d = k − 1; below
it the largest of the cosines between two classes is made as small as it gets (rankin1955; jiang2024),

    min over unit w_1 … w_k in R^d of max_{i≠j} ⟨w_i, w_j⟩,

one-sided, since a negative logit harms no class; the coherence max |⟨w_i, w_j⟩| is what welch1974 bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
import numpy as np
from scipy.fft import dct
from scipy.linalg import block_diag, lapack
from scipy.optimize import minimize

from neuralcollapse.checks import InvalidInput, shown
from neuralcollapse.gram import Gram
from neuralcollapse.predict import Geometry, predict
from neuralcollapse.steer.amounts import sizes, whole

_SAME_SHAPE = 1e-6  # distance between unit Gram matrices below which a geometry is the simplex
_UNIFORM_TO = 2048  # dimension up to which a rotation is drawn uniformly
_ENTRIES_AT_ONCE = 2**24  # cosines held at a time
# Inverse temperatures: from a smooth start, in which the points spread out, to within 1e-7 of the maximum itself.
_SMOOTH, _COARSE, _SHARP, _FACTOR = (3.0, 100.0), 1e3, 1e7, 4.0
_SHARP_IN_FEW_STEPS = 1e4  # the last factors of a thousand gain 1e-3 there
_MEMORY = 10  # pairs of vectors that L-BFGS keeps
# Work is counted in k²d, a third of the cost of one gradient.
_WORK_OF_STARTS, _MOST_STARTS = 3e5, 48
_WORK_OF_A_STAGE, _FEWEST_STEPS, _MOST_STEPS = 3e9, 12, 300


@dataclass(frozen=True, eq=False)
class SphericalCode:
    """k unit vectors in R^d and how far apart they are.

    Attributes
    ----------
    vectors : (k, d) array
    """

    vectors: Float[np.ndarray, "k d"]

    @property
    def k(self) -> int:
        """Number of vectors."""
        return self.vectors.shape[0]

    @property
    def d(self) -> int:
        """Dimension."""
        return self.vectors.shape[1]

    @cached_property
    def largest_cosine(self) -> float:
        """max_{i≠j} ⟨w_i, w_j⟩."""
        return max(float(cosines.max()) for _, cosines in _cosines(self.vectors))

    @cached_property
    def coherence(self) -> float:
        """max_{i≠j} |⟨w_i, w_j⟩|."""
        return max(float(np.abs(cosines, where=np.isfinite(cosines), out=np.zeros_like(cosines)).max())
                   for _, cosines in _cosines(self.vectors))

    @property
    def welch_bound(self) -> float:
        """√((k − d)/(d(k − 1))), which no coherence is below; 0 for k ≤ d (welch1974)."""
        return float(np.sqrt(max(self.k - self.d, 0) / (self.d * (self.k - 1))))

    @property
    def rankin_bound(self) -> float:
        """What no largest cosine is below: −1/(k − 1) for k ≤ d + 1, else 0, reached up to k = 2d (rankin1955)."""
        return -1 / (self.k - 1) if self.k <= self.d + 1 else 0.0


def spherical_code(k: int, d: int, seed: int = 0, starts: int | None = None) -> SphericalCode:
    """Find k unit vectors in R^d whose largest pairwise cosine is as small as possible.

    Exact where the optimum is known in closed form, in a random rotation: the simplex (d ≥ k − 1), mutually orthogonal
    simplices (k ≤ 2d; the cross-polytope at k = 2d) and the regular polygon (d = 2). Elsewhere L-BFGS minimises

        (1/β) log Σ_{i≠j} exp(β⟨w_i, w_j⟩),   β rising to 10⁷,

    from several random starts, the best of which is refined: a local optimum, the same for the same seed.

    Parameters
    ----------
    k : int
        Number of vectors, at least 2.
    d : int
        Dimension; at least 2 where k > 2.
    seed : int
        Seed of the starts, or of the rotation.
    starts : int, optional
        How many random starts; when left out, as many as are cheap: 48 for the smallest codes, 1 for large ones.

    Returns
    -------
    SphericalCode

    Raises
    ------
    InvalidInput
        k < 2, d < 1, starts < 1, or more than two vectors on a line, where two of them must coincide.

    Notes
    -----
    A gradient costs O(k²d). Large codes get fewer of them, from k²d = 2.5·10⁸ a dozen at each β up to 10⁴, and their
    cosines are formed in blocks of rows: beside those, about 30 arrays of (k, d). The softmax codes of jiang2024, to
    which cross-entropy leads, look at a vector's distance from the hull of all the others instead of from its nearest.

    References
    ----------
    rankin1955; welch1974; jiang2024.

    Examples
    --------
    >>> icosahedron = spherical_code(12, 3)
    >>> round(icosahedron.largest_cosine * 5**0.5, 6), round(icosahedron.rankin_bound, 6)
    (1.0, 0.0)
    """
    k, d = sizes(k, d)
    if d == 1 and k > 2:
        raise InvalidInput(f"d must be at least 2 for {k} classes, got 1: of three unit vectors on a line "
                           "two coincide")
    starts = None if starts is None else whole("starts", starts, 1)
    rng = np.random.default_rng(whole("seed", seed, 0))
    exact = _closed_form(k, d)
    if exact is not None:
        return SphericalCode(rotated(exact, d, rng))
    return SphericalCode(_optimised(k, d, rng, starts))


def frame(geometry: Geometry | Gram, d: int, *, seed: int = 0) -> Float[np.ndarray, "k d"]:
    """Classifiers in d dimensions with the Gram matrix of a predicted geometry, in a random rotation.

        W Wᵀ = G_W · k / tr G_W:   the mean of the squared lengths is 1

    The simplex ETF alone has a substitute in too few dimensions: a `spherical_code`.

    Parameters
    ----------
    geometry : Geometry or Gram
        A prediction, whose `classifiers` are taken, or a Gram matrix itself.
    d : int
        Feature dimension, at least the rank of the Gram matrix; for the simplex ETF at least 2.
    seed : int
        Seed of the rotation.

    Returns
    -------
    (k, d) float64 array

    Raises
    ------
    InvalidInput
        d below the rank, a Gram matrix that is zero or has a negative eigenvalue.

    References
    ----------
    thrampoulidis2022, Theorem 1; zhu2021; theory.md §1.

    Examples
    --------
    >>> geometry = predict([10, 10, 1, 1])
    >>> W = frame(geometry, d=16)
    >>> W.shape, bool(np.allclose(W @ W.T, geometry.classifiers.dense() * 4 / geometry.classifiers.trace))
    ((4, 16), True)
    """
    gram = gram_of(geometry)
    k, d = sizes(gram.k, d)
    rng = np.random.default_rng(whole("seed", seed, 0))
    if not gram.trace > 0:
        raise InvalidInput("the geometry must have classifiers, got lengths of 0 for every class (total collapse): ask "
                           "for a smaller ridge")
    if d < k - 1 and gram.distance_to(predict(np.ones(k), "etf").classifiers) < _SAME_SHAPE:
        return spherical_code(k, d, seed).vectors
    factor = _factor(gram * (k / gram.trace))
    rank = factor.shape[1]
    if d < rank:
        raise InvalidInput(f"d must be at least {rank}, the rank of this geometry's classifiers, got {d}: widen the "
                           "features, or take the simplex ETF, which has a substitute in fewer dimensions")
    return rotated(factor, d, rng)


def gram_of(geometry: Any) -> Gram:
    """The classifiers' Gram matrix of a geometry, or itself; InvalidInput for anything else."""
    gram = geometry.classifiers if isinstance(geometry, Geometry) else geometry
    if not isinstance(gram, Gram):
        raise InvalidInput("geometry must be a Geometry, as predict gives, or a Gram matrix, got "
                           f"{type(geometry).__name__} ({shown(geometry)})")
    return gram


def rotated(factor: Float[np.ndarray, "k r"], d: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """Row vectors in d ≥ r dimensions with the same inner products, in a random rotation.

    Uniform over all rotations up to d = 2,048. Above, where drawing one costs O(d³), coordinates of random signs go
    through the discrete cosine transform, twice: O(k d log d).
    """
    k, r = factor.shape
    if d <= _UNIFORM_TO:
        q, upper = np.linalg.qr(rng.standard_normal((d, r)))
        return factor @ (q * np.where(upper.diagonal() < 0, -1.0, 1.0)).T  # these signs are the algorithm's own
    vectors = np.zeros((k, d))
    vectors[:, :r] = factor
    for _ in range(2):
        vectors *= rng.choice([-1.0, 1.0], d)
        vectors = np.asarray(dct(vectors, norm="ortho", axis=1, overwrite_x=True))
    return vectors


def smoothed_largest_cosine(points: Float[np.ndarray, "k d"], sharpness: float
                            ) -> tuple[float, Float[np.ndarray, "k d"]]:
    """(1/β) log Σ_{i≠j} exp(β⟨u_i, u_j⟩) of the directions u of some points, and its gradient in the points.

    Parameters
    ----------
    points : (k, d) array
        Not zero.
    sharpness : float
        β > 0.
    """
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / lengths
    top, total, pull = -np.inf, 0.0, np.zeros_like(unit)
    for rows, weights in _cosines(unit):
        peak = float(weights.max())
        if peak > top:
            shrink = np.exp(sharpness * (top - peak))
            total, top = total * shrink, peak
            pull *= shrink
        weights -= top
        weights *= sharpness
        np.exp(weights, out=weights)
        total += float(weights.sum())
        pull[rows] = weights @ unit
    pull *= 2 / total
    pull -= np.sum(pull * unit, axis=1, keepdims=True) * unit
    return top + float(np.log(total)) / sharpness, pull / lengths


def _cosines(unit: Float[np.ndarray, "k d"]) -> Iterator[tuple[slice, Float[np.ndarray, "p k"]]]:
    """The cosines of some rows with all of them, −∞ of a row with itself."""
    k = len(unit)
    step = max(1, _ENTRIES_AT_ONCE // k)
    for start in range(0, k, step):
        cosines = unit[start:start + step] @ unit.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        yield slice(start, start + step), cosines


def _closed_form(k: int, d: int) -> Float[np.ndarray, "k r"] | None:
    if k <= d + 1:
        return _simplex(k)
    if k <= 2 * d:
        # Each of the k − d simplices has one vector more than dimensions.
        parts = np.array_split(np.arange(k), k - d)
        return np.asarray(block_diag(*(_simplex(len(part)) for part in parts)))
    if d == 2:
        angles = 2 * np.pi * np.arange(k) / k
        return np.column_stack([np.cos(angles), np.sin(angles)])
    return None


def _simplex(k: int) -> Float[np.ndarray, "k r"]:
    """Unit vectors with cosines −1/(k − 1) in k − 1 dimensions: Helmert's contrasts, row by class."""
    j = np.arange(1, k)
    contrasts = np.triu(np.ones((k, k - 1)))
    contrasts[j, j - 1] = -j
    return contrasts * np.sqrt(k / ((k - 1) * j * (j + 1)))


def _optimised(k: int, d: int, rng: np.random.Generator, starts: int | None) -> Float[np.ndarray, "k d"]:
    work = float(k) * k * d
    starts = int(np.clip(_WORK_OF_STARTS / work, 1, _MOST_STARTS)) if starts is None else starts
    steps = int(np.clip(_WORK_OF_A_STAGE / work, _FEWEST_STEPS, _MOST_STEPS))
    best, reached = np.empty((k, d)), np.inf
    for start in range(starts):
        # A smooth start leads almost always to one optimum, a sharper one to many.
        smooth = _SMOOTH[start % len(_SMOOTH)]
        points = _sharpened(rng.standard_normal((k, d)), smooth, _COARSE, steps)
        value = smoothed_largest_cosine(points, _COARSE * _FACTOR)[0] if starts > 1 else 0.0
        if value < reached:
            best, reached = points, value
    return _sharpened(best, _COARSE * _FACTOR, _SHARP if steps > _FEWEST_STEPS else _SHARP_IN_FEW_STEPS, steps)


def _sharpened(points: Float[np.ndarray, "k d"], first: float, last: float, steps: int) -> Float[np.ndarray, "k d"]:
    """Unit vectors that minimise the smoothed maximum as β rises from `first` to `last`."""
    shape = points.shape

    def value(flat: Float[np.ndarray, " kd"], sharpness: float) -> tuple[float, Float[np.ndarray, " kd"]]:
        found, gradient = smoothed_largest_cosine(flat.reshape(shape), sharpness)
        return found, gradient.ravel()

    stages = int(np.ceil(np.log(last / first) / np.log(_FACTOR))) + 1
    for sharpness in first * _FACTOR ** np.arange(stages):
        found = minimize(value, points.ravel(), args=(float(sharpness),), jac=True, method="L-BFGS-B",
                         options={"maxiter": steps, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 1e-13})
        points = found.x.reshape(shape)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def _factor(gram: Gram) -> Float[np.ndarray, "k r"]:
    """F with F Fᵀ = G and as many columns as G has rank: Cholesky with pivoting, which stops at the rank."""
    dense, k = gram.dense(), gram.k
    negligible = 8 * k * np.finfo(float).eps * float(dense.diagonal().max())
    lower, pivots, rank, _ = lapack.dpstrf(dense.T, tol=negligible, lower=1, overwrite_a=1)  # .T: Fortran's order
    factor = np.empty((k, rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    probe = np.random.default_rng(0).standard_normal((k, 1))
    off = float(np.linalg.norm(gram @ probe - factor @ (factor.T @ probe)))
    if not off <= 1e-8 * float(np.linalg.norm(probe)) * max(1.0, gram.frobenius):
        raise InvalidInput("the Gram matrix must be positive semidefinite, got a negative eigenvalue: a Gram matrix "
                           "holds the inner products of vectors")
    return factor

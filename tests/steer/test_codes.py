"""Frames against dense algebra, spherical codes against known optima, the smoothed maximum against differences."""

import numpy as np
import pytest

from neuralcollapse import ClassCounts, Gram, InvalidInput, predict
from neuralcollapse.steer.codes import frame, rotated, smoothed_largest_cosine, spherical_code

# Optimal largest cosines: for 7, 8, 9 and 10 points on the sphere of Tammes' problem (Schütte and van der Waerden 1951,
# Danzer 1963); sharp configurations elsewhere (Cohn and Kumar 2007, Table 1).
OPTIMA = {(12, 3): 1 / np.sqrt(5), (7, 3): np.cos(np.radians(77.8695421)), (8, 3): (2 * np.sqrt(2) - 1) / 7,
          (9, 3): 1 / 3, (10, 3): np.cos(np.radians(66.1468220)), (10, 4): 1 / 6, (16, 5): 1 / 5, (24, 4): 1 / 2,
          (27, 6): 1 / 4, (56, 7): 1 / 3}


def by_pairs(vectors):
    """Largest cosine and coherence by a loop over pairs."""
    cosines = [float(vectors[i] @ vectors[j]) / np.sqrt(float(vectors[i] @ vectors[i]) * float(vectors[j] @ vectors[j]))
               for i in range(len(vectors)) for j in range(i)]
    return max(cosines), max(map(abs, cosines))


@pytest.mark.parametrize(("k", "d"), OPTIMA, ids=str)
def test_the_known_optimum_is_found(k, d):
    code = spherical_code(k, d, starts=16 if (k, d) == (24, 4) else 6)  # most starts miss the 24-cell
    largest, coherence = by_pairs(code.vectors)
    np.testing.assert_allclose(np.linalg.norm(code.vectors, axis=1), 1, rtol=0, atol=1e-14)
    assert largest == pytest.approx(OPTIMA[k, d], rel=0, abs=1e-6)
    # Against the library's own account: the same products in another order.
    assert code.largest_cosine == pytest.approx(largest, rel=0, abs=1e-14)
    assert code.coherence == pytest.approx(coherence, rel=0, abs=1e-14)
    assert (code.k, code.d) == (k, d)


@pytest.mark.parametrize("seed", [1, 2])
def test_other_starts_lead_to_the_icosahedron_too(seed):
    assert spherical_code(12, 3, seed, starts=1).largest_cosine == pytest.approx(1 / np.sqrt(5), rel=0, abs=1e-6)


@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2), (4, 3), (4, 7), (10, 9), (10, 30)])
def test_the_simplex_where_there_is_room(k, d):
    vectors = spherical_code(k, d).vectors
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(k) * k / (k - 1) - 1 / (k - 1), rtol=0, atol=1e-14)
    np.testing.assert_allclose(vectors.sum(0), 0, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("k", "d"), [(5, 3), (6, 3), (4, 2), (9, 7), (14, 7), (11, 8)])
def test_up_to_twice_the_dimension_no_angle_is_acute(k, d):
    code = spherical_code(k, d)
    assert code.largest_cosine == pytest.approx(0, abs=1e-14)
    assert code.rankin_bound == 0
    assert np.linalg.matrix_rank(code.vectors) == d
    np.testing.assert_allclose(code.vectors.sum(0), 0, rtol=0, atol=1e-13)
    if k == 2 * d:
        opposite = np.sort(code.vectors @ code.vectors.T, axis=1)[:, 0]
        np.testing.assert_allclose(opposite, -1, rtol=0, atol=1e-14)


@pytest.mark.parametrize("k", [5, 6, 17])
def test_points_on_the_circle_are_evenly_spaced(k):
    code = spherical_code(k, 2, seed=3)
    assert code.largest_cosine == pytest.approx(np.cos(2 * np.pi / k), rel=0, abs=1e-14)


def test_bounds_hold_and_are_what_the_papers_say():
    for k, d in [(3, 2), (4, 3), (6, 3), (7, 3), (20, 4), (30, 6)]:
        code = spherical_code(k, d, starts=1)
        assert code.welch_bound == pytest.approx(np.sqrt((k - d) / (d * (k - 1))), rel=1e-15)
        assert code.coherence >= code.welch_bound - 1e-14
        assert code.largest_cosine >= code.rankin_bound - 1e-14
    simplex = spherical_code(4, 3)
    assert simplex.coherence == pytest.approx(simplex.welch_bound, rel=1e-13)  # the simplex meets it
    assert simplex.rankin_bound == pytest.approx(-1 / 3, rel=1e-15)
    assert spherical_code(3, 8).welch_bound == 0


def test_a_larger_code_is_far_better_than_chance():
    code = spherical_code(40, 6, starts=1)
    random = np.random.default_rng(0).standard_normal((40, 6))
    assert code.largest_cosine < 0.4 < 0.8 < by_pairs(random)[0]  # 0.389 found
    np.testing.assert_array_equal(code.vectors, spherical_code(40, 6, starts=1).vectors)


def test_the_smoothed_maximum_and_its_gradient():
    points = np.random.default_rng(1).standard_normal((6, 3))
    for sharpness in (2.0, 50.0):
        def slow(flat, sharpness=sharpness):
            rows = flat.reshape(6, 3)
            unit = [row / np.sqrt(row @ row) for row in rows]
            return np.log(sum(np.exp(sharpness * (unit[i] @ unit[j])) for i in range(6) for j in range(6)
                              if i != j)) / sharpness
        value, gradient = smoothed_largest_cosine(points, sharpness)
        assert value == pytest.approx(slow(points.ravel()), rel=1e-13)
        step = 1e-6
        # Central differences: error step² and 1e-16/step, times a curvature of about `sharpness`.
        differences = [(slow(points.ravel() + step * e) - slow(points.ravel() - step * e)) / (2 * step)
                       for e in np.eye(18)]
        np.testing.assert_allclose(gradient.ravel(), differences, rtol=1e-6, atol=1e-8)


def test_blocks_of_rows_change_nothing(monkeypatch):
    points = np.random.default_rng(2).standard_normal((23, 4))
    whole, code = smoothed_largest_cosine(points, 30.0), spherical_code(23, 4, starts=1)
    monkeypatch.setattr("neuralcollapse.steer.codes._ENTRIES_AT_ONCE", 23 * 5)
    parts = smoothed_largest_cosine(points, 30.0)
    assert parts[0] == pytest.approx(whole[0], rel=1e-14)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12, atol=1e-15)
    again = type(code)(code.vectors)
    assert (again.largest_cosine, again.coherence) == pytest.approx((code.largest_cosine, code.coherence), rel=1e-14)


GEOMETRIES = {
    "seli step": lambda: predict([10, 10, 1, 1]), "seli": lambda: predict([500, 300, 200, 7, 3, 1]),
    "balanced": lambda: predict([7] * 6), "etf": lambda: predict([5, 2, 1], "etf"),
    "finite ridge": lambda: predict([100, 100, 10, 1], ridge=0.5),
    "minorities merged": lambda: predict([10, 10, 1, 1], ridge=2.0),
    "bias": lambda: predict([10, 5, 1], ridge=0.1, bias=True),
    "ldt": lambda: predict([10, 10, 1, 1], "ldt", delta=[3, 3, 1, 1]),
    "mse": lambda: predict([9, 4, 1], "mse", ridge=0.5), "relu": lambda: predict([9, 4, 1], "relu-ce", ridge=0.2),
    "long tail": lambda: predict(ClassCounts.long_tail(40, 100, 500)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_frame_has_the_gram_matrix_asked_for(name):
    geometry = GEOMETRIES[name]()
    wanted = geometry.classifiers.dense() * geometry.k / geometry.classifiers.trace
    rank = int(np.linalg.matrix_rank(wanted, tol=1e-10, hermitian=True))
    for d in (rank, rank + 5):
        W = frame(geometry, d, seed=4)
        assert W.shape == (geometry.k, d)
        np.testing.assert_allclose(W @ W.T, wanted, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(W, frame(geometry.classifiers, d, seed=4))
        assert np.abs(W - frame(geometry, d, seed=5)).max() > 1e-3
    if name not in ("balanced", "etf"):
        with pytest.raises(InvalidInput, match=f"^d must be at least {rank}, "):
            frame(geometry, rank - 1)


@pytest.mark.parametrize("counts", [[10, 10, 1, 1], [500, 300, 200, 7, 3, 1], [4] * 5], ids=str)
def test_the_frame_of_seli_is_that_of_the_sel_matrix(counts):
    k = len(counts)
    left, singular, _ = np.linalg.svd((np.eye(k) - np.ones((k, k)) / k) @ np.diag(np.sqrt(counts)))
    gram = left @ np.diag(singular) @ left.T
    W = frame(predict(counts), k + 2)
    np.testing.assert_allclose(W @ W.T, gram * k / np.trace(gram), rtol=0, atol=1e-10)


@pytest.mark.parametrize("ridge", [None, 0.3])
def test_below_the_rank_the_simplex_has_a_spherical_code(ridge):
    W = frame(predict([20] * 6, ridge=ridge), 3)
    np.testing.assert_allclose(np.linalg.norm(W, axis=1), 1, rtol=0, atol=1e-14)
    assert by_pairs(W)[0] == pytest.approx(0, abs=1e-14)  # the octahedron
    np.testing.assert_array_equal(W, spherical_code(6, 3).vectors)


def test_rotations_are_orthonormal_and_without_a_preferred_sign():
    draws = np.stack([rotated(np.eye(2), 3, np.random.default_rng(seed)) for seed in range(400)])
    np.testing.assert_allclose(draws @ draws.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (400, 2, 2)), rtol=0,
                               atol=1e-14)
    # Entries of a uniform direction in R³ have mean 0 and variance 1/3; 400 draws, four standard errors.
    np.testing.assert_allclose(draws.mean(0), 0, rtol=0, atol=4 / np.sqrt(3 * 400))
    np.testing.assert_allclose((draws**2).mean(0), 1 / 3, rtol=0, atol=4 * np.sqrt(4 / 45 / 400))


def test_rotations_of_many_dimensions_keep_inner_products_and_mix_all_coordinates():
    factor = np.random.default_rng(0).standard_normal((5, 4))
    vectors = rotated(factor, 2500, np.random.default_rng(1))
    np.testing.assert_allclose(vectors @ vectors.T, factor @ factor.T, rtol=0, atol=1e-12)
    # A uniform direction's entries have a largest square of about 2 ln(d)/d = 0.0063.
    assert (vectors**2 / (vectors**2).sum(1, keepdims=True)).max() < 0.02


INVALID = [
    (lambda: spherical_code(1, 3), "k must be at least 2 classes, got 1"),
    (lambda: spherical_code(4, 0), "d must be at least 1, got 0"),
    (lambda: spherical_code(3, 1), "d must be at least 2 for 3 classes, got 1: of three unit vectors on a line two "
                                   "coincide"),
    (lambda: spherical_code(9, 3, starts=0), "starts must be a whole number ≥ 1, got 0"),
    (lambda: frame(predict([3, 3, 1]), 0), "d must be at least 1, got 0"),
    (lambda: frame(predict([10, 10, 1, 1]), 2),
     "d must be at least 3, the rank of this geometry's classifiers, got 2: widen the features, or take the simplex "
     "ETF, which has a substitute in fewer dimensions"),
    (lambda: frame(predict([4, 4, 4], "mse"), 2),
     "d must be at least 3, the rank of this geometry's classifiers, got 2: widen the features, or take the simplex "
     "ETF, which has a substitute in fewer dimensions"),
    (lambda: frame(predict([2, 1], ridge=5.0), 3),
     "the geometry must have classifiers, got lengths of 0 for every class (total collapse): ask for a smaller ridge"),
    (lambda: frame(predict([4, 4, 4], "etf"), 1),
     "d must be at least 2 for 3 classes, got 1: of three unit vectors on a line two coincide"),
    (lambda: frame(Gram.from_dense(np.array([[1.0, 2.0], [2.0, 1.0]])), 3),
     "the Gram matrix must be positive semidefinite, got a negative eigenvalue: a Gram matrix holds the inner products "
     "of vectors"),
]


@pytest.mark.parametrize(("call", "message"), INVALID, ids=[message[:40] for _, message in INVALID])
def test_bad_input_is_told_in_one_line(call, message):
    with pytest.raises(InvalidInput) as caught:
        call()
    assert str(caught.value) == message

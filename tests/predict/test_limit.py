"""Vanishing-ridge geometries: linear time against dense SVD, 50-digit arithmetic, closed form and vectors."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import mpmath
import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from references import VECTORS, limit_dense, limit_mpmath, step_dense

SHARED = Path(__file__).parents[3] / "shared/vectors/geometry.json"  # beside a working copy of the authors

count_lists = st.lists(st.integers(1, 10**6), min_size=2, max_size=12)


# The originals lie beside the authors' working copies alone; everywhere else the tests below read our copy.
@pytest.mark.skipif(not SHARED.exists(), reason="only our copy of the reference vectors is here")
def test_our_reference_vectors_are_the_shared_ones():
    assert json.loads(SHARED.read_text()) == VECTORS


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "limit"],
                         ids=lambda v: f"{v['loss']}-{v['counts']}")
def test_reference_vectors(vector):
    parameters = {} if vector["loss"] == "ce" else {"delta": vector["delta"]}
    geometry = predict(vector["counts"], vector["loss"], **parameters)
    np.testing.assert_allclose(geometry.classifiers.unit().dense(), vector["gram_w"], atol=1e-12)
    np.testing.assert_allclose(geometry.embeddings.unit().dense(), vector["gram_m"], atol=1e-12)


@given(count_lists, st.sampled_from(["class", "label"]), st.randoms(use_true_random=False))
def test_linear_time_equals_dense_svd(counts, kind, random):
    delta = [random.uniform(0.2, 5) for _ in counts]
    geometry = predict(counts, delta=delta, temperature=kind)
    g_w, g_m, logits = limit_dense(counts, delta, kind)
    # The dense route is the less accurate one: √eps on the null vector (theory.md §2).
    np.testing.assert_allclose(geometry.classifiers.dense(), g_w, atol=2e-8 * np.abs(g_w).max())
    np.testing.assert_allclose(geometry.embeddings.dense(), g_m, atol=2e-8 * np.abs(g_m).max())
    np.testing.assert_allclose(geometry.logits.dense(), logits, atol=1e-14 * np.abs(logits).max())


@pytest.mark.parametrize("counts", [
    [1, 1], [10, 1], [10**9, 1], [10**9, 10**9, 1, 1], [10**9, 1, 1, 1], [10**9, 10**5, 10, 1], [7] * 5,
    [10**9] * 11 + [1], [10**9, 31, 31, 30, 29, 12, 7, 5, 3, 2, 1, 1], list(range(1, 13)), [0.5, 2e-3, 1e6]])
@pytest.mark.parametrize(("delta", "kind"), [(False, "class"), (True, "class"), (True, "label")])
def test_norms_to_13_digits_against_50_digit_arithmetic(counts, delta, kind):
    delta = (0.3 + np.arange(len(counts)) % 4 * 0.7).tolist() if delta else None
    geometry = predict(counts, delta=delta, temperature=kind)
    norms_w, norms_m, frobenius_w, frobenius_m, g_w, g_m = limit_mpmath(counts, delta, kind)
    for ours, exact in ((geometry.classifiers.norms, norms_w), (geometry.embeddings.norms, norms_m),
                        ([geometry.classifiers.frobenius], [frobenius_w]),
                        ([geometry.embeddings.frobenius], [frobenius_m])):
        assert max(abs(mpmath.mpf(float(a)) / b - 1) for a, b in zip(ours, exact, strict=True)) < 1e-13
    for gram, exact, size in ((geometry.classifiers, g_w, frobenius_w), (geometry.embeddings, g_m, frobenius_m)):
        dense, k = gram.dense(), len(counts)
        assert max(abs(mpmath.mpf(float(dense[i, j])) - exact[i, j]) for i in range(k) for j in range(k)) < 1e-13 * size


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 10**6), st.floats(1, 1e6))
def test_step_closed_form_is_an_independent_route(majorities, minorities, n_min, ratio):
    geometry = predict([n_min * ratio] * majorities + [n_min] * minorities)
    closed = step_dense(majorities, minorities, n_min * ratio, n_min)
    for one, two in zip(closed, (geometry.classifiers, geometry.embeddings, geometry.logits), strict=True):
        np.testing.assert_allclose(two.dense(), one, atol=1e-13 * np.linalg.norm(one))


def test_many_distinct_counts_use_the_low_rank_form_and_agree_with_svd():
    counts = np.arange(1, 301)
    geometry = predict(counts)
    g_w, g_m, _ = limit_dense(counts)
    assert geometry.classifiers.basis is not None
    assert geometry.classifiers.basis is geometry.embeddings.basis  # shared, not copied
    np.testing.assert_allclose(geometry.classifiers.dense(), g_w, atol=1e-7)
    np.testing.assert_allclose(geometry.embeddings.dense(), g_m, atol=1e-9)
    # ‖G_W‖² = tr PDP exactly.
    assert geometry.classifiers.frobenius**2 == pytest.approx(counts.sum() * (1 - 1 / 300), rel=1e-14)


@pytest.mark.parametrize("counts", [[5, 5], [3, 3, 3], [40, 9, 2], [10, 10, 1, 1, 1]])
def test_ldt_at_the_square_root_of_the_counts_is_an_exact_etf(counts):
    geometry = predict(counts, "ldt", delta=np.sqrt(counts))
    k = len(counts)
    np.testing.assert_allclose(geometry.classifiers.unit().dense(),
                               (np.eye(k) - 1 / k) / np.sqrt(k - 1), atol=1e-14)


@given(count_lists, st.integers(0, 9))
def test_factors_realise_the_geometry_in_any_dimension(counts, extra):
    geometry = predict(counts)
    W, M = geometry.factors(len(counts) - 1 + extra, seed=extra)
    scale = np.abs(geometry.classifiers.dense()).max(), np.abs(geometry.embeddings.dense()).max()
    np.testing.assert_allclose(W @ W.T, geometry.classifiers.dense(), atol=1e-12 * scale[0])
    np.testing.assert_allclose(M @ M.T, geometry.embeddings.dense(), atol=1e-9 * scale[1])
    np.testing.assert_allclose(W @ M.T, geometry.logits.dense(), atol=1e-9)


def test_factors_are_seeded_and_refuse_too_few_dimensions():
    geometry = predict([10, 10, 1, 1])
    one, two, other = (geometry.factors(9, seed=s)[0] for s in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.allclose(one, other)
    with pytest.raises(ValueError, match=r"^d must be at least the rank of this geometry, 3 for 4 classes, got 2$"):
        geometry.factors(2)


@pytest.mark.parametrize("counts", [[9, 9, 4, 4], [1000, 3, 2, 1], [5, 4.99999, 1], [2, 1], [7, 7, 7]])
def test_total_collapse_is_the_spectral_norm(counts):
    k = len(counts)
    exact = np.linalg.norm((np.eye(k) - 1 / k) * np.sqrt(counts), 2)
    assert predict(counts).thresholds["total_collapse"] == pytest.approx(exact, rel=1e-12)


def test_minority_angle_closes_as_the_ratio_grows():
    angles = [predict(ClassCounts.step(10, 10.0**p, n_min=1)).classifiers.cosines(np.array([8]), np.array([9]))[0, 0]
              for p in range(10)]
    assert np.all(np.diff(angles) > 0)
    assert angles[-1] > 0.999

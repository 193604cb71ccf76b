"""The largest margin in the optimiser's norm: cvxpy, closed forms, linear programs over sign vectors, designs."""

from itertools import combinations, product
import json
import warnings

import cvxpy as cp
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.optimize import linprog

from neuralcollapse.checks import InvalidInput, NotConverged, OutsideTheory
from neuralcollapse.predict import predict
from neuralcollapse.predict.norms import NORMS
from references import sqrt_psd

# By regime of the spectral norm: a tie, the two largest, the largest alone, between them, and two classes.
COUNTS = [[10, 10, 4, 1], [30, 27, 3, 2, 1], [100, 9, 3, 2], [100, 60, 60, 55, 50, 40], [20, 9, 9, 8], [7, 2]]


def margins(logits):
    rivals = logits.astype(float)
    np.fill_diagonal(rivals, -np.inf)
    return logits.diagonal() - rivals.max(axis=0)


def by_cvxpy(counts, norm, slope=None, asked=None):
    """The least ‖C D^{1/2}‖ subject to slope_c C_cc − slope_j C_jc ≥ asked_c."""
    k = len(counts)
    slope, asked = (np.ones(k) if vector is None else np.asarray(vector, float) for vector in (slope, asked))
    c = cp.Variable((k, k))
    held = [slope[y] * c[y, y] - slope[j] * c[j, y] >= asked[y] for y in range(k) for j in range(k) if j != y]
    problem = cp.Problem(cp.Minimize(norm(c @ np.diag(np.sqrt(counts)))), held)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.CLARABEL, tol_gap_rel=1e-10, tol_gap_abs=1e-10, tol_feas=1e-10)
    return problem.value, c.value


def sign_pairs(k, n):
    """Every uvᵀ, u ∈ {±1}^k and v ∈ {±1}^n, up to the common sign."""
    left = np.array([(1, *rest) for rest in product((1, -1), repeat=k - 1)])
    right = np.array(list(product((1, -1), repeat=n)))
    return (left[:, None, :, None] * right[None, :, None, :]).reshape(-1, k, n)


def largest_sign_margin(labels, k, favour=None):
    """The largest γ (or ⟨favour, Z⟩ where γ is largest) over Z in the hull of the sign pairs, as a linear program."""
    pairs, n = sign_pairs(k, len(labels)), len(labels)
    held = [[*(pairs[:, j, i] - pairs[:, y, i]), 1.0] for i, y in enumerate(labels) for j in range(k) if j != y]
    total = [[*np.ones(len(pairs)), 0.0]]
    found = linprog([*np.zeros(len(pairs)), -1.0], A_ub=held, b_ub=np.zeros(len(held)), A_eq=total, b_eq=[1.0])
    if favour is None:
        return found.x[-1]
    bounds = [(0, None)] * len(pairs) + [(found.x[-1] - 1e-10, None)]
    cost = [*-np.tensordot(pairs, favour, 2), 0.0]
    second = linprog(cost, A_ub=held, b_ub=np.zeros(len(held)), A_eq=total, b_eq=[1.0], bounds=bounds)
    return np.tensordot(second.x[:-1], pairs, 1).reshape(k, n)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(("norm", "convex"), [("nuclear", cp.normNuc), ("spectral", cp.sigma_max)])
def test_cvxpy_finds_the_same_margin(counts, norm, convex):
    geometry = predict(counts, norm=norm)
    value, logits = by_cvxpy(counts, convex)
    assert geometry.objective == pytest.approx(value, rel=2e-8, abs=1e-12)
    assert geometry.margin == pytest.approx(1 / value, rel=2e-8, abs=1e-12)
    if geometry.unique:
        np.testing.assert_allclose(geometry.logits.dense(), logits, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("loss", "norm", "convex"), [("ldt", "nuclear", cp.normNuc), ("ldt", "spectral", cp.sigma_max),
                                                      ("cdt", "nuclear", cp.normNuc)])
def test_cvxpy_finds_the_same_margin_with_temperatures(loss, norm, convex):
    counts, delta = [30, 12, 4, 1], np.array([1.5, 0.8, 0.7, 0.4])
    geometry = predict(counts, loss, delta=delta, norm=norm)
    value, _ = by_cvxpy(counts, convex, **({"asked": 1 / delta} if loss == "ldt" else {"slope": delta}))
    assert geometry.objective == pytest.approx(value, rel=2e-8, abs=1e-12)


def test_random_counts_agree_with_cvxpy_in_the_spectral_norm():
    rng = np.random.default_rng(0)
    between = 0
    for _ in range(25):
        counts = np.round(10 ** rng.uniform(0, rng.choice([0.1, 0.5, 2.0]), rng.integers(2, 7)), 3)
        geometry = predict(counts, norm="spectral")
        assert geometry.objective == pytest.approx(by_cvxpy(counts, cp.sigma_max)[0], rel=2e-8, abs=1e-12)
        first, second = np.sort(counts)[:-3:-1]
        least = np.sqrt(max((first + second) / 2, first * (1 - 1 / counts.size)))
        between += geometry.objective > least * (1 + 1e-6)
    assert 0 < between < 25  # both sides of the closed forms were met


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=30))
def test_what_the_spectral_geometry_claims_holds_for_its_logits(counts):
    n, k = np.array(counts, float), len(counts)
    geometry = predict(counts, norm="spectral")
    logits, sigma = geometry.logits.dense(), geometry.objective
    a = logits * np.sqrt(n)
    assert geometry.gap < 1e-9
    assert margins(logits).min() > 1 - 1e-12
    assert np.linalg.norm(a, 2) == pytest.approx(sigma, rel=1e-12, abs=1e-12)
    first, second = np.sort(n)[:-3:-1]
    assert sigma**2 <= first * (1 + 1e-12)
    assert sigma**2 >= max((first + second) / 2, first * (1 - 1 / k)) * (1 - 1e-9)
    # A Aᵀ = σ²P, hence simplex classifiers; the means are the balanced factor of the same logits.
    np.testing.assert_allclose(a @ a.T, sigma**2 * (np.eye(k) - 1 / k), rtol=0, atol=1e-10 * sigma**2)
    np.testing.assert_allclose(geometry.classifiers.dense(), sigma * (np.eye(k) - 1 / k), rtol=0, atol=1e-12 * sigma)
    root = sqrt_psd(a.T @ a)
    np.testing.assert_allclose(geometry.embeddings.dense() * np.sqrt(np.outer(n, n)), root, rtol=0, atol=3e-7 * sigma)


@pytest.mark.parametrize(("counts", "square"), [
    ([9, 9, 4, 1], 9), ([7, 7], 7), ([5, 3], 4), ([100, 92, 3, 2, 1], 96), ([1000, 3, 2, 1], 750), ([60, 5, 4], 40)])
def test_the_spectral_norm_in_closed_form(counts, square):
    assert predict(counts, norm="spectral").objective == pytest.approx(np.sqrt(square), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(("k", "ratio"), [(3, 2.0), (4, 2.0), (5, 1.5), (10, 1.1), (100, 1.01)])
def test_one_class_above_equal_ones_solves_a_quadratic(k, ratio):
    # (k − 4)σ² − 2√m(k − 2)σ + n + m(k − 1) = 0 between √n and √(n(1 − 1/k)): all margins of the small classes alike.
    n, m = 10 * ratio, 10.0
    roots = np.roots([k - 4, -2 * np.sqrt(m) * (k - 2), n + m * (k - 1)][(k == 4):]).real
    sigma = min(root for root in roots if root > np.sqrt(m))
    assert n * (1 - 1 / k) < sigma**2 < n
    assert predict([n] + [m] * (k - 1), norm="spectral").objective == pytest.approx(sigma, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_the_spectral_optimum_is_not_unique(counts):
    geometry = predict(counts, norm="spectral")
    logits = geometry.logits.dense()
    a = logits * np.sqrt(counts)
    null = np.linalg.svd(a)[2][-1]
    other = a + np.outer(np.ones(len(counts)), null) * geometry.objective / np.sqrt(len(counts))
    assert geometry.unique is False
    assert np.linalg.norm(other, 2) == pytest.approx(geometry.objective, rel=1e-10, abs=1e-12)
    np.testing.assert_allclose(margins(other / np.sqrt(counts)), margins(logits), rtol=1e-9, atol=1e-9)
    assert np.linalg.norm(other @ other.T - a @ a.T) > 0.5 * geometry.objective**2


@pytest.mark.parametrize("counts", [[9, 9, 4, 1], [7, 7, 7], [50, 50, 50, 2, 1, 1]])
def test_seli_has_the_largest_spectral_margin_too_where_two_classes_are_largest(counts):
    geometry, seli = predict(counts, norm="spectral"), predict(counts)
    assert np.linalg.norm(seli.logits.dense() * np.sqrt(counts), 2) == pytest.approx(geometry.objective, rel=1e-12,
                                                                                     abs=1e-12)


def test_ldt_at_the_square_root_of_the_counts_has_one_answer_in_both_norms():
    counts = [40, 9, 2, 1]
    nuclear, spectral = (predict(counts, "ldt", delta=np.sqrt(counts), norm=norm) for norm in ("nuclear", "spectral"))
    np.testing.assert_allclose(spectral.logits.dense(), nuclear.logits.dense(), rtol=0, atol=1e-12)
    assert spectral.objective == pytest.approx(1.0, rel=1e-12, abs=1e-12)
    assert nuclear.objective == pytest.approx(3.0, rel=1e-12, abs=1e-12)


def test_a_hundred_thousand_distinct_counts_are_certified():
    geometry = predict(1e6 * 1e4 ** (-np.linspace(0, 1, 100_000)), norm="spectral")
    assert geometry.gap < 1e-9
    assert geometry.objective == pytest.approx(1e3 * np.sqrt(1 - 1e-5), rel=1e-9, abs=1e-12)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=12), st.sampled_from(["ce", "ldt", "cdt"]),
       st.randoms(use_true_random=False))
def test_seli_is_certified_by_a_feasible_dual(counts, loss, random):
    delta = {} if loss == "ce" else {"delta": [random.uniform(0.3, 3) for _ in counts]}
    geometry, limit = predict(counts, loss, norm="nuclear", **delta), predict(counts, loss, **delta)
    assert 0 <= geometry.gap < 1e-12
    singular = np.linalg.svd(geometry.logits.dense() * np.sqrt(counts), compute_uv=False)
    assert geometry.objective == pytest.approx(singular.sum(), rel=1e-12, abs=1e-12)
    assert np.array_equal(geometry.classifiers.dense(), limit.classifiers.dense())
    assert geometry.thresholds == limit.thresholds


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_a_linear_program_over_sign_vectors_finds_the_same_margin_and_only_those_logits(k):
    geometry = predict(np.arange(k) + 1, norm="max")
    assert geometry.margin == pytest.approx(largest_sign_margin(range(k), k), rel=1e-9, abs=1e-9)
    rng = np.random.default_rng(k)
    for _ in range(3):
        logits = largest_sign_margin(range(k), k, favour=rng.standard_normal((k, k)))
        np.testing.assert_allclose(geometry.logits.dense() * geometry.margin, logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 1]])
def test_repeating_samples_changes_no_margin_in_the_max_norm(labels):
    counts = np.bincount(labels)
    assert predict(counts, norm="max").margin == pytest.approx(largest_sign_margin(labels, counts.size), rel=1e-9,
                                                               abs=1e-9)


@pytest.mark.parametrize("k", [2, 3, 4, 5, 6])
def test_rows_of_bounded_length_bound_the_sign_margin_from_above(k):
    # γ₂: Z = WᵀM with columns of length ≤ 1, as a semidefinite program.
    gram, margin = cp.Variable((2 * k, 2 * k), PSD=True), cp.Variable()
    cross = gram[:k, k:]
    problem = cp.Problem(cp.Maximize(margin), [cp.diag(gram) <= 1] + [
        cross[y, y] - cross[j, y] >= margin for y in range(k) for j in range(k) if j != y])
    problem.solve(solver=cp.CLARABEL)
    assert problem.value == pytest.approx(k / (k - 1), rel=1e-6, abs=1e-9)
    ours = predict([1] * k, norm="max").margin
    assert ours <= problem.value * (1 + 1e-6)
    assert (k % 2 == 1) == (ours < problem.value * (1 - 1e-3))


def halves(corners):
    """Every way to halve the classes, up to the common sign."""
    rows = -np.ones((0, corners), dtype=int)
    for half in combinations(range(1, corners), corners // 2 - 1):
        row = -np.ones(corners, dtype=int)
        row[[0, *half]] = 1
        rows = np.vstack([rows, row])
    return rows


@pytest.mark.parametrize(("k", "signs"), [(2, halves(2)), (3, hadamard(4)[1:]), (4, hadamard(4)[1:]), (5, halves(6)),
                                          (6, halves(6)), (7, hadamard(8)[1:]), (8, hadamard(8)[1:]),
                                          (31, hadamard(32)[1:])])
def test_sign_vectors_of_a_design_attain_the_max_norm_margin(k, signs):
    signs = signs[:, :k]
    attained = signs.T @ signs / signs.shape[0]
    geometry = predict(np.arange(k) + 1, norm="max")
    np.testing.assert_allclose(margins(attained), geometry.margin, rtol=1e-12, atol=1e-12)
    for gram in (geometry.classifiers, geometry.embeddings, geometry.logits):
        np.testing.assert_allclose(gram.dense() * geometry.margin, attained, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS.names)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_permuting_classes_and_scaling_counts(norm, counts):
    counts = np.array(counts)
    order = np.random.default_rng(0).permutation(counts.size)
    geometry, permuted, scaled = (predict(n, norm=norm) for n in (counts, counts[order], counts * 1e3))
    for name in ("classifiers", "embeddings", "logits"):
        one, two = getattr(geometry, name).dense(), getattr(permuted, name).dense()
        np.testing.assert_allclose(one[np.ix_(order, order)], two, rtol=0, atol=1e-12 * np.abs(one).max())
    np.testing.assert_allclose(scaled.logits.dense(), geometry.logits.dense(), rtol=0, atol=1e-6)
    assert scaled.margin * (1 if norm == "max" else np.sqrt(1e3)) == pytest.approx(geometry.margin, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("norm", NORMS.names)
def test_factors_realise_the_geometry_in_every_norm(norm):
    geometry = predict([30, 9, 3, 1, 1], norm=norm)
    classifiers, means = geometry.factors(11, seed=0)
    for ours, gram in ((classifiers @ classifiers.T, geometry.classifiers), (means @ means.T, geometry.embeddings),
                       (classifiers @ means.T, geometry.logits)):
        np.testing.assert_allclose(ours, gram.dense(), rtol=0, atol=1e-12 * gram.frobenius)


@pytest.mark.parametrize("norm", NORMS.names)
@pytest.mark.parametrize("k", [2, 4, 10])
def test_equal_counts_of_an_even_number_of_classes_give_the_simplex_in_every_norm(norm, k):
    geometry = predict([7] * k, norm=norm)
    simplex = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
    for gram in (geometry.classifiers, geometry.embeddings):
        np.testing.assert_allclose(gram.unit().dense(), simplex, rtol=0, atol=1e-12)


def test_the_contract_of_to_dict_grows_only_where_a_norm_was_asked():
    plain, asked = predict([10, 3, 1]).to_dict(), predict([10, 3, 1], norm="max").to_dict()
    assert asked.keys() - plain.keys() == {"norm", "margin", "unique"}
    assert (asked["norm"], asked["margin"], asked["unique"], asked["gap"]) == ("max", 4 / 3, True, 0.0)
    assert json.loads(json.dumps(asked, allow_nan=False)) == asked


def test_a_gap_out_of_reach_is_warned_about_and_returned():
    with pytest.warns(NotConverged, match=r"^norm 'spectral': relative duality gap \S+ instead of 1\.0e-18$"):
        geometry = predict([100, 60, 60, 55], norm="spectral", tolerance=1e-18)
    assert 0 < geometry.gap < 1e-12


@pytest.mark.parametrize(("arguments", "kind", "message"), [
    ({"norm": "spectrl"}, InvalidInput,
     "unknown norm 'spectrl': did you mean 'spectral'? known: max, nuclear, spectral"),
    ({"norm": "max", "loss": "cee"}, InvalidInput, "unknown loss 'cee': "),
    ({"norm": "max", "ridge": 0.1}, OutsideTheory,
     "the optimiser's norm decides where a vanishing ridge leads, a finite ridge leads to its own optimum, got ridge "
     "0.1 and norm 'max': leave one of them out"),
    ({"norm": "nuclear", "bias": True}, OutsideTheory,
     "the limit of vanishing ridge is known without a head bias only: leave the bias out, or give a small ridge such "
     "as 1e-6"),
    ({"norm": "nuclear", "loss": "mse"}, OutsideTheory,
     "the optimiser's norm is known to matter for the cross-entropy family, got loss 'mse': ask for loss 'ce', or "
     "leave the norm out"),
    ({"norm": "spectral", "loss": "relu-ce"}, OutsideTheory,
     "the optimiser's norm is known to matter for the cross-entropy family, got loss 'relu-ce': ask for loss 'ce', or "
     "leave the norm out"),
    ({"norm": "spectral", "loss": "cdt", "delta": [1, 2, 3]}, OutsideTheory,
     "the spectral norm's largest margin is known for label temperatures, not for class temperatures: ask for loss "
     "'ldt', or for norm 'nuclear'"),
    ({"norm": "max", "loss": "ldt", "delta": [1, 2, 3]}, OutsideTheory,
     "the max norm's largest margin is known without temperatures: leave delta out, or ask for norm 'nuclear'"),
    ({"norm": "spectral", "loss": "ldt", "delta": [1, 2]}, InvalidInput,
     "delta must be 3 numbers, one per class, got 2 ([1, 2])"),
    ({"norm": "max", "gamma": 1}, InvalidInput, "loss 'ce' takes no gamma: "),
])
def test_what_no_theorem_covers_is_refused_in_one_line(arguments, kind, message):
    with pytest.raises(kind) as caught:
        predict([10, 3, 1], **arguments)
    said = str(caught.value)
    assert type(caught.value) is kind
    assert said.startswith(message) if message.endswith(": ") else said == message
    assert "\n" not in said

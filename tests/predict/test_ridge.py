"""Finite ridge: certificates, independent solvers, invariances, thresholds, the reference vectors."""

import warnings

import cvxpy as cp
from hypothesis import given, settings
from hypothesis import strategies as st
import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import xlogy

from neuralcollapse.checks import InvalidInput, NotConverged, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from references import VECTORS, unit_distance


def objective(counts, logits, ridge, *, bias=None, bias_ridge=0.0, weight=1.0, delta=1.0, iota=0.0,
              temperature="class"):
    """The primal objective from dense logits alone, written from theory.md §4."""
    n, k = np.asarray(counts, float), len(counts)
    bias = np.zeros(k) if bias is None else bias
    delta = np.broadcast_to(delta, k)
    scale = delta[:, None] if temperature == "class" else delta[None, :]
    z = scale * (logits + bias[:, None]) + np.broadcast_to(iota, k)[:, None]
    loss = np.sum(n * weight * cross_entropies(z))
    return loss + ridge * np.linalg.norm(logits * np.sqrt(n), "nuc") + bias_ridge / 2 * np.sum(bias**2)


def cross_entropies(z):
    """−log softmax of the label of each column, without cancelling: log(1 + Σ_{c≠y} e^{z_c − z_y})."""
    odds = [[mpmath.mpf(float(z[c, y])) - mpmath.mpf(float(z[y, y])) for c in range(len(z)) if c != y]
            for y in range(len(z))]
    return np.array([float(mpmath.log1p(mpmath.fsum(mpmath.exp(x) for x in column))) for column in odds])


def dual_gap(counts, logits, ridge, *, weight=1.0, delta=1.0, iota=0.0, temperature="class"):
    """Relative duality gap recomputed from dense logits (no bias): θ = Γ·min(1, λ/‖Γ‖₂) and negative entropies."""
    n, k = np.asarray(counts, float), len(counts)
    weight, delta, iota = (np.broadcast_to(np.asarray(x, float), k) for x in (weight, delta, iota))
    scale = np.repeat(delta[:, None], k, 1) if temperature == "class" else np.repeat(delta[None], k, 0)
    z = scale * logits + iota[:, None]
    p = np.exp(z - z.max(0))
    p /= p.sum(0)
    off = p * (1 - np.eye(k))
    residual = off - np.diag(off.sum(0))
    gamma = n * weight * scale * residual / np.sqrt(n)
    s = min(1.0, ridge / np.linalg.norm(gamma, 2))
    right = s * off.sum(0)  # 1 − q of the label
    entropy = xlogy(s * off, s * off).sum(0) + (1 - right) * np.log1p(-np.minimum(right, 1 - 1e-16))
    conjugate = np.sum(n * weight * (entropy - s * np.sum(residual * iota[:, None], axis=0)))
    primal = objective(counts, logits, ridge, weight=weight, delta=delta, iota=iota, temperature=temperature)
    return (primal + conjugate) / primal


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] == "ridge"], ids=lambda v: str(v["counts"]))
def test_reference_vectors(vector):
    parameters = {name: vector[name] for name in ("weight", "delta", "iota")}
    geometry = predict(vector["counts"], ridge=vector["lam"], bias=vector["bias"], **parameters)
    assert geometry.gap < 1e-9
    # The vectors were solved to about 1e-9 in the objective, hence to 3e-5 in the Grams; ours is never above them.
    assert geometry.objective == pytest.approx(vector["objective"], rel=2e-9)
    assert geometry.objective <= vector["objective"]
    np.testing.assert_allclose(geometry.classifiers.unit().dense(), vector["gram_w"], atol=5e-5)
    np.testing.assert_allclose(geometry.embeddings.unit().dense(), vector["gram_m"], atol=5e-5)


def test_the_check_value_of_the_theory():
    geometry = predict([10] * 5 + [1] * 5, ridge=0.1)
    assert geometry.objective == pytest.approx(12.1775104, abs=2e-7)


losses = st.fixed_dictionaries({}, optional={
    "weight": st.just(True), "delta": st.just(True), "iota": st.just(True), "temperature": st.sampled_from(["label"])})


def drawn(counts, kinds, seed):
    rng = np.random.default_rng(seed)
    k = len(counts)
    values = {"weight": 10 ** rng.uniform(-1, 1, k), "delta": 10 ** rng.uniform(-0.7, 0.7, k),
              "iota": rng.normal(0, 2, k), "temperature": "label"}
    return {name: values[name] for name in kinds}


@settings(max_examples=500)
@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=12), st.floats(-9.5, 0.5), losses,
       st.sampled_from([None, 0.0, 0.01, 1.0, 100.0]), st.booleans(), st.integers(0, 10**6))
def test_every_random_problem_is_certified(counts, exponent, kinds, bias_ridge, repeat, seed):
    counts = counts * 2 if repeat and len(counts) < 7 else counts
    parameters = drawn(counts, kinds, seed)
    ridge = np.sqrt(max(counts)) * 10**exponent
    bias = {} if bias_ridge is None else {"bias": True, "bias_ridge": bias_ridge or None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConverged)  # the gap is asserted instead
        geometry = predict(counts, ridge=ridge, **bias, **parameters)
    assert geometry.gap <= 1e-8
    logits = geometry.logits.dense()
    found = objective(counts, logits, ridge, bias=geometry.bias_values, bias_ridge=bias_ridge or 0.0, **parameters)
    assert geometry.objective == pytest.approx(found, rel=1e-9)
    if bias_ridge is None:
        assert dual_gap(counts, logits, ridge, **parameters) <= 2e-8


@settings(max_examples=40)
@given(st.lists(st.integers(1, 10**4), min_size=2, max_size=7), st.floats(-4, 0.2), losses, st.integers(0, 10**6))
def test_permuting_classes_scaling_and_shifting_change_nothing(counts, exponent, kinds, seed):
    rng = np.random.default_rng(seed)
    parameters = drawn(counts, kinds, seed)
    counts = np.array(counts)
    ridge = np.sqrt(counts.max()) * 10**exponent
    one = predict(counts, ridge=ridge, tolerance=1e-13, **parameters)
    order = rng.permutation(counts.size)
    permuted = predict(counts[order], ridge=ridge, tolerance=1e-13, **{
        name: v[order] if isinstance(v, np.ndarray) else v for name, v in parameters.items()})
    # Scaling all counts by s² and λ by s leaves C and the loss per sample; adding a constant to ι nothing at all.
    scaled = predict(counts * 4.0, ridge=ridge * 2, tolerance=1e-13, **parameters)
    shifted = predict(counts, ridge=ridge, tolerance=1e-13,
                      **{**parameters, "iota": parameters.get("iota", np.zeros(counts.size)) + 3.7})
    scale = np.abs(one.logits.dense()).max() + 1e-9
    np.testing.assert_allclose(permuted.logits.dense(), one.logits.dense()[np.ix_(order, order)], atol=1e-4 * scale)
    np.testing.assert_allclose(shifted.logits.dense(), one.logits.dense(), atol=1e-4 * scale)
    np.testing.assert_allclose(scaled.logits.dense(), one.logits.dense(), atol=1e-4 * scale)
    assert permuted.objective == pytest.approx(one.objective, rel=1e-10)
    assert shifted.objective == pytest.approx(one.objective, rel=1e-10)
    assert scaled.objective == pytest.approx(4 * one.objective, rel=1e-10)


@pytest.mark.parametrize(("counts", "ridge", "parameters"), [
    ([10, 4, 1], 0.3, {}), ([10, 10, 1, 1], 1.5, {}), ([30, 9, 3, 1], 1.0, {"iota": [0.5, 0, -0.5, 1]}),
    ([20, 5, 5], 0.2, {"weight": [1, 2, 0.5]}), ([20, 5, 2], 0.4, {"delta": [1, 0.6, 1.5]}),
    ([20, 5, 2], 0.4, {"delta": [1, 0.6, 1.5], "temperature": "label"}), ([12, 3, 2], 0.5, {"bias": True}),
    ([12, 3, 2], 0.5, {"bias": True, "bias_ridge": 2.0})])
def test_cvxpy_finds_the_same_optimum(counts, ridge, parameters):
    n, k = np.array(counts, float), len(counts)
    c, b = cp.Variable((k, k)), cp.Variable(k)
    weight, delta, iota = (np.array(parameters.get(name, default), float)
                           for name, default in (("weight", np.ones(k)), ("delta", np.ones(k)), ("iota", np.zeros(k))))
    loss = 0
    for y in range(k):
        z = cp.multiply(delta if parameters.get("temperature") != "label" else np.full(k, delta[y]), c[:, y] + b) + iota
        loss += n[y] * weight[y] * (cp.log_sum_exp(z) - z[y])
    penalty = ridge * cp.normNuc(c @ np.diag(np.sqrt(n))) + parameters.get("bias_ridge", 0) / 2 * cp.sum_squares(b)
    problem = cp.Problem(cp.Minimize(loss + penalty), [] if parameters.get("bias") else [b == 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver=cp.SCS, eps=1e-8, max_iters=100_000)
    geometry = predict(counts, ridge=ridge, **parameters)
    assert geometry.objective == pytest.approx(problem.value, rel=1e-6)
    np.testing.assert_allclose(geometry.logits.dense(), c.value - c.value.mean(0) if "delta" not in parameters
                               else c.value, atol=3e-3)


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_direct_minimisation_of_the_unconstrained_features_model_agrees(loss):
    counts, ridge, d = np.array([6, 6, 2, 1]), 0.4, 5
    k = counts.size
    root = np.sqrt(counts)

    def value(flat):
        w, v = flat.reshape(2, k, d)  # v holds √n_c μ_c: within-class collapse at the optimum (theory.md §1)
        z = w @ (v / root[:, None]).T
        if loss == "ce":
            p = np.exp(z - z.max(0))
            total = p.sum(0)
            part, slope = np.sum(counts * (np.log(total) + z.max(0) - z.diagonal())), counts * (p / total - np.eye(k))
        else:
            part, slope = 0.5 * np.sum(counts * (z - np.eye(k)) ** 2), counts * (z - np.eye(k))
        scaled = slope / root
        gradient = np.stack([scaled @ v + ridge * w, scaled.T @ w + ridge * v])
        return part + ridge / 2 * np.sum(flat**2), gradient.ravel()

    start = np.random.default_rng(0).standard_normal(2 * k * d)
    found = minimize(value, start, jac=True, method="L-BFGS-B",
                     options={"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-9})
    geometry = predict(counts, loss, ridge=ridge)
    assert found.fun == pytest.approx(geometry.objective, rel=1e-8)
    w, v = found.x.reshape(2, k, d)
    means = v / root[:, None]
    assert geometry.classifiers.distance(w) < 1e-3
    assert geometry.embeddings.distance(means) < 1e-3
    np.testing.assert_allclose(np.sqrt(np.sum(w**2, 1)), geometry.classifiers.norms, atol=2e-3)


def test_direct_minimisation_on_nonnegative_features_agrees():
    counts, ridge, d = np.array([9, 4, 2]), 0.5, 6
    k = counts.size

    def value(flat):
        w, h = flat[:k * d].reshape(k, d), flat[k * d:].reshape(k, d)
        z = w @ h.T
        p = np.exp(z - z.max(0))
        slope = counts * (p / p.sum(0) - np.eye(k))
        part = np.sum(counts * (np.log(p.sum(0)) + z.max(0) - z.diagonal()))
        gradient = np.concatenate([(slope @ h + ridge * w).ravel(),
                                   (slope.T @ w + ridge * counts[:, None] * h).ravel()])
        return part + ridge / 2 * (np.sum(w**2) + np.sum(counts[:, None] * h**2)), gradient

    best = min((minimize(value, np.abs(np.random.default_rng(seed).standard_normal(2 * k * d)), jac=True,
                         method="L-BFGS-B", bounds=[(None, None)] * (k * d) + [(0, None)] * (k * d),
                         options={"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-10}) for seed in range(12)),
               key=lambda found: found.fun)
    geometry = predict(counts, "relu-ce", ridge=ridge)
    assert best.fun == pytest.approx(geometry.objective, rel=1e-8)
    w, h = best.x[:k * d].reshape(k, d), best.x[k * d:].reshape(k, d)
    np.testing.assert_allclose(h @ h.T, geometry.embeddings.dense(), atol=1e-4)
    np.testing.assert_allclose(w @ w.T, geometry.classifiers.dense(), atol=1e-3)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["kind"] in ("mse", "relu-ce")],
                         ids=lambda v: f"{v['kind']}-{v['counts']}")
def test_closed_form_vectors(vector):
    geometry = predict(vector["counts"], vector["kind"], ridge=vector["lam"])
    if vector["kind"] == "mse":
        np.testing.assert_allclose(geometry.classifiers.unit().dense(), vector["gram_w"], atol=1e-12)
        np.testing.assert_allclose(geometry.embeddings.unit().dense(), vector["gram_m"], atol=1e-12)
    else:
        logits = geometry.logits.dense()
        np.testing.assert_allclose(logits.diagonal() - logits[(np.arange(len(logits)) + 1) % len(logits),
                                                              np.arange(len(logits))], vector["gaps"], atol=1e-9)
        assert geometry.objective == pytest.approx(vector["objective"], rel=1e-9)


@pytest.mark.parametrize("parameters", [{}, {"weight": [2, 2, 3, 3]}, {"delta": [1, 1, 0.5, 0.5]}])
def test_equal_classes_merge_exactly_at_their_threshold(parameters):
    counts = [100, 100, 4, 4]
    threshold = 2 * parameters.get("weight", [1] * 4)[2] * parameters.get("delta", [1] * 4)[2]
    geometry = predict(counts, ridge=threshold * 0.999, **parameters)
    assert geometry.thresholds["minority_collapse"] == pytest.approx(threshold, rel=1e-12)
    below, above = (predict(counts, ridge=threshold * f, **parameters).classifiers.cosines()[2, 3]
                    for f in (0.99, 1.0))
    assert below < 1 - 1e-6
    assert above == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("parameters", [{}, {"bias": True}, {"bias": True, "bias_ridge": 3.0},
                                        {"weight": [1, 2, 3], "delta": [1, 0.5, 2], "iota": [1, 0, -1]}])
def test_everything_vanishes_exactly_at_total_collapse(parameters):
    counts = [50, 20, 3]
    top = predict(counts, ridge=1.0, **parameters).thresholds["total_collapse"]
    assert predict(counts, ridge=top * 1.0001, **parameters).classifiers.frobenius == 0
    assert predict(counts, ridge=top * 0.999, **parameters).classifiers.frobenius > 0


@pytest.mark.parametrize(("counts", "parameters"), [
    ([50, 20, 9, 3], {}), ([50, 20, 9, 3], {"weight": [0.2, 1, 3, 9]}), ([9, 4, 1], {"delta": [3, 1, 2]}),
    (np.geomspace(5000, 50, 40), {}), (np.geomspace(1000, 1, 12), {"iota": np.linspace(2, -2, 12)})])
def test_thresholds_without_a_closed_form_are_bracketed(counts, parameters):
    first = predict(counts, **parameters).thresholds["minority_collapse"]
    ranks = [predict(counts, ridge=first * factor, **parameters).rank for factor in (0.2, 0.7, 1 - 2e-5, 1 + 2e-5)]
    assert ranks[:3] == [len(counts) - 1] * 3
    assert ranks[3] < len(counts) - 1


@pytest.mark.parametrize(("counts", "parameters"), [
    ([50, 20, 9, 3], {}), ([100, 100, 4, 4], {}), ([100, 100, 4, 4], {"weight": [2, 2, 3, 3]}),
    ([10, 10, 1, 1], {"delta": [1, 2, 3, 4]}), ([9, 4, 1], {"delta": [1, 2, 3], "temperature": "label"}),
    (np.arange(1.0, 66.0), {})])
def test_thresholds_are_of_the_counts_and_the_loss_whatever_the_ridge(counts, parameters):
    limit, one = (predict(counts, ridge=ridge, **parameters).thresholds for ridge in (None, 0.5))
    assert limit == {name: value and pytest.approx(value, rel=1e-12) for name, value in one.items()}


@given(st.integers(2, 50), st.floats(1, 1e6), st.floats(-8, 0.2))
def test_equal_counts_give_the_simplex_at_every_ridge(k, n, exponent):
    geometry = predict([n] * k, ridge=np.sqrt(n) * 10**exponent)
    if geometry.classifiers.frobenius == 0:
        assert exponent > -1e-12
    else:
        simplex = (np.eye(k) - 1 / k) / np.sqrt(k - 1)
        np.testing.assert_allclose(geometry.classifiers.unit().dense(), simplex, atol=1e-12)


def test_the_limit_is_approached_as_the_theory_says():
    root = np.sqrt([10, 10, 1, 1])  # the logits of all samples: each class's column counts n_c times
    limit = predict([10, 10, 1, 1]).logits.dense() * root
    distances = [unit_distance(predict([10, 10, 1, 1], ridge=10.0**-p).logits.dense() * root, limit) for p in range(5)]
    np.testing.assert_allclose(distances, [0.354, 0.143, 0.099, 0.077, 0.062], atol=5e-4)


def test_a_million_classes_are_six_scalars():
    geometry = predict(ClassCounts.step(10**6, 100, n_min=7), ridge=0.5)
    assert geometry.gap < 1e-9
    assert geometry.classifiers.core.shape == (2, 2)
    small = predict(ClassCounts.step(10**4, 100, n_min=7), ridge=0.5)
    assert geometry.classifiers.norms[-1] == pytest.approx(small.classifiers.norms[-1], rel=0.2)


BAD = [
    (lambda: predict([5, 1], ridge=0), "ridge must be a positive number, got 0"),
    (lambda: predict([5, 1], ridge=float("nan")), "ridge must be a positive number, got nan"),
    (lambda: predict([5, 1], ridge=-1), "ridge must be a positive number, got -1"),
    (lambda: predict([5, 1], ridge=1, weight=[1, 0]), "weight must be positive, got 0 for class 1"),
    (lambda: predict([5, 1], ridge=1, delta=[1, 2, 3]),
     "delta must be 2 numbers, one per class, got 3 ([1, 2, 3])"),
    (lambda: predict([5, 1], ridge=1, bias_ridge=1.0), "bias_ridge was given without a bias, got 1.0: ask for a bias "
                                                       "too"),
    (lambda: predict([5, 1], "mse", ridge=1, bias=True), "the geometry of square loss is known without a head bias "
     "only: leave the bias out, or use loss 'ce', whose bias may be free or have a ridge"),
    (lambda: predict([5, 1], bias=True), "the limit of vanishing ridge is known without a head bias only: leave the "
                                         "bias out, or give a small ridge such as 1e-6"),
    (lambda: predict([5, 1], "etf", ridge=1), "the simplex ETF has no ridge or bias: leave both out, or ask for loss "
                                              "'ce'"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_bad_input_gets_its_one_line(call, message):
    with pytest.raises((InvalidInput, OutsideTheory)) as caught:
        call()
    assert str(caught.value) == message

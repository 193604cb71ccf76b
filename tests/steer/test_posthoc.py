"""Post-hoc remedies against loops, scikit-learn and the exact free model; laws that each of them obeys."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file
from scipy.optimize import linprog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.neighbors import NearestCentroid
import torch
from torch import nn

from neuralcollapse.checks import InvalidInput, OutsideTheory
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.registry import references
from neuralcollapse.simulate import simulate
from neuralcollapse.steer.equal_margins import equal_margins
from neuralcollapse.steer.posthoc import (
    POSTHOC,
    PosthocRow,
    evaluate_posthoc,
    logit_adjustment,
    nearest_class_mean,
    save_heads,
    tau_normalised,
)
from neuralcollapse.steer.refit import refit
from neuralcollapse.steer.repair import predicted_norms, repair, swap
from neuralcollapse.steer.rules import FittedRule
from neuralcollapse.steer.scores import scores

NAMES = [entry.name for entry in POSTHOC]


def margins(logits):
    """Of a (k, k) matrix whose column c holds the logits of class c, by loops."""
    k = len(logits)
    return np.array([logits[c, c] - max(logits[j, c] for j in range(k) if j != c) for c in range(k)])


def mixture(counts, seed, d=12, spread=1.0, apart=3.0):
    """Gaussian classes of unit spread, means on orthogonal axes, off the origin."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = apart * np.eye(len(counts), d) + 0.7
    return means[labels] + spread * rng.standard_normal((labels.size, d)), labels


def plain_head(features, labels, weight_decay=1e-3):
    fitted = LogisticRegression(C=1 / (len(labels) * weight_decay), tol=1e-8, max_iter=5000).fit(features, labels)
    return fitted.coef_, fitted.intercept_


def arrays(seed=0, counts=(40, 9, 9, 3)):
    rng = np.random.default_rng(seed)
    features, labels = mixture(counts, seed, d=6)
    return features, labels, rng.standard_normal((len(counts), 6)), rng.standard_normal(len(counts))


# -- the formulas -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_tau_normalised_by_loops(tau):
    features, labels, weight, bias = arrays()
    rule = tau_normalised(features, labels, weight, bias, tau=tau)
    for i in range(5):
        for c in range(4):
            length = sum(w * w for w in weight[c]) ** 0.5
            expected = sum(weight[c, j] / length**tau * features[i, j] for j in range(6))
            assert rule.logits(features)[i, c].item() == pytest.approx(expected, rel=1e-12)


def test_logit_adjustment_by_loops_and_its_prior():
    features, labels, weight, bias = arrays()
    counts = [40, 9, 9, 3]
    found = logit_adjustment(features, labels, weight, bias, tau=1.5).logits(features)
    for i in range(5):
        for c in range(4):
            expected = features[i] @ weight[c] + bias[c] - 1.5 * np.log(counts[c] / 61)
            assert found[i, c].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    # At τ = 1: the posterior over the prior, renormalised.
    posterior = torch.softmax(torch.tensor(features @ weight.T + bias), 1)
    balanced = posterior / torch.tensor(counts)
    adjusted = logit_adjustment(None, None, weight, bias, counts).logits(features)
    np.testing.assert_allclose(torch.softmax(adjusted, 1), balanced / balanced.sum(1, keepdim=True), atol=1e-13)


def test_nearest_class_mean_is_the_nearest_centroid():
    features, labels, weight, bias = arrays()
    rule = nearest_class_mean(features, labels, weight, bias)
    test = np.random.default_rng(9).standard_normal((200, 6)) * 3
    assert (rule.logits(test).argmax(1).numpy() == NearestCentroid().fit(features, labels).predict(test)).all()
    distances = [[np.sum((h - features[labels == c].mean(0)) ** 2) for c in range(4)] for h in test]
    offset = np.sum(test**2, 1, keepdims=True)
    np.testing.assert_allclose(rule.logits(test), offset - distances, atol=1e-10)
    cosines = [[h @ m / np.linalg.norm(h) / np.linalg.norm(m) for m in
                (features[labels == c].mean(0) for c in range(4))] for h in test]
    by_angle = nearest_class_mean(features, labels, cosine=True).logits(test)
    np.testing.assert_allclose(by_angle.numpy() / np.linalg.norm(test, axis=1, keepdims=True), cosines, atol=1e-12)


@pytest.mark.parametrize("counts", [(40, 9, 9, 3), (30, 5)])
def test_refit_is_sklearns_balanced_regression(counts):
    features, labels = mixture(counts, seed=1, d=6)
    l2 = 1e-2
    rule = refit(features, labels, l2=l2)
    means = np.array([features[labels == c].mean(0) for c in range(len(counts))])
    centre = means.mean(0)
    spread = np.sqrt(np.mean([np.mean(np.sum((features[labels == c] - centre) ** 2, 1)) for c in range(len(counts))]))
    # scikit-learn writes two classes with one row w, whose penalty ‖w‖²/2 is half of ours: w = 2 w_1, ours 2‖w/2‖²/2.
    strength = l2 * len(labels) / (2 if len(counts) == 2 else 1)
    theirs = LogisticRegression(C=1 / strength, class_weight="balanced", tol=1e-10, max_iter=20_000)
    theirs.fit((features - centre) / spread, labels)
    test = np.random.default_rng(3).standard_normal((50, 6)) * 2
    np.testing.assert_allclose(torch.softmax(rule.logits(test), 1), theirs.predict_proba((test - centre) / spread),
                               atol=1e-5)


def test_refit_is_stationary_by_autograd_and_blind_to_shift_and_scale():
    features, labels = mixture((25, 6, 4), seed=2, d=5)
    rule = refit(features, labels, l2=1e-3)
    centre = torch.tensor(np.mean([features[labels == c].mean(0) for c in range(3)], 0))
    spread = torch.tensor(features - centre.numpy()).square().sum(1)
    spread = torch.stack([spread[labels == c].mean() for c in range(3)]).mean().sqrt()
    x, y = (torch.tensor(features) - centre) / spread, torch.tensor(labels)
    weight = (rule.weight * spread).requires_grad_()
    bias = (rule.bias + rule.weight @ centre).requires_grad_()
    losses = nn.functional.cross_entropy(x @ weight.T + bias, y, reduction="none")
    objective = torch.stack([losses[y == c].mean() for c in range(3)]).mean() + 5e-4 * weight.square().sum()
    for gradient in torch.autograd.grad(objective, (weight, bias)):
        assert gradient.abs().max() < 1e-6
    moved = refit(7 * features + 100, labels, l2=1e-3)
    np.testing.assert_allclose(moved.logits(7 * features + 100), rule.logits(features), atol=1e-3)
    assert torch.equal(refit(features, labels, l2=1e-3).weight, rule.weight)


# -- from the prediction ------------------------------------------------------------------------------------------


def best_smallest_margin(logits, scales):
    """The largest smallest margin that any offsets reach, by linear programming over all pairs of classes."""
    k = len(logits)
    rows, bounds = [], []
    for c in range(k):
        for j in range(k):
            if j != c:
                row = np.zeros(k + 1)
                row[c], row[j], row[k] = -1, 1, 1  # t ≤ s_c C_cc + β_c − s_j C_jc − β_j
                rows.append(row)
                bounds.append(scales[c] * logits[c, c] - scales[j] * logits[j, c])
    objective = np.zeros(k + 1)
    objective[k] = -1
    return -linprog(objective, rows, bounds, bounds=[(0, 0)] + [(None, None)] * k, method="highs").fun


@pytest.mark.parametrize("seed", range(8))
def test_equal_margins_are_equal_and_the_largest_there_are(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 9))
    logits, scales = rng.standard_normal((k, k)), rng.uniform(0.3, 3, k)
    offsets, margin = equal_margins(logits, np.full(k, -np.inf), scales)
    np.testing.assert_allclose(margins(scales[:, None] * logits + offsets[:, None]), margin, atol=1e-12)
    assert margin == pytest.approx(best_smallest_margin(logits, scales), abs=1e-9)
    assert offsets.sum() == pytest.approx(0, abs=1e-12)


SETTINGS = [([10, 10, 1, 1], 0.5, {}), ([100] * 5 + [1] * 5, 0.9, {}), ([50, 20, 20, 8, 3], 1.0, {}),
            ([30, 11, 7, 4, 2], 0.05, {"bias": True}), ([9, 9, 4, 4], 0.7, {"loss": "ldt", "delta": [3, 3, 2, 2]}),
            ([40, 9, 9, 2], None, {})]


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("counts", "ridge", "options"), SETTINGS)
def test_repair_gives_the_exact_solution_equal_margins(counts, ridge, options, tau):
    geometry = predict(counts, ridge=ridge, **options)
    W, M = geometry.factors(len(counts) + 3, seed=0)
    W, M = 3 * W, M / 3  # another λ_H/λ_W leaves logits where they are
    labels = np.repeat(np.arange(len(counts)), counts)
    for features in (None, M[labels]):
        rule = repair(features, None if features is None else labels, W, geometry.bias_values, counts,
                      geometry=geometry, tau=tau)
        found = margins(rule.logits(M).numpy().T)
        np.testing.assert_allclose(found, found[0], rtol=1e-9)
        assert rule.parameters["margin"] == pytest.approx(found[0], rel=1e-9)
        norms = geometry.classifiers.norms
        bias = 0 if geometry.bias_values is None else geometry.bias_values[:, None]
        reached = best_smallest_margin(geometry.logits.dense() + bias, (norms.mean() / norms) ** tau)
        assert found[0] == pytest.approx(reached, rel=1e-7)
    if ridge is not None:
        before = margins(geometry.logits.dense() + bias)
        assert before.max() - before.min() > 0.01 * before.max(), "there was something to repair"


def test_repair_gives_a_trained_free_model_equal_margins():
    counts = [12, 12, 3, 3]
    runs = simulate(counts, "nesterov", ridge=0.4, steps=4000, d=8, seeds=1, snapshots=1)
    W, H = runs.classifiers[0], runs.features[0]
    labels = np.repeat(np.arange(4), counts)
    plain, found = (margins(rule.logits(H).numpy()[np.cumsum(counts) - 1].T)
                    for rule in (tau_normalised(H, labels, W, tau=0), repair(H, labels, W, ridge=0.4)))
    assert plain.max() > 1.3 * plain.min()
    np.testing.assert_allclose(found, found[0], rtol=1e-5)  # as exactly as the run has converged


def test_a_ridge_is_told_from_the_logits():
    geometry = predict([60, 60, 5, 5], ridge=0.3)
    W, M = geometry.factors(6, seed=1)
    labels = np.repeat(np.arange(4), [60, 60, 5, 5])
    assert repair(M[labels], labels, W).parameters["ridge"] == pytest.approx(0.3, rel=0.02)


def test_repair_changes_nothing_in_the_vanishing_limit():
    W = predict([40, 9, 9, 2]).factors(6, seed=1)[0]
    rule = repair(None, None, W, counts=[40, 9, 9, 2], geometry=predict([40, 9, 9, 2]))
    np.testing.assert_allclose(rule.bias, 0, atol=1e-12)
    np.testing.assert_allclose(rule.weight, W, atol=0)


@pytest.mark.parametrize("ridge", [None, 0.5])
def test_predicted_norms_are_made_equal(ridge):
    counts = [40, 9, 9, 2]
    W, _ = predict(counts, ridge=ridge).factors(6, seed=2)
    rule = predicted_norms(None, None, W, counts=counts, ridge=ridge)
    np.testing.assert_allclose(rule.weight.norm(dim=1), np.linalg.norm(W, axis=1).mean(), rtol=1e-12)
    half = predicted_norms(None, None, W, counts=counts, ridge=ridge, tau=0.5)
    expected = np.linalg.norm(W, axis=1) ** 0.5 * np.linalg.norm(W, axis=1).mean() ** 0.5
    np.testing.assert_allclose(half.weight.norm(dim=1), expected, rtol=1e-12)


@pytest.mark.parametrize("ridge", [None, 0.5])
def test_swap_finds_the_predicted_head_in_any_pose(ridge):
    counts = [40, 9, 9, 2]
    labels = np.repeat(np.arange(4), counts)
    geometry = predict(counts, ridge=ridge)
    W, M = geometry.factors(7, seed=3)
    rng = np.random.default_rng(0)
    shift = rng.standard_normal(7)
    rule = swap(2.5 * M[labels] + shift, labels, 4 * W, geometry=geometry)
    # The pose undone: predicted logits up to the factor that gives the weight its old norm.
    found = rule.logits(2.5 * M + shift).numpy()
    np.testing.assert_allclose(found / np.linalg.norm(found), (M @ W.T) / np.linalg.norm(M @ W.T), atol=1e-10)
    assert rule.weight.norm().item() == pytest.approx(np.linalg.norm(4 * W), rel=1e-12)
    # Against Procrustes on noisy means by direct search: no rotation of a thousand comes nearer.
    noisy = M + 0.3 * rng.standard_normal(M.shape)
    Wf, Mf = geometry.factors()
    centred, target = Mf - Mf.mean(0), noisy - noisy.mean(0)
    turned = swap(noisy[labels], labels, W, geometry=geometry).weight.numpy()
    frame = np.linalg.pinv(Wf) @ turned
    frame *= np.sqrt(len(frame)) / np.linalg.norm(frame)
    best = np.trace(centred @ frame @ target.T)
    for _ in range(1000):
        other = np.linalg.qr(rng.standard_normal((7, geometry.rank)))[0].T
        near = np.linalg.qr((frame + 0.05 * rng.standard_normal(frame.shape)).T)[0].T
        near *= np.sign(np.sum(near * frame, 1, keepdims=True))
        assert max(np.trace(centred @ q @ target.T) for q in (other, near)) <= best + 1e-9


# -- laws ---------------------------------------------------------------------------------------------------------

OPTIONS = {"repair": {"ridge": 0.3}, "predicted-norms": {"ridge": 0.3}, "swap": {"ridge": 0.3}}


@pytest.mark.parametrize("name", NAMES)
def test_permuting_classes_permutes_the_rule(name):
    features, labels, weight, bias = arrays(5)
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order)
    one = POSTHOC[name].function(features, labels, weight, bias, **OPTIONS.get(name, {}))
    two = POSTHOC[name].function(features, place[labels], weight[order], bias[order], **OPTIONS.get(name, {}))
    np.testing.assert_allclose(two.logits(features), one.logits(features)[:, order], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_rotating_features_and_head_changes_no_logit(name):
    features, labels, weight, bias = arrays(6)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    one = POSTHOC[name].function(features, labels, weight, bias, **OPTIONS.get(name, {}))
    two = POSTHOC[name].function(features @ rotation, labels, weight @ rotation, bias, **OPTIONS.get(name, {}))
    np.testing.assert_allclose(two.logits(features @ rotation), one.logits(features), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_arrays_and_layers_give_one_rule_and_are_left_alone(name):
    features, labels, weight, bias = arrays(7)
    layer = nn.Linear(6, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    options = OPTIONS.get(name, {})
    one = POSTHOC[name].function(features, labels, weight, bias, **options)
    two = POSTHOC[name].function(torch.tensor(features), torch.tensor(labels), layer, **options)
    for rule in (one, two):
        assert rule.weight.dtype == rule.bias.dtype == torch.float64
        assert not rule.weight.requires_grad
        assert rule.name == name
        json.dumps(rule.parameters)
    np.testing.assert_allclose(one.logits(features), two.logits(features), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(layer.weight.detach(), weight)
    swapped = one.linear(torch.float64)
    np.testing.assert_allclose(swapped(torch.tensor(features)).detach(), one.logits(features), rtol=1e-12)


@pytest.mark.parametrize("entry", POSTHOC, ids=lambda entry: entry.name)
def test_every_remedy_is_described_and_sourced(entry):
    assert entry.summary.endswith(".")
    assert entry.source
    assert set(entry.source) <= set(references())


# -- a step mixture where the plain head gives minorities up ------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    train, test = mixture([400] * 4 + [8] * 4, seed=0), mixture([200] * 8, seed=1)
    return train, test, *plain_head(*train)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "swap"])
def test_every_remedy_gains_where_the_plain_head_gives_minorities_up(toy, name):
    train, test, weight, bias = toy
    plain, remedied = evaluate_posthoc(train, test, weight, bias, [name])
    assert plain.scores.majority > 0.9 > 0.7 > plain.scores.minority
    assert remedied.scores.minority > plain.scores.minority + 0.03
    assert remedied.scores.balanced > plain.scores.balanced + 0.01


def test_swap_gains_where_the_head_is_not_the_predicted_one(toy):
    train, test, weight, bias = toy
    plain, swapped = evaluate_posthoc(train, test, weight, bias, ["swap"])
    assert swapped.scores.balanced > plain.scores.balanced


# -- scores and evaluation ----------------------------------------------------------------------------------------


def test_scores_by_loops_and_scikit_learn():
    rng = np.random.default_rng(0)
    counts, labels = [50, 40, 5, 4], rng.integers(0, 4, 500)
    logits = 2 * rng.standard_normal((500, 4)) + 2 * np.eye(4)[labels]
    found = scores(logits, labels, counts)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    decided = probabilities.argmax(1)
    assert found.overall == pytest.approx(np.mean(decided == labels), rel=1e-12)
    assert found.balanced == pytest.approx(balanced_accuracy_score(labels, decided), rel=1e-12)
    recall = [np.mean(decided[labels == c] == c) for c in range(4)]
    assert found.majority == pytest.approx(np.mean(recall[:2]), rel=1e-12)
    assert found.minority == pytest.approx(np.mean(recall[2:]), rel=1e-12)
    assert found.nll == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    error = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 < probabilities[i].max() <= (b + 1) / 15]
        if inside:
            gap = np.mean([decided[i] == labels[i] for i in inside]) - np.mean([probabilities[i].max() for i in inside])
            error += len(inside) / 500 * abs(gap)
    assert found.ece == pytest.approx(error, rel=1e-12)
    assert scores(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels), counts).nll == pytest.approx(
        found.nll, rel=1e-5)


def test_scores_without_minorities_and_of_extreme_logits():
    found = scores([[1e4, -1e4], [1e4, -1e4]], [0, 1], [5, 5])
    assert np.isnan(found.minority)
    assert found.nll == 1e4
    assert found.ece == 0.5
    assert found.to_dict()["minority"] is None
    assert scores([[0.0, 0.0]], [0], [5, 5]).overall == 0, "a tie is no decision"


def test_evaluation_lists_every_remedy_and_says_what_refuses(toy):
    train, test, weight, bias = toy
    rows = evaluate_posthoc(train, test, weight, bias)
    assert [row.name for row in rows] == ["as-trained", *NAMES]
    json.dumps([row.to_dict() for row in rows], allow_nan=False)
    own = scores(test[0] @ weight.T + bias, test[1], [400] * 4 + [8] * 4)
    assert rows[0].to_dict() == {"name": "as-trained", "parameters": {}, **rows[0].scores.to_dict(), "refused": None}
    assert rows[0].scores.to_dict() == pytest.approx(own.to_dict(), rel=1e-12)
    merged = evaluate_posthoc(train, test, weight, bias, {"repair": {"ridge": 5.0}, "refit": {"l2": 1.0}})
    assert merged[1].scores is None
    assert merged[1].refused == (
        "the prediction must keep every two classes apart to be repaired, got merged classes at ridge 5: no offset "
        "parts those; give a smaller ridge, or refit the head")
    assert merged[2].rule.parameters == {"l2": 1.0}


H, Y, W2 = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1], [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: refit(None, None, W2, counts=[2, 1]),
     "remedy 'refit' needs the training features, got none: give features (n, d) and labels (n,)"),
    (lambda: nearest_class_mean(H, [0, 0, 0], counts=[2, 1]),
     "remedy 'nearest-class-mean' needs features of every class, got none of class 1"),
    (lambda: tau_normalised(H, Y, None),
     "remedy 'tau-normalised' needs the trained head, got no weight: give its weight (k, d)"),
    (lambda: tau_normalised(None, None, W2),
     "remedy 'tau-normalised' needs the training counts, got neither counts nor labels: give one of them"),
    (lambda: tau_normalised(H, Y, W2, tau=float("nan")), "tau must be a finite number, got nan"),
    (lambda: logit_adjustment(None, None, W2, counts=[3, 2, 1]),
     "counts must be one per row of weight, expected 2, got 3"),
    (lambda: logit_adjustment(H, [0, 1], W2), "labels must be one for each of the 3 rows of features, got 2"),
    (lambda: logit_adjustment(H, None, W2), "labels must be one for each of the 3 rows of features, got none"),
    (lambda: logit_adjustment(H, [0, 1, 2], W2), "labels must be in 0 … 1, got 2 at position 2"),
    (lambda: logit_adjustment(H, Y, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
     "weight must have shape (k, 2), one row per class as in torch's Linear, got (2, 3): give its transpose"),
    (lambda: refit([[0.0, np.nan], [1.0, 0.0]], [0, 1]),
     "features must be finite, got NaN or Inf in row 0 (1 of 2 rows)"),
    (lambda: refit([[0.0, 1.0], [1.0]], [0, 1]),
     "features must be a matrix of numbers, got rows of different lengths, or text"),
    (lambda: refit([0.0, 1.0], [0, 1]),
     "features must be a matrix with at least one row and column, got shape (2,)"),
    (lambda: refit(H, Y, l2=0), "l2 must be a positive number, got 0"),
    (lambda: repair(None, None, W2, counts=[2, 1]),
     "remedy 'repair' needs the training features, got none: give features (n, d) and labels (n,)"),
    (lambda: nearest_class_mean(H, Y).logits([[1.0]]), "features must have 2 columns, as the rule's weight, got 1"),
    (lambda: scores([[1.0]], [0], [2, 1]), "logits must have shape (n, 2), one column per class of counts, got (1, 1)"),
    (lambda: scores([[1.0, np.nan]], [0], [2, 1]), "logits must not be NaN, got NaN in row 0"),
    (lambda: scores(W2, [0], [2, 1]), "logits and labels must have the same length, got 2 and 1"),
    (lambda: evaluate_posthoc((H, Y), (H, Y), W2, remedies=["refitt"]),
     "unknown post-hoc remedy 'refitt': did you mean 'refit'? known: crt, logit-adjustment, ncm, nearest-class-mean, "
     "predicted-norms, refit, repair, swap, tau-norm, tau-normalised"),
    (lambda: evaluate_posthoc((H, Y), (H, Y), W2, remedies={"refit": {"tau": 1}}),
     "remedy 'refit' takes no tau: known: l2"),
])
def test_bad_input_is_named_on_one_line(call, message):
    with pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message


@pytest.mark.parametrize(("call", "message"), [
    (lambda: repair(None, None, W2, counts=[2, 1], geometry=predict([3, 1])),
     "geometry must be predicted for the training counts, ClassCounts(2, 1), got one for ClassCounts(3, 1)"),
    (lambda: predicted_norms(None, None, W2, counts=[4, 1], loss="mse", ridge=1.5),
     "the prediction must give every class a classifier, got a zero one for class 1: give a smaller ridge, or refit "
     "the head"),
    (lambda: swap([[0.0], [1.0], [2.0]], [0, 1, 2], [[1.0], [2.0], [3.0]]),
     "the predicted head spans 2 dimensions, expected at least 1 and at most the 1 of the features: no rotation brings "
     "it there"),
])
def test_what_theory_does_not_cover_is_refused(call, message):
    with pytest.raises(OutsideTheory) as error:
        call()
    assert str(error.value) == message


def test_one_counts_object_serves_all():
    counts = ClassCounts([2, 1], ["cat", "dog"])
    with pytest.raises(InvalidInput, match=r"^remedy 'refit' needs features of every class, got none of class dog$"):
        refit(H, [0, 0, 0], counts=counts)


def test_heads_of_the_trained_ones_own_memory_are_saved(tmp_path):
    layer = nn.Linear(4, 2, dtype=torch.float64)
    weight = layer.weight.detach()
    shared = [PosthocRow(name, FittedRule(name, part, layer.bias), None)
              for name, part in (("as-trained", weight), ("again", weight), ("turned", weight.T.clone().T))]
    save_heads(shared, tmp_path / "heads.safetensors")
    saved = load_file(tmp_path / "heads.safetensors")
    assert len(saved) == 6
    for name in ("as-trained", "again", "turned"):
        assert torch.equal(saved[f"{name}.weight"], weight)
        assert torch.equal(saved[f"{name}.bias"], layer.bias.detach())

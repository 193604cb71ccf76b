"""Verdicts per class: every kind on data made for it, and every number by loops."""

import json

import numpy as np
import pytest
import torch

from neuralcollapse.checks import InvalidInput, NotConverged
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.steer.class_probe import probe_recall, rescue_features
from neuralcollapse.steer.nearest import nearest_rows
from neuralcollapse.steer.rescue import ENTANGLED, MERGED, SAFE, SAVEABLE, rescue

COUNTS = np.array([100, 100, 4, 4])


def free_network(counts, ridge, spread=1e-3, d=6, seed=0):
    """Training and test samples scattered about the exact optimum of the free model at a ridge, and its head."""
    W, M = predict(counts, ridge=ridge).factors(d=d, seed=seed)
    rng = np.random.default_rng(seed)
    train, test = np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(counts)), 25)
    parts = [(M[y] + spread * rng.standard_normal((y.size, d)), y) for y in (train, test)]
    return *parts, W


# -- one kind each ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ridge", "kind"), [(1.9, SAFE), (3.0, MERGED)])
def test_the_free_model_merges_beyond_the_threshold_and_not_below_it(ridge, kind):
    train, test, W = free_network(COUNTS, ridge)
    found = rescue_features(train, test, W, ridge=ridge)
    assert [verdict.kind for verdict in found] == [SAFE, SAFE, kind, kind]
    for verdict in found:
        assert verdict.merging_ridge == np.sqrt(verdict.count)


def test_a_merged_class_is_told_the_weight_decay_and_the_samples_that_part_it():
    ridge, n = 3.0, int(COUNTS.sum())
    train, test, W = free_network(COUNTS, ridge)
    verdict = rescue_features(train, test, W, ridge=ridge, feature_penalty=1e-3)[3]
    assert verdict.rule.startswith("λ = 3 ≥ 2 = √n for its 4 samples, and its mean lies on that of 2 (distance 0")
    decay = 2.0**2 / (n**2 * 1e-3)  # w = λ²/(n²p) at λ = √4
    assert verdict.advice == (f"Lower λ below 2, a weight decay below {decay:.3g}, or collect 7 more samples of it "
                              "and of each class with as few.")
    for more, apart in ((6, False), (7, True)):  # λ = n√(wp) grows with the samples
        gram = predict([100, 100, 4 + more, 4 + more], ridge=ridge * (n + 2 * more) / n).classifiers.dense()
        assert (gram[2, 2] - gram[2, 3] > 1e-9) == apart


def test_weights_of_the_loss_move_the_threshold():
    weight = np.array([1.0, 1.0, 4.0, 4.0])
    geometry = predict(COUNTS, "weighted", weight=weight, ridge=9.0)
    W, M = geometry.factors(d=5, seed=1)
    arrays = {"margins": np.zeros(4), "confusions": np.eye(4), "probe": np.ones(4)}
    found = rescue(COUNTS, W, M, geometry=geometry, merging=weight * np.sqrt(COUNTS), **arrays)
    assert [verdict.kind for verdict in found[2:]] == [MERGED, MERGED]
    assert found[2].rule.startswith("λ = 9 ≥ 8 = 4·√n for its 4 samples")
    assert found[2].advice.startswith("Lower λ below 8, a weight decay below ")
    assert "collect" not in found[2].advice, "numbers alone do not say what other counts would do"
    found = rescue(COUNTS, W, M, geometry=geometry, merging=lambda counts: weight * np.sqrt(counts.values), **arrays)
    assert "or collect 2 more samples" in found[2].advice  # 9·212/208 < 4√(4 + 2), and 9·210/208 > 4√(4 + 1)


def test_where_more_samples_do_not_help_they_are_not_asked_for():
    # Inverse weights ω = n/(k n_c): a class that grows weighs less, and ω√n falls.
    geometry = predict(COUNTS, "weighted", weight=COUNTS.sum() / (4 * COUNTS), ridge=30.0)
    W, M = geometry.factors(d=5, seed=1)
    found = rescue(COUNTS, W, M, geometry=geometry, margins=np.zeros(4), confusions=np.eye(4), probe=np.ones(4),
                   merging=lambda counts: counts.n / (4 * np.sqrt(counts.values)))
    assert found[2].kind == MERGED
    assert found[2].advice.endswith(f"a weight decay below {26 / 208:.3g}.")


def test_no_head_merges_where_no_ridge_does_it():
    geometry = predict(COUNTS, ridge=3.0)
    W, M = geometry.factors(d=5, seed=1)
    arrays = {"margins": np.zeros(4), "confusions": np.eye(4), "probe": np.ones(4)}
    found = rescue(COUNTS, W, M, geometry=geometry, merging=np.full(4, np.inf), **arrays)
    assert [verdict.kind for verdict in found] == [SAFE] * 4
    assert {verdict.to_dict()["merging_ridge"] for verdict in found} == {None}


def test_the_verdict_names_the_advised_loss_unless_it_was_used():
    W, M = predict(COUNTS).factors(d=5, seed=1)
    arrays = {"margins": np.zeros(4), "confusions": np.eye(4)[[0, 1, 2, 2]], "probe": np.ones(4)}
    advice = [rescue(COUNTS, W, M, geometry=predict(COUNTS), advised=line, **arrays)[3].advice
              for line in ("VSLoss.vs(counts, gamma=0.1, tau=1.0)", None)]
    assert advice == ["Train with VSLoss.vs(counts, gamma=0.1, tau=1.0), or refit the head on these features.",
                      "Refit the head on these features: the recommended loss has been used already."]


def test_in_a_total_collapse_every_class_has_merged():
    geometry = predict([9, 9, 4, 4], ridge=3.5)
    found = rescue([9, 9, 4, 4], np.zeros((4, 3)), np.ones((4, 3)), geometry=geometry, margins=np.zeros(4),
                   confusions=np.eye(4)[[0, 0, 0, 0]], probe=np.full(4, 0.25))
    assert {verdict.kind for verdict in found} == {MERGED}
    assert found[0].classifier_norm == found[0].embedding_angle == found[0].margin == (None, None)


def mixture(counts, means, spread, seed, per_test=60):
    rng = np.random.default_rng(seed)
    k = len(counts)
    train, test = np.repeat(np.arange(k), counts), np.repeat(np.arange(k), per_test)
    return [(means[y] + spread * rng.standard_normal((y.size, means.shape[1])), y) for y in (train, test)]


def test_a_head_that_ignores_a_class_the_probe_finds_is_for_the_loss_to_mend():
    means = 3 * np.eye(4, 8)
    train, test = mixture([200, 200, 200, 12], means, 0.4, seed=0)
    W = means.copy()
    W[3] *= -1  # the features of class 3 are fine, its classifier is not
    found = rescue_features(train, test, W)
    assert [verdict.kind for verdict in found] == [SAFE, SAFE, SAFE, SAVEABLE]
    lost = found[3]
    assert lost.recall == 0.0
    assert lost.probe is not None
    assert lost.probe > 0.95
    assert lost.rule == (f"A probe on its features decides {lost.probe:.0%}, at least the level of 80%, where the head "
                         "decides 0% of its held-out samples.")


def test_features_that_lie_among_those_of_another_class_are_entangled():
    means = 3 * np.eye(4, 8)
    means[3] = means[2] + 0.05
    train, test = mixture([200, 200, 200, 12], means, 0.8, seed=1)
    W = means.copy()
    W[3] -= 0.1  # what the head cannot tell apart it gives to the frequent one
    found = rescue_features(train, test, W)
    assert [verdict.kind for verdict in found[:2]] == [SAFE, SAFE]
    assert found[3].kind == ENTANGLED
    assert found[3].confused_with == "2"
    assert found[3].advice == "Its features do not tell it apart and look most like 2: collect more of its samples."
    assert "both below the level of" in found[3].rule


def test_without_a_probe_a_lost_class_needs_samples():
    geometry = predict([50, 50, 1])
    W, M = geometry.factors(d=4, seed=0)
    found = rescue([50, 50, 1], W, M, geometry=geometry, margins=[1, 1, -1], probe=[1, 1, np.nan],
                   confusions=[[9, 0, 0], [0, 9, 0], [6, 2, 1]])
    assert (found[2].kind, found[2].probe, found[2].confused_with) == (ENTANGLED, None, "0")
    assert found[2].rule == ("The head decides 11% of its held-out samples, below the level of 80%, and it has too few "
                             "samples for a probe.")


@pytest.mark.parametrize(("recalls", "level", "kinds"), [
    ([0.5, 0.5, 0.41, 0.39], None, [SAFE, SAFE, SAFE, SAVEABLE]),  # 0.8 of the majority's 0.5
    ([0.2, 0.2, 0.3, 0.4], None, [SAVEABLE, SAVEABLE, SAVEABLE, SAFE]),  # not below 1.5 times chance, 0.375
    ([0.9, 0.9, 0.5, 0.5], 0.5, [SAFE] * 4),
])
def test_the_level_is_a_share_of_the_majority_recall_above_chance(recalls, level, kinds):
    geometry = predict(COUNTS)
    W, M = geometry.factors(d=4, seed=0)
    table = np.diag(100 * np.array(recalls)) + np.eye(4)[[1, 2, 3, 0]] * (100 - 100 * np.array(recalls))[:, None]
    found = rescue(COUNTS, W, M, geometry=geometry, margins=np.zeros(4), probe=np.ones(4), confusions=table,
                   level=level)
    assert [verdict.kind for verdict in found] == kinds


# -- the numbers ----------------------------------------------------------------------------------------------------


def test_every_number_is_that_of_loops():
    counts, k = np.array([60, 30, 8, 8]), 4
    geometry = predict(counts, ridge=0.4)
    rng = np.random.default_rng(5)
    train, test = mixture(counts, rng.standard_normal((k, 5)), 0.3, seed=2, per_test=11)
    W, b = rng.standard_normal((k, 5)), rng.standard_normal(k)
    names = ["a", "b", "c", "d"]
    found = rescue_features(train, test, torch.tensor(W), torch.tensor(b), geometry=geometry,
                            counts=ClassCounts(counts, names=names))
    M = np.array([train[0][train[1] == c].mean(0) for c in range(k)])
    M = M - M.mean(0)
    dense = geometry.embeddings.dense()
    P = np.eye(k) - 1 / k
    grams = [(W @ W.T, geometry.classifiers.dense()), (M @ M.T, P @ dense @ P)]
    z = test[0] @ W.T + b
    rms = [[np.sqrt(np.mean(gram.diagonal())) for gram in pair] for pair in grams]
    C = geometry.logits.dense()
    for c, verdict in enumerate(found):
        for part, pair, units in zip(("classifier", "embedding"), grams, rms, strict=True):
            for side, gram, unit in zip(("measured", "predicted"), pair, units, strict=True):
                norms = np.sqrt(gram.diagonal())
                near = max(gram[c, j] / norms[c] / norms[j] for j in range(k) if j != c)
                np.testing.assert_allclose(getattr(getattr(verdict, f"{part}_norm"), side), norms[c] / unit, rtol=1e-9)
                np.testing.assert_allclose(getattr(getattr(verdict, f"{part}_angle"), side),
                                           np.degrees(np.arccos(near)), rtol=1e-6)
        own = np.array([z[i, c] - max(z[i, j] for j in range(k) if j != c) for i in np.flatnonzero(test[1] == c)])
        np.testing.assert_allclose(verdict.margin.measured, np.quantile(own, 0.1) / rms[0][0] / rms[1][0], rtol=1e-9)
        model = C[c, c] - max(C[j, c] for j in range(k) if j != c)
        np.testing.assert_allclose(verdict.margin.predicted, model / rms[0][1] / rms[1][1], rtol=1e-9)
        wrong = [names[j] for j in z[test[1] == c].argmax(1) if j != c]
        assert verdict.recall == 1 - len(wrong) / 11
        assert verdict.confused_with in {name for name in wrong if wrong.count(name) == max(map(wrong.count, wrong))} \
            or (verdict.confused_with is None and not wrong)
        assert (verdict.index, verdict.name, verdict.count) == (c, names[c], counts[c])
    written = json.loads(json.dumps([verdict.to_dict() for verdict in found], allow_nan=False))
    assert written[0]["classifier_norm"] == found[0].classifier_norm._asdict()
    assert all(entry["kind"] in (SAFE, SAVEABLE, MERGED, ENTANGLED) for entry in written)
    assert str(found[0]).startswith("a (60 samples): ")


def test_permuting_the_classes_permutes_the_verdicts():
    rng = np.random.default_rng(8)
    geometry = predict(COUNTS, ridge=3.0)
    W, M = geometry.factors(d=4, seed=0)
    table, order = rng.integers(1, 20, (4, 4)), np.array([2, 0, 3, 1])
    arrays = {"margins": rng.standard_normal(4), "probe": rng.random(4)}
    one = rescue(COUNTS, W, M, geometry=geometry, confusions=table, **arrays)
    two = rescue(COUNTS[order], W[order], M[order], geometry=predict(COUNTS[order], ridge=3.0),
                 confusions=table[np.ix_(order, order)], **{name: v[order] for name, v in arrays.items()})
    for c, verdict in zip(order, two, strict=True):
        assert verdict.kind == one[c].kind
        np.testing.assert_allclose(verdict.margin, one[c].margin, rtol=1e-9, atol=1e-9)


def test_the_nearest_rows_are_those_of_loops_in_blocks(monkeypatch):
    rows = np.random.default_rng(0).standard_normal((30, 4))
    rows[7] = 0
    rows[9] = rows[8] + 1e-9
    monkeypatch.setattr("neuralcollapse.steer.nearest._ENTRIES_AT_ONCE", 100)
    found = nearest_rows(rows)
    for c in range(30):
        apart = [np.linalg.norm(rows[c] - rows[j]) if j != c else np.inf for j in range(30)]
        assert found.row[c] == np.argmin(apart)
        np.testing.assert_allclose(found.distance[c], min(apart), rtol=1e-9)
        cosines = [rows[c] @ rows[j] / np.linalg.norm(rows[c]) / np.linalg.norm(rows[j])
                   for j in range(30) if j not in (c, 7)] if c != 7 else [np.nan]
        np.testing.assert_allclose(found.cosine[c], max(cosines), rtol=1e-12)


# -- the probe ------------------------------------------------------------------------------------------------------


def test_the_probe_minimises_the_balanced_loss_it_names():
    # Held-out decisions of an independent minimisation of the written objective, by Newton-like L-BFGS in torch.
    train, test = mixture([80, 20, 6], np.random.default_rng(1).standard_normal((3, 4)), 0.9, seed=3)
    x = torch.tensor(train[0] - train[0].mean(0))
    size = (x**2).mean().sqrt()
    x, y = x / size, torch.tensor(train[1])
    omega = (106 / (3 * torch.tensor([80.0, 20.0, 6.0]))).double()
    W, b = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True), torch.zeros(3, dtype=torch.float64,
                                                                                    requires_grad=True)
    optimiser = torch.optim.LBFGS([W, b], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        losses = torch.nn.functional.cross_entropy(x @ W.T + b, y, reduction="none")
        value = (omega[y] * losses).sum() + (W**2).sum() / 2
        value.backward()
        return value

    optimiser.step(closure)
    z = ((torch.tensor(test[0] - train[0].mean(0)) / size) @ W.T + b).argmax(1).detach().numpy()
    expected = [np.mean(z[test[1] == c] == c) for c in range(3)]
    np.testing.assert_allclose(probe_recall(*train, held_out=test), expected, atol=1.5 / 60)  # one sample on the line
    assert probe_recall(torch.tensor(train[0]), torch.tensor(train[1])).shape == (3,)


def test_cross_validation_holds_every_sample_out_once_and_single_ones_never():
    means = 5 * np.eye(4, 6)
    (x, y), _ = mixture([30, 9, 2, 1], means, 0.1, seed=0)
    recall = probe_recall(x, y)
    assert recall[:3].tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(recall[3])
    np.testing.assert_array_equal(probe_recall(x, y, classes=5)[[3, 4]], [np.nan, np.nan])
    noise = np.random.default_rng(0).standard_normal((200, 3))
    chance = probe_recall(noise, np.repeat([0, 1], 100), seed=4)
    assert 0.3 < chance.mean() < 0.7  # fitted samples would be recalled far better than chance
    np.testing.assert_array_equal(chance, probe_recall(noise, np.repeat([0, 1], 100), seed=4))


def test_scaling_and_shifting_the_features_changes_no_recall():
    train, test = mixture([60, 20, 8], np.random.default_rng(1).standard_normal((3, 4)), 0.7, seed=3)
    moved = [(100 * x - 7, y) for x, y in (train, test)]
    np.testing.assert_array_equal(probe_recall(*train, held_out=test), probe_recall(*moved[0], held_out=moved[1]))


def test_a_probe_that_stops_early_says_so(monkeypatch):
    monkeypatch.setattr("neuralcollapse.steer.class_probe._STEPS", 1)
    train, test = mixture([60, 20], np.eye(2, 4), 0.7, seed=3)
    with pytest.warns(NotConverged, match="^the probe stopped after 1 steps before it had converged: "):
        probe_recall(*train, held_out=test)


# -- bad input ------------------------------------------------------------------------------------------------------

GEOMETRY = predict([9, 9, 2])
GOOD = {"counts": [9, 9, 2], "weight": np.eye(3), "means": np.eye(3), "geometry": GEOMETRY, "margins": np.zeros(3),
        "confusions": np.eye(3), "probe": np.ones(3)}


@pytest.mark.parametrize(("change", "message"), [
    ({"geometry": predict([9, 9])}, "geometry must be that of the 3 classes of counts, got one of 2"),
    ({"weight": np.eye(2)}, "weight must have one row per class, expected (3, d), got (2, 2)"),
    ({"weight": np.ones((3, 2))}, "weight and means must have the same shape, got (3, 2) and (3, 3)"),
    ({"means": np.full((3, 3), np.nan)}, "means must be finite, got nan at position 0 (9 of 9 values)"),
    ({"margins": [1.0, 2.0]}, "margins must be 3 numbers, one per class, got 2 ([1.0, 2.0])"),
    ({"confusions": np.eye(2)}, "confusions must be samples by true and decided class, expected shape (3, 3), got "
                                "(2, 2)"),
    ({"confusions": -np.eye(3)}, "confusions must count samples, got -1"),
    ({"confusions": np.diag([1, 0, 2])}, "every class needs a held-out sample to be judged by, class 1 has none (1 "
                                         "of 3 classes)"),
    ({"probe": [1.0, 1.0]}, "probe must be 3 recalls, one per class, got shape (2,)"),
    ({"probe": ["a", 1, 1]}, "probe must be numbers, got ['a', 1, 1]"),
    ({"confusions": "x"}, "confusions must be numbers, got 'x'"),
    ({"probe": [1.0, 2.0, 0.5]}, "probe must be recalls in [0, 1] or NaN, got 2"),
    ({"level": 1.5}, "level must be a recall in (0, 1], got 1.5"),
    ({"merging": [1.0]}, "merging must be 3 positive numbers, one per class, got [1.0]"),
])
def test_bad_arrays_are_refused_in_one_line(change, message):
    given = GOOD | change
    with pytest.raises(InvalidInput) as error:
        rescue(given.pop("counts"), given.pop("weight"), given.pop("means"), **given)
    assert str(error.value) == message


X, Y = np.eye(4), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(("call", "message"), [
    (lambda: probe_recall(X, [0, 0, 0, 0]), "a probe needs samples of at least two classes, got class 0 only"),
    (lambda: probe_recall(X, Y, folds=1), "folds must be a whole number ≥ 2, got 1"),
    (lambda: probe_recall(X[0], Y), "features must be (n, d) with one row per label, got shape (4,) and 4 labels"),
    (lambda: probe_recall(X * np.inf, Y), "features must be finite, got NaN or Inf in row 0"),
    (lambda: probe_recall(X, Y, held_out=(X[:, :2], Y)), "held-out features must have 4 columns, as those the probe is "
                                                         "fitted to, got 2"),
    (lambda: rescue_features((X, Y), (X, Y), None), "rescue needs the head, got no weight: give its weight (k, d)"),
    (lambda: rescue_features((X, Y), (X, Y), X[:2], geometry=predict([2, 2]), ridge=1.0),
     "give the geometry at its ridge, or a ridge for cross-entropy, not both, got both (ridge 1)"),
    (lambda: rescue_features((X, Y), (X, Y), X[:3], counts=[2, 2, 1]),
     "every class needs a training sample, class 2 has none"),
    (lambda: rescue_features((X, Y), (X[:2], Y[:2]), X[:2]),
     "every class needs a held-out sample to be judged by, class 1 has none (1 of 2 classes)"),
])
def test_bad_features_are_refused_in_one_line(call, message):
    with np.errstate(invalid="ignore"), pytest.raises(InvalidInput) as error:
        call()
    assert str(error.value) == message

"""Advice from class counts: every number of the table by loops over dense geometries, every rule by what it claims."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
import torch

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.registry import references
from neuralcollapse.steer.advise import advise
from neuralcollapse.steer.class_geometry import (
    class_margins,
    margin_scale,
    mean_cosine,
    merging_ridges,
    nearest_cosines,
)
from neuralcollapse.steer.losses import VSLoss
from neuralcollapse.steer.predicted_row import predicted_row
from neuralcollapse.steer.remedies import REMEDIES, remedy

STEP = ClassCounts.step(10, 100, 0.5, n_min=4)
FRAMES = [entry.name for entry in REMEDIES if "frame" in entry.options]
OUTSIDE = {None: {"focal", "ldam"}, 0.3: {"focal", "ldam"}}  # ldam: its scale is for a head of cosines


def loop_margins(geometry):
    logits = geometry.logits.dense() + (0 if geometry.bias_values is None else geometry.bias_values[:, None])
    k = len(logits)
    return np.array([logits[c, c] - max(logits[j, c] for j in range(k) if j != c) for c in range(k)])


# -- numbers per class ------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=7), st.sampled_from(["class", "label"]),
       st.sampled_from([None, 0.2, 2.0]), st.integers(0, 10**6))
def test_margins_and_angles_are_those_of_the_dense_geometry(counts, temperature, ridge, seed):
    rng = np.random.default_rng(seed)
    kinds = {n: rng.uniform(0.5, 1.5) for n in counts}  # equal counts stay alike
    geometry = predict(counts, delta=[kinds[n] for n in counts], temperature=temperature, ridge=ridge,
                       bias=ridge is not None)
    np.testing.assert_allclose(class_margins(geometry), loop_margins(geometry), rtol=1e-10, atol=1e-12)
    gram = geometry.embeddings
    cosines = gram.cosines()
    for c in range(len(counts)):
        others = [cosines[c, j] for j in range(len(counts)) if j != c and not np.isnan(cosines[c, j])]
        np.testing.assert_allclose(nearest_cosines(gram, np.array([c]))[0], max(others) if others else np.nan,
                                   rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["ce", "cdt", "ldt"])
def test_margins_of_many_different_counts_are_those_entry_by_entry(loss):
    counts = np.arange(1, 151) ** 1.5
    parameters = {} if loss == "ce" else {"delta": counts**0.3}
    geometry = predict(counts, loss, **parameters)  # kept as diagonal plus low rank: above 64 groups
    np.testing.assert_allclose(class_margins(geometry), loop_margins(geometry), rtol=1e-10)


def test_mean_cosine_is_that_over_pairs():
    geometry = predict([90, 40, 40, 7, 7, 3])
    chosen = np.array([False, True, False, True, True, True])
    cosines = geometry.classifiers.cosines()
    pairs = [cosines[i, j] for i in np.flatnonzero(chosen) for j in np.flatnonzero(chosen) if i != j]
    np.testing.assert_allclose(mean_cosine(geometry.classifiers, chosen), np.mean(pairs), rtol=1e-12)
    assert mean_cosine(geometry.classifiers, np.arange(6) == 2) is None
    assert mean_cosine(predict([100, 100, 1, 1], "mse", ridge=2.0).classifiers, np.arange(4) > 1) is None  # zero


@pytest.mark.parametrize("n", [1, 50])
def test_a_margin_of_one_is_that_of_balanced_classes_whatever_the_scale(n):
    geometry = predict(np.full(7, n), ridge=0.01)
    balanced = predict(np.full(7, n))
    np.testing.assert_allclose(margin_scale(geometry) * class_margins(geometry), 1.0, rtol=1e-9)
    np.testing.assert_allclose(margin_scale(balanced) * class_margins(balanced), 1.0, rtol=1e-12)
    W, M = predict([50, 50, 5, 5]).factors()
    H = M[np.repeat(np.arange(4), [50, 50, 5, 5])]
    size = np.linalg.norm(W) * np.linalg.norm(H)
    np.testing.assert_allclose(margin_scale(predict([50, 50, 5, 5])), 3 * np.sqrt(110 / 4) / size, rtol=1e-10)
    assert np.isnan(margin_scale(predict([5, 5], "mse", ridge=4.0)))


def test_equal_classes_merge_exactly_from_their_merging_ridge_on():
    counts = np.array([100, 100, 9, 9, 4, 4])
    weight, delta = np.repeat([0.5, 1.0, 2.0], 2), np.repeat([1.0, 0.8, 0.6], 2)
    for temperature in ("class", "label"):
        for c, ridge in enumerate(merging_ridges(counts, weight, delta)):
            for factor, merged in ((1 - 1e-4, False), (1 + 1e-4, True)):
                geometry = predict(counts, "ce", weight=weight, delta=delta, temperature=temperature,
                                   ridge=ridge * factor)
                pair = geometry.classifiers.block(np.array([c]), np.array([c, c ^ 1]))[0]
                assert (pair[0] - pair[1] < 1e-9) == merged  # ‖w_c − w_c'‖² = 2(own − pair)


# -- remedies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", REMEDIES, ids=lambda entry: entry.name)
def test_every_remedy_is_sourced_and_its_line_makes_it(entry):
    assert entry.summary.endswith(".")
    assert all(key in references() for key in entry.source)
    assert entry.source
    made = remedy(entry.name, STEP)
    from neuralcollapse.steer.contrastive import SupConLoss
    from neuralcollapse.steer.heads import etf_head

    written = eval(made.line, {"VSLoss": VSLoss, "SupConLoss": SupConLoss, "etf_head": etf_head},
                   {"counts": STEP, "d": STEP.k})
    assert type(written) is type(made.loss())
    assert repr(written) == repr(made.loss())


@pytest.mark.parametrize("ridge", [None, 0.3])
@pytest.mark.parametrize("name", [entry.name for entry in REMEDIES])
def test_the_row_is_what_loops_over_the_dense_geometry_give(name, ridge):
    counts = ClassCounts([90, 90, 40, 5, 5, 2])
    made = remedy(name, counts)
    row = predicted_row(made, ridge)
    if name in OUTSIDE[ridge]:
        assert row.outside is not None
        assert row.norm_ratio is row.majority_margin is row.beyond is None
        return
    geometry = predict(counts, made.entry.options["frame"]) if name in FRAMES else made.loss().geometry(ridge)
    gram, few = geometry.classifiers.dense(), counts.minority
    norms = np.sqrt(gram.diagonal())
    H2 = counts.values @ geometry.embeddings.dense().diagonal()
    margins = loop_margins(geometry) * 5 * np.sqrt(counts.n / 6) / np.sqrt(np.trace(gram) * H2)
    P = np.eye(6) - 1 / 6
    cosines = [gram[i, j] / norms[i] / norms[j] for i in range(6) for j in range(6) if few[i] and few[j] and i != j]
    np.testing.assert_allclose(
        [row.norm_ratio, row.minority_cosine, row.minority_angle, row.majority_margin, row.minority_margin],
        [norms[~few].mean() / norms[few].mean(), np.mean(cosines), np.degrees(np.arccos(np.mean(cosines))),
         margins[~few].mean(), margins[few].mean()], rtol=1e-9)
    distance = np.linalg.norm(gram / np.linalg.norm(gram) - P / np.sqrt(5))
    np.testing.assert_allclose(row.etf_distance, distance, atol=1e-9)
    assert row.margin_ratio == row.minority_margin / row.majority_margin


@pytest.mark.parametrize(("ridge", "merged"), [(1.99, False), (2.01, True)])
def test_the_row_says_whether_the_ridge_merges(ridge, merged):
    row = predicted_row(remedy("ce", [100, 100, 4, 4]), ridge)
    assert (row.merging_ridge, row.beyond) == (2.0, merged)
    assert predicted_row(remedy("weighted", [100, 100, 4, 4]), ridge).beyond is False
    # Where no two counts agree, a lost dimension says it.
    lost = predict([100, 80, 4, 3], ridge=ridge).rank < 3
    assert predicted_row(remedy("ce", [100, 80, 4, 3]), ridge).beyond is lost


def test_a_total_collapse_has_no_angles_and_no_margins():
    row = predicted_row(remedy("ce", [9, 9, 4, 4]), 3.5)
    assert (row.norm_ratio, row.minority_cosine, row.etf_distance, row.beyond) == (None, None, None, True)
    assert (row.majority_margin, row.minority_margin, row.margin_ratio) == (0.0, 0.0, None)


def free_model(counts, weight, delta, ridge):
    """W Wᵀ of min Σ n_c ω_c CE(δ_c WᵀM_c, c) + λ/2 (‖W‖² + Σ n_c ‖μ_c‖²), by L-BFGS from a random start."""
    k = len(counts)
    n, w, d = (torch.tensor(np.asarray(v, dtype=float)) for v in (counts, weight, delta))

    def value(flat):
        x = torch.tensor(flat, requires_grad=True)
        W, M = x.view(2, k, k)
        logits = (M @ W.T) * d[:, None]
        fit = (n * w * (torch.logsumexp(logits, 1) - logits.diagonal())).sum()
        loss = fit + ridge / 2 * ((W**2).sum() + (n[:, None] * M**2).sum())
        loss.backward()
        return loss.item(), x.grad.numpy()

    start = np.random.default_rng(0).standard_normal(2 * k * k)
    found = minimize(value, start, jac=True, method="L-BFGS-B",
                     options={"maxiter": 20000, "ftol": 1e-16, "gtol": 1e-10})
    W = found.x.reshape(2, k, k)[0]
    return W @ W.T


@pytest.mark.parametrize("ridge", [0.05, 0.8])
def test_weighted_label_temperatures_make_a_simplex_at_every_ridge(ridge):
    counts = ClassCounts([60, 20, 4])
    vectors = remedy("weighted-ldt", counts).loss().vectors
    gram = free_model(counts.values, vectors["weight"], vectors["delta"], ridge)
    np.testing.assert_allclose(gram / np.linalg.norm(gram), (np.eye(3) - 1 / 3) / np.sqrt(2), atol=1e-5)
    assert predicted_row(remedy("weighted-ldt", counts), ridge).etf_distance < 1e-8
    assert predicted_row(remedy("ldt", counts), ridge).etf_distance > 0.05  # in the limit alone


# -- margin ratios ----------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 8), st.floats(1.5, 1e4), st.floats(0.05, 0.9))
def test_label_temperatures_have_a_power_of_the_imbalance_for_margin_ratio(half, ratio, power):
    counts = ClassCounts.step(2 * half, ratio, 0.5, n_min=3)
    row = predicted_row(remedy("ldt", counts, gamma=power))
    np.testing.assert_allclose(row.margin_ratio, ratio**power, rtol=1e-8)


@pytest.mark.parametrize("gamma", [0.05, 0.2])
def test_class_temperatures_have_the_margin_ratio_of_the_dense_formula(gamma):
    inverse = (STEP.values.max() / STEP.values) ** gamma
    e = inverse / np.linalg.norm(inverse)
    Z = (np.eye(10) - np.outer(e, e)) * inverse  # (I − eeᵀ) diag(1/δ)
    m = [Z[c, c] - max(Z[j, c] for j in range(10) if j != c) for c in (0, 9)]
    np.testing.assert_allclose(predicted_row(remedy("cdt", STEP, gamma=gamma)).margin_ratio, m[1] / m[0], rtol=1e-8)


# -- the rules ------------------------------------------------------------------------------------------------------


def margin_gap(geometry, one, two):
    """(z_j − z_i on class j) − (z_i − z_j on class i) for i, j = one, two, the head's bias included."""
    z = geometry.logits.dense() + geometry.bias_values[:, None]
    return (z[two, two] - z[one, two]) - (z[one, one] - z[two, one])


@pytest.mark.parametrize("counts", [[300, 90, 20, 4], [400, 400, 4], [50, 50, 50, 7, 7]])
@pytest.mark.parametrize("ridge", [0.02, 1.0])
def test_a_free_bias_absorbs_the_offsets(counts, ridge):
    made = [remedy("logit-adjusted", counts, tau=tau).geometry(ridge, bias=True) for tau in (0.0, 1.0, 1.7)]
    prior = np.log(np.array(counts) / sum(counts))
    for tau, geometry in zip((1.0, 1.7), made[1:], strict=True):
        np.testing.assert_allclose(geometry.classifiers.dense(), made[0].classifiers.dense(), atol=1e-4)
        shift = geometry.bias_values - made[0].bias_values + tau * prior
        np.testing.assert_allclose(shift, shift.mean(), atol=1e-4)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_the_margins_of_a_pair_differ_by_the_log_ratio_as_the_ridge_vanishes(tau):
    found = remedy("logit-adjusted", STEP, tau=tau).geometry(0.01, bias=True)
    np.testing.assert_allclose(margin_gap(found, 0, 9), (2 * tau - 1) * np.log(100), atol=0.02)
    tail = remedy("logit-adjusted", [300, 90, 20, 4], tau=tau).geometry(0.01, bias=True)
    np.testing.assert_allclose(margin_gap(tail, 0, 3), (2 * tau - 1) * np.log(75), atol=0.2)


@pytest.mark.parametrize("counts", [STEP, [300, 90, 20, 4], [100, 1]])
def test_at_total_collapse_the_recommended_offsets_leave_all_logits_equal(counts):
    chosen = advise(counts).recommended
    assert (chosen.name, chosen.parameters) == ("logit-adjusted", {"tau": 1.0})
    everything = remedy("logit-adjusted", counts).geometry(50.0, bias=True)
    np.testing.assert_allclose(everything.bias_values, everything.bias_values.mean(), atol=1e-6)
    plain = remedy("ce", counts).geometry(50.0, bias=True)
    n = ClassCounts.from_counts(counts).values
    np.testing.assert_allclose(plain.bias_values - plain.bias_values[0], np.log(n / n[0]), atol=1e-6)


def test_logit_adjustment_fits_the_posterior_under_equal_priors():
    # Five inputs, three classes: p(x | y) and the priors π make the population risk a finite sum.
    rng = np.random.default_rng(3)
    given_class, prior = rng.dirichlet(np.ones(5), 3), np.array([0.9, 0.09, 0.01])
    joint = given_class * prior[:, None]

    def risk(flat):
        return -np.sum(joint * log_softmax(flat.reshape(3, 5) + np.log(prior)[:, None], axis=0))

    z = minimize(risk, np.zeros(15), method="BFGS", options={"gtol": 1e-9}).x.reshape(3, 5)
    np.testing.assert_allclose(softmax(z, axis=0), given_class / given_class.sum(0), atol=1e-4)
    chosen = advise([90, 9, 1], goal="calibrated").recommended
    assert (chosen.name, chosen.line) == ("logit-adjusted", "VSLoss.logit_adjusted(counts, tau=1.0)")
    assert "0.01" in chosen.why


@pytest.mark.parametrize("counts", [STEP, [500, 107, 23, 5], [100, 1], ClassCounts.step(10, 1e4, 0.5, n_min=1)])
def test_the_symmetric_goal_picks_what_is_nearest_to_the_simplex(counts):
    for options in ({}, {"ridge": 0.3}):
        advice = advise(counts, goal="symmetric geometry", **options)
        trained = [row for row in advice.rows if row.remedy not in FRAMES and row.etf_distance is not None]
        assert advice.recommended.row.etf_distance < 1e-8
        assert advice.recommended.row.etf_distance <= min(row.etf_distance for row in trained) + 1e-8


@pytest.mark.parametrize("goal", ["balanced accuracy", "symmetric geometry", "calibrated"])
def test_balanced_counts_have_nothing_to_correct(goal):
    advice = advise([7, 7, 7], goal=goal)
    assert (advice.recommended.name, advice.rule) == ("ce", "")
    assert advice.recommended.why.endswith("nothing to correct.")


def test_advice_is_json_and_text_and_says_what_it_picked():
    advice = advise({"cat": 500, "dog": 40, "eel": 5}, weight_decay=1e-3)
    assert advice.ridge == pytest.approx(0.545)
    written = json.loads(json.dumps(advice.to_dict(), allow_nan=False))
    assert written["counts"] == [500, 40, 5]
    assert [row["remedy"] for row in written["table"]] == [entry.name for entry in REMEDIES]
    assert written["recommended"]["row"] in written["table"]
    assert written["recommended"]["line"] == "VSLoss.logit_adjusted(counts, tau=1.0)"
    text = str(advice)
    assert "at λ = 0.545 (summed loss)" in text
    assert "→ logit-adjusted" in text
    assert "–: outside theory; blank: the remedy has none" in " ".join(text.split())
    assert "angle: mean degrees between two minority classifiers" in text
    assert "ln R = 4.6" in advice.recommended.why.replace("\n", " ")


def test_a_ridge_that_merges_is_said_with_the_one_that_does_not():
    why = advise([100, 100, 4, 4], ridge=3.0).recommended.why
    assert why.startswith("Under cross-entropy the minority classifiers have merged at this ridge. ")
    assert why.endswith("At λ = 3 it still merges minority classes: lower the weight decay, λ below 2.")


def test_many_classes_are_advised_in_the_limit():
    for counts in (np.repeat([500, 5], 50_000), ClassCounts.long_tail(100_000, 100, 1e4)):
        rows = {row.remedy: row for row in advise(counts).rows}
        np.testing.assert_allclose([rows["ldt"].norm_ratio, rows["ce"].margin_ratio], 1.0, rtol=1e-9)
        assert rows["weighted-ldt"].etf_distance < 1e-7


@pytest.mark.parametrize(("options", "message"), [
    ({"goal": "calibrate"}, "unknown goal 'calibrate': did you mean 'calibrated'? known: balanced accuracy, "
                            "calibrated, symmetric geometry"),
    ({"ridge": 0.0}, "ridge must be a positive number, got 0.0"),
    ({"ridge": 1.0, "weight_decay": 1e-3}, "give ridge or weight_decay, not both, got 1 and 0.001"),
    ({"feature_penalty": 1e-3}, "feature_penalty and n go with weight_decay: give it too, or ridge alone"),
    ({"weight_decay": -1.0}, "weight_decay must be a positive number, got -1.0"),
])
def test_bad_input_is_refused_in_one_line(options, message):
    with pytest.raises(InvalidInput) as error:
        advise([5, 1], **options)
    assert str(error.value) == message


def test_other_bad_input_is_refused_in_one_line():
    table = [(lambda: advise(np.arange(1, 400), ridge=1.0),
              "a ridge is solved for up to 300 different counts, got 399: leave it out for the limit, or round the "
              "counts"),
             (lambda: advise([5, 0]), "every class needs a sample, and class 1 has none: drop it from labels and head, "
                                      "or give it a small positive count (class_counts does with absent=1)"),
             (lambda: remedy("ce", [5, 1], gamma=1), "remedy 'ce' takes no gamma: it takes none"),
             (lambda: remedy("ldt", [5, 1], gama=1), "remedy 'ldt' takes no gama: did you mean 'gamma'? known: gamma"),
             (lambda: remedy("vss", [5, 1]),
              "unknown remedy 'vss': did you mean 'vs'? known: balanced-softmax, cdt, ce, effective-number, etf-head, "
              "focal, ldam, ldt, logit-adjusted, scl, vs, weighted, weighted-ldt")]
    for call, message in table:
        with pytest.raises(InvalidInput) as error:
            call()
        assert str(error.value) == message

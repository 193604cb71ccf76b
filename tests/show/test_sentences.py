"""Sentences against numbers worked out by hand."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import Run
from neuralcollapse.predict import predict
from neuralcollapse.show import tables, verdict
from neuralcollapse.show.reading import Reading

STEP = ClassCounts([10, 10, 1, 1])
# theory.md §2 with a = b = 2, m = 1, R = 10: τ = √5.5, ‖w‖² = √10/2 + τ/4 and 1/2 + τ/4, ⟨w_min, w_min'⟩ = τ/4 − 1/2.
TAU = np.sqrt(5.5)
RATIO = np.sqrt((np.sqrt(10) / 2 + TAU / 4) / (0.5 + TAU / 4))
MINORITY_ANGLE = np.degrees(np.arccos((TAU / 4 - 0.5) / (TAU / 4 + 0.5)))


def said(run, topic: str) -> str | None:
    return next((sentence.text for sentence in verdict(run) if sentence.topic == topic), None)


def changed(make_run, counts=STEP, epochs=(1, 10, 100), **values):
    """A run whose last record has some numbers replaced, given by their path with dots as double underscores."""
    run = make_run(counts, epochs=epochs)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = run.history[-1]
        for parent in parents:
            place = place[parent]
        place[last] = value
    return run


@pytest.mark.parametrize(("norms", "text"), [
    ([2.1, 2.1, 1, 1], "Minority classifiers are 2.1× shorter than majority ones; SELI predicts 1.4× shorter."),
    ([1, 3, 4, 4], "Minority classifiers are 2.0× longer than majority ones; "
                   "SELI predicts the opposite: 1.4× shorter."),
    ([1, 1, 0.99, 0.99], "Minority classifiers are as long as majority ones; SELI predicts 1.4× shorter."),
    ([1, 1, 0, 0], "Minority classifiers are infinitely shorter (their norm is 0) than majority ones; "
                   "SELI predicts 1.4× shorter."),
    ([0.55, 0.55, 0.5, 0.5], "Minority classifiers are 1.1× shorter than majority ones; SELI predicts 1.4× shorter."),
])
def test_lengths_say_which_is_longer(make_run, norms, text):
    assert f"{RATIO:.1f}" == "1.4"
    assert said(changed(make_run, measurement__norms__classifiers=norms), "Classifiers") == text


def test_embeddings_have_the_other_direction(make_run):
    text = said(changed(make_run, measurement__norms__embeddings=[1.0, 1.0, 1.7, 1.7]), "Embeddings")
    assert text.startswith("Minority class means of the embeddings are 1.7× longer than majority ones; SELI predicts ")
    assert text.endswith("× longer.")


def test_angles_beside_both_predictions(make_run):
    text = said(changed(make_run, measurement__cosines__classifiers__minority_minority=0.5), "Angles")
    assert text == ("Two minority classifiers stand at 60.0° to each other on average (cosine 0.500); SELI predicts "
                    f"{MINORITY_ANGLE:.1f}° and the simplex ETF predicts 109.5°.")


def test_minority_collapse_is_named(make_run):
    assert "minority collapse" in said(
        changed(make_run, measurement__cosines__classifiers__minority_minority=0.98), "Angles")


@pytest.mark.parametrize(("seli", "etf", "expected"), [
    ((0.02, 0.03, 0.01), 0.4, "At epoch 100 the network matches SELI: the classifiers are 0.020 away, the embeddings "
     "0.030 and the logits 0.010 (0 is a perfect match, 1.41 no resemblance). The simplex ETF is 20× as far (0.40) "
     "from the classifiers, so SELI describes them better."),
    ((0.1, 0.1, 0.1), 0.105, "the network is close to SELI"),
    ((0.1, 0.1, 0.1), 0.105, "The simplex ETF is about as near (0.10 for the classifiers)."),
    ((0.04, 0.04, 0.04), 0.04, "the network matches SELI"),
    ((0.3, 0.2, 0.2), 0.1, "the network has moved towards SELI"),
    ((0.3, 0.2, 0.2), 0.1, "The simplex ETF is nearer to the classifiers (0.10)"),
    ((0.9, 1.1, 0.8), 0.7, "the network is far from SELI"),
    ((0.9, 1.1, 0.8), 0.7, "this run follows neither"),
])
def test_geometry(make_run, seli, etf, expected):
    near = dict(zip(("classifiers", "embeddings", "logits"), seli, strict=True))
    run = changed(make_run, measurement__distances__seli=near,
                  measurement__distances__etf={"classifiers": etf, "embeddings": etf, "logits": etf})
    assert expected in said(run, "Geometry")


@pytest.mark.parametrize(("majority", "minority", "expected"), [
    # 80 test samples in each group, one hit and one error added to each: q = (80p + 1)/82, so that
    # √(.0573/80 + .1052/80) = 0.0451 and √(.0573/80 + .2405/80) = 0.0610.
    (0.95, 0.89, "the difference of 6.0 points (± 4.5, from the size of the test set) may be chance"),
    (0.95, 0.60, "95.0 % on majority and 60.0 % on minority classes, a gap of 35.0 points (± 6.1"),
    (0.60, 0.95, "minority classes do better by 35.0 points"),
])
def test_accuracy_gap(make_run, majority, minority, expected):
    run = changed(make_run, test__majority_accuracy=majority, test__minority_accuracy=minority)
    assert expected in said(run, "Accuracy")


def test_gap_without_test_counts_has_no_error_bar(make_run):
    run = changed(make_run, test__majority_accuracy=0.95, test__minority_accuracy=0.6)
    del run.data["test_counts"]
    assert said(run, "Accuracy").endswith("a gap of 35.0 points.")


@pytest.mark.parametrize(("spread", "start"), [
    (0.005, "Classes have collapsed to their means: features vary within classes 0.5 % as much"),
    (0.1, "Classes are collapsing to their means: features vary within classes 10.0 % as much"),
    (1.5, "Classes have not collapsed to their means: features vary within classes 150 % as much"),
])
def test_collapse(make_run, spread, start):
    text = said(changed(make_run, measurement__nc1__trace=spread, measurement__nc4=0.002), "Collapse")
    assert text.startswith(start)
    assert text.endswith("The nearest class mean decides like the network on 99.8 % of training samples.")


def test_advice_follows_the_state_of_training(make_run):
    assert "more epochs bring it closer" in said(make_run(STEP, epochs=(1, 2, 4, 8, 16, 32)), "What to make of it")
    stalled = make_run(STEP, epochs=(1, 2, 4, 8, 16, 32))
    for record in stalled.history:
        record["measurement"]["distances"]["seli"]["classifiers"] = 0.3
    assert "has stopped falling" in said(stalled, "What to make of it")
    untrained = changed(make_run, train__accuracy=0.8)
    assert "Training accuracy is 80.0 %" in said(untrained, "What to make of it")


@pytest.mark.parametrize(("distance", "to_own", "sentence"), [
    (1.02, 0.007, "longer training brings it no closer, only a smaller λ does."),
    (2.0, 0.1, "more epochs bring it closer, up to the {} that its own weight decay leaves."),
])
def test_longer_training_is_held_against_the_own_weight_decay(make_run, distance, to_own, sentence):
    at_own = predict(STEP, ridge=0.5)
    left = at_own.classifiers.distance_to(predict(STEP).classifiers)
    run = make_run(STEP, epochs=(1, 2, 4, 8, 16, 32))
    for record in run.history:
        record["measurement"]["distances"]["ridge:0.5"] = dict.fromkeys(("classifiers", "embeddings", "logits"), to_own)
        record["measurement"]["distances"]["seli"]["classifiers"] = distance * left * (2 if record["epoch"] < 32 else 1)
    assert sentence.format(f"{left:.2g}") in said(run, "What to make of it")
    assert f"{left:.2g}" in said(run, "What to make of it")
    near = "matches" if to_own < 0.05 else "is close to"
    assert said(run, "Own weight decay") == (
        f"The network {near} the geometry at λ = 0.500, that of its own penalties: the classifiers are {to_own:#.2g} "
        f"away, the embeddings {to_own:#.2g} and the logits {to_own:#.2g}.")


def test_a_weight_decay_under_which_all_vanishes_leaves_nothing_to_compare_with(make_run):
    run = make_run(STEP, epochs=(1, 2, 4, 8, 16, 32))
    for record in run.history:
        record["measurement"]["distances"]["ridge:9"] = dict.fromkeys(("classifiers", "embeddings", "logits"))
    assert said(run, "Own weight decay") is None
    assert "more epochs bring it closer." in said(run, "What to make of it")


@pytest.mark.parametrize(("settings", "moved"), [
    ({}, True), ({"loss": "ldt"}, True), ({"loss": "weighted-ldt"}, False), ({"loss": "scl"}, False),
    ({"head": "etf"}, False), ({"sampling": "oversampled"}, False)])
def test_a_ridge_is_blamed_only_where_it_moves_the_prediction(make_run, settings, moved):
    run = make_run(STEP, epochs=(1, 2, 4, 8, 16, 32))
    run.config |= settings
    for record in run.history:
        record["measurement"]["distances"]["seli"]["classifiers"] = 0.3
    text = said(run, "What to make of it")
    assert "The distance has stopped falling." in text
    assert ("any real weight decay keeps a network short of it" in text) == moved


@pytest.mark.parametrize(("settings", "named"), [
    ({}, True), ({"loss": "logit-adjusted"}, True), ({"loss": "ldt"}, False), ({"loss": "cdt"}, False),
    ({"loss": "vs", "loss_options": {"gamma": 0.1, "tau": 1.0}}, False), ({"head": "etf"}, False)])
def test_temperatures_are_named_where_they_were_not_used_with_a_command_that_works(make_run, save_run, cli, tmp_path,
                                                                                 settings, named):
    run = changed(make_run, test__majority_accuracy=0.95, test__minority_accuracy=0.6)
    run.config |= settings
    kept = Run.open(save_run(run, tmp_path / "a run"))
    text = said(kept, "What to make of it") or ""
    assert ("move it (Behnia et al. 2023)" in text) == named
    if named:
        command = text.partition("`")[2].partition("`")[0]
        assert shlex.split(command) == ["neuralcollapse", "advise", str(tmp_path / "a run")]
        assert "no checkpoint yet" in cli(*shlex.split(command)[1:]).err  # the arguments are right: the run is made up


def test_a_single_epoch_says_nothing_about_trends(make_run):
    run = make_run(STEP, epochs=(3,), planned=50)
    assert said(run, "Status").startswith("This run has been measured up to epoch 3 of 50")
    run.state = "stopped after epoch 3"
    assert said(run, "Status").startswith("This run stopped after epoch 3 of 50: everything below describes that epoch")
    finished = make_run(STEP, epochs=(3,), planned=3)
    assert said(finished, "Status") is None
    assert "falling" not in (said(finished, "What to make of it") or "")


def test_balanced_runs_speak_of_the_simplex_and_of_no_minority(make_run):
    texts = [sentence.text for sentence in verdict(make_run(ClassCounts([50, 50, 50])))]
    assert any("the simplex ETF (SELI is the same where all classes have the same count)" in text for text in texts)
    assert any("equal lengths are predicted" in text for text in texts)
    assert any(text.startswith("Two classifiers stand at ") for text in texts)
    assert not any("inority" in text for text in texts)


def in_terminal_phase(make_run, measured, planned, wanted, zero_error, ends):
    """A run that waits for zero training error, as `Clock.terminal` records it."""
    run = make_run(STEP, epochs=measured, planned=planned)
    run.config["terminal_epochs"] = wanted
    run.history[-1]["terminal"] = {"zero_error_epoch": zero_error, "last_epoch": ends}
    return run


@pytest.mark.parametrize(("measured", "zero_error", "ends", "status", "terminal", "subtitle", "row"), [
    ((1, 12, 32), 12, 32, None, "Training error was first zero after epoch 12; the terminal phase lasted 20 epochs.",
     "epoch 32", "20 epochs after zero training error, which came after epoch 12"),
    ((1, 12, 13), 12, 32, "epoch 13 of 32: everything below describes that epoch",
     "Training error was first zero after epoch 12; the terminal phase goes on until epoch 32.", "epoch 13 of 32",
     "20 epochs after zero training error, which came after epoch 12"),
    ((1, 5), None, None, "epoch 5 of at most 100: everything below describes that epoch",
     "Training error has not been zero yet; the terminal phase begins when it is.", "epoch 5 of at most 100",
     "20 epochs after zero training error, which has not come yet"),
    ((1, 100), None, 100, None, "Training error never reached zero in 100 epochs, so there was no terminal phase.",
     "epoch 100", "20 epochs after zero training error, which was not reached"),
])
def test_a_run_that_ends_after_zero_error(make_run, save_run, tmp_path, measured, zero_error, ends, status, terminal,
                                          subtitle, row):
    made = in_terminal_phase(make_run, measured, 100, 20, zero_error, ends)
    kept = Run.open(save_run(made, tmp_path / "run"))
    assert kept.finished is (status is None)
    for run in (made, kept):
        assert Reading(run).finished is (status is None)
        assert said(run, "Terminal phase") == terminal
        assert (status is None) == (said(run, "Status") is None)
        assert (status or "") in (said(run, "Status") or "")
        assert tables.subtitle(Reading(run)).endswith(f" · {subtitle}")
        assert ["Terminal phase", row] in [list(line) for line in tables.trained(Reading(run)).rows]


def test_a_run_of_fixed_length_has_no_terminal_phase(make_run):
    run = make_run(STEP, epochs=(1, 10, 100))
    assert said(run, "Terminal phase") is None
    assert not {"Terminal phase", "Label noise", "Precision", "Processes"} & {
        row[0] for row in tables.trained(Reading(run)).rows}


def test_what_was_unusual_about_the_training(make_run):
    run = make_run(STEP, epochs=(1, 10))
    run.data["label_noise"] = {"share": 0.1, "replaced": 2, "clean_counts": [9, 9, 1, 1]}
    run.config["precision"] = "bf16"
    run.environment["processes"] = 2
    assert said(run, "Labels") == ("2 training labels (10.0 %) were replaced by another class: counts and predictions "
                                   "follow the labels trained on, test labels are clean.")
    rows = {row[0]: row[1] for row in tables.trained(Reading(run)).rows}
    assert rows["Label noise"] == "2 of 20 training labels replaced; test labels are clean"
    assert (rows["Precision"], rows["Processes"]) == ("bf16", "2")
    run.config["precision"], run.environment["processes"] = "float32", 1
    assert not {"Precision", "Processes"} & {row[0] for row in tables.trained(Reading(run)).rows}


def test_nothing_measured_yet(make_run):
    assert [sentence.text for sentence in verdict(make_run(STEP, epochs=()))] == ["No epoch has been measured yet."]
    dead = make_run(STEP, epochs=())
    dead.state = "stopped before its first measurement"
    assert [sentence.text for sentence in verdict(dead)] == ["This run stopped before its first measurement."]


def test_missing_numbers_are_left_out(make_run, without_numbers):
    assert [sentence.topic for sentence in verdict(without_numbers(make_run(STEP, epochs=(1, 10))))] == []


def test_two_classes_have_one_prediction_for_classifiers(make_run):
    run = make_run(ClassCounts([50, 5]))
    assert said(run, "Geometry").endswith("For the classifiers SELI and the simplex ETF are the same.")
    assert said(run, "Classifiers") == ("Minority classifiers are as long as majority ones; "
                                        "SELI predicts them as long as majority ones.")


def test_predictions_nearer_to_each_other_than_the_run(make_run):
    run = make_run(ClassCounts([50, 50, 49, 49]), noise=1.0)
    assert "too near for this run to tell them apart" in said(run, "Geometry")


def test_one_minority_class_has_no_pair(make_run):
    run = make_run(ClassCounts([50, 50, 5]))
    assert said(run, "Angles") is None
    assert said(run, "Classifiers").startswith("Minority classifiers are")

"""A run's place along the weight decay: networks made at a known λ, sentences against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.show import figures, verdict
from neuralcollapse.show.decay import along_decay, decay_charts
from neuralcollapse.show.decay_sentences import decay_sentences
from neuralcollapse.show.palette import in_a_sentence, target_colour, target_name
from neuralcollapse.show.reading import Reading
from neuralcollapse.show.report import render

STEP = ClassCounts([10, 10, 1, 1], ["often a", "often b", "rare a", "rare b"])


@pytest.fixture
def at_ridge(make_run):
    """A run whose last Grams are the prediction at a λ, centred as it says, and which recorded these penalties."""
    def make(ridge=0.2, penalties=(0.4, 0.1), counts=STEP, center="classes"):
        run = make_run(counts, epochs=(1, 10, 100))
        w, m = predict(counts, ridge=ridge).factors()
        share = {"classes": np.full(counts.k, 1 / counts.k), "samples": counts.values / counts.n,
                 "none": np.zeros(counts.k)}[center]
        m = m - share @ m
        products = {"classifiers": w @ w.T, "embeddings": m @ m.T, "logits": w @ m.T}
        run.kept[100] = {name: (p / np.linalg.norm(p)).astype(np.float32) for name, p in products.items()}
        run.history[-1]["measurement"]["center"] = center
        if penalties is not None:
            run.data["ridges"] = dict(zip(("classifiers", "embeddings"), penalties, strict=True))
        return run
    return make


def said(run) -> dict[str, str]:
    return {sentence.topic: sentence.text for sentence in decay_sentences(along_decay(Reading(run)))}


@pytest.mark.parametrize("center", ["classes", "samples", "none"])
@pytest.mark.parametrize("ridge", [0.003, 0.2, 0.9])
def test_the_ridge_is_found_whatever_the_centre(at_ridge, center, ridge):
    estimate = along_decay(Reading(at_ridge(ridge, center=center))).estimate
    assert estimate.ridge == pytest.approx(ridge, rel=0.01)
    assert estimate.distance < 1e-5
    assert estimate.interval[0] <= estimate.ridge <= estimate.interval[1]


def test_a_run_that_sits_where_its_penalties_say(at_ridge):
    text = said(at_ridge())
    assert text["Where it sits"].startswith("The network is nearest to the geometry at λ = 0.200, ")
    assert text["Its own penalties"] == ("With the loss summed over samples its own penalties are λ_W = 0.4 and "
                                         "λ_H = 0.1, that is λ = √(λ_W λ_H) = 0.200.")
    assert text["Do they agree?"].startswith("Yes: the network has the geometry that its own penalties predict")
    # Fang 2021: classes of n_min = 1 merge from λ = √1 on, five times 0.2.
    assert text["Merging classes"] == "Its λ merges no classes: the first collapse is at λ = 1.00, 5.0× as large."
    # w = λ²/(n² p) with n = 22, p = 0.1/22: 1/(22 · 0.1) = 0.4545.
    assert text["Largest safe weight decay"] == ("With its feature penalty of 0.00455 any weight decay on the head "
                                                 "below 0.455 is safe; 0.0182 is in use.")
    assert text["Thresholds"] == ("From λ = 1.00 on the 2 classes with n = 1 merge; from λ = 3.16 on the 2 classes "
                                  "with n = 10 merge; from λ = 3.16 on all classes vanish.")


def test_a_run_that_has_not_got_there_and_merges(at_ridge):
    text = said(at_ridge(0.2, (4.0, 1.0)))
    assert text["Do they agree?"].startswith("No: the nearest λ is 10× below its own (at its own λ the distance is ")
    assert "not converged yet, or the network is outside the model" in text["Do they agree?"]
    assert text["Merging classes"].endswith("cannot be told apart, whatever the features: rare a, rare b.")
    # 1/(22² · 1/22) = 1/22 and 4/22.
    assert "below 0.0455 is safe; 0.182 is in use" in text["Largest safe weight decay"]


def test_the_other_side(at_ridge):
    assert "the nearest λ is 20× above its own" in said(at_ridge(0.2, (0.01, 0.01)))["Do they agree?"]


def test_total_collapse(at_ridge):
    text = said(at_ridge(0.2, (4.0, 4.0)))
    assert text["Merging classes"].startswith("At its λ every class vanishes: λ = 4.00 is not below")
    assert "at its own λ nothing but zero is predicted" in text["Do they agree?"]


def test_without_a_feature_penalty_the_nearest_ridge_stands_in(at_ridge):
    text = said(at_ridge(0.2, (0.4, 0.0)))
    assert text["Its own penalties"].endswith("The nearest λ amounts to λ_H = 0.1.")  # 0.2²/0.4
    assert "Do they agree?" not in text
    assert "Merging classes" not in text
    # √(w p) n = 1 at the first collapse: 1/22.
    assert "while √(w·p) is below 0.0455" in text["Largest safe weight decay"]
    unpenalised = said(at_ridge(0.2, (0.0, 0.0)))["Its own penalties"]
    assert "theory's λ is 0, and what it approaches is the limit" in unpenalised
    assert "Its own penalties" not in said(at_ridge(0.2, None))


def test_a_network_that_no_ridge_describes(make_run):
    run = make_run(STEP, epochs=(1, 10), noise=3.0)
    run.data["ridges"] = {"classifiers": 0.1, "embeddings": 0.1}
    assert "That is far: no λ describes this network well." in said(run)["Where it sits"]
    assert "outside the model of free features" in said(run)["Do they agree?"]


def test_with_equal_counts_no_ridge_is_told_from_another(make_run):
    run = make_run(ClassCounts([30, 30, 30]), epochs=(1, 100))
    run.data["ridges"] = {"classifiers": 1.0, "embeddings": 1.0}
    text = said(run)
    assert text["Where it sits"].startswith("With equal counts the geometry is the simplex ETF at every λ")
    assert "Do they agree?" not in text
    assert "the first collapse is at λ = 5.48, 5.5×" in text["Merging classes"]  # √30


def test_a_nearest_ridge_at_the_end_of_the_path_is_a_bound(make_run):
    run = make_run(ClassCounts.long_tail(10, 100, 500), epochs=(1, 100), noise=0.5)  # made from SELI itself
    run.data["ridges"] = {"classifiers": 2.0, "embeddings": 0.5}
    assert "No: the nearest λ is at least 447× below its own" in said(run)["Do they agree?"]  # √500 · 1e-4
    assert "every λ below it, and up to " in said(run)["Where it sits"]
    del run.data["ridges"]
    first = predict(run.counts, ridge=1.0).thresholds["minority_collapse"]  # no two classes are equal: bisected
    expected = f"{first / run.counts.n:.3g}"
    assert f"while √(w·p) is below {expected}, for" in said(run)["Largest safe weight decay"]


@pytest.mark.parametrize("broken", [{"classifiers": "x", "embeddings": 1}, {"classifiers": -1.0, "embeddings": 1.0}, 3,
                                    {"classifiers": float("nan"), "embeddings": 1.0}])
def test_penalties_that_are_none(at_ridge, broken):
    run = at_ridge()
    run.data["ridges"] = broken
    assert along_decay(Reading(run)).penalties is None
    assert 'id="decay"' in render(run)


def test_grams_that_are_missing_or_zero(at_ridge):
    run = at_ridge()
    for grams in ({}, {part: np.zeros((4, 4), dtype=np.float32) for part in ("classifiers", "embeddings")}):
        run.kept[100] = grams
        found = along_decay(Reading(run))
        assert found.estimate is None
        assert list(decay_charts(found)) == ["along", "along-distances"]
        assert 'id="decay"' in render(run)


def test_only_the_classifiers_kept(at_ridge):
    run = at_ridge()
    del run.kept[100]["embeddings"]
    assert along_decay(Reading(run)).estimate.ridge == pytest.approx(0.2, rel=0.01)
    decay_charts(along_decay(Reading(run)))["nearest"].matplotlib()


@pytest.mark.parametrize("counts", [ClassCounts.long_tail(250, 100, 500), ClassCounts.long_tail(60, 100, 5000)])
def test_left_out_where_it_would_take_long(make_run, counts):
    run = make_run(counts, epochs=(1,))
    assert along_decay(Reading(run)) is None
    assert 'id="decay"' not in render(run)


def test_pictures_mark_the_run(at_ridge):
    charts = decay_charts(along_decay(Reading(at_ridge())))
    nearest = charts["nearest"]
    own = next(mark for mark in nearest.marks if mark.label == "own λ")
    band = next(mark for mark in nearest.marks if mark.end is not None)
    assert own.x == pytest.approx(0.2)
    assert band.x <= 0.2 <= band.end or band.end == pytest.approx(0.2, rel=1e-3)
    curve = nearest.panels[0].curves[0]
    assert np.nanargmin(curve.y) == np.abs(np.log(nearest.x / 0.2)).argmin()
    for chart in charts.values():
        assert len(chart.plotly().layout.shapes) == len(chart.marks) * len(chart.panels)
        chart.matplotlib().canvas.draw()


@pytest.mark.parametrize("center", ["classes", "samples", "none"])
def test_the_picture_along_the_ridge_is_centred_as_the_tables(at_ridge, center):
    chart = decay_charts(along_decay(Reading(at_ridge(0.2, center=center))))["along"]
    place = int(np.abs(np.log(chart.x / 0.2)).argmin())
    _, m = predict(STEP, ridge=float(chart.x[place])).factors()
    share = {"classes": np.full(4, 1 / 4), "samples": STEP.values / STEP.n, "none": np.zeros(4)}[center]
    m = m - share @ m
    lengths = np.linalg.norm(m, axis=1)
    panels = {panel.title: panel.curves for panel in chart.panels}
    drawn = [curve.y[place] for curve in panels["Norms of embeddings"]]
    assert drawn == pytest.approx([lengths[0] / np.sqrt(np.linalg.norm(m @ m.T)), lengths[2] / np.sqrt(
        np.linalg.norm(m @ m.T))], rel=1e-4)
    minority = next(curve for curve in panels["Cosines of embeddings"] if curve.name == "minority")
    assert minority.y[place] == pytest.approx(m[2] @ m[3] / (lengths[2] * lengths[3]), abs=1e-4)
    assert "centred as the measured ones" in chart.caption


def test_the_ridge_as_a_target(at_ridge):
    run = at_ridge()
    for record in run.history:
        record["measurement"]["distances"]["ridge:0.2"] = dict.fromkeys(("classifiers", "embeddings", "logits"), 0.25)
    assert Reading(run).targets == ["seli", "etf", "ridge:0.2"]
    curve = figures.distances(run).panels[0].curves[2]
    assert (curve.name, curve.colour) == ("to the geometry at λ = 0.200", "orange")
    assert [mark.name for mark in figures.norms(run).panels[0].marks] == ["SELI", "simplex ETF", "λ = 0.200"]
    angles = next(sentence.text for sentence in verdict(run) if sentence.topic == "Angles")
    cosine = predict(STEP, ridge=0.2).classifiers.cosines()[2, 3]
    assert angles.endswith(f"the geometry at λ = 0.200 predicts {np.degrees(np.arccos(cosine)):.1f}°.")
    page = render(run)
    assert page.count("λ = 0.200") > 5
    assert "λ<sub>W</sub>" in page


def test_names_of_ridge_targets():
    assert (target_name("ridge:0.01001"), target_name("ridge:new")) == ("λ = 0.0100", "λ = new")
    assert in_a_sentence("ridge:1e-6") == "the geometry at λ = 1e-06"
    assert (target_colour("seli"), target_colour("ridge:1"), target_colour("mse")) == ("blue", "orange", "green")

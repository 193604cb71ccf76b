"""Pictures: the prepared numbers against the run and the prediction, and both drawers on every kind of run."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from neuralcollapse.checks import InvalidInput
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import predict
from neuralcollapse.show import figures, prediction_figure, save_prediction, summary_figure
from neuralcollapse.show.class_axis import class_axis, mean_cosines, split_cosines
from neuralcollapse.show.palette import diverging_scale, short_names

STEP = ClassCounts([5, 50, 5, 50], ["rare a", "often a", "rare b", "often b"])
EVERY = [figures.distances, figures.collapse, figures.training, figures.grams, figures.norms, figures.accuracies]
KINDS = {"step": STEP, "balanced": ClassCounts([30, 30, 30]), "tail": ClassCounts.long_tail(30, 100, 500),
         "grouped": ClassCounts.long_tail(250, 100, 500)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("picture", EVERY)
def test_both_drawers_draw(make_run, without_numbers, kind, picture):
    for run in (make_run(KINDS[kind]), make_run(KINDS[kind], epochs=(3,)), without_numbers(make_run(KINDS[kind]))):
        chart = picture(run)
        if chart is None:
            continue
        assert chart.description
        assert len(chart.plotly().data) >= len(chart.panels)
        assert len(chart.matplotlib().axes) >= len(chart.panels)
        alone = chart.panel(0)
        assert not any(trace.showlegend for trace in alone.plotly().data)
        alone.matplotlib().canvas.draw()


def test_distances_hold_the_measured_series(make_run):
    run = make_run(STEP, epochs=(1, 2, 4))
    seli, etf = figures.distances(run).panels[1].curves
    assert (seli.name, etf.name) == ("to SELI", "to the simplex ETF")
    for curve, target in ((seli, "seli"), (etf, "etf")):
        expected = [record["measurement"]["distances"][target]["embeddings"] for record in run.history]
        np.testing.assert_array_equal(curve.y, expected)


def test_heatmaps_are_ordered_by_count_on_one_scale(make_run):
    run = make_run(STEP)
    chart = figures.grams(run)
    assert chart.names == ("often a", "often b", "rare a", "rare b")
    order = [1, 3, 0, 2]
    predicted = predict(STEP).embeddings.unit().dense()[np.ix_(order, order)]
    np.testing.assert_allclose(chart.panels[3].values, predicted, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(chart.panels[2].values, run.kept[128]["embeddings"][np.ix_(order, order)])
    assert chart.limit == max(np.abs(panel.values).max() for panel in chart.panels)
    drawn = chart.plotly()
    assert drawn.layout.coloraxis.cmax == -drawn.layout.coloraxis.cmin == chart.limit
    assert {trace.coloraxis for trace in drawn.data} == {"coloraxis"}


def test_norms_measured_and_predicted_are_scaled_alike(make_run):
    for keep in (True, False):
        run = make_run(STEP, noise=1e-9, keep=keep)  # a network that is the prediction
        for panel in figures.norms(run).panels:
            seli = next(mark for mark in panel.marks if mark.name == "SELI")
            np.testing.assert_allclose(panel.bars[0].y, seli.y, rtol=1e-6)


def test_levels_of_nc2_and_nc3_are_what_the_prediction_measures(make_run):
    """Measured on SELI's own factors, centred on classes: the curves end on their dotted lines."""
    run = make_run(STEP)
    panels = figures.collapse(run).panels
    w, m = predict(STEP).factors()
    m = m - m.mean(0)
    for place, factor in enumerate((w, m)):
        norms = np.linalg.norm(factor, axis=1)
        cosines = (factor @ factor.T / np.outer(norms, norms))[~np.eye(4, dtype=bool)]
        np.testing.assert_allclose(panels[2].levels[place].y, norms.std() / norms.mean(), rtol=1e-10)
        np.testing.assert_allclose(panels[3].levels[place].y, np.abs(cosines + 1 / 3).mean(), rtol=1e-10)
    duality = np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m))
    np.testing.assert_allclose(panels[4].levels[0].y, duality, rtol=1e-10)


@pytest.mark.parametrize(("last", "whole"), [(1, True), (4, True), (200, False)])
def test_the_ticks_of_few_epochs_are_whole(make_run, last, whole):
    drawn = figures.distances(make_run(STEP, epochs=(last,))).plotly()
    assert (drawn.layout.xaxis.dtick == 1) == whole


def test_epoch_zero_stands_before_one_on_a_logarithmic_axis(make_run):
    chart = figures.distances(make_run(STEP, epochs=(0, 1, 2, 4, 8, 16, 32, 64)))
    assert chart.log_x
    assert chart.positions[0] == 0.5
    assert chart.ticks() == ([0.5, 1, 2, 5, 10, 20, 50], ["0", "1", "2", "5", "10", "20", "50"])
    assert not figures.distances(make_run(STEP, epochs=(1, 2, 3, 4))).log_x


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 1000), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_mean_cosines_against_every_pair(counts, seed):
    gram = predict(counts).classifiers
    places = np.random.default_rng(seed).integers(0, 3, len(counts))
    dense, found = gram.cosines(), mean_cosines(gram, np.eye(3)[places])
    for i in range(3):
        for j in range(3):
            pairs = [dense[a, b] for a in np.flatnonzero(places == i) for b in np.flatnonzero(places == j) if a != b]
            if pairs:
                np.testing.assert_allclose(found[i, j], np.mean(pairs), rtol=0, atol=1e-12)
            else:
                assert np.isnan(found[i, j])


def test_split_cosines_without_a_minority():
    counts = ClassCounts([5, 5, 5])
    found = split_cosines(predict(counts).classifiers, counts.minority)
    assert found == {"majority_majority": pytest.approx(-0.5), "majority_minority": None, "minority_minority": None}


@pytest.mark.parametrize("counts", [ClassCounts.long_tail(300, 100, 500), ClassCounts.step(400, 10, 0.25, n_min=3),
                                    ClassCounts([*range(1, 202), 10**6])])
def test_groups_cover_all_classes_in_order_and_mix_no_minority(counts):
    axis = class_axis(counts)
    assert axis.grouped
    assert axis.size <= 10
    assert axis.sizes.sum() == counts.k
    assert (axis.sizes > 0).all()
    assert (np.diff(axis.values(counts.values)) < 0).all()
    share = axis.values(counts.minority.astype(float))
    assert set(share) <= {0.0, 1.0}


def test_colour_scale_is_symmetric_and_rises_with_the_root():
    stops = diverging_scale()
    positions = np.array([at for at, _ in stops])
    assert stops[len(stops) // 2] == (0.5, "#ffffff")
    np.testing.assert_allclose(positions + positions[::-1], 1, atol=1e-9)
    assert (np.diff(positions) > 0).all()


def test_short_names_are_distinct_and_fit():
    names = short_names(["a very long name that ends in one", "a very long name that ends in two", "a\nb", "", "a b"])
    assert len(set(names)) == 5
    assert all("\n" not in name and len(name) <= 22 for name in names)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_prediction_as_a_file(tmp_path, suffix):
    path = save_prediction(predict(STEP), tmp_path / f"seli{suffix}")
    assert path.stat().st_size > 5_000


def test_prediction_in_groups(tmp_path):
    geometry = predict(ClassCounts.long_tail(1000, 100, 500))
    chart = figures.predicted_grams(geometry)
    assert [panel.values.shape for panel in chart.panels] == [(10, 10), (10, 10)]
    prediction_figure(geometry).savefig(tmp_path / "groups.png")


@pytest.mark.parametrize(("name", "message"), [
    ("seli.gif", "a picture's file name must end in .png, .pdf, .svg, .jpg, .html, got 'seli.gif'"),
    ("no/seli.png", "cannot write '.*': there is no folder '.*no'"),
    ("no/seli.html", "cannot write '.*': there is no folder '.*no'"),
])
def test_pictures_that_cannot_be_written(tmp_path, name, message):
    with pytest.raises(InvalidInput, match=message):
        save_prediction(predict(STEP), tmp_path / name)


@pytest.mark.parametrize(("keep", "parts"), [
    (True, [["Classifiers", "Embeddings"], ["Classifiers, measured", "Classifiers, SELI", ""],  # "": the colour bar
            ["Norms of classifiers"], ["Test accuracy"]]),
    (False, [["Classifiers", "Embeddings"], ["Norms of classifiers", "Norms of embeddings"], ["Test accuracy"], []])])
def test_summary(make_run, tmp_path, keep, parts):
    figure = summary_figure(make_run(STEP, keep=keep))
    figure.savefig(tmp_path / "summary.png")
    assert [[axes.get_title() for axes in part.axes] for part in figure.subfigs] == parts


def test_importing_draws_nothing():
    code = ("import sys, neuralcollapse.show; "
            "assert not {'torch', 'matplotlib', 'plotly'} & sys.modules.keys(), sorted(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)

"""The geometry along λ as a picture and as a table: numbers against every geometry, labels that keep apart."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from rich.console import Console

from neuralcollapse.checks import InvalidInput
from neuralcollapse.console import sparkline
from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import ridge_path
from neuralcollapse.show.along import event_line, summarise
from neuralcollapse.show.charts import Mark, Sweep
from neuralcollapse.show.class_axis import split_cosines
from neuralcollapse.show.facts import norm_ratio
from neuralcollapse.show.figures import path_charts, path_figure, save_path
from neuralcollapse.show.path_figures import event_marks
from neuralcollapse.show.terminal import print_path

KINDS = {"step": [10, 10, 1, 1], "balanced": [30, 30, 30], "tail": ClassCounts.long_tail(12, 100, 500),
         "one minority": [50, 40, 5], "two": [9, 2], "groups": [1] * 3 + [2] * 3 + [4] * 3 + [9] * 3 + [50] * 3}


@pytest.fixture(scope="module", params=KINDS)
def path(request):
    return ridge_path(KINDS[request.param], points=12)


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.sampled_from([1, 2, 5, 40, 300]), min_size=2, max_size=9))
def test_summary_against_every_geometry(counts):
    path = ridge_path(counts, points=5)
    summary, few = summarise(path), path.geometries[0].counts.minority
    for kind in ("classifiers", "embeddings"):
        for i, geometry in enumerate(path.geometries[:-1]):  # the last lies beyond total collapse
            gram = getattr(geometry, kind)
            for pair, value in split_cosines(gram, few).items():
                # Cosines of vectors that have all but vanished are rounding, here and there.
                if value is not None and gram.unit().norms.min() > 1e-5:
                    np.testing.assert_allclose(summary.cosines[kind, pair][i], value, rtol=0, atol=1e-7)
            expected = gram.unit().norms[few].mean() if few.any() else np.nan
            np.testing.assert_allclose(summary.norms[kind, True][i], expected, rtol=1e-9, atol=1e-9)
            ratio = norm_ratio(gram.norms, few)
            if ratio is not None and ratio < 1e6:
                np.testing.assert_allclose(summary.ratio(kind)[i], ratio, rtol=1e-7)
        assert all(np.isnan(values[-1]) for (of, _), values in summary.norms.items() if of == kind)


def test_both_drawers_mark_every_event_in_every_panel(path):
    for chart in path_charts(path, ridge=0.3):
        assert len(chart.marks) == len(path.events) + 1
        assert chart.marks[-1].name == "your λ"
        drawn = chart.plotly()
        assert len(drawn.layout.shapes) == len(chart.marks) * len(chart.panels)
        texts = {annotation.text for annotation in drawn.layout.annotations}
        assert any("your λ" in text for text in texts)
        assert any("all" in text.split(", ") for text in texts)
        assert not any(trace.showlegend for trace in chart.panel(0).plotly().data)
        assert chart.panel(0).plotly().layout.showlegend is False
        axes = chart.matplotlib().axes
        assert all(len(axis.texts) == len(chart.labels()) for axis in axes)
    path_figure(path, 0.3).canvas.draw()


def test_curves_hold_the_path(path):
    shapes, distances = path_charts(path)
    np.testing.assert_array_equal(distances.panels[0].curves[0].y, path.to_limit["classifiers"])
    np.testing.assert_array_equal(distances.panels[1].curves[1].y, path.to_etf["embeddings"])
    np.testing.assert_array_equal(distances.panels[2].curves[0].y, path.ranks)
    np.testing.assert_array_equal(shapes.x, path.ridges)
    assert all(np.isnan(curve.y[-1]) for panel in shapes.panels for curve in panel.curves)  # 1.25 of total collapse
    assert shapes.description.count("λ = ") == len(path.events) if len(path.events) < 5 else 3


def test_few_groups_are_labelled_and_of_many_the_first_and_last():
    few = event_marks(ridge_path([10, 10, 1, 1], points=4).events)
    assert [mark.label for mark in few] == ["n = 1", "n = 10", "all"]
    np.testing.assert_allclose([mark.x for mark in few], [1, np.sqrt(10), np.sqrt(10)])
    many = event_marks(ridge_path(KINDS["groups"], points=4).events)
    assert [mark.label for mark in many] == ["n = 1", "", "", "", "n = 50", "all"]


@settings(max_examples=200, deadline=None)
@given(places=st.lists(st.floats(0, 1), min_size=1, max_size=6), lengths=st.lists(st.integers(1, 12), min_size=6,
                                                                                  max_size=6))
def test_labels_in_one_row_keep_apart_and_inside(places, lengths):
    marks = tuple(Mark("m", 10.0 ** (4 * at), "ink", "n" * length)
                  for at, length in zip(places, lengths, strict=False))
    chart = Sweep("", "", "", (), 1, np.array([1.0, 1e4]), True, marks=marks)
    placed = chart.labels()
    assert sum(len(label.text.split(", ")) for label in placed) == len(marks)
    for i, one in enumerate(placed):
        half = 0.026 * (len(one.text) + 1) / 2
        assert half > 0.5 or half - 1e-9 <= one.at <= 1 - half + 1e-9
        for two in placed[:i]:
            if one.row == two.row:
                assert abs(one.at - two.at) >= half + 0.026 * (len(two.text) + 1) / 2 - 1e-9


def test_a_ridge_beyond_the_path_widens_the_axis():
    path = ridge_path([10, 10, 1, 1], points=5)
    for ridge in (1e-9, 1e3):
        low, high = path_charts(path, ridge)[0].x_limits
        assert low <= ridge <= high
    with pytest.raises(InvalidInput, match="ridge must be"):
        path_charts(path, -1.0)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".jpg", ".html"])
def test_files(tmp_path, suffix):
    file = save_path(ridge_path([10, 10, 1, 1], points=8), tmp_path / f"path{suffix}", ridge=0.5)
    assert file.stat().st_size > 5_000


def test_pictures_that_cannot_be_written(tmp_path):
    path = ridge_path([10, 10, 1, 1], points=3)
    with pytest.raises(InvalidInput, match=r"must end in .png, .pdf, .svg, .jpg, .html, got 'path.gif'"):
        save_path(path, tmp_path / "path.gif")
    with pytest.raises(InvalidInput, match="cannot write"):
        save_path(path, tmp_path / "no" / "path.png")


def test_a_hundred_thousand_classes(tmp_path):
    path = ridge_path(ClassCounts.step(100_000, 100, 0.5, n_min=5), points=100)
    begin = time.perf_counter()
    save_path(path, tmp_path / "path.png", ridge=0.1)
    assert time.perf_counter() - begin < 20  # a second where nothing else runs; k × k would never end


# -- the terminal -----------------------------------------------------------------------------------


def printed(path, width=90) -> str:
    file = StringIO()
    print_path(path, Console(file=file, width=width))
    return file.getvalue()


def test_table_is_plain_and_narrow(path):
    text = printed(path)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 90
    for event in path.events:
        assert f"• {event_line(event)}" in " ".join(text.replace("\n", " ").split())
    rows = text[text.index("rank"):text.index("\nfrom λ = ")].splitlines()[1:]
    assert len([row for row in rows if row.strip()]) == 12


def test_table_holds_the_numbers():
    path = ridge_path([10, 10, 1, 1], low=0.01, high=0.1, points=2)
    text = printed(path)
    for geometry, to_limit, to_etf in zip(path.geometries, path.to_limit["classifiers"], path.to_etf["classifiers"],
                                          strict=True):
        w, m = geometry.classifiers.norms, geometry.embeddings.norms
        cosine = geometry.classifiers.cosines()[2, 3]
        row = [f"{geometry.ridge:.2g}", f"{w[0] / w[2]:.3g}", f"{m[0] / m[2]:.3g}", f"{cosine:.3g}",
               f"{to_limit:.3g}", f"{to_etf:.3g}", "3"]
        assert row in [line.split() for line in text.splitlines()]
    assert "from λ = 1.00 on the 2 classes with n = 1 merge (the solutions confirm it)" in text


def test_an_event_that_the_solutions_contradict_is_said():
    event = replace(ridge_path([10, 10, 1, 1], points=3).events[0], confirmed=False)
    assert event_line(event).endswith("(NOT confirmed by the solutions)")


def test_sparkline():
    assert sparkline(np.array([0.0, 1e-16])) == "▁▁"
    assert len(sparkline(np.linspace(0, 1, 500))) == 40
    assert sparkline(np.full(3, np.nan)) == "···"

"""The page of predictions without a browser: its state, its figures, its solver, and what it answers over HTTP."""

from __future__ import annotations

import json
import shlex
import time

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES, predict, ridge_path
from neuralcollapse.show.along import summarise, summarise_one
from neuralcollapse.show.explorer.serve import application
from neuralcollapse.show.explorer.theory_controls import message_list
from neuralcollapse.show.explorer.theory_page import _ratio_points, _ridge_points
from neuralcollapse.show.explorer.theory_parts import along_ridge, numbers_table, thresholds
from neuralcollapse.show.explorer.theory_reading import LONGEST_TEXT, from_query, read, why_no_ridge
from neuralcollapse.show.explorer.theory_solver import Solved, Solver, ridge_at, ridge_steps
from neuralcollapse.show.explorer.theory_state import DEFAULT, TheoryState
from neuralcollapse.show.ratio_figures import against_ratio
from neuralcollapse.show.space import drawing
from neuralcollapse.show.spectrum import singular_values, spectrum

PROFILES = ["k=6&ratio=10&n_min=2", "profile=long-tail&k=5&ratio=20&n_max=100", "profile=counts&counts=9,9,4,4,1",
            "k=7&minority=0.3&n_min=1.5"]
SETTINGS = ["", "ridge=0.3", "loss=weighted&weight=1,3&ridge=0.3", "loss=la&iota=log n&ridge=0.2", "loss=ldt",
            "loss=ldt&delta=n^0.5&ridge=0.4", "loss=cdt&delta=2,1", "loss=vs&delta=n^-0.1&iota=0.5 log n&ridge=0.2",
            "loss=mse&ridge=0.5", "loss=relu-ce&ridge=0.1", "loss=scl", "loss=etf",
            "delta=1.5,1&temperature=label&weight=2"]


def state_of(*parts: str) -> TheoryState:
    state, messages = from_query("&".join(filter(None, parts)))
    assert [message for message in messages if "ρ = " not in message] == []
    return state


# -- the state --------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_python_command_and_link_give_the_same_geometry(cli, profile, setting):
    state = state_of(profile, setting)
    expected = state.geometry()
    assert from_query("?" + state.query())[0] == state
    names: dict[str, object] = {}
    exec(state.python(), names)
    again = names["geometry"]
    assert (again.loss, again.ridge) == (expected.loss, expected.ridge)
    program, *words = shlex.split(state.command())
    assert program == "neuralcollapse"
    result = cli(*words, "--json")
    assert result.code == 0, result.err
    printed = json.loads(result.out)
    for part in ("classifiers", "embeddings"):
        gram = getattr(expected, part)
        np.testing.assert_array_equal(getattr(again, part).dense(), gram.dense())
        np.testing.assert_allclose(printed[part]["norms"], gram.norms, rtol=1e-12, atol=0)
    assert printed["loss"] == state.loss
    assert printed["ridge"] == state.ridge


def test_every_registered_loss_can_be_chosen():
    for entry in GEOMETRIES:
        assert state_of("k=4", f"loss={entry.name}").geometry().loss == entry.name


@settings(max_examples=150)
@given(text=st.one_of(st.text(max_size=300), st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")),
                      st.dictionaries(st.sampled_from(["profile", "k", "ratio", "minority", "n_min", "n_max", "counts",
                                                       "loss", "delta", "weight", "iota", "temperature", "ridge",
                                                       "drawn", "x"]),
                                      st.one_of(st.text(max_size=20), st.floats().map(str), st.integers().map(str),
                                                st.sampled_from(["long-tail", "counts", "ldt", "vs", "label", "n^0.5",
                                                                 "log n", "1,2", "1e308", "-0", "all"])))
                      .map(lambda parts: "&".join(f"{name}={value}" for name, value in parts.items()))))
def test_no_url_is_too_strange(text):
    state, messages = from_query(text)
    assert from_query(state.query())[0] == state
    assert state.class_counts().k <= 1_000_000
    assert all(isinstance(message, str) and len(message) < 400 for message in messages)
    if state.class_counts().k <= 50 and state.ridge is None:
        assert state.geometry().k == state.class_counts().k


@pytest.mark.parametrize(("query", "message"), [
    ("k=1", "k must be a whole number from 2 to 1,000,000, got 1: showing 10"),
    ("k=2.5", "k must be a whole number from 2 to 1,000,000, got 2.5: showing 10"),
    ("k=nan", "k must be a whole number from 2 to 1,000,000, got nan: showing 10"),
    ("k=" + "9" * 500, "k must be a whole number from 2 to 1,000,000, got " + "9" * 39 + "…: showing 10"),
    ("ratio=-5", "ratio must be a number from 1 to 1e+06, got -5: showing 100"),
    ("minority=2", "minority must be a number from 0 to 1, got 2: showing 0.5"),
    ("loss=<b>", "loss must be one of ce, weighted, la, ldt, cdt, vs, mse, relu-ce, scl, etf, got '<b>': showing ce"),
    ("profile=x", "profile must be one of step, long-tail, counts, got 'x': showing step"),
    ("profile=counts&counts=5,x", "expected numbers separated by commas, such as 10, 10, 1, 1, got '5,x': the class "
                                  "counts stay as they were"),
    ("profile=counts&counts=5", "counts must name at least two classes, got 1 ([5.0]): the class counts stay as they "
                                "were"),
    ("profile=counts&counts=" + "1," * 5000,
     f"counts must be a text of at most {LONGEST_TEXT:,} characters, got 10,000: showing 500, 200, 100, 20, 10, 5"),
    ("profile=long-tail&n_max=10", "n_max / ratio must leave the last class at least 1 sample, got 10 / 100 = 0.1: the "
                                   "class counts stay as they were"),
    ("loss=ldt&delta=-1", "delta must be positive, got -1 for class 0"),
    ("loss=ldt&delta=x", "delta must be numbers separated by commas, such as 10, 10, 1, 1, got 'x'"),
    ("loss=ldt&delta=1,2,3", "delta must be 10 numbers, one, two (majority, minority), n^0.5 or log n, got '1,2,3'"),
    ("ridge=0", "λ must be a number from 1e-09 to 1e+09, got 0"),
    ("loss=etf&ridge=1", f"{why_no_ridge('etf')}; showing the limit"),
    ("k=7", "ρ = 0.5714: 4 of 7 classes, the share nearest to 0.5"),
    ("k=5&k=6", "k was given more than once: the last one counts"),
    ("&".join(f"a{i}=1" for i in range(300)), "This address has too many parts to be read: showing the start."),
])
def test_what_cannot_be_is_named(query, message):
    assert message in from_query(query)[1]


@pytest.mark.parametrize(("text", "shown"), [
    ("k must be a whole number", "k must be a whole number."),
    ("ρ = 0.3: 3 of 10 classes", "ρ = 0.3: 3 of 10 classes."),
    ("n_min must be a number", "n_min must be a number."), ("ratio must be a number", "Ratio must be a number."),
    ("this address has too many parts.", "This address has too many parts.")])
def test_a_message_starts_with_a_capital_unless_with_a_symbol(text, shown):
    assert message_list([text]).children[0].children == shown


def test_a_control_keeps_the_last_value_that_could_be():
    before = state_of("k=20", "ratio=7")
    state, messages = read({"k": "two", "ratio": "7"}, before)
    assert state == before
    assert messages == ["k must be a whole number from 2 to 1,000,000, got two: showing 20"]


def test_too_many_kinds_of_classes_for_a_ridge():
    counts = ",".join(map(str, range(1, 500)))
    state, messages = from_query(f"profile=counts&counts={counts}&ridge=1")
    assert state.ridge is None
    assert messages[0].startswith("λ > 0 is solved in this page for up to 400 kinds of classes, got 499")


# -- figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("profile", PROFILES)
def test_singular_values_against_a_dense_decomposition(profile, setting):
    geometry = state_of(profile, setting).geometry()
    dense = np.linalg.svd(geometry.logits.dense() * np.sqrt(geometry.counts.values), compute_uv=False)
    found = spectrum(geometry)
    # Values that differ by less than 1e-6 are joined.
    np.testing.assert_allclose(np.repeat(found.values, found.times), dense, rtol=1e-5, atol=1e-8 * dense[0])
    chart = singular_values({"here": geometry})
    np.testing.assert_allclose(chart.panels[0].curves[0].y, dense / np.linalg.norm(dense), rtol=1e-5, atol=1e-8)


def test_singular_values_of_many_classes_are_drawn_by_their_runs():
    chart = singular_values({"λ = 1": predict(ClassCounts.step(1000, 10, n_min=5), ridge=1.0),
                             "λ → 0": predict(ClassCounts.step(1000, 10, n_min=5))})
    assert chart.x.tolist() == [1, 499, 500, 501, 999, 1000]
    assert chart.panels[0].curves[1].y[-1] == 0
    assert "Rank 999 of 1,000" in chart.caption


@pytest.mark.parametrize("query", ["k=4", "k=4&ridge=0.5", "k=3&minority=0.33", "k=4&loss=etf", "k=2"])
def test_drawing_is_exact_up_to_four_classes(query):
    geometry = state_of(query).geometry()
    chart = drawing(geometry)
    assert "exact" in chart.caption
    ends = {letter: np.concatenate([arrows.ends for arrows in chart.panels[0].arrows if arrows.name[0] == letter])
            for letter in "wμ"}
    cosines = {"w": geometry.classifiers.cosines(), "μ": geometry.embeddings.cosines()}
    for letter, vectors in ends.items():  # majority classes come first, as in STEP
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(unit @ unit.T, cosines[letter], rtol=0, atol=1e-7)


def test_drawing_holds_the_share_it_states():
    geometry = predict(ClassCounts.step(8, 10, 0.25, n_min=2), ridge=0.4)
    w, m = geometry.factors()
    both = np.concatenate([w / np.linalg.norm(w), m / np.linalg.norm(m)])
    squares = np.linalg.svd(both, compute_uv=False)**2
    share = squares[:3].sum() / squares.sum()
    assert f"which hold {100 * share:.1f} % of their squared length" in drawing(geometry).caption
    assert sum(len(arrows.ends) for arrows in drawing(geometry, four=True).panels[0].arrows) == 8


def test_nothing_is_drawn_of_nothing():
    assert drawing(predict([9, 9, 4, 4], ridge=100.0)) is None


@pytest.mark.parametrize("query", ["k=4", "k=12&loss=mse&ridge=0.1", "profile=long-tail&k=150"])
def test_new_kinds_of_picture_in_both_drawers(query):
    state = state_of(query)
    geometry = state.geometry()
    points = _ratio_points(state)
    charts = [drawing(geometry), drawing(geometry, four=True), singular_values({"a": geometry, "b": predict([3, 2])})
              if geometry.k == 2 else singular_values({"a": geometry}),
              against_ratio(list(points)[::6], [summarise_one(one.geometry()) for one in list(points.values())[::6]],
                            state.ratio, "here")]
    for chart in charts:
        assert chart.description
        assert len(chart.plotly().data) >= len(chart.panels)
        chart.matplotlib().canvas.draw()
        assert not any(trace.showlegend for trace in chart.panel(0).plotly().data)


def test_curves_against_r_are_the_predictions_there():
    state = state_of("k=6&n_min=3&ratio=40&ridge=0.2")
    points = _ratio_points(state)
    assert {1.0, 10.0, 40.0, 1000.0} <= points.keys()
    chart = against_ratio([10.0, 40.0], [summarise_one(points[ratio].geometry()) for ratio in (10.0, 40.0)], 40.0, "")
    for place, ratio in enumerate((10, 40)):
        gram = predict(ClassCounts.step(6, ratio, n_min=3), ridge=0.2).classifiers
        majority, minority = chart.panels[0].curves
        np.testing.assert_allclose([majority.y[place], minority.y[place]], gram.unit().norms[[0, 5]], rtol=1e-6)
        assert chart.panels[1].curves[0].y[place] == pytest.approx(gram.cosines()[0, 1], abs=1e-6)


def test_table_holds_the_numbers():
    geometry = predict([50, 20, 20, 5], ridge=0.3)
    w, m = geometry.factors()
    content, text = numbers_table(geometry)
    rows = [line.split("\t") for line in text.splitlines()]
    assert rows[0] == ["class", "samples", "‖w‖", "‖μ‖", "mean cos(w, w′)", "mean cos(μ, μ′)", "cos(w, μ)"]
    unit_w, unit_m = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (w, m))
    expected = np.column_stack([geometry.counts.values, np.linalg.norm(w, axis=1), np.linalg.norm(m, axis=1),
                                ((unit_w @ unit_w.T).sum(1) - 1) / 3, ((unit_m @ unit_m.T).sum(1) - 1) / 3,
                                (unit_w * unit_m).sum(1)])
    np.testing.assert_allclose(np.array([row[1:] for row in rows[1:]], dtype=float), expected, rtol=1e-8, atol=1e-10)
    assert len(content.rows) == 4


def test_table_of_many_classes_is_by_group():
    content, text = numbers_table(predict(ClassCounts.step(1000, 10, 0.3, n_min=5)))
    assert [row[:3] for row in content.rows] == [["n = 50", "700", "50"], ["n = 5", "300", "5"]]
    assert text.startswith("group\tclasses\tsamples\t")


# -- the solver -------------------------------------------------------------------------------------


def until(condition):
    """Waits for the solver's thread; fails after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_path_in_the_background_is_the_path():
    state = state_of("profile=long-tail&k=14&ratio=50&n_max=200&ridge=0.2")
    solver, points = Solver(), _ridge_points(state)
    until(lambda: len(solver.along(list(points.values()))) == len(points))
    found = solver.along(list(points.values()))
    few = sorted(points)[::12]
    for ridge in few:
        solved = found[points[ridge]]
        path = ridge_path(state.class_counts(), low=ridge, high=ridge * 1.01, points=2)
        assert isinstance(solved, Solved)
        assert solved.rank == path.ranks[0]
        np.testing.assert_allclose(solved.to_limit["classifiers"], path.to_limit["classifiers"][0], atol=1e-6)
        expected = summarise(path).norms["embeddings", True][:1]
        np.testing.assert_allclose(solved.means.norms["embeddings", True], expected, atol=1e-6)
    geometry, alone = solver.geometry(state), predict(state.class_counts(), ridge=0.2)
    np.testing.assert_allclose(geometry.classifiers.dense(), alone.classifiers.dense(), rtol=0, atol=1e-6)
    figures = along_ridge(state, {ridge: found[one] for ridge, one in points.items()}, geometry, dark=False)
    assert len(figures) == 2


def test_what_is_dear_is_promised_and_then_there():
    state = state_of("profile=long-tail&k=40&ratio=100&n_max=500&ridge=0.05")
    solver = Solver()
    assert solver.geometry(state) is None
    until(lambda: solver.geometry(state) is not None)
    assert solver.geometry(state).gap < 1e-9
    assert solver.remembered(state) is solver.geometry(state)


def test_a_newer_request_goes_first():
    slow = state_of("profile=long-tail&k=60&ratio=100&n_max=900")
    quick = state_of("k=4")
    solver = Solver()
    old, new = list(_ridge_points(slow).values()), list(_ridge_points(quick).values())
    solver.along(old)
    until(lambda: len(solver.along(new)) == len(new))
    assert len(solver._solved) < len(old) + len(new)


def test_what_cannot_be_solved_says_why():
    found = Solver().geometry(TheoryState(k=4, loss="etf", ridge=1.0))
    assert found == why_no_ridge("etf")


def test_memory_is_bounded():
    solver = Solver()
    for ratio in range(2, 40):
        solver.geometry(state_of("k=1000000", f"ratio={ratio}"))
    assert 1 <= len(solver._geometries) <= 12


def test_slider_steps_span_the_thresholds():
    state = state_of("k=10&ratio=100&n_min=5&ridge=1")
    low, high = ridge_steps(state)
    total = predict(state.class_counts(), ridge=1.0).thresholds["total_collapse"]
    assert ridge_at(low) <= 1.01e-4 * total
    assert ridge_at(high) >= 1.25 * total
    assert [ridge_at(step) for step in (-10, -9, 0, 3, 20)] == [0.1, 0.126, 1.0, 2.0, 100.0]
    marks, story = thresholds(state.geometry())
    assert [mark.x for mark in marks] == pytest.approx([np.sqrt(5), np.sqrt(500), np.sqrt(500)])
    assert "the 5 classes with n = 5 merge" in story


def test_thresholds_of_closed_forms():
    state = state_of("k=4&n_min=4&ratio=9&loss=mse&ridge=0.1")
    marks, story = thresholds(state.geometry())
    assert [mark.x for mark in marks] == [2.0, 6.0]
    assert "the rarest classes vanish" in story


def test_in_the_limit_the_rarest_classes_merge():
    marks, story = thresholds(state_of("k=4&n_min=4&ratio=9").geometry())
    assert [mark.x for mark in marks] == pytest.approx([2, 6])
    assert "the rarest classes merge" in story


# -- over HTTP --------------------------------------------------------------------------------------


STRANGE = ["", "?k=20", "?%00%ff%fe", "?k=1e999&ratio=nan&ridge=-inf", "?k=-1&k=-2&k=-3", "?=&&&==",
           "?k[]=1&__proto__=1",
           "?counts=" + "9" * 19_000 + "&profile=counts", "?loss=<script>alert(1)</script>",
           "?profile=counts&counts=1,1"]


@pytest.mark.parametrize("search", STRANGE)
def test_strange_addresses_give_a_page(search):
    client = application([]).server.test_client()
    assert client.get("/" + search).status_code == 200
    answer = client.post("/_dash-update-component", json={
        "output": "..page.children...nav.children..",
        "outputs": [{"id": "page", "property": "children"}, {"id": "nav", "property": "children"}],
        "inputs": [{"id": "url", "property": "pathname", "value": "/"}],
        "state": [{"id": "url", "property": "search", "value": search}], "changedPropIds": ["url.pathname"]})
    assert answer.status_code == 200
    assert "theory-slider" in answer.get_data(as_text=True)


def test_start():
    assert DEFAULT == from_query("")[0] == from_query("?")[0]
    assert DEFAULT.query() == ""

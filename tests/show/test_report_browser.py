"""The pages in a real browser, opened from disk: by keyboard, in light and dark, narrow, and on paper."""

from __future__ import annotations

from contextlib import ExitStack
import re

from browsing import browser, needs_chromium, screenshot, watched_page
from hostile import HOSTILE
import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.comparison import read_runs
from neuralcollapse.predict import predict, ridge_path
from neuralcollapse.show import save_prediction, write_report
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.comparison import write_comparison
from neuralcollapse.show.figures import save_path

STEP = ClassCounts.step(6, 10, 0.5, n_min=5)
WIDER = "[...document.querySelectorAll('main *')].filter((part) => !part.closest('.scroll, pre, .unseen, svg') && " \
        "part.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((part) => part.outerHTML)"
FOCUSED = "(() => { const at = document.activeElement; return at === document.body ? null : " \
          "at.id || at.getAttribute('aria-label') || at.textContent; })()"
pytestmark = needs_chromium


@pytest.fixture(scope="module")
def opened():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def visit(opened):
    """Opens a page from disk and waits for its figures; at the end nothing may have gone wrong on it."""
    with ExitStack() as pages:
        def open_(path, width=1200, dark=False):
            page = pages.enter_context(watched_page(opened, viewport={"width": width, "height": 900},
                                                    color_scheme="dark" if dark else "light"))
            page.goto(path.as_uri())
            page.wait_for_function(
                "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))")
            return page
        yield open_


def plots(page):
    return page.locator(".plot").count()


def test_every_kind_of_run_is_drawn_without_a_word(visit, any_run, tmp_path):
    page = visit(write_report(any_run, tmp_path / "report.html"))
    assert (plots(page) > 0) == bool(any_run.history)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 400])
def test_in_light_and_dark_wide_and_narrow(visit, make_run, tmp_path, dark, width):
    page = visit(write_report(make_run(STEP), tmp_path / "report.html"), width=width, dark=dark)
    assert page.evaluate(WIDER) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(21, 25, 28)" if dark else "rgb(255, 255, 255)")
    line = page.evaluate("document.getElementById('distances-0').data[0].line.color")
    assert line == ("#56B4E9" if dark else "#0072B2")
    screenshot(page, f"report-{'dark' if dark else 'light'}-{width}.png", tmp_path, full_page=True)


def test_the_slider_moves_by_keyboard_and_shows_the_gram_of_that_epoch(visit, make_run, tmp_path):
    run = make_run(STEP)
    page = visit(write_report(run, tmp_path / "report.html"))
    axis = class_axis(STEP)

    def entries(panel):
        return np.array(page.evaluate(f"document.getElementById('grams-{panel}').data[0].z"))

    predicted = {panel: entries(panel) for panel in (1, 3, 5)}
    geometry = predict(STEP)
    for panel, gram in zip(predicted, (geometry.classifiers, geometry.embeddings, geometry.logits), strict=True):
        np.testing.assert_allclose(predicted[panel], axis.reorder(gram.dense() / gram.frobenius), atol=5e-5)
    page.focus("#epoch")
    for key, epoch in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("End", 128), ("ArrowLeft", 64)):
        page.keyboard.press(key)
        assert page.inner_text("#epoch-shown") == str(epoch)
        assert page.get_attribute("#epoch", "aria-valuetext") == f"epoch {epoch}"
        for panel, part in ((0, "classifiers"), (2, "embeddings"), (4, "logits")):
            # A step of the 16 bits is the largest entry over 32,767.
            np.testing.assert_allclose(entries(panel), axis.reorder(run.kept[epoch][part]), rtol=0, atol=5e-5)
    assert all(np.array_equal(entries(panel), before) for panel, before in predicted.items())


def test_everything_is_reached_by_keyboard_in_the_order_it_stands(visit, make_run, tmp_path):
    page = visit(write_report(make_run(STEP), tmp_path / "report.html"))
    parts = page.locator("a.skip, #epoch, summary, .scroll, pre")
    expected = [part.evaluate("(at) => at.id || at.getAttribute('aria-label') || at.textContent")
                for part in parts.all() if part.is_visible()]
    reached = []
    for _ in range(len(expected) + 5):
        page.keyboard.press("Tab")
        name = page.evaluate(FOCUSED)
        if name is None or name in reached[:1]:
            break
        reached.append(name)
    assert reached == expected
    assert {"Skip to content", "epoch", "Command"} <= set(reached)
    for place, summary in enumerate(page.locator("summary").all()):
        summary.focus()
        page.keyboard.press("Enter")
        assert summary.evaluate("(at) => at.parentElement.open"), place
        assert page.locator("details table").nth(place).is_visible()


def test_hostile_names_stay_names(visit, make_run, tmp_path):
    run = make_run(ClassCounts([50, 40, 30, 5, 5], HOSTILE))
    run.config["model"] = "</script><script>document.title='broken'</script>"
    page = visit(write_report(run, tmp_path / "report.html"))
    assert page.title() == "made · neuralcollapse report"
    assert page.locator("main a, main img, main b").count() == 0
    assert page.get_by_text("<script>document.title='broken'</script>", exact=True).count() > 0


def test_on_paper_no_figure_or_table_is_cut(visit, make_run, tmp_path):
    run = make_run(STEP)
    pair = {"measured": 1.2345, "predicted": 1.2345}
    run.rescue = [{"name": name, "count": 5, "kind": "entangled", "rule": "A rule.", "advice": "Advice.",
                   "classifier_norm": pair, "classifier_angle": pair, "margin": pair, "recall": 0.5, "probe": 0.75,
                   "confused_with": "a neighbour"} for name in STEP.names]
    page = visit(write_report(run, tmp_path / "report.html"), dark=True)
    paper = page.pdf(format="A4", margin=dict.fromkeys(("top", "bottom", "left", "right"), "15mm"))
    assert set(re.findall(rb"/MediaBox \[([^]]*)\]", paper)) == {b"0 0 595.91998 842.88"}
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('figure, table')].filter((part) => part.checkVisibility() && "
                         "part.getBoundingClientRect().width > 681).map((part) => part.outerHTML)") == []
    tallest = page.evaluate("Math.max(...[...document.querySelectorAll('figure')].map((part) => part.offsetHeight))")
    assert tallest < 267 / 25.4 * 96  # what A4 leaves: a figure that fits is moved rather than cut
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.getElementById('distances-0').data[0].line.color") == "#0072B2"
    screenshot(page, "report-print.png", tmp_path, full_page=True)


def test_a_prediction_and_a_path(visit, tmp_path):
    counts = ClassCounts([50, 40, 30, 5, 5], HOSTILE)
    page = visit(save_prediction(predict(counts), tmp_path / "seli.html"))
    assert plots(page) >= 5
    page = visit(save_path(ridge_path([50, 40, 30, 5, 5], points=10), tmp_path / "path.html", ridge=0.5))
    assert plots(page) >= 7
    assert page.get_by_text("your λ").count() > 0


def test_many_runs_on_one_page(visit, make_run, save_run, tmp_path):
    for number, name in enumerate(HOSTILE):
        run = make_run(ClassCounts([50, 40, 30, 5, 5], HOSTILE), epochs=(1, 2))
        run.config["model"] = name
        save_run(run, tmp_path / "runs" / str(number))
    page = visit(write_comparison(read_runs([tmp_path / "runs"]), tmp_path / "comparison.html"))
    assert plots(page) == 9
    assert page.title() == "5 runs · neuralcollapse comparison"

"""The page of predictions in a browser: every control, by mouse and keyboard, against `predict`."""

from __future__ import annotations

import re
import time

from browsing import PATIENCE, browser, needs_chromium, screenshot, watched_page
from explorer_browser import served
import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.predict import GEOMETRIES, predict
from neuralcollapse.show.class_axis import class_axis
from neuralcollapse.show.explorer.theory_parts import numbers_table

pytestmark = needs_chromium
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
STEP = ClassCounts.step(10, 100, 0.5, n_min=5)


@pytest.fixture(scope="module")
def address():
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture
def page(chromium, address):
    expect.set_options(timeout=PATIENCE)
    with watched_page(chromium) as opened:
        opened.goto(address)
        yield opened


def shows(page, geometry):
    """Waits until the norms in the table are those of a geometry."""
    axis = class_axis(geometry.counts, 100)
    expected = np.column_stack([axis.values(part.norms) for part in (geometry.classifiers, geometry.embeddings)])
    end, found = time.monotonic() + PATIENCE / 1000, None
    while time.monotonic() < end:
        found = norms_shown(page)
        if found is not None and found.shape == expected.shape and np.allclose(found, expected, rtol=1e-6, atol=1e-9):
            return
        page.wait_for_timeout(50)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def norms_shown(page):
    table = page.locator("#theory-tsv")
    if not table.count():
        return None
    rows = [line.split("\t") for line in table.text_content().splitlines()]
    column = rows[0].index("‖w‖")
    return np.array([row[column:column + 2] for row in rows[1:]], dtype=float)


def fill(page, name, text):
    page.locator(f"#theory-{name}").fill(text)


def choose_loss(page, name):
    page.locator("#theory-loss").click()
    # The list may still be sliding into place: a click at a point could meet its neighbour.
    page.get_by_role("option", name=re.compile(f"^{name} –")).dispatch_event("click")
    expect(page.locator("#theory-about-loss")).to_have_text(GEOMETRIES[name].summary)


def everything_is_drawn(page):
    expect(page.locator("#theory-distances-2 .main-svg").first).to_be_visible()
    expect(page.locator("#theory-progress")).to_have_text("")
    for graph in ("drawing-0 canvas", "grams-0 .hm", "norms-1 .point", "singular-0 .scatterlayer", "ratio-3 .lines",
                  "shapes-3 .lines", "distances-2 .lines"):
        expect(page.locator(f"#theory-{graph}").first).to_be_attached()


def test_start_is_complete(page, tmp_path):
    shows(page, predict(STEP))
    everything_is_drawn(page)
    assert screenshot(page, "explorer-theory.png", tmp_path).stat().st_size > 10_000


def test_profiles(page):
    fill(page, "k", "4")
    shows(page, predict(ClassCounts.step(4, 100, 0.5, n_min=5)))
    expect(page.locator("#theory-drawn-field")).to_be_hidden()
    expect(page.locator("#theory-drawing figcaption")).to_contain_text("exact")
    fill(page, "ratio", "10")
    shows(page, predict(ClassCounts.step(4, 10, 0.5, n_min=5)))
    fill(page, "minority", "0.25")
    shows(page, predict(ClassCounts.step(4, 10, 0.25, n_min=5)))
    fill(page, "n_min", "2")
    shows(page, predict(ClassCounts.step(4, 10, 0.25, n_min=2)))
    page.get_by_role("radio", name="long tail").check()
    shows(page, predict(ClassCounts.long_tail(4, 10, 500)))
    expect(page.locator("#theory-minority")).to_be_hidden()
    fill(page, "n_max", "300")
    shows(page, predict(ClassCounts.long_tail(4, 10, 300)))
    page.get_by_role("radio", name="typed counts").check()
    fill(page, "counts", "30, 20, 10, 10, 1")
    shows(page, predict([30, 20, 10, 10, 1]))
    expect(page.locator("#theory-ratio-0")).to_have_count(0)


def test_losses_and_their_parameters(page):
    ones = np.ones(10)
    first, *others = GEOMETRIES
    for entry in (*others, first):
        choose_loss(page, entry.name)
        given = {"delta": (STEP.values / 500) ** 0.25} if entry.name in ("ldt", "cdt", "vs") else {}
        shows(page, predict(STEP, entry.name, **given))
    choose_loss(page, "ldt")
    expect(page.locator("#theory-delta")).to_have_value("n^0.25")
    fill(page, "delta", "n^0.5")
    shows(page, predict(STEP, "ldt", delta=(STEP.values / 500) ** 0.5))
    expect(page.locator("#theory-weight")).to_be_hidden()
    choose_loss(page, "ce")
    shows(page, predict(STEP))
    fill(page, "delta", "2, 1")
    fill(page, "weight", "3")
    fill(page, "iota", "0.5 log n")
    fill(page, "ridge", "0.5")
    delta = np.where(STEP.minority, 1.0, 2.0)
    iota = 0.5 * np.log(STEP.values / STEP.n)
    shows(page, predict(STEP, delta=delta, weight=3 * ones, iota=iota, ridge=0.5))
    page.get_by_role("radio", name="label (LDT)").check()
    shows(page, predict(STEP, delta=delta, weight=3 * ones, iota=iota, ridge=0.5, temperature="label"))


def test_lambda_by_slider_and_field(page):
    shows(page, predict(STEP))
    thumb = page.locator("#theory-slider [role=slider]").first
    thumb.focus()
    thumb.press("End")
    expect(page.locator("#theory-ridge")).not_to_have_value("")
    top = float(page.locator("#theory-ridge").input_value())
    assert top >= 1.25 * np.sqrt(500)
    expect(page.locator("#theory-drawing .note")).to_contain_text("every classifier and every class mean is zero")
    for _ in range(12):
        thumb.press("ArrowLeft")
    expect(page.locator("#theory-ridge")).to_have_value(f"{10 ** ((round(10 * np.log10(top)) - 12) / 10):.3g}")
    shows(page, predict(STEP, ridge=float(page.locator("#theory-ridge").input_value())))
    fill(page, "ridge", "0.1234")
    shows(page, predict(STEP, ridge=0.1234))
    expect(page.locator("#theory-shapes-0")).to_contain_text("your λ")
    expect(page.locator("#theory-shapes-0")).to_contain_text("n = 5")
    thumb.press("Home")
    shows(page, predict(STEP))
    expect(page.locator("#theory-ridge")).to_have_value("")


def test_what_is_dear_arrives(page):
    page.get_by_role("radio", name="long tail").check()
    fill(page, "k", "60")
    fill(page, "ridge", "0.2")
    shows(page, predict(ClassCounts.long_tail(60, 100, 500), ridge=0.2))
    expect(page.locator("#theory-shown")).not_to_have_class(re.compile("pending"))


def test_drawing_of_four_or_all(page):
    expect(page.locator("#theory-drawing figcaption")).to_contain_text("The two most and the two least frequent")
    page.get_by_role("radio", name="all classes").check()
    expect(page.locator("#theory-drawing figcaption")).to_contain_text("All classes, projected on the three leading")
    expect(page).to_have_url(re.compile("drawn=all"))


def test_the_address_restores_the_state(page):
    fill(page, "k", "6")
    choose_loss(page, "cdt")
    fill(page, "ridge", "0.3")
    counts = ClassCounts.step(6, 100, 0.5, n_min=5)
    geometry = predict(counts, "cdt", delta=(counts.values / 500) ** 0.25, ridge=0.3)
    shows(page, geometry)
    link = page.locator("#theory-link").text_content()
    expect(page).to_have_url(link)
    page.reload()
    shows(page, geometry)
    expect(page.locator("#theory-k")).to_have_value("6")
    expect(page.locator("#theory-ridge")).to_have_value("0.3")
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.go_back()
    shows(page, geometry)


def test_copying(chromium, address):
    with watched_page(chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(address + "?k=4&ridge=0.5")
        geometry = predict(ClassCounts.step(4, 100, 0.5, n_min=5), ridge=0.5)
        shows(page, geometry)
        for name, text in (("Copy the table", numbers_table(geometry)[1]),
                           ("Copy: Command line", "neuralcollapse predict --step k=4,ratio=100,minority=0.5,n_min=5 "
                                                  "--ridge 0.5"),
                           ("Copy: Link", address + "?k=4&ridge=0.5")):
            button = page.get_by_role("button", name=name)
            button.focus()
            button.press("Enter")
            expect(button).to_have_text("Copied")
            assert page.evaluate("navigator.clipboard.readText()") == text


def test_what_cannot_be_is_said_in_the_page(page):
    fill(page, "k", "1")
    expect(page.locator("#theory-messages")).to_contain_text("k must be a whole number from 2 to 1,000,000, got 1")
    fill(page, "k", "5")
    expect(page.locator("#theory-messages")).to_contain_text("of 5 classes, the share nearest to 0.5")
    fill(page, "minority", "0.4")
    expect(page.locator("#theory-messages")).to_have_text("")
    choose_loss(page, "etf")
    fill(page, "ridge", "1")
    expect(page.locator("#theory-messages")).to_contain_text("has no ridge")
    shows(page, predict(ClassCounts.step(5, 100, 0.4, n_min=5), "etf"))


def test_hostile_addresses(chromium, address):
    for query in ("?loss=<img src=x onerror=alert(1)>", "?k=1e999&counts=%00", "?k=2.5&counts=" + "9," * 9000):
        with watched_page(chromium) as page:
            page.on("dialog", lambda dialog: pytest.fail(dialog.message))
            page.goto(address + query)
            shows(page, predict(STEP))
            expect(page.locator("#theory-messages li").first).to_be_visible()


def test_a_million_classes(page):
    fill(page, "k", "1000000")
    shows(page, predict(ClassCounts.step(1_000_000, 100, 0.5, n_min=5)))
    expect(page.locator("#theory-matrices")).to_contain_text("mean cosines between groups of classes")


@pytest.mark.parametrize(("name", "options"), [
    ("dark", {"color_scheme": "dark"}), ("narrow", {"viewport": {"width": 400, "height": 800}})])
def test_looks(chromium, address, tmp_path, name, options):
    with watched_page(chromium, **options) as page:
        page.goto(address + "?ridge=0.5")
        everything_is_drawn(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        screenshot(page, f"explorer-theory-{name}.png", tmp_path, full_page=True)
        if name == "dark":
            ink = page.locator("#theory-singular-0 .xtick text").first
            assert "201, 209, 214" in ink.evaluate("node => getComputedStyle(node).fill")
            page.emulate_media(color_scheme="light")
            expect(ink).to_have_css("fill", "rgb(59, 66, 72)")

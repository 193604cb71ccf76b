"""The page of runs in a browser: every control, a run that is written meanwhile, names that mean harm."""

from __future__ import annotations

import json
import re

from browsing import PATIENCE, browser, needs_chromium, screenshot, watched_page
from explorer_browser import served
import numpy as np
import pytest

from neuralcollapse.counts import ClassCounts
from neuralcollapse.experiments.run import RunFolder
from neuralcollapse.show.wording import number, percent

pytestmark = needs_chromium
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect

STEP = ClassCounts.step(4, 10, 0.5, n_min=5)
HOSTILE = ["<img src=x onerror=alert(1)>", "<b>bold</b>", "{{7*7}}", "x" * 200, "😀 </script>", "שלום \u202eabc",
           "$x_1$ %{x}", "#0072B2"]


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        expect.set_options(timeout=2 * PATIENCE)
        yield opened


@pytest.fixture
def folder(make_run, save_run, tmp_path):
    """Two runs and a broken one."""
    place = tmp_path / "runs"
    for seed, name in enumerate(("demo", "other")):
        run = make_run(STEP, seed=seed)
        for record in run.history:
            record["measurement"]["margins"]["per_class"] = {"mean": [4, 3, 2, 1], "min": [1, 0.5, -1, -2]}
        save_run(run, place / name)
    (save_run(make_run(STEP), place / "broken") / "data.json").write_text("{")
    return place


def records(path):
    return [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]


def shows(page, record):
    """Waits until an epoch is shown, then holds the numbers of its tables against its record."""
    epoch = record["epoch"]
    expect(page.locator("#run-epoch-shown")).to_have_text(f"{epoch:,}")
    said = page.locator("#run-numbers")
    expect(said).to_contain_text(f"Distances at epoch {epoch:,}")
    for target, row in (("seli", "to SELI"), ("etf", "to the simplex ETF")):
        cells = said.locator("tr", has_text=row).locator("td").all_inner_texts()
        assert cells == [number(value) for value in record["measurement"]["distances"][target].values()]
    minority = said.locator("tr", has_text="test accuracy, minority").locator("td")
    assert minority.inner_text() == percent(record["test"]["minority_accuracy"])
    page.wait_for_function("epoch => [...document.querySelectorAll('#run-curves .js-plotly-plot')].every("
                           "plot => plot.layout.shapes[0].x0 === epoch)", arg=max(epoch, 0.5))


def row(page, name):
    return page.locator(".runs tbody tr").filter(has=page.get_by_role("button", name=name, exact=True))


def test_every_control(chromium, folder, tmp_path):
    demo, other = records(folder / "demo"), records(folder / "other")
    with served([folder]) as address, watched_page(chromium) as page:
        page.goto(f"{address}runs")
        shows(page, demo[-1])
        expect(page.locator("#run-title")).to_contain_text("demo")
        expect(page.locator(".runs .problem")).to_contain_text("its data.json is not a mapping")
        expect(page.locator("#run-nearest")).to_contain_text("the geometry predicted at this λ")

        thumb = page.locator("#run-epoch [role=slider]")
        thumb.focus()
        page.keyboard.press("ArrowLeft")
        shows(page, demo[-2])
        expect(thumb).to_have_attribute("aria-valuetext", "epoch 64")
        page.keyboard.press("Home")
        shows(page, demo[0])
        page.wait_for_url(re.compile(r"\?run=demo&epoch=0$"))
        page.mouse.click(*middle(page.locator("#run-epoch .dash-slider-track, #run-epoch").first))
        page.wait_for_url(re.compile("epoch=16$"))
        shows(page, demo[5])

        z = page.evaluate("document.querySelector('#run-grams-0 .js-plotly-plot').calcdata[0][0].z")
        z = np.array([[row_[str(i)] if isinstance(row_, dict) else row_[i] for i in range(4)] for row_ in z])
        np.testing.assert_allclose(np.diagonal(z), np.array([norms(folder / "demo", 16)]).ravel() ** 2, rtol=1e-4)
        margins = page.evaluate("[...document.querySelector('#run-margins-0 .js-plotly-plot').data.map(t => t.y)]")
        assert margins == [[4, 3, None, None], [None, None, 2, 1], [1, 0.5, -1, -2]]

        row(page, "other").locator("input").check()
        expect(page.locator("#runs-comparison h2")).to_have_text("2 runs compared")
        curves = page.evaluate("document.querySelector('#runs-curves-0 .js-plotly-plot').data.map(t => [t.name, t.y])")
        assert [name for name, _ in curves] == ["demo", "other"]
        for (_, values), history in zip(curves, (demo, other), strict=True):
            np.testing.assert_allclose(values, [record["test"]["balanced_accuracy"] for record in history], rtol=1e-4)
        page.wait_for_url(re.compile("run=demo&epoch=16&with=other$"))
        expect(page.locator(".plot .main-svg").first).to_be_visible()
        screenshot(page, "runs.png", tmp_path, full_page=True)

        row(page, "other").get_by_role("button").click()
        expect(page.locator("#run-title")).to_contain_text("other")
        shows(page, other[-1])
        page.reload()
        expect(page.locator("#run-title")).to_contain_text("other")
        page.get_by_role("link", name="Theory").click()
        expect(page.locator("#run-title")).to_have_count(0)
        page.get_by_role("link", name="Runs", exact=True).click()
        shows(page, demo[-1])


def middle(part):
    box = part.bounding_box()
    return box["x"] + 0.62 * box["width"], box["y"] + box["height"] / 4


def norms(path, epoch):
    from neuralcollapse.experiments.run import Run

    order = np.argsort(-STEP.values, kind="stable")
    return np.sqrt(np.diagonal(Run.open(path).grams(epoch)["classifiers"]))[order]


def test_a_link_shows_what_it_names(chromium, folder):
    demo, other = records(folder / "demo"), records(folder / "other")
    with served([folder]) as address, watched_page(chromium) as page:
        page.goto(f"{address}runs?run=other&epoch=9&with=demo&with=/etc/passwd")
        shows(page, other[4])
        expect(page.locator(".messages")).to_have_text("There is no run called '/etc/passwd' here.")
        expect(page.locator("#runs-comparison h2")).to_have_text("2 runs compared")
        page.wait_for_url(re.compile("run=other&epoch=8&with=demo$"))
        page.goto(f"{address}runs?run=%ff%00&epoch=x&with[]=1&&&=")
        shows(page, demo[-1])


def test_a_run_is_followed_while_it_is_written(chromium, make_run, save_run, tmp_path):
    whole = make_run(STEP, planned=128)
    first = make_run(STEP, epochs=(0, 1, 2), planned=128)
    path = save_run(first, tmp_path / "live")
    writer = RunFolder(path)

    def measured(epoch):
        record = next(record for record in whole.history if record["epoch"] == epoch)
        writer.add_grams(epoch, whole.kept[epoch])
        writer.append(record)
        return record

    with writer.held(), served([path]) as address, watched_page(chromium) as page:
        page.goto(f"{address}runs")
        shows(page, first.history[-1])
        expect(row(page, "live")).to_contain_text("epoch 2 of 128")
        shows(page, measured(4))  # it stood at the last epoch, and follows
        expect(row(page, "live")).to_contain_text("epoch 4 of 128")
        page.locator("#run-epoch [role=slider]").focus()
        page.keyboard.press("ArrowLeft")
        shows(page, first.history[-1])
        page.evaluate("window.scrollTo(0, 900); document.querySelector('#run-curves').dataset.seen = 'yes'")
        measured(8)
        with (path / "history.jsonl").open("a") as file:
            file.write('{"epoch": 16, "tra')  # half a line
        expect(row(page, "live")).to_contain_text("epoch 8 of 128")
        shows(page, first.history[-1])  # it stood elsewhere, and stays
        assert page.evaluate("scrollY") == 900
        writer.mend_history()
        for epoch in (16, 32, 64, 128):
            last = measured(epoch)
        expect(row(page, "live")).to_contain_text("finished, epoch 128")
        expect(page.locator("#run-epoch [role=slider]")).to_have_attribute("aria-valuemax", "8")
        page.locator("#run-epoch [role=slider]").focus()
        page.keyboard.press("End")
        shows(page, last)


def test_nothing_is_drawn_while_nothing_changes(chromium, folder):
    with served([folder]) as address, watched_page(chromium) as page:
        page.goto(f"{address}runs")
        shows(page, records(folder / "demo")[-1])
        expect(page.locator("#run-nearest p")).to_be_visible()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.post_data_json["output"]))
        page.wait_for_timeout(4_500)
        assert set(asked) == {"runs-seen.data"}


def test_names_stay_text(chromium, make_run, save_run, tmp_path):
    counts = ClassCounts([50, 40, 30, 20, 5, 4, 3, 2], HOSTILE)
    run = make_run(counts)
    run.config["model"] = "<script>alert(2)</script>"
    run.data["dataset"] = "<img src=x onerror=alert(3)>"
    paths = [save_run(run, tmp_path / name) for name in ("<b>run & 'one'.x", "שלום \u202e 😀", "run?with=x#y%2F")]
    with served(paths) as address, watched_page(chromium) as page:
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(f"{address}runs")
        for path in paths:
            row(page, path.name).get_by_role("button").click()
            expect(page.locator("#run-title")).to_contain_text(path.name)
            shows(page, run.history[-1])
            page.wait_for_function("name => new URLSearchParams(location.search).get('run') === name", arg=path.name)
        row(page, paths[0].name).locator("input").check()
        expect(page.locator("#runs-comparison h2")).to_have_text("2 runs compared")
        page.locator("#run-pictures summary").first.click()
        assert page.locator("img, main b, main script").count() == 0
        assert "49" not in page.locator("#run-pictures th").all_inner_texts()
        assert "<b>bold</b>" in page.locator("#run-pictures th").all_inner_texts()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_dark_and_narrow(width, scheme, chromium, folder, tmp_path):
    with served([folder]) as address, watched_page(chromium, color_scheme=scheme,
                                                   viewport={"width": width, "height": 900}) as page:
        page.goto(f"{address}runs?with=other")
        shows(page, records(folder / "demo")[-1])
        expect(page.locator("#runs-comparison h2")).to_be_visible()
        ink = page.evaluate("getComputedStyle(document.querySelector('#run-distances-0 .xtick text')).fill")
        assert ink == ("rgb(201, 209, 214)" if scheme == "dark" else "rgb(59, 66, 72)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        screenshot(page, f"runs-{scheme}-{width}.png", tmp_path, full_page=True)

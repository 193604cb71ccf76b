"""A real browser for tests: what a page said, what it asked for, and pictures of what it showed."""

from __future__ import annotations

from dataclasses import dataclass, field
import os
from pathlib import Path
import shutil

import pytest

CHROMIUM = shutil.which("chromium")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@dataclass
class Visit:
    """One page in its own profile, and what happened there."""

    page: object
    pictures: Path
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def drawn(self) -> int:
        """How many figures the page has, once all of them are drawn."""
        self.page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))")
        return self.page.locator(".plot").count()

    def picture(self, name: str, **options) -> Path:
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path, **options)
        return path

    def went_well(self) -> None:
        """No error in the console, and no request that leaves the machine."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a file; pictures go to the test's folder, or to the one that NEURALCOLLAPSE_SCREENSHOTS names."""
    pictures = Path(os.environ.get("NEURALCOLLAPSE_SCREENSHOTS", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    contexts = []

    def open_(path: Path, *, width=1200, dark=False) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900},
                                      color_scheme="dark" if dark else "light")
        contexts.append(context)
        visited = Visit(context.new_page(), pictures)
        visited.page.on("console", lambda line: line.type == "error" and visited.said.append(line.text))
        visited.page.on("pageerror", lambda error: visited.said.append(str(error)))
        visited.page.on("request", lambda request: visited.asked.append(request.url))
        visited.page.goto(path.as_uri())
        return visited

    yield open_
    for context in contexts:
        context.close()

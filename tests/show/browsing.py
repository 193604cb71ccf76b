"""A real browser for tests: pages that fail a test on any error or foreign request, and pictures of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import shutil
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
# Installing it takes root, which who runs the tests elsewhere may not have; `.ci/run` calls `make system` first.
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: `make system` installs it")
PATIENCE = 60_000  # milliseconds; for conditions that come true in a second where nothing else runs
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, for as long as a module of tests needs it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def watched_page(opened: Any, **context: Any) -> Iterator[Any]:
    """A new page; at its end nothing may have gone wrong: no error, no failed request, none to another host."""
    wrong: list[str] = []
    context_ = opened.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    context_.set_default_timeout(PATIENCE)
    page = context_.new_page()
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"{error} {error.stack}"))
    page.on("request", lambda request: wrong.append(f"asked {request.url}") if not _own(request.url) else None)
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    try:
        yield page
    finally:
        context_.close()
    assert not wrong, "\n".join(wrong)


def screenshot(page: Any, name: str, folder: Path, **options: Any) -> Path:
    """A picture of a page in a temporary folder, or in the one that NEURALCOLLAPSE_SCREENSHOTS names."""
    path = Path(os.environ.get("NEURALCOLLAPSE_SCREENSHOTS") or folder) / name
    page.screenshot(path=path, **options)
    return path


def _own(url: str) -> bool:
    return url.startswith(("file:", "http://127.0.0.1:", "data:", "blob:"))

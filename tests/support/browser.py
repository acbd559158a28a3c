"""A headless Chromium for tests of pages; without one they are skipped, and say so.

It installs nothing: scripts/setup.sh does, where the user may.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(shutil.which("chromium") or shutil.which("chromium-browser")
                or "/usr/bin/chromium")
#: A page is 5 MB of code for a machine that may be busy with other tests.
PATIENCE_MS = 180_000
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, of Playwright's synchronous interface."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: pages were not looked at; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """A page in a window of this width; every error that it logs fails the test at the end.

    The network is off but for the address itself: what else a page asks for is an error.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(f"asked for {request.url}")
            if not request.url.startswith((address.rpartition("/")[0], "data:", "blob:"))
            else None)
    page.goto(address)
    page.wait_for_selector("#made")
    yield page
    context.close()
    assert said == []

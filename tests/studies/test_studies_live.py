"""Does `explore --live` show a search while it runs, and leave nothing behind?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.report.documents import Asked
from studies.report.live import live_search
from studies.search.exploration import Means, explore
from studies.search.outcomes import OBJECTIVES, Settings
from tests.support.browser import chromium, opened
from tests.support.waiting import PATIENCE_SECONDS, wait_until
from workloads.library import load

ROOT = Path(__file__).parents[2]
BOARD, GRAPH = load_board("pynq-z1"), load("agc-w16")
FILE = Path("out") / "explore.json"
ASKED = Asked(GRAPH.name, GRAPH.name, BOARD.name, BOARD, default_overlay(), "cosim explore")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_a_page_follows_a_search_to_its_end(browser: Any) -> None:
    live = live_search(ASKED, OBJECTIVES, 6, FILE)
    with ExitStack() as stack:
        with live as (view, address):
            page = stack.enter_context(opened(browser, address))
            whole = explore(GRAPH, BOARD, default_overlay(), Settings(designs=6, rounds=0),
                            means=Means(depth=1), watcher=view)
            view.end("it is over", whole)
            page.wait_for_function("DATA.search.designs.length > 0")
        # The server is gone; the page was told the last state before.
        found = whole.found
        page.wait_for_function("document.getElementById('state').textContent === 'it is over'")
        assert whole.chosen is not None
        assert page.evaluate("DATA.search.chosen_number") == whole.chosen.record.number
        assert str(FILE) in page.inner_text("#made")
        assert page.locator("#designs tbody tr").count() == len(found.front)
        assert f"{found.evaluated} designs simulated" in page.inner_text("#front")
        assert f"{found.infeasible} not feasible" in page.inner_text("#front")


def test_the_server_shows_its_folder_only_and_goes_with_the_search() -> None:
    with live_search(ASKED, OBJECTIVES, 6, FILE) as (_, address):
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
            assert b"<!doctype html>" in answer.read(100)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{address}../../etc/passwd", timeout=PATIENCE_SECONDS)
    with pytest.raises(OSError):
        urllib.request.urlopen(address, timeout=PATIENCE_SECONDS)


def test_a_killed_search_takes_its_server_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
            [sys.executable, "-m", "studies.cli", "explore", "agc-w16", "--designs", "100000",
             "--live", "--workers", "1", "--out", str(tmp_path)], stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}) as running:
        assert running.stdout is not None
        address = next(found.group() for line in running.stdout
                       if (found := re.search(r"http://\S+", line)))
        assert urllib.request.urlopen(f"{address}live.json", timeout=PATIENCE_SECONDS).status == 200
        running.send_signal(signal.SIGKILL)


    def gone() -> bool:
        try:
            urllib.request.urlopen(address, timeout=1)
        except OSError:
            return True
        return False

    wait_until(gone)

"""Shows a search while it runs: a page, its newest data beside it, and a server of the two.

The server is a process of its own that knows nothing of the search and ends with it: the search
forks its workers and may have no threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypedDict

from studies.plain.errors import UserError
from studies.plain.files import write_json
from studies.plain.made_by import program
from studies.report.collect import sites
from studies.report.documents import SEARCH, Asked, Tried, start_of, tried
from studies.report.page import Content, Source, write_page
from studies.search.exploration import Exploration
from studies.search.outcomes import Objective, Record, front_of

LOOPBACK = "127.0.0.1"
#: Between two writings of the data.
WRITE_SECONDS = 1.0
#: A page that asked so lately is still there, and is waited for: it asks every second.
LINGER_SECONDS = 1.5
#: For the server to say where it listens.
START_SECONDS = 20
PAGE, NEWEST = "index.html", "live.json"


class Section(TypedDict):
    """What the page shows of a search; see `documents.Search`. `available`: sites of the board."""

    designs_evaluated: int
    designs_infeasible: int
    designs_pruned: int
    complete: bool
    front: Sequence[int]
    chosen_number: int | None
    start_number: int | None
    designs: Sequence[Tried]
    available: Mapping[str, float]


class State(TypedDict):
    """`live.json`: a sentence on the search, whether that was the last one, and what was tried."""

    state: str
    done: bool
    search: Section


class LiveSearch:
    """Writes what a search has tried into a folder, at most once a second.

    `file`: where the search will be, for the commands on the page.
    """

    def __init__(self, folder: Path, asked: Asked, objectives: Sequence[Objective],
                 most: int, file: Path) -> None:
        self._folder, self._asked, self._objectives = folder, asked, objectives
        self._most, self._done = most, 0
        self._records: list[Record] = []
        self._chosen: int | None = None
        self._complete = True
        self._written = 0.0
        self._ended = False
        write_page(Content(f"Search: {asked.workload} on {asked.board.label}", asked.command,
                           program(), (Source(str(file), SEARCH, asked.command),),
                           search=self._section(), live=True), folder / PAGE)
        self._write("the search begins")

    def record(self, record: Record, done: int) -> None:
        """Take note of a design."""
        self._records.append(record)
        self._done = done
        self._write_now_and_then(f"{done} of {self._most} designs judged")

    def final(self, done: int, total: int) -> None:
        """Say how many of the best were simulated again."""
        self._write_now_and_then(f"{self._done} designs judged; {done} of the {total} best "
                                 "simulated again with ddr3")

    def end(self, said: str, found: Exploration | None = None) -> None:
        """Write the last state, with a sentence on what became of the search; only once."""
        if self._ended:
            return
        self._ended, self._complete = True, found is not None and not found.signal
        if found is not None and found.chosen is not None:
            self._chosen = found.chosen.record.number
        self._write(said)

    def _write_now_and_then(self, state: str) -> None:
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._write(state)

    def _write(self, state: str) -> None:
        self._written = time.monotonic()
        newest: State = {"state": state, "done": self._ended, "search": self._section()}
        write_json(self._folder / NEWEST, newest)

    def _section(self) -> Section:
        designs: Any = tried(self._records)
        infeasible = sum(record.failure is not None for record in self._records)
        evaluated = len(self._records) - infeasible
        return {"designs_evaluated": evaluated, "designs_infeasible": infeasible,
                "designs_pruned": max(0, self._done - evaluated), "complete": self._complete,
                "front": front_of(self._records, self._objectives), "chosen_number": self._chosen,
                "start_number": start_of(self._records, self._asked.base),
                "designs": designs, "available": sites(self._asked.board)}


@contextmanager
def live_search(asked: Asked, objectives: Sequence[Objective], most: int, file: Path
                ) -> Iterator[tuple[LiveSearch, str]]:
    """A search to be told of, and the address that shows it until this is left.

    A page that follows it then is waited for, so that it shows the last state. See `LiveSearch`.
    """
    with TemporaryDirectory(prefix="cosim-live-") as name:
        found = LiveSearch(Path(name), asked, objectives, most, file)
        with _served(Path(name)) as port:
            try:
                yield found, f"http://{LOOPBACK}:{port}/"
            finally:
                found.end("The search was ended before it had found anything.")


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    server = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert server.stdout is not None and server.stdin is not None
    try:
        port = server.stdout.readline().strip()
        if not port.isdigit():
            raise UserError("--live: the server of the page did not start; try without it.")
        yield int(port)
    finally:
        server.stdin.close()
        server.wait(START_SECONDS)


class _Server(ThreadingHTTPServer):
    #: When a page last asked for the newest state.
    followed = -inf


class _Quiet(SimpleHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer, and remember whether a page follows the search."""
        super().do_GET()
        if self.path.startswith(f"/{NEWEST}"):
            self.server.followed = time.monotonic()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the search."""


def main(folder: str) -> None:
    """Serve a folder to this machine until standard input ends; a page that follows asks once
    more."""
    with _Server((LOOPBACK, 0), partial(_Quiet, directory=folder)) as server:
        print(server.server_port, flush=True)
        Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        if time.monotonic() - server.followed < LINGER_SECONDS:
            time.sleep(LINGER_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])

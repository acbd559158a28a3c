"""Shows a search while it runs: a page, its newest data beside it, and a server of the two.

The server is a process of its own that knows nothing of the search and ends with it: the search
forks its workers and may have no threads.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from studies.plain.errors import UserError
from studies.plain.files import write_json
from studies.plain.made_by import program
from studies.report.collect import sites
from studies.report.documents import Asked, start_of, tried
from studies.report.page import Content, write_page
from studies.search.outcomes import Objective, Record, front_of

LOOPBACK = "127.0.0.1"
#: Between two writings of the data.
WRITE_SECONDS = 1.0
#: For the server to say where it listens.
START_SECONDS = 20
PAGE, NEWEST = "index.html", "live.json"


class LiveSearch:
    """Writes what a search has tried into a folder, at most once a second."""

    def __init__(self, folder: Path, asked: Asked, objectives: Sequence[Objective],
                 most: int) -> None:
        self._folder, self._asked, self._objectives = folder, asked, objectives
        self._most, self._done = most, 0
        self._records: list[Record] = []
        self._written = 0.0
        write_page(Content(f"Search: {asked.workload} on {asked.board.label}", asked.command,
                           program(), search=self._section(), live=True), folder / PAGE)
        self._write("the search begins", False)

    def record(self, record: Record, done: int) -> None:
        """Take note of a design; one that comes again was simulated with the final memory."""
        if record.number == len(self._records):
            self._records.append(record)
        self._done = done
        if time.monotonic() - self._written > WRITE_SECONDS:
            self._write(f"{done} of {self._most} designs judged", False)

    def end(self, said: str) -> None:
        """Write the last state, with a sentence on what became of the search."""
        self._write(said, True)

    def _write(self, state: str, done: bool) -> None:
        self._written = time.monotonic()
        write_json(self._folder / NEWEST, {"state": state, "done": done,
                                           "search": self._section()})

    def _section(self) -> dict[str, Any]:
        infeasible = sum(record.failure is not None for record in self._records)
        evaluated = len(self._records) - infeasible
        return {"designs_evaluated": evaluated, "designs_infeasible": infeasible,
                "designs_pruned": max(0, self._done - evaluated), "complete": True,
                "front": front_of(self._records, self._objectives), "chosen_number": None,
                "start_number": start_of(self._records, self._asked.base),
                "designs": tried(self._records), "available": sites(self._asked.board)}


@contextmanager
def live_search(asked: Asked, objectives: Sequence[Objective], most: int
                ) -> Iterator[tuple[LiveSearch, str]]:
    """A search to be told of, and the address that shows it until this is left."""
    with TemporaryDirectory(prefix="cosim-live-") as name:
        found = LiveSearch(Path(name), asked, objectives, most)
        with _served(Path(name)) as port:
            yield found, f"http://{LOOPBACK}:{port}/"


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


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the search."""


def main(folder: str) -> None:
    """Serve a folder to this machine until standard input ends."""
    with ThreadingHTTPServer((LOOPBACK, 0), partial(_Quiet, directory=folder)) as server:
        print(server.server_port, flush=True)
        Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])

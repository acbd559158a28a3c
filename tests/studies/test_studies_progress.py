"""Does the bar of a search count what it says, name its second phase, and end with it?"""

from __future__ import annotations

import io
import re

from rich.console import Console

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.report.search import SearchProgress
from studies.search.exploration import Means, explore
from studies.search.outcomes import Record, Settings
from workloads.library import load

DESIGNS = 3


class Told:
    """What a watcher is told, in order."""

    def __init__(self) -> None:
        self.judged: list[int] = []
        self.finals: list[tuple[int, int]] = []

    def record(self, record: Record, done: int) -> None:
        assert not self.finals
        self.judged.append(done)

    def final(self, done: int, total: int) -> None:
        self.finals.append((done, total))


def test_both_phases_are_counted_to_their_ends() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None)
    told = Told()
    with SearchProgress(console, DESIGNS, told) as shown:
        found = explore(load("agc-w16"), load_board("pynq-z1"), default_overlay(),
                        Settings(designs=DESIGNS, rounds=0), means=Means(depth=1), watcher=shown)
    assert told.judged[-1] == found.found.judged
    total = len(found.candidates) + 1
    assert told.finals == [(done, total) for done in range(total + 1)]
    lines = [line for line in re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "\n", text.getvalue())
             .replace("\r", "\n").split("\n") if line.strip()]
    again = lines[-1]
    searched = next(line for line in reversed(lines) if line.startswith("searching"))
    assert f"{found.found.judged}/{DESIGNS}" in searched
    assert again.startswith("simulating again")
    assert f"{total}/{total} the best ones, with ddr3" in again
    assert all(len(line) <= 80 for line in lines)

"""What a person sees of a search: a bar while it runs, then tables and the picture of its front.

It searches nothing (`studies.search` does) and writes no file.
"""

from __future__ import annotations

import time
from math import inf
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from studies.plain.terminal import grid
from studies.report import pictures, tables
from studies.report.documents import Asked, start_of
from studies.search.exploration import Exploration
from studies.search.outcomes import Objective, Record, Watcher

#: Between two drawings of the bar.
DRAW_SECONDS = 0.1


class SearchProgress:
    """A bar for the designs that a search judges, then one for those simulated again with ddr3.

    It starts no thread, since workers are forked while it is there; so it moves with the designs.
    `also` is told the same.
    """

    def __init__(self, console: Console, designs: int, also: Watcher | None = None) -> None:
        self._also = also
        self._bar = Bar(TextColumn("{task.fields[phase]}"), BarColumn(20), MofNCompleteColumn(),
                        TextColumn("{task.description}"), TimeElapsedColumn(),
                        console=console, auto_refresh=False)
        self._search = self._bar.add_task("", total=designs, phase="searching")
        self._again: TaskID | None = None
        self._drawn = 0.0
        self._infeasible = 0
        self._best = inf

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Draw it for the last time."""
        self._bar.refresh()
        self._bar.stop()

    def record(self, record: Record, done: int) -> None:
        """Take note of one more design; what is counted is those that were judged."""
        self._infeasible += record.failure is not None
        if record.evaluation:
            self._best = min(self._best, record.evaluation.latency_ms)
        if self._also is not None:
            self._also.record(record, done)
        best = f", best {self._best:.4g} ms" if self._best < inf else ""
        self._bar.update(self._search, completed=done,
                         description=f"{self._infeasible} infeasible{best}")
        self._draw(DRAW_SECONDS)

    def final(self, done: int, total: int) -> None:
        """Take note of one more design that was simulated again; with 0, that this begins."""
        if self._also is not None:
            self._also.final(done, total)
        if self._again is None:
            self._bar.stop_task(self._search)
            self._again = self._bar.add_task("the best ones, with ddr3", total=total,
                                             phase="simulating again")
        self._bar.update(self._again, completed=done)
        self._draw(DRAW_SECONDS if done else 0.0)

    def _draw(self, since: float) -> None:
        if time.monotonic() - self._drawn >= since:
            self._drawn = time.monotonic()
            self._bar.refresh()


def show(console: Console, found: Exploration) -> None:
    """Print what was tried, why designs failed, and the best against the default."""
    search = found.found
    console.print(f"{search.evaluated} designs evaluated, {search.pruned} not simulated (bounds "
                  f"dominated), {search.infeasible} infeasible, "
                  f"{search.asked} asked, {len(search.front)} on the front (flat memory)")
    reasons: dict[str, int] = {}
    for record in search.records:
        if record.failure:
            name = record.failure.reason.split(" needs ")[0].split(":")[-1].strip()
            reasons[name] = reasons.get(name, 0) + 1
    if reasons:
        table = grid("Why designs were infeasible", ("what did not fit", "designs"))
        for name, count in sorted(reasons.items(), key=lambda item: -item[1])[:8]:
            table.add_row(name[:70], str(count))
        console.print(table)
    if found.chosen:
        shown = [item for item in (found.default, found.chosen.evaluation) if item]
        console.print(tables.summary(shown))
        if found.default:
            best = found.chosen.evaluation
            console.print(f"the chosen design is {found.default.latency_ms / best.latency_ms:.2f} "
                          f"times as fast as {found.default.overlay!r} and takes "
                          f"{found.energy_ratio} of its energy (predicted, ddr3)", style="bold")
        if found.default and found.one_clock:
            console.print(f"at one clock, {found.default.clock_hz / 1e6:.4g} MHz, it would be "
                          f"{found.default.latency_ms / found.one_clock.latency_ms:.2f} times as "
                          "fast")


def front_picture(found: Exploration, asked: Asked) -> Any:
    """The Pareto front with the first and the chosen design marked, all by the flat memory."""
    wanted = (Objective.LATENCY, Objective.ENERGY, Objective.RESOURCES)
    rows = [[objective.of(record.evaluation) if record.evaluation else np.nan
             for objective in wanted] for record in found.found.records]
    start = start_of(found.found.records, asked.base)
    marked = {"start": None if start is None else found.found.records[start].evaluation,
              "chosen": found.chosen.record.evaluation if found.chosen else None}
    marks = {name: (item.latency_ms, item.energy_uj_per_pixel)
             for name, item in marked.items() if item}
    return pictures.pareto(
        np.array(rows, float).reshape(-1, 3), found.found.front, marks,
        f"{found.found.evaluated} designs for {asked.network} on {asked.board.label}, predicted "
        "(flat)")


def nearest_miss(found: Exploration) -> str:
    """The infeasible design that missed by least, and why."""
    failures = [record.failure for record in found.found.records if record.failure]
    if not failures:
        return ""
    return "Nearest miss: " + min(failures, key=lambda item: item.excess).reason

"""Splits a run's latency, exactly, over the operations on its critical path.

It does not propose changes; see `explain` and `compare`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cosim.analysis.timeline import NONE, critical_path, timeline
from cosim.program.result import SimResult
from cosim.program.table import Program


@dataclass(frozen=True, slots=True)
class Link:
    """Operations of one unit in one layer that follow one another on the critical path.

    [start, end) in cycles; the next link starts where this one ends. `released_by`: the cause of
    the channel whose token let its first operation go; empty if only the unit's own operation
    before held it back.
    """

    layer: str
    unit: str
    start_cycles: int
    end_cycles: int
    operations: int
    released_by: str

    @property
    def cycles(self) -> int:
        """Its length."""
        return self.end_cycles - self.start_cycles


@dataclass(frozen=True, slots=True)
class Share:
    """Cycles of the critical path that one unit spent in one layer, over some operations."""

    layer: str
    unit: str
    cycles: int
    operations: int


def chain(program: Program, result: SimResult) -> tuple[Link, ...]:
    """The critical path in time order: from cycle 0 to the latency without a gap.

    Every operation starts in the cycle in which the one before it on the path ended, for that
    one was its unit's operation before or gave its last token. A transfer's length includes what
    memory made it wait. Needs a result with a trace (ValueError otherwise).
    """
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    links: list[Link] = []
    for index in critical_path(line):
        layer = program.layers[line.layer[index]]
        unit = program.units[line.unit[index]].name
        start, end = int(line.start[index]), int(line.end[index])
        last = links[-1] if links else None
        if last is not None and last.end_cycles != start:
            raise ValueError(f"the path has a gap between cycles {last.end_cycles} and {start}")
        if last is not None and (last.layer, last.unit) == (layer, unit):
            links[-1] = Link(layer, unit, last.start_cycles, end, last.operations + 1,
                             last.released_by)
        else:
            channel = int(line.channel[index])
            cause = "" if channel == NONE else program.channels[channel].cause
            links.append(Link(layer, unit, start, end, 1, cause))
    return tuple(links)


def shares(program: Program, result: SimResult) -> tuple[Share, ...]:
    """The critical path by layer and unit, in the order first met; the cycles sum to the latency.
    """
    return shares_of(chain(program, result))


def shares_of(links: Iterable[Link]) -> tuple[Share, ...]:
    """A chain by layer and unit, in the order first met."""
    cycles: dict[tuple[str, str], int] = defaultdict(int)
    count: dict[tuple[str, str], int] = defaultdict(int)
    for link in links:
        cycles[link.layer, link.unit] += link.cycles
        count[link.layer, link.unit] += link.operations
    return tuple(Share(layer, unit, spent, count[layer, unit])
                 for (layer, unit), spent in cycles.items())


def by_unit(found: Iterable[Share]) -> dict[str, int]:
    """Cycles of the critical path on each unit, largest first."""
    totals: dict[str, int] = defaultdict(int)
    for share in found:
        totals[share.unit] += share.cycles
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def by_layer(found: Iterable[Share]) -> dict[str, int]:
    """Cycles of the critical path in each layer, in path order."""
    totals: dict[str, int] = defaultdict(int)
    for share in found:
        totals[share.layer] += share.cycles
    return dict(totals)

"""Splits a run's latency, exactly, over the operations on its critical path.

It does not propose changes; see `explain` and `compare`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cosim.program import Program
from cosim.result import SimResult
from cosim.timeline import critical_path, timeline


@dataclass(frozen=True, slots=True)
class Share:
    """Cycles of the critical path that one unit spent in one layer, over some operations."""

    layer: str
    unit: str
    cycles: int
    operations: int


def shares(program: Program, result: SimResult) -> tuple[Share, ...]:
    """The critical path by layer and unit, in the order first met; the cycles sum to the latency.

    Needs a result with a trace (ValueError otherwise). A unit's transfer includes what memory
    made it wait; `gap` as unit name is time that no operation covers (none in our executors).
    """
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    cycles: dict[tuple[str, str], int] = defaultdict(int)
    count: dict[tuple[str, str], int] = defaultdict(int)
    clock = 0
    for index in critical_path(line):
        layer = program.layers[line.layer[index]]
        start, end = int(line.start[index]), int(line.end[index])
        if start > clock:
            cycles[layer, "gap"] += start - clock
        key = (layer, program.units[line.unit[index]].name)
        cycles[key] += end - max(start, clock)
        count[key] += 1
        clock = end
    return tuple(Share(layer, unit, spent, count[layer, unit])
                 for (layer, unit), spent in cycles.items())


def by_unit(found: Iterable[Share]) -> dict[str, int]:
    """Cycles of the critical path on each unit, largest first."""
    return _sum((share.unit, share.cycles) for share in found)


def by_layer(found: Iterable[Share]) -> dict[str, int]:
    """Cycles of the critical path in each layer, in path order."""
    totals: dict[str, int] = defaultdict(int)
    for share in found:
        totals[share.layer] += share.cycles
    return dict(totals)


def _sum(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = defaultdict(int)
    for name, value in pairs:
        totals[name] += value
    return dict(sorted(totals.items(), key=lambda item: -item[1]))

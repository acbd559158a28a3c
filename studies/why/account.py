"""Puts every cycle of a run under one layer and one state of its engine, so that they add up.

It does not follow causes from unit to unit (see `critical`); it says what the engine that works for
a layer did in the cycles that the layer moved the run's end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.analysis.timeline import NONE, Timeline, timeline
from cosim.program.result import SimResult
from cosim.program.table import Program, UnitKind

#: States besides `stall: CAUSE`.
BUSY = "busy"
FIRST = "first tile"  # the engine has nothing of the layer yet: its first tile is on the way
LAST = "last tile"  # the engine is done; the layer's last tile is on its way out
OTHER = "other layer"  # the engine already works on another layer, or waits to


@dataclass(frozen=True, slots=True)
class Cell:
    """Cycles of the run that belong to a layer while its engine is in one state."""

    layer: str
    unit: str
    state: str
    cycles: int


def account(program: Program, result: SimResult) -> tuple[Cell, ...]:
    """Every cycle once, in the order first met; the cycles sum to `result.total_cycles` exactly.

    A cycle belongs to the layer of the operation that next moves the latest end so far. Its state
    is that of the unit that works most for that layer (an engine or the host if any does). Needs
    a result with a trace (ValueError otherwise).
    """
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    watched = _watched(program, result)
    low, high, layer = _windows(line)
    totals: dict[tuple[int, str], int] = {}
    for unit in range(len(program.units)):
        own = watched[layer] == unit
        if own.any():
            _add(totals, program, line, unit, low[own], high[own], layer[own])
    return tuple(Cell(program.layers[index], program.units[watched[index]].name, state, cycles)
                 for (index, state), cycles in sorted(totals.items()) if cycles)


def _watched(program: Program, result: SimResult) -> np.ndarray:
    """The unit (index) that works most for each layer; engines and the host before transfers."""
    compute = np.array([unit.kind == UnitKind.COMPUTE for unit in program.units])
    busy = np.asarray(result.layer_busy, np.int64)
    engines = np.where(compute, busy, -1)
    has_engine = engines.max(axis=1) > 0
    return np.where(has_engine, engines.argmax(axis=1), busy.argmax(axis=1))


def _windows(line: Timeline) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half-open spans of cycles and the layer each belongs to, gapless from 0 to the last end."""
    order = np.lexsort((np.arange(len(line)), line.end))
    ends = line.end[order]
    before = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    moves = ends > before
    return before[moves], ends[moves], line.layer[order][moves]


def _add(totals: dict[tuple[int, str], int], program: Program, line: Timeline, unit: int,
         low: np.ndarray, high: np.ndarray, layer: np.ndarray) -> None:
    """Cut the windows at every start and end of the unit's operations, and add up by state."""
    own = np.flatnonzero(line.unit == unit)
    starts, ends = line.start[own], line.end[own]
    cuts = np.unique(np.concatenate([low, high, starts, ends]))
    begin, end = cuts[:-1], cuts[1:]
    window = np.searchsorted(low, begin, side="right") - 1
    inside = (window >= 0) & (begin < high[np.maximum(window, 0)])
    begin, end, window = begin[inside], end[inside], window[inside]
    of = layer[window]
    place = np.searchsorted(starts, begin, side="right") - 1  # the operation begun last
    running = (place >= 0) & (begin < ends[np.maximum(place, 0)])
    here = line.layer[own]
    for index in range(len(begin)):
        at = int(place[index])
        wanted = int(of[index])
        if running[index]:
            state = BUSY if here[at] == wanted else OTHER
        elif at + 1 < len(own) and here[at + 1] == wanted:
            after = own[at + 1]
            channel = int(line.channel[after])
            state = (FIRST if line.first[after] or channel == NONE
                     else f"stall: {program.channels[channel].cause}")
        else:
            state = LAST if at >= 0 and here[at] == wanted else OTHER
        key = (wanted, state)
        totals[key] = totals.get(key, 0) + int(end[index] - begin[index])

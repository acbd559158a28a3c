"""Turns one frame's SimResult into figures for units and layers: shares, bytes, what bounds.

It does not simulate and knows no energy; see `evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.analysis.timeline import NONE, timeline
from cosim.program.result import SimResult
from cosim.program.table import Program, UnitKind
from studies.evaluation.values import UnitTime


@dataclass(frozen=True)
class LayerTime:
    """One layer's cycles. `cycles` is how far it moved the end of everything so far (these sum
    to the total); `span_cycles` is from its first start to its last end."""

    name: str
    start_cycles: int
    span_cycles: int
    cycles: int
    macs: int
    bytes_read: int
    bytes_written: int
    units: tuple[UnitTime, ...]
    bound: str
    main_unit: str


def unit_times(program: Program, result: SimResult) -> tuple[UnitTime, ...]:
    """Busy, stalled by cause and idle cycles of every unit over the whole run."""
    return tuple(_unit_time(program, index, int(result.busy[index]),
                            int(result.memory_stall[index]), result.token_stall[index],
                            result.total_cycles)
                 for index in range(len(program.units)))


def layer_times(program: Program, result: SimResult) -> tuple[LayerTime, ...]:
    """Figures of every layer that ran, in order of its end; needs a traced run of one frame."""
    stalls = layer_stalls(program, result)
    reads = np.array([unit.kind == UnitKind.READ for unit in program.units])
    writes = np.array([unit.kind == UnitKind.WRITE for unit in program.units])
    compute = np.array([unit.kind == UnitKind.COMPUTE for unit in program.units])
    order = sorted((index for index in range(len(program.layers))
                    if result.layer_end[index] >= 0), key=lambda i: (result.layer_end[i], i))
    found, done = [], 0
    for index in order:
        start, end = int(result.layer_start[index]), int(result.layer_end[index])
        span = end - start
        units = tuple(
            _unit_time(program, unit, int(result.layer_busy[index, unit]),
                       int(result.layer_memory_stall[index, unit]), stalls[index, unit], span)
            for unit in range(len(program.units))
            if result.layer_busy[index, unit] or result.layer_memory_stall[index, unit])
        busy = np.where(compute, result.layer_busy[index], -1)
        main = program.units[int(np.argmax(busy))].name if busy.max() > 0 else "transfers"
        found.append(LayerTime(
            program.layers[index], start, span, max(0, end - done),
            int(result.layer_macs[index]), int(result.layer_bytes[index][reads].sum()),
            int(result.layer_bytes[index][writes].sum()), units,
            _bound(units, max(0, end - done) or span), main))
        done = max(done, end)
    return tuple(found)


def _unit_time(program: Program, unit: int, busy: int, memory: int, tokens: np.ndarray,
               total: int) -> UnitTime:
    stalls: dict[str, int] = {"memory": memory} if memory else {}
    for bit, cycles in enumerate(tokens):
        if cycles:
            cause = program.channels[bit].cause
            stalls[cause] = stalls.get(cause, 0) + int(cycles)
    return UnitTime(program.units[unit].name, busy, stalls,
                    total - busy - sum(stalls.values()))


def layer_stalls(program: Program, result: SimResult) -> np.ndarray:
    """Cycles each unit waited for each channel in each layer, (L, U, C), from a traced run."""
    if result.trace is None:
        raise ValueError("the result holds no trace; simulate with trace=True")
    line = timeline(program, result.trace)
    table = np.zeros((len(program.layers), len(program.units), len(program.channels)), np.int64)
    waits = np.flatnonzero((line.channel != NONE) & (line.first == 0))
    np.add.at(table, (line.layer[waits], line.unit[waits], line.channel[waits]),
              line.start[waits] - line.ready[waits])
    return table


def _bound(units: tuple[UnitTime, ...], cycles: int) -> str:
    """The unit that worked, or waited for memory, for the largest part of the layer's cycles.

    Work done ahead, while an earlier layer ran, counts too, so shares are cut at 100 %.
    """
    if not units or not cycles:
        return "-"

    def working(unit: UnitTime) -> int:
        return unit.busy_cycles + unit.stalls.get("memory", 0)

    unit = max(units, key=working)
    share = f"{unit.name} {min(100, round(100 * working(unit) / cycles))}%"
    memory = min(100, round(100 * unit.stalls.get("memory", 0) / cycles))
    return f"{share} (memory {memory}%)" if memory else share

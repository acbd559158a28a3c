"""What described hardware does between its passes: sums to DRAM and back, a call of the host.

It lowers no layer; it puts rows between those that lowering wrote. Sums that go through DRAM are
timed and not executed.

`through_dram`: a pass over some of the input channels stores its sums, and the next one loads them
first, both in whole planes of the output's rows, by the first output and the first input master.

`called`: the host starts every tile, or every pass. A call begins when all units have done what
stands above it in the table, and nothing below it begins before the host is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from arch_models.literature import Calls
from arch_models.overlay import Overlay
from cosim.lowering.phases import Ties, ends
from cosim.lowering.wiring import Wiring
from cosim.program.table import ARGUMENTS, Buffer, Channel, Column, Opcode, Segment, UnitKind

ROWS, COLUMNS, WORDS, FIRST, LAST = (
    ARGUMENTS[Opcode.CONVOLUTION].index(name)
    for name in ("out_rows", "out_columns", "out_words", "first", "last"))
#: Opcodes whose passes over input channels are calls of their own.
PASSES = (Opcode.CONVOLUTION,)
Tables = tuple[np.ndarray, np.ndarray, list[Segment], tuple[Channel, ...]]


@dataclass(frozen=True)
class Host:
    """How the host calls: how often, the time of a start and the pseudo-layer that it is, the
    times of the steps that are there, and of the caches for bytes read and written."""

    calls: Calls
    start_ns: float
    start: int
    times: list[float]
    cache_ns: Callable[[int, int], float]


def through_dram(operations: np.ndarray, arguments: np.ndarray, segments: list[Segment],
                 channels: tuple[Channel, ...], wiring: Wiring, overlay: Overlay,
                 addresses: list[tuple[int, int]]) -> Tables:
    """Store the sums of every pass but the last of a tile, and load them before every one but the
    first. `addresses`: of the output, and columns of a row, of each layer."""
    passes = operations[:, Column.KIND] == Opcode.CONVOLUTION
    stores = np.flatnonzero(passes & (arguments[:, LAST] == 0))
    loads = np.flatnonzero(passes & (arguments[:, FIRST] == 0))
    # Where a pass follows a pass at once, the store of the first comes before the load.
    where = np.concatenate((stores + 1, loads))
    order = np.argsort(where, kind="stable")
    made = np.zeros((len(where), operations.shape[1]), np.int64)
    told = np.zeros((len(where), arguments.shape[1]), np.int32)
    for place, source in enumerate(np.concatenate((stores, loads)).tolist()):
        kind = Opcode.STORE if place < len(stores) else Opcode.LOAD
        _sums(made[place], operations[source], arguments[source], kind, wiring, overlay, addresses)
        told[place, 0] = 0 if kind == Opcode.STORE else Buffer.OUTPUT
    operations, arguments, segments, at = _with_rows(
        operations, arguments, segments, where[order], made[order], told[order])
    ties = Ties(operations, wiring.units, channels, segments, "partial")
    unit, kinds = operations[:, Column.UNIT], operations[at, Column.KIND]
    # Passes are in turn, so the sums of the n-th store are those of the n-th load.
    for store, load in zip(at[kinds == Opcode.STORE].tolist(), at[kinds == Opcode.LOAD].tolist(),
                           strict=True):
        for row, after in ((store - 1, store), (store, load), (load, load + 1)):
            ties.tie(int(unit[row]), row, int(unit[after]), after)
    return operations, arguments, segments, tuple(ties.channels)


def _sums(row: np.ndarray, work: np.ndarray, values: np.ndarray, kind: int, wiring: Wiring,
          overlay: Overlay, addresses: list[tuple[int, int]]) -> None:
    """The transfer of the sums of one pass."""
    address, width = addresses[int(work[Column.LAYER])]
    position = overlay.channel_block * overlay.loops.partial_bits // 8
    rows, columns = int(values[ROWS]), int(values[COLUMNS])
    row[Column.UNIT] = wiring.inputs[0] if kind == Opcode.LOAD else wiring.outputs[0]
    row[Column.KIND], row[Column.LAYER] = kind, work[Column.LAYER]
    row[Column.ADDRESS] = address
    row[Column.PLANES] = int(values[WORDS]) * overlay.tm // overlay.channel_block
    row[Column.ROWS], row[Column.ROW_BYTES] = rows, columns * position
    row[Column.ROW_STRIDE] = max(width, columns) * position
    row[Column.PLANE_STRIDE] = rows * int(row[Column.ROW_STRIDE])


def called(operations: np.ndarray, arguments: np.ndarray, segments: list[Segment],
           channels: tuple[Channel, ...], wiring: Wiring, host: Host) -> tuple[Tables, list[float]]:
    """Put a step of the host before every call; the tables and the times of all its steps."""
    begins = _call_starts(operations, segments, wiring, host.calls)
    new = begins[operations[begins - 1, Column.KIND] != Opcode.HOST]
    made = np.zeros((len(new), operations.shape[1]), np.int64)
    made[:, Column.UNIT], made[:, Column.KIND] = wiring.host, Opcode.HOST
    made[:, Column.LAYER] = operations[new, Column.LAYER]
    told = np.zeros((len(new), arguments.shape[1]), np.int32)
    told[:, 0] = host.start
    operations, arguments, segments, at = _with_rows(operations, arguments, segments, new, made,
                                                     told)
    steps = np.flatnonzero(operations[:, Column.KIND] == Opcode.HOST)
    times = np.full(len(steps), host.start_ns)
    times[~np.isin(steps, at)] = host.times
    ties = Ties(operations, wiring.units, channels, segments, "call")
    unit, last_rows = operations[:, Column.UNIT], {part.last for part in segments}
    kinds = np.array([int(item.kind) for item in wiring.units])
    edges = [*steps.tolist(), len(operations)]
    for index, (step, after) in enumerate(pairwise(edges)):
        end = min([after, *(last for last in last_rows if step < last)])
        if step + 1 == end:
            continue
        times[index] += host.cache_ns(*_moved(operations, kinds, step + 1, end))
        for target, (begin, _) in ends(unit, step + 1, end).items():
            loads = kinds[target] == UnitKind.READ
            if loads or (kinds[target] == UnitKind.COMPUTE
                         and not ties.behind_a_load(target, begin, step)):
                ties.tie(wiring.host, step, target, begin)
        if after not in last_rows:
            # The call is over when its last rows are: stores, or the pass that they would follow.
            first = end - 1
            while kinds[unit[first - 1]] == kinds[unit[end - 1]] and first - 1 > step:
                first -= 1
            for source, (_, row) in ends(unit, first, end).items():
                ties.tie(source, row, wiring.host, after)
    return (operations, arguments, segments, tuple(ties.channels)), times.tolist()


def _call_starts(operations: np.ndarray, segments: list[Segment], wiring: Wiring,
                 calls: Calls) -> np.ndarray:
    """First rows of calls: behind a step of the host, behind stores, behind each pass."""
    kinds = np.array([int(unit.kind) for unit in wiring.units])[operations[:, Column.UNIT]]
    host = operations[:, Column.KIND] == Opcode.HOST
    store = kinds == UnitKind.WRITE
    ends_call = host | store
    if calls is Calls.PASS:
        ends_call |= np.isin(operations[:, Column.KIND], PASSES)
    begins = np.zeros(len(operations), bool)
    begins[1:] = ends_call[:-1] & ~store[1:] & ~host[1:]
    for part in segments:
        begins[part.first] = False
    return np.flatnonzero(begins)


def _moved(operations: np.ndarray, kinds: np.ndarray, begin: int, end: int) -> tuple[int, int]:
    """Bytes read and written by some rows; `kinds`: of the units."""
    rows = operations[begin:end]
    size = rows[:, Column.ROW_BYTES] * rows[:, Column.ROWS] * rows[:, Column.PLANES]
    kind = kinds[rows[:, Column.UNIT]]
    return int(size[kind == UnitKind.READ].sum()), int(size[kind == UnitKind.WRITE].sum())


def _with_rows(operations: np.ndarray, arguments: np.ndarray, segments: list[Segment],
               where: np.ndarray, rows: np.ndarray, told: np.ndarray
               ) -> tuple[np.ndarray, np.ndarray, list[Segment], np.ndarray]:
    """The tables with rows put before those at `where` (ascending); the segments moved, and the
    numbers of the new rows."""
    at = where + np.arange(len(where))
    after = np.searchsorted(where, np.arange(len(operations)), side="right")
    places = np.arange(len(operations)) + after
    table = np.empty((len(operations) + len(where), operations.shape[1]), np.int64)
    values = np.empty((len(table), arguments.shape[1]), np.int32)
    table[at], table[places] = rows, operations
    values[at], values[places] = told, arguments

    def moved(edge: int) -> int:
        return edge + int(np.searchsorted(where, edge))

    return table, values, [replace(part, first=moved(part.first), last=moved(part.last))
                           for part in segments], at

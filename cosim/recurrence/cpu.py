"""Times one program under many clocks, ports and outstanding limits: the flat memory's short cut.

It gives the last cycle only, of programs whose masters each have a channel of the flat memory to
themselves; `cosim.executors.fast` runs everything else and says what every unit did.

In such a system no unit waits for another but through tokens. So the end of an operation is the
later of its unit's end before and of its tokens, plus its own time: a max-plus recurrence. Units
may be walked in any order, each as far as its tokens reach; no event queue is needed. What does
not depend on clock or ports (rows by unit, different transfers) is prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cosim.executors.fast import SOURCES
from cosim.executors.fast_loop import bit_index
from cosim.executors.fast_state import (
    COMPUTE,
    U_ALONE,
    U_KIND,
    U_LEAD,
    U_MAX_BEATS,
    U_OUTSTANDING,
    U_OVERLAP,
    U_RUN_SETUP,
    U_SETUP,
    U_TAIL,
    U_TRAIL,
    U_WIDTH,
)
from cosim.memory.bursts import CACHED, flat_transfer
from cosim.program.table import Column, Opcode, Program, UnitKind, rows_by_unit

#: What makes two transfers of a unit take equal time; the address counts modulo 4 KiB.
_SHAPE = [Column.UNIT, Column.ADDRESS, Column.ROW_BYTES, Column.ROWS, Column.ROW_STRIDE,
          Column.PLANES, Column.PLANE_STRIDE]
#: Tokens a channel may hold before `total_cycles` gives up.
DEEPEST = 64
#: Transfers whose time a `Timer` remembers.
_MEMO = 1 << 16
#: Columns of the unit table that a transfer's time depends on.
SETTINGS = [U_OUTSTANDING, U_MAX_BEATS, U_SETUP, U_TAIL, U_OVERLAP, U_RUN_SETUP, U_WIDTH, U_LEAD,
            U_TRAIL]


@dataclass(frozen=True)
class Prepared:
    """A program without its times. Rows are sorted by segment and unit (`starts`).

    `rows`: int64 (rows, 4): wait, signal, index of the transfer's shape or -1, compute cycles.
    `shapes`: int64 (shapes, 7), the columns of `_SHAPE`. `hosts`: places of the host's rows, in
    table order, whose cycles are given anew for every clock.
    """

    rows: np.ndarray
    starts: np.ndarray
    repeats: np.ndarray
    shapes: np.ndarray
    hosts: np.ndarray
    tokens: np.ndarray


def prepare(program: Program) -> Prepared | None:
    """Everything that clocks and ports leave as it is; None if addresses change with repeats."""
    table = program.operations
    if table[:, Column.ADVANCE].any():
        return None
    order, starts = rows_by_unit(program)
    kinds = np.array([unit.kind for unit in program.units])
    moves = kinds[table[:, Column.UNIT]] != UnitKind.COMPUTE
    shapes = np.empty((len(table), len(_SHAPE)), np.int64)
    rows = np.empty((len(table), 4), np.int64)
    count = _PREPARE(table, moves, order, rows, shapes,
                     np.full(1 << (2 * len(table)).bit_length(), -1, np.int64))
    hosts = np.flatnonzero(table[:, Column.KIND] == Opcode.HOST)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return Prepared(rows, starts, np.array([part.repeat for part in program.segments], np.int64),
                    shapes[:count].copy(), place[hosts],
                    np.array([channel.initial for channel in program.channels], np.int64))


class Timer:
    """Times prepared programs; it remembers what transfers take alone on a channel."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, ...], int] = {}
        self.memo = np.zeros((_MEMO, 8), np.int64)

    def settings(self, units: np.ndarray) -> np.ndarray:
        """(units,) a number for each different way to time transfers, from 1 on."""
        return np.array([self.numbers.setdefault(tuple(row), len(self.numbers) + 1)
                         for row in units[:, SETTINGS].tolist()], np.int64)

    def total_cycles(self, prepared: Prepared, units: np.ndarray, settings: np.ndarray,
                     host_cycles: Sequence[int]) -> int | None:
        """`SimResult.total_cycles` of the program; None if the recurrence does not hold.

        `units`: of `cosim.executors.fast.unit_table`, for ports, clock and limits;
        `settings`: theirs; `host_cycles`: FILL of the host's rows at that clock, in table
        order. None when masters share a channel, and when a token never comes.
        """
        if not units[units[:, U_KIND] != COMPUTE, U_ALONE].all():
            return None
        channels = len(prepared.tokens)
        total = _RUN(prepared.rows, prepared.starts, prepared.repeats, prepared.shapes,
                     prepared.hosts, np.asarray(host_cycles, np.int64), prepared.tokens, units,
                     settings, self.memo, np.empty(len(prepared.shapes), np.int64),
                     np.empty(int(units[:, U_OUTSTANDING].max()), np.int64),
                     np.zeros((channels, DEEPEST), np.int64), np.zeros((channels, 2), np.int64),
                     np.zeros((len(units), 4), np.int64))
        return int(total) if total >= 0 else None


def _build_prepare(sources: int) -> Callable:
    unit, address = int(Column.UNIT), int(Column.ADDRESS)
    wait, signal = int(Column.WAIT), int(Column.SIGNAL)
    fill, interval, trips, drain = (int(Column[name]) for name in ("FILL", "INTERVAL", "TRIPS",
                                                                   "DRAIN"))
    row_bytes, rows_column, row_stride, planes, plane_stride = (int(column) for column in
                                                                _SHAPE[2:])

    @CACHED
    def prepare_rows(table, moves, order, rows, shapes, slots):
        """Fill `rows` and `shapes`; return the number of shapes. `slots`: a hash table of -1."""
        stamp = sources  # noqa: F841
        count = 0
        for place in range(len(order)):
            row = table[order[place]]
            rows[place, 0] = row[wait]
            rows[place, 1] = row[signal]
            rows[place, 2] = -1
            rows[place, 3] = row[fill] + row[drain] + row[interval] * row[trips]
            if not moves[order[place]]:
                continue
            shape = shapes[count]
            shape[0], shape[1] = row[unit], row[address] & 4095
            shape[2], shape[3], shape[4] = row[row_bytes], row[rows_column], row[row_stride]
            shape[5], shape[6] = row[planes], row[plane_stride]
            key = shape[0]
            for index in range(1, 7):
                key = key * 31 + shape[index]
            slot = (key ^ (key >> 12) ^ (key >> 24)) & (len(slots) - 1)
            found = -1
            while slots[slot] >= 0:
                same = True
                for index in range(7):
                    if shapes[slots[slot], index] != shape[index]:
                        same = False
                        break
                if same:
                    found = slots[slot]
                    break
                slot = (slot + 1) & (len(slots) - 1)
            if found < 0:
                slots[slot] = found = count
                count += 1
            rows[place, 2] = found
        return count

    return prepare_rows


def _build_run(sources: int) -> Callable:
    """Compile the recurrence; `sources` enters numba's cache key."""

    @CACHED
    def run(rows, starts, repeats, shapes, hosts, host_cycles, initial, units, numbers, memo,
            durations, ring, fifo, ends, state):
        """The last end, or -1. `fifo`: token times by channel, `ends`: first and behind last."""
        stamp = sources  # noqa: F841
        for index in range(len(shapes)):
            shape = shapes[index]
            number = numbers[shape[0]]
            key = number
            for place in range(1, 7):
                key = key * 31 + shape[place]
            m = memo[(key ^ (key >> 12) ^ (key >> 24)) & (_MEMO - 1)]
            known = m[0] == number
            for place in range(1, 7):
                known &= m[place] == shape[place]
            if not known:
                settings = units[shape[0]]
                m[0] = number
                for place in range(1, 7):
                    m[place] = shape[place]
                m[7] = flat_transfer(
                    shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], settings[U_WIDTH],
                    settings[U_MAX_BEATS], settings[U_LEAD], settings[U_TRAIL],
                    settings[U_OUTSTANDING], settings[U_OVERLAP], settings[U_RUN_SETUP], ring)[0]
                m[7] += settings[U_SETUP] + settings[U_TAIL]
            durations[index] = m[7]
        for index in range(len(hosts)):
            rows[hosts[index], 3] = host_cycles[index]
        available = np.int64(0)
        for channel in range(len(initial)):
            ends[channel, 1] = initial[channel]
            if initial[channel] > 0:
                available |= np.int64(1) << channel
        total = np.int64(0)
        unit_count, segments = len(units), len(repeats)
        for unit in range(unit_count):
            x = state[unit]  # segment, repeat, place, end of the operation before
            x[0] = x[1] = x[3] = 0
            while x[0] < segments and starts[x[0], unit] == starts[x[0], unit + 1]:
                x[0] += 1
            x[2] = starts[x[0], unit] if x[0] < segments else 0
        moved = True
        while moved:
            moved = False
            for unit in range(unit_count):
                x = state[unit]
                while x[0] < segments:
                    row = rows[x[2]]
                    wait = row[0]
                    if wait & ~available:
                        break
                    now = x[3]
                    while wait:
                        low = wait & -wait
                        wait ^= low
                        channel = bit_index(low)
                        first = ends[channel, 0]
                        now = max(now, fifo[channel, first & (DEEPEST - 1)])
                        ends[channel, 0] = first + 1
                        if first + 1 == ends[channel, 1]:
                            available ^= low
                    now += durations[row[2]] if row[2] >= 0 else row[3]
                    signal = row[1]
                    while signal:
                        low = signal & -signal
                        signal ^= low
                        channel = bit_index(low)
                        last = ends[channel, 1]
                        if last - ends[channel, 0] == DEEPEST:
                            return np.int64(-1)
                        fifo[channel, last & (DEEPEST - 1)] = now
                        ends[channel, 1] = last + 1
                        available |= low
                    x[3] = now
                    total = max(total, now)
                    moved = True
                    x[2] += 1
                    while x[0] < segments and x[2] == starts[x[0], unit + 1]:
                        x[1] += 1
                        if x[1] == repeats[x[0]]:
                            x[0] += 1
                            x[1] = 0
                        if x[0] < segments:
                            x[2] = starts[x[0], unit]
        for unit in range(unit_count):
            if state[unit, 0] < segments:
                return np.int64(-1)
        return total

    return run


_PREPARE = _build_prepare(SOURCES)
_RUN = _build_run(SOURCES)

"""Times one program under many clocks, ports and outstanding limits: the flat memory's short cut.

It gives the last cycle only, of programs whose masters each have a channel of the flat memory to
themselves; `cosim.executors.fast` runs everything else and says what every unit did.

In such a system no unit waits for another but through tokens. So the end of an operation is the
later of its unit's end before and of its tokens, plus its own time: a max-plus recurrence. Units
may be walked in any order, each as far as its tokens reach; no event queue is needed. What does
not depend on clock or ports (rows by unit, different transfers) is prepared once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED_RULE
from cosim.executors.fast_loop import bit_index
from cosim.executors.fast_state import COMPUTE, OPERATION, UNIT
from cosim.memory.bursts import flat_transfer
from cosim.memory.controller import record_type
from cosim.program.table import Column, Opcode, Program, UnitKind, rows_by_unit

#: What makes two transfers of a unit take equal time; `offset`: the address modulo 4 KiB.
SHAPE = record_type("unit", "offset", "row_bytes", "rows", "row_stride", "planes", "plane_stride")
#: An operation without its transfer's time. `form`: index of that, or -1; `cycles`: of a compute
#: operation.
STEP = record_type("wait", "signal", "form", "cycles")
#: A transfer whose time is known. `setting`: number of the unit's settings (see `Timer`).
TIMED = record_type("setting", "offset", "row_bytes", "rows", "row_stride", "planes",
                    "plane_stride", "cycles")
#: Where a unit is, and the end of its operation before.
CURSOR = record_type("segment", "turn", "place", "end")
#: Numbers of the first token in a channel and of the next to come.
SPAN = record_type("first", "last")
#: Tokens a channel may hold before `total_cycles` gives up.
DEEPEST = 64
#: Transfers whose time a `Timer` remembers.
_MEMO = 1 << 16
#: Fields of a unit's record that a transfer's time depends on.
SETTINGS = ["outstanding", "max_beats", "setup", "tail", "overlap", "run_setup", "width", "lead",
            "trail"]


class Prepared(NamedTuple):
    """A program without its times. Rows are sorted by segment and unit (`starts`).

    `rows`: STEP records. `shapes`: SHAPE records. `hosts`: places of the host's rows, in table
    order, whose cycles are given anew for every clock.
    """

    rows: np.ndarray
    starts: np.ndarray
    repeats: np.ndarray
    shapes: np.ndarray
    hosts: np.ndarray
    tokens: np.ndarray


def prepare(program: Program) -> Prepared | None:
    """Everything that clocks and ports leave as it is; None where the recurrence does not hold.

    That is where addresses change with repeats, and where a channel starts with more tokens than
    it may hold here.
    """
    table = program.operations
    if table[:, Column.ADVANCE].any() or any(channel.initial > DEEPEST
                                             for channel in program.channels):
        return None
    order, starts = rows_by_unit(program)
    kinds = np.array([unit.kind for unit in program.units])
    moves = (kinds[table[:, Column.UNIT]] != UnitKind.COMPUTE) & (table[:, Column.TRIPS] == 0)
    shapes, rows = np.empty(len(table), SHAPE), np.empty(len(table), STEP)
    operations = np.ascontiguousarray(table).view(OPERATION).reshape(-1)
    count = _prepare_rows(operations, moves, order, rows, shapes,
                     np.full(1 << (2 * len(table)).bit_length(), -1, np.int64))
    hosts = np.flatnonzero(table[:, Column.KIND] == Opcode.HOST)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return Prepared(rows, starts, np.array([part.repeat for part in program.segments], np.int64),
                    shapes[:count].copy(), place[hosts],
                    np.array([channel.initial for channel in program.channels], np.int64))


class Walk(NamedTuple):
    """A program under some settings, and room to walk it.

    `numbers`: of the units' settings; `fifo`: ends that gave the tokens of each channel.
    """

    program: Prepared
    units: np.ndarray  # UNIT
    numbers: np.ndarray
    host_cycles: np.ndarray
    memo: np.ndarray  # TIMED
    durations: np.ndarray
    ring: np.ndarray
    fifo: np.ndarray
    spans: np.ndarray  # SPAN
    cursors: np.ndarray  # CURSOR


class Timer:
    """Times prepared programs; it remembers what transfers take alone on a channel."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[int, ...], int] = {}
        self.memo = np.zeros(_MEMO, TIMED)

    def settings(self, units: np.ndarray) -> np.ndarray:
        """(units,) a number for each different way to time transfers, from 1 on."""
        return np.array([self.numbers.setdefault(row, len(self.numbers) + 1)
                         for row in units[SETTINGS].tolist()], np.int64)

    def transfers(self, prepared: Prepared, units: np.ndarray) -> np.ndarray:
        """Cycles of every shape of `prepared` on a channel of its unit's own."""
        none = np.zeros(0, np.int64)
        found = np.empty(len(prepared.shapes), np.int64)
        _time_transfers(Walk(prepared, units, self.settings(units), none, self.memo, found,
                   np.empty(int(units["outstanding"].max()), np.int64), np.zeros((0, 0), np.int64),
                   np.zeros(0, SPAN), np.zeros(0, CURSOR)))
        return found

    def total_cycles(self, prepared: Prepared, units: np.ndarray, settings: np.ndarray,
                     host_cycles: Sequence[int]) -> int | None:
        """`SimResult.total_cycles` of the program; None if the recurrence does not hold.

        `units`: of `cosim.executors.fast.unit_table`, for ports, clock and limits;
        `settings`: theirs; `host_cycles`: FILL of the host's rows at that clock, in table
        order. None when masters share a channel, and when a token never comes.
        """
        if not units["alone"][units["kind"] != COMPUTE].all():
            return None
        channels = len(prepared.tokens)
        total = _run(Walk(
            prepared, units, settings, np.asarray(host_cycles, np.int64), self.memo,
            np.empty(len(prepared.shapes), np.int64),
            np.empty(int(units["outstanding"].max()), np.int64),
            np.zeros((channels, DEEPEST), np.int64), np.zeros(channels, SPAN),
            np.zeros(len(units), CURSOR)))
        return int(total) if total >= 0 else None


#: Earlier than anything that waits for something.
LONG_AGO = -(1 << 50)


def makespan(steps: np.ndarray, starts: np.ndarray, tokens: np.ndarray,
             ready: np.ndarray) -> int | None:
    """The last end of operations whose cycles are all known; None if a token never comes.

    `steps`: STEP records sorted by unit (`starts`, (units + 1,)); `tokens`: in each channel long
    ago; `ready`: (units,) when each unit may begin.
    """
    units, channels = len(ready), len(tokens)
    cursors = np.zeros(units, CURSOR)
    cursors["end"] = ready
    none = np.zeros(0, np.int64)
    program = Prepared(steps, starts[None], np.ones(1, np.int64), np.zeros(0, SHAPE), none, tokens)
    total = _run(Walk(program, np.zeros(units, UNIT), none, none, np.zeros(0, TIMED), none, none,
                      np.full((channels, DEEPEST), LONG_AGO, np.int64), np.zeros(channels, SPAN),
                      cursors))
    return int(total) if total >= 0 else None


@CACHED_RULE
def _prepare_rows(table, moves, order, rows, shapes, slots):
    """Fill `rows` and `shapes`; return the number of shapes. `slots`: a hash table of -1."""
    count = 0
    for place in range(len(order)):
        operation, step = table[order[place]], rows[place]
        step.wait, step.signal, step.form = operation.wait, operation.signal, -1
        step.cycles = (operation.filling + operation.drain
                       + operation.interval * operation.trips)
        if not moves[order[place]]:
            continue
        shape = shapes[count]
        shape.unit, shape.offset = operation.unit, operation.address & 4095
        shape.row_bytes, shape.rows = operation.row_bytes, operation.rows
        shape.row_stride, shape.planes = operation.row_stride, operation.planes
        shape.plane_stride = operation.plane_stride
        slot = _hash(shape.unit, shape) & (len(slots) - 1)
        found = -1
        while slots[slot] >= 0:
            other = shapes[slots[slot]]
            if other.unit == shape.unit and _alike(other, shape):
                found = slots[slot]
                break
            slot = (slot + 1) & (len(slots) - 1)
        if found < 0:
            slots[slot] = found = count
            count += 1
        step.form = found
    return count


@CACHED_RULE
def _hash(first, shape):
    key = first * 31 + shape.offset
    key = key * 31 + shape.row_bytes
    key = key * 31 + shape.rows
    key = key * 31 + shape.row_stride
    key = key * 31 + shape.planes
    key = key * 31 + shape.plane_stride
    return key ^ (key >> 12) ^ (key >> 24)


@CACHED_RULE
def _alike(one, other):
    return (one.offset == other.offset and one.row_bytes == other.row_bytes
            and one.rows == other.rows and one.row_stride == other.row_stride
            and one.planes == other.planes and one.plane_stride == other.plane_stride)


@CACHED_RULE
def _time_transfers(walk):
    """Cycles of every shape under its unit's settings."""
    for index in range(len(walk.program.shapes)):
        shape = walk.program.shapes[index]
        number = walk.numbers[shape.unit]
        kept = walk.memo[_hash(number, shape) & (_MEMO - 1)]
        if kept.setting != number or not _alike(kept, shape):
            settings = walk.units[shape.unit]
            kept.setting, kept.offset, kept.row_bytes = number, shape.offset, shape.row_bytes
            kept.rows, kept.row_stride = shape.rows, shape.row_stride
            kept.planes, kept.plane_stride = shape.planes, shape.plane_stride
            kept.cycles = (flat_transfer(shape.offset, shape, settings, walk.ring)[0]
                           + settings.setup + settings.tail)
        walk.durations[index] = kept.cycles


@CACHED_RULE
def enter(program, cursor, unit):
    """Put a unit before its first operation."""
    while (cursor.segment < len(program.repeats)
           and program.starts[cursor.segment, unit] == program.starts[cursor.segment, unit + 1]):
        cursor.segment += 1
    if cursor.segment < len(program.repeats):
        cursor.place = program.starts[cursor.segment, unit]


@CACHED_RULE
def step_on(program, cursor, unit):
    """Move a unit to its next operation; its segment is behind the last one after the last."""
    cursor.place += 1
    while (cursor.segment < len(program.repeats)
           and cursor.place == program.starts[cursor.segment, unit + 1]):
        cursor.turn += 1
        if cursor.turn == program.repeats[cursor.segment]:
            cursor.segment += 1
            cursor.turn = 0
        if cursor.segment < len(program.repeats):
            cursor.place = program.starts[cursor.segment, unit]


@CACHED_RULE
def _take(walk, wait, now, available):
    """Take a token of each channel in a mask; (the later of `now` and their ends, channels)."""
    while wait:
        low = wait & -wait
        wait ^= low
        channel = bit_index(low)
        span = walk.spans[channel]
        now = max(now, walk.fifo[channel, span.first & (DEEPEST - 1)])
        span.first += 1
        if span.first == span.last:
            available ^= low
    return now, available


@CACHED_RULE
def _give(walk, signal, now, available):
    """Give a token to each channel in a mask; channels that have some, or -1 if one is full."""
    while signal:
        low = signal & -signal
        signal ^= low
        channel = bit_index(low)
        span = walk.spans[channel]
        if span.last - span.first == DEEPEST:
            return np.int64(-1)
        walk.fifo[channel, span.last & (DEEPEST - 1)] = now
        span.last += 1
        available |= low
    return available


@CACHED_RULE
def _run(walk):
    """The last end, or -1."""
    program = walk.program
    _time_transfers(walk)
    for index in range(len(program.hosts)):
        program.rows[program.hosts[index]].cycles = walk.host_cycles[index]
    available = np.int64(0)
    for channel in range(len(program.tokens)):
        walk.spans[channel].last = program.tokens[channel]
        if program.tokens[channel] > 0:
            available |= np.int64(1) << channel
    for unit in range(len(walk.units)):
        enter(program, walk.cursors[unit], unit)
    total = np.int64(0)
    moved = True
    while moved:
        moved = False
        for unit in range(len(walk.units)):
            cursor = walk.cursors[unit]
            while cursor.segment < len(program.repeats):
                step = program.rows[cursor.place]
                if step.wait & ~available:
                    break
                now, available = _take(walk, step.wait, cursor.end, available)
                now += walk.durations[step.form] if step.form >= 0 else step.cycles
                available = _give(walk, step.signal, now, available)
                if available < 0:
                    return np.int64(-1)
                cursor.end = now
                total = max(total, now)
                moved = True
                step_on(program, cursor, unit)
    for unit in range(len(walk.units)):
        if walk.cursors[unit].segment < len(program.repeats):
            return np.int64(-1)
    return total

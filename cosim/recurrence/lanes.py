"""A program as straight steps, and settings as lanes: what a GPU times the recurrence with.

It runs nothing. Which token an operation takes does not depend on times, so `linearize` walks a
program once, in the order of `cosim.recurrence.cpu`, and writes down for each operation the ends
that it waits for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED_RULE
from cosim.executors.fast_loop import bit_index
from cosim.executors.fast_state import COMPUTE
from cosim.memory.controller import record_type
from cosim.recurrence.cpu import CURSOR, DEEPEST, SETTINGS, SHAPE, SPAN, Prepared, enter, step_on

#: Ends that a thread holds at once: one a unit, and one for every operation whose tokens wait.
SLOTS = 64
#: Bursts that a master may have in flight at most.
MOST_OUTSTANDING = 32
#: Steps of a program at most, repeats written out.
MOST_STEPS = 1 << 22
_NO_SOURCE = -1
#: How many steps and sources are written; channels with tokens.
WRITTEN = record_type("steps", "sources", "available")
#: A transfer's shape, or a host's operation (`host`: its number, or -1).
ROW = record_type("unit", "offset", "row_bytes", "rows", "row_stride", "planes", "plane_stride",
                  "host")
#: The settings of a transfer, as `SETTINGS` names them.
SETTING = record_type(*SETTINGS)


@dataclass(frozen=True)
class Steps:
    """A program as a straight list of operations.

    `steps`: int32 (operations, 4): cycles, or -1 - row of `rows`; unit, which is the slot of the
    unit's end before; slot that keeps the end for its tokens, or -1; end of the operation's
    `sources`. `sources`: int32, slots of the ends that it waits for. `rows`: ROW records: the
    shapes of `Prepared` with host -1, then for every host row its unit and its number.
    """

    steps: np.ndarray
    sources: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Lanes:
    """The settings of L threads: unit tables and clocks, each different one once.

    `numbers`: int32 (units, L): number of the unit's setting; a computing unit's is the clock's.
    `settings`: SETTING records (units, most); `counts`: int64 (units,).
    `alone`: bool (L,): the recurrence holds, no two masters share a channel.
    """

    numbers: np.ndarray
    settings: np.ndarray
    counts: np.ndarray
    alone: np.ndarray


def linearize(prepared: Prepared, units: int) -> Steps | None:
    """The straight steps; None if a token never comes or the program is too large for a GPU."""
    rows, starts, repeats = prepared.rows, prepared.starts, prepared.repeats
    count = int(((starts[:, -1] - starts[:, 0]) * repeats).sum())
    what = np.where(rows["form"] < 0, rows["cycles"], -1 - rows["form"])
    shapes, hosts = len(prepared.shapes), len(prepared.hosts)
    what[prepared.hosts] = -1 - shapes - np.arange(hosts)
    if count > MOST_STEPS or what.max(initial=0) > np.iinfo(np.int32).max or units >= SLOTS:
        return None
    waits = int(_bits(prepared))
    channels = len(prepared.tokens)
    line = Line(prepared, what, np.empty((count, 4), np.int32), np.empty(waits, np.int32),
                np.empty((channels, DEEPEST), np.int64), np.zeros(channels, SPAN),
                np.zeros(units, CURSOR), np.zeros(SLOTS, np.int64), np.zeros(1, WRITTEN))
    used = _sources(line)
    if used < 0:
        return None
    table = np.zeros(shapes + hosts, ROW)
    for name in SHAPE.names or ():
        table[name][:shapes] = prepared.shapes[name]
    table["host"][:shapes] = -1
    table["unit"][shapes:] = _units_of_rows(starts, prepared.hosts)
    table["host"][shapes:] = np.arange(hosts)
    return Steps(line.steps, line.sources[:used].copy(), table)


def _units_of_rows(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Units of rows, given their places; `starts` ascends from segment to segment."""
    columns = starts.shape[1]
    unit = np.searchsorted(starts.ravel(), places, side="right") - 1
    return unit % columns


def lanes_of(units: np.ndarray, clocks: np.ndarray) -> Lanes:
    """Lanes of L unit tables, UNIT records (L, units), and the number of each one's clock."""
    moves = units["kind"][0] != COMPUTE
    numbers = np.empty((units.shape[1], len(units)), np.int32)
    columns = np.stack([units[name] for name in SETTINGS], axis=-1)
    found: list[np.ndarray] = []
    for unit, move in enumerate(moves):
        if move:
            different, inverse = np.unique(columns[:, unit], axis=0, return_inverse=True)
            numbers[unit] = inverse.ravel()
        else:
            different = np.zeros((int(clocks.max()) + 1, len(SETTINGS)), np.int64)
            numbers[unit] = clocks
        found.append(different)
    counts = np.array([len(item) for item in found], np.int64)
    settings = np.zeros((len(found), int(counts.max()), len(SETTINGS)), np.int64)
    for unit, different in enumerate(found):
        settings[unit, : len(different)] = different
    channels = np.sort(units["channel"][:, moves], axis=1)
    alone = (channels[:, 1:] != channels[:, :-1]).all(axis=1)
    alone &= (units["outstanding"] <= MOST_OUTSTANDING).all(axis=1)
    return Lanes(numbers, settings.view(SETTING)[:, :, 0], counts, alone)


class Line(NamedTuple):
    """A program being written out straight. `what`: cycles of a row, or -1 - its row's number.

    `fifo`: slots of tokens; `uses`: tokens that need a slot; `written`: one WRITTEN record.
    """

    program: Prepared
    what: np.ndarray
    steps: np.ndarray
    sources: np.ndarray
    fifo: np.ndarray
    spans: np.ndarray  # SPAN
    cursors: np.ndarray  # CURSOR
    uses: np.ndarray
    written: np.ndarray  # WRITTEN


@CACHED_RULE
def _bits(program):
    """Tokens that all operations wait for."""
    total = 0
    for segment in range(len(program.repeats)):
        for place in range(program.starts[segment, 0],
                           program.starts[segment, program.starts.shape[1] - 1]):
            wait = program.rows[place].wait
            while wait:
                wait &= wait - 1
                total += program.repeats[segment]
    return total


@CACHED_RULE
def _take(line, wait):
    """Take a token of each channel in a mask, and write down where their ends are."""
    written = line.written[0]
    while wait:
        low = wait & -wait
        wait ^= low
        channel = bit_index(low)
        span = line.spans[channel]
        slot = line.fifo[channel, span.first & (DEEPEST - 1)]
        if slot != _NO_SOURCE:
            line.sources[written.sources] = slot
            written.sources += 1
            line.uses[slot] -= 1
        span.first += 1
        if span.first == span.last:
            written.available ^= low


@CACHED_RULE
def _give(line, signal):
    """Keep an operation's end for its tokens; its slot, -1 if it gives none, -2 without room."""
    if not signal:
        return -1
    written, keep = line.written[0], len(line.cursors)
    while keep < len(line.uses) and line.uses[keep] > 0:
        keep += 1
    if keep == len(line.uses):
        return -2
    while signal:
        low = signal & -signal
        signal ^= low
        channel = bit_index(low)
        span = line.spans[channel]
        if span.last - span.first == DEEPEST:
            return -2
        line.fifo[channel, span.last & (DEEPEST - 1)] = keep
        line.uses[keep] += 1
        span.last += 1
        written.available |= low
    return keep


@CACHED_RULE
def _sources(line):
    """Sources written, or -1."""
    program, written = line.program, line.written[0]
    for channel in range(len(program.tokens)):
        line.spans[channel].last = program.tokens[channel]
        for place in range(program.tokens[channel]):
            line.fifo[channel, place & (DEEPEST - 1)] = _NO_SOURCE
        if program.tokens[channel] > 0:
            written.available |= np.int64(1) << channel
    for unit in range(len(line.cursors)):
        enter(program, line.cursors[unit], unit)
    moved = True
    while moved:
        moved = False
        for unit in range(len(line.cursors)):
            cursor = line.cursors[unit]
            while cursor.segment < len(program.repeats):
                row = program.rows[cursor.place]
                if row.wait & ~written.available:
                    break
                _take(line, row.wait)
                keep = _give(line, row.signal)
                if keep == -2:
                    return -1
                step = line.steps[written.steps]
                step[0], step[1] = line.what[cursor.place], unit
                step[2], step[3] = keep, written.sources
                written.steps += 1
                moved = True
                step_on(program, cursor, unit)
    return written.sources if written.steps == len(line.steps) else -1

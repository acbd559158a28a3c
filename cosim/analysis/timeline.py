"""Says, for every operation of a trace, what it waited for and which operation let it go.

It does not simulate; it reads the start and end cycles that an executor recorded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosim.program.result import Trace
from cosim.program.table import FLAG_FIRST, Column, Program, flat

NONE = -1


@dataclass(frozen=True)
class Timeline:
    """One entry an executed operation, repeats written out in table order (all int64).

    `ready`: cycle at which the unit had finished its operation before (0 for the first one).
    `previous`: that operation, or -1. `channel`: the channel whose token came last, if that was
    after `ready`, else -1 (the operation did not wait). `source`: the operation whose token that
    was, or -1. `first`: 1 where a wait is idleness, not a stall. `bytes`, `macs`: work done.
    """

    unit: np.ndarray
    layer: np.ndarray
    opcode: np.ndarray
    start: np.ndarray
    end: np.ndarray
    ready: np.ndarray
    previous: np.ndarray
    channel: np.ndarray
    source: np.ndarray
    first: np.ndarray
    bytes: np.ndarray
    macs: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def timeline(program: Program, trace: Trace) -> Timeline:
    """Read the waits out of a trace: the k-th token a channel gives is the k-th it was given.

    Raises ValueError when the trace has another number of operations than the program.
    """
    rows = flat(program).operations
    if len(rows) != len(trace.start):
        raise ValueError(f"trace: {len(trace.start)} operations, the program has {len(rows)}")
    unit = rows[:, Column.UNIT]
    previous = np.full(len(rows), NONE, np.int64)
    for index in range(len(program.units)):
        own = np.flatnonzero(unit == index)
        previous[own[1:]] = own[:-1]
    ready = np.where(previous == NONE, 0, trace.end[previous])
    latest = ready.copy()
    channel = np.full(len(rows), NONE, np.int64)
    source = np.full(len(rows), NONE, np.int64)
    for bit, entry in enumerate(program.channels):
        givers = np.flatnonzero((rows[:, Column.SIGNAL] >> bit) & 1)
        takers = np.flatnonzero((rows[:, Column.WAIT] >> bit) & 1)[entry.initial :]
        givers = givers[: len(takers)]
        arrival = trace.end[givers]
        # Strictly later only: at a tie the lowest channel keeps the wait, as in SimResult.
        later = arrival > latest[takers]
        latest[takers[later]] = arrival[later]
        channel[takers[later]] = bit
        source[takers[later]] = givers[later]
    moved = rows[:, Column.ROW_BYTES] * rows[:, Column.ROWS] * rows[:, Column.PLANES]
    return Timeline(unit, rows[:, Column.LAYER], rows[:, Column.KIND], trace.start, trace.end,
                    ready, previous, channel, source, rows[:, Column.FLAGS] & FLAG_FIRST,
                    moved, rows[:, Column.MACS])


def critical_path(line: Timeline) -> np.ndarray:
    """The chain of operations that ends last, each let go by the one before it, in time order.

    Every step is either the unit's own operation before or the giver of the last token, so the
    chain covers the run without a gap (transfers include what memory made them wait).
    """
    if not len(line):
        return np.zeros(0, np.int64)
    path = [int(np.argmax(line.end))]
    while True:
        here = path[-1]
        before = int(line.source[here])
        if before == NONE:
            before = int(line.previous[here])
        if before == NONE:
            return np.array(path[::-1], np.int64)
        path.append(before)

"""Runs the tokens of a program without time and names the operation that never has its turn.

It knows no cycles and no memory. With one producer and one consumer a channel, the order in which
units move cannot change the answer.
"""

from __future__ import annotations

import numpy as np

from cosim.compiled import CACHED_RULE
from cosim.program.table import Column, Program, rows_by_unit

WAIT, SIGNAL = int(Column.WAIT), int(Column.SIGNAL)


@CACHED_RULE
def _run(operations, order, starts, repeats, tokens, segment, repeat, place):
    """Move every unit as far as it gets; `place` becomes -1 for a unit that has finished."""
    moved = True
    while moved:
        moved = False
        for unit in range(len(segment)):
            while place[unit] >= 0:
                part = segment[unit]
                if place[unit] == starts[part, unit + 1]:
                    repeat[unit] += 1
                    if repeat[unit] < repeats[part] and starts[part, unit] < place[unit]:
                        place[unit] = starts[part, unit]
                        continue
                    repeat[unit] = 0
                    segment[unit] += 1
                    part = segment[unit]
                    place[unit] = starts[part, unit] if part < len(repeats) else -1
                    continue
                row = order[place[unit]]
                wait = operations[row, WAIT]
                ready = True
                channel = 0
                while wait >> channel:
                    if (wait >> channel) & 1 and tokens[channel] == 0:
                        ready = False
                    channel += 1
                if not ready:
                    break
                signal = operations[row, SIGNAL]
                for channel in range(len(tokens)):
                    tokens[channel] += ((signal >> channel) & 1) - ((wait >> channel) & 1)
                place[unit] += 1
                moved = True


def first_stuck(program: Program) -> tuple[int, list[int]] | None:
    """(row, empty channels) of the first unit that cannot finish; None if all can."""
    units = len(program.units)
    order, starts = rows_by_unit(program)
    repeats = np.array([part.repeat for part in program.segments], np.int64)
    tokens = np.array([channel.initial for channel in program.channels], np.int64)
    place = starts[0, :units].copy() if len(starts) else np.full(units, -1, np.int64)
    _run(program.operations, order, starts, repeats, tokens, np.zeros(units, np.int64),
         np.zeros(units, np.int64), place)
    for unit in range(units):
        if place[unit] >= 0:
            row = int(order[place[unit]])
            wait = int(program.operations[row, WAIT])
            return row, [bit for bit in range(len(tokens)) if wait >> bit & 1 and tokens[bit] == 0]
    return None

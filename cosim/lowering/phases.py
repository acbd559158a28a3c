"""What loops of somebody else's hardware wait for: phases one after the other, rows together.

It lowers no layer; it adds tokens to what lowering wrote, and cuts loads into rows. A cut load
moves the same bytes at the same places, but says no longer where on chip they go: such a program
is timed and not executed.

`serial`: loop bodies that load, compute and store without a dataflow pipeline. The table lists the
operations of a layer tile by tile: loads, work, stores. Wherever the kind changes from one row to
the next, every unit of the rows behind waits for the last operation of every unit of the rows
before. Since each row only waits for rows above it, nothing can block. `drained`: the same between
stores and all else, so that loads and work of one output tile overlap.

`joined`: a loop that copies a row on every read port and goes on when all have come. Loads of the
input masters that lie together in the table are cut into rows; row n of each master waits for row
n - 1 of every other one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cosim.lowering.wiring import Wiring
from cosim.program.table import (
    MAX_CHANNELS,
    Channel,
    Column,
    Opcode,
    Segment,
    Unit,
    UnitKind,
)


class TooManyChannels(Exception):
    """Units that wait for each other need more channels than a descriptor's masks have."""


def serial(operations: np.ndarray, segments: list[Segment], units: tuple[Unit, ...],
           channels: tuple[Channel, ...], drained: bool = False) -> tuple[Channel, ...]:
    """Tie the phases of each segment's rows; the channels with those added.

    `drained`: only stores are a phase of their own. Sets WAIT and SIGNAL in `operations`. Raises
    `TooManyChannels`.
    """
    kinds = np.array([int(unit.kind == UnitKind.WRITE if drained else unit.kind)
                      for unit in units])
    ties = Ties(operations, units, channels, "phase")
    unit = operations[:, Column.UNIT]
    # The host has barriers of its own on both sides.
    kind = np.where(operations[:, Column.KIND] == Opcode.HOST, -1, kinds[unit])
    for part in segments:
        first, last = part.first, part.last
        turns = first + 1 + np.flatnonzero(np.diff(kind[first:last]))
        edges = [first, *turns.tolist(), last]
        groups = [ends(unit, begin, end) for begin, end in zip(edges, edges[1:], strict=False)]
        for index in range(len(groups) - 1):
            if kind[edges[index]] < 0 or kind[edges[index + 1]] < 0:
                continue
            for source, (_, row) in groups[index].items():
                for target, (begin, _) in groups[index + 1].items():
                    ties.tie(source, row, target, begin)
    return tuple(ties.channels)


def joined(operations: np.ndarray, arguments: np.ndarray, segments: list[Segment],
           channels: tuple[Channel, ...], wiring: Wiring
           ) -> tuple[np.ndarray, np.ndarray, list[Segment], tuple[Channel, ...]]:
    """Cut the loads of the input masters into rows that wait for each other.

    (operations, arguments, segments, channels) anew. With one input master nothing changes. Raises
    `TooManyChannels`.
    """
    inputs = wiring.inputs
    if len(inputs) < 2:
        return operations, arguments, segments, channels
    unit = operations[:, Column.UNIT]
    cuts = np.where(np.isin(unit, inputs) & (operations[:, Column.KIND] == Opcode.LOAD),
                    operations[:, Column.ROWS] * operations[:, Column.PLANES], 1)
    begins = np.concatenate(([0], np.cumsum(cuts)))
    source = np.repeat(np.arange(len(operations)), cuts)
    rows, found = operations[source], arguments[source]
    place = np.arange(len(source)) - begins[source]
    cut = cuts[source] > 1
    height = np.maximum(1, operations[source, Column.ROWS])
    rows[:, Column.ADDRESS] += cut * (place // height * rows[:, Column.PLANE_STRIDE]
                                      + place % height * rows[:, Column.ROW_STRIDE])
    rows[cut, Column.ROWS] = rows[cut, Column.PLANES] = 1
    rows[cut & (place > 0), Column.WAIT] = 0
    rows[cut & (place > 0), Column.FLAGS] = 0
    rows[cut & (place < cuts[source] - 1), Column.SIGNAL] = 0
    ties = Ties(rows, wiring.units, channels, "input")
    for group in _together(unit, inputs):
        for one in group:
            for other in group:
                if one != other:
                    for step in range(min(cuts[one], cuts[other] - 1)):
                        ties.tie(int(unit[one]), int(begins[one]) + step, int(unit[other]),
                                 int(begins[other]) + step + 1)
    moved = [replace(part, first=int(begins[part.first]), last=int(begins[part.last]))
             for part in segments]
    return rows, found, moved, tuple(ties.channels)


def _together(unit: np.ndarray, inputs: tuple[int, ...]) -> list[list[int]]:
    """Rows of different input masters that follow one another in the table."""
    found: list[list[int]] = [[]]
    for row in np.flatnonzero(np.isin(unit, inputs)).tolist():
        last = found[-1]
        if last and (last[-1] != row - 1 or unit[row] in unit[last]):
            found.append([])
        found[-1].append(row)
    return found


class Ties:
    """Channels for tokens between units, made when they are first asked for."""

    def __init__(self, operations: np.ndarray, units: tuple[Unit, ...],
                 channels: tuple[Channel, ...], cause: str) -> None:
        self.operations, self.units, self.cause = operations, units, cause
        self.channels = list(channels)
        self.bits: dict[tuple[int, int], int] = {}

    def tie(self, source: int, row: int, target: int, waits: int) -> None:
        """The row `waits` of a unit waits for the end of `row` of another."""
        bit = self.bits.get((source, target))
        if bit is None:
            bit = self.bits[source, target] = len(self.channels)
            name = f"{self.cause} {self.units[source].name}-{self.units[target].name}"
            self.channels.append(Channel(name, source, target, 0, self.cause))
        if bit >= MAX_CHANNELS:
            raise TooManyChannels
        self.operations[row, Column.SIGNAL] |= 1 << bit
        self.operations[waits, Column.WAIT] |= 1 << bit


def ends(unit: np.ndarray, begin: int, end: int) -> dict[int, tuple[int, int]]:
    """First and last row of every unit in some rows."""
    found: dict[int, tuple[int, int]] = {}
    for row in range(begin, end):
        number = int(unit[row])
        found[number] = found.get(number, (row, row))[0], row
    return found

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

from bisect import bisect_left, bisect_right, insort
from dataclasses import replace
from itertools import permutations

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

#: First and last row of each unit in some rows.
Group = dict[int, tuple[int, int]]


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
    ties = Ties(operations, units, channels, segments, "phase")
    unit = operations[:, Column.UNIT]
    # A step of the host is a phase of its own.
    kind = np.where(operations[:, Column.KIND] == Opcode.HOST, -1, kinds[unit])
    for part in segments:
        first, last = part.first, part.last
        turns = first + 1 + np.flatnonzero(np.diff(kind[first:last]))
        edges = [first, *turns.tolist(), last]
        groups = [ends(unit, begin, end) for begin, end in zip(edges, edges[1:], strict=False)]
        for index in range(len(groups) - 1):
            _follow(ties, groups[index], groups[index + 1], edges[index + 1])
    return tuple(ties.channels)


def _follow(ties: Ties, before: Group, after: Group, begin: int) -> None:
    """The first rows of a phase, which begins at `begin`, wait for the last rows of the one before.

    Work that waits for a load of its own phase waits with that load; what waits for the work of
    the phase before waits with it for the loads that it used.
    """
    kinds = [unit.kind for unit in ties.units]
    for target, (first, _) in after.items():
        if kinds[target] == UnitKind.COMPUTE and ties.behind_a_load(target, first, begin):
            continue
        for source, (_, last) in before.items():
            if kinds[source] != UnitKind.READ or not ties.used(source, last, before):
                ties.tie(source, last, target, first)


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
    moved = [replace(part, first=int(begins[part.first]), last=int(begins[part.last]))
             for part in segments]
    ties = Ties(rows, wiring.units, channels, moved, "input")
    bits: dict[tuple[int, int], int] = {}
    for group in _together(unit, inputs):
        for one, other in permutations(group, 2):
            count = min(int(cuts[one]), int(cuts[other]) - 1)
            if count <= 0:
                continue
            pair = int(unit[one]), int(unit[other])
            if pair not in bits:
                bits[pair] = ties.new(*pair)
            first, second = int(begins[one]), int(begins[other]) + 1
            rows[first : first + count, Column.SIGNAL] |= 1 << bits[pair]
            rows[second : second + count, Column.WAIT] |= 1 << bits[pair]
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
    """Tokens between units, on a channel that is there where it takes them, else on a new one."""

    def __init__(self, operations: np.ndarray, units: tuple[Unit, ...],
                 channels: tuple[Channel, ...], segments: list[Segment], cause: str) -> None:
        self.operations, self.units, self.cause = operations, units, cause
        self.channels = list(channels)
        self.bits: dict[tuple[int, int], list[int]] = {}
        for bit, channel in enumerate(channels):
            self.bits.setdefault((channel.source, channel.target), []).append(bit)
        self.starts = [part.first for part in segments if part.last > part.first]
        self.ends = [part.last for part in segments if part.last > part.first]
        self.known: dict[tuple[int, int], tuple[list[int], list[int]]] = {}

    def tie(self, source: int, row: int, target: int, waits: int) -> None:
        """The row `waits` of a unit waits for the end of `row` of another, in one segment."""
        there = self.bits.setdefault((source, target), [])
        if any(self._tied(bit, row, waits) for bit in there):
            return
        taking = [bit for bit in there if self._takes(bit, row, waits)]
        bit = taking[0] if taking else self.new(source, target)
        signals, waiting = self._rows(bit, row)
        insort(signals, row)
        insort(waiting, waits)
        self.operations[row, Column.SIGNAL] |= 1 << bit
        self.operations[waits, Column.WAIT] |= 1 << bit

    def new(self, source: int, target: int) -> int:
        """A new channel; where there are as many as may be, in the place of one without rows."""
        bit = len(self.channels)
        name = f"{self.cause} {self.units[source].name}-{self.units[target].name}"
        channel = Channel(name, source, target, 0, self.cause)
        if bit < MAX_CHANNELS:
            self.channels.append(channel)
        else:
            masks = self.operations[:, Column.WAIT] | self.operations[:, Column.SIGNAL]
            used = int(np.bitwise_or.reduce(masks))
            # Descriptors get their tokens later.
            bit = next((index for index, item in enumerate(self.channels) if not used >> index & 1
                        and not item.name.startswith("descriptors")), MAX_CHANNELS)
            if bit == MAX_CHANNELS:
                raise TooManyChannels
            old = self.channels[bit]
            self.bits[old.source, old.target].remove(bit)
            self.channels[bit] = channel
            self.known = {key: rows for key, rows in self.known.items() if key[0] != bit}
        self.bits.setdefault((source, target), []).append(bit)
        return bit

    def behind_a_load(self, target: int, waits: int, begin: int) -> bool:
        """Does a row wait for a load that stands at `begin` or below?"""
        for (source, end), bits in self.bits.items():
            if end != target or self.units[source].kind != UnitKind.READ:
                continue
            for bit in bits:
                signals, waiting = self._rows(bit, waits)
                place = bisect_left(waiting, waits)
                made = place - self.channels[bit].initial
                if (waits in waiting[place : place + 1] and 0 <= made < len(signals)
                        and signals[made] >= begin):
                    return True
        return False

    def used(self, source: int, row: int, group: Group) -> bool:
        """Does an engine wait for a load with some of its rows in a group?"""
        for (start, target), bits in self.bits.items():
            if start != source or self.units[target].kind != UnitKind.COMPUTE:
                continue
            for bit in bits:
                signals, waiting = self._rows(bit, row)
                place = bisect_left(signals, row)
                taken = place + self.channels[bit].initial
                if (row in signals[place : place + 1] and taken < len(waiting)
                        and waiting[taken] <= group.get(target, (0, -1))[1]):
                    return True
        return False

    def _tied(self, bit: int, row: int, waits: int) -> bool:
        """Is the token that `waits` takes that of `row`, or a later one?"""
        signals, waiting = self._rows(bit, row)
        made, taken = bisect_left(signals, row), bisect_left(waiting, waits)
        return (made < len(signals) and signals[made] == row and taken < len(waiting)
                and waiting[taken] == waits and taken - self.channels[bit].initial >= made)

    def _takes(self, bit: int, row: int, waits: int) -> bool:
        """Would the channel hand a new token of `row` to `waits`, and all others as before? So it
        does where as many tokens were made before the one as were taken before the other."""
        mask = 1 << bit
        if (int(self.operations[row, Column.SIGNAL]) & mask
                or int(self.operations[waits, Column.WAIT]) & mask):
            return False
        signals, waiting = self._rows(bit, row)
        return (bisect_left(signals, row) + self.channels[bit].initial
                == bisect_left(waiting, waits))

    def _rows(self, bit: int, row: int) -> tuple[list[int], list[int]]:
        """Rows of the segment of a row that signal on a channel, and that wait on it."""
        part = bisect_right(self.starts, row) - 1
        if (bit, part) not in self.known:
            first, last = self.starts[part], self.ends[part]
            self.known[bit, part] = tuple(
                (first + np.flatnonzero(self.operations[first:last, column] >> bit & 1)).tolist()
                for column in (Column.SIGNAL, Column.WAIT))  # type: ignore[assignment]
        return self.known[bit, part]


def ends(unit: np.ndarray, begin: int, end: int) -> dict[int, tuple[int, int]]:
    """First and last row of every unit in some rows."""
    found: dict[int, tuple[int, int]] = {}
    for row in range(begin, end):
        number = int(unit[row])
        found[number] = found.get(number, (row, row))[0], row
    return found

"""Which ports and limits are one and the same to every program on the `ddr3` memory, and which
programs to every memory.

It simulates nothing. What the executors ask of a port is in UNIT records (`fast.unit_table`); two
sets of them that differ in the numbers of ports and of the controller's ports alone, but not in
who shares one, give equal times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from arch_models.memory import Memory
from cosim.executors.fast import unit_table
from cosim.memory.controller import timing
from cosim.program.table import Column, Program, Unit, UnitKind

#: Of a record: numbers, of which only who shares one counts; and what the flat memory alone asks.
_NUMBERS = ("channel", "controller")
_UNASKED = ("port", "accept", "lead", "trail", "alone", *_NUMBERS)


def alike(units: Sequence[Unit], memory: Memory) -> Hashable:
    """Equal for units and memories with which every program takes equal time, row by row.

    A port holds at most `accept` bursts of a direction. If its masters may have no more in flight
    together, it never refuses one, however many it could hold. Who shares one of the controller's
    ports to read does not count where that moves a burst in less than the DRAM takes for it.
    """
    free = _never_full(memory)
    table = unit_table(units, memory)[0]
    flight: dict[int, int] = {}
    for settings in table:
        channel = int(settings["channel"])
        flight[channel] = flight.get(channel, 0) + int(settings["outstanding"])
    firsts: dict[Hashable, int] = {}
    found = []
    for index, settings in enumerate(table):
        moves = settings["kind"] != UnitKind.COMPUTE
        write = settings["kind"] == UnitKind.WRITE
        shared = tuple(
            firsts.setdefault((name, write, int(settings[name])), index)
            if moves and (write or name == "channel" or not free) else 0 for name in _NUMBERS)
        found.append((
            *(int(settings[name]) for name in table.dtype.names or () if name not in _UNASKED),
            int(settings["lead"]) if write else 0,
            min(int(settings["accept"]), flight[int(settings["channel"])]) if moves else 0,
            *shared))
    return memory.ddr, memory.background, tuple(found)


def program_alike(program: Program) -> str:
    """Equal for programs that take equal cycles on equal ports with equal limits.

    They may differ in names, layers, opcodes, and units and channels without operations.
    """
    rows = program.operations.copy()
    rows[:, [Column.KIND, Column.LAYER, Column.MACS, Column.FLAGS]] = 0
    units, rows[:, Column.UNIT] = np.unique(rows[:, Column.UNIT], return_inverse=True)
    used = int(np.bitwise_or.reduce(rows[:, [Column.WAIT, Column.SIGNAL]], axis=None))
    channels = [number for number in range(len(program.channels)) if used >> number & 1]
    for column in (Column.WAIT, Column.SIGNAL):
        masks = program.operations[:, column]
        rows[:, column] = sum((masks >> number & 1) << place
                              for place, number in enumerate(channels))
    known = (program.segments, [program.channels[number].initial for number in channels],
             [replace(program.units[number], name="", port=0, outstanding=1) for number in units])
    return hashlib.blake2b(repr(known).encode() + rows.tobytes(), digest_size=16).hexdigest()


def _never_full(memory: Memory) -> bool:
    """Are data that were read always through the controller's port before the next are there?

    Bursts are read one after another, each so many DRAM bursts of `t_ccd` clocks, which its bytes
    at most fill; rounded up to a word and a clock, they must pass in as many.
    """
    if memory.ddr is None:
        return False
    t = timing(memory.ddr)[0]
    word, most = int(t.atom) // 8, int(t.t_ccd) * int(t.word_per)
    return int(t.atom) % 8 == 0 and word * int(t.word) <= most

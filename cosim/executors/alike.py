"""Which ports and limits are one and the same to every program on the `ddr3` memory.

It simulates nothing. What the executors ask of a port is in UNIT records (`fast.unit_table`); two
sets of them that differ in the numbers of ports and of the controller's ports alone, but not in
who shares one, give equal times.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from arch_models.memory import Memory
from cosim.executors.fast import unit_table
from cosim.memory.controller import timing
from cosim.program.table import Unit, UnitKind

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

"""Are the entries of a group norm those of the reference where no shift hides the last bit?

The unit alone, one group of one channel an operation, with slopes and sums of either sign that
leave a remainder: tiles of random data drop those bits.
"""

from __future__ import annotations

import random

import numpy as np
from amaranth.sim import Simulator

from cosim.program.table import NORM_CONSTANTS
from hw.rtl.engines.norm_entries import Given, NormEntries
from workloads import arithmetic

#: Count, sum, squares, epsilon, scale, offset.
Row = tuple[int, int, int, int, int, int]


def rows() -> list[Row]:
    draw = random.Random(9)
    found: list[Row] = []
    # Small slopes and offsets: nothing is dropped, so the last bit of both quotients is an entry's.
    for _ in range(8):
        for sign in (1, -1):
            count = draw.choice((3, 7, 100, 4095))
            total = draw.randrange(-100 * count, 100 * count)
            squares = total * total // count + draw.randrange(1, 500 * count)
            found.append((count, total, squares, draw.randrange(1 << 12),
                          sign * draw.randrange(1, 1 << 9), draw.randrange(-(1 << 9), 1 << 9)))
    # Equal values: the least spread, and the steepest slope.
    found += [(1, 5 * sign, 25, 0, sign << 20, 0) for sign in (1, -1)]
    # Offsets that reach the 32 bits of an entry, and go beyond.
    found += [(7, 90, 2000, 3, 60, sign * size) for sign in (1, -1)
              for size in ((1 << 19) - 9, (1 << 19) + 5, 1 << 20, 1 << 24)]
    # A spread of exactly 0, 1 and 2.
    found += [(1, 3, 9, extra, -77, 5) for extra in (0, 1, 2)]
    return found


def entries(given: list[Row]) -> list[list[int]]:
    """(multiplier, offset, shift) that the unit makes of each row."""
    unit, found = NormEntries(), []

    async def bench(context):
        for count, total, squares, epsilon, scale, offset in given:
            values = Given(1, 1, count, NORM_CONSTANTS, 0, 0, 0)
            for signal, value in zip(unit.given, values, strict=True):
                context.set(signal, value)
            context.set(unit.total, total)
            context.set(unit.squares, squares)
            memory = {0: epsilon, 1: 0, NORM_CONSTANTS: (scale & 0xFFFFFFFF) | (
                offset & 0xFFFFFFFF) << 32}
            await context.tick()
            context.set(unit.begins, 1)
            address = 0
            for _ in range(400):
                context.set(unit.parameter_data, memory.get(address, 0))
                address = context.get(unit.parameter_address)
                if context.get(unit.entry_valid):
                    word = context.get(unit.entry)
                    break
                await context.tick()
                context.set(unit.begins, 0)
            else:
                raise AssertionError("no entry came")
            found.append([_signed(word, 16), _signed(word >> 16, 32), word >> 48 & 63])
            for _ in range(20):  # until it is idle
                await context.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def test_entries_are_the_references_to_the_last_bit():
    given = rows()
    want = [[int(part[0]) for part in arithmetic.group_norm_entries(
        row[:3], np.array([row[4]]), np.array([row[5]]), row[3])] for row in given]
    assert {shift for _, _, shift in want} >= {24}  # nothing dropped
    assert entries(given) == want

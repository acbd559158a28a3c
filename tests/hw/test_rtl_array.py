"""Does the array sum products exactly, packed or not, when operands lag as it says?"""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator

from hw.rtl.engines.array import array_cycles, lag, trip_sums, weight_cycles

TM, TRIPS = 4, 40


@pytest.mark.parametrize("tn", [8, 16, 24])
@pytest.mark.parametrize("packed", [False, True])
def test_sums_over_input_channels_are_exact(tn, packed):
    """Extreme bytes included: products of -128 and -128 in every lane of a cascade."""
    draw = random.Random(tn)
    edges = (-128, -128, 127, -1, 0)

    def operand(trip: int) -> int:
        return -128 if trip == 3 else draw.choice((*edges, draw.randint(-128, 127)))

    pixels = [[operand(trip) for _ in range(tn)] for trip in range(TRIPS)]
    weights = [[[operand(trip) for _ in range(TM)] for _ in range(tn)] for trip in range(TRIPS)]
    m, word = Module(), Signal(8 * TM * tn)
    column = [Signal(signed(8), name=f"pixel_{n}") for n in range(tn)]
    (sums,) = trip_sums(m, word, [column], TM, packed)
    outputs = [Signal(signed(32), name=f"sum_{channel}") for channel in range(TM)]
    m.d.comb += [output.eq(value + bit) for output, (value, bit)
                 in zip(outputs, sums, strict=True)]
    before, found = 1, []  # cycles in which weights may come before their pixels

    async def bench(context):
        for cycle in range(TRIPS + before + array_cycles(tn)):
            for n, signal in enumerate(column):
                if 0 <= cycle - before < TRIPS:
                    context.set(signal, pixels[cycle - before][n])
            value = 0
            for n in range(tn):
                trip = cycle - before - weight_cycles(tn, packed) - lag(n, packed)
                for channel in range(TM if 0 <= trip < TRIPS else 0):
                    flips = 0x80 if packed and channel % 2 == 0 else 0
                    byte = weights[trip][n][channel] & 0xFF ^ flips
                    value |= byte << 8 * (n * TM + channel)
            context.set(word, value)
            if cycle >= before + array_cycles(tn):
                found.append([context.get(output) for output in outputs])
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [[sum(weights[trip][n][channel] * pixels[trip][n] for n in range(tn))
                      for channel in range(TM)] for trip in range(TRIPS)]

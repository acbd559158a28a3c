"""Do the small parts that engines share compute what they say, in the cycles they say?"""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.rtl.pipeline import divide, loop_nest


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 6, 7, 8, 9, 24])
def test_division_by_a_constant(divisor):
    m, value = Module(), Signal(12)
    quotient, rest = Signal(12), Signal(12)
    found = divide(m, value, divisor)
    m.d.comb += [quotient.eq(found[0]), rest.eq(found[1])]
    seen = []

    async def bench(context):
        for number in (*range(200), 4094, 4095):
            context.set(value, number)
            seen.append((number, context.get(quotient), context.get(rest)))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [(number, *divmod(number, divisor)) for number, _, _ in seen]


@pytest.mark.parametrize(("limits", "least"), [((3, 2, 2), 1), ((3, 2, 2), 7), ((2, 1, 1), 5)])
def test_a_paced_loop_takes_the_longer_of_its_trips_and_its_pace(limits, least):
    m, start = Module(), Signal()
    trip, _, ends = loop_nest(m, start, list(limits), pace=(1, least))
    step, done = Signal(), Signal()
    m.d.comb += [step.eq(trip), done.eq(ends[0])]
    cycles = limits[0] * max(limits[1] * limits[2], least)
    trips, dones = [], []

    async def bench(context):
        context.set(start, 1)
        await context.tick()
        context.set(start, 0)
        for cycle in range(cycles + 5):
            trips.append(context.get(step))
            if context.get(done):
                dones.append(cycle)
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert sum(trips) == limits[0] * limits[1] * limits[2]
    assert dones == [cycles - 1]

"""Do the small parts that engines share compute what they say, in the cycles they say?"""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Module, Signal, Value, signed
from amaranth.sim import Simulator

from hw.rtl.pipeline import (
    PACED_FILL,
    PLUS,
    PRODUCT,
    ROUND,
    WIDE_PRODUCT,
    dot,
    paced_nest,
    product,
    round_shift,
    slow_divide,
    wide_product,
)
from workloads import arithmetic


@pytest.mark.parametrize("divisor", [1, 2, 3, 5, 7, 8, 24])
def test_division_by_a_constant_takes_a_bit_a_cycle(divisor):
    m, start, value = Module(), Signal(), Signal(12)
    found = slow_divide(m, start, value, divisor)
    seen = []

    async def bench(context):
        for number in (*range(0, 100, 7), 2047, 4094, 4095):
            context.set(value, number)
            context.set(start, 1)
            await context.tick()
            context.set(start, 0)
            for _ in range(len(value)):
                await context.tick()
            seen.append((number, context.get(found)))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [(number, number // divisor) for number, _ in seen]


@pytest.mark.parametrize(("limits", "steps", "least"), [
    ((3, 2, 2), (1, 1, 1), 1), ((3, 2, 2), (1, 1, 1), 7), ((2, 1, 1), (1, 1, 1), 5),
    ((3, 1, 2), (1, 1, 1), 2), ((1, 1, 1), (1, 1, 1), 3), ((2, 1, 1), (1, 1, 1), 3),
    ((7, 5, 1), (3, 2, 1), 1), ((6, 1, 4), (3, 1, 2), 2)])
def test_a_paced_loop_takes_the_longer_of_its_trips_and_its_pace(limits, steps, least):
    """Again and again, so that nothing is left of the time before."""
    m, start = Module(), Signal()
    bounds = [Signal(4, init=limit) for limit in limits]
    trip, counters, _, finished = paced_nest(m, start, bounds, steps, (1, least))
    step, done = Signal(), Signal()
    m.d.comb += [step.eq(trip), done.eq(finished)]
    rounds = []

    async def bench(context):
        for given in (limits, (1, 1, 1), limits):
            for bound, limit in zip(bounds, given, strict=True):
                context.set(bound, limit)
            await context.tick()
            context.set(start, 1)
            await context.tick()
            context.set(start, 0)
            ranges = [range(0, limit, stride) for limit, stride in zip(given, steps, strict=True)]
            passes = len(ranges[0]) * max(len(ranges[1]) * len(ranges[2]), least)
            trips, dones = [], []
            for cycle in range(1, passes + 5):
                if context.get(step):
                    trips.append(tuple(context.get(counter) for counter in counters))
                if context.get(done):
                    dones.append(cycle)
                await context.tick()
            rounds.append((ranges, passes, trips, dones))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for ranges, passes, trips, dones in rounds:
        assert trips == [(one, two, three) for one in ranges[0] for two in ranges[1]
                         for three in ranges[2]]
        assert dones == [PACED_FILL + passes - 1]


def streamed(m: Module, inputs: list[Signal], output: Value, rows: list[tuple[int, ...]],
             later: int) -> list[int]:
    """Outputs `later` cycles after each row of inputs, one row a cycle."""
    found = []

    async def bench(context):
        for cycle in range(len(rows) + later):
            if cycle < len(rows):
                for signal, value in zip(inputs, rows[cycle], strict=True):
                    context.set(signal, value)
            if cycle >= later:
                found.append(context.get(output))
            await context.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize(("width", "bits", "greatest"), [(48, 8, 47), (25, 8, 40), (33, 16, 15)])
def test_rounding_in_stages_is_the_rounding_of_the_reference(width, bits, greatest):
    draw, rows = random.Random(width), []
    for _ in range(1500):
        shift = draw.randrange(greatest + 1)
        near = draw.randrange(-3 << bits, 3 << bits) << shift >> draw.randrange(1, 4)
        value = near + draw.choice((0, 0, 1, -1, draw.randrange(1 << shift)))
        reach = (1 << (width - 1)) - 1
        rows.append((max(-reach - 1, min(reach, value)), shift, draw.randrange(2)))
    rows += [(value, shift, 0) for value in (-1 << (width - 1), (1 << (width - 1)) - 1)
             for shift in range(greatest + 1)]
    m, value, shift, positive = Module(), Signal(signed(width)), Signal(6), Signal()
    found = round_shift(m, value, shift, bits, positive)
    want = []
    for number, places, clips in rows:
        rounded = (number >> places) + (
            places > 0 and (number & ((1 << places) - 1)) + ((number >> places) & 1)
            > 1 << (places - 1))
        least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        want.append(max(0 if clips else least, min(most, rounded)))
        if bits == 8 and abs(number) < 1 << 40:
            assert rounded == int(arithmetic.round_shift(number, places))
    assert streamed(m, [value, shift, positive], found, rows, ROUND) == want


def test_products_sums_and_wide_products():
    draw = random.Random(1)
    edges = {8: (-128, 127), 16: (-32768, 32767), 32: (-1 << 31, (1 << 31) - 1)}

    def number(width: int) -> int:
        return draw.choice((*edges[width], draw.randint(*edges[width])))

    m = Module()
    one, other, plus = Signal(signed(16)), Signal(signed(8)), Signal(signed(32))
    rows = [(number(16), number(8), number(32)) for _ in range(200)]
    later = product(m, one, other, plus)
    found = streamed(m, [one, other, plus], later, rows, PRODUCT)
    for index in range(len(rows) - PLUS):
        assert found[index] == rows[index][0] * rows[index][1] + rows[index + PLUS][2]

    m, wide, narrow = Module(), Signal(signed(32)), Signal(signed(16))
    rows = [(number(32), number(16)) for _ in range(200)]
    found = streamed(m, [wide, narrow], wide_product(m, wide, narrow), rows, WIDE_PRODUCT)
    assert found == [left * right for left, right in rows]


def test_a_cascade_sums_operands_that_come_one_after_the_other():
    draw, count = random.Random(2), 6
    m = Module()
    lefts = [Signal(signed(8), name=f"left_{index}") for index in range(count)]
    rights = [Signal(signed(8), name=f"right_{index}") for index in range(count)]
    rows = [tuple(draw.choice((-128, 127, draw.randint(-128, 127))) for _ in range(2 * count))
            for _ in range(100)]
    found = streamed(m, [*lefts, *rights], dot(m, lefts, rights), rows, PRODUCT + count - 1)
    for index in range(len(rows) - count):
        assert found[index] == sum(rows[index + lane][lane] * rows[index + lane][count + lane]
                                   for lane in range(count))

"""The softmax engine: three passes over the channels of a position.

The maximum takes eight channels a cycle, the sum and the results four. It normalizes over
channels only; the arithmetic is that of `workloads.arithmetic.softmax`.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Elaboratable, Module, Mux, Signal, Value, signed

from arch_models.resources import SOFTMAX_LANES as LANES
from cosim.program.table import Opcode
from hw.rtl.engines.elementwise import fields_of
from hw.rtl.engines.stream import BEAT_CYCLES, FILL, StreamPorts
from hw.rtl.pipeline import (
    ROUND,
    WIDE_PRODUCT,
    choose,
    delay,
    late,
    loop_nest,
    register,
    round_shift,
    wide_product,
)

BEAT = 8  # channels
RECIPROCAL_BITS = 40
#: The greatest exponential is 2 ** 15 and one of the terms, so 2 ** 40 // sum is at most 2 ** 25.
LEAST_SUM_BITS = 15
QUOTIENT_BITS = RECIPROCAL_BITS - LEAST_SUM_BITS + 1
#: Cycles before the loops: planes, the second pass's end, the third's begin, the whole.
_LIMITS = 4
SOFTMAX_FILL = FILL + _LIMITS
# Cycles from a step to these: its pass and place, its beat, the maximum after it, the
# exponentials that know it, the sum, results.
_PLACE = 3
_BEAT = _PLACE + BEAT_CYCLES
_MAXIMUM = _BEAT + 5
_EXPONENTIAL = _MAXIMUM + 4
_SUM = _EXPONENTIAL + 4
_RESULT = _EXPONENTIAL + WIDE_PRODUCT + ROUND
SOFTMAX_DRAIN = _RESULT + 1
#: Steps between the second and the third pass: the sum settles, one quotient bit a cycle, and the
#: first product meets the quotient.
DIVISION_STEPS = _SUM - _EXPONENTIAL + QUOTIENT_BITS


class SoftmaxEngine(StreamPorts, Elaboratable):
    """Cycles: SOFTMAX_FILL + positions * (DIVISION_STEPS + 5 * planes) + SOFTMAX_DRAIN."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of((Opcode.SOFTMAX,)), in_lanes, out_lanes, waits,
                             signals, address_bits)
        self.table_addresses = [Signal(address_bits, name=f"table_address_{lane}")
                                for lane in range(LANES)]
        self.table_data = [Signal(64, name=f"table_data_{lane}") for lane in range(LANES)]

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.SOFTMAX, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loop over positions and steps, the passes and the divider."""
        m = Module()
        m.submodules.shell = shell = self.shell
        self._channels = channels = self._head("channels")
        planes = register(m, ((channels + BEAT - 1) >> 3)[:16])
        final = register(m, planes - 1)  # steps of the ends of the first two passes
        summed = register(m, (planes + (planes << 1))[:16])
        third = register(m, (summed + DIVISION_STEPS)[:16])
        positions = self._head("positions", 16)
        trip, (position, step), ends = loop_nest(
            m, delay(m, shell.begins, _LIMITS - 1),
            [positions, register(m, (third + (planes << 1))[:16])])
        runs, opens, adds, last = (register(m, found) for found in (
            trip, step < planes, step < summed, step >= third))
        first, second, last = runs & opens, runs & ~opens & adds, runs & last
        # `place`: planes in the first pass, halves of planes in the others.
        begin = register(m, Mux(first, 0, Mux(last, third, planes)))
        first, second, last = (delay(m, found, _PLACE - 1) for found in (first, second, last))
        place = register(m, (late(m, step, 2) - begin)[:16])
        passed = late(m, register(m, step == final) | register(m, step == register(m, summed - 1)),
                      _PLACE - 1)
        plane, half = Mux(first, place, place >> 1)[:16], place[0] & ~first
        ended = first | ((second | last) & half)
        again = passed | delay(m, ends[1], _PLACE)
        where = late(m, position, _PLACE)
        beat = self.fetch(m, self.walk(m, ended, self._head("in_base"), positions, self.in_lanes,
                                       again), where)
        maximum = self._maximum(m, beat, first, plane)
        exponentials = self._exponentials(m, beat, maximum, half)
        theres = self._theres(m, place, LANES, _EXPONENTIAL - _PLACE)
        total = self._total(m, exponentials, theres, second, late(m, place == 0, _SUM - 1 - _PLACE))
        reciprocal = self._divide(
            m, delay(m, second & passed, _SUM - _PLACE), total)

        results = []
        shift = (RECIPROCAL_BITS - self._head("fraction_bits"))[:6]
        for one, there in zip(exponentials, theres, strict=True):
            rounded = round_shift(m, wide_product(m, Cat(reciprocal, 0).as_signed(), one), shift)
            results.append(Mux(late(m, there, _RESULT - _EXPONENTIAL), rounded, 0))
        lanes = [Signal(8, name=f"probability_{index}", reset_less=True) for index in range(BEAT)]
        for index, lane in enumerate(lanes):
            with m.If(delay(m, last & (half == index // LANES), _RESULT - _PLACE)):
                m.d.sync += lane.eq(results[index % LANES])
        out = self.walk(m, last & half, self._head("out_base"), positions, self.out_lanes, again)
        self.store(m, last & half, out, where, list(lanes), SOFTMAX_DRAIN - _PLACE)
        m.d.comb += shell.done.eq(delay(m, ends[0], SOFTMAX_DRAIN))
        return m

    def _theres(self, m: Module, place: Value, lanes: int, cycles: int) -> list[Value]:
        """Which of `lanes` channels at a place there are, that many cycles after it."""
        bits = lanes.bit_length() - 1
        last = register(m, self._channels - 1)
        whole = delay(m, place < last[bits:], 1)
        ends = delay(m, place == last[bits:], 1)
        return [late(m, whole | (ends & register(m, lane <= last[:bits])), cycles - 1)
                for lane in range(lanes)]

    def _maximum(self, m: Module, beat: list[Value], first: Value, plane: Value) -> Signal:
        """The greatest channel, right _MAXIMUM cycles after the last step of the first pass."""
        theres = self._theres(m, register(m, plane), BEAT, _BEAT - _PLACE - 1)
        found: list[Value] = [register(m, Mux(there, value, -128).as_signed())
                              for there, value in zip(theres, beat, strict=True)]
        while len(found) > 1:
            found = [register(m, Mux(one > other, one, other).as_signed())
                     for one, other in zip(found[::2], found[1::2], strict=True)]
        (greatest,), maximum = found, Signal(signed(8), reset_less=True)
        behind = _MAXIMUM - 1 - _PLACE
        opens = late(m, delay(m, plane == 0, 1), behind - 1)
        m.d.sync += maximum.eq(choose(delay(m, first, behind) & (opens | (greatest > maximum)),
                                      greatest, maximum))
        return maximum

    def _exponentials(self, m: Module, beat: list[Value], maximum: Signal, half: Value
                      ) -> list[Value]:
        """Four table entries, _EXPONENTIAL cycles after the step that reads their beat."""
        now = late(m, half, _BEAT - _PLACE)
        found: list[Value] = []
        for lane in range(LANES):
            value = late(m, Mux(now, beat[LANES + lane], beat[lane]).as_signed(), _MAXIMUM - _BEAT)
            difference = register(m, (maximum - value)[:8])
            m.d.sync += self.table_addresses[lane].eq(self._head("table_base") + difference[2:])
            words = Array(self.table_data[lane].word_select(index, 16) for index in range(4))
            found.append(register(m, words[late(m, difference[:2], 2)]))
        return found

    def _total(self, m: Module, exponentials: list[Value], theres: list[Value], second: Value,
               opens: Value) -> Signal:
        """The sum of a position's exponentials, right _SUM cycles after its last step."""
        terms = [register(m, Mux(there, one, 0))
                 for one, there in zip(exponentials, theres, strict=True)]
        halves = [register(m, one + other) for one, other in
                  zip(terms[::2], terms[1::2], strict=True)]
        part, total = register(m, halves[0] + halves[1]), Signal(32, reset_less=True)
        with m.If(delay(m, second, _SUM - 1 - _PLACE)):
            m.d.sync += total.eq(Mux(opens, 0, total) + part)
        return total

    def _divide(self, m: Module, start: Value, divisor: Signal) -> Signal:
        """2 ** 40 // divisor, one bit a cycle; right QUOTIENT_BITS + 1 cycles after `start`.

        The bits above QUOTIENT_BITS are zero, so it begins with their rest.
        """
        quotient, rest, left = Signal(QUOTIENT_BITS), Signal(33), Signal(6)
        less = Signal(signed(35))
        m.d.comb += less.eq((rest << 1) - divisor)
        fits = ~less[-1]
        with m.If(start):
            m.d.sync += [left.eq(QUOTIENT_BITS), quotient.eq(0),
                         rest.eq(1 << (RECIPROCAL_BITS - QUOTIENT_BITS))]
        with m.Elif(left != 0):
            m.d.sync += [rest.eq(Mux(fits, less[:33], rest << 1)), left.eq(left - 1),
                         quotient.eq((quotient << 1) | fits)]
        return quotient

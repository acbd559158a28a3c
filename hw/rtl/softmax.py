"""The softmax engine: three passes over the channels of a position.

The maximum takes eight channels a cycle, the sum and the results four. It normalizes over
channels only; the arithmetic is that of `workloads.arithmetic.softmax`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, signed

from arch_models.resources import SOFTMAX_LANES as LANES
from cosim.program.table import Opcode
from hw.rtl.elementwise import fields_of
from hw.rtl.pipeline import delay, loop_nest, register, rounding, saturate, tree
from hw.rtl.stream import StreamPorts

BEAT = 8  # channels
SOFTMAX_DRAIN = 6
RECIPROCAL_BITS = 40
#: The greatest exponential is 2 ** 15 and one of the terms, so 2 ** 40 // sum is at most 2 ** 25.
LEAST_SUM_BITS = 15
QUOTIENT_BITS = RECIPROCAL_BITS - LEAST_SUM_BITS + 1
#: Steps between the second and the third pass: the sum settles, one quotient bit a cycle, and the
#: first product meets the quotient three cycles after its step.
DIVISION_STEPS = QUOTIENT_BITS + 2


class SoftmaxEngine(StreamPorts, Elaboratable):
    """Cycles: 1 + positions * (28 + 5 * planes) + 6."""

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
        channels = self._head("channels")
        planes = ((channels + BEAT - 1) >> 3)[:16]
        summed = (planes + (planes << 1))[:16]
        third = (summed + DIVISION_STEPS)[:16]
        positions = self._head("positions", 16)
        _, (position, step), ends = loop_nest(
            m, shell.start, [positions, (third + (planes << 1))[:16]])
        first, last = step < planes, step >= third
        second = ~first & (step < summed)
        place = Signal(16)  # planes in the first pass, halves of planes in the others
        m.d.comb += place.eq(step - Mux(first, 0, Mux(last, third, planes)))
        plane, half = Mux(first, place, place >> 1)[:16], place[0]
        beat = self.read(m, plane, positions, position, self._head("in_base"))

        maximum = self._maximum(m, beat, first, plane, channels)
        exponentials = self._exponentials(m, beat, maximum, half)
        theres = [delay(m, (plane << 3) + Mux(half, LANES, 0) + lane < channels, 3)
                  for lane in range(LANES)]
        part = register(m, tree([Mux(there, one, 0)
                                 for one, there in zip(exponentials, theres, strict=True)]))
        total, opens = Signal(32), delay(m, place == 0, 4)
        with m.If(delay(m, second, 4)):
            m.d.sync += total.eq(Mux(opens, 0, total) + part)
        # The sum is there five cycles after the last step that adds to it.
        reciprocal = self._divide(m, delay(m, second & (step == summed - 1), 5), total)

        results = []
        shift = (RECIPROCAL_BITS - self._head("fraction_bits"))[:6]
        for one, there in zip(exponentials, theres, strict=True):
            product = register(m, one * reciprocal)
            rounded = register(m, rounding(product.as_signed(), shift))
            results.append(Mux(delay(m, there, 2), saturate(rounded >> shift), 0))
        lanes = [Signal(8, name=f"probability_{index}") for index in range(BEAT)]
        for index, lane in enumerate(lanes):
            with m.If(delay(m, last & (half == index // LANES), 5)):
                m.d.sync += lane.eq(results[index % LANES])
        self.write(m, last & half, plane, positions, position, self._head("out_base"), lanes,
                   SOFTMAX_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], SOFTMAX_DRAIN))
        return m

    def _maximum(self, m: Module, beat: list[Value], first: Value, plane: Value,
                 channels: Value) -> Signal:
        """The greatest channel, right three cycles after the last step of the first pass."""
        least = Value.cast(-128)
        found = [Mux(delay(m, (plane << 3) + lane < channels, 1), value, least).as_signed()
                 for lane, value in enumerate(beat)]
        while len(found) > 1:
            found = [Mux(one > other, one, other).as_signed()
                     for one, other in zip(found[::2], found[1::2], strict=True)]
        greatest = register(m, found[0])
        maximum = Signal(signed(8))
        with m.If(delay(m, first, 2)
                  & (delay(m, plane == 0, 2) | (greatest > maximum))):
            m.d.sync += maximum.eq(greatest)
        return maximum

    def _exponentials(self, m: Module, beat: list[Value], maximum: Signal, half: Value
                      ) -> list[Value]:
        """Four table entries, three cycles after the step that reads their beat."""
        now = delay(m, half, 1)
        found = []
        for lane in range(LANES):
            value = register(m, Mux(now, beat[LANES + lane], beat[lane]).as_signed())
            difference = (maximum - value)[:8]
            m.d.comb += self.table_addresses[lane].eq(self._head("table_base") + difference[2:])
            found.append(self.table_data[lane].word_select(delay(m, difference[:2], 1), 16))
        return found

    def _divide(self, m: Module, start: Value, divisor: Signal) -> Signal:
        """2 ** 40 // divisor, one bit a cycle; right QUOTIENT_BITS + 1 cycles after `start`.

        The bits above QUOTIENT_BITS are zero, so it begins with their rest.
        """
        quotient, rest, left = Signal(QUOTIENT_BITS), Signal(33), Signal(6)
        shifted = Signal(33)
        m.d.comb += shifted.eq(rest << 1)
        fits = shifted >= divisor
        with m.If(start):
            m.d.sync += [left.eq(QUOTIENT_BITS), quotient.eq(0),
                         rest.eq(1 << (RECIPROCAL_BITS - QUOTIENT_BITS))]
        with m.Elif(left != 0):
            m.d.sync += [rest.eq(Mux(fits, shifted - divisor, shifted)), left.eq(left - 1),
                         quotient.eq((quotient << 1) | fits)]
        return quotient

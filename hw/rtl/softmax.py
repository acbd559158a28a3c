"""The softmax engine: three passes over the channels of a position, one channel a cycle.

It normalizes over channels only; the arithmetic is that of `workloads.arithmetic.softmax`.
"""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program import Opcode
from hw.rtl.elementwise import fields_of
from hw.rtl.pipeline import delay, loop_nest, register, rounding, saturate
from hw.rtl.stream import StreamPorts

SOFTMAX_DRAIN = 5
RECIPROCAL_BITS = 40
QUOTIENT_BITS = RECIPROCAL_BITS + 1
#: Steps between the second and the third pass: the sum settles, one quotient bit a cycle.
DIVISION_STEPS = QUOTIENT_BITS + 1


class SoftmaxEngine(StreamPorts, Elaboratable):
    """Cycles: 1 + positions * (42 + 3 * channels) + 5."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of((Opcode.SOFTMAX,)), in_lanes, out_lanes, waits,
                             signals, address_bits)
        self.table_address = Signal(address_bits)
        self.table_data = Signal(64)

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.SOFTMAX, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loop over positions and steps, the passes and the divider."""
        m = Module()
        m.submodules.shell = shell = self.shell
        channels = self._head("channels")
        twice = (channels << 1)[:16]
        third = (twice + DIVISION_STEPS)[:16]
        positions = self._head("positions", 16)
        _, (position, step), ends = loop_nest(
            m, shell.start, [positions, (third + channels)[:16]])
        first, last = step < channels, step >= third
        second = ~first & (step < twice)
        channel = Signal(16)
        m.d.comb += channel.eq(step - Mux(first, 0, Mux(last, third, channels)))
        beat = self.read(m, channel >> 3, positions, position, self._head("in_base"))
        value = Array(beat)[delay(m, channel[:3], 1)].as_signed()
        maximum = Signal(signed(8))
        opens = delay(m, first & (channel == 0), 1)
        with m.If(opens | (delay(m, first, 1) & (value > maximum))):
            m.d.sync += maximum.eq(value)
        difference = (maximum - value)[:8]
        m.d.comb += self.table_address.eq(self._head("table_base") + difference[2:])
        exponential = self.table_data.word_select(delay(m, difference[:2], 1), 16)
        total = Signal(32)
        opens_sum = delay(m, channel == 0, 2)
        with m.If(delay(m, second, 2)):
            m.d.sync += total.eq(Mux(opens_sum, 0, total) + exponential)
        reciprocal = self._divide(m, step == twice + 2, total)
        product = register(m, exponential * reciprocal)
        shift = (RECIPROCAL_BITS - self._head("fraction_bits"))[:6]
        rounded = register(m, rounding(product.as_signed(), shift))
        self._gather(m, saturate(rounded >> shift), channel, last, position, positions)
        m.d.comb += shell.done.eq(delay(m, ends[0], SOFTMAX_DRAIN))
        return m

    def _divide(self, m: Module, start: Value, divisor: Signal) -> Signal:
        """2 ** 40 // divisor, one bit a cycle; right QUOTIENT_BITS + 1 cycles after `start`."""
        quotient, rest, left = Signal(QUOTIENT_BITS), Signal(33), Signal(6)
        shifted = Signal(33)
        # Only the first bit of the dividend 2 ** 40 is one.
        m.d.comb += shifted.eq((rest << 1) | (left == QUOTIENT_BITS))
        fits = shifted >= divisor
        with m.If(start):
            m.d.sync += [left.eq(QUOTIENT_BITS), rest.eq(0), quotient.eq(0)]
        with m.Elif(left != 0):
            m.d.sync += [rest.eq(Mux(fits, shifted - divisor, shifted)), left.eq(left - 1),
                         quotient.eq((quotient << 1) | fits)]
        return quotient

    def _gather(self, m: Module, value: Value, channel: Signal, last: Value, position: Signal,
                positions: Value) -> None:
        """Collect eight channels; padded ones are zero."""
        lanes = [Signal(8, name=f"probability_{index}") for index in range(8)]
        lane, now = delay(m, channel[:3], 4), delay(m, last, 4)
        for index, one in enumerate(lanes):
            with m.If(now & (lane == index)):
                m.d.sync += one.eq(value)
            with m.Elif(now & (lane == 0)):
                m.d.sync += one.eq(0)
        complete = last & ((channel[:3] == 7) | (channel == self._head("channels") - 1))
        self.write(m, complete, channel >> 3, positions, position, self._head("out_base"),
                   lanes, SOFTMAX_DRAIN)

"""What the engines that read single beats share: ports, output places, and the end.

It computes nothing; `elementwise`, `spatial` and `softmax` do.
"""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Module, Signal, Value

from hw.interface.descriptors import Field
from hw.rtl.pipeline import LOOP_FILL, delay, divide, signed_bytes
from hw.rtl.shell import Shell

FILL = LOOP_FILL
BEAT_BITS = 64


class StreamPorts:
    """A shell, a read port on INPUT, a write port on OUTPUT; data come one cycle after addresses.

    `in_lanes`, `out_lanes`: beats in a word.
    """

    def __init__(self, fields: Iterable[Field], in_lanes: int, out_lanes: int, waits: int,
                 signals: int, address_bits: int = 16) -> None:
        self.shell = Shell(fields, waits, signals)
        self.in_lanes, self.out_lanes = in_lanes, out_lanes
        self.in_address = Signal(address_bits)
        self.in_data = Signal(BEAT_BITS * in_lanes)
        self.out_write = Signal(out_lanes)
        self.out_address = Signal(address_bits)
        self.out_data = Signal(BEAT_BITS)

    def place(self, m: Module, plane: Value, positions: Value, position: Value, base: Value,
              lanes: int) -> tuple[Value, Value]:
        """(word, lane) of a beat in a buffer with that many lanes."""
        group, lane = divide(m, plane, lanes)
        return (base + group * positions + position)[: len(self.in_address)], lane

    def read(self, m: Module, plane: Value, positions: Value, position: Value, base: Value
             ) -> list[Value]:
        """Set the read address now; the beat's bytes, valid one cycle later."""
        word, lane = self.place(m, plane, positions, position, base, self.in_lanes)
        m.d.comb += self.in_address.eq(word)
        return signed_bytes(self.in_data.word_select(delay(m, lane, 1), BEAT_BITS), 8)

    def write(self, m: Module, enable: Value, plane: Value, positions: Value, position: Value,
              base: Value, beat: list[Value], later: int) -> None:
        """Write `beat` `later` cycles after the cycle in which the place is given."""
        word, lane = self.place(m, plane, positions, position, base, self.out_lanes)
        lanes = Cat(enable & (lane == index) for index in range(self.out_lanes))
        m.d.comb += [
            self.out_write.eq(delay(m, lanes, later)),
            self.out_address.eq(delay(m, word, later)),
            self.out_data.eq(Cat(value[:8] for value in beat)),
        ]

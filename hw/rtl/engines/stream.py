"""What the engines that read single beats share: ports, output places, and the end.

It computes nothing; `elementwise`, `spatial` and `softmax` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike

from cosim.program.table import Buffer
from hw.interface.descriptors import Field
from hw.rtl.buffers import READ_CYCLES
from hw.rtl.pipeline import LOOP_FILL, delay, late, register, signed_bytes
from hw.rtl.shell import Shell

FILL = LOOP_FILL
BEAT_BITS = 64
#: Cycles from the step that fetches a beat to the beat: plane, address, word, lane of the word.
BEAT_CYCLES = 3 + READ_CYCLES
#: Where a plane begins, a cycle after a step: word of its first position, lane of its beats.
Place = tuple[Value, Value]


class Constants(NamedTuple):
    """A memory of an engine's own that the weight master fills: `entries` beats, `lanes` a word.

    The engine reads it: `data` come one cycle after `address`.
    """

    name: str
    target: Buffer
    entries: int
    lanes: int
    address: Signal
    data: Signal


class StreamPorts:
    """A shell, a read port on INPUT, a write port on OUTPUT; data come READ_CYCLES later.

    `in_lanes`, `out_lanes`: beats in a word. `constants`: memories that only this engine reads.
    """

    constants: tuple[Constants, ...] = ()

    def __init__(self, fields: Iterable[Field], in_lanes: int, out_lanes: int, waits: int,
                 signals: int, address_bits: int = 16) -> None:
        self.shell = Shell(fields, waits, signals)
        self.in_lanes, self.out_lanes = in_lanes, out_lanes
        self.in_address = Signal(address_bits)
        self.in_data = Signal(BEAT_BITS * in_lanes)
        self.out_write = Signal(out_lanes)
        self.out_address = Signal(address_bits)
        self.out_data = Signal(BEAT_BITS)

    def walk(self, m: Module, ended: Value, base: Value, positions: Value, lanes: int,
             again: ValueLike = 0) -> Place:
        """The place of planes that follow each other, in a buffer with that many lanes.

        It begins at word `base` with the operation, and behind a step `again`; behind a step that
        `ended` a plane follows the next one. A plane has `positions` words.
        """
        first, lane = Signal.like(self.in_address, reset_less=True), Signal(range(max(2, lanes)))
        whole = lane == lanes - 1
        ended, again = delay(m, ended, 1), delay(m, again, 1)
        begins, base = self.shell.begins, register(m, base)
        with m.If(begins | again):
            m.d.sync += [first.eq(base), lane.eq(0)]
        with m.Elif(ended):
            m.d.sync += [first.eq(Mux(whole, first + positions, first)),
                         lane.eq(Mux(whole, 0, lane + 1))]
        return first, lane

    def counted(self, m: Module, written: Value, plane_ends: Value, base: Value) -> Place:
        """The place of the next result, a cycle after a step that `written` says has one.

        Positions are counted, so that no division says how many a plane has. The last step of a
        plane writes.
        """
        word, group = Signal(16, reset_less=True), Signal(16, reset_less=True)
        lane = Signal(range(max(2, self.out_lanes)))
        with m.If(delay(m, self.shell.begins, 1)):
            m.d.sync += [word.eq(base), group.eq(base), lane.eq(0)]
        with m.Elif(plane_ends & (lane != self.out_lanes - 1)):
            m.d.sync += [word.eq(group), lane.eq(lane + 1)]
        with m.Elif(written):
            m.d.sync += word.eq(word + 1)
            with m.If(plane_ends):
                m.d.sync += [group.eq(word + 1), lane.eq(0)]
        return register(m, word), register(m, lane)

    def fetch(self, m: Module, place: Place, position: Value, apart: bool = False) -> list[Value]:
        """The bytes of the beat at a position of a plane, BEAT_CYCLES after the step.

        `apart`: no DSP48 takes their register for one of its own, which would ask for what comes
        late from a block RAM long before the clock.
        """
        first, lane = place
        m.d.sync += self.in_address.eq(first + register(m, position))
        word = self.in_data.word_select(late(m, lane, BEAT_CYCLES - 2), BEAT_BITS)
        beat = register(m, word)
        if apart:
            beat.attrs["keep"] = "true"
        return signed_bytes(beat, 8)

    def store(self, m: Module, enable: Value, place: Place, position: Value, beat: list[Value],
              later: int) -> None:
        """Write `beat` at a position of a plane, `later` cycles after the step."""
        first, lane = place
        enable = delay(m, enable, 1)
        lanes = Cat(enable & (lane == index) for index in range(self.out_lanes))
        m.d.comb += [
            self.out_write.eq(delay(m, lanes, later - 1)),
            self.out_address.eq(late(m, first + register(m, position), later - 1)),
            self.out_data.eq(Cat(value[:8] for value in beat)),
        ]

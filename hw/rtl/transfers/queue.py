"""A short queue in LUT memory whose flags are registers, and the tally that it counts with.

It does not hold back who writes: who writes asks `room` before, not `level`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, ResetSignal, Signal, Value, ValueLike, unsigned
from amaranth.lib.memory import Memory

from hw.rtl.pipeline import register

DEPTH = 16  # as many as a LUT memory holds anyway
SPARE = 5  # places that are free when `room` falls: one, and for what is on its way


class Tally:
    """How many things there are of which one may come (`gains`) and one may go in a cycle.

    `some`, a register: is there one? It knows of the cycle before. `count` knows of the cycle
    before that, so that what comes and goes reaches no carry chain. None goes where none is.
    With `near`, what `count` says of a third one is a register of its own: a flip-flop more, and
    what comes passes one LUT.
    """

    def __init__(self, m: Module, gains: Value, loses: Value, bits: int,
                 near: bool = False) -> None:
        self.some, self._two, *self._three = (Signal(reset_less=True)
                                              for _ in range(4 if near else 3))
        self.count = Signal(bits, reset_less=True)
        gained, lost = register(m, gains), register(m, loses)
        self.more, self._less = gained & ~lost, lost & ~gained
        stays, grows, count = gains | ~loses, gains & ~loses, self.count
        four = (count[3:].any() | (count[2] & (count[:2].any() | ~self._less))
                | (count[:2].all() & self.more))
        with m.If(gained ^ lost):
            m.d.sync += count.eq(count + Mux(lost, -1, 1))
        three = self._three[0] | self._three[1] if near else self._three[0]
        third = (three & stays) | (self._two & grows)
        m.d.sync += [
            self.some.eq(self._two | gains | (self.some & stays)),
            self._two.eq(three | (self._two & stays) | (self.some & grows)),
            *(flag.eq(value) for flag, value in zip(
                self._three, (third, four) if near else (four | third,), strict=True))]

    def load(self, m: Module, when: Value, number: ValueLike) -> None:
        """Begin anew with so many; nothing comes or goes in that cycle or the one before."""
        value = Value.cast(number)
        with m.If(when):
            m.d.sync += [self.count.eq(value), self.some.eq(value != 0), self._two.eq(value > 1),
                         *(flag.eq(value > 2) for flag in self._three)]


class Queue(Elaboratable):
    """Words of `width` bits. `r_data` is the first one while `r_rdy`, and leaves with `r_en`.

    `depth`: a power of two. `spare`: three for who writes in the cycle that sees `room`, and as
    many more as the cycles until he writes. One place is always free, and written all the time.
    `near`: as of the tally.
    """

    def __init__(self, width: int, depth: int = DEPTH, spare: int = SPARE,
                 near: bool = False) -> None:
        self.depth, self.spare, self.near = depth, spare, near
        self.w_en, self.w_data = Signal(), Signal(width)
        self.r_en, self.r_data, self.r_rdy = Signal(), Signal(width), Signal()
        self.room = Signal(init=1)

    def elaborate(self, platform: object) -> Module:
        """A memory, two places and a count with its flags."""
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(len(self.w_data)), depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        leaves = Signal()
        tally = Tally(m, self.w_en, leaves, self.depth.bit_length(), self.near)
        tally.load(m, ResetSignal(), 0)
        m.d.comb += [leaves.eq(self.r_en & self.r_rdy), write.en.eq(1),
                     write.data.eq(self.w_data), self.r_data.eq(read.data),
                     self.r_rdy.eq(tally.some)]
        m.d.sync += self.room.eq(tally.count < self.depth - self.spare)
        for moves, address in ((self.w_en, write.addr), (leaves, read.addr)):
            with m.If(moves):
                m.d.sync += address.eq(address + 1)
        return m

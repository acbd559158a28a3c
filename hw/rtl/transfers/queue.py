"""A short queue in LUT memory whose flags are registers.

It does not hold back who writes: who writes asks `room` before, not `level`.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Signal, unsigned
from amaranth.lib.memory import Memory

DEPTH = 16  # as many as a LUT memory holds anyway
SPARE = 4  # places that are free when `room` falls: for what is on its way


class Queue(Elaboratable):
    """Words of `width` bits. `r_data` is the first one while `r_rdy`, and leaves with `r_en`.

    `depth`: a power of two. `spare`: at least two, for who writes in the cycle that sees `room`.
    """

    def __init__(self, width: int, depth: int = DEPTH, spare: int = SPARE) -> None:
        self.depth, self.spare = depth, spare
        self.w_en, self.w_data = Signal(), Signal(width)
        self.r_en, self.r_data, self.r_rdy = Signal(), Signal(width), Signal()
        self.room = Signal(init=1)

    def elaborate(self, platform: object) -> Module:
        """A memory, two places and a count with its flags."""
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=unsigned(len(self.w_data)), depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        level, leaves = Signal(range(self.depth + 1)), Signal()
        m.d.comb += [leaves.eq(self.r_en & self.r_rdy), write.en.eq(self.w_en),
                     write.data.eq(self.w_data), self.r_data.eq(read.data)]
        m.d.sync += [write.addr.eq(write.addr + self.w_en), read.addr.eq(read.addr + leaves),
                     self.room.eq(level < self.depth - self.spare)]
        with m.If(self.w_en & ~leaves):
            m.d.sync += [level.eq(level + 1), self.r_rdy.eq(1)]
        with m.Elif(leaves & ~self.w_en):
            m.d.sync += [level.eq(level - 1), self.r_rdy.eq(level != 1)]
        return m

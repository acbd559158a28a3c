"""The on-chip buffers: banks of 8-byte memories with one write and one read port.

They know no operation; a port is an address, and a beat is 8 bytes.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Signal, unsigned
from amaranth.lib.memory import Memory

BEAT_BITS = 64


class Buffer(Elaboratable):
    """`depth` words of `lanes` beats. `read_data` follows `read_address` by one cycle.

    A write stores `write_data` in every lane of `write_lanes` at `write_address`.
    """

    def __init__(self, name: str, depth: int, lanes: int) -> None:
        self.name = name
        self.depth = depth
        self.lanes = lanes
        bits = max(1, (depth - 1).bit_length())
        self.write_address = Signal(bits, name=f"{name}_write_address")
        self.write_lanes = Signal(lanes, name=f"{name}_write_lanes")
        self.write_data = Signal(BEAT_BITS * lanes, name=f"{name}_write_data")
        self.read_address = Signal(bits, name=f"{name}_read_address")
        self.read_data = Signal(BEAT_BITS * lanes, name=f"{name}_read_data")

    def elaborate(self, platform: object) -> Module:
        """One memory a lane."""
        m = Module()
        outputs = []
        for lane in range(self.lanes):
            memory = Memory(shape=unsigned(BEAT_BITS), depth=self.depth, init=[])
            m.submodules[f"lane_{lane}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="sync")
            m.d.comb += [
                write.addr.eq(self.write_address),
                write.data.eq(self.write_data.word_select(lane, BEAT_BITS)),
                write.en.eq(self.write_lanes[lane]),
                read.addr.eq(self.read_address),
                read.en.eq(1),
            ]
            outputs.append(read.data)
        m.d.comb += self.read_data.eq(Cat(outputs))
        return m

"""The on-chip buffers: 8-byte memories that a block RAM holds, with their write and read ports.

They know no operation; a port is an address, and a beat is 8 bytes.

A block RAM has two ports. With one writer, one writes and the other reads. With two writers (two
input masters) a bank of the ping-pong buffer is either being filled or being read, as its tokens
say, so each bank is a memory of its own whose reader shares the port of the first writer. A
writer or reader of 16 bytes a cycle meets two neighbouring words: even and odd words then lie in
different memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value, unsigned
from amaranth.lib.memory import Memory

from hw.rtl.pipeline import register

BEAT_BITS = 64
MOST_WRITERS = 2  # ports of a block RAM
#: Cycles from an engine's address of INPUT to its data: chosen among the engines, then read.
READ_CYCLES = 2


@dataclass(frozen=True)
class WritePort:
    """Stores `data` in every lane (or byte) of `lanes` of the word at `address`.

    Who drives them from registers resets `lanes` alone."""

    address: Signal
    lanes: Signal
    data: Signal


class Buffer(Elaboratable):
    """`depth` words of `lanes` beats. `read_data` follows `read_address` by one cycle.

    `writers`: write ports of each writer, 1 or 2 (then at neighbouring places); at most two
    writers. `banks`: equal parts of the buffer, none of which is written and read in one cycle;
    used with two writers only. `next_data` is the word behind `read_data`, with `pairs` true.
    With `by_bytes` a port's `lanes` has a bit for each byte; a later port's bytes win. `lags`: for
    each lane, cycles by which it reads later than the others.
    """

    def __init__(self, name: str, depth: int, lanes: int, writers: tuple[int, ...] = (1,),
                 banks: int = 1, pairs: bool = False, by_bytes: bool = False,
                 lags: Sequence[int] = ()) -> None:
        self.name = name
        self.depth = depth
        self.lanes = lanes
        self.lags = tuple(lags) or (0,) * lanes
        self.banks = banks if len(writers) > 1 else 1
        self.halves = 2 if pairs or max(writers) > 1 else 1
        self.pairs = pairs
        self.grains = BEAT_BITS // 8 if by_bytes else 1
        bits = max(1, (depth - 1).bit_length())
        self.writes = [[self._port(f"{name}_write{index}_{slot}" if index or slot else
                                   f"{name}_write", bits)
                        for slot in range(count)] for index, count in enumerate(writers)]
        first = self.writes[0][0]
        self.write_address, self.write_lanes, self.write_data = (first.address, first.lanes,
                                                                 first.data)
        self.read_address = Signal(bits, name=f"{name}_read_address", reset_less=True)
        self.read_data = Signal(BEAT_BITS * lanes, name=f"{name}_read_data")
        self.next_data = Signal(BEAT_BITS * lanes, name=f"{name}_next_data")

    def _port(self, name: str, bits: int) -> WritePort:
        return WritePort(Signal(bits, name=f"{name}_address", reset_less=True),
                         Signal(self.lanes * self.grains, name=f"{name}_lanes"),
                         Signal(BEAT_BITS * self.lanes, name=f"{name}_data", reset_less=True))

    def elaborate(self, platform: object) -> Module:
        """One memory a bank, half and lane."""
        m = Module()
        self._lagging: list[Value] = []
        reads = [self._reads(m, cycles) for cycles in range(max(self.lags) + 1)]
        places = [[self._place(m, port.address) for port in writer] for writer in self.writes]
        now: list[Value] = []
        behind: list[Value] = []
        for lane, cycles in enumerate(self.lags):
            rows, bank, half = reads[cycles]
            found = Array(self._memory(m, places, *divmod(index, self.halves), lane,
                                       rows[index % self.halves])
                          for index in range(self.banks * self.halves))
            now.append(found[bank * self.halves + half])
            if self.pairs:
                behind.append(found[bank * self.halves + (half ^ 1)])
        m.d.comb += self.read_data.eq(Cat(now))
        if self.pairs:
            m.d.comb += self.next_data.eq(Cat(behind))
        return m

    def _reads(self, m: Module, cycles: int) -> tuple[list[Value], Signal, Signal]:
        """Rows to read in each half, that many cycles later; bank and half of the data."""
        address = self.read_address if not cycles else self._lagging[-1]
        if cycles < max(self.lags):
            self._lagging.append(register(m, address))
        read = self._place(m, address)
        rows: list[Value] = [read[2]]
        if self.halves > 1:
            behind = self._place(m, (address + 1)[: len(address)])
            rows = [Mux(read[1] == half, read[2], behind[2]) for half in range(self.halves)]
        return rows, register(m, read[0]), register(m, read[1])

    def _place(self, m: Module, address: Value) -> tuple[Signal, Signal, Signal]:
        """(bank, half, row) of a word."""
        bank, half, row = Signal(), Signal(), Signal(len(address))
        local = Signal(len(address))
        share = self.depth // self.banks
        if self.banks > 1:
            m.d.comb += bank.eq(address >= share)
        m.d.comb += local.eq(Mux(bank, address - share, address))
        if self.halves > 1:
            m.d.comb += [half.eq(local[0]), row.eq(local[1:])]
        else:
            m.d.comb += row.eq(local)
        return bank, half, row

    def _memory(self, m: Module, places: list[list[tuple[Signal, Signal, Signal]]], bank: int,
                half: int, lane: int, read_row: Value) -> Value:
        rows = -(-self.depth // (self.banks * self.halves))
        memory = Memory(shape=unsigned(BEAT_BITS), depth=max(2, rows), init=[])
        where = f"{f'bank_{bank}_' if self.banks > 1 else ''}"
        where += f"{f'half_{half}_' if self.halves > 1 else ''}lane_{lane}"
        m.submodules[where] = memory
        shared: Value | None = None
        for ports, at in zip(self.writes, places, strict=True):
            grain_bits = BEAT_BITS // self.grains
            write = memory.write_port(granularity=grain_bits)
            row: Value = at[0][2]
            data: Value = ports[0].data.word_select(lane, BEAT_BITS)
            enable: Value = Const(0, self.grains)
            for port, place in zip(ports, at, strict=True):
                here = (place[0] == bank) & (place[1] == half)
                hit = port.lanes.word_select(lane, self.grains) & here.replicate(self.grains)
                row = Mux(hit.any(), place[2], row)
                new = port.data.word_select(lane, BEAT_BITS)
                data = Cat(Mux(hit[grain], new.word_select(grain, grain_bits),
                               data.word_select(grain, grain_bits))
                           for grain in range(self.grains))
                enable = enable | hit
            if len(self.writes) > 1 and shared is None:
                shared = row = Mux(enable.any(), row, read_row)
            m.d.comb += [write.addr.eq(row), write.data.eq(data), write.en.eq(enable)]
        read = memory.read_port(domain="sync")
        m.d.comb += [read.addr.eq(read_row if shared is None else shared), read.en.eq(1)]
        return read.data

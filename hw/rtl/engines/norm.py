"""The norm engine: sums of a block of whole groups, the entries they make, and the affine step.

How a tensor is cut into blocks is the program's question; the arithmetic of an entry is that of
`workloads.arithmetic.group_norm_entries`, in `norm_entries`.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Buffer as Target
from cosim.program.table import Opcode
from hw.rtl.buffers import Buffer
from hw.rtl.engines.elementwise import fields_of
from hw.rtl.engines.norm_entries import Given, NormEntries
from hw.rtl.engines.stream import BEAT_CYCLES, FILL, Constants, StreamPorts
from hw.rtl.pipeline import (
    PLUS,
    PRODUCT,
    ROUND,
    delay,
    late,
    loop_nest,
    product,
    register,
    round_shift,
)

NORM = (Opcode.GROUP_SUMS, Opcode.GROUP_NORM)
NORM_FILL = FILL + 1
# Cycles from a step to these: its square, its sums; the operands of its product.
_SQUARE = BEAT_CYCLES + PRODUCT
SUMS_DRAIN = _SQUARE + 1
_OPERANDS = BEAT_CYCLES + 1
NORM_DRAIN = _OPERANDS + PRODUCT + ROUND
LANES = 8
TOTAL_BITS, SQUARES_BITS = 28, 36  # of at most 2 ** 18 values


class NormEngine(StreamPorts, Elaboratable):
    """One beat a cycle in both passes. Cycles: NORM_FILL + beats + SUMS_DRAIN, or NORM_DRAIN.

    The last sums of a block take more cycles, for its entries: see `norm_entries`.
    """

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16, most_channels: int = 512) -> None:
        StreamPorts.__init__(self, fields_of(NORM), in_lanes, out_lanes, waits, signals,
                             address_bits)
        self.most_channels = most_channels
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64)
        self.constants = (Constants("norm_parameters", Target.NORM_PARAMETERS, most_channels, 1,
                                    self.parameter_address, self.parameter_data),)

    def _sums(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.GROUP_SUMS, name, bits)

    def _norm(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.GROUP_NORM, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loop, both passes and the entries."""
        m = Module()
        m.submodules.shell = shell = self.shell
        is_sums = shell.header("opcode") == Opcode.GROUP_SUMS
        adds = register(m, is_sums)
        trip, (plane, position), ends = loop_nest(
            m, shell.begins, [
                register(m, Mux(is_sums, self._sums("planes"), self._norm("planes"))),
                register(m, Mux(is_sums, self._sums("positions", 16),
                                self._norm("positions", 16)))])
        stride = register(m, Mux(is_sums, self._sums("positions", 16),
                                 self._norm("in_positions", 16)))
        beat = self.fetch(m, self.walk(
            m, ends[1], Mux(is_sums, self._sums("in_base"), self._norm("in_base")), stride,
            self.in_lanes), position, apart=True)
        words = -(-self.most_channels // LANES)
        m.submodules.sums = sums = Buffer("norm_sums", words, LANES)
        m.submodules.entries = entries = Buffer("norm_entries", words, LANES)
        m.submodules.unit = unit = NormEntries()
        self._add(m, beat, sums, plane, position == 0, ends[1] & adds)
        begins = delay(m, ends[0] & adds, SUMS_DRAIN)
        self._make(m, unit, sums, entries, begins & self._sums("last"), plane)
        m.d.comb += entries.read_address.eq(late(m, plane, _OPERANDS - 2))
        out = self.walk(m, ends[1], self._norm("out_base"), self._norm("positions", 16),
                        self.out_lanes)
        self.store(m, trip & ~adds, out, position, self._step(m, beat, entries), NORM_DRAIN)
        m.d.comb += shell.done.eq((begins & ~self._sums("last")) | unit.finished
                                  | delay(m, ends[0] & ~adds, NORM_DRAIN))
        return m

    def _add(self, m: Module, beat: list[Value], sums: Buffer, plane: Signal, opens: Value,
             plane_ends: Value) -> None:
        """Totals and squares of a plane's channels: its word is read when it opens, written when
        it ends."""
        opens = late(m, opens, _SQUARE)
        found: list[Value] = []
        for lane, value in enumerate(beat):
            old = register(m, Mux(self._sums("first"), 0, sums.read_data.word_select(lane, 64)))
            total = Signal(signed(TOTAL_BITS), name=f"total_{lane}", reset_less=True)
            squares = Signal(SQUARES_BITS, name=f"squares_{lane}", reset_less=True)
            m.d.sync += [
                total.eq(Mux(opens, old[:TOTAL_BITS].as_signed(), total)
                         + late(m, value, PRODUCT)),
                squares.eq(Mux(opens, old[TOTAL_BITS:], squares)
                           + product(m, value, value)[:16])]
            found += [total, squares]
        m.d.comb += [sums.write_address.eq(late(m, plane, SUMS_DRAIN)),
                     sums.write_data.eq(Cat(found)),
                     sums.write_lanes.eq(delay(m, plane_ends, SUMS_DRAIN).replicate(LANES))]

    def _make(self, m: Module, unit: NormEntries, sums: Buffer, entries: Buffer, begins: Value,
              plane: Signal) -> None:
        """The unit reads the sums and parameters, and writes the entries.

        The first channel of a plane clears those behind it, so padded channels become zero.
        """
        given = Given(*(self._sums(name) for name in (
            "channels", "group_channels", "all_positions", "parameter_base", "gain_base",
            "offset_base", "film")))
        chosen = register(m, sums.read_data.word_select(delay(m, unit.channel[:3], 1), 64))
        lanes = [unit.entry_channel[:3] == index for index in range(LANES)]
        written = [unit.entry_valid & (one | lanes[0]) for one in lanes]
        m.d.comb += [
            unit.begins.eq(begins), *unit.connect(given),
            sums.read_address.eq(Mux(unit.active, unit.channel >> 3, late(m, plane, _SQUARE - 2))),
            unit.total.eq(chosen[:TOTAL_BITS]), unit.squares.eq(chosen[TOTAL_BITS:]),
            self.parameter_address.eq(unit.parameter_address),
            unit.parameter_data.eq(self.parameter_data),
            entries.write_address.eq(register(m, unit.entry_channel >> 3)),
            entries.write_data.eq(register(m, Cat(Mux(one, unit.entry, 0) for one in lanes))),
            entries.write_lanes.eq(delay(m, Cat(written), 1)),
        ]

    def _step(self, m: Module, beat: list[Value], entries: Buffer) -> list[Value]:
        """Eight channels: the beat and its entries, their product, rounded."""
        relu = register(m, self._norm("relu"))
        found: list[Value] = []
        for lane, value in enumerate(beat):
            entry = register(m, entries.read_data.word_select(lane, 64))
            total = product(m, register(m, value), entry[:16].as_signed(),
                            late(m, entry[16:48].as_signed(), PLUS))
            found.append(round_shift(m, total, late(m, entry[48:54], PRODUCT), positive=relu))
        return found

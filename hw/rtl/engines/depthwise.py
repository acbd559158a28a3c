"""The depthwise engine: `taps` products a channel a cycle, for the eight channels of a beat.

It knows no tensors; tiles, weights and entries lie in its memories when an operation begins.

Columns of a kernel go down the input column by column. A trip reads one pixel and multiplies it by
`taps` neighbouring weights of a kernel row: product j belongs to the output j columns before the
pixel's, so that its sum is where sum j - 1 was before the column began. Each sum is the register
of a DSP48, whose adder takes itself or, in the first trip of a column, the one before it (PCIN);
no adder of products stands in the fabric. Kernels wider than `taps` go in groups of `taps`
columns. The last sum leaves at the end of a column that an output ends with, is requantized and
stored; sums of rows' first columns are begun outside the output and are dropped.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Buffer as Target
from cosim.program.table import Opcode
from hw.rtl.engines.array import SUM_BITS
from hw.rtl.engines.results import REQUANTIZE, requantize
from hw.rtl.engines.stream import BEAT_CYCLES, FILL, Constants, StreamPorts
from hw.rtl.pipeline import PLUS, PRODUCT, delay, late, loop_nest, product, register, signed_bytes
from hw.rtl.shell import fields_read

LANES = 8
DEPTHWISE_FILL = FILL + 1  # the columns of a row are counted first
# Cycles from a trip to these: y and x, the position, its beat, operands of the products, their
# sums, the result.
_PLACE = 2
_POSITION = _PLACE + PRODUCT
_BEAT = _POSITION + BEAT_CYCLES
_OPERANDS = _BEAT + 1
_SUM = _OPERANDS + PRODUCT
DEPTHWISE_DRAIN = _SUM + REQUANTIZE


class DepthwiseEngine(StreamPorts, Elaboratable):
    """Cycles: DEPTHWISE_FILL + trips + DEPTHWISE_DRAIN; the trips are in `arch_models`."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16, entries: int = 512, taps: int = 3, pads: bool = False
                 ) -> None:
        StreamPorts.__init__(self, fields_read(Opcode.DEPTHWISE, pads), in_lanes, out_lanes,
                             waits, signals, address_bits)
        self.taps, self.pads = taps, pads
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64 * LANES)
        self.weight_address = Signal(address_bits)
        self.weight_data = Signal(64 * taps)
        self.constants = (
            Constants("depthwise_parameters", Target.DEPTHWISE_PARAMETERS, entries, LANES,
                      self.parameter_address, self.parameter_data),
            Constants("depthwise_weights", Target.DEPTHWISE_WEIGHTS, entries * taps, taps,
                      self.weight_address, self.weight_data))

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.DEPTHWISE, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loops, the addresses, the sums and what follows them."""
        m = Module()
        m.submodules.shell = shell = self.shell
        columns = register(m, self._head("column_span") + (self.taps - 1))
        stride = self._head("stride")
        trip, counters, ends = loop_nest(
            m, shell.begins,
            [self._head("planes"), self._head("row_span"), columns, self._head("kernel_columns"),
             self._head("kernel_rows")], [1, stride, 1, self.taps, 1])
        plane, top, left, tap, kernel_row = counters
        pixels = self._pixels(m, (top, left, tap, kernel_row), ends[1])
        ended = [delay(m, end, 1) for end in ends]
        self._weight_address(m, delay(m, trip, 1), ended)
        entry = register(m, (self._head("parameter_base") >> 3) + plane)
        m.d.comb += self.parameter_address.eq(late(m, entry, _SUM - 3))
        opens = late(m, (tap == 0) & (kernel_row == 0), _SUM - 1)
        relu = register(m, self._head("relu"))
        results: list[Value] = [
            requantize(m, total, register(m, self.parameter_data.word_select(lane, 64)), relu)
            for lane, total in enumerate(self._sums(m, pixels, opens))]
        written = self._written(m, ended)
        out = self.counted(m, written, ended[1], self._head("out_base"))
        self.store(m, written, out, Value.cast(0), results, DEPTHWISE_DRAIN - 1)
        m.d.comb += shell.done.eq(delay(m, ends[0], DEPTHWISE_DRAIN))
        return m

    def _pixels(self, m: Module, counters: tuple[Value, ...], plane_ends: Value) -> list[Value]:
        """The channels of the pixel of a trip, or the padding outside the tile, when they are
        operands."""
        top, left, tap, kernel_row = counters
        rows, columns = self._head("in_rows"), self._head("in_columns")
        places = [register(m, (register(m, first + more).as_signed() - self._head(pad))[:18]
                           .as_signed())
                  for first, more, pad in ((Cat(top, 0), kernel_row, "pad_top"),
                                           (Cat(left, 0), tap, "pad_left"))]
        y, x = places
        inside = register(m, Cat(item for place, size in ((y, rows), (x, columns))
                                 for item in (place >= 0, place < size)))
        position = product(m, y, columns, late(m, x, PLUS))
        first, lane = self.walk(m, plane_ends, self._head("in_base"),
                                product(m, rows, columns)[:16], self.in_lanes)
        beat = self.fetch(m, (late(m, first, _POSITION), late(m, lane, _POSITION)), position)
        real = late(m, inside.all(), _BEAT - _PLACE - 1)
        outside = self._head("pad_value") if self.pads else Const(0)
        found: list[Value] = []
        for index, value in enumerate(beat):
            pixel = Signal(signed(8), name=f"pixel_{index}", reset_less=True)
            m.d.sync += pixel.eq(value)
            with m.If(~real):
                m.d.sync += pixel.eq(outside)
            found.append(pixel)
        return found

    def _weight_address(self, m: Module, issued: Value, ended: list[Value]) -> None:
        """Words of a plane lie in the order of the trips of a column, which all have the same."""
        address, block = (Signal.like(self.weight_address, reset_less=True) for _ in range(2))
        with m.If(self.shell.begins):
            m.d.sync += [address.eq(self._head("weight_base")),
                         block.eq(self._head("weight_base"))]
        with m.Elif(ended[1]):
            m.d.sync += [address.eq(address + 1), block.eq(address + 1)]
        with m.Elif(ended[3]):
            m.d.sync += address.eq(block)
        with m.Elif(issued):
            m.d.sync += address.eq(address + 1)
        m.d.comb += self.weight_address.eq(late(m, address, _OPERANDS - 3))

    def _sums(self, m: Module, pixels: list[Value], opens: Value) -> list[Value]:
        """The sum that a column may end, of each channel, _SUM cycles after its last trip."""
        weights = [signed_bytes(register(m, self.weight_data.word_select(tap, 64)), LANES)
                   for tap in range(self.taps)]
        found: list[Value] = []
        for lane, pixel in enumerate(pixels):
            before: Value = Value.cast(0)
            for tap in range(self.taps):
                total = Signal(signed(SUM_BITS), name=f"sum_{lane}_{tap}", reset_less=True)
                made = register(m, register(m, pixel) * register(m, weights[tap][lane]))
                m.d.sync += total.eq(Mux(opens, before, total).as_signed() + made)
                before = total
            found.append(before)
        return found

    def _written(self, m: Module, ended: list[Value]) -> Value:
        """Does the column that ended end an output, too? A cycle after its last trip."""
        stride, first = register(m, self._head("stride")), self.taps - 1
        single = register(m, stride == 1)
        left, due = Signal(8, reset_less=True), Signal(reset_less=True)  # columns before the next
        with m.If(self.shell.begins | ended[2]):
            m.d.sync += [left.eq(first), due.eq(first == 0)]
        with m.Elif(ended[3]):
            m.d.sync += [left.eq(Mux(due, stride - 1, left - 1)),
                         due.eq(Mux(due, single, left == 1))]
        return ended[3] & due

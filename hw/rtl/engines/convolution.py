"""The convolution engine: tm x tn x columns multiply-accumulates a cycle, output stationary.

It moves nothing between DRAM and the buffers; `array` has the products and sums, `results` what
comes behind them.

A trip is one cycle. An operation that starts in cycle s issues its trips in s + FILL and the
cycles after it. A group of output positions (one a column of unroll) takes as many trips as its
reduction has, and at least as many as its results need to leave. The last result is written
`drain_cycles` plus those cycles after the last trip, in the last cycle of the operation. Fused
pool, addition and upsample cost no cycle.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, ValueLike, signed

from arch_models.overlay import Fusion, Overlay
from cosim.program.table import Opcode
from hw.rtl.buffers import READ_CYCLES
from hw.rtl.engines.array import (
    SUM_BITS,
    array_cycles,
    running_sums,
    trip_sums,
    weight_cycles,
)
from hw.rtl.engines.results import ANNOUNCE, RESULTS, Results
from hw.rtl.engines.unpack import Unpack
from hw.rtl.pipeline import (
    PACED_FILL,
    delay,
    late,
    paced_nest,
    product,
    register,
    signed_bytes,
    slow_divide,
)
from hw.rtl.shell import Shell, fields_read

FILL = PACED_FILL
#: Cycles after a trip is issued in which its signals are at these places.
_ENDS, _ADDRESS = 1, 7  # what it ends; address of the pixels
_PIXELS = _ADDRESS + READ_CYCLES + 1
_OUT_WORD, _ROW, _COLUMN, _LOWER, _HALF, _IN_WORD, _KERNEL_ROW, _KERNEL_COLUMN = range(8)


def sum_cycles(tn: int) -> int:
    """Cycles from a trip to the running sums that it is part of."""
    return _PIXELS + array_cycles(tn) + 1


def drain_cycles(tn: int) -> int:
    """Cycles from the last trip to the last result, less those in which results leave."""
    return sum_cycles(tn) + RESULTS


class ConvolutionEngine(Elaboratable):
    """Reads INPUT, WEIGHT, parameters, SKIP and the accumulators; writes OUTPUT words.

    INPUT has a copy and the accumulators have a memory for each column of unroll; those signals
    are lists. Data of INPUT come READ_CYCLES after their address, others one cycle. WEIGHT reads
    input channel n `lag` cycles later; byte n * tm + channel of its word is one weight.
    """

    def __init__(self, overlay: Overlay, waits: int, signals: int, address_bits: int = 16) -> None:
        self.tm, self.tn, self.columns = overlay.tm, overlay.tn, overlay.columns
        self.packed, self.narrow = overlay.dsp_packing, overlay.narrow_weights
        self.result_cycles = overlay.result_cycles
        self.pads = overlay.zero_points
        self.shell = Shell(fields_read(Opcode.CONVOLUTION, self.pads), waits, signals)
        self.results = Results(self.shell, self.tm, self.columns, overlay.requantizers,
                               Fusion.ADD in overlay.fusions, Fusion.POOL in overlay.fusions,
                               address_bits)

        def each(name: str, bits: int) -> list[Signal]:
            return [Signal(bits, name=f"{name}_{column}") for column in range(self.columns)]

        self.in_address = each("in_address", address_bits)
        self.in_data = each("in_data", 8 * self.tn)
        self.weight_address = Signal(address_bits)
        self.weight_data = Signal(8 * self.tm * self.tn)
        self.parameter_address = self.results.parameter_address
        self.parameter_data = self.results.parameter_data
        self.skip_address = self.results.skip_address
        self.skip_data = self.results.skip_data
        self.partial_read_address = Signal(address_bits)
        self.partial_read_data = each("partial_read_data", SUM_BITS * self.tm)
        self.partial_write = Signal()
        self.partial_write_address = Signal(address_bits)
        self.partial_write_data = each("partial_write_data", SUM_BITS * self.tm)
        self.out_write = self.results.out_write
        self.out_address = self.results.out_address
        self.out_data = self.results.out_data

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.CONVOLUTION, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loops, the addresses, the array and what follows it."""
        m = Module()
        m.submodules.shell = self.shell
        m.submodules.results = self.results
        trip, counters, ends, finished = self._loops(m)
        issued, ended = delay(m, trip, _ENDS), [delay(m, end, _ENDS) for end in ends]
        begin = (counters[_COLUMN] + Mux(counters[_HALF], self.columns, 0))[:16]
        if self.columns == 1:  # it is even where the half may be odd
            begin = counters[_COLUMN] | counters[_HALF]
        inside = self._pixel_addresses(m, begin, counters, ended)
        weights = self._weights(m, issued, ended)
        sums, closed = self._accumulate(m, issued, inside, ended, weights)
        done = sum_cycles(self.tn)
        bounds = [register(m, self._head("out_columns") - lane) for lane in range(self.columns)]
        real = register(m, Cat(register(m, begin) < bound for bound in bounds))
        m.d.comb += [
            self.results.announce.eq(delay(m, ended[_IN_WORD] & self._head("last"),
                                           done - _ENDS - ANNOUNCE)),
            self.results.capture.eq(closed & self._head("last")),
            self.results.sums.eq(Cat(sums)),
            self.results.real.eq(late(m, real, done - ANNOUNCE - 2)),
            self.results.lower.eq(late(m, counters[_LOWER][0], done - ANNOUNCE)),
            self.results.half.eq(late(m, counters[_HALF][0], done - ANNOUNCE)),
            self.results.entry.eq(self._entry(m, ended[_ROW], done - ANNOUNCE)),
            self.shell.done.eq(delay(m, finished, drain_cycles(self.tn) + self.result_cycles)),
        ]
        return m

    def _loops(self, m: Module) -> tuple[Value, list[Signal], list[Value], Value]:
        """Blocks of output channels, rows, groups of columns, a 2 x 2 square's rows and halves,
        then the reduction. Under a pool a group holds whole squares: an odd number of columns
        goes twice, unless the second time lies outside the tile, whose columns are even."""
        pool, out_columns = self._head("pool"), self._head("out_columns")
        odd = self.columns % 2
        span = self.columns << pool if odd else Value.cast(self.columns)
        goes_twice = Signal()  # in the group of columns of the next cycle
        _, counters, ends, _ = nest = paced_nest(
            m, self.shell.start, [
                self._head("out_words"), self._head("out_rows"), out_columns,
                Mux(pool, Const(2, 2), 1), Mux(pool & odd, Const(2, 2), 1), self._head("in_words"),
                self._head("kernel_rows"), self._head("kernel_columns")],
            [1, Mux(pool, Const(2, 2), 1), span, 1, 1, 1, 1, 1], (_IN_WORD, self.result_cycles),
            {_HALF: ~goes_twice} if odd and self.columns > 1 else None)
        if odd and self.columns > 1:
            # A group under a pool lasts two trips at least, so `behind` has settled at its end.
            beyond = register(m, out_columns - self.columns - span)
            first = register(m, pool & (out_columns > self.columns))
            behind, twice = register(m, pool & (counters[_COLUMN] < beyond)), Signal()
            begins = self.shell.begins
            m.d.comb += goes_twice.eq(Mux(begins | ends[_COLUMN], first,
                                          Mux(ends[_LOWER], behind, twice)))
            m.d.sync += twice.eq(goes_twice)
        return nest

    def _entry(self, m: Module, ended: Value, cycles: int) -> Value:
        """The word of parameters of a group's first slice, `cycles` after its last trip."""
        base = slow_divide(m, self.shell.begins, self._head("parameter_base"),
                           self.results.requantizers)
        block = Signal.like(self.results.entry, reset_less=True)
        with m.If(self.shell.begins):
            m.d.sync += block.eq(0)
        with m.Elif(ended):
            m.d.sync += block.eq(block + self.results.slices)
        return register(m, base + late(m, block, cycles - _ENDS - 1))

    def _pixel_addresses(self, m: Module, begin: Value, counters: list[Signal],
                         ended: list[Value]) -> list[Value]:
        """Set the addresses; which pixels lie in the tile, when their data are there."""
        upsample = self._head("upsample")
        rows, columns = self._head("in_rows"), self._head("in_columns")
        stride = self._head("stride")
        height, width = register(m, rows << upsample), register(m, columns << upsample)
        # Cycle 2: the word of the plane; 3: row and column of lane 0; 6: the row's first word.
        positions = product(m, rows, columns)[:16]
        offset = Signal(16, reset_less=True)
        with m.If(self.shell.begins | ended[_IN_WORD]):
            m.d.sync += offset.eq(0)
        with m.Elif(ended[_KERNEL_ROW]):
            m.d.sync += offset.eq(offset + positions)
        plane = register(m, (self._head("in_base") + offset)[:16])
        out_row = counters[_ROW] | counters[_LOWER]  # under a pool rows go by two
        down = register(m, register(m, counters[_KERNEL_ROW]) - self._head("pad_top"))
        across = register(m, register(m, counters[_KERNEL_COLUMN]) - self._head("pad_left"))
        y, first = (product(m, place, stride, plus)[:20].as_signed()
                    for place, plus in ((out_row, down), (begin, across)))
        row_inside = register(m, y.as_unsigned() < height)  # a negative one is far too large
        line = product(m, (y >> upsample)[:16], columns, late(m, plane, 3))[:16]
        found = []
        for lane, address in enumerate(self.in_address):
            steps = sum((stride << bit for bit in range(2) if lane >> bit & 1), Value.cast(0))
            x = register(m, (first + register(m, steps))[:20].as_signed())
            inside = register(m, register(m, x.as_unsigned() < width) & register(m, row_inside))
            m.d.sync += address.eq(line + late(m, (x >> upsample)[:16], 2))
            found.append(late(m, inside, _PIXELS - 1 - 6))
        return found

    def _weights(self, m: Module, issued: Value, ended: list[Value]) -> Value:
        """Set the address; the weights of a trip, each input channel with its lag.

        Weights of a block of output channels lie in the order of the trips of a position. Narrow
        ones are counted in halves of words.
        """
        read = _PIXELS + weight_cycles(self.tn, self.packed) - 1 - _ENDS
        if not self.narrow:
            address = self._count_weights(m, self.weight_address, self._head("weight_base"), 1,
                                          issued, ended)
            m.d.comb += self.weight_address.eq(late(m, address, read))
            return self.weight_data
        halved = register(m, self.shell.header("opcode") == Opcode.NARROW_CONVOLUTION)
        place = self._count_weights(
            m, Cat(Const(0, 1), self.weight_address), Cat(Const(0, 1), self._head("weight_base")),
            Mux(halved, Const(1, 2), 2), issued, ended)
        m.submodules.unpack = unpack = Unpack(self.tm, self.tn, self.packed)
        asked = late(m, place, read - unpack.cycles)
        m.d.comb += [self.weight_address.eq(asked[1:]), unpack.words.eq(self.weight_data),
                     unpack.halved.eq(halved), unpack.half.eq(asked[0])]
        return unpack.bytes

    def _count_weights(self, m: Module, wide: Value, base: Value, step: ValueLike,
                       issued: Value, ended: list[Value]) -> Signal:
        """The place of a trip's weights, as wide as a value, in steps from a base."""
        place, block = (Signal.like(wide, reset_less=True) for _ in range(2))
        with m.If(self.shell.begins):
            m.d.sync += [place.eq(base), block.eq(base)]
        with m.Elif(ended[_ROW]):
            m.d.sync += [place.eq(place + step), block.eq(place + step)]
        with m.Elif(ended[_IN_WORD]):
            m.d.sync += place.eq(block)
        with m.Elif(issued):
            m.d.sync += place.eq(place + step)
        return place

    def _accumulate(self, m: Module, issued: Value, inside: list[Value], ended: list[Value],
                    weights: Value) -> tuple[list[Signal], Value]:
        """The running sums of every column, and whether a group of positions is whole now."""
        done = sum_cycles(self.tn)
        opens = Signal(reset_less=True)  # the trip begins a reduction
        group = Signal.like(self.partial_read_address, reset_less=True)
        with m.If(self.shell.begins):
            m.d.sync += [opens.eq(1), group.eq(0)]
        with m.Elif(issued):
            m.d.sync += [opens.eq(ended[_IN_WORD]), group.eq(group + ended[_IN_WORD])]
        closed = delay(m, ended[_IN_WORD], done - _ENDS)
        m.d.comb += [self.partial_read_address.eq(late(m, group, done - _ENDS - 3)),
                     self.partial_write.eq(closed & ~self._head("last")),
                     self.partial_write_address.eq(late(m, group, done - _ENDS))]
        opens_now, valid = late(m, opens, done - 1 - _ENDS), delay(m, issued, done - 1 - _ENDS)
        pixels = [[self._pixel(m, value, inside[column])
                   for value in signed_bytes(self.in_data[column], self.tn)]
                  for column in range(self.columns)]
        trips = trip_sums(m, weights, pixels, self.tm, self.packed)
        sums: list[Signal] = []
        for column, mine in enumerate(trips):
            seeds = [self._seed(m, self.partial_read_data[column].word_select(lane, SUM_BITS))
                     for lane in range(self.tm)]
            totals = running_sums(m, mine, seeds, opens_now, valid, f"sum_{column}")
            m.d.comb += self.partial_write_data[column].eq(Cat(totals))
            sums += totals
        return sums, closed

    def _pixel(self, m: Module, value: Value, inside: Value) -> Signal:
        outside = self._head("pad_value") if self.pads else Const(0)
        found = Signal(signed(8), reset_less=True)
        m.d.sync += found.eq(value)
        with m.If(~inside):
            m.d.sync += found.eq(outside)
        return found

    def _seed(self, m: Module, before: Value) -> Signal:
        """What a reduction begins with: 0, or the sum over the words of earlier operations."""
        found = Signal(signed(SUM_BITS), reset_less=True)
        m.d.sync += found.eq(before)
        with m.If(self._head("first")):
            m.d.sync += found.eq(0)
        return found

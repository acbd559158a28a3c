"""The convolution engine: tm x tn x columns multiply-accumulates a cycle, output stationary.

It moves nothing between DRAM and the buffers; `results` has what comes behind the sums.

A trip is one cycle. An operation that starts in cycle s issues its trips in s + 1 and the cycles
after it. A group of output positions (one a column of unroll) takes as many trips as its reduction
has, and at least as many as its results need to leave. The last result is written DRAIN plus those
cycles after the last trip, in the last cycle of the operation. Fused pool, addition and upsample
cost no cycle.
"""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from arch_models.overlay import Fusion, Overlay
from cosim.program.table import Opcode
from hw.interface.descriptors import argument_fields
from hw.rtl.pipeline import delay, divide, loop_nest, register, signed_bytes, tree
from hw.rtl.results import SUM_BITS, Results
from hw.rtl.shell import Shell

FILL, DRAIN = 1, 15
OPCODES = (Opcode.CONVOLUTION,)
# Cycles after a trip is issued in which its signals are at these places.
_ADDRESS, _SUM = 3, 7  # address of the data; accumulator
#: A multiplier of 25 x 18 bits holds two products with a common factor this many bits apart.
_PACKED_SHIFT = 16
_OUT_WORD, _ROW, _COLUMN, _LOWER, _HALF, _IN_WORD, _KERNEL_ROW, _KERNEL_COLUMN = range(8)


class ConvolutionEngine(Elaboratable):
    """Reads INPUT, WEIGHT, parameters, SKIP and the accumulators; writes OUTPUT words.

    Every address is followed by its data one cycle later. INPUT has a copy and the accumulators
    have a memory for each column of unroll; those signals are lists.
    """

    def __init__(self, overlay: Overlay, waits: int, signals: int, address_bits: int = 16) -> None:
        self.tm, self.tn, self.columns = overlay.tm, overlay.tn, overlay.columns
        self.packed = overlay.dsp_packing
        self.result_cycles = overlay.result_cycles
        self.shell = Shell(argument_fields(Opcode.CONVOLUTION), waits, signals)
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
        pool = self._head("pool")
        # Under a pool a group holds whole 2x2 squares: an odd number of columns goes twice.
        span = self.columns << (pool if self.columns % 2 else 0)
        column = Signal(16)
        twice: Value = Const(0, 1)
        if self.columns % 2:
            twice = pool & (column + self.columns < self._head("out_columns"))
        trip, counters, ends = loop_nest(m, self.shell.start, [
            self._head("out_words"), self._head("out_rows") >> pool, self._head("out_columns"),
            Mux(pool, 2, 1), Mux(twice, 2, 1), self._head("in_words"),
            self._head("kernel_rows"), self._head("kernel_columns")],
            [1, 1, span, 1, 1, 1, 1, 1], pace=(_IN_WORD, self.result_cycles))
        m.d.comb += column.eq(counters[_COLUMN])
        begin = register(m, (counters[_COLUMN] + Mux(counters[_HALF][0], self.columns, 0))[:16])
        inside = self._pixel_addresses(m, begin, counters, ends)
        self._weight_address(m, trip, ends)
        sums, closed = self._accumulate(m, trip, inside, counters, ends)
        real = Cat(begin + lane < self._head("out_columns") for lane in range(self.columns))
        entry = Signal.like(self.parameter_address)
        with m.If(self.shell.start):
            m.d.sync += entry.eq(divide(m, self._head("parameter_base"),
                                        self.results.requantizers)[0])
        with m.Elif(ends[_ROW]):
            m.d.sync += entry.eq(entry + self.results.slices)
        m.d.comb += [
            self.results.capture.eq(closed & self._head("last")),
            self.results.sums.eq(Cat(sums)),
            self.results.real.eq(delay(m, real, _SUM - 1)),
            self.results.lower.eq(delay(m, counters[_LOWER][0], _SUM)),
            self.results.half.eq(delay(m, counters[_HALF][0], _SUM)),
            self.results.entry.eq(delay(m, entry, _SUM)),
            self.shell.done.eq(delay(m, ends[_OUT_WORD], DRAIN + self.result_cycles)),
        ]
        return m

    def _pixel_addresses(self, m: Module, begin: Signal, counters: list[Signal],
                         ends: list[Value]) -> list[Value]:
        """Three cycles after a trip is issued the addresses are set; which lie in the tile."""
        pool, upsample = self._head("pool"), self._head("upsample")
        rows, columns = self._head("in_rows"), self._head("in_columns")
        stride = self._head("stride")
        positions = register(m, (rows * columns)[:16])
        word_offset = Signal(16)
        with m.If(self.shell.start | ends[_IN_WORD]):
            m.d.sync += word_offset.eq(0)
        with m.Elif(ends[_KERNEL_ROW]):
            m.d.sync += word_offset.eq(word_offset + positions)
        out_row = register(m, ((counters[_ROW] << pool) + counters[_LOWER][0])[:16])
        down, across = register(m, counters[_KERNEL_ROW]), register(m, counters[_KERNEL_COLUMN])
        y, first = Signal(signed(20)), Signal(signed(20))  # `first`: the column of lane 0
        m.d.sync += y.eq(out_row * stride + down - self._head("pad_top"))
        m.d.comb += first.eq(begin * stride + across - self._head("pad_left"))
        row_inside = (y >= 0) & (y < (rows << upsample))
        line = Signal.like(self.in_address[0])
        m.d.comb += line.eq(self._head("in_base") + delay(m, word_offset, 2)
                            + (y >> upsample)[:16] * columns)
        found = []
        for lane, address in enumerate(self.in_address):
            x = Signal(signed(20), name=f"x_{lane}")
            steps = sum((stride << bit for bit in range(2) if lane >> bit & 1), Value.cast(0))
            m.d.sync += x.eq(first + steps)
            inside = row_inside & (x >= 0) & (x < (columns << upsample))
            m.d.sync += address.eq(line + (x >> upsample)[:16])
            found.append(register(m, register(m, inside)))
        return found

    def _weight_address(self, m: Module, trip: Value, ends: list[Value]) -> None:
        """Weights of a block of output channels lie in the order of the trips of a position."""
        address, block = Signal.like(self.weight_address), Signal.like(self.weight_address)
        with m.If(self.shell.start):
            m.d.sync += [address.eq(self._head("weight_base")),
                         block.eq(self._head("weight_base"))]
        with m.Elif(ends[_ROW]):
            m.d.sync += [address.eq(address + 1), block.eq(address + 1)]
        with m.Elif(ends[_IN_WORD]):
            m.d.sync += address.eq(block)
        with m.Elif(trip):
            m.d.sync += address.eq(address + 1)
        m.d.comb += self.weight_address.eq(delay(m, address, _ADDRESS))

    def _accumulate(self, m: Module, trip: Value, inside: list[Value], counters: list[Signal],
                    ends: list[Value]) -> tuple[list[Signal], Value]:
        """Products, their sums over tn, and the running sums of a group of positions."""
        opens = Signal()  # the trip begins a reduction
        m.d.comb += opens.eq((counters[_IN_WORD] == 0) & (counters[_KERNEL_ROW] == 0)
                             & (counters[_KERNEL_COLUMN] == 0))
        group = Signal.like(self.partial_read_address)
        with m.If(self.shell.start):
            m.d.sync += group.eq(0)
        with m.Elif(ends[_IN_WORD]):
            m.d.sync += group.eq(group + 1)
        closed = delay(m, ends[_IN_WORD], _SUM)
        m.d.comb += [self.partial_read_address.eq(delay(m, group, _SUM - 2)),
                     self.partial_write.eq(closed & ~self._head("last")),
                     self.partial_write_address.eq(delay(m, group, _SUM))]
        opens_now, valid = delay(m, opens, _SUM - 1), delay(m, trip, _SUM - 1)
        factors = self._factors(m)
        sums = []
        for column in range(self.columns):
            pixels = [register(m, Mux(inside[column], value, 0)) for value in
                      signed_bytes(self.in_data[column], self.tn)]
            dots = self._dots(m, factors, pixels)
            partial = self.partial_read_data[column]
            mine = []
            for lane, dot in enumerate(dots):
                before = partial.word_select(lane, SUM_BITS).as_signed()
                total = Signal(signed(SUM_BITS), name=f"sum_{column}_{lane}")
                begin = Mux(opens_now, Mux(self._head("first"), 0, before), total)
                with m.If(valid):
                    m.d.sync += total.eq(begin + dot)
                mine.append(total)
            m.d.comb += self.partial_write_data[column].eq(Cat(mine))
            sums += mine
        return sums, closed

    def _factors(self, m: Module) -> list[Signal]:
        """The weights of a trip [m][n], or of two output channels in one number if packed.

        All columns share them.
        """
        weights = signed_bytes(self.weight_data, self.tm * self.tn)
        if not self.packed:
            return [register(m, value) for value in weights]
        found = []
        for channel in range(0, self.tm, 2):
            for index in range(channel * self.tn, (channel + 1) * self.tn):
                both = Signal(signed(25), name=f"both_{index}")
                high = Cat(Const(0, _PACKED_SHIFT), weights[index + self.tn])
                m.d.sync += both.eq(high.as_signed() + weights[index])
                found.append(both)
        return found

    def _dots(self, m: Module, factors: list[Signal], pixels: list[Signal]) -> Iterable[Value]:
        """The sums over tn for every output channel, one cycle after the operands."""
        for first in range(0, len(factors), self.tn):
            products = [register(m, factors[first + n] * pixels[n]) for n in range(self.tn)]
            if not self.packed:
                yield tree(products)
                continue
            # The low product borrows from the high one when it is negative; its sign pays back.
            yield tree([both[:_PACKED_SHIFT].as_signed() for both in products])
            yield tree([both[_PACKED_SHIFT:].as_signed() + both[_PACKED_SHIFT - 1]
                        for both in products])

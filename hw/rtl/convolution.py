"""The convolution engine: tm x tn multiply-accumulates a cycle, output stationary.

It moves nothing between DRAM and the buffers, and does not unroll over columns.

A trip is one cycle. An operation that starts in cycle s issues its trips in s + 1 and the cycles
after it; the last result is written DRAIN cycles after the last trip, in the last cycle of the
operation. Fused pool, addition and upsample cost no cycle.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program import Opcode
from hw.descriptors import argument_fields
from hw.rtl.pipeline import delay, loop_nest, register, rounding, saturate, signed_bytes
from hw.rtl.shell import Shell

FILL, DRAIN = 1, 13
MULTIPLIER_BITS = 16
SHIFT_BITS = 6
OPCODES = (Opcode.CONVOLUTION,)
# Cycles after a trip is issued in which its signals are at these places.
_PIXEL, _DOT, _SUM = 3, 5, 6  # data read; sum over tn; accumulator
_SKIP = 9


class ConvolutionEngine(Elaboratable):
    """Reads INPUT, WEIGHT, parameters, SKIP and the accumulators; writes OUTPUT words.

    Every `*_address` is followed by its `*_data` one cycle later.
    """

    def __init__(self, tm: int, tn: int, waits: int, signals: int, address_bits: int = 16) -> None:
        self.tm, self.tn = tm, tn
        self.shell = Shell(argument_fields(Opcode.CONVOLUTION), waits, signals)
        self.in_address = Signal(address_bits)
        self.in_data = Signal(8 * tn)
        self.weight_address = Signal(address_bits)
        self.weight_data = Signal(8 * tm * tn)
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64 * tm)
        self.skip_address = Signal(address_bits)
        self.skip_data = Signal(8 * tm)
        self.partial_read_address = Signal(address_bits)
        self.partial_read_data = Signal(32 * tm)
        self.partial_write = Signal()
        self.partial_write_address = Signal(address_bits)
        self.partial_write_data = Signal(32 * tm)
        self.out_write = Signal()
        self.out_address = Signal(address_bits)
        self.out_data = Signal(8 * tm)

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.CONVOLUTION, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loops, the addresses and the arithmetic."""
        m = Module()
        m.submodules.shell = self.shell
        pool = self._head("pool")
        running, counters, ends = loop_nest(m, self.shell.start, [
            self._head("out_words"), self._head("out_rows") >> pool,
            self._head("out_columns") >> pool, Mux(pool, 4, 1), self._head("in_words"),
            self._head("kernel_rows"), self._head("kernel_columns")])
        out_word = counters[0]
        opens = Signal()  # the trip begins a reduction
        m.d.comb += opens.eq((counters[4] == 0) & (counters[5] == 0) & (counters[6] == 0))
        closes, visit = ends[4], counters[3]
        self._pixel_address(m, running, counters, ends)
        self._weight_address(m, running, ends)
        inside = self._inside
        sums, closed = self._accumulate(m, opens, closes, running, inside, out_word, ends)
        self._finish(m, sums, closed, closes, visit, ends)
        m.d.comb += self.shell.done.eq(delay(m, ends[0], DRAIN))
        return m

    def _pixel_address(self, m: Module, running: Signal, counters: list[Signal],
                       ends: list[Value]) -> None:
        """Two cycles after a trip is issued `in_address` is set; padding is noted in `_inside`."""
        _, row, column, visit, _, kernel_row, kernel_column = counters
        pool, upsample = self._head("pool"), self._head("upsample")
        positions = register(m, (self._head("in_rows") * self._head("in_columns"))[:16])
        word_offset = Signal(16)
        with m.If(self.shell.start | ends[4]):
            m.d.sync += word_offset.eq(0)
        with m.Elif(ends[5]):
            m.d.sync += word_offset.eq(word_offset + positions)
        y, x = Signal(signed(20)), Signal(signed(20))
        out_row = (row << pool) + Mux(pool, visit[1], 0)
        out_column = (column << pool) + Mux(pool, visit[0], 0)
        stride = self._head("stride")
        m.d.sync += [
            y.eq(out_row[:16] * stride + kernel_row - self._head("pad_top")),
            x.eq(out_column[:16] * stride + kernel_column - self._head("pad_left")),
        ]
        inside = register(m, (y >= 0) & (x >= 0) & (y < (self._head("in_rows") << upsample))
                          & (x < (self._head("in_columns") << upsample)))
        place = Signal(len(self.in_address))
        m.d.sync += place.eq(self._head("in_base") + delay(m, word_offset, 1)
                             + (y >> upsample)[:16] * self._head("in_columns")
                             + (x >> upsample)[:16])
        m.d.comb += self.in_address.eq(place)
        self._inside = delay(m, inside, _PIXEL - 2)

    def _weight_address(self, m: Module, running: Signal, ends: list[Value]) -> None:
        """Weights of a block of output channels lie in the order of the trips of a position."""
        address, block = Signal.like(self.weight_address), Signal.like(self.weight_address)
        with m.If(self.shell.start):
            m.d.sync += [address.eq(self._head("weight_base")),
                         block.eq(self._head("weight_base"))]
        with m.Elif(ends[1]):
            m.d.sync += [address.eq(address + 1), block.eq(address + 1)]
        with m.Elif(ends[4]):
            m.d.sync += address.eq(block)
        with m.Elif(running):
            m.d.sync += address.eq(address + 1)
        m.d.comb += self.weight_address.eq(delay(m, address, _PIXEL - 1))

    def _accumulate(self, m: Module, opens: Signal, closes: Value, running: Signal,
                    inside: Value, out_word: Signal, ends: list[Value]
                    ) -> tuple[list[Signal], Value]:
        """Products, their sums over tn, and the running sums of a position."""
        pixels = [register(m, Mux(inside, value, 0)) for value in
                  signed_bytes(self.in_data, self.tn)]
        weights = [register(m, value) for value in
                   signed_bytes(self.weight_data, self.tm * self.tn)]
        first_entry = (self._head("parameter_base") >> (self.tm.bit_length() - 1))
        m.d.comb += self.parameter_address.eq(
            delay(m, (first_entry + out_word)[: len(self.parameter_address)], _SUM - 2))
        partial = Signal.like(self.partial_read_address)
        with m.If(self.shell.start):
            m.d.sync += partial.eq(0)
        with m.Elif(ends[4]):
            m.d.sync += partial.eq(partial + 1)
        m.d.comb += self.partial_read_address.eq(delay(m, partial, _SUM - 2))
        opens_now, valid = delay(m, opens, _SUM - 1), delay(m, running, _SUM - 1)
        sums = []
        for lane in range(self.tm):
            products = [register(m, pixels[n] * weights[lane * self.tn + n])
                        for n in range(self.tn)]
            dot = products[0]
            for product in products[1:]:
                dot = dot + product
            bias = self.parameter_data[64 * lane : 64 * lane + 32].as_signed()
            partial_sum = self.partial_read_data[32 * lane : 32 * lane + 32].as_signed()
            total = Signal(signed(32), name=f"sum_{lane}")
            begin = Mux(opens_now, Mux(self._head("first"), bias, partial_sum), total)
            with m.If(valid):
                m.d.sync += total.eq(begin + dot)
            sums.append(total)
        closed = delay(m, closes, _SUM)
        m.d.comb += [
            self.partial_write.eq(closed & ~self._head("last")),
            self.partial_write_address.eq(delay(m, partial, _SUM)),
            self.partial_write_data.eq(Cat(sums)),
        ]
        return sums, closed

    def _finish(self, m: Module, sums: list[Signal], closed: Value, closes: Value,
                visit: Signal, ends: list[Value]) -> None:
        """Requantize, ReLU, skip addition, pool, write."""
        place = Signal.like(self.out_address)
        with m.If(self.shell.start):
            m.d.sync += place.eq(self._head("out_base"))
        with m.Elif(ends[3]):
            m.d.sync += place.eq(place + 1)
        m.d.comb += self.skip_address.eq(delay(m, place, _SKIP - 1))
        new, skip = (self._head(f"add_multiplier_{name}", MULTIPLIER_BITS)
                     for name in ("new", "skip"))
        add_shift = self._head("add_shift", SHIFT_BITS)
        results = []
        opens_pool, closed_pool = delay(m, visit == 0, DRAIN - 1), delay(m, closes, DRAIN - 1)
        for lane, total in enumerate(sums):
            entry = register(m, self.parameter_data[64 * lane + 32 : 64 * lane + 56])
            multiplier = entry[:MULTIPLIER_BITS].as_signed()
            shift = register(m, entry[MULTIPLIER_BITS : MULTIPLIER_BITS + SHIFT_BITS])
            product = register(m, total * multiplier)
            rounded = register(m, rounding(product, shift))
            value = register(m, self._rectified(saturate(rounded >> register(m, shift))))
            old = self.skip_data[8 * lane : 8 * lane + 8].as_signed()
            both = register(m, Mux(self._head("add"), value * new + old * skip, value))
            rounded = register(m, Mux(self._head("add"), rounding(both, add_shift), both))
            added = register(m, saturate(rounded >> Mux(self._head("add"), add_shift, 0)))
            pooled = Signal(signed(11), name=f"pooled_{lane}")
            with m.If(closed_pool):
                m.d.sync += pooled.eq(Mux(opens_pool, 0, pooled) + added)
            four = Signal(signed(12), name=f"four_{lane}")
            m.d.comb += four.eq(Mux(self._head("pool"),
                                    rounding(pooled, Value.cast(2)) >> 2, pooled))
            results.append(four[:8])
        self._write(m, results, place, closes, ends)

    def _rectified(self, value: Value) -> Value:
        return Mux(self._head("relu") & (value < 0), 0, value).as_signed()

    def _write(self, m: Module, results: list[Value], place: Signal, closes: Value,
               ends: list[Value]) -> None:
        m.d.comb += [
            self.out_write.eq(delay(m, ends[3], DRAIN) & self._head("last")),
            self.out_address.eq(delay(m, place, DRAIN)),
            self.out_data.eq(Cat(results)),
        ]

"""What leaves the convolution's array: requantize, ReLU, skip addition, 2x2 average, one word.

It multiplies no weights and holds no partial sums.

A group of output positions, one a column of unroll, ends with `columns * tm` sums at once. They
wait in a shift register and leave `requantizers` channels a cycle, column by column, so a group
takes `columns * tm / requantizers` cycles; the array works on the next group meanwhile. OUTPUT has
one write port, and parameters are read as words of `requantizers` entries. The bias is added here
and not in the array, where all `tm` of them would be needed in one cycle.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib.memory import Memory

from cosim.program.table import Opcode
from hw.rtl.pipeline import delay, register, rounding, saturate, signed_bytes
from hw.rtl.shell import Shell

MULTIPLIER_BITS = 16
SHIFT_BITS = 6
SUM_BITS = 32
POOLED_BITS = 10
#: Cycles from a slice's place in the register to these stages.
SKIP, WRITE = 4, 8


class Results(Elaboratable):
    """`capture` takes `sums` (column by column) and what is known of their positions.

    `real`: which columns lie in the tile. `lower`, `half`: under a pool, the second row of a
    square, and the second visit of a row if a visit has an odd number of columns. `entry`: the
    parameter word of the first slice. `adds`, `pools`: which fusions are built.
    """

    def __init__(self, shell: Shell, tm: int, columns: int, requantizers: int,
                 adds: bool = True, pools: bool = True, address_bits: int = 16) -> None:
        self.shell = shell
        self.tm, self.columns, self.requantizers = tm, columns, requantizers
        self.slices = tm // requantizers
        self.adds, self.pools = adds, pools
        self.capture = Signal()
        self.sums = Signal(SUM_BITS * tm * columns)
        self.real = Signal(columns)
        self.lower, self.half = Signal(), Signal()
        self.entry = Signal(address_bits)
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64 * requantizers)
        self.skip_address = Signal(address_bits)
        self.skip_data = Signal(8 * tm)
        self.out_write = Signal()
        self.out_address = Signal(address_bits)
        self.out_data = Signal(8 * tm)

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.CONVOLUTION, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the register, the lanes and the words."""
        m = Module()
        waiting = Signal.like(self.sums)
        valid = Signal()
        part, column = Signal(range(max(2, self.slices))), Signal(range(max(2, self.columns)))
        real, lower, half = Signal(self.columns), Signal(), Signal()
        entry = Signal.like(self.entry)
        ends = part == self.slices - 1
        with m.If(self.capture):
            m.d.sync += [waiting.eq(self.sums), valid.eq(1), part.eq(0), column.eq(0),
                         real.eq(self.real), lower.eq(self.lower), half.eq(self.half),
                         entry.eq(self.entry)]
        with m.Elif(valid):
            m.d.sync += [
                waiting.eq(waiting >> (SUM_BITS * self.requantizers)),
                part.eq(Mux(ends, 0, part + 1)), column.eq(column + ends),
                valid.eq(~(ends & (column == self.columns - 1)))]
        m.d.comb += self.parameter_address.eq(entry + part)
        odd = (half ^ column[0]) if self.columns % 2 else column[0]
        pool = self._head("pool") if self.pools else Const(0, 1)
        emits = ~pool | (lower & odd)
        place = Signal.like(self.out_address)
        word_ends = delay(m, valid & ends & real.bit_select(column, 1) & emits, SKIP)
        with m.If(self.shell.start):
            m.d.sync += place.eq(self._head("out_base"))
        with m.Elif(word_ends):
            m.d.sync += place.eq(place + 1)
        m.d.comb += [self.skip_address.eq(place),
                     self.out_address.eq(delay(m, place, WRITE - SKIP)),
                     self.out_write.eq(delay(m, word_ends, WRITE - SKIP))]
        lanes = [self._lane(m, lane, waiting, delay(m, part, SKIP + 1))
                 for lane in range(self.requantizers)]
        if self.pools:
            square = Mux(half, self.columns, 0) + column
            lanes = self._pool(m, lanes, delay(m, valid, WRITE), delay(m, ~lower & ~odd, WRITE),
                               delay(m, square >> 1, WRITE), delay(m, part, WRITE))
        self._gather(m, Cat(value[:8] for value in lanes), delay(m, valid, WRITE))
        return m

    def _lane(self, m: Module, lane: int, waiting: Signal, part: Value) -> Value:
        """One channel of a slice; its value comes WRITE cycles after the slice."""
        total = register(m, waiting[SUM_BITS * lane : SUM_BITS * (lane + 1)].as_signed())
        entry = self.parameter_data[64 * lane : 64 * lane + 56]
        biased = register(m, (total + entry[:32].as_signed())[:SUM_BITS].as_signed())
        later = register(m, entry[32:])
        multiplier = later[:MULTIPLIER_BITS].as_signed()
        shift = register(m, later[MULTIPLIER_BITS : MULTIPLIER_BITS + SHIFT_BITS])
        rounded = register(m, rounding(register(m, biased * multiplier), shift))
        value = saturate(rounded >> register(m, shift))
        value = register(m, Mux(self._head("relu") & (value < 0), 0, value).as_signed())
        if not self.adds:
            return delay(m, value, WRITE - SKIP - 1)
        new, skip = (self._head(f"add_multiplier_{name}", MULTIPLIER_BITS)
                     for name in ("new", "skip"))
        shift = self._head("add_shift", SHIFT_BITS)
        adds = self._head("add")
        old = signed_bytes(self.skip_data.word_select(part, 8 * self.requantizers),
                           self.requantizers)[lane]
        both = register(m, Mux(adds, value * new + old * skip, value))
        rounded = register(m, Mux(adds, rounding(both, shift), both))
        return register(m, saturate(rounded >> Mux(adds, shift, 0)))

    def _pool(self, m: Module, lanes: list[Value], valid: Value, opens: Value, square: Value,
              part: Value) -> list[Value]:
        """Sums of the open squares in a small memory; the mean once a square is whole."""
        squares = self.columns if self.columns % 2 else self.columns // 2
        m.submodules.squares = memory = Memory(
            shape=unsigned(POOLED_BITS * len(lanes)), depth=max(2, squares * self.slices), init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        place = Signal.like(write.addr)
        for index in range(squares):
            with m.If(square == index):
                m.d.comb += place.eq(index * self.slices + part)
        pool, sums, found = self._head("pool"), [], []
        for lane, value in enumerate(lanes):
            before = read.data.word_select(lane, POOLED_BITS).as_signed()
            pooled = Signal(signed(POOLED_BITS), name=f"pooled_{lane}")
            m.d.comb += pooled.eq(Mux(opens | ~pool, 0, before) + value)
            sums.append(pooled)
            mean = rounding(pooled, Value.cast(2)) >> 2
            found.append(Mux(pool, mean, pooled))
        m.d.comb += [read.addr.eq(place), write.addr.eq(place), write.en.eq(valid),
                     write.data.eq(Cat(sums))]
        return found

    def _gather(self, m: Module, values: Value, valid: Value) -> None:
        """The slices of a word in their order; the last one is not stored first."""
        if self.slices == 1:
            m.d.comb += self.out_data.eq(values)
            return
        before = Signal(len(self.out_data) - len(values))
        with m.If(valid):
            m.d.sync += before.eq(Cat(before, values)[len(values):])
        m.d.comb += self.out_data.eq(Cat(before, values))

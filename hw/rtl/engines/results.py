"""What leaves the convolution's array: requantize, ReLU, skip addition, 2x2 average, one word.

It multiplies no weights and holds no partial sums.

A group of output positions, one a column of unroll, ends with `columns * tm` sums at once. They
are held and leave `requantizers` channels a cycle, a slice, column by column, so a group takes
`columns * tm / requantizers` cycles; the array works on the next group meanwhile. OUTPUT has one
write port, and parameters are read as words of `requantizers` entries. The bias is added here and
not in the array, where all `tm` of them would be needed in one cycle.
"""

from __future__ import annotations

from amaranth.hdl import (
    Array,
    Cat,
    Const,
    Elaboratable,
    Module,
    Mux,
    Signal,
    Value,
    unsigned,
)
from amaranth.lib.memory import Memory

from cosim.program.table import Opcode
from hw.rtl.engines.array import SUM_BITS
from hw.rtl.pipeline import (
    PRODUCT,
    ROUND,
    WIDE_PRODUCT,
    delay,
    late,
    product,
    register,
    round_shift,
    signed_bytes,
    wide_product,
)
from hw.rtl.shell import Shell

MULTIPLIER_BITS = 16
SHIFT_BITS = 6
POOLED_BITS = 10
#: Cycles by which a group is announced before its sums are there: so long parameters take.
ANNOUNCE = 2
# Cycles from a slice's turn to these places: its sums, with the bias, as 8 bits; the address of
# its skip word and the word's bytes; behind the skip addition; in the sums of a pool.
_SUMS, _BIASED = 3, 4
_VALUE = _BIASED + WIDE_PRODUCT + ROUND
_OLD = _VALUE + PRODUCT - 1 - PRODUCT  # old * multiplier is what the other product is added to
_SKIP = _OLD - 3
_ADDED = _VALUE + PRODUCT + ROUND
_POOLED = _ADDED + 1
#: Cycles from a sum and its entry to the result: `requantize`.
REQUANTIZE = _VALUE - _SUMS
#: Cycles from a slice's turn to its place in a word of OUTPUT.
WRITE = _POOLED + 1
#: Cycles from the sums of a group to its last result, less those in which results leave.
RESULTS = WRITE - ANNOUNCE


def requantize(m: Module, total: Value, entry: Value, positive: Value) -> Signal:
    """(total + offset) * multiplier >> shift, rounded and clipped to 8 bits.

    `total` is a signed sum of 32 bits; `entry` a parameter entry (offset 32, multiplier 16, shift
    6 bits). The value comes REQUANTIZE cycles after them. Sources of all but the carry chain
    of the offset are registers; two DSP48.
    """
    biased = register(m, (total + entry[:SUM_BITS].as_signed())[:SUM_BITS].as_signed())
    multiplier = register(m, entry[SUM_BITS : SUM_BITS + MULTIPLIER_BITS].as_signed())
    at = SUM_BITS + MULTIPLIER_BITS
    shift = late(m, entry[at : at + SHIFT_BITS], 1 + WIDE_PRODUCT)
    return round_shift(m, wide_product(m, biased, multiplier), shift, positive=positive)


class Results(Elaboratable):
    """`capture` takes `sums` (column by column); `announce` comes ANNOUNCE cycles before it, with
    what is known of the positions.

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
        self.announce, self.capture = Signal(), Signal()
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
        """Build the turns of the slices, the lanes and the words."""
        m = Module()
        valid = Signal()
        part, column = Signal(range(max(2, self.slices))), Signal(range(max(2, self.columns)))
        turn = Signal(range(max(2, self.slices * self.columns)))
        real, lower, half = Signal(self.columns), Signal(), Signal()
        entry = Signal.like(self.entry)
        ends = part == self.slices - 1
        with m.If(self.announce):
            m.d.sync += [valid.eq(1), part.eq(0), column.eq(0), turn.eq(0), real.eq(self.real),
                         lower.eq(self.lower), half.eq(self.half), entry.eq(self.entry)]
        with m.Elif(valid):
            m.d.sync += [
                part.eq(Mux(ends, 0, part + 1)), column.eq(column + ends), turn.eq(turn + 1),
                real.eq(real >> ends), valid.eq(~(ends & (column == self.columns - 1)))]
        m.d.sync += self.parameter_address.eq(entry + part)
        odd = (half ^ column[0]) if self.columns % 2 else column[0]
        pool = self._head("pool") if self.pools else Const(0, 1)
        self._places(m, valid & ends & real[0] & (~pool | (lower & odd)))
        slices = self._slices(m, late(m, turn, _SUMS - 1))
        old = self._old(m, late(m, part, _OLD - 1)) if self.adds else []
        lanes = [self._lane(m, lane, total, old) for lane, total in enumerate(slices)]
        if self.pools:
            square = Mux(half, self.columns, 0) + column
            lanes = self._pool(m, lanes, delay(m, valid, _ADDED),
                               late(m, (~lower & ~odd) | ~pool, _ADDED),
                               late(m, self._square(square >> 1, part), _ADDED))
        else:
            lanes = [late(m, value, WRITE - _ADDED) for value in lanes]
        self._gather(m, Cat(value[:8] for value in lanes), delay(m, valid, WRITE))
        return m

    def _slices(self, m: Module, turn: Value) -> list[Signal]:
        """The sums of the slice whose turn it is."""
        held = Signal.like(self.sums, reset_less=True)
        with m.If(self.capture):
            m.d.sync += held.eq(self.sums)
        bits = SUM_BITS * self.requantizers
        now = register(m, Array(held.word_select(index, bits)
                                for index in range(len(held) // bits))[turn])
        return [now.word_select(lane, SUM_BITS).as_signed() for lane in range(self.requantizers)]

    def _places(self, m: Module, word_ends: Value) -> None:
        """Words follow each other in OUTPUT, and the skip words they are added to."""
        place = Signal.like(self.out_address)
        word_ends = delay(m, word_ends, _SKIP)
        with m.If(self.shell.begins):
            m.d.sync += place.eq(self._head("out_base"))
        with m.Elif(word_ends):
            m.d.sync += place.eq(place + 1)
        m.d.comb += [self.skip_address.eq(place),
                     self.out_address.eq(late(m, place, WRITE - _SKIP)),
                     self.out_write.eq(delay(m, word_ends, WRITE - _SKIP))]

    def _old(self, m: Module, part: Value) -> list[Value]:
        """The skip values of a slice."""
        word = register(m, self.skip_data)
        values = register(m, word.word_select(part, 8 * self.requantizers))
        return signed_bytes(values, self.requantizers)

    def _lane(self, m: Module, lane: int, total: Value, old: list[Value]) -> Value:
        """One channel of a slice; its value comes _ADDED cycles after the slice's turn."""
        entry = register(m, self.parameter_data.word_select(lane, 64))
        value = requantize(m, total, entry, self._head("relu"))
        if not self.adds:
            return late(m, value, _ADDED - _VALUE)
        adds = self._head("add")
        new, skip, shift = (register(m, Mux(adds, self._head(name, bits), other)) for
                            name, bits, other in (
                                ("add_multiplier_new", MULTIPLIER_BITS, Const(1, 2)),
                                ("add_multiplier_skip", MULTIPLIER_BITS, 0),
                                ("add_shift", SHIFT_BITS, 0)))
        both = product(m, value, new.as_signed(), product(m, old[lane], skip.as_signed()))
        return round_shift(m, both, shift)

    def _square(self, square: Value, part: Value) -> Value:
        """Where the sums of a slice of a square lie."""
        return (square * self.slices + part)[:max(1, (self._squares() - 1).bit_length())]

    def _squares(self) -> int:
        """Slices of the squares that a group opens."""
        return max(2, self.slices * (self.columns if self.columns % 2 else self.columns // 2))

    def _pool(self, m: Module, lanes: list[Value], valid: Value, opens: Value, place: Value
              ) -> list[Value]:
        """Sums of the open squares in a small memory; the mean once a square is whole."""
        m.submodules.squares = memory = Memory(
            shape=unsigned(POOLED_BITS * len(lanes)), depth=self._squares(), init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        pool, sums, found = self._head("pool"), [], []
        for lane, value in enumerate(lanes):
            before = read.data.word_select(lane, POOLED_BITS).as_signed()
            sums.append((Mux(opens, 0, before).as_signed() + value)[:POOLED_BITS].as_signed())
            pooled = register(m, sums[-1])
            up = pooled[1] & (pooled[0] | pooled[2])
            found.append(register(m, Mux(pool, (pooled >> 2) + up, pooled)[:8]))
        m.d.comb += [read.addr.eq(place), write.addr.eq(place), write.en.eq(valid),
                     write.data.eq(Cat(sums))]
        return found

    def _gather(self, m: Module, values: Value, valid: Value) -> None:
        """The slices of a word in their order; the last one is not stored first."""
        if self.slices == 1:
            m.d.comb += self.out_data.eq(values)
            return
        before = Signal(len(self.out_data) - len(values), reset_less=True)
        with m.If(valid):
            m.d.sync += before.eq(Cat(before, values)[len(values):])
        m.d.comb += self.out_data.eq(Cat(before, values))

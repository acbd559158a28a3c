"""Small parts that engines share: loop nests, delays, products, rounding in stages.

It holds no engine and no state of its own beyond what these functions add to a module.

Every part says in how many cycles its value comes: LOOP_FILL, PRODUCT, WIDE_PRODUCT, ROUND. They
are cut so that a cycle holds a few LUTs or one carry chain, and so that multipliers, their
operands, products and sums are registers of a DSP48 (A, B, M, P) or its cascade (PCIN).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, ValueLike

#: Cycles from the start of a loop nest to its first step.
LOOP_FILL = 2
#: As much for a nest with a pace.
PACED_FILL = LOOP_FILL + 1
#: Cycles from operands to their product and its sum with `plus`, which is read `PLUS` cycles
#: after the operands.
PRODUCT, PLUS = 3, 2
#: Cycles from operands of up to 35 x 18 bits to their product, in two DSP48.
WIDE_PRODUCT = 4
_LOW_BITS = 17  # what the cascade of a DSP48 can shift away
#: Cycles from a value to its rounded and saturated shift.
ROUND = 6


class Moves(Enum):
    """The cycles in which the innermost of some loops steps."""

    STEADY = "steady"  # all from the one after the loops begin to the last step
    ANY = "any"
    APART = "apart"  # two cycles apart at least


def loop_nest(m: Module, start: Value, limits: Sequence[ValueLike],
              steps: Sequence[ValueLike] | None = None, bits: int = 16,
              singles: Mapping[int, Value] | None = None
              ) -> tuple[Value, list[Signal], list[Value]]:
    """Counters of nested loops, outermost first, one step a cycle from LOOP_FILL after `start`.

    Returns (trip, counters, ends): `trip` is high in every step; `ends[k]` in the last step of
    loop k and of every loop inside it. A counter runs from 0 below its limit in steps of 1 or
    `steps[k]`, at least once. Limits and steps hold from the cycle of `start` on. `singles[k]`:
    for a limit that moves with the loops around loop k, is the pass that begins in the next cycle
    a single step?

    Whether a step is a loop's last one is known two steps ahead, and whether it is that of all
    loops from one inwards, one step: ends are registers.
    """
    begins, trip = register(m, start), Signal()
    counters, _, ends = count_loops(m, begins, trip, limits, steps, bits, singles,
                                   Moves.STEADY)
    with m.If(begins | ends[0]):
        m.d.sync += trip.eq(begins)
    return trip, counters, ends


def paced_nest(m: Module, start: Value, limits: Sequence[ValueLike], steps: Sequence[ValueLike],
               pace: tuple[int, int], singles: Mapping[int, Value] | None = None, bits: int = 16
               ) -> tuple[Value, list[Signal], list[Value], Value]:
    """As `loop_nest`, from PACED_FILL after `start`, and `finished`: the last cycle.

    With `pace` (k, cycles) one pass of loop k and the loops inside it takes that many cycles at
    least: it waits behind its last step. A pass of two cycles gives the loops around it a cycle
    to themselves.
    """
    level, least = pace
    if least < 2:
        trip, counters, ends = loop_nest(m, start, limits, steps, bits, singles)
        ended = [delay(m, end, 1) for end in ends]
        return delay(m, trip, 1), [register(m, one) for one in counters], ended, ended[0]
    begins, trip = register(m, start), Signal()
    inner, _, inner_ends = count_loops(m, begins, trip, limits[level:], steps[level:], bits)
    passes = inner_ends[0]
    passed = delay(m, passes, 1)
    outer, lasts, outer_ends = count_loops(m, begins, passed, limits[:level], steps[:level],
                                           bits, singles, Moves.APART)
    outer_ended = Signal()
    first = Cat((singles or {}).get(index, register(m, Value.cast(steps[index]) >= limits[index]))
                for index in range(level)).all()
    m.d.sync += outer_ended.eq(Mux(begins, first, Cat(lasts).all()))
    spent, rested, waits, final = Signal(range(least)), Signal(), Signal(), Signal()
    # A pass of three cycles at least knows by a register whether it is the last one.
    every, finished = Cat(lasts).all() if least == 2 else outer_ended, Signal()
    opens = begins | (rested & (passes | waits))
    m.d.comb += finished.eq(rested & Mux(waits, final, passes & every))
    opened = delay(m, opens, 1)
    with m.If(opened):
        m.d.sync += spent.eq(0)
    with m.Elif(~rested):
        m.d.sync += spent.eq(spent + 1)
    due = opened if least == 2 else ~opened & (spent == least - 3)
    m.d.sync += [rested.eq(~opens & (rested | due)),
                 trip.eq(Mux(opens, ~finished, trip & ~passes))]
    with m.If(passes):
        m.d.sync += [waits.eq(~rested), final.eq(every)]
    with m.Elif(rested):
        m.d.sync += waits.eq(0)
    return (delay(m, trip, 1), [*outer, *(register(m, one) for one in inner)],
            [*outer_ends, *(delay(m, end, 1) for end in inner_ends)], delay(m, finished, 1))


def count_loops(m: Module, begins: Value, moves: Value, limits: Sequence[ValueLike],
                steps: Sequence[ValueLike] | None = None, bits: int = 16,
                singles: Mapping[int, Value] | None = None, when: Moves = Moves.ANY
                ) -> tuple[list[Signal], list[Signal], list[Value]]:
    """(counters, lasts, ends) of loops whose innermost counter `moves`, as in `loop_nest`.

    They are ready a cycle after `begins`, with limits that hold from the cycle before it on, and
    begin with the counters that they ended with: zero if they went to their end.
    `when`: the cycles that may move.
    """
    count = len(limits)
    strides = [1] * count if steps is None else steps
    lasts, nears, alls = ([Signal(name=f"{name}_{index}") for index in range(count)]
                          for name in ("last", "near", "last_from"))
    steady = when is Moves.STEADY
    ends: list[Value] = [*alls] if steady else [moves & every for every in alls]
    counters: list[Signal] = []
    firsts, laters = [], []
    for index, (last, near) in enumerate(zip(lasts, nears, strict=True)):
        limit, step = Value.cast(limits[index]), Value.cast(strides[index])
        counter = Signal(min(bits, max(1, len(limit))), name=f"loop_{index}")
        single = (singles or {}).get(index, register(m, step >= limit))
        double, triple = (step << 1) >= limit, step + (step << 1)
        if not isinstance(step, Const):
            # The sign of a sum: a comparison has LUTs before its carry chain.
            double = (limit + ~Cat(step << 1, Const(0, 1)).as_signed())[-1]
            step, triple = register(m, step), register(m, triple)
        double = register(m, double)
        beyond = register(m, triple - limit)
        move = ends[index + 1] if index + 1 < count else moves
        with m.If(begins | ends[index]):
            m.d.sync += [last.eq(single), near.eq(double)]
        with m.Elif(move):
            m.d.sync += [last.eq(near), near.eq(counter + beyond >= 0)]
        with m.If(move):  # every nest ends with counters of zero, where the next one begins
            m.d.sync += counter.eq(Mux(last, 0, counter + step))
        counters.append(counter)
        firsts.append(single)
        moved = Mux(last, single, near)
        laters.append(Mux(alls[index + 1], moved, last) if index + 1 < count else moved)
    for index, every in enumerate(alls):
        if when is Moves.APART:
            m.d.sync += every.eq(Cat(lasts[index:]).all())
            continue
        coming = Cat(laters[index:]).all()
        with m.If(begins):
            m.d.sync += every.eq(Cat(firsts[index:]).all())
        with m.Elif(Const(1, 1) if steady else moves):
            m.d.sync += every.eq(coming & moves & ~alls[0] if steady else coming)
    return counters, lasts, ends


def delay(m: Module, value: ValueLike, cycles: int) -> Value:
    """`value`, that many cycles later. Reset clears what is on its way: for control."""
    now = Value.cast(value)
    for _ in range(cycles):
        later = Signal(now.shape())
        m.d.sync += later.eq(now)
        now = later
    return now


def late(m: Module, value: ValueLike, cycles: int) -> Value:
    """`value`, that many cycles later, without a reset: for data, in shift registers of LUTs.

    Those are slow to show what they hold, so the last of more than two cycles is a flip-flop:
    with a reset, which a shift register has not.
    """
    now = Value.cast(value)
    for _ in range(cycles if cycles <= 2 else cycles - 1):
        now = register(m, now)
    return now if cycles <= 2 else delay(m, now, 1)


def register(m: Module, value: ValueLike) -> Signal:
    """`value`, one cycle later, as a signal of the same shape; without a reset."""
    found = Signal(Value.cast(value).shape(), reset_less=True)
    m.d.sync += found.eq(value)
    return found


def choose(flag: Value, one: Value, other: Value) -> Value:
    """`Mux` of signed values as gates: the tool would make a clock enable of one that keeps what
    it has, which is a net more."""
    mask = flag.replicate(len(one))
    return ((one & mask) | (other & ~mask)).as_signed()


def product(m: Module, left: ValueLike, right: ValueLike, plus: ValueLike | None = None) -> Signal:
    """`left * right + plus` in one DSP48 (25 x 18 bits, 48 of the sum).

    PRODUCT cycles after the operands, and PRODUCT - PLUS after `plus`.
    """
    found = register(m, register(m, left) * register(m, right))
    return register(m, found if plus is None else found + plus)


def dot(m: Module, lefts: Sequence[ValueLike], rights: Sequence[ValueLike],
        plus: ValueLike | None = None) -> Signal:
    """The sum of products down a cascade of DSP48, and `plus`: no adder outside of them.

    Operands n come n cycles after operands 0; `plus` comes PLUS cycles after these, and the sum
    PRODUCT + number - 1.
    """
    total: Value | None = None if plus is None else Value.cast(plus)
    for left, right in zip(lefts, rights, strict=True):
        total = product(m, left, right, total)
    assert isinstance(total, Signal)
    return total


def wide_product(m: Module, left: Value, right: Value) -> Value:
    """`left * right` of signed values, up to 35 x 18 bits, WIDE_PRODUCT cycles later."""
    low = product(m, Cat(left[:_LOW_BITS], Const(0, 1)).as_signed(), right)
    high = product(m, register(m, left[_LOW_BITS:].as_signed()), register(m, right),
                   low >> _LOW_BITS)
    return Cat(register(m, low[:_LOW_BITS]), high)[:len(left) + len(right)].as_signed()


def round_shift(m: Module, value: Value, shift: Value, bits: int = 8,
                positive: ValueLike = 0) -> Signal:
    """`value >> shift` rounded half to even and clipped to signed `bits`, ROUND cycles later.

    With `positive`, which is read with the rest, negative results become 0. The shift is made by
    16, 4 and 1; each stage keeps the bits that the rest of the shift can reach, and of the others
    only whether one is lost (`over`: they differ from the sign) or left behind (`sticky`).
    """
    now = Cat(Const(0, 1), value).as_signed()  # bit 0: the half
    over, sticky = Const(0, 1), Const(0, 1)
    clips, shift = register(m, positive), register(m, Cat(shift, Const(0, 6))[:6])
    for low, rest in ((4, 15), (2, 3), (0, 0)):
        kept, select = bits + 1 + rest, shift[low : low + 2]
        flags, now, sign = _flags(m, now, 1 << low, kept, first=low == 4)
        over = register(m, over | flags[0][select])
        sticky = register(m, sticky | flags[1][select])
        now = register(m, Array(_cut(now, sign, places << low, kept) for places in range(4))
                       [select].as_signed())
        now = Cat(now[:kept], register(m, sign)).as_signed()
        clips = register(m, clips)
        shift = register(m, shift[:low]) if low else shift
    sign, top = now[-1], now[-2]
    up = now[0] & (sticky | now[1])
    rounded = register(m, (now[1:-1].as_signed() + up)[:bits + 1])
    over = register(m, over | (top ^ sign))
    sign, clips = register(m, sign), register(m, clips)
    greatest = (1 << (bits - 1)) - 1
    above = (over | (rounded[-2] & ~rounded[-1])) & ~sign
    found = Signal(range(-greatest - 1, greatest + 1), reset_less=True)
    m.d.sync += found.eq(rounded[:bits].as_signed())
    with m.If(above):
        m.d.sync += found.eq(greatest)
    with m.If(sign & (over | clips)):
        m.d.sync += found.eq(Mux(clips, 0, -greatest - 1))
    return found


def _cut(value: Value, sign: Value, places: int, kept: int) -> Value:
    """`value >> places` cut to `kept` bits."""
    low = value[places : places + kept]
    return Cat(low, sign.replicate(kept - len(low)))


def _flags(m: Module, value: Value, unit: int, kept: int, first: bool
           ) -> tuple[tuple[Array, Array], Value, Value]:
    """By number of units that `value` is shifted by: does a bit above the kept ones differ from
    the sign, and is one lost? Also `value` and its sign; all a cycle later if `first`."""
    sign = value[-1]
    width = len(value)
    ends = [min(width, places * unit + kept) for places in range(4)] + [width]
    differ = [(value[low:high] ^ sign.replicate(high - low)).any() if high > low else Const(0, 1)
              for low, high in zip(ends, ends[1:], strict=False)]
    lost = [value[places * unit : (places + 1) * unit].any() if places * unit < width
            else Const(0, 1) for places in range(3)]
    if first:
        differ, lost = [register(m, item) for item in differ], [register(m, item) for item in lost]
        value = register(m, value)
        sign = value[-1]
    return ((Array(Cat(differ[places:]).any() for places in range(4)),
             Array(Cat(lost[:places]).any() if places else Const(0, 1) for places in range(4))),
            value, sign)


def rounded(value: Value, bits: int) -> Value:
    """`value >> bits`, rounded half to even, in one carry chain."""
    less_than_half = Const((1 << (bits - 1)) - 1, bits)
    total = (Cat(Const(1, 1), value).as_signed()
             + Cat(value[bits], less_than_half).as_signed())
    return total[1 + bits :].as_signed()


def saturate(value: Value, bits: int = 8) -> Value:
    """`value` clipped to signed `bits`: where a bit above them differs from the sign."""
    sign = value[-1]
    over = (value[bits - 1 : -1] ^ sign.replicate(len(value) - bits)).any()
    return Mux(over, Cat((~sign).replicate(bits - 1), sign), value[:bits])[:bits].as_signed()


def signed_bytes(word: Value, count: int) -> list[Value]:
    """The bytes of a word as signed values, lowest first."""
    return [word[8 * index : 8 * index + 8].as_signed() for index in range(count)]


def slow_divide(m: Module, start: Value, value: Value, divisor: int) -> Value:
    """An unsigned value by a constant, at most one cycle a bit and one more after `start`.

    It reads `value` in the cycle of `start`, or all the time if the divisor is a power of two.
    """
    if divisor & (divisor - 1) == 0:
        return register(m, value >> (divisor.bit_length() - 1))
    quotient = Signal.like(value, reset_less=True)
    rest, left, busy = Signal(range(divisor), reset_less=True), Signal(range(len(value))), Signal()
    wide = Cat(quotient[-1], rest)
    fits = wide >= divisor
    with m.If(start):
        m.d.sync += [quotient.eq(value), rest.eq(0), left.eq(len(value) - 1), busy.eq(1)]
    with m.Elif(busy):
        m.d.sync += [quotient.eq(Cat(fits, quotient)), left.eq(left - 1), busy.eq(left != 0),
                     rest.eq(Mux(fits, wide - divisor, wide))]
    return quotient

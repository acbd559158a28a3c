"""Small parts that engines share: loop nests, delays, products, rounding in stages.

It holds no engine and no state of its own beyond what these functions add to a module.

Every part says in how many cycles its value comes: LOOP_FILL, PRODUCT, WIDE_PRODUCT, ROUND. They
are cut so that a cycle holds a few LUTs or one carry chain, and so that multipliers, their
operands, products and sums are registers of a DSP48 (A, B, M, P) or its cascade (PCIN).
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, ValueLike

#: Cycles from the start of a loop nest to its first step.
LOOP_FILL = 2
#: Cycles from operands to their product and its sum with `plus`, which is read `PLUS` cycles
#: after the operands.
PRODUCT, PLUS = 3, 2
#: Cycles from operands of up to 35 x 18 bits to their product, in two DSP48.
WIDE_PRODUCT = 4
_LOW_BITS = 17  # what the cascade of a DSP48 can shift away
#: Cycles from a value to its rounded and saturated shift.
ROUND = 5


def loop_nest(m: Module, start: Value, limits: Sequence[ValueLike],
              steps: Sequence[ValueLike] | None = None, bits: int = 16,
              pace: tuple[int, int] = (0, 1), singles: dict[int, Value] | None = None
              ) -> tuple[Value, list[Signal], list[Value]]:
    """Counters of nested loops, outermost first, one step a cycle from LOOP_FILL after `start`.

    Returns (trip, counters, ends): `trip` is high in every step; `ends[k]` in the last step of
    loop k and of every loop inside it. A counter runs from 0 below its limit in steps of 1 or
    `steps[k]`, at least once. Limits and steps hold from the cycle of `start` on. With `pace`
    (k, cycles) one pass of loop k and the loops inside it takes that many cycles at least: its
    last step waits. `singles[k]`: for a limit that moves with the loops around loop k, is the
    pass that begins in the next cycle a single step?

    Whether a step is a loop's last one is known one step ahead, so a cycle holds no comparison
    and then a counter.
    """
    running, begins = Signal(), register(m, start)
    strides = [1] * len(limits) if steps is None else steps
    lasts = [Signal(name=f"last_{index}") for index in range(len(limits))]
    trip: Value = running
    level, least = pace
    if least > 1:
        spent, rested = Signal(range(least)), Signal()
        pass_ends = Cat(lasts[level:]).all()
        trip = running & (~pass_ends | rested)
        with m.If(begins | (trip & pass_ends)):
            m.d.sync += [spent.eq(0), rested.eq(0)]
        with m.Elif(running & ~rested):
            m.d.sync += [spent.eq(spent + 1), rested.eq(spent == least - 2)]
    counters: list[Signal] = []
    ends: list[Value] = []
    inner = trip
    for index, last in reversed(list(enumerate(lasts))):
        limit, step = Value.cast(limits[index]), Value.cast(strides[index])
        counter = Signal(min(bits, max(1, len(limit))), name=f"loop_{index}")
        single = (singles or {}).get(index, register(m, step >= limit))
        beyond = register(m, (step << 1) - limit)  # of the step after the next, at counter 0
        with m.If(begins | (inner & last)):
            m.d.sync += [counter.eq(0), last.eq(single)]
        with m.Elif(inner):
            m.d.sync += [counter.eq(counter + step), last.eq(counter + beyond >= 0)]
        inner = inner & last
        counters.insert(0, counter)
        ends.insert(0, inner)
    with m.If(begins):
        m.d.sync += running.eq(1)
    with m.Elif(ends[0]):
        m.d.sync += running.eq(0)
    return trip, counters, ends


def delay(m: Module, value: ValueLike, cycles: int) -> Value:
    """`value`, that many cycles later. Reset clears what is on its way: for control."""
    now = Value.cast(value)
    for _ in range(cycles):
        later = Signal(now.shape())
        m.d.sync += later.eq(now)
        now = later
    return now


def late(m: Module, value: ValueLike, cycles: int) -> Value:
    """`value`, that many cycles later, without a reset: for data, in shift registers of LUTs."""
    now = Value.cast(value)
    for _ in range(cycles):
        now = register(m, now)
    return now


def register(m: Module, value: ValueLike) -> Signal:
    """`value`, one cycle later, as a signal of the same shape; without a reset."""
    found = Signal(Value.cast(value).shape(), reset_less=True)
    m.d.sync += found.eq(value)
    return found


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
    now = Cat(Const(0, 1), value)  # bit 0: the half
    sign, over, sticky = value.as_signed()[-1], Const(0, 1), Const(0, 1)
    clips = Value.cast(positive)
    shift = Cat(shift, Const(0, 6))
    for low, rest in ((4, 15), (2, 3), (0, 0)):
        kept = bits + 1 + rest
        choices = [_cut(now, sign, places << low, kept) for places in range(4)]
        select = shift[low : low + 2]
        sticky = register(m, sticky | Array([item[2] for item in choices])[select])
        over = register(m, over | Array([item[1] for item in choices])[select])
        now = register(m, Array([item[0] for item in choices])[select])
        sign, clips = register(m, sign), register(m, clips)
        shift = register(m, shift[:low]) if low else shift
    up = now[0] & (sticky | now[1])
    rounded = register(m, (Cat(now[1:], now[-1]).as_signed() + up)[:bits + 1])
    over = register(m, over | (now[-1] ^ sign))
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


def _cut(value: Value, sign: Value, places: int, kept: int) -> tuple[Value, Value, Value]:
    """`value >> places` cut to `kept` bits; does a bit above differ from the sign; is one lost?"""
    count = len(value)
    low = value[places : places + kept] if places < count else Const(0, 0)
    found = Cat(low, sign.replicate(kept - len(low)))
    above = value[places + kept:] if places + kept < count else Const(0, 0)
    differs = (above ^ sign.replicate(len(above))).any() if len(above) else Const(0, 1)
    lost = value[:places].any() if places else Const(0, 1)
    return found, differs, lost


def rounding(value: Value, shift: Value) -> Value:
    """`value` plus what makes the floor of `>> shift` round half to even (shifts up to 47)."""
    width = 1 << len(shift)
    half_less_one = ((1 << shift)[:width] >> 1) - 1
    odd = (value >> shift)[0]
    return (value + Mux(shift == 0, 0, half_less_one + odd))[: max(len(value), 48) + 1].as_signed()


def saturate(value: Value, bits: int = 8) -> Value:
    """`value` clipped to signed `bits`."""
    least, greatest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return Mux(value > greatest, greatest, Mux(value < least, least, value))[:bits].as_signed()


def signed_bytes(word: Value, count: int) -> list[Value]:
    """The bytes of a word as signed values, lowest first."""
    return [word[8 * index : 8 * index + 8].as_signed() for index in range(count)]


def divide(m: Module, value: Value, divisor: int) -> tuple[Value, Value]:
    """(quotient, remainder) of an unsigned value by a constant, in the same cycle.

    A power of two costs nothing; others a few LUTs a bit: one bit of the quotient after another.
    """
    if divisor & (divisor - 1) == 0:
        bits = divisor.bit_length() - 1
        return value[bits:], value[:bits] if bits else Value.cast(0)
    quotient: list[Value] = []
    rest: Value = Value.cast(0)
    for bit in reversed(value):
        wide = Cat(bit, rest)
        fits, left = Signal(), Signal(range(divisor))
        m.d.comb += [fits.eq(wide >= divisor), left.eq(Mux(fits, wide - divisor, wide))]
        quotient.insert(0, fits)
        rest = left
    return Cat(quotient), rest


def slow_divide(m: Module, start: Value, value: Value, divisor: int) -> Value:
    """An unsigned value by a constant, at most one cycle a bit and one more after `start`.

    It reads `value` in the cycle of `start`, or all the time if the divisor is a power of two.
    """
    if divisor & (divisor - 1) == 0:
        return register(m, value >> (divisor.bit_length() - 1))
    quotient = Signal.like(value, reset_less=True)
    rest, left = Signal(range(divisor), reset_less=True), Signal(range(len(value) + 1))
    wide = Cat(quotient[-1], rest)
    fits = wide >= divisor
    with m.If(start):
        m.d.sync += [quotient.eq(value), rest.eq(0), left.eq(len(value))]
    with m.Elif(left != 0):
        m.d.sync += [quotient.eq(Cat(fits, quotient)), left.eq(left - 1),
                     rest.eq(Mux(fits, wide - divisor, wide))]
    return quotient


def tree(values: Sequence[Value]) -> Value:
    """The sum of some values, added in pairs."""
    found = list(values)
    while len(found) > 1:
        pairs = [one + other for one, other in zip(found[::2], found[1::2], strict=False)]
        found = pairs + found[len(pairs) * 2 :]
    return found[0]

"""Small parts that engines share: loop nests, delays, rounding and saturation.

It holds no engine and no state of its own beyond what these functions add to a module.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike


def loop_nest(m: Module, start: Value, limits: Sequence[ValueLike],
              steps: Sequence[ValueLike] | None = None, bits: int = 16,
              pace: tuple[int, int] = (0, 1)) -> tuple[Value, list[Signal], list[Value]]:
    """Counters of nested loops, outermost first, one step a cycle from the cycle after `start`.

    Returns (trip, counters, ends): `trip` is high in every step; `ends[k]` in the last step of
    loop k and of every loop inside it. A counter runs from 0 below its limit in steps of 1 or
    `steps[k]`, at least once. With `pace` (k, cycles) one pass of loop k and the loops inside it
    takes that many cycles at least: its last step waits.
    """
    running = Signal()
    counters = [Signal(bits, name=f"loop_{index}") for index in range(len(limits))]
    strides = [1] * len(limits) if steps is None else steps
    lasts = [Signal(name=f"last_{index}") for index in range(len(limits))]
    for last, counter, limit, step in zip(lasts, counters, limits, strides, strict=True):
        m.d.comb += last.eq(counter + step >= Value.cast(limit))
    trip: Value = running
    level, least = pace
    if least > 1:
        spent = Signal(range(least))
        pass_ends = Cat(lasts[level:]).all()
        trip = running & ~(pass_ends & (spent != least - 1))
        with m.If(start | (trip & pass_ends)):
            m.d.sync += spent.eq(0)
        with m.Elif(running & (spent != least - 1)):
            m.d.sync += spent.eq(spent + 1)
    ends: list[Value] = []
    inner = trip
    for last, counter, step in reversed(list(zip(lasts, counters, strides, strict=True))):
        with m.If(inner):
            m.d.sync += counter.eq(Mux(last, 0, counter + step))
        inner = inner & last
        ends.insert(0, inner)
    with m.If(start):
        m.d.sync += running.eq(1)
    with m.Elif(ends[0]):
        m.d.sync += running.eq(0)
    return trip, counters, ends


def delay(m: Module, value: ValueLike, cycles: int) -> Value:
    """`value`, that many cycles later."""
    now = Value.cast(value)
    for _ in range(cycles):
        later = Signal(now.shape())
        m.d.sync += later.eq(now)
        now = later
    return now


def register(m: Module, value: ValueLike) -> Signal:
    """`value`, one cycle later, as a signal of the same shape."""
    found = Signal(Value.cast(value).shape())
    m.d.sync += found.eq(value)
    return found


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


def tree(values: Sequence[Value]) -> Value:
    """The sum of some values, added in pairs."""
    found = list(values)
    while len(found) > 1:
        pairs = [one + other for one, other in zip(found[::2], found[1::2], strict=False)]
        found = pairs + found[len(pairs) * 2 :]
    return found[0]

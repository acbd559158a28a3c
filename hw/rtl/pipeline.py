"""Small parts that engines share: loop nests, delays, rounding and saturation.

It holds no engine and no state of its own beyond what these functions add to a module.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Mux, Signal, Value, ValueLike, signed


def loop_nest(m: Module, start: Value, limits: Sequence[ValueLike],
              steps: Sequence[ValueLike] | None = None, bits: int = 16
              ) -> tuple[Signal, list[Signal], list[Value]]:
    """Counters of nested loops, outermost first, one step a cycle from the cycle after `start`.

    Returns (running, counters, ends): `ends[k]` is high in the last step of loop k and of every
    loop inside it. A counter runs from 0 below its limit in steps of 1 or `steps[k]`, at least
    once.
    """
    running = Signal()
    counters = [Signal(bits, name=f"loop_{index}") for index in range(len(limits))]
    ends: list[Value] = []
    inner: Value = running
    strides = [1] * len(limits) if steps is None else steps
    for counter, limit, step in reversed(list(zip(counters, limits, strides, strict=True))):
        last = Signal()
        m.d.comb += last.eq(counter + step >= Value.cast(limit))
        with m.If(inner):
            m.d.sync += counter.eq(Mux(last, 0, counter + step))
        inner = inner & last
        ends.insert(0, inner)
    with m.If(start):
        m.d.sync += running.eq(1)
    with m.Elif(ends[0]):
        m.d.sync += running.eq(0)
    return running, counters, ends


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


def signed_signal(bits: int, name: str) -> Signal:
    """A signed signal."""
    return Signal(signed(bits), name=name)

"""The multiply-accumulate array: products, their sums over input channels, and running sums.

It knows no addresses and no loops: operands come with a lag that `lag` states, sums leave in time.

The sum over `tn` goes down the cascade of the DSP48s (PCOUT to PCIN), one product a cycle, so that
no adder stands in the fabric. Input channel n is therefore read `lag` cycles after channel 0:
weights by delaying the address of their memories, pixels, which all output channels share, in
shift registers. Fabric adds the sum of a trip to a running sum, one carry chain.

A packed multiplier holds weights of two output channels in one operand, HIGH bits apart, and its
cascades end after CHAIN products, where the low sum still fits in HIGH bits:

- The operand is `high << HIGH | low + 128`, which 25 bits hold for all weights; WEIGHT holds low
  weights with their sign bit inverted, which is that addition.
- The cascade begins with -1 - 128 * (sum of its pixels). So it ends with
  `(sum of high << HIGH) + (sum of low) - 1`, and the sum of low less one, which lies between
  4 * -128 * 127 - 1 and 4 * 128 * 128 - 1, is the signed value of the lowest HIGH bits. If it is
  negative it has borrowed one from the bits above.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed

from hw.rtl.pipeline import PLUS, PRODUCT, dot, late, register, signed_bytes

SUM_BITS = 32
#: A multiplier of 25 x 18 bits holds two products with a common factor this many bits apart.
HIGH = 17
#: Packed products in one cascade.
CHAIN = 4


def lag(lane: int, packed: bool) -> int:
    """Cycles by which operands of input channel `lane` come behind those of channel 0."""
    if not packed:
        return lane
    chain, place = divmod(lane, CHAIN)
    return place + max(0, chain - 1)  # the first two chains end together, then one a cycle


def array_cycles(tn: int) -> int:
    """Cycles from the pixels of a trip to its sums over `tn`, packed or not; running sums are
    one cycle later."""
    return PRODUCT + tn - 1


def weight_cycles(tn: int, packed: bool) -> int:
    """Cycles from the pixels of a trip to when channel 0's weights have been read."""
    return _head_start(tn, packed) - 1


def _head_start(tn: int, packed: bool) -> int:
    """Packed cascades are shorter and then wait, so that both forms take as long."""
    return tn - CHAIN + 1 - tn // CHAIN if packed else 0


def trip_sums(m: Module, weights: Value, columns: Sequence[Sequence[Value]], tm: int,
              packed: bool) -> list[list[tuple[Value, Value]]]:
    """(sum over tn, one bit that is to be added to it) of every column and output channel.

    `weights`: byte n * tm + channel, each n lagging as `lag` and `weight_cycles` say. `columns`:
    the `tn` pixels of each column, all at once; those outside the image are 0.
    """
    tn = len(columns[0])
    held = [register(m, value) for value in signed_bytes(weights, tm * tn)]
    factors = [held[n * tm : (n + 1) * tm] for n in range(tn)]
    found = []
    for pixels in columns:
        lagging = [late(m, pixel, _head_start(tn, packed) + lag(n, packed))
                   for n, pixel in enumerate(pixels)]
        if packed:
            found.append(_packed_sums(m, factors, pixels, lagging))
        else:
            found.append([(dot(m, [row[channel] for row in factors], lagging), Const(0, 1))
                          for channel in range(tm)])
    return found


def _packed_sums(m: Module, factors: list[list[Signal]], pixels: Sequence[Value],
                 lagging: list[Value]) -> list[tuple[Value, Value]]:
    """As `trip_sums`, of one column: cascades of CHAIN lanes, their halves, and their sums."""
    tn, tm = len(pixels), len(factors[0])
    begins = [_correction(m, pixels, chain) for chain in range(tn // CHAIN)]
    found: list[tuple[Value, Value]] = []
    for channel in range(0, tm, 2):
        ends = []
        for chain, begin in enumerate(begins):
            lanes = range(chain * CHAIN, (chain + 1) * CHAIN)
            both = [Cat(factors[n][channel], Const(0, HIGH - 8), factors[n][channel + 1])
                    .as_signed() for n in lanes]
            ends.append(dot(m, both, [lagging[n] for n in lanes], begin))
        low = _chained(m, [(end[:HIGH].as_signed(), Const(1, 1)) for end in ends])
        high = _chained(m, [(end[HIGH:].as_signed(), end[HIGH - 1]) for end in ends])
        found += [low, high]
    return found


def _correction(m: Module, pixels: Sequence[Value], chain: int) -> Value:
    """What a packed cascade begins with, when its first product is there."""
    tn = len(pixels)
    one, two, three, four = pixels[chain * CHAIN : (chain + 1) * CHAIN]
    left, right = register(m, one + two), register(m, three + four)
    less = register(m, (~left + ~right + 1).as_signed())  # -1 - the sum
    ready, needed = 2, _head_start(tn, True) + lag(chain * CHAIN, True) + PLUS
    return Cat(Const(127, 7), late(m, less, needed - ready)).as_signed()


def _chained(m: Module, ends: list[tuple[Value, Value]]) -> tuple[Value, Value]:
    """The sum of (value, bit) pairs: two that come at once, then one a cycle; the last bit is
    left for whoever adds next."""
    total, bit = ends[0]
    for value, own in ends[1:]:
        total = register(m, _plus(total, value, bit))
        bit = own if isinstance(own, Const) else register(m, own)
    return total, bit


def _plus(one: Value, other: Value, bit: Value) -> Value:
    """`one + other + bit` in one carry chain."""
    return (Cat(Const(1, 1), one).as_signed() + Cat(bit, other).as_signed())[1:].as_signed()


def running_sums(m: Module, trips: Sequence[tuple[Value, Value]], seeds: Sequence[Value],
                 opens: Value, valid: Value, name: str) -> list[Signal]:
    """Sums over the trips of a position: a `valid` trip that `opens` begins with its seed."""
    found = []
    for channel, ((value, bit), seed) in enumerate(zip(trips, seeds, strict=True)):
        total = Signal(signed(SUM_BITS), name=f"{name}_{channel}", reset_less=True)
        with m.If(valid):
            m.d.sync += total.eq(_plus(value, Mux(opens, seed, total).as_signed(), bit))
        found.append(total)
    return found

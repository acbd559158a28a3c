"""One sequential unit that makes the entries of a group norm's affine step.

It reads sums and parameters and writes entries channel by channel; it holds no buffers. A group
takes its channels (one cycle each: sums), ROOT_STEPS (square root), CHANNEL_STEPS a channel: two
divisions of 64, around them products of one multiplier, LONG cycles each; and FLUSH_STEPS, in
which the last entry leaves.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from hw.rtl.engines.stream import BEAT_BITS
from hw.rtl.pipeline import ROUND, delay, late, product, register, round_shift, rounded

PRODUCT_BITS, FACTOR_BITS = 64, 33
NORM_BITS, FILM_BITS = 12, 24  # fractions of scales and offsets, and of a modulating gain
#: Cycles from the step that gives operands to the step that has their product, and from a
#: division's start to its quotient.
LONG, DIVISION = 8, 69
_GROUP = 4  # bits that are looked at together
_LIMB = 17  # bits of an unsigned operand of a DSP48
# Steps of a group's root: its sums are there; products, what is taken the root of, the first bit.
_SUMS = 2
_SPREAD = _SUMS + LONG
ROOT_BEGIN = _SPREAD + 3
ROOT_STEPS = ROOT_BEGIN + 33
# Steps of a channel: its parameters, products, divisions.
_SCALE = 4
_GAIN = _SCALE + 1
_FILM = _GAIN + LONG
_SCALED = _FILM + LONG + 1
FIRST_DIVISION = _SCALED + LONG
_OFFSET = FIRST_DIVISION + 1
_OFFSET_FILM = _OFFSET + LONG
SLOPE = FIRST_DIVISION + DIVISION
SECOND_DIVISION = SLOPE + LONG
START = SECOND_DIVISION + DIVISION
CHANNEL_STEPS = START + 1
# Cycles from START to these: sizes, what is too large, how many bits are dropped, the entry.
_DROP = 7
_ENTRY = _DROP + ROUND
#: The entry is written before the group's end, but for the cycles that a reader takes to come.
FLUSH_STEPS = 8


class Phase(IntEnum):
    """What the unit does: nothing, add up a group, its root, the entry of a channel, wait."""

    IDLE = 0
    SUMS = 1
    ROOT = 2
    ENTRY = 3
    FLUSH = 4


def _beyond(m: Module, value: Value, low: int) -> list[Value]:
    """Is a bit of `value` from bit `low` on set, from the next one on, and so forth?

    For 2 * NORM_BITS bits; three cycles later: groups of bits first, then those above a bit.
    """
    groups = [value[at : at + _GROUP] for at in range(low, len(value), _GROUP)]
    count = 2 * NORM_BITS // _GROUP
    any_ = [register(m, group.any()) for group in groups]
    far = register(m, Cat(any_[count:]).any())
    found = []
    for index, group in enumerate(groups[:count]):
        above = register(m, Cat(any_[index + 1 : count]).any())
        for place in range(_GROUP):
            own = register(m, register(m, group[place:].any()))
            found.append(register(m, own | above | far))
    return found


class Given(NamedTuple):
    """Arguments of the operation whose entries are made."""

    channels: Value
    group_channels: Value
    all_positions: Value
    parameter_base: Value
    gain_base: Value
    offset_base: Value
    film: Value


class NormEntries(Elaboratable):
    """Works from the cycle after `begins`, with arguments that are there a cycle before it;
    `finished` is high in its last cycle.

    `total`, `squares`: of the channel named two cycles before. `parameter_data`: of the address
    one cycle before. `entry` (int16 multiplier, int32 offset, shift) is valid with `entry_valid`,
    for the last one a few cycles after `finished`.
    """

    def __init__(self) -> None:
        self.begins, self.active, self.finished = Signal(), Signal(), Signal()
        self.given = Given(Signal(16), Signal(16), Signal(24), Signal(16), Signal(16), Signal(16),
                           Signal())
        self.channel = Signal(16)
        self.total = Signal(signed(28))
        self.squares = Signal(36)
        self.parameter_address = Signal(16)
        self.parameter_data = Signal(BEAT_BITS)
        self.entry = Signal(BEAT_BITS)
        self.entry_channel = Signal(16)
        self.entry_valid = Signal()

    def connect(self, given: Given) -> list:
        """Statements that give the operation's arguments."""
        return [mine.eq(value) for mine, value in
                zip(self.given, given, strict=True)]

    def elaborate(self, platform: object) -> Module:
        """Build the walk over groups and channels, and the arithmetic."""
        m = Module()
        self.phase = {item: Signal(name=f"phase_{item.name.lower()}", init=item is Phase.IDLE)
                      for item in Phase}
        # Steps follow each other, so a chain of registers knows them: one for each that somebody
        # asks for, and those before it. The divider ends what is too long for that.
        self.steps = {item: [Signal(name=f"first_{item.name.lower()}")]
                      for item in (Phase.ROOT, Phase.ENTRY, Phase.FLUSH)}
        self.sloped, self.started = Signal(), Signal()  # in steps SLOPE and START of a channel
        self._walk(m)
        count = product(m, self.given.all_positions, self.given.group_channels)[:19]
        total, squares = self._group(m)
        self._operands: list[tuple[Value, Value, Value]] = []
        found = Signal(signed(PRODUCT_BITS))
        film = [Signal(signed(32), name=f"film_{index}") for index in range(2)]
        root = self._root(m, found, total, squares, count, film)
        self._channel(m, found, total, count, root, film)
        m.d.comb += found.eq(self._product(m))
        return m

    def _walk(self, m: Module) -> None:
        phase, channel, given = self.phase, self.channel, self.given
        left, first, opens, ends = Signal(16), Signal(16), Signal(), Signal()
        single, whole = (register(m, given.group_channels == 1),
                         register(m, channel == given.channels))
        rooted, flushed = (self._at(m, which, step) for which, step in (
            (Phase.ROOT, ROOT_STEPS - 1), (Phase.FLUSH, FLUSH_STEPS - 1)))
        made = self.started
        sums, idles = phase[Phase.SUMS], phase[Phase.IDLE]
        begins, steps = idles | (ends & (sums | made)), sums | made
        m.d.comb += self.active.eq(~idles)
        m.d.sync += self.finished.eq(self._at(m, Phase.FLUSH, FLUSH_STEPS - 2) & whole)
        with m.If(begins):  # the channels of a group: none before, and how many behind
            m.d.sync += [left.eq(given.group_channels), ends.eq(single), opens.eq(1)]
        with m.Elif(steps):
            m.d.sync += [left.eq(left - 1), ends.eq(left == 2), opens.eq(0)]
        with m.If(idles):
            m.d.sync += [channel.eq(0), first.eq(0)]
        with m.Elif(steps):
            m.d.sync += channel.eq(Mux(sums & ends, first, channel + 1))
            with m.If(made & ends):
                m.d.sync += first.eq(channel + 1)
        enters = {Phase.IDLE: flushed & whole,
                  Phase.SUMS: (idles & self.begins) | (flushed & ~whole),
                  Phase.ROOT: sums & ends, Phase.ENTRY: rooted, Phase.FLUSH: made & ends}
        leaves = {Phase.IDLE: self.begins, Phase.SUMS: ends, Phase.ROOT: rooted,
                  Phase.ENTRY: made & ends, Phase.FLUSH: flushed}
        m.d.sync += [phase[item].eq(enters[item] | (phase[item] & ~leaves[item]))
                     for item in Phase]
        m.d.sync += [chain[0].eq(enter) for chain, enter in zip(
            self.steps.values(), (sums & ends, rooted | (made & ~ends), made & ends), strict=True)]
        self.opens = delay(m, sums & opens, 2)

    def _at(self, m: Module, phase: Phase, step: int, only: Value | None = None) -> Value:
        """Is this a step of a phase (with `only`: but its first), and was `only` so before?"""
        if only is not None:
            return delay(m, self._at(m, phase, step - 1) & only, 1)
        chain = self.steps[phase]
        while len(chain) <= step:
            later = Signal(name=f"{phase.name.lower()}_{len(chain)}")
            m.d.sync += later.eq(chain[-1])
            chain.append(later)
        return chain[step]

    def _multiply(self, when: Value, one: Value, factor: Value) -> None:
        """Give operands in a step; their product is there LONG steps later, for one step."""
        self._operands.append((when, one, factor))

    def _product(self, m: Module) -> Value:
        """The lowest 64 bits of 64 x 33, from limbs that a DSP48 multiplies."""
        sides = []
        for place, bits in ((1, PRODUCT_BITS), (2, FACTOR_BITS)):
            chosen: list[Value] = [Const(0, bits)] * 3
            for index, operands in enumerate(self._operands):
                wide = Signal(signed(bits))
                m.d.comb += wide.eq(operands[place])
                chosen[index % 3] = chosen[index % 3] | Mux(operands[0], wide.as_unsigned(), 0)
            one, two, three = (register(m, value) for value in chosen)
            held = register(m, one | two | three)
            limbs = [held[low : low + _LIMB] for low in range(0, bits, _LIMB)]
            sides.append([*limbs[:-1], limbs[-1].as_signed()])
        by_weight: list[list[Value]] = [[] for _ in range(4)]
        for one, left in enumerate(sides[0]):
            for other, right in enumerate(sides[1]):
                if one + other < len(by_weight):
                    by_weight[one + other].append(product(m, left, right))
        sums = [register(m, item[0] if len(item) == 1 else item[0] + item[1])
                for item in by_weight]
        low, high = (register(m, sums[index] + (sums[index + 1] << _LIMB)) for index in (0, 2))
        # With a reset, so that no shift register, slow to show what it holds, ends here.
        return delay(m, (low + (high << (2 * _LIMB)))[:PRODUCT_BITS].as_signed(), 1)

    def _group(self, m: Module) -> tuple[Signal, Signal]:
        """Sums of the group: right in step _SUMS of its root."""
        total, squares = Signal(signed(28)), Signal(36)
        with m.If(delay(m, self.phase[Phase.SUMS], 2)):
            m.d.sync += [total.eq(Mux(self.opens, 0, total) + self.total),
                         squares.eq(Mux(self.opens, 0, squares) + self.squares)]
        return total, squares

    def _root(self, m: Module, found: Signal, total: Signal, squares: Signal, count: Value,
              film: list[Signal]) -> Signal:
        """16 n times the deviation, one bit a cycle; right in the first step of a channel."""
        at = partial(self._at, m, Phase.ROOT)
        epsilon = Signal(signed(BEAT_BITS))
        spread = Signal(signed(BEAT_BITS))
        value, rest, root = Signal(BEAT_BITS), Signal(34), Signal(32)
        self._multiply(at(_SUMS), squares, count)
        self._multiply(at(_SUMS + 1), total, total)
        with m.If(at(2)):
            m.d.sync += epsilon.eq(self.parameter_data)
        with m.If(at(3)):
            m.d.sync += Cat(film).eq(self.parameter_data)
        raised = register(m, found + epsilon)  # a sum alone: no choice behind 64 bits of carry
        with m.If(at(_SPREAD + 1)):
            m.d.sync += spread.eq(raised - found)
        more = register(m, ~spread[-1] & spread[1:].any())  # than one
        tried, wide = Cat(Const(1, 2), root), Cat(value[-2:], rest)[:36]
        less = Signal(signed(37))
        m.d.comb += less.eq(wide - tried[:34])
        fits = ~less[-1]
        goes = Signal()
        m.d.sync += goes.eq(at(ROOT_BEGIN) | (goes & ~at(ROOT_STEPS - 1)))
        with m.If(at(ROOT_BEGIN)):
            m.d.sync += [value.eq(Mux(more, spread, 1) << 8), rest.eq(0), root.eq(0)]
        with m.Elif(goes):
            m.d.sync += [value.eq(value << 2), rest.eq(Mux(fits, less[:34], wide)),
                         root.eq(Cat(fits, root))]
        return root

    def _parameters(self, m: Module) -> tuple[Signal, Signal, Signal, Signal]:
        """(scale, offset, gain, moved) of the channel: in step _GAIN, `moved` two later."""
        given, at = self.given, partial(self._at, m, Phase.ENTRY)
        scale, offset = Signal(signed(32)), Signal(signed(32))
        gain, moved = Signal(signed(8)), Signal(signed(8))
        own, *planes = (register(m, (base + place)[:16]) for base, place in (
            (given.parameter_base, self.channel), (given.gain_base, self.channel >> 3),
            (given.offset_base, self.channel >> 3)))
        # Gains come first: the byte of a channel is chosen a cycle after they came.
        m.d.sync += self.parameter_address.eq(
            self._at(m, Phase.ROOT, 1) | Mux(at(1), planes[0], 0) | Mux(at(2), own, 0)
            | Mux(at(3), planes[1], 0))
        byte = register(m, self.parameter_data).word_select(self.channel[:3], 8).as_signed()
        with m.If(at(_SCALE)):
            m.d.sync += [Cat(scale, offset).eq(self.parameter_data), gain.eq(byte)]
        with m.If(at(_SCALE + 2)):
            m.d.sync += moved.eq(byte)
        return scale, offset, gain, moved

    def _channel(self, m: Module, found: Signal, total: Signal, count: Value, root: Signal,
                 film: list[Signal]) -> None:
        """The steps of one channel."""
        given, at = self.given, partial(self._at, m, Phase.ENTRY)
        scale, offset, gain, moved = self._parameters(m)
        modulated = register(m, rounded(found, FILM_BITS))
        self._multiply(at(_GAIN), scale, gain)
        self._multiply(at(_FILM), found, film[0])
        self._multiply(at(_SCALED, given.film), modulated, count)
        self._multiply(at(_SCALED, ~given.film), scale, count)
        self._multiply(at(_OFFSET), offset, gain)  # during the first division
        self._multiply(at(_OFFSET_FILM), found, film[0])
        self._multiply(at(_OFFSET_FILM + 2), moved, film[1])
        filmed = Signal(signed(BEAT_BITS))
        before = register(m, modulated)
        with m.If(at(_OFFSET_FILM + LONG + 2)):
            m.d.sync += filmed.eq(before + found)
        whole = register(m, Mux(given.film, filmed, offset))
        quotient = self._divide(m, at(FIRST_DIVISION), delay(m, self.sloped, LONG), found, root,
                                count)
        slope, start = Signal(signed(BEAT_BITS)), Signal(signed(BEAT_BITS))
        self._multiply(self.sloped, quotient, total)
        with m.If(self.sloped):
            m.d.sync += slope.eq(quotient)
        with m.If(self.started):
            m.d.sync += start.eq((whole << NORM_BITS) - quotient)
        drop = self._drop(m, slope, start)
        m.d.comb += [
            self.entry.eq(Cat(round_shift(m, slope, drop, 16), round_shift(m, start, drop, 32),
                              late(m, register(m, (2 * NORM_BITS - drop)[:6]), ROUND - 1))),
            self.entry_channel.eq(late(m, self.channel, _ENTRY)),
            self.entry_valid.eq(delay(m, self.started, _ENTRY)),
        ]

    def _drop(self, m: Module, slope: Signal, start: Signal) -> Value:
        """Bits that both must lose to fit an entry, _DROP cycles after START."""
        sizes = [register(m, (value.as_unsigned() ^ value[-1].replicate(BEAT_BITS)) + value[-1])
                 for value in (slope, start)]
        flags = [one | other for one, other in zip(*(
            _beyond(m, size, low) for size, low in zip(sizes, (15, 31), strict=True)), strict=True)]
        parts = [register(m, sum(flags[low : low + 6], Value.cast(0)))
                 for low in range(0, 2 * NORM_BITS, 6)]
        return register(m, sum(parts, Value.cast(0))[:5])

    def _divide(self, m: Module, first: Value, second: Value, found: Signal, root: Signal,
                count: Value) -> Value:
        """The floor of a quotient, one bit a cycle: right DIVISION cycles after a start.

        Of the product in fractions by the root, then of the product by the number of values. A
        negative value is divided as its complement, of whose quotient the complement is the floor.
        """
        bits, rest, negative = Signal(BEAT_BITS), Signal(33), Signal()
        divisor = Signal(33)
        given = register(m, found)
        dividend = register(m, Mux(delay(m, first, 1), given << (NORM_BITS + 4), given)[:64])
        with m.If(first | second):
            m.d.sync += divisor.eq(Mux(first, root, count))
        less = Signal(signed(35))
        m.d.comb += less.eq(Cat(bits[-1], rest) - divisor)
        fits = ~less[-1]
        left, goes, again = Signal(7), Signal(), Signal()
        sign = register(m, dividend[-1])
        size = register(m, dividend ^ dividend[-1].replicate(BEAT_BITS))
        with m.If(delay(m, first | second, 3)):
            m.d.sync += [bits.eq(size), rest.eq(0), negative.eq(sign), left.eq(BEAT_BITS),
                         goes.eq(1)]
        with m.Elif(goes):
            m.d.sync += [rest.eq(Mux(fits, less[:33], Cat(bits[-1], rest)[:33])),
                         bits.eq(Cat(fits, bits)), left.eq(left - 1), goes.eq(left != 1)]
        ended = goes & (left == 1)
        m.d.sync += again.eq(second | (again & ~first))
        m.d.comb += [self.sloped.eq(delay(m, ended & ~again, 2)),
                     self.started.eq(delay(m, ended & again, 2))]
        return register(m, (bits ^ negative.replicate(BEAT_BITS)).as_signed())

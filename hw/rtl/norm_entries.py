"""One sequential unit that makes the entries of a group norm's affine step.

It reads sums and parameters and writes entries channel by channel; it holds no buffers. A group
takes its channels (one cycle each: sums), 40 cycles (square root), and 141 cycles a channel: two
divisions of 64, around them products of one multiplier, two cycles each.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import NamedTuple

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from hw.rtl.pipeline import delay, register, rounding, saturate
from hw.rtl.stream import BEAT_BITS

ROOT_STEPS, CHANNEL_STEPS = 40, 141
PRODUCT_BITS, FACTOR_BITS = 64, 33
NORM_BITS, FILM_BITS = 12, 24  # fractions of scales and offsets, and of a modulating gain
ROOT_BEGIN = 5
FIRST_DIVISION, SLOPE, SECOND_DIVISION, START = 8, 73, 75, 140  # steps of a channel


class Phase(IntEnum):
    """What the unit does: nothing, add up a group, its root, the entry of a channel."""

    IDLE = 0
    SUMS = 1
    ROOT = 2
    ENTRY = 3


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
    """Works from the cycle after `begins`; `finished` is high in its last cycle.

    `total`, `squares`: of the channel named one cycle before. `entry` (int16 multiplier, int32
    offset, shift) is valid with `entry_valid`, for the last one two cycles after `finished`.
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
        self.phase, self.step = Signal(Phase), Signal(8)
        self._walk(m)
        count = register(m, (self.given.group_channels * self.given.all_positions)[:19])
        total, squares = self._group(m)
        self.multiplicand, self.factor = Signal(signed(64)), Signal(signed(FACTOR_BITS))
        product = register(m, (self.multiplicand * self.factor)[:PRODUCT_BITS].as_signed())
        film = [Signal(signed(32), name=f"film_{index}") for index in range(2)]
        root = self._root(m, product, total, squares, count, film)
        self._channel(m, product, total, count, root, film)
        return m

    def _walk(self, m: Module) -> None:
        phase, step, channel, given = self.phase, self.step, self.channel, self.given
        index, first = Signal(16), Signal(16)
        group_ends = index == given.group_channels - 1
        entry_ends = (phase == Phase.ENTRY) & (step == CHANNEL_STEPS - 1)
        m.d.comb += [self.active.eq(phase != Phase.IDLE),
                     self.finished.eq(entry_ends & (channel == given.channels - 1))]
        m.d.sync += step.eq(step + 1)
        with m.Switch(phase):
            with m.Case(Phase.IDLE):
                m.d.sync += [channel.eq(0), index.eq(0), first.eq(0)]
                with m.If(self.begins):
                    m.d.sync += phase.eq(Phase.SUMS)
            with m.Case(Phase.SUMS):
                m.d.sync += [channel.eq(channel + 1), index.eq(index + 1)]
                with m.If(group_ends):
                    m.d.sync += [channel.eq(first), index.eq(0), step.eq(0),
                                 phase.eq(Phase.ROOT)]
            with m.Case(Phase.ROOT), m.If(step == ROOT_STEPS - 1):
                m.d.sync += [step.eq(0), phase.eq(Phase.ENTRY)]
            with m.Case(Phase.ENTRY):
                with m.If(entry_ends):
                    m.d.sync += [channel.eq(channel + 1), index.eq(index + 1), step.eq(0)]
                    with m.If(group_ends):
                        m.d.sync += [index.eq(0), first.eq(channel + 1), phase.eq(Phase.SUMS)]
                with m.If(self.finished):
                    m.d.sync += phase.eq(Phase.IDLE)
        self.opens = delay(m, (phase == Phase.SUMS) & (index == 0), 1)

    def _at(self, phase: Phase, step: int) -> Value:
        return (self.phase == phase) & (self.step == step)

    def _multiply(self, m: Module, when: Value, one: Value, factor: Value) -> None:
        """Give operands now; their product comes two cycles later."""
        with m.If(when):
            m.d.sync += [self.multiplicand.eq(one), self.factor.eq(factor)]

    def _group(self, m: Module) -> tuple[Signal, Signal]:
        """Sums of the group: right in step 1 of its root."""
        total, squares = Signal(signed(28)), Signal(36)
        with m.If(delay(m, self.phase == Phase.SUMS, 1)):
            m.d.sync += [total.eq(Mux(self.opens, 0, total) + self.total),
                         squares.eq(Mux(self.opens, 0, squares) + self.squares)]
        return total, squares

    def _root(self, m: Module, product: Signal, total: Signal, squares: Signal, count: Value,
              film: list[Signal]) -> Signal:
        """16 n times the deviation, one bit a cycle; right in the first step of a channel."""
        epsilon = Signal(signed(BEAT_BITS))
        spread = Signal(signed(BEAT_BITS))
        value, rest, root = Signal(BEAT_BITS), Signal(34), Signal(32)
        self._multiply(m, self._at(Phase.ROOT, 1), squares, count)
        self._multiply(m, self._at(Phase.ROOT, 2), total, total)
        with m.If(self._at(Phase.ROOT, 1)):
            m.d.sync += epsilon.eq(self.parameter_data)
        with m.If(self._at(Phase.ROOT, 2)):
            m.d.sync += Cat(film).eq(self.parameter_data)
        with m.If(self._at(Phase.ROOT, 3)):
            m.d.sync += spread.eq(product + epsilon)
        with m.If(self._at(Phase.ROOT, 4)):
            m.d.sync += spread.eq(spread - product)
        tried, wide = Cat(Const(1, 2), root), Cat(value[-2:], rest)[:36]
        fits = wide >= tried[:34]
        with m.If(self._at(Phase.ROOT, ROOT_BEGIN)):
            m.d.sync += [value.eq(Mux(spread > 1, spread, 1) << 8), rest.eq(0), root.eq(0)]
        with m.Elif((self.phase == Phase.ROOT) & (self.step <= ROOT_BEGIN + 32)):
            m.d.sync += [value.eq(value << 2), rest.eq(Mux(fits, wide - tried, wide)),
                         root.eq(Cat(fits, root))]
        return root

    def _channel(self, m: Module, product: Signal, total: Signal, count: Value, root: Signal,
                 film: list[Signal]) -> None:
        """The steps of one channel."""
        given, at = self.given, partial(self._at, Phase.ENTRY)
        scale, offset = Signal(signed(32)), Signal(signed(BEAT_BITS))
        gain, moved = Signal(signed(8)), Signal(signed(8))
        plane = self.channel >> 3
        address = Mux(self.phase == Phase.ROOT, self.step, Mux(
            self.step == 0, given.parameter_base + self.channel, Mux(
                self.step == 1, given.gain_base + plane, given.offset_base + plane)))
        m.d.comb += self.parameter_address.eq(address)
        byte = self.parameter_data.word_select(self.channel[:3], 8).as_signed()
        with m.If(at(1)):
            m.d.sync += [scale.eq(self.parameter_data), offset.eq(
                self.parameter_data[32:].as_signed())]
        with m.If(at(2)):
            m.d.sync += gain.eq(byte)
        with m.If(at(3)):
            m.d.sync += moved.eq(byte)
        modulated = (rounding(product, Value.cast(FILM_BITS)) >> FILM_BITS)[:64].as_signed()
        self._multiply(m, at(2), scale, byte)
        self._multiply(m, at(4), product, film[0])
        self._multiply(m, at(6), Mux(given.film, modulated, scale), count)
        self._multiply(m, at(10), offset, gain)  # during the first division
        self._multiply(m, at(12), product, film[0])
        self._multiply(m, at(14), moved, film[1])
        with m.If(at(14) & given.film):
            m.d.sync += offset.eq(modulated)
        with m.If(at(16) & given.film):
            m.d.sync += offset.eq(offset + product)
        first = at(FIRST_DIVISION)
        dividend = Mux(first, product << (NORM_BITS + 4), product)[:64].as_signed()
        quotient = self._divide(m, first | at(SECOND_DIVISION), dividend,
                                Mux(self.step < SLOPE, root, count))
        slope, start, drop = (Signal(signed(BEAT_BITS)), Signal(signed(BEAT_BITS)), Signal(5))
        self._multiply(m, at(SLOPE), quotient, total)
        with m.If(at(SLOPE)):
            m.d.sync += slope.eq(quotient)
        with m.If(at(START)):
            m.d.sync += start.eq((offset << NORM_BITS) - quotient)
        sizes = [Mux(value < 0, -value, value)[:64] for value in (slope, start)]
        m.d.sync += drop.eq(sum(
            ((sizes[0] >> (14 + bits)).any() | (sizes[1] >> (30 + bits)).any()
             for bits in range(1, 2 * NORM_BITS + 1)), Value.cast(0)))
        cut = [rounding(value, drop) >> drop for value in (slope, start)]
        m.d.comb += [
            self.entry.eq(Cat(saturate(cut[0], 16), saturate(cut[1], 32),
                              (2 * NORM_BITS - drop)[:6])),
            self.entry_channel.eq(delay(m, self.channel, 2)),
            self.entry_valid.eq(delay(m, at(START), 2)),
        ]

    def _divide(self, m: Module, start: Value, dividend: Value, divisor: Value) -> Value:
        """The floor of a quotient, one bit a cycle: right 65 cycles after `start`."""
        bits, rest, negative = Signal(BEAT_BITS), Signal(33), Signal()
        wide = Cat(bits[-1], rest)[:34]
        fits = wide >= divisor
        left = Signal(7)
        with m.If(start):
            m.d.sync += [bits.eq(Mux(dividend < 0, -dividend, dividend)), rest.eq(0),
                         negative.eq(dividend < 0), left.eq(BEAT_BITS)]
        with m.Elif(left != 0):
            m.d.sync += [rest.eq(Mux(fits, wide - divisor, wide)), bits.eq(Cat(fits, bits)),
                         left.eq(left - 1)]
        return Mux(negative, -(bits + rest.any()), bits)[:64].as_signed()

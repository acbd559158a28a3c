"""The pool, upsample and grid_sample engines: they read neighbouring positions.

They read no parameters; their windows lie wholly in one tile of INPUT.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Opcode
from hw.rtl.engines.elementwise import fields_of
from hw.rtl.engines.stream import BEAT_CYCLES, FILL, StreamPorts
from hw.rtl.pipeline import (
    PLUS,
    PRODUCT,
    ROUND,
    WIDE_PRODUCT,
    choose,
    delay,
    late,
    loop_nest,
    product,
    register,
    round_shift,
    wide_product,
)

POOLS = (Opcode.AVERAGE_POOL, Opcode.MAX_POOL)
# Cycles before a pool's loops: its arguments, what padding and kernel take off, the limits.
_POOL_LIMITS = 3
POOL_FILL = FILL + _POOL_LIMITS
# Cycles from a pool's step to these: y and x, the position, its beat, the window's total.
_POOL_PLACE = 2
_POOL_POSITION = _POOL_PLACE + PRODUCT
_POOL_BEAT = _POOL_POSITION + BEAT_CYCLES
_POOL_TOTAL = _POOL_BEAT + 3
POOL_DRAIN = _POOL_TOTAL + ROUND
UPSAMPLE_DRAIN = 1 + BEAT_CYCLES
GRID_FILL = FILL + 1
# Cycles from a step of the grid sampler to these: the corner's operands, its position and
# weight, the word and place that are read, the beat, its part of the sample, the sample.
_GRID_OPERANDS = 1
_GRID_POSITION = _GRID_OPERANDS + PRODUCT
_GRID_BEAT = _GRID_POSITION + 1 + BEAT_CYCLES
_GRID_PART = _GRID_BEAT + WIDE_PRODUCT
_GRID_TOTAL = _GRID_PART + 1
GRID_DRAIN = _GRID_TOTAL + ROUND
#: Steps of a position before its pixels: read the grid, split it into places and parts.
GRID_READ_STEPS = _GRID_BEAT + 2


class PoolEngine(StreamPorts, Elaboratable):
    """One tap a cycle. Cycles: POOL_FILL + beats * kernel * kernel + POOL_DRAIN."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of(POOLS), in_lanes, out_lanes, waits, signals,
                             address_bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loops over windows and taps, and the eight lanes."""
        m = Module()
        m.submodules.shell = shell = self.shell
        average, greatest = POOLS
        averages = register(m, shell.header("opcode") == average)

        def either(name: str) -> Value:
            return Mux(shell.header("opcode") == average,
                       shell.argument(average, name), shell.argument(greatest, name))

        def both(name: str) -> Value:
            return register(m, either(name))

        kernel, stride = both("kernel"), both("stride")
        padding = register(m, Mux(shell.header("opcode") == average, 0,
                                  shell.argument(greatest, "padding")))
        rows, columns, planes = both("in_rows"), both("in_columns"), both("planes")
        more = register(m, (padding << 1) + 1 - kernel)
        limits = [register(m, (size + more)[:16]) for size in (rows, columns)]
        _, (_, top, left, tap_row, tap_column), ends = loop_nest(
            m, delay(m, shell.begins, _POOL_LIMITS - 1), [planes, *limits, kernel, kernel],
            [1, stride, stride, 1, 1])
        places = [register(m, (register(m, window + tap).as_signed() - padding)[:18].as_signed())
                  for window, tap in ((Cat(top, 0), tap_row), (Cat(left, 0), tap_column))]
        y, x = places
        position = product(m, y, columns, late(m, x, PLUS))
        inside = late(m, register(m, Cat(
            item for place, size in ((y, rows), (x, columns))
            for item in (place >= 0, place < size))).all(), _POOL_BEAT - _POOL_PLACE - 1)
        first, lane = self.walk(m, ends[1], either("in_base"), product(m, rows, columns)[:16],
                                self.in_lanes)
        beat = self.fetch(m, (late(m, first, _POOL_POSITION), late(m, lane, _POOL_POSITION)),
                          position)
        opens = late(m, (tap_row == 0) & (tap_column == 0), _POOL_BEAT + 1)
        shift = register(m, Mux(~averages | (kernel == 1), 0,
                                Mux(kernel == 2, 2, Mux(kernel == 4, 4, 6))))
        result: list[Value] = []
        for index, value in enumerate(beat):
            now = register(m, Mux(inside, value, -128).as_signed())
            total = Signal(signed(16), name=f"window_{index}", reset_less=True)
            most = Signal(signed(8), name=f"most_{index}", reset_less=True)
            m.d.sync += [total.eq(Mux(opens, 0, total) + now),
                         most.eq(choose(opens | (now > most), now, most))]
            both_kinds = register(m, Mux(averages, total, most).as_signed())
            result.append(round_shift(m, both_kinds, shift))
        self.store(m, ends[3], self.counted(m, ends[3], ends[1], both("out_base")),
                   Value.cast(0), result, POOL_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], POOL_DRAIN))
        return m


class UpsampleEngine(StreamPorts, Elaboratable):
    """Nearest x2, one output beat a cycle. Cycles: FILL + beats + UPSAMPLE_DRAIN."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of((Opcode.UPSAMPLE,)), in_lanes, out_lanes, waits,
                             signals, address_bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loop and the copy."""
        m = Module()
        m.submodules.shell = shell = self.shell
        head = {name: shell.argument(Opcode.UPSAMPLE, name) for name in
                ("in_base", "in_rows", "in_columns", "planes", "out_base")}
        rows, columns = head["in_rows"], head["in_columns"]
        trip, (_, row, column), ends = loop_nest(
            m, shell.start, [head["planes"], rows << 1, columns << 1])
        # Where the row begins in INPUT: each is read twice. OUTPUT is written in order.
        line, place = Signal(16), Signal(16)
        with m.If(shell.begins | ends[1]):
            m.d.sync += line.eq(0)
        with m.Elif(ends[2] & row[0]):
            m.d.sync += line.eq(line + columns)
        with m.If(shell.begins | ends[1]):
            m.d.sync += place.eq(0)
        with m.Elif(trip):
            m.d.sync += place.eq(place + 1)
        positions = product(m, rows, columns)
        first, lane = self.walk(m, ends[1], head["in_base"], positions[:16], self.in_lanes)
        beat = self.fetch(m, (register(m, first), register(m, lane)),
                          register(m, line + (column >> 1)))
        out = self.walk(m, ends[1], head["out_base"], (positions << 2)[:16], self.out_lanes)
        self.store(m, trip, out, place, list(beat), UPSAMPLE_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], UPSAMPLE_DRAIN))
        return m


class GridSampleEngine(StreamPorts, Elaboratable):
    """Bilinear with zeros outside.

    Cycles: GRID_FILL + positions * (GRID_READ_STEPS + 4 * planes) + GRID_DRAIN. Place and weight
    of a neighbour are made anew for every beat of it, in one multiplier each.
    """

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of((Opcode.GRID_SAMPLE,)), in_lanes, out_lanes, waits,
                             signals, address_bits)

    def _head(self, name: str, bits: int | None = None) -> Value:
        return self.shell.argument(Opcode.GRID_SAMPLE, name, bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loop, the neighbours and the eight lanes."""
        m = Module()
        m.submodules.shell = shell = self.shell
        positions, planes = self._head("positions", 16), self._head("planes")
        _, (position, step), ends = loop_nest(
            m, shell.begins,
            [positions, register(m, (planes << 2) + GRID_READ_STEPS)])
        # The steps of the pixels begin a cycle after the register that says so is set; a register
        # says when, too, since steps follow each other.
        pixels, corner = Signal(), Signal(2)
        split = delay(m, step == GRID_READ_STEPS - 2, 1)
        with m.If(ends[1]):
            m.d.sync += [pixels.eq(0), corner.eq(0)]
        with m.Elif(split):
            m.d.sync += pixels.eq(1)
        with m.Elif(pixels):
            m.d.sync += corner.eq(corner + 1)
        plane_ends = pixels & (corner == 3)
        image = product(m, self._head("in_rows"), self._head("in_columns"))[:16]
        first, lane = self.walk(m, plane_ends, self._head("in_base"), image, self.in_lanes,
                                ends[1])
        self._grid = Signal(32)
        place, weight = self._neighbour(m, step, corner)
        grids = late(m, ~pixels, _GRID_POSITION)
        begin, where = (late(m, value, _GRID_POSITION) for value in (first, lane))
        beat = self.fetch(
            m, (register(m, Mux(register(m, grids), self._head("grid_base"), begin)),
                register(m, Mux(register(m, grids), 0, where))),
            register(m, Mux(grids, late(m, position, _GRID_POSITION), place)[:16]))
        m.d.comb += self._grid.eq(Cat(beat[:4]))
        opens = late(m, corner == 0, _GRID_PART)
        shift = (self._head("fraction_bits", 4) << 1)[:5]
        result: list[Value] = []
        for index, value in enumerate(beat):
            part = wide_product(m, weight, value)
            total = Signal(signed(40), name=f"sample_{index}", reset_less=True)
            m.d.sync += total.eq(Mux(opens, 0, total) + part)
            result.append(round_shift(m, total, shift))
        out = self.walk(m, plane_ends, self._head("out_base"), positions, self.out_lanes, ends[1])
        self.store(m, plane_ends, out, position, result, GRID_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], GRID_DRAIN))
        return m

    def _neighbour(self, m: Module, step: Signal, corner: Signal) -> tuple[Value, Value]:
        """Position in the plane, _GRID_POSITION cycles after a step of the pixels; weight at its
        beat, zero outside."""
        fraction = self._head("fraction_bits", 4)
        one = register(m, (1 << fraction)[:16])
        rows, columns = self._head("in_rows"), self._head("in_columns")
        points, parts = [], []
        comes = delay(m, step == _GRID_BEAT - 1, 1)  # steps follow each other
        for index, size in enumerate((columns, rows)):
            given = Signal(signed(16), name=f"given_{index}", reset_less=True)
            with m.If(comes):
                m.d.sync += given.eq(self._grid.word_select(index, 16))
            whole = register(m, given >> fraction)
            part = register(m, given & (one - 1))
            behind = corner[index]
            point = register(m, (whole + behind)[:17].as_signed())
            points.append((point, register(m, Cat(point >= 0, point < size))))
            parts.append(register(m, Mux(behind, part, one - part)[:16]))
        (column, in_columns), (row, in_rows) = points
        place = product(m, row, columns, late(m, column, PLUS))
        inside = late(m, Cat(in_columns, in_rows).all(), PRODUCT - 1)
        weight = register(m, Mux(inside, product(m, *parts), 0)[:32])
        return place, late(m, Cat(weight, 0), _GRID_BEAT - _GRID_POSITION - 1).as_signed()

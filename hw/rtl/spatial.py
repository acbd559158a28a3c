"""The pool, upsample and grid_sample engines: they read neighbouring positions.

They read no parameters; their windows lie wholly in one tile of INPUT.
"""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Opcode
from hw.rtl.elementwise import fields_of
from hw.rtl.pipeline import delay, divide, loop_nest, register, rounding, saturate
from hw.rtl.stream import StreamPorts

POOLS = (Opcode.AVERAGE_POOL, Opcode.MAX_POOL)
POOL_DRAIN, UPSAMPLE_DRAIN, GRID_DRAIN = 4, 2, 5
GRID_READ_STEPS = 3  # read the grid, split it, find places and weights


class PoolEngine(StreamPorts, Elaboratable):
    """One tap a cycle. Cycles: 1 + beats * kernel * kernel + 4."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of(POOLS), in_lanes, out_lanes, waits, signals,
                             address_bits)

    def elaborate(self, platform: object) -> Module:
        """Build the loops over windows and taps, and the eight lanes."""
        m = Module()
        m.submodules.shell = shell = self.shell
        average, greatest = POOLS
        averages = shell.header("opcode") == average

        def both(name: str) -> Value:
            return Mux(averages, shell.argument(average, name), shell.argument(greatest, name))

        kernel, stride = both("kernel"), both("stride")
        padding = Mux(averages, 0, shell.argument(greatest, "padding"))
        rows, columns = both("in_rows"), both("in_columns")
        limits = [(size + 2 * padding - kernel + 1)[:16] for size in (rows, columns)]
        _, (plane, top, left, tap_row, tap_column), ends = loop_nest(
            m, shell.start, [both("planes"), *limits, kernel, kernel], [1, stride, stride, 1, 1])
        y, x = Signal(signed(18)), Signal(signed(18))
        m.d.comb += [y.eq(top + tap_row - padding), x.eq(left + tap_column - padding)]
        inside = delay(m, (y >= 0) & (y < rows) & (x >= 0) & (x < columns), 1)
        opens = delay(m, (tap_row == 0) & (tap_column == 0), 1)
        beat = self.read(m, plane, (rows * columns)[:16], (y[:16] * columns + x[:16])[:16],
                         both("in_base"))
        shift = Mux(kernel == 1, 0, Mux(kernel == 2, 2, Mux(kernel == 4, 4, 6)))
        result = []
        for lane, value in enumerate(beat):
            total = Signal(signed(16), name=f"window_{lane}")
            before = Mux(opens, Mux(averages, 0, -128), total)
            larger = Mux(inside & (value > before), value, before)
            m.d.sync += total.eq(Mux(averages, before + value, larger))
            rounded = register(m, rounding(total, shift))
            result.append(register(m, Mux(averages, saturate(rounded >> shift),
                                          delay(m, total, 1))))
        self._write(m, plane, ends, both("out_base"), result)
        m.d.comb += shell.done.eq(delay(m, ends[0], POOL_DRAIN))
        return m

    def _write(self, m: Module, plane: Signal, ends: list[Value], base: Value,
               result: list[Value]) -> None:
        """Output positions are counted, so that no division says how many a plane has."""
        position, group = Signal(16), Signal(16)
        group_ends = divide(m, plane, self.out_lanes)[1] == self.out_lanes - 1
        with m.If(self.shell.start):
            m.d.sync += [position.eq(0), group.eq(base)]
        with m.Elif(ends[1]):
            m.d.sync += position.eq(0)
            with m.If(group_ends):
                m.d.sync += group.eq(group + position + 1)
        with m.Elif(ends[3]):
            m.d.sync += position.eq(position + 1)
        self.write(m, ends[3], plane, Value.cast(0), position, group, result, POOL_DRAIN)


class UpsampleEngine(StreamPorts, Elaboratable):
    """Nearest x2, one output beat a cycle. Cycles: 1 + beats + 2."""

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
        running, (plane, row, column), ends = loop_nest(
            m, shell.start, [head["planes"], rows << 1, columns << 1])
        positions = (rows * columns)[:16]
        beat = self.read(m, plane, positions, ((row >> 1) * columns + (column >> 1))[:16],
                         head["in_base"])
        self.write(m, running, plane, (positions << 2)[:16], (row * (columns << 1) + column)[:16],
                   head["out_base"], [register(m, value) for value in beat], UPSAMPLE_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], UPSAMPLE_DRAIN))
        return m


class GridSampleEngine(StreamPorts, Elaboratable):
    """Bilinear with zeros outside. Cycles: 1 + positions * (3 + 4 * planes) + 5."""

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
            m, shell.start, [positions, (planes << 2) + GRID_READ_STEPS])
        sample = (step - GRID_READ_STEPS)[:16]
        reads_pixel = step >= GRID_READ_STEPS
        corner, plane = sample[:2], sample[2:]
        places, weights = self._neighbours(m, step)
        image = (self._head("in_rows") * self._head("in_columns"))[:16]
        beat = self.read(
            m, Mux(reads_pixel, plane, 0), image,
            Mux(reads_pixel, Array(places)[corner], position),
            Mux(reads_pixel, self._head("in_base"), self._head("grid_base")))
        m.d.comb += self._grid.eq(self.in_data[:32])
        weight = delay(m, Array(weights)[corner], 1)
        opens = delay(m, corner == 0, 2)
        shift = (self._head("fraction_bits", 4) << 1)[:5]
        result = []
        for lane, value in enumerate(beat):
            product = register(m, value * weight)
            total = Signal(signed(40), name=f"sample_{lane}")
            m.d.sync += total.eq(Mux(opens, 0, total) + product)
            rounded = register(m, rounding(total, shift))
            result.append(register(m, saturate(rounded >> shift)))
        self.write(m, reads_pixel & (corner == 3), plane, positions, position,
                   self._head("out_base"), result, GRID_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], GRID_DRAIN))
        return m

    def _neighbours(self, m: Module, step: Signal) -> tuple[list[Signal], list[Signal]]:
        """Places and weights of the four neighbours, ready in step GRID_READ_STEPS."""
        self._grid = Signal(32)
        fraction = self._head("fraction_bits", 4)
        one = Signal(16)
        m.d.comb += one.eq(1 << fraction)
        x, y = Signal(signed(16)), Signal(signed(16))
        with m.If(step == 1):
            m.d.sync += [x.eq(self._grid[:16].as_signed()), y.eq(self._grid[16:].as_signed())]
        right_part, low_part = (x & (one - 1))[:16], (y & (one - 1))[:16]
        rows, columns = self._head("in_rows"), self._head("in_columns")
        places, weights = [], []
        for index in range(4):
            right, down = index & 1, index >> 1
            column, row = (x >> fraction) + right, (y >> fraction) + down
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            factor = (right_part if right else one - right_part)[:16]
            other = (low_part if down else one - low_part)[:16]
            place, weight = (Signal(16, name=f"place_{index}"),
                             Signal(signed(32), name=f"weight_{index}"))
            with m.If(step == GRID_READ_STEPS - 1):
                m.d.sync += [place.eq(Mux(inside, row * columns + column, 0)),
                             weight.eq(Mux(inside, factor * other, 0))]
            places.append(place)
            weights.append(weight)
        return places, weights

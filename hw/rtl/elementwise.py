"""The elementwise engine: add, multiply, affine and flow sum; and the lookup engine.

They read one beat a cycle, so an operator with two operands takes two cycles a beat.
"""

from __future__ import annotations

from amaranth.hdl import Array, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Opcode
from hw.interface.descriptors import Field, argument_fields
from hw.rtl.pipeline import delay, loop_nest, register, rounding, saturate
from hw.rtl.stream import StreamPorts

ELEMENTWISE = (Opcode.ADD, Opcode.MULTIPLY, Opcode.AFFINE, Opcode.FLOW_SUM)
ELEMENTWISE_DRAIN, LOOKUP_DRAIN = 5, 3
MASK_FRACTION_BITS = 7
MULTIPLIER_BITS = 16
SHIFT_BITS = 6
PARAMETER_LANES = 8


def fields_of(opcodes: tuple[Opcode, ...]) -> list[Field]:
    """The argument fields of several opcodes."""
    return [field for opcode in opcodes for field in argument_fields(opcode)]


class ElementwiseEngine(StreamPorts, Elaboratable):
    """Cycles: 1 + steps + 5, with 2 steps a beat (add, multiply), 1 (affine), or one a channel."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of(ELEMENTWISE), in_lanes, out_lanes, waits, signals,
                             address_bits)
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64 * PARAMETER_LANES)

    def _pick(self, names: dict[Opcode, str | int], bits: int | None = None) -> Value:
        """The argument that the head's opcode calls `names[opcode]`, or a number."""
        values = [self.shell.argument(opcode, name, bits) if isinstance(name, str)
                  else Value.cast(name) for opcode, name in names.items()]
        found = values[0]
        for opcode, value in list(zip(names, values, strict=True))[1:]:
            found = Mux(self._is(opcode), value, found)
        return found

    def _is(self, opcode: Opcode) -> Value:
        return self.shell.header("opcode") == opcode

    def elaborate(self, platform: object) -> Module:
        """Build the loop, the reads, the lanes and the grids."""
        m = Module()
        m.submodules.shell = shell = self.shell
        add, multiply, affine, flow = ELEMENTWISE
        positions = self._pick(dict.fromkeys(ELEMENTWISE, "positions"), 16)
        planes = self._pick({add: "planes", multiply: "planes", affine: "planes", flow: 1})
        steps = self._pick({add: 2, multiply: 2, affine: 1, flow: "channels"})
        _, (plane, position, step), ends = loop_nest(
            m, shell.start, [planes, positions, steps])
        second = step[0] & (self._is(add) | self._is(multiply))
        other = Mux(self._is(add), shell.argument(add, "other_base"),
                    shell.argument(multiply, "other_base"))
        in_base = self._pick(dict.fromkeys(ELEMENTWISE, "in_base"))
        shared = second & self._is(multiply) & shell.argument(multiply, "broadcast")
        read_plane = Mux(self._is(flow), step >> 3, Mux(shared, 0, plane))
        beat = self.read(m, read_plane, positions, position, Mux(second, other, in_base))

        base = Mux(self._is(flow), shell.argument(flow, "parameter_base"),
                   shell.argument(affine, "parameter_base"))
        entry = (base >> 3) + Mux(self._is(flow), (base[:3] + step) >> 3, plane)
        m.d.comb += self.parameter_address.eq(entry)
        entry_lane = delay(m, (base[:3] + step)[:3], 1)
        values = self._lanes(m, beat, delay(m, shared, 1))
        flow_lane = delay(m, step[:3], 1)
        grid = self._grid(m, beat, flow_lane, entry_lane, step, position, ends)
        result = [register(m, Mux(self._is(flow), mine, yours)) for mine, yours in
                  zip(grid, values, strict=True)]
        self.write(m, ends[2], plane, positions, position,
                   self._pick(dict.fromkeys(ELEMENTWISE, "out_base")), result,
                   ELEMENTWISE_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], ELEMENTWISE_DRAIN))
        return m

    def _lanes(self, m: Module, beat: list[Value], shared: Value) -> list[Value]:
        """Eight channels: cycle 1 the beat, 2 operands, 3 totals, 4 rounded; values in 4."""
        add, multiply, affine, _ = ELEMENTWISE
        shell = self.shell
        first_multiplier = self._pick({add: "multiplier_in", multiply: "multiplier", affine: 0},
                                      MULTIPLIER_BITS)
        other_multiplier = shell.argument(add, "multiplier_other", MULTIPLIER_BITS)
        fixed_shift = Mux(self._is(add), shell.argument(add, "shift", SHIFT_BITS),
                          shell.argument(multiply, "shift", SHIFT_BITS))
        now_first = [register(m, value) for value in beat]
        found = []
        for lane in range(8):
            now = now_first[lane]
            before = register(m, now)
            factor = Mux(delay(m, shared, 1), now_first[0], now).as_signed()
            entry = register(m, self.parameter_data[64 * lane : 64 * lane + 56])
            offset, own = entry[:32].as_signed(), entry[32:48].as_signed()
            # All three operators share their multipliers: one for each term, one for the product.
            first = Mux(self._is(multiply), before * factor, before).as_signed()
            other = Mux(self._is(affine), own, Mux(self._is(multiply), 0, other_multiplier))
            total = register(m, first * first_multiplier + now * other.as_signed()
                             + Mux(self._is(affine), offset, 0))
            shift = register(m, Mux(self._is(affine), entry[48 : 48 + SHIFT_BITS], fixed_shift))
            rounded = register(m, rounding(total, shift))
            value = saturate(rounded >> register(m, shift))
            relu = self._is(affine) & shell.argument(affine, "relu")
            found.append(Mux(relu & (value < 0), 0, value))
        return found

    def _grid(self, m: Module, beat: list[Value], lane: Value, entry_lane: Value, step: Signal,
              position: Signal, ends: list[Value]) -> list[Value]:
        """x and y of one position: sums over channels, then the identity grid is added."""
        flow = Opcode.FLOW_SUM
        mask = register(m, Array(beat)[lane].as_signed())
        entry = register(m, self.parameter_data.word_select(entry_lane, 64)[:32])
        opens = delay(m, step == 0, 2)
        fraction = self.shell.argument(flow, "fraction_bits", 4)
        column, row = Signal(16), Signal(16)
        with m.If(self.shell.start):
            m.d.sync += [column.eq(0), row.eq(self.shell.argument(flow, "first_row"))]
        with m.Elif(ends[2]):
            wraps = column == self.shell.argument(flow, "columns") - 1
            m.d.sync += [column.eq(Mux(wraps, 0, column + 1)), row.eq(row + wraps)]
        found: list[Value] = []
        for index, place in enumerate((column, row)):
            shift = entry[16 * index : 16 * index + 16].as_signed()
            total = Signal(signed(32), name=f"flow_{index}")
            m.d.sync += total.eq(Mux(opens, 0, total) + mask * shift)
            moved = register(m, rounding(total, Value.cast(MASK_FRACTION_BITS)))
            exact = (moved >> MASK_FRACTION_BITS) + delay(m, place << fraction, 4)
            wide = saturate(exact, 16)
            found += [wide[:8].as_signed(), wide[8:16].as_signed()]
        zero = Value.cast(0)
        return [*found, *[zero] * 4]


class LookupEngine(StreamPorts, Elaboratable):
    """One beat a cycle through eight copies of a 256-byte table. Cycles: 1 + beats + 3."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16) -> None:
        StreamPorts.__init__(self, fields_of((Opcode.LOOKUP,)), in_lanes, out_lanes, waits,
                             signals, address_bits)
        self.table_addresses = [Signal(address_bits, name=f"table_address_{lane}")
                                for lane in range(8)]
        self.table_data = [Signal(64, name=f"table_data_{lane}") for lane in range(8)]

    def elaborate(self, platform: object) -> Module:
        """Build the loop and the eight look-ups."""
        m = Module()
        m.submodules.shell = shell = self.shell
        head = {name: shell.argument(Opcode.LOOKUP, name) for name in
                ("in_base", "out_base", "planes", "table_base")}
        positions = shell.argument(Opcode.LOOKUP, "positions", 16)
        running, (plane, position), ends = loop_nest(m, shell.start, [head["planes"], positions])
        beat = self.read(m, plane, positions, position, head["in_base"])
        result = []
        for lane, value in enumerate(beat):
            entry = (value + 128)[:8]
            m.d.comb += self.table_addresses[lane].eq(head["table_base"] + entry[3:])
            byte = self.table_data[lane].word_select(delay(m, entry[:3], 1), 8)
            result.append(register(m, byte))
        self.write(m, running, plane, positions, position, head["out_base"], result,
                   LOOKUP_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], LOOKUP_DRAIN))
        return m

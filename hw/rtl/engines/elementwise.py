"""The elementwise engine: add, multiply, affine and flow sum; and the lookup engine.

They read one beat a cycle, so an operator with two operands takes two cycles a beat.
"""

from __future__ import annotations

from typing import NamedTuple

from amaranth.hdl import Array, Const, Elaboratable, Module, Mux, Signal, Value, signed

from cosim.program.table import Buffer as Target
from cosim.program.table import Opcode
from hw.interface.descriptors import Field
from hw.rtl.engines.stream import BEAT_CYCLES, Constants, StreamPorts
from hw.rtl.pipeline import (
    LOOP_FILL,
    PRODUCT,
    ROUND,
    count_loops,
    delay,
    late,
    loop_nest,
    product,
    register,
    round_shift,
    saturate,
)
from hw.rtl.shell import fields_read

ELEMENTWISE = (Opcode.ADD, Opcode.MULTIPLY, Opcode.AFFINE, Opcode.FLOW_SUM)
#: Limits and bases are chosen among the operators first.
ELEMENTWISE_FILL = LOOP_FILL + 1
# Cycles from a step to these places: the operands of the second product, with the entry of the
# parameters; its sum; eight results.
_SECOND = BEAT_CYCLES + PRODUCT
_TOTAL = _SECOND + PRODUCT
_RESULT = _TOTAL + ROUND
ELEMENTWISE_DRAIN = _RESULT + 1
LOOKUP_DRAIN = BEAT_CYCLES + 3
MASK_FRACTION_BITS = 7
MULTIPLIER_BITS = 16
SHIFT_BITS = 6
PARAMETER_LANES = 8


def fields_of(opcodes: tuple[Opcode, ...], zero_points: bool = False) -> list[Field]:
    """The argument fields of several opcodes that an engine reads."""
    return [field for opcode in opcodes for field in fields_read(opcode, zero_points)]


class _Zeros(NamedTuple):
    """What the first operand and the second factor (the constant of a sum among it) have besides,
    and what is added to a sum and to a product."""

    first: Value
    second: Value
    of_sum: Value
    of_product: Value


class ElementwiseEngine(StreamPorts, Elaboratable):
    """Cycles: ELEMENTWISE_FILL + steps + ELEMENTWISE_DRAIN, with 2 steps a beat (add, multiply),
    1 (affine), or one a channel (flow sum). `zero_points`: sums and products may hold some."""

    def __init__(self, in_lanes: int, out_lanes: int, waits: int, signals: int,
                 address_bits: int = 16, entries: int = 512, zero_points: bool = False) -> None:
        StreamPorts.__init__(self, fields_of(ELEMENTWISE, zero_points), in_lanes, out_lanes, waits,
                             signals, address_bits)
        self.zero_points = zero_points
        self.parameter_address = Signal(address_bits)
        self.parameter_data = Signal(64 * PARAMETER_LANES)
        self.constants = (Constants("vector_parameters", Target.VECTOR_PARAMETERS, entries,
                                    PARAMETER_LANES, self.parameter_address,
                                    self.parameter_data),)

    def _pick(self, names: dict[Opcode, str | int], bits: int | None = None) -> Value:
        """The argument that the head's opcode calls `names[opcode]`, or a number."""
        values = [self.shell.argument(opcode, name, bits) if isinstance(name, str)
                  else Value.cast(name) for opcode, name in names.items()]
        found = values[0]
        for opcode, value in list(zip(names, values, strict=True))[1:]:
            found = Mux(self.shell.header("opcode") == opcode, value, found)
        return found

    def elaborate(self, platform: object) -> Module:
        """Build the loop, the reads, the lanes and the grids."""
        m = Module()
        m.submodules.shell = shell = self.shell
        add, multiply, affine, flow = ELEMENTWISE
        self._adds, self._multiplies, self._is_affine, self._is_flow = (
            register(m, shell.header("opcode") == opcode) for opcode in ELEMENTWISE)
        positions = register(m, self._pick(dict.fromkeys(ELEMENTWISE, "positions"), 16))
        planes = self._pick({add: "planes", multiply: "planes", affine: "planes", flow: 1})
        steps = self._pick({add: 2, multiply: 2, affine: 1, flow: "channels"})
        trip, (plane, position, step), ends = loop_nest(
            m, shell.begins, [register(m, planes), positions, register(m, steps)])
        two = self._adds | self._multiplies
        shared = self._multiplies & shell.argument(multiply, "broadcast")
        beat = self._beats(m, trip, positions, position, step, ends, two, shared)
        place = Mux(self._is_flow, step, plane << 3)
        base = register(m, self._pick({affine: "parameter_base", flow: "parameter_base"}))
        entry = register(m, (base + place)[:16])
        m.d.comb += self.parameter_address.eq(late(m, entry[3:], _SECOND - 3))
        entries = register(m, self.parameter_data)
        values = self._lanes(m, beat, entries, late(m, step[0] & shared, BEAT_CYCLES))
        grid = self._grid(m, beat, entries.word_select(late(m, entry[:3], _SECOND - 1), 64),
                          step, ends)
        result = [register(m, Mux(self._is_flow, mine, yours)) for mine, yours in
                  zip([*grid, *[Const(0, 1)] * 4], values, strict=True)]
        out = self.walk(m, ends[1], self._pick(dict.fromkeys(ELEMENTWISE, "out_base")), positions,
                        self.out_lanes)
        self.store(m, ends[2], out, position, result, ELEMENTWISE_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], ELEMENTWISE_DRAIN))
        return m

    def _beats(self, m: Module, trip: Value, positions: Value, position: Value, step: Signal,
               ends: list[Value], two: Value, shared: Value) -> list[Value]:
        """One operand of a step: planes one after the other; those of a flow's channels for each
        position; of a second operand that is shared, always the first one."""
        ended = Mux(self._is_flow, trip & (step[:3] == 7), ends[1])
        first, lane = self.walk(m, ended, self._pick(dict.fromkeys(ELEMENTWISE, "in_base")),
                                positions, self.in_lanes, self._is_flow & ends[2])
        other_base = self._pick({op: "other_base" for op in ELEMENTWISE[:2]})
        other, other_lane = self.walk(m, ends[1] & ~shared, other_base, positions, self.in_lanes)
        second = register(m, step[0] & two)
        return self.fetch(m, (Mux(second, other, first), Mux(second, other_lane, lane)), position)

    def _lanes(self, m: Module, beat: list[Value], entries: Value, shared: Value) -> list[Value]:
        """Eight channels. All operators share two multipliers: one multiplies the first operand,
        by the second or a constant; one the second operand, or the product of both."""
        shell, (add, multiply, affine, _) = self.shell, ELEMENTWISE
        constant = shell.argument(add, "multiplier_in", MULTIPLIER_BITS)
        other, fixed = (register(m, self._pick({add: one, multiply: two}, bits)) for one, two, bits
                        in (("multiplier_other", "multiplier", MULTIPLIER_BITS),
                            ("shift", "shift", SHIFT_BITS)))
        relu = register(m, self._is_affine & shell.argument(affine, "relu"))
        zeros = self._zeros(m, constant)
        found = []
        for lane, now in enumerate(beat):
            entry = entries[64 * lane : 64 * lane + 56]
            offset, own = entry[:32].as_signed(), entry[32:48].as_signed()
            second = Mux(shared, beat[0], now)
            if zeros is None:
                first = product(m, register(m, now), Mux(self._multiplies, second, constant))
                both, plus = first[:16].as_signed(), 0
            else:  # differences: a bit more each
                first = product(
                    m, register(m, (now + zeros.first)[:9].as_signed()),
                    (Mux(self._multiplies, second, 0) + zeros.second)[:MULTIPLIER_BITS].as_signed(),
                    zeros.of_sum)
                both, plus = first[:17].as_signed(), zeros.of_product
            both = product(
                m, Mux(self._multiplies, both, late(m, now, PRODUCT)),
                Mux(self._is_affine, own, other),
                register(m, Mux(self._adds, register(m, first),
                                Mux(self._is_affine, register(m, offset), plus))))
            shift = late(m, Mux(self._is_affine, entry[48 : 48 + SHIFT_BITS], fixed), PRODUCT)
            found.append(round_shift(m, both[:40].as_signed(), shift, positive=relu))
        return found

    def _zeros(self, m: Module, constant: Value) -> _Zeros | None:
        """What a design with zero points adds; all of it stays for a whole operation, so a second
        register costs no cycle. The DSP48s take the last one for their own."""
        if not self.zero_points:
            return None
        shell, (add, multiply, _, _) = self.shell, ELEMENTWISE

        def negated(name: str) -> Value:
            return register(m, -shell.argument(multiply, name))

        return _Zeros(
            register(m, Mux(self._multiplies, negated("zero_in"), 0)),
            register(m, Mux(self._multiplies, negated("zero_other"), register(m, constant))),
            register(m, register(m, Mux(self._adds, shell.argument(add, "offset"), 0))),
            register(m, Mux(self._multiplies, shell.argument(multiply, "offset"), 0)))

    def _grid(self, m: Module, beat: list[Value], entry: Value, step: Signal, ends: list[Value]
              ) -> list[Value]:
        """x and y of one position: sums over channels, then the identity grid is added."""
        flow = Opcode.FLOW_SUM
        lane = late(m, step[:3], BEAT_CYCLES)
        mask = late(m, Array(beat)[lane].as_signed(), _SECOND - BEAT_CYCLES + 1)
        chosen = register(m, entry[:32])
        opens = late(m, step == 0, _TOTAL + 1)
        fraction = self.shell.argument(flow, "fraction_bits", 4)
        begins, row = self.shell.begins, Signal(16, reset_less=True)
        (column,), _, (wraps,) = count_loops(m, begins, ends[2] & self._is_flow,
                                             [self.shell.argument(flow, "columns")])
        with m.If(begins):
            m.d.sync += row.eq(self.shell.argument(flow, "first_row"))
        with m.Elif(wraps):
            m.d.sync += row.eq(row + 1)
        found: list[Value] = []
        for index, place in enumerate((column, row)):
            moved = product(m, mask, chosen[16 * index : 16 * index + 16].as_signed())
            total = Signal(signed(32), name=f"flow_{index}", reset_less=True)
            m.d.sync += total.eq(Mux(opens, 0, total) + moved)
            half, lost, odd = (total[MASK_FRACTION_BITS - 1], total[: MASK_FRACTION_BITS - 1],
                               total[MASK_FRACTION_BITS])
            up = register(m, half & (lost.any() | odd))
            whole = register(m, register(m, total >> MASK_FRACTION_BITS) + up)
            shifted = register(m, late(m, place, _RESULT - 3) << fraction)
            wide = register(m, saturate(register(m, whole + shifted), 16))
            found += [wide[:8].as_signed(), wide[8:16].as_signed()]
        return found


class LookupEngine(StreamPorts, Elaboratable):
    """One beat a cycle through eight copies of a 256-byte table.

    Cycles: FILL + beats + LOOKUP_DRAIN.
    """

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
        trip, (_, position), ends = loop_nest(m, shell.start, [head["planes"], positions])
        place = self.walk(m, ends[1], head["in_base"], positions, self.in_lanes)
        result = []
        for lane, value in enumerate(self.fetch(m, place, position)):
            entry = value[:8] ^ 0x80
            m.d.sync += self.table_addresses[lane].eq(head["table_base"] + entry[3:])
            result.append(register(m, self.table_data[lane].word_select(late(m, entry[:3], 2), 8)))
        out = self.walk(m, ends[1], head["out_base"], positions, self.out_lanes)
        self.store(m, trip, out, position, result, LOOKUP_DRAIN)
        m.d.comb += shell.done.eq(delay(m, ends[0], LOOKUP_DRAIN))
        return m

"""The descriptor feed: reads the table from memory and fills the units' command queues in order.

It starts and stops nothing, and obeys no descriptor. Operations of the host and of the fetch unit
are dropped, and so are the bits of their channels: the start stands for them.

A descriptor comes in BEATS cycles. While the next one comes, the one before it gets its place in
memory (base of its master, and its address at this repeat) in SETTLE cycles, so the product takes
no time of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value

from cosim.program.table import Program, UnitKind
from hw.interface.configuration import UnitRole, local_mask
from hw.interface.descriptors import DESCRIPTOR_BYTES, HEADER, TRANSFER
from hw.rtl.pipeline import delay, register
from hw.rtl.shell import COMMAND_BITS, read_field
from hw.rtl.transfers.queue import Queue

FEED_BITS = 64
BEATS = DESCRIPTOR_BYTES * 8 // FEED_BITS
FEED_AHEAD = 8  # descriptors asked for and not yet dispatched; more would take a block RAM
REPEAT_BITS = 16  # of the number of a repeat: more take DSP48 that the shipped design lacks
SETTLE = 5  # cycles from a whole descriptor to its command
_FIELD = {field.name: field for field in (*HEADER, *TRANSFER)}
_LOW = 17  # bits of `advance` in the lower product
OUTSIDE = {UnitRole.HOST, UnitRole.FETCH}


class _Rounds(Elaboratable):
    """Counts `count` steps `repeats` times. `over` rises with the last one, or at once if there is
    none; `started` begins again, two cycles at least after these have their values."""

    def __init__(self, started: Signal, count: Signal, repeats: Signal) -> None:
        self.started, self.count, self.repeats = started, count, repeats
        self.step = Signal()
        self.wraps = Signal()  # the step is the last of its round
        self.over = Signal(init=1)

    def elaborate(self, platform: object) -> Module:
        """Two down counters whose last steps are known before they come."""
        m = Module()
        left, rounds = Signal(32), Signal(32)
        one, last = Signal(), Signal()
        nothing = register(m, register(m, self.count == 0) | register(m, self.repeats == 0))
        once, single = register(m, self.repeats == 1), register(m, self.count == 1)
        m.d.comb += self.wraps.eq(self.step & one)
        with m.If(self.started):
            m.d.sync += [self.over.eq(nothing), rounds.eq(self.repeats), last.eq(once)]
        with m.Elif(self.wraps):
            m.d.sync += [rounds.eq(rounds - 1), last.eq(rounds == 2), self.over.eq(last)]
        with m.If(self.started | self.wraps):
            m.d.sync += [left.eq(self.count), one.eq(single)]
        with m.Elif(self.step):
            m.d.sync += [left.eq(left - 1), one.eq(left == 2)]
        return m


class Feed(Elaboratable):
    """`bus`: the signals of an AXI read channel by name; `values`: the registers by name.

    `commands`: (command, valid, ready) of each unit of the program, ready from outside;
    `bases`: the register with the base address of each unit that has a port. `dispatched` is
    high for each command that goes to a unit of the fabric; `all_sent` once the table was read;
    `full` while a queue holds it up.
    """

    def __init__(self, program: Program, roles: Sequence[UnitRole], bus: Mapping[str, Signal],
                 values: Mapping[str, Signal], bases: Mapping[int, Signal]) -> None:
        self.program, self.roles = program, tuple(roles)
        self.bus, self.values, self.bases = bus, values, bases
        self.started = Signal()
        self.all_sent, self.full, self.dispatched = Signal(), Signal(), Signal()
        self.commands = [(Signal(COMMAND_BITS, name=f"command_{unit}"),
                          Signal(name=f"command_valid_{unit}"),
                          Signal(name=f"command_ready_{unit}")) for unit in range(len(self.roles))]

    def elaborate(self, platform: object) -> Module:
        """Ask, gather, settle, dispatch."""
        m = Module()
        live, went, taken = Signal(), Signal(), Signal()
        m.submodules.sent = sent = _Rounds(self.started, self.values["count"],
                                           self.values["repeats"])
        with m.If(self.started):
            m.d.sync += live.eq(1)
        m.d.comb += [self.all_sent.eq(live & sent.over), sent.step.eq(went)]
        beats = self._ask(m, went)
        gathered, have = self._gather(m, beats, taken)
        moved, ready, busy = Signal(COMMAND_BITS), Signal(), Signal()
        settled = delay(m, taken, SETTLE)
        m.d.comb += taken.eq(have & ~busy)
        with m.If(taken):
            m.d.sync += [moved.eq(gathered), busy.eq(1)]
        with m.If(settled):
            m.d.sync += ready.eq(1)
        with m.If(went):
            m.d.sync += busy.eq(0)
        address = self._address(m, moved, sent.wraps)
        self._dispatch(m, moved, address, ready, went)
        return m

    def _ask(self, m: Module, went: Signal) -> Queue:
        """Request descriptors one after another, round after round; their beats come in order."""
        bus, values = self.bus, self.values
        m.submodules.asked = asked = _Rounds(self.started, values["count"], values["repeats"])
        m.submodules.beats = beats = Queue(FEED_BITS, FEED_AHEAD * BEATS)
        first = register(m, (values["base_descriptors"] + (values["first"] << 6))[:32])
        address, ahead, accepted = Signal(32), Signal(range(FEED_AHEAD + 1)), Signal()
        with m.If(bus["ARVALID"]):
            m.d.sync += bus["ARVALID"].eq(~bus["ARREADY"])
        with m.Else():
            m.d.sync += bus["ARVALID"].eq(~asked.over & (ahead != FEED_AHEAD) & ~self.started)
        m.d.comb += [
            bus["ARADDR"].eq(address),
            bus["ARLEN"].eq(BEATS - 1), bus["ARSIZE"].eq(3), bus["ARBURST"].eq(1),
            bus["ARCACHE"].eq(3), bus["ARPROT"].eq(0), bus["RREADY"].eq(1),
            accepted.eq(bus["ARVALID"] & bus["ARREADY"]), asked.step.eq(accepted),
            beats.w_en.eq(bus["RVALID"]), beats.w_data.eq(bus["RDATA"]),
        ]
        with m.If(self.started):
            m.d.sync += ahead.eq(0)
        with m.Elif(accepted & ~went):
            m.d.sync += ahead.eq(ahead + 1)
        with m.Elif(went & ~accepted):
            m.d.sync += ahead.eq(ahead - 1)
        with m.If(self.started | asked.wraps):
            m.d.sync += address.eq(first)
        with m.Elif(accepted):
            m.d.sync += address.eq(address + DESCRIPTOR_BYTES)
        return beats

    def _gather(self, m: Module, beats: Queue, taken: Signal) -> tuple[Signal, Signal]:
        """(The beats of a descriptor, they are all there)."""
        gathered, have, place = Signal(COMMAND_BITS), Signal(), Signal(range(BEATS))
        m.d.comb += beats.r_en.eq(~have)
        with m.If(self.started):
            m.d.sync += [place.eq(0), have.eq(0)]
        with m.Elif(beats.r_en & beats.r_rdy):
            m.d.sync += [gathered.eq(Cat(gathered[FEED_BITS:], beats.r_data)),
                         place.eq(place + 1), have.eq(place == BEATS - 1)]
        with m.Elif(taken):
            m.d.sync += have.eq(0)
        return gathered, have

    def _address(self, m: Module, command: Signal, wraps: Signal) -> Value:
        """Where a transfer begins in memory at this repeat, SETTLE cycles after `command`."""
        repeat, unit = Signal(REPEAT_BITS), read_field(command, _FIELD["unit"])
        with m.If(self.started):
            m.d.sync += repeat.eq(self.values["repeat_first"])
        with m.Elif(wraps):
            m.d.sync += repeat.eq(repeat + 1)
        advance = register(m, read_field(command, _FIELD["advance"]).as_unsigned())
        factor = register(m, repeat)
        low = register(m, register(m, advance[:_LOW] * factor))
        high = register(m, register(m, advance[_LOW:] * factor))
        offset = register(m, (low + (high << _LOW))[:32])
        base: Value = Value.cast(0)
        for index, value in self.bases.items():
            base = base | Mux(register(m, unit == index), value, 0)
        place = register(m, (read_field(command, _FIELD["address"]) + register(m, base))[:32])
        return register(m, (offset + place)[:32])

    def _dispatch(self, m: Module, command: Signal, address: Value, ready: Signal,
                  went: Signal) -> None:
        """One command to its unit's queue; those of units outside the fabric are dropped."""
        unit, at = read_field(command, _FIELD["unit"]), _FIELD["address"]
        accepts, taken, goes = [], [], Signal()
        for index, (role, pins) in enumerate(zip(self.roles, self.commands, strict=True)):
            mine = register(m, unit == index)
            if role in OUTSIDE:
                accepts.append(mine)
                continue
            masked: Value = command
            if self.program.units[index].kind is not UnitKind.COMPUTE:
                masked = Cat(command[: at.offset], address, command[at.offset + at.width :])
            for which, name in ((0, "wait"), (1, "signal")):
                field = _FIELD[name]
                bits = local_mask(self.program, index, which, self.roles, OUTSIDE)
                masked = Cat(masked[: field.offset],
                             masked[field.offset : field.offset + field.width] & bits,
                             masked[field.offset + field.width :])
            pin, valid, accepting = pins
            m.d.comb += pin.eq(masked[:COMMAND_BITS])
            m.d.sync += valid.eq(goes & mine)
            accepts.append(mine & accepting)
            taken.append(valid)
        # Only this feed fills the queues: one that has room keeps it until the next command.
        m.d.comb += [goes.eq(ready & register(m, Cat(accepts).any())),
                     self.dispatched.eq(Cat(taken).any())]
        m.d.sync += [went.eq(goes), self.full.eq(ready & ~goes)]
        with m.If(goes):
            m.d.sync += ready.eq(0)

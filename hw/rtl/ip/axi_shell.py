"""The overlay as an IP: AXI ports, registers, descriptor feed, interrupt, start and end.

It computes nothing and moves no tensor; `overlay_top` does. Registers are those of
`hw.interface.registers`, and the ports have the names that the vendor's HLS compiler gives, so the
driver and the block design take either.

A start resets everything but the memories and the tokens (these it sets if `initialize` is 1),
fills the command queues until the table is read or a queue is full, and lets go; it ends when every
operation dispatched has ended. Counters therefore count from the first cycle of the stretch to its
last.
"""

from __future__ import annotations

from amaranth.hdl import (
    Array,
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Module,
    Mux,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib.wiring import Component, In, Out, Signature

from arch_models.overlay import Overlay
from cosim.program.table import Program
from hw.interface.configuration import COMMAND_DEPTH, EmissionError, configure
from hw.interface.ports import memory_ports
from hw.interface.registers import MAP_BYTES, register_map
from hw.rtl.ip.control_port import ControlPort
from hw.rtl.ip.feed import FEED_BITS, OUTSIDE, REPEAT_BITS, Feed
from hw.rtl.overlay_top import OverlayTop
from hw.rtl.pipeline import register
from hw.rtl.timed import TimedUnit
from hw.rtl.transfers.bursts import LENGTH_BITS
from hw.rtl.transfers.masters import ReadMaster
from hw.rtl.transfers.queue import DEPTH, Queue

#: The signals of an interface: name, bits, does it go in?
Pins = tuple[tuple[str, int, bool], ...]
_TOGETHER = 5  # bits that one LUT counts


def lite_pins(address_bits: int) -> Pins:
    """The AXI4-Lite slave."""
    return (("AWADDR", address_bits, True), ("AWVALID", 1, True), ("AWREADY", 1, False),
            ("WDATA", 32, True), ("WSTRB", 4, True), ("WVALID", 1, True), ("WREADY", 1, False),
            ("BRESP", 2, False), ("BVALID", 1, False), ("BREADY", 1, True),
            ("ARADDR", address_bits, True), ("ARVALID", 1, True), ("ARREADY", 1, False),
            ("RDATA", 32, False), ("RRESP", 2, False), ("RVALID", 1, False), ("RREADY", 1, True))


def master_pins(width: int, reads: bool) -> Pins:
    """An AXI4 master that only reads or only writes, with `width` bits of data."""
    lead = "AR" if reads else "AW"
    found: Pins = (
        (f"{lead}ADDR", 32, False), (f"{lead}LEN", 8, False), (f"{lead}SIZE", 3, False),
        (f"{lead}BURST", 2, False), (f"{lead}CACHE", 4, False), (f"{lead}PROT", 3, False),
        (f"{lead}VALID", 1, False), (f"{lead}READY", 1, True))
    if reads:
        return (*found, ("RDATA", width, True), ("RRESP", 2, True), ("RLAST", 1, True),
                ("RVALID", 1, True), ("RREADY", 1, False))
    return (*found, ("WDATA", width, False), ("WSTRB", width // 8, False), ("WLAST", 1, False),
            ("WVALID", 1, False), ("WREADY", 1, True), ("BRESP", 2, True), ("BVALID", 1, True),
            ("BREADY", 1, False))


def _named(lead: str, pins: Pins) -> list[tuple[str, int, bool]]:
    return [(f"{lead}_{name}", bits, goes_in) for name, bits, goes_in in pins]


class AxiShell(Component):
    """The top module `overlay` of a program's units and channels.

    `ports`: every signal that crosses its boundary, by name, with True for inputs.
    """

    def __init__(self, program: Program, overlay: Overlay) -> None:
        self.program, self.overlay = program, overlay
        self.configuration = configure(program, overlay)
        repeats = max((segment.repeat for segment in program.segments), default=0)
        if repeats > 1 << REPEAT_BITS:
            raise EmissionError(f"a segment has {repeats} repeats, must have at most "
                                f"{1 << REPEAT_BITS} in RTL")
        self.top = OverlayTop(program.units, program.channels, overlay)
        for unit in self.top.units:
            unit.shell.depth = COMMAND_DEPTH
            if isinstance(unit, TimedUnit):  # the host: Yosys would keep its multiplier
                unit.idle = True
        self.masters = tuple(port.name for port in memory_ports(program, self.configuration))
        self.registers = register_map(("descriptors", *self.masters))
        pins = [("ap_clk", 1, True), ("ap_rst_n", 1, True), ("interrupt", 1, False)]
        pins += _named("s_axi_control", lite_pins((MAP_BYTES - 1).bit_length()))
        pins += _named("m_axi_port_descriptors", master_pins(FEED_BITS, True))
        for name in self.masters:
            unit = self.top.masters[name]
            reads = isinstance(unit, ReadMaster)
            pins += _named(f"m_axi_port_{name}",
                           master_pins(len(unit.r_data if reads else unit.w_data), reads))
        super().__init__(Signature(
            {name: In(bits) if goes_in else Out(bits) for name, bits, goes_in in pins}))
        self.ports = {name: (getattr(self, name), goes_in) for name, _, goes_in in pins}

    def p(self, name: str) -> Signal:
        """The signal of a port."""
        return self.ports[name][0]

    def bus(self, lead: str) -> dict[str, Signal]:
        """The signals of an interface by what its protocol calls them."""
        return {name.removeprefix(f"{lead}_"): signal for name, (signal, _) in self.ports.items()
                if name.startswith(f"{lead}_")}

    def elaborate(self, platform: object) -> Module:
        """Connect registers, feed, overlay and buses."""
        m = Module()
        # The overlay has a reset of its own, a register: it reaches every flip-flop.
        m.domains.sync, m.domains.fabric = ClockDomain("sync"), ClockDomain("fabric")
        values = {name: Signal(32, name=f"register_{name}") for name in self.registers
                  if name.startswith("base_") or name in ("first", "count", "repeats",
                                                          "repeat_first", "initialize")}
        m.submodules.control = control = ControlPort(
            self.bus("s_axi_control"), values, self.registers)
        units = {unit: index for index, unit in enumerate(self.top.units)}
        bases = {units[self.top.masters[name]]: values[f"base_{name}"] for name in self.masters}
        m.submodules.feed = feed = Feed(self.program, self.configuration.roles,
                                        self.bus("m_axi_port_descriptors"), values, bases)
        m.submodules.overlay = DomainRenamer("fabric")(self.top)
        clear = Signal(init=1)
        m.d.sync += clear.eq(control.started)
        m.d.comb += [
            ClockSignal("sync").eq(self.p("ap_clk")), ResetSignal("sync").eq(~self.p("ap_rst_n")),
            ClockSignal("fabric").eq(self.p("ap_clk")), ResetSignal("fabric").eq(clear),
            feed.started.eq(control.started), self.p("interrupt").eq(control.interrupt),
            control.overflow.eq(self.top.ports.overflow),
            control.counter_value.eq(self.top.ports.counter_value),
            self.top.ports.counter_select.eq(control.counter_select)]
        for index, (role, (command, valid, ready)) in enumerate(
                zip(self.configuration.roles, feed.commands, strict=True)):
            if role not in OUTSIDE:
                pins = self.top.ports.by_unit[index]
                m.d.comb += [pins["command"].eq(command), pins["command_valid"].eq(valid),
                             ready.eq(pins["command_ready"])]
        self._run(m, control, feed, values["initialize"][0])
        for name in self.masters:
            self._bus(m, name)
        return m

    def _run(self, m: Module, control: ControlPort, feed: Feed, initialize: Value) -> None:
        """Fill, let go, count what has ended.

        `go` falls COUNTER_LAG cycles after the last operation's end: as late as the counters look.
        """
        top = self.top.ports
        going, filling, finished, over = Signal(), Signal(), Signal(), Signal()
        open_ = Signal(range(len(self.program.units) * (COMMAND_DEPTH + 1) + 1))
        ends = register(m, top.ended[:len(self.program.units)])
        ended = sum((_ones(m, ends[at : at + _TOGETHER])
                     for at in range(1, len(ends), _TOGETHER)), register(m, ends[0]))
        dispatched = register(m, feed.dispatched)
        sent = Signal(2)  # what was sent is counted two cycles later
        all_sent = sent[1]
        m.d.sync += sent.eq(Mux(control.started, 0, Cat(feed.all_sent, sent[0])))
        m.d.comb += [
            top.go.eq(going), self.top.keep.eq(~(filling & initialize)),
            over.eq((going | filling) & all_sent & register(m, open_ == 0)),
            control.finished.eq(finished)]
        m.d.sync += [open_.eq(Mux(control.started, 0, open_ + dispatched - ended)),
                     finished.eq(over)]
        with m.If(control.started):
            m.d.sync += filling.eq(1)
        with m.Elif(over):
            m.d.sync += [going.eq(0), filling.eq(0)]
        with m.Elif(filling & (all_sent | feed.full)):
            m.d.sync += [going.eq(1), filling.eq(0)]

    def _bus(self, m: Module, name: str) -> None:
        """A master of the overlay on its AXI port; its commands have the port's base address."""
        unit, a = self.top.masters[name], self.bus(f"m_axi_port_{name}")
        index = next(i for i, item in enumerate(self.top.units) if item is unit)
        pins = self.top.ports.by_unit[index]
        reads = isinstance(unit, ReadMaster)
        lead, small = ("AR", "ar") if reads else ("AW", "aw")
        width = len(unit.r_data if reads else unit.w_data) // 8
        m.d.comb += [
            a[f"{lead}ADDR"].eq(pins[f"{small}_address"]),
            a[f"{lead}LEN"].eq(pins[f"{small}_length"]),
            a[f"{lead}SIZE"].eq(width.bit_length() - 1), a[f"{lead}BURST"].eq(1),
            a[f"{lead}CACHE"].eq(3), a[f"{lead}PROT"].eq(0),
            a[f"{lead}VALID"].eq(pins[f"{small}_valid"]),
            pins[f"{small}_ready"].eq(a[f"{lead}READY"]),
        ]
        if reads:
            m.d.comb += [pins["r_valid"].eq(a["RVALID"]), pins["r_data"].eq(a["RDATA"]),
                         pins["r_last"].eq(a["RLAST"]), a["RREADY"].eq(1)]
            return
        part = len(unit.w_strobe)
        bits = (bit.replicate(width // part) for bit in pins["w_strobe"])
        m.d.comb += [a["WDATA"].eq(pins["w_data"]), a["WSTRB"].eq(Cat(bits)),
                     pins["b_valid"].eq(a["BVALID"]), a["BREADY"].eq(1)]
        self._last(m, name, a, pins)

    def _last(self, m: Module, name: str, a: dict[str, Signal], pins: dict[str, Signal]) -> None:
        """Let data of known bursts through; their lengths say which beat is a burst's last.

        A burst is known a cycle before it is requested, so its data can follow its address in the
        next cycle. They may come before it, as AXI allows.
        """
        walker = self.top.masters[name].walker
        most, comes = walker.config.outstanding, walker.comes
        if walker.on_chip is not None:
            comes = comes & ~walker.on_chip
        m.submodules[f"lengths_{name}"] = lengths = Queue(
            LENGTH_BITS, max(DEPTH, 1 << (most + 2).bit_length()))
        counting, left, last, leaves, free = Signal(), Signal(8), Signal(), Signal(), Signal()
        m.d.comb += [
            leaves.eq(a["WVALID"] & a["WREADY"]),
            a["WVALID"].eq(pins["w_valid"] & counting), a["WLAST"].eq(last),
            pins["w_ready"].eq(a["WREADY"] & counting), free.eq(~counting | (last & leaves)),
            lengths.w_data.eq(walker.coming), lengths.w_en.eq(comes),
            lengths.r_en.eq(free),
        ]
        with m.If(free):
            m.d.sync += [counting.eq(lengths.r_rdy), left.eq(lengths.r_data),
                         last.eq(lengths.r_data == 0)]
        with m.Elif(leaves):
            m.d.sync += [left.eq(left - 1), last.eq(left == 1)]


def _ones(m: Module, bits: Value) -> Signal:
    """How many bits are set, a cycle later: a table, where adders would be a carry chain."""
    return register(m, Array(Const(value.bit_count(), len(bits).bit_length())
                             for value in range(1 << len(bits)))[bits])

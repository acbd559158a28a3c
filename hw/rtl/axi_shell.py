"""The overlay as an IP: AXI-Lite registers, descriptor feed, AXI masters, interrupt, counters.

It computes nothing and moves no tensor; `overlay_top` does. Registers are those of
`hw.interface.registers`, and the ports have the names that the vendor's HLS compiler gives, so the
driver and the block design take either.

A start resets everything but the memories and the tokens (these it sets if `initialize` is 1),
fills the command queues until the table is read or a queue is full, and lets go; it ends when every
operation dispatched has ended. Counters therefore count from the first cycle of the stretch to its
last. Operations of the host and of the fetch unit are dropped, and so are the bits of their
channels: the start stands for them.
"""

from __future__ import annotations

from amaranth.hdl import (
    Array,
    Cat,
    ClockDomain,
    ClockSignal,
    Elaboratable,
    Module,
    Mux,
    ResetInserter,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered

from arch_models.overlay import Overlay
from cosim.program.table import Program, UnitKind
from hw.csim.top import memory_ports
from hw.interface.configuration import COMMAND_DEPTH, EmissionError, UnitRole, configure, local_mask
from hw.interface.descriptors import DESCRIPTOR_BYTES, HEADER, TRANSFER
from hw.interface.registers import (
    CONTROL,
    FIRST_COUNTER,
    GLOBAL_INTERRUPT,
    INTERRUPT_ENABLE,
    INTERRUPT_STATUS,
    MAP_BYTES,
    UNIT_STRIDE_BYTES,
    register_map,
)
from hw.rtl.masters import ReadMaster
from hw.rtl.overlay_top import OverlayTop
from hw.rtl.ports import COUNTERS_A_UNIT
from hw.rtl.shell import COMMAND_BITS, read_field
from hw.rtl.timed import TimedUnit

FEED_BITS = 64
BEATS = DESCRIPTOR_BYTES * 8 // FEED_BITS
FEED_AHEAD = 8  # descriptors asked for and not yet dispatched; more would take a block RAM
REPEAT_BITS = 16  # of the number of a repeat: more take DSP48 that the shipped design lacks
_FIELD = {field.name: field for field in (*HEADER, *TRANSFER)}
OUTSIDE = {UnitRole.HOST, UnitRole.FETCH}


class AxiShell(Elaboratable):
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
        self.ports: dict[str, tuple[Signal, bool]] = {}
        self._port("ap_clk", 1, True)
        self._port("ap_rst_n", 1, True)
        self._port("interrupt", 1, False)
        bits = (MAP_BYTES - 1).bit_length()
        for name, width, goes_in in (
                ("AWADDR", bits, 1), ("AWVALID", 1, 1), ("AWREADY", 1, 0), ("WDATA", 32, 1),
                ("WSTRB", 4, 1), ("WVALID", 1, 1), ("WREADY", 1, 0), ("BRESP", 2, 0),
                ("BVALID", 1, 0), ("BREADY", 1, 1), ("ARADDR", bits, 1), ("ARVALID", 1, 1),
                ("ARREADY", 1, 0), ("RDATA", 32, 0), ("RRESP", 2, 0), ("RVALID", 1, 0),
                ("RREADY", 1, 1)):
            self._port(f"s_axi_control_{name}", width, bool(goes_in))
        self._axi("descriptors", FEED_BITS, True)
        for name in self.masters:
            unit = self.top.masters[name]
            reads = isinstance(unit, ReadMaster)
            self._axi(name, len(unit.r_data if reads else unit.w_data), reads)

    def _port(self, name: str, width: int, goes_in: bool) -> None:
        self.ports[name] = (Signal(width, name=name), goes_in)

    def _axi(self, master: str, width: int, reads: bool) -> None:
        lead = "AR" if reads else "AW"
        rows = [(f"{lead}ADDR", 32, 0), (f"{lead}LEN", 8, 0), (f"{lead}SIZE", 3, 0),
                (f"{lead}BURST", 2, 0), (f"{lead}CACHE", 4, 0), (f"{lead}PROT", 3, 0),
                (f"{lead}VALID", 1, 0), (f"{lead}READY", 1, 1)]
        if reads:
            rows += [("RDATA", width, 1), ("RRESP", 2, 1), ("RLAST", 1, 1), ("RVALID", 1, 1),
                     ("RREADY", 1, 0)]
        else:
            rows += [("WDATA", width, 0), ("WSTRB", width // 8, 0), ("WLAST", 1, 0),
                     ("WVALID", 1, 0), ("WREADY", 1, 1), ("BRESP", 2, 1), ("BVALID", 1, 1),
                     ("BREADY", 1, 0)]
        for name, bits, goes_in in rows:
            self._port(f"m_axi_port_{master}_{name}", bits, bool(goes_in))

    def p(self, name: str) -> Signal:
        """The signal of a port."""
        return self.ports[name][0]

    def elaborate(self, platform: object) -> Module:
        """Connect registers, feed, overlay and buses."""
        m = Module()
        m.domains.sync = ClockDomain("sync")
        self.clear = Signal()
        m.d.comb += [ClockSignal("sync").eq(self.p("ap_clk")),
                     ResetSignal("sync").eq(~self.p("ap_rst_n"))]
        m.submodules.overlay = ResetInserter(self.clear)(self.top)
        self.values = {name: Signal(32, name=f"register_{name}") for name in self.registers
                       if name.startswith("base_") or name in ("first", "count", "repeats",
                                                               "repeat_first", "initialize")}
        started = Signal()
        finished, working = Signal(), Signal()
        self._control(m, started, finished, working)
        all_sent, full, dispatched = self._feed(m, started)
        self._run(m, started, finished, working, all_sent, full, dispatched)
        for name in self.masters:
            self._bus(m, name)
        return m

    def _run(self, m: Module, started: Signal, finished: Signal, working: Signal,
             all_sent: Signal, full: Signal, dispatched: Signal) -> None:
        """Reset, fill, let go, count what has ended."""
        top = self.top.ports
        going, open_ = Signal(), Signal(32)
        ended = Signal(range(len(self.program.units) + 1))
        bits: Value = top.ended[0]
        for index in range(1, len(self.program.units)):
            bits = bits + top.ended[index]
        m.d.comb += [
            ended.eq(bits), self.clear.eq(started),
            finished.eq(working & all_sent & (open_ == 0)),
            top.go.eq(going & ~finished),
            self.top.keep.eq(~(working & ~going & self.values["initialize"][0])),
        ]
        m.d.sync += open_.eq(Mux(started, 0, open_ + dispatched - ended))
        with m.If(started | finished):
            m.d.sync += going.eq(0)
        with m.Elif(working & (all_sent | full)):
            m.d.sync += going.eq(1)

    def _control(self, m: Module, started: Signal, finished: Signal, working: Signal) -> None:
        """The AXI-Lite slave: one access at a time; start, done, idle, ready and the interrupt."""
        s = {name.removeprefix("s_axi_control_"): signal
             for name, (signal, _) in self.ports.items() if name.startswith("s_axi_control_")}
        write, done, enabled, let_through, pending = (Signal() for _ in range(5))
        m.d.comb += [
            write.eq(s["AWVALID"] & s["WVALID"] & ~s["BVALID"]),
            s["AWREADY"].eq(write), s["WREADY"].eq(write),
            started.eq(write & (s["AWADDR"] == CONTROL) & s["WDATA"][0] & ~working),
            self.p("interrupt").eq(let_through & pending),
        ]
        with m.If(write):
            m.d.sync += s["BVALID"].eq(1)
            with m.Switch(s["AWADDR"]):
                with m.Case(GLOBAL_INTERRUPT):
                    m.d.sync += let_through.eq(s["WDATA"][0])
                with m.Case(INTERRUPT_ENABLE):
                    m.d.sync += enabled.eq(s["WDATA"][0])
                for name, signal in self.values.items():
                    with m.Case(self.registers[name]):
                        m.d.sync += signal.eq(s["WDATA"])
        with m.Elif(s["BREADY"]):
            m.d.sync += s["BVALID"].eq(0)
        read = Signal()
        m.d.comb += [read.eq(s["ARVALID"] & ~s["RVALID"]), s["ARREADY"].eq(read)]
        m.d.sync += working.eq((working | started) & ~finished)
        with m.If(finished):
            m.d.sync += done.eq(1)
        with m.Elif(started | (read & (s["ARADDR"] == CONTROL))):
            m.d.sync += done.eq(0)
        with m.If(finished & enabled):
            m.d.sync += pending.eq(1)
        with m.Elif(write & (s["AWADDR"] == INTERRUPT_STATUS) & s["WDATA"][0]):
            m.d.sync += pending.eq(0)
        top, value = self.top.ports, Signal(32)
        place = s["ARADDR"] - FIRST_COUNTER
        stride = UNIT_STRIDE_BYTES.bit_length() - 1
        unit = place[stride:]
        # A sum of shifts: a product would take a DSP48.
        first = sum((unit << bit for bit in range(COUNTERS_A_UNIT.bit_length())
                     if COUNTERS_A_UNIT >> bit & 1), Value.cast(0))
        m.d.comb += top.counter_select.eq(first + place[3:stride])
        with m.Switch(s["ARADDR"]):
            with m.Case(CONTROL):
                m.d.comb += value.eq(Cat(working, done, ~working, done))
            with m.Case(GLOBAL_INTERRUPT):
                m.d.comb += value.eq(let_through)
            with m.Case(INTERRUPT_ENABLE):
                m.d.comb += value.eq(enabled)
            with m.Case(INTERRUPT_STATUS):
                m.d.comb += value.eq(Cat(pending, top.overflow))
            for name, signal in self.values.items():
                with m.Case(self.registers[name]):
                    m.d.comb += value.eq(signal)
            with m.Default():
                m.d.comb += value.eq(Mux(place[2], top.counter_value[32:], top.counter_value[:32]))
        with m.If(read):
            m.d.sync += [s["RVALID"].eq(1), s["RDATA"].eq(value)]
        with m.Elif(s["RREADY"]):
            m.d.sync += s["RVALID"].eq(0)

    def _feed(self, m: Module, started: Signal) -> tuple[Signal, Signal, Signal]:
        """Read the table and fill the queues in its order.

        (All of it was sent, a queue is full, a command went into a queue.)
        """
        a = {name.removeprefix("m_axi_port_descriptors_"): signal
             for name, (signal, _) in self.ports.items()
             if name.startswith("m_axi_port_descriptors_")}
        v = self.values
        asked, rounds, sent, sent_rounds, ahead = (Signal(32) for _ in range(5))
        asking, went, full, all_sent, live = (Signal() for _ in range(5))
        first = v["base_descriptors"] + (v["first"] << 6)
        beats = SyncFIFOBuffered(width=FEED_BITS, depth=FEED_AHEAD * BEATS)
        m.submodules.beats = ResetInserter(self.clear)(beats)
        m.d.comb += [
            asking.eq(live & (rounds != v["repeats"]) & (ahead != FEED_AHEAD)),
            a["ARVALID"].eq(asking), a["ARADDR"].eq((first + (asked << 6))[:32]),
            a["ARLEN"].eq(BEATS - 1), a["ARSIZE"].eq(3), a["ARBURST"].eq(1), a["ARCACHE"].eq(3),
            a["RREADY"].eq(1), beats.w_en.eq(a["RVALID"]), beats.w_data.eq(a["RDATA"]),
            all_sent.eq(live & (sent_rounds == v["repeats"])),
        ]
        accepted = asking & a["ARREADY"]
        with m.If(started):
            m.d.sync += [asked.eq(0), rounds.eq(0), ahead.eq(0), sent.eq(0), sent_rounds.eq(0),
                         live.eq((v["count"] != 0) & (v["repeats"] != 0))]
            with m.If((v["count"] == 0) | (v["repeats"] == 0)):
                m.d.sync += [sent_rounds.eq(v["repeats"]), live.eq(1)]
        with m.Else():
            m.d.sync += ahead.eq(ahead + accepted - went)
            with m.If(accepted):
                m.d.sync += asked.eq(asked + 1)
                with m.If(asked + 1 == v["count"]):
                    m.d.sync += [asked.eq(0), rounds.eq(rounds + 1)]
        gathered, have, place = Signal(COMMAND_BITS), Signal(), Signal(range(BEATS))
        moved, ready = Signal(COMMAND_BITS), Signal()
        offset = Signal(32)
        advance = read_field(gathered, _FIELD["advance"])
        taken = Signal()
        m.d.comb += [beats.r_en.eq(beats.r_rdy & ~have), taken.eq(have & ~ready)]
        with m.If(started):
            m.d.sync += [place.eq(0), have.eq(0), ready.eq(0)]
        with m.Else():
            with m.If(beats.r_en):
                m.d.sync += [gathered.eq(Cat(gathered[FEED_BITS:], beats.r_data)),
                             place.eq(place + 1)]
                with m.If(place == BEATS - 1):
                    m.d.sync += have.eq(1)
            with m.If(taken):
                m.d.sync += [moved.eq(gathered), ready.eq(1), have.eq(0),
                             offset.eq(advance * (v["repeat_first"]
                                                  + sent_rounds)[:REPEAT_BITS])]
            with m.If(went):
                m.d.sync += [ready.eq(0), sent.eq(sent + 1)]
                with m.If(sent + 1 == v["count"]):
                    m.d.sync += [sent.eq(0), sent_rounds.eq(sent_rounds + 1)]
        dispatched = self._dispatch(m, moved, offset, ready, went)
        m.d.comb += full.eq(ready & ~went)
        return all_sent, full, dispatched

    def _dispatch(self, m: Module, command: Signal, offset: Signal, ready: Signal,
                  went: Signal) -> Signal:
        """One command to its unit's queue; those of units outside the fabric are dropped."""
        roles, top = self.configuration.roles, self.top.ports
        unit = read_field(command, _FIELD["unit"])
        address = _FIELD["address"]
        accepts, fabric = [], []
        for index, role in enumerate(roles):
            pins = top.by_unit[index]
            inside = role not in OUTSIDE
            accepts.append(pins["command_ready"] if inside else Value.cast(1))
            fabric.append(inside)
            if not inside:
                continue
            masked: Value = command
            if self.program.units[index].kind is not UnitKind.COMPUTE:
                value = command[address.offset : address.offset + 32] + offset
                masked = Cat(command[: address.offset], value[:32],
                             command[address.offset + 32 :])
            for which, name in ((0, "wait"), (1, "signal")):
                field = _FIELD[name]
                bits = local_mask(self.program, index, which, roles, OUTSIDE)
                masked = Cat(masked[: field.offset],
                             masked[field.offset : field.offset + field.width] & bits,
                             masked[field.offset + field.width :])
            m.d.comb += [pins["command"].eq(masked[:COMMAND_BITS]),
                         pins["command_valid"].eq(ready & (unit == index))]
        m.d.comb += went.eq(ready & Array(accepts)[unit])
        dispatched = Signal()
        m.d.comb += dispatched.eq(went & Array(fabric)[unit])
        return dispatched

    def _bus(self, m: Module, name: str) -> None:
        """A master of the overlay on its AXI port, with the port's base address."""
        unit, base = self.top.masters[name], self.values[f"base_{name}"]
        index = next(i for i, item in enumerate(self.top.units) if item is unit)
        pins = self.top.ports.by_unit[index]
        a = {key.removeprefix(f"m_axi_port_{name}_"): signal
             for key, (signal, _) in self.ports.items()
             if key.startswith(f"m_axi_port_{name}_")}
        reads = isinstance(unit, ReadMaster)
        lead, small = ("AR", "ar") if reads else ("AW", "aw")
        width = len(unit.r_data if reads else unit.w_data) // 8
        m.d.comb += [
            a[f"{lead}ADDR"].eq(pins[f"{small}_address"] + base),
            a[f"{lead}LEN"].eq(pins[f"{small}_beats"] - 1),
            a[f"{lead}SIZE"].eq(width.bit_length() - 1), a[f"{lead}BURST"].eq(1),
            a[f"{lead}CACHE"].eq(3), a[f"{lead}VALID"].eq(pins[f"{small}_valid"]),
            pins[f"{small}_ready"].eq(a[f"{lead}READY"]),
        ]
        if reads:
            m.d.comb += [pins["r_valid"].eq(a["RVALID"]), pins["r_data"].eq(a["RDATA"]),
                         pins["r_last"].eq(a["RLAST"]), a["RREADY"].eq(1)]
            return
        # The lengths of accepted bursts say which beat is the last of its burst.
        m.submodules[f"lengths_{name}"] = lengths = SyncFIFO(width=8, depth=16)
        moved, leaves = Signal(8), Signal()
        part = len(unit.w_strobe)
        m.d.comb += [
            lengths.w_data.eq(a["AWLEN"]), lengths.w_en.eq(a["AWVALID"] & a["AWREADY"]),
            a["WVALID"].eq(pins["w_valid"] & lengths.r_rdy), a["WDATA"].eq(pins["w_data"]),
            a["WSTRB"].eq(Cat(bit.replicate(width // part) for bit in pins["w_strobe"])),
            a["WLAST"].eq(moved == lengths.r_data),
            leaves.eq(a["WVALID"] & a["WREADY"]), pins["w_ready"].eq(a["WREADY"] & lengths.r_rdy),
            lengths.r_en.eq(leaves & a["WLAST"]),
            pins["b_valid"].eq(a["BVALID"]), a["BREADY"].eq(1),
        ]
        with m.If(leaves):
            m.d.sync += moved.eq(Mux(a["WLAST"], 0, moved + 1))

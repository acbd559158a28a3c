"""Walks a transfer's planes, rows and bytes and presents one AXI burst after another.

It moves no data; the read and the write master own the data channels.

A run of row_bytes bytes is cut as `cosim.memory.bursts.burst_bytes` says. The first burst of an
operation that starts in cycle s is presented in s + setup; the next one cycle after the one
before it was accepted, while fewer than `outstanding` bursts are in flight.

Bursts are cut ahead of their presentation, in stages of one short sum each: the start of a run,
its end, its part in each page of 4 KiB, and that part's bursts. A stage that makes several of
one holds back those before it. Two registers at the end (`head`, `spare`) keep a burst a cycle
coming; that a stage moves depends on registers only, never on the bus.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, ValueLike

from cosim.program.table import Opcode
from hw.rtl.shell import Shell

PAGE_BYTES = 4096  # no AXI burst crosses it
PAGE_BITS = PAGE_BYTES.bit_length() - 1
ADDRESS_BITS = 32
LENGTH_BITS = 8
#: Cycles from an operation's start to the cycle in which its first burst lies in `head`.
LEAST_SETUP = 6
#: Cycles from the last burst's end to the operation's end: it is registered, then decided.
LEAST_TAIL = 2


@dataclass(frozen=True)
class MasterConfig:
    """Numbers of one master: constants in an emitted design, inputs in a generic test model.

    `setup_cycles` is at least LEAST_SETUP, `tail_cycles` at least LEAST_TAIL. `burst_bytes` is
    the longest burst's beats times the port's width.
    """

    setup_cycles: ValueLike
    tail_cycles: ValueLike
    outstanding: ValueLike
    burst_bytes: ValueLike
    width_log2: ValueLike
    overlap_runs: ValueLike
    run_setup_cycles: ValueLike


class _Burst:
    """A burst's registers: where it begins, beats - 1, and whether it ends its run and all."""

    def __init__(self, name: str) -> None:
        self.valid = Signal(name=f"{name}_valid")
        self.address = Signal(ADDRESS_BITS, name=f"{name}_address")
        self.length = Signal(LENGTH_BITS, name=f"{name}_length")
        self.run_ends = Signal(name=f"{name}_run_ends")
        self.all_ends = Signal(name=f"{name}_all_ends")

    @property
    def fields(self) -> Value:
        """Everything but `valid`."""
        return Cat(self.address, self.length, self.run_ends, self.all_ends)


class BurstWalker(Elaboratable):
    """Presents the bursts of the shell's head command, from its start until `finished`.

    `length` is the burst's beats - 1. `burst_done` pulses in the cycle of a burst's last beat
    (read) or response (write). `finished` rises in the last cycle of the operation, tail
    included. `waiting` is high in cycles of an operation that are neither set-up nor tail.
    """

    def __init__(self, shell: Shell, config: MasterConfig) -> None:
        self.shell = shell
        self.config = config
        self.request = Signal()
        self.request_ready = Signal()
        self.address = Signal(ADDRESS_BITS)
        self.length = Signal(LENGTH_BITS)
        self.burst_done = Signal()
        self.finished = Signal()
        self.waiting = Signal()

    def _head(self, name: str) -> Value:
        return self.shell.argument(Opcode.LOAD, name)

    def elaborate(self, platform: object) -> Module:
        """Build the stages and what presents their bursts."""
        m = Module()
        head, spare, cut = _Burst("head"), _Burst("spare"), _Burst("cut")
        accepted = Signal()
        m.d.comb += [self.address.eq(head.address), self.length.eq(head.length),
                     accepted.eq(self.request & self.request_ready)]
        # A burst that is cut always finds `spare` free, so no stage asks the bus whether to move.
        moves = ~spare.valid
        comes = cut.valid & moves
        with m.If(accepted | ~head.valid):
            m.d.sync += [head.fields.eq(Mux(spare.valid, spare.fields, cut.fields)),
                         head.valid.eq(spare.valid | comes), spare.valid.eq(0)]
        with m.Elif(comes):
            m.d.sync += [spare.fields.eq(cut.fields), spare.valid.eq(1)]
        self._present(m, head, accepted)
        self._bursts(m, cut, moves)
        return m

    def _bursts(self, m: Module, cut: _Burst, moves: Value) -> None:
        """Cut the part of a run in one page; `cut` is its next burst."""
        width = Value.cast(self.config.width_log2)
        longest = (Value.cast(self.config.burst_bytes) >> width)[:16]
        left = Signal(PAGE_BITS)  # beats behind the first one of `cut`
        page_ends, run_ends, all_ends = Signal(), Signal(), Signal()
        part = self._parts(m, moves & (~cut.valid | page_ends))
        m.d.comb += [
            page_ends.eq(left < longest),
            cut.length.eq(Mux(page_ends, left, longest - 1)),
            cut.run_ends.eq(page_ends & run_ends), cut.all_ends.eq(page_ends & all_ends),
        ]
        place = cut.address[:PAGE_BITS]
        with m.If(moves & (~cut.valid | page_ends)):
            m.d.sync += [cut.valid.eq(part["valid"]), cut.address.eq(part["address"]),
                         left.eq(part["last_beat"] - part["first_beat"]),
                         run_ends.eq(part["run_ends"]), all_ends.eq(part["all_ends"])]
        with m.Elif(moves):
            m.d.sync += [left.eq(left - longest),
                         place.eq(((place >> width) + longest) << width)]

    def _parts(self, m: Module, moves: Value) -> dict[str, Value]:
        """Cut a run where pages end: the next part, which leaves if `moves`."""
        width = Value.cast(self.config.width_log2)
        valid, run_ends, all_runs = Signal(), Signal(), Signal()
        page, place = Signal(ADDRESS_BITS - PAGE_BITS), Signal(PAGE_BITS)
        more = Signal(ADDRESS_BITS - PAGE_BITS + 1)  # pages behind this one that the run reaches
        last_byte = Signal(PAGE_BITS)  # of the run, in its last page
        leaves = moves & run_ends | ~valid
        run = self._runs(m, leaves)
        with m.If(leaves):
            m.d.sync += [valid.eq(run["valid"]), Cat(place, page).eq(run["address"]),
                         Cat(last_byte, more).eq(run["last_byte"]), all_runs.eq(run["all_ends"]),
                         run_ends.eq(run["last_byte"][PAGE_BITS:] == 0)]
        with m.Elif(moves):
            m.d.sync += [page.eq(page + 1), place.eq(0), more.eq(more - 1),
                         run_ends.eq(more == 1)]
        return {"valid": valid, "address": Cat(place, page), "first_beat": place >> width,
                "last_beat": Mux(run_ends, last_byte, PAGE_BYTES - 1) >> width,
                "run_ends": run_ends, "all_ends": run_ends & all_runs}

    def _runs(self, m: Module, moves: Value) -> dict[str, Value]:
        """The runs of the operation, one a cycle: address and last byte, counted from the start
        of its first page."""
        row_bytes, rows, planes = (self._head(name) for name in ("row_bytes", "rows", "planes"))
        valid, row_ends, plane_ends = Signal(), Signal(), Signal()
        address, next_plane = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        rows_left, planes_left = Signal(32), Signal(32)
        made, ends, span = Signal(), Signal(), Signal(32)
        start, last_byte = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS + 1)
        moved = moves | ~made
        with m.If(self.shell.begins):
            m.d.sync += [
                valid.eq(1), span.eq(row_bytes - 1), address.eq(self._head("address")),
                rows_left.eq(rows),
                planes_left.eq(planes), row_ends.eq(rows == 1), plane_ends.eq(planes == 1),
                next_plane.eq(self._head("address") + self._head("plane_stride"))]
        with m.Elif(valid & moved):
            with m.If(~row_ends):
                m.d.sync += [address.eq(address + self._head("row_stride")),
                             rows_left.eq(rows_left - 1), row_ends.eq(rows_left == 2)]
            with m.Else():
                m.d.sync += [address.eq(next_plane), rows_left.eq(rows), row_ends.eq(rows == 1),
                             next_plane.eq(next_plane + self._head("plane_stride")),
                             planes_left.eq(planes_left - 1), plane_ends.eq(planes_left == 2),
                             valid.eq(~plane_ends)]
        with m.If(moved):
            m.d.sync += [made.eq(valid), start.eq(address), ends.eq(row_ends & plane_ends),
                         last_byte.eq(address[:PAGE_BITS] + span)]
        return {"valid": made, "address": start, "last_byte": last_byte, "all_ends": ends}

    def _present(self, m: Module, head: _Burst, accepted: Signal) -> None:
        """Say when `head` is requested, and count what is in flight until the end."""
        config = self.config
        outstanding = Value.cast(config.outstanding)
        in_flight, delay = Signal(8), Signal(8)
        run_opens, room, settled, opening = Signal(), Signal(init=1), Signal(), Signal()
        may_count, waits = Signal(), Signal()
        m.d.comb += [
            may_count.eq(Value.cast(config.overlap_runs).bool() | ~run_opens | (in_flight == 0)),
            self.request.eq(head.valid & settled & may_count & room),
            self.waiting.eq(waits & ~opening)]
        more, fewer = accepted & ~self.burst_done, self.burst_done & ~accepted
        with m.If(more):
            m.d.sync += [in_flight.eq(in_flight + 1), room.eq(in_flight + 1 < outstanding)]
        with m.Elif(fewer):
            m.d.sync += [in_flight.eq(in_flight - 1), room.eq(1)]
        # `begins` comes a cycle after the start, and `settled` is a register.
        with m.If(self.shell.begins):
            m.d.sync += [delay.eq(Value.cast(config.setup_cycles) - 2), settled.eq(0),
                         waits.eq(1), opening.eq(1), run_opens.eq(0)]
        with m.Elif(accepted):
            m.d.sync += [run_opens.eq(head.run_ends)]
            with m.If(head.run_ends):
                m.d.sync += [delay.eq(config.run_setup_cycles),
                             settled.eq(Value.cast(config.run_setup_cycles) == 0)]
        with m.Elif(~settled & may_count):
            m.d.sync += [delay.eq(delay - 1), settled.eq(delay == 1),
                         opening.eq(opening & (delay != 1))]
        self._finish(m, accepted & head.all_ends, accepted, in_flight, waits)

    def _finish(self, m: Module, sends_last: Value, accepted: Signal, in_flight: Signal,
                waits: Signal) -> None:
        """Raise `finished` `tail` cycles after the cycle of the last burst's end."""
        tail, tailing, all_sent = Signal(8), Signal(), Signal()
        last = Signal()
        # A memory without latency may answer in the cycle in which it accepts the last burst.
        m.d.comb += last.eq(self.burst_done & (
            (all_sent & (in_flight == 1)) | (sends_last & (in_flight == 0))))
        with m.If(last):
            m.d.sync += [all_sent.eq(0), waits.eq(0), tailing.eq(1),
                         tail.eq(Value.cast(self.config.tail_cycles) - 1)]
        with m.Elif(sends_last):
            m.d.sync += all_sent.eq(1)
        with m.If(tailing & ~last):
            m.d.sync += [tail.eq(tail - 1), tailing.eq(tail != 1)]
        m.d.sync += self.finished.eq(tailing & (tail == 1))

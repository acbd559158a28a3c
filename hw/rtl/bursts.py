"""Walks a transfer's planes, rows and bytes and presents one AXI burst after another.

It moves no data; the read and the write master own the data channels.

A run of row_bytes bytes is cut as `cosim.memory.bursts.burst_bytes` says. The first burst of an
operation that starts in cycle s is presented in s + setup; the next one cycle after the one
before it was accepted, while fewer than `outstanding` bursts are in flight.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Elaboratable, Module, Mux, Signal, Value, ValueLike

from cosim.program.table import Opcode
from hw.rtl.shell import Shell

PAGE_BYTES = 4096  # no AXI burst crosses it


@dataclass(frozen=True)
class MasterConfig:
    """Numbers of one master: constants in an emitted design, inputs in a generic test model.

    `setup_cycles` is at least 1: the request registers are written by the edge that ends the
    start cycle. `burst_bytes` is the longest burst's beats times the port's width.
    """

    setup_cycles: ValueLike
    tail_cycles: ValueLike
    outstanding: ValueLike
    burst_bytes: ValueLike
    width_log2: ValueLike
    overlap_runs: ValueLike
    run_setup_cycles: ValueLike


class BurstWalker(Elaboratable):
    """Presents the bursts of the shell's head command, from its start until `finished`.

    `burst_done` pulses in the cycle of a burst's last beat (read) or response (write).
    `finished` rises in the last cycle of the operation, tail included.
    `waiting` is high in cycles of an operation that are neither set-up nor tail.
    """

    def __init__(self, shell: Shell, config: MasterConfig) -> None:
        self.shell = shell
        self.config = config
        self.request = Signal()
        self.request_ready = Signal()
        self.address = Signal(32)
        self.beats = Signal(9)
        self.burst_done = Signal()
        self.finished = Signal()
        self.waiting = Signal()

    def _head(self, name: str) -> Value:
        return self.shell.argument(Opcode.LOAD, name)

    def elaborate(self, platform: object) -> Module:
        """Build the walk."""
        m = Module()
        config, start = self.config, self.shell.start
        pending, opening, run_opens = Signal(), Signal(), Signal()
        left = Signal(32)
        delay = Signal(8)
        run_address, plane_address = Signal(32), Signal(32)
        rows_left, planes_left = Signal(32), Signal(32)
        in_flight = Signal(8)
        accepted, may_count = Signal(), Signal()
        m.d.comb += [
            may_count.eq(Value.cast(config.overlap_runs).bool() | ~run_opens | (in_flight == 0)),
            self.request.eq(pending & (delay == 0) & may_count
                            & (in_flight < config.outstanding)),
            accepted.eq(self.request & self.request_ready),
        ]
        m.d.sync += in_flight.eq(in_flight + accepted - self.burst_done)

        cut = self._cut(m, left)
        run_ends = Signal()
        next_row, next_plane = Signal(32), Signal(32)
        m.d.comb += [run_ends.eq(cut == left),
                     next_row.eq(run_address + self._head("row_stride")),
                     next_plane.eq(plane_address + self._head("plane_stride"))]
        row_bytes, first = self._head("row_bytes"), self._head("address")
        rows = self._head("rows")
        with m.If(start):
            m.d.sync += [
                pending.eq(1), opening.eq(1), run_opens.eq(1),
                delay.eq(Value.cast(config.setup_cycles) - 1),
                self.address.eq(first), run_address.eq(first), plane_address.eq(first),
                left.eq(row_bytes), rows_left.eq(rows - 1),
                planes_left.eq(self._head("planes") - 1),
            ]
        with m.Elif(accepted):
            m.d.sync += [opening.eq(0), run_opens.eq(run_ends)]
            with m.If(~run_ends):
                m.d.sync += [self.address.eq(self.address + cut), left.eq(left - cut)]
            with m.Elif(rows_left != 0):
                m.d.sync += [self.address.eq(next_row), run_address.eq(next_row),
                             left.eq(row_bytes), rows_left.eq(rows_left - 1),
                             delay.eq(config.run_setup_cycles)]
            with m.Elif(planes_left != 0):
                m.d.sync += [self.address.eq(next_plane), run_address.eq(next_plane),
                             plane_address.eq(next_plane), left.eq(row_bytes),
                             rows_left.eq(rows - 1), planes_left.eq(planes_left - 1),
                             delay.eq(config.run_setup_cycles)]
            with m.Else():
                m.d.sync += pending.eq(0)
        with m.Elif((delay != 0) & may_count):
            m.d.sync += delay.eq(delay - 1)
        # A memory without latency may answer in the cycle in which it accepts the last burst.
        ends_now = accepted & run_ends & (rows_left == 0) & (planes_left == 0)
        self._finish(m, ~pending | ends_now, in_flight + accepted)
        set_up = Signal()
        m.d.comb += [
            set_up.eq(opening & (delay != 0)),
            self.waiting.eq(~start & ~set_up & (pending | (in_flight != 0))),
        ]
        return m

    def _cut(self, m: Module, left: Signal) -> Signal:
        """Bytes of the burst at `address`; its whole beats go to `beats`."""
        to_page = Signal(13)
        aligned, longest, cut = Signal(16), Signal(32), Signal(32)
        width_log2 = Value.cast(self.config.width_log2)
        mask, offset = Signal(8), Signal(8)
        m.d.comb += [
            mask.eq((1 << width_log2) - 1),
            offset.eq(self.address[:8] & mask),
            to_page.eq(PAGE_BYTES - self.address[:12]),
            aligned.eq(self.config.burst_bytes - offset),
            longest.eq(Mux(left < aligned, left, aligned)),
            cut.eq(Mux(longest < to_page, longest, to_page)),
            self.beats.eq((offset + cut + mask) >> width_log2),
        ]
        return cut

    def _finish(self, m: Module, all_accepted: Value, in_flight: Value) -> None:
        """Raise `finished` `tail` cycles after the cycle of the last burst's end."""
        tail_cycles = Value.cast(self.config.tail_cycles)
        tail = Signal(8)
        last, tailing = Signal(), Signal()
        m.d.comb += [
            last.eq(self.burst_done & (in_flight == 1) & all_accepted),
            self.finished.eq(Mux(tail_cycles == 0, last, tailing & (tail == 0))),
        ]
        with m.If(last):
            m.d.sync += [tailing.eq(tail_cycles != 0), tail.eq(tail_cycles - 1)]
        with m.Elif(tailing):
            m.d.sync += tail.eq(tail - 1)
            with m.If(tail == 0):
                m.d.sync += tailing.eq(0)

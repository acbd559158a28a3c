"""Walks a transfer's planes, rows and bytes and presents one AXI burst after another.

It moves no data; the read and the write master own the data channels.

A run of row_bytes bytes is cut as `cosim.memory.bursts.burst_bytes` says. The first burst of an
operation that starts in cycle s is presented in s + setup; the next one cycle after the one
before it was accepted, while fewer than `outstanding` bursts are in flight.

Bursts are cut ahead of their presentation, in stages of one short sum each: the start of a run,
its end, its part in each page of 4 KiB, that part's beats, and its bursts. Small queues lie
between the stages that make several of one, so that whether a stage moves is told by two or three
flags, never by the bus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal, Value, ValueLike

from cosim.program.table import Opcode
from hw.rtl.pipeline import delay, register
from hw.rtl.shell import Shell
from hw.rtl.transfers.queue import Queue

PAGE_BYTES = 4096  # no AXI burst crosses it
PAGE_BITS = PAGE_BYTES.bit_length() - 1
ADDRESS_BITS = 32
LENGTH_BITS = 8
#: Cycles from an operation's start to the cycle in which its first burst is there.
LEAST_SETUP = 10
#: Bursts in flight, at least, of the tensor memory, which answers a single beat in four cycles.
ON_CHIP_OUTSTANDING = 4
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


def _stage(m: Module, source: Queue, out: Queue, last: Signal, single: Value, near: Value
           ) -> tuple[Signal, Signal]:
    """(opens, moves), registers of a stage that makes one word or several of each that it takes.

    In a cycle of `moves` a word goes on, to where `out` has room; in one of `opens` a word is
    taken if there is one. `last`: the word that is there is the last one of what was taken; it is
    set to `single` with the first, and to `near` with a later one.
    """
    valid, opens, moves = Signal(), Signal(), Signal()
    comes = Mux(opens, source.r_rdy, valid)
    ends = Mux(opens, single, Mux(moves, near, last))
    m.d.comb += source.r_en.eq(opens)
    m.d.sync += [valid.eq(comes), last.eq(ends), moves.eq(comes & out.room),
                 opens.eq(out.room & (ends | ~comes))]
    return opens, moves


def few(m: Module, opens: Value, count: Value, left: Signal) -> Callable[[int], Value]:
    """Compares a counter with numbers up to 4. It is `count` a cycle after `opens`, and falls by
    one or two: below 8 it was a cycle ago, then, so that a register tells what its high bits say.
    """
    begins, low = register(m, count[3:] == 0), Signal()
    m.d.sync += low.eq(Mux(opens, begins, left[3:] == 0))
    return lambda number: low & (left[:3] == number)


class BurstWalker(Elaboratable):
    """Presents the bursts of the shell's head command, from its start until `finished`.

    `length` is the burst's beats - 1. `burst_done` pulses in the cycle of a burst's last beat
    (read) or response (write). `finished` rises in the last cycle of the operation, tail
    included. `waiting` is high in cycles of an operation that are neither set-up nor tail.
    `on_chip`: does the tensor memory answer the head command? None: there is none.
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
        self.comes = Signal()  # from the next cycle on `address` is that of another burst,
        self.coming = Signal(LENGTH_BITS)  # with so many beats - 1
        self.on_chip: Value | None = None

    def _head(self, name: str) -> Value:
        return self.shell.argument(Opcode.LOAD, name)

    def elaborate(self, platform: object) -> Module:
        """Build the stages and what presents their bursts."""
        m = Module()
        m.submodules.runs = runs = Queue(2 * ADDRESS_BITS + 3)
        m.submodules.parts = parts = Queue(ADDRESS_BITS + PAGE_BITS + 2)
        m.submodules.bursts = bursts = Queue(ADDRESS_BITS + LENGTH_BITS + 2)
        valid, run_ends, all_ends, accepted = (Signal() for _ in range(4))
        empty, quiet = Signal(init=1), Signal(init=1)  # not `valid`, not a request: registers
        first = Cat(self.address, self.length, run_ends, all_ends)
        spare, waits = Signal(len(first), reset_less=True), Signal()
        m.d.comb += [accepted.eq(self.request & self.request_ready), bursts.r_en.eq(~waits)]
        # What leaves the queue while the first burst is kept waits in `spare`: the bus moves
        # these registers only.
        with m.If(~waits):
            m.d.sync += spare.eq(bursts.r_data)
        moves, there = accepted | ~valid, waits | bursts.r_rdy
        with m.If(moves):
            m.d.sync += first.eq(Mux(waits, spare, bursts.r_data))
        stays = there | ~(empty | accepted)  # as `moves` says, but past what moves
        m.d.sync += [valid.eq(stays), empty.eq(~stays), waits.eq(~moves & there)]
        m.d.comb += [self.comes.eq(there & (empty | (~quiet & self.request_ready))),
                     self.coming.eq(Mux(waits, spare, bursts.r_data)[ADDRESS_BITS:])]
        self._runs(m, runs)
        self._parts(m, runs, parts)
        self._bursts(m, parts, bursts)
        m.d.sync += quiet.eq(~self._present(m, stays, run_ends, all_ends, accepted))
        return m

    def _runs(self, m: Module, out: Queue) -> None:
        """The runs of the operation: address, last byte (counted from the start of the first
        page), whether that is in the first page, and whether it is the operation's last."""
        row_bytes, rows, planes = (self._head(name) for name in ("row_bytes", "rows", "planes"))
        valid, moves, row_ends, plane_ends = Signal(), Signal(), Signal(), Signal()
        begins = ~self.shell.stays
        goes_on = begins | (valid & ~(moves & row_ends & plane_ends))
        m.d.sync += [valid.eq(goes_on), moves.eq(goes_on & out.room)]
        address, next_plane = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        rows_left, planes_left = Signal(32), Signal(32)
        span = register(m, (row_bytes - 1)[:32])
        one_row, one_plane = register(m, rows == 1), register(m, planes == 1)
        few_rows = few(m, begins | (moves & row_ends), rows, rows_left)
        few_planes = few(m, begins, planes, planes_left)
        with m.If(begins):
            m.d.sync += [
                address.eq(self._head("address")),
                rows_left.eq(rows), planes_left.eq(planes), row_ends.eq(one_row),
                plane_ends.eq(one_plane),
                next_plane.eq(self._head("address") + self._head("plane_stride"))]
        with m.Elif(moves):
            with m.If(~row_ends):
                m.d.sync += [address.eq(address + self._head("row_stride")),
                             rows_left.eq(rows_left - 1), row_ends.eq(few_rows(2))]
            with m.Else():
                m.d.sync += [address.eq(next_plane), rows_left.eq(rows), row_ends.eq(one_row),
                             next_plane.eq(next_plane + self._head("plane_stride")),
                             planes_left.eq(planes_left - 1), plane_ends.eq(few_planes(2))]
        # Does the run end in the page in which it starts?
        short = register(m, span[PAGE_BITS:] == 0)
        within = ~(address[:PAGE_BITS] + span[:PAGE_BITS])[PAGE_BITS]
        m.d.comb += [
            out.w_en.eq(delay(m, moves, 1)),
            out.w_data.eq(Cat(register(m, address), register(m, address[:PAGE_BITS] + span),
                              register(m, short & within), register(m, row_ends & plane_ends)))]

    def _parts(self, m: Module, runs: Queue, out: Queue) -> None:
        """Cut a run where pages end: each part's address, beats - 1 and ends."""
        width = Value.cast(self.config.width_log2)
        run_ends, all_runs = Signal(), Signal()
        page, place = Signal(ADDRESS_BITS - PAGE_BITS), Signal(PAGE_BITS)
        more = Signal(ADDRESS_BITS - PAGE_BITS + 1)  # pages behind this one that the run reaches
        last_byte = Signal(PAGE_BITS)  # of the run, in its last page
        end, within = runs.r_data[ADDRESS_BITS:-2], runs.r_data[-2]
        opens, moves = _stage(m, runs, out, run_ends, within, more == 1)
        with m.If(opens):
            m.d.sync += [Cat(place, page).eq(runs.r_data[:ADDRESS_BITS]),
                         Cat(last_byte, more).eq(end), all_runs.eq(runs.r_data[-1])]
        with m.Elif(moves):
            m.d.sync += [page.eq(page + 1), place.eq(0), more.eq(more - 1)]
        last_beat = Mux(run_ends, last_byte, PAGE_BYTES - 1) >> width
        m.d.comb += [
            out.w_en.eq(delay(m, moves, 1)),
            out.w_data.eq(register(m, Cat(
                place, page, (last_beat - (place >> width))[:PAGE_BITS], run_ends,
                run_ends & all_runs)))]

    def _bursts(self, m: Module, parts: Queue, out: Queue) -> None:
        """Cut the part of a run in one page into bursts: address, beats - 1 and ends."""
        width = Value.cast(self.config.width_log2)
        longest = (Value.cast(self.config.burst_bytes) >> width)[:16]
        page_ends, ends = Signal(), Signal(2)
        address, left = Signal(ADDRESS_BITS), Signal(PAGE_BITS)  # beats behind the first one
        beats = parts.r_data[ADDRESS_BITS:-2]
        opens, moves = _stage(m, parts, out, page_ends, beats < longest, left < (longest << 1))
        m.d.comb += [
            out.w_en.eq(moves),
            out.w_data.eq(Cat(address, Mux(page_ends, left, longest - 1)[:LENGTH_BITS],
                              ends & page_ends.replicate(2)))]
        place = address[:PAGE_BITS]
        with m.If(opens):
            m.d.sync += [address.eq(parts.r_data), left.eq(beats), ends.eq(parts.r_data[-2:])]
        with m.Elif(moves):
            m.d.sync += [left.eq(left - longest),
                         place.eq(((place >> width) + longest) << width)]

    def _present(self, m: Module, stays: Value, run_ends: Signal, all_ends: Signal,
                 accepted: Signal) -> Value:
        """Say when the first burst is requested, and count what is in flight until the end.

        `stays`: there is a first burst in the next cycle. The request is a register. Returns
        whether there is one in the next cycle.
        """
        config = self.config
        outstanding, most = Value.cast(config.outstanding), config.outstanding
        if self.on_chip is not None and isinstance(most, int) and most < ON_CHIP_OUTSTANDING:
            outstanding, most = Mux(self.on_chip, ON_CHIP_OUTSTANDING, most), ON_CHIP_OUTSTANDING
        in_flight = Signal(most.bit_length() if isinstance(most, int) else 8)
        delay_left = Signal(8)
        run_opens, room, settled, opening = Signal(), Signal(init=1), Signal(), Signal()
        none = Signal(init=1)  # nothing is in flight
        now = (room, none, settled, run_opens)
        then = tuple(Signal.like(item) for item in now)  # these in the next cycle
        next_room, next_none, next_settled, next_opens = then
        overlaps = Value.cast(config.overlap_runs).bool()
        m.d.comb += [later.eq(item) for later, item in zip(then, now, strict=True)]
        asks = stays & next_room & next_settled & (overlaps | ~next_opens | next_none)
        m.d.sync += [*(item.eq(later) for later, item in zip(then, now, strict=True)),
                     self.request.eq(asks)]
        may_count = overlaps | ~run_opens | none
        more, fewer = accepted & ~self.burst_done, self.burst_done & ~accepted
        with m.If(more):
            m.d.sync += in_flight.eq(in_flight + 1)
            m.d.comb += [next_room.eq(in_flight + 1 < outstanding), next_none.eq(0)]
        with m.Elif(fewer):
            m.d.sync += in_flight.eq(in_flight - 1)
            m.d.comb += [next_room.eq(1), next_none.eq(in_flight == 1)]
        # `begins` comes a cycle after the start, and `settled` is a register.
        with m.If(self.shell.begins):
            m.d.sync += [delay_left.eq(Value.cast(config.setup_cycles) - 2), opening.eq(1)]
            m.d.comb += [next_settled.eq(0), next_opens.eq(0)]
        with m.Elif(accepted):
            m.d.comb += next_opens.eq(run_ends)
            if isinstance(config.run_setup_cycles, Value) or config.run_setup_cycles:
                with m.If(run_ends):
                    m.d.sync += delay_left.eq(config.run_setup_cycles)
                    m.d.comb += next_settled.eq(Value.cast(config.run_setup_cycles) == 0)
        with m.Elif(~settled & may_count):
            m.d.sync += [delay_left.eq(delay_left - 1), opening.eq(opening & (delay_left != 1))]
            m.d.comb += next_settled.eq(delay_left == 1)
        self._finish(m, accepted & all_ends, none, opening)
        return asks

    def _finish(self, m: Module, sends_last: Value, none: Signal, opening: Signal) -> None:
        """Raise `finished` `tail` cycles after the cycle of the last burst's end.

        `last` is seen a cycle late, when the end and a burst that was accepted with it are
        counted: a memory without latency may answer in the cycle of the request.
        """
        waits, all_sent, last, tailing, tail = (
            Signal(), Signal(), Signal(), Signal(), Signal(8))
        tail_cycles = Value.cast(self.config.tail_cycles)
        m.d.comb += [
            last.eq(register(m, self.burst_done) & all_sent & none),
            self.waiting.eq(waits & ~opening & ~last)]
        with m.If(self.shell.begins):
            m.d.sync += waits.eq(1)
        with m.Elif(last):
            m.d.sync += waits.eq(0)
        with m.If(sends_last):
            m.d.sync += all_sent.eq(1)
        with m.Elif(last):
            m.d.sync += all_sent.eq(0)
        with m.If(last):
            m.d.sync += [tailing.eq(tail_cycles != LEAST_TAIL), tail.eq(tail_cycles - LEAST_TAIL)]
        with m.Elif(tailing):
            m.d.sync += [tail.eq(tail - 1), tailing.eq(tail != 1)]
        m.d.sync += self.finished.eq(
            (last & (tail_cycles == LEAST_TAIL)) | (tailing & (tail == 1)))

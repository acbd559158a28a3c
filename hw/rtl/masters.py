"""AXI read and write masters: a shell, a burst walker, and the data channels.

They do not know the buffers: a beat comes out or goes in with its plane and position.

All requests carry one ID, so the memory answers in order.
"""

from __future__ import annotations

from amaranth.hdl import Elaboratable, Module, Mux, Signal
from amaranth.lib.fifo import SyncFIFO

from cosim.program import Opcode
from hw.descriptors import TRANSFER, argument_fields
from hw.rtl.bursts import BurstWalker, MasterConfig
from hw.rtl.shell import Shell

DATA_BITS = 64
BEAT_LOG2 = 3


class BeatCounter(Elaboratable):
    """Plane and position of the beat that moves now; position counts the beats of a plane.

    All zero outside operations, so that it is right in the start cycle.
    """

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.step = Signal()
        self.plane = Signal(16)
        self.position = Signal(24)
        self.last = Signal()  # the beat is the operation's last one

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        shell = self.shell
        beats = shell.argument(Opcode.LOAD, "row_bytes")[BEAT_LOG2:]
        beat, row = Signal(29), Signal(32)
        row_ends, plane_ends = Signal(), Signal()
        m.d.comb += [
            row_ends.eq(beat == beats - 1),
            plane_ends.eq(row_ends & (row == shell.argument(Opcode.LOAD, "rows") - 1)),
            self.last.eq(plane_ends
                         & (self.plane == shell.argument(Opcode.LOAD, "planes") - 1)),
        ]
        with m.If(shell.active & shell.done):
            m.d.sync += [beat.eq(0), row.eq(0), self.plane.eq(0), self.position.eq(0)]
        with m.Elif(self.step):
            m.d.sync += [beat.eq(Mux(row_ends, 0, beat + 1)),
                         self.position.eq(Mux(plane_ends, 0, self.position + 1))]
            with m.If(row_ends):
                m.d.sync += row.eq(Mux(plane_ends, 0, row + 1))
            with m.If(plane_ends):
                m.d.sync += self.plane.eq(self.plane + 1)
        return m


class ReadMaster(Elaboratable):
    """Reads bursts and takes every beat in the cycle it comes.

    `r_valid` with `r_data`, `counter.plane` and `counter.position` is the stream of beats.
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.LOAD)), waits, signals)
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell)
        self.ar_valid = self.walker.request
        self.ar_ready = self.walker.request_ready
        self.ar_address = self.walker.address
        self.ar_beats = self.walker.beats
        self.r_valid = Signal()
        self.r_data = Signal(DATA_BITS)
        self.r_last = Signal()

    def elaborate(self, platform: object) -> Module:
        """Connect the parts."""
        m = Module()
        m.submodules.shell = shell = self.shell
        m.submodules.walker = walker = self.walker
        m.submodules.counter = counter = self.counter
        m.d.comb += [
            walker.burst_done.eq(self.r_valid & self.r_last),
            shell.done.eq(walker.finished),
            shell.moving.eq(~walker.waiting | self.r_valid),
            counter.step.eq(self.r_valid),
        ]
        return m


class WriteMaster(Elaboratable):
    """Writes bursts. `fetch` asks for the beat at `counter.plane`, `counter.position`.

    `data` is that beat, one cycle later. A small queue keeps the write channel from ever waiting
    for the buffer; with `streams` false there is no buffer and every beat is zero (timing only).
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 streams: bool = True) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.STORE)), waits, signals)
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell) if streams else None
        self.aw_valid = self.walker.request
        self.aw_ready = self.walker.request_ready
        self.aw_address = self.walker.address
        self.aw_beats = self.walker.beats
        self.w_valid = Signal()
        self.w_ready = Signal()
        self.w_data = Signal(DATA_BITS)
        self.b_valid = Signal()
        self.fetch = Signal()
        self.data = Signal(DATA_BITS)

    def elaborate(self, platform: object) -> Module:
        """Connect the parts."""
        m = Module()
        m.submodules.shell = shell = self.shell
        m.submodules.walker = walker = self.walker
        m.d.comb += [
            walker.burst_done.eq(self.b_valid),
            shell.done.eq(walker.finished),
            shell.moving.eq(~walker.waiting | (self.w_valid & self.w_ready)),
        ]
        if self.counter is None:
            m.d.comb += self.w_valid.eq(shell.active)
        else:
            self._stream(m, self.counter)
        return m

    def _stream(self, m: Module, counter: BeatCounter) -> None:
        """Fetch ahead from the start cycle on; a beat may leave in the cycle it arrives."""
        m.submodules.counter = counter
        m.submodules.queue = queue = SyncFIFO(width=DATA_BITS, depth=4)
        all_fetched, fetched = Signal(), Signal()
        with m.If(self.shell.active & self.shell.done):
            m.d.sync += all_fetched.eq(0)
        with m.Elif(self.fetch & counter.last):
            m.d.sync += all_fetched.eq(1)
        m.d.sync += fetched.eq(self.fetch)
        leaves = Signal()
        m.d.comb += [
            self.fetch.eq(self.shell.active & ~all_fetched & (queue.level + fetched < 3)),
            counter.step.eq(self.fetch),
            self.w_valid.eq(queue.r_rdy | fetched),
            self.w_data.eq(Mux(queue.r_rdy, queue.r_data, self.data)),
            leaves.eq(self.w_valid & self.w_ready),
            queue.w_data.eq(self.data),
            queue.w_en.eq(fetched & (queue.r_rdy | ~leaves)),
            queue.r_en.eq(queue.r_rdy & leaves),
        ]

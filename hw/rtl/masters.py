"""AXI read and write masters: a shell, a burst walker, and the data channels.

They do not know the buffers: a beat comes out or goes in with its plane and position.

All requests carry one ID, so the memory answers in order. Ports have 32, 64 or 128 bits; addresses
and runs are multiples of 8 bytes, so a run may begin in the upper half of a 128-bit port.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.fifo import SyncFIFO

from cosim.program.table import Opcode
from hw.interface.descriptors import TRANSFER, argument_fields
from hw.rtl.bursts import BurstWalker, MasterConfig
from hw.rtl.shell import Shell

BEAT_BITS = 64  # a beat of the buffers; a port moves a half, one or two of them a cycle
BEAT_LOG2 = 3
PORT_BITS = (32, 64, 128)


class BeatCounter(Elaboratable):
    """Plane and position of the beat that moves now; position counts the beats of a plane.

    All zero outside operations, so that it is right in the start cycle. A `step` is one data
    cycle of a port of `port_bits`. With 32 bits, `upper` says which half of the beat moves. With
    128 bits, up to two beats of one run move: `valid` says which places (position, position + 1)
    are used, and `upper` that the only one lies in the upper half of the port.
    """

    def __init__(self, shell: Shell, port_bits: int = BEAT_BITS) -> None:
        self.shell = shell
        self.port_bits = port_bits
        self.slots = max(1, port_bits // BEAT_BITS)
        self.step = Signal()
        self.plane = Signal(16)
        self.position = Signal(24)
        self.index = Signal(24)  # beats of the operation that came before
        self.valid = Signal(self.slots)
        self.upper = Signal()
        self.last = Signal()  # the step is the operation's last one

    def elaborate(self, platform: object) -> Module:
        """Build the counters."""
        m = Module()
        shell = self.shell
        beats = shell.argument(Opcode.LOAD, "row_bytes")[BEAT_LOG2:]
        beat, row = Signal(29), Signal(32)
        moved, whole = Signal(2), Signal(init=1)
        row_ends, plane_ends = Signal(), Signal()
        m.d.comb += [
            row_ends.eq((beat + moved == beats) & whole),
            plane_ends.eq(row_ends & (row == shell.argument(Opcode.LOAD, "rows") - 1)),
            self.last.eq(plane_ends
                         & (self.plane == shell.argument(Opcode.LOAD, "planes") - 1)),
        ]
        ends = shell.active & shell.done
        if self.slots == 1:
            m.d.comb += [moved.eq(1), self.valid.eq(whole)]
        else:
            self._pairs(m, beats, beat, moved, ends, self.step & row_ends, plane_ends)
        if self.port_bits < BEAT_BITS:
            m.d.comb += whole.eq(self.upper)
            with m.If(ends):
                m.d.sync += self.upper.eq(0)
            with m.Elif(self.step):
                m.d.sync += self.upper.eq(~self.upper)
        with m.If(ends):
            m.d.sync += [beat.eq(0), row.eq(0), self.plane.eq(0), self.position.eq(0),
                         self.index.eq(0)]
        with m.Elif(self.step & whole):
            m.d.sync += [beat.eq(Mux(row_ends, 0, beat + moved)),
                         self.index.eq(self.index + moved),
                         self.position.eq(Mux(plane_ends, 0, self.position + moved))]
            with m.If(row_ends):
                m.d.sync += row.eq(Mux(plane_ends, 0, row + 1))
            with m.If(plane_ends):
                m.d.sync += self.plane.eq(self.plane + 1)
        return m

    def _pairs(self, m: Module, beats: Value, beat: Signal, moved: Signal, ends: Value,
               run_ends: Value, plane_ends: Value) -> None:
        """A run that begins in the upper half of the port begins with a single beat."""
        argument = self.shell.argument
        run_moved, plane_moved = Signal(), Signal()  # bit 3 of the run's and the plane's offset
        begins_upper, two = Signal(), Signal()
        next_plane = plane_moved ^ argument(Opcode.LOAD, "plane_stride")[BEAT_LOG2]
        m.d.comb += [
            begins_upper.eq(argument(Opcode.LOAD, "address")[BEAT_LOG2] ^ run_moved),
            self.upper.eq((beat == 0) & begins_upper),
            two.eq(~self.upper & (beat + 1 != beats)),
            moved.eq(1 + two),
            self.valid.eq(Cat(1, two)),
        ]
        with m.If(ends):
            m.d.sync += [run_moved.eq(0), plane_moved.eq(0)]
        with m.Elif(run_ends & plane_ends):
            m.d.sync += [run_moved.eq(next_plane), plane_moved.eq(next_plane)]
        with m.Elif(run_ends):
            m.d.sync += run_moved.eq(run_moved ^ argument(Opcode.LOAD, "row_stride")[BEAT_LOG2])


class ReadMaster(Elaboratable):
    """Reads bursts and takes every beat in the cycle it comes.

    The stream of beats: `beats` has (valid, data) of each place that `counter` names.
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 port_bits: int = BEAT_BITS) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.LOAD)), waits, signals)
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell, port_bits)
        self.beats = [(Signal(name=f"beat_valid_{slot}"), Signal(BEAT_BITS, name=f"beat_{slot}"))
                      for slot in range(self.counter.slots)]
        self.ar_valid = self.walker.request
        self.ar_ready = self.walker.request_ready
        self.ar_address = self.walker.address
        self.ar_beats = self.walker.beats
        self.r_valid = Signal()
        self.r_data = Signal(port_bits)
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
        for slot, (valid, _) in enumerate(self.beats):
            m.d.comb += valid.eq(self.r_valid & counter.valid[slot])
        data = [beat for _, beat in self.beats]
        if len(self.r_data) < BEAT_BITS:
            lower = Signal(len(self.r_data))
            with m.If(self.r_valid):
                m.d.sync += lower.eq(self.r_data)
            m.d.comb += data[0].eq(Cat(lower, self.r_data))
        elif counter.slots == 1:
            m.d.comb += data[0].eq(self.r_data)
        else:
            low, high = self.r_data[:BEAT_BITS], self.r_data[BEAT_BITS:]
            m.d.comb += [data[0].eq(Mux(counter.upper, high, low)), data[1].eq(high)]
        return m


class WriteMaster(Elaboratable):
    """Writes bursts. `fetch` asks for the beat at `counter.plane`, `counter.position`.

    `data` is that beat (with 128 bits, and the one at the next position), one cycle later;
    `w_strobe` has a bit for each 8 bytes of the port. A small queue keeps the write channel from
    ever waiting for the buffer; with `streams` false there is no buffer and every beat is zero
    (timing only).
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 streams: bool = True, port_bits: int = BEAT_BITS) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.STORE)), waits, signals)
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell, port_bits) if streams else None
        self.aw_valid = self.walker.request
        self.aw_ready = self.walker.request_ready
        self.aw_address = self.walker.address
        self.aw_beats = self.walker.beats
        self.w_valid = Signal()
        self.w_ready = Signal()
        slots = max(1, port_bits // BEAT_BITS)
        self.w_data = Signal(port_bits)
        self.w_strobe = Signal(slots)
        self.b_valid = Signal()
        self.fetch = Signal()
        self.data = Signal(BEAT_BITS * slots)

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
        port_bits = len(self.w_data)
        m.submodules.queue = queue = SyncFIFO(width=port_bits + counter.slots, depth=4)
        all_fetched, fetched = Signal(), Signal()
        with m.If(self.shell.active & self.shell.done):
            m.d.sync += all_fetched.eq(0)
        with m.Elif(self.fetch & counter.last):
            m.d.sync += all_fetched.eq(1)
        m.d.sync += fetched.eq(self.fetch)
        leaves, fresh = Signal(), Signal(port_bits + counter.slots)
        m.d.comb += [
            self.fetch.eq(self.shell.active & ~all_fetched & (queue.level + fetched < 3)),
            counter.step.eq(self.fetch),
            fresh.eq(self._packed(m, counter)),
            self.w_valid.eq(queue.r_rdy | fetched),
            Cat(self.w_data, self.w_strobe).eq(Mux(queue.r_rdy, queue.r_data, fresh)),
            leaves.eq(self.w_valid & self.w_ready),
            queue.w_data.eq(fresh),
            queue.w_en.eq(fetched & (queue.r_rdy | ~leaves)),
            queue.r_en.eq(queue.r_rdy & leaves),
        ]

    def _packed(self, m: Module, counter: BeatCounter) -> Value:
        """Data and strobes of the step that was fetched one cycle ago."""
        upper, valid = Signal(), Signal.like(counter.valid)
        m.d.sync += [upper.eq(counter.upper), valid.eq(counter.valid)]
        if len(self.w_data) < BEAT_BITS:
            return Cat(self.data.word_select(upper, len(self.w_data)), 1)
        if counter.slots == 1:
            return Cat(self.data, 1)
        first = self.data[:BEAT_BITS]
        return Mux(upper, Cat(Const(0, BEAT_BITS), first, Const(0b10, 2)), Cat(self.data, valid))

"""AXI read and write masters: a shell, a burst walker, and the data channels.

They do not know the buffers: a beat comes out or goes in with its plane and position.

All requests carry one ID, so the memory answers in order. Ports have 32, 64 or 128 bits; addresses
and runs are multiples of 8 bytes, so a run may begin in the upper half of a 128-bit port.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.fifo import SyncFIFOBuffered

from cosim.program.table import Opcode
from hw.interface.descriptors import TRANSFER, argument_fields
from hw.rtl.pipeline import delay, register
from hw.rtl.shell import Shell
from hw.rtl.transfers.bursts import BurstWalker, MasterConfig

BEAT_BITS = 64  # a beat of the buffers; a port moves a half, one or two of them a cycle
BEAT_LOG2 = 3
PORT_BITS = (32, 64, 128)
#: Beats that a write master fetches ahead: more than the cycles from a beat that leaves to the
#: fetch and arrival of the one that takes its place.
FETCH_AHEAD = 16


class BeatCounter(Elaboratable):
    """Plane and position of the beat that moves now; position counts the beats of a plane.

    All are registers, right from two cycles after an operation's start. A `step` is one data
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
        self.moves = Signal()  # the step is the last one of its beats
        self.plane_ends = Signal()  # it moves the plane's last beat
        self.last = Signal()  # the step is the operation's last one

    @property
    def moved(self) -> Value:
        """Beats that a step moves."""
        return Value.cast(1) if self.slots == 1 else 1 + self.valid[1]

    def elaborate(self, platform: object) -> Module:
        """Build the counters; what ends with a step is known before it."""
        m = Module()
        row_ends, row_last, plane_last = Signal(), Signal(), Signal()
        whole = self.upper if self.port_bits < BEAT_BITS else Const(1, 1)
        m.d.comb += [self.moves.eq(self.step & whole),
                     self.plane_ends.eq(whole & row_ends & row_last),
                     self.last.eq(self.plane_ends & plane_last)]
        if self.slots == 1:
            m.d.comb += self.valid.eq(whole)
        if self.port_bits < BEAT_BITS:
            with m.If(self.shell.begins):
                m.d.sync += self.upper.eq(0)
            with m.Elif(self.step):
                m.d.sync += self.upper.eq(~self.upper)
        self._run(m, row_ends)
        self._repeat(m, "rows", self.moves & row_ends, row_last)
        self._repeat(m, "planes", self.moves & self.plane_ends, plane_last)
        with m.If(self.shell.begins):
            m.d.sync += [self.plane.eq(0), self.position.eq(0), self.index.eq(0)]
        with m.Elif(self.moves):
            m.d.sync += [self.index.eq(self.index + self.moved),
                         self.position.eq(Mux(self.plane_ends, 0, self.position + self.moved))]
            with m.If(self.plane_ends):
                m.d.sync += self.plane.eq(self.plane + 1)
        return m

    def _repeat(self, m: Module, name: str, step: Value, last: Signal) -> None:
        """Count to an argument again and again; `last` is high before the last of its steps."""
        count, left = self.shell.argument(Opcode.LOAD, name), Signal(32, name=f"{name}_left")
        with m.If(self.shell.begins | (step & last)):
            m.d.sync += [left.eq(count), last.eq(count == 1)]
        with m.Elif(step):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2)]

    def _run(self, m: Module, ends: Signal) -> None:
        """Count the beats of a run; `ends` is high before its last step.

        With two beats a step, a run that begins in the upper half of the port begins with one.
        """
        beats = self.shell.argument(Opcode.LOAD, "row_bytes")[BEAT_LOG2:]
        left, one, two = Signal(29), Signal(), Signal()
        opens = self.shell.begins | (self.moves & ends)
        m.d.comb += ends.eq(one if self.slots == 1 else one | (two & ~self.upper))
        if self.slots > 1:
            m.d.comb += self.valid.eq(Cat(1, ~self.upper & ~one))
            self._halves(m, opens)
        with m.If(opens):
            m.d.sync += [left.eq(beats), one.eq(beats == 1), two.eq(beats == 2)]
        with m.Elif(self.moves & (self.upper if self.slots > 1 else 1)):
            m.d.sync += [left.eq(left - 1), one.eq(left == 2), two.eq(left == 3)]
        with m.Elif(self.moves):
            m.d.sync += [left.eq(left - 2), one.eq(left == 3), two.eq(left == 4)]

    def _halves(self, m: Module, opens: Value) -> None:
        """Bit 3 of the addresses of the run and of its plane."""
        address, row_stride, plane_stride = (
            self.shell.argument(Opcode.LOAD, name)[BEAT_LOG2]
            for name in ("address", "row_stride", "plane_stride"))
        run, plane, begins = Signal(), Signal(), Signal()
        m.d.comb += begins.eq(Mux(self.plane_ends, plane ^ plane_stride, run ^ row_stride))
        with m.If(self.shell.begins):
            m.d.sync += [run.eq(address), plane.eq(address), self.upper.eq(address)]
        with m.Elif(opens):
            m.d.sync += [run.eq(begins), self.upper.eq(begins)]
            with m.If(self.plane_ends):
                m.d.sync += plane.eq(begins)
        with m.Elif(self.moves):
            m.d.sync += self.upper.eq(0)


class ReadMaster(Elaboratable):
    """Reads bursts and takes every beat in the cycle it comes.

    The stream of beats: `beats` has (valid, data) of each place that `counter` names, a cycle
    after the port.
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
        self.ar_length = self.walker.length
        self.r_valid = Signal()
        self.r_data = Signal(port_bits)
        self.r_last = Signal()

    def elaborate(self, platform: object) -> Module:
        """Connect the parts."""
        m = Module()
        m.submodules.shell = shell = self.shell
        m.submodules.walker = walker = self.walker
        m.submodules.counter = counter = self.counter
        came, taken = register(m, self.r_valid), register(m, self.r_data)
        m.d.comb += [
            walker.burst_done.eq(self.r_valid & self.r_last),
            shell.done.eq(walker.finished),
            shell.moving.eq(~walker.waiting | self.r_valid),
            counter.step.eq(came),
        ]
        for slot, (valid, _) in enumerate(self.beats):
            m.d.comb += valid.eq(came & counter.valid[slot])
        data = [beat for _, beat in self.beats]
        if len(taken) < BEAT_BITS:
            lower = Signal(len(taken))
            with m.If(came):
                m.d.sync += lower.eq(taken)
            m.d.comb += data[0].eq(Cat(lower, taken))
        elif counter.slots == 1:
            m.d.comb += data[0].eq(taken)
        else:
            low, high = taken[:BEAT_BITS], taken[BEAT_BITS:]
            m.d.comb += [data[0].eq(Mux(counter.upper, high, low)), data[1].eq(high)]
        return m


class WriteMaster(Elaboratable):
    """Writes bursts. `fetch` asks for the beat at `counter.plane`, `counter.position`.

    `data` is that beat (with 128 bits, and the one at the next position), `latency` cycles later;
    `w_strobe` has a bit for each 8 bytes of the port. A queue keeps the write channel from ever
    waiting for the buffer; with `streams` false there is no buffer and every beat is zero (timing
    only).
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 streams: bool = True, port_bits: int = BEAT_BITS, latency: int = 1) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.STORE)), waits, signals)
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell, port_bits) if streams else None
        self.latency = latency
        self.aw_valid = self.walker.request
        self.aw_ready = self.walker.request_ready
        self.aw_address = self.walker.address
        self.aw_length = self.walker.length
        self.w_valid = Signal()
        self.w_ready = Signal()
        slots = max(1, port_bits // BEAT_BITS)
        self.w_data = Signal(port_bits)
        self.w_strobe = Signal(slots)
        self.b_valid = Signal()
        self.fetch = Signal()
        self.data = Signal(BEAT_BITS * slots)

    @staticmethod
    def least_setup(latency: int) -> int:
        """Cycles from an operation's start to its first beat in the queue's output."""
        return latency + 4

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
        """Fetch ahead from the operation's start on."""
        m.submodules.counter = counter
        width = len(self.w_data) + counter.slots
        m.submodules.queue = queue = SyncFIFOBuffered(width=width, depth=FETCH_AHEAD)
        fetches, held, leaves = Signal(), Signal(range(FETCH_AHEAD + 1)), Signal()
        with m.If(self.shell.begins):
            m.d.sync += fetches.eq(1)
        with m.Elif(self.fetch & counter.last):
            m.d.sync += fetches.eq(0)
        with m.If(self.fetch & ~leaves):
            m.d.sync += held.eq(held + 1)
        with m.Elif(leaves & ~self.fetch):
            m.d.sync += held.eq(held - 1)
        m.d.comb += [
            self.fetch.eq(fetches & (held != FETCH_AHEAD)),
            counter.step.eq(self.fetch),
            queue.w_data.eq(self._packed(m, counter)),
            queue.w_en.eq(delay(m, self.fetch, self.latency)),
            self.w_valid.eq(queue.r_rdy),
            Cat(self.w_data, self.w_strobe).eq(queue.r_data),
            leaves.eq(self.w_valid & self.w_ready),
            queue.r_en.eq(leaves),
        ]

    def _packed(self, m: Module, counter: BeatCounter) -> Value:
        """Data and strobes of the step that was fetched `latency` cycles ago."""
        upper, valid = (delay(m, value, self.latency) for value in (counter.upper, counter.valid))
        if len(self.w_data) < BEAT_BITS:
            return Cat(self.data.word_select(upper, len(self.w_data)), 1)
        if counter.slots == 1:
            return Cat(self.data, 1)
        first = self.data[:BEAT_BITS]
        return Mux(upper, Cat(Const(0, BEAT_BITS), first, Const(0b10, 2)), Cat(self.data, valid))

"""AXI read and write masters: a shell, a burst walker, and the data channels.

They do not know the buffers: a beat comes out or goes in with its plane and position.

All requests carry one ID, so the memory answers in order. Ports have 32, 64 or 128 bits; addresses
and runs are multiples of 8 bytes, so a run may begin in the upper half of a 128-bit port.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value

from cosim.program.table import Opcode
from hw.interface.descriptors import TRANSFER, argument_fields
from hw.rtl.pipeline import delay, register
from hw.rtl.shell import Shell
from hw.rtl.transfers.bursts import BurstWalker, MasterConfig, few
from hw.rtl.transfers.queue import Queue
from hw.rtl.transfers.tensor_memory import WINDOW_BIT, Side

BEAT_BITS = 64  # a beat of the buffers; a port moves a half, one or two of them a cycle
BEAT_LOG2 = 3
PORT_BITS = (32, 64, 128)
#: Beats that a write master fetches ahead, a power of two: more than the cycles from a beat that
#: leaves to the fetch and arrival of the one that takes its place.
FETCH_AHEAD = 16


class BeatCounter(Elaboratable):
    """Plane and position of the beat that moves now; position counts the beats of a plane.

    All are registers, right from two cycles after an operation's start. A `step` is one data
    cycle of a port of `port_bits`; `coming` says a cycle before that there will be one. With 32
    bits, `upper` says which half of the beat moves. With 128 bits, up to two beats of one run move:
    `valid` says which places (position, position + 1) are used, and `upper` that the only one lies
    in the upper half of the port.
    """

    def __init__(self, shell: Shell, port_bits: int = BEAT_BITS) -> None:
        self.shell = shell
        self.port_bits = port_bits
        self.slots = max(1, port_bits // BEAT_BITS)
        self.coming, self.step = Signal(), Signal()
        self.plane = Signal(16)
        self.position = Signal(24)
        self.index = Signal(24)  # beats of the operation that came before
        self.valid = Signal(self.slots)
        self.upper = Signal()
        self.moves = Signal()  # the step is the last one of its beats
        # Many follow `moves`, so two more registers know it: what tells ends asks the one that
        # rests, and who writes beats the one without a reset. Equal ones would be merged.
        self._rests, self._comes = Signal(init=1), Signal(reset_less=True)
        self.plane_ends = Signal()  # the beats that move next are the plane's last ones
        self.last = Signal()  # and the operation's
        self._row_ends = Signal()
        # Registers of their own: the step is its run's last one, or its plane's; the same, or the
        # operation begins.
        self._row_moves, self._row_opens = Signal(), Signal()
        self.plane_moves, self._plane_opens = Signal(), Signal()

    @property
    def moved(self) -> Value:
        """Beats that a step moves."""
        return Value.cast(1) if self.slots == 1 else 1 + self.valid[1]

    def comes(self, slot: int) -> Value:
        """Does a step move a beat of that place?"""
        return self._comes & self.valid[slot]

    def elaborate(self, platform: object) -> Module:
        """Build the counters; what ends with a step is known before it."""
        m = Module()
        moves: Value = self.coming
        if self.slots == 1:
            m.d.comb += self.valid.eq(1)
        if self.port_bits < BEAT_BITS:
            upper = ~self.shell.begins & (self.upper ^ self.step)
            m.d.sync += self.upper.eq(upper)
            moves = moves & upper
        m.d.sync += [self.step.eq(self.coming), self.moves.eq(moves), self._rests.eq(~moves),
                     self._comes.eq(moves)]
        ends = self._run(m)
        row_last = self._repeat(m, "rows", self._plane_opens, self._row_moves)
        plane_last = self._repeat(m, "planes", self.shell.begins, self.plane_moves)
        m.d.sync += [self._row_ends.eq(ends), self.plane_ends.eq(ends & row_last),
                     self.last.eq(ends & row_last & plane_last)]
        starts, step = self.shell.start, moves & ends
        for moved, opens, when in ((self._row_moves, self._row_opens, step),
                                   (self.plane_moves, self._plane_opens, step & row_last)):
            m.d.sync += [moved.eq(when), opens.eq(starts | when)]
        with m.If(self.shell.begins):
            m.d.sync += [self.position.eq(0), self.index.eq(0)]
        with m.Elif(self.moves):
            m.d.sync += [self.index.eq(self.index + self.moved),
                         self.position.eq(Mux(self.plane_ends, 0, self.position + self.moved))]
        with m.If(self.shell.begins):
            m.d.sync += self.plane.eq(0)
        with m.Elif(self.plane_moves):
            m.d.sync += self.plane.eq(self.plane + 1)
        return m

    def _repeat(self, m: Module, name: str, opens: Value, step: Value) -> Value:
        """Count to an argument, from every cycle of `opens` on. Is the next of its steps the last
        one, from the next cycle on?"""
        count, left = self.shell.argument(Opcode.LOAD, name), Signal(32, name=f"{name}_left")
        single, last, then = register(m, count == 1), Signal(), Signal()
        m.d.comb += then.eq(last)
        m.d.sync += last.eq(then)
        near = few(m, opens, count, left)
        with m.If(opens):
            m.d.sync += left.eq(count)
            m.d.comb += then.eq(single)
        with m.Elif(step):
            m.d.sync += left.eq(left - 1)
            m.d.comb += then.eq(near(2))
        return then

    def _run(self, m: Module) -> Value:
        """Count the beats of a run. Do the next ones end it, from the next cycle on?

        With two beats a step, a run that begins in the upper half of the port begins with one.
        """
        beats = self.shell.argument(Opcode.LOAD, "row_bytes")[BEAT_LOG2:]
        left, one, two, then_one, then_two = (
            Signal(29), Signal(), Signal(), Signal(), Signal())
        single, double = register(m, beats == 1), register(m, beats == 2)
        opens, upper = self._row_opens, Const(0, 1)
        m.d.comb += [then_one.eq(one), then_two.eq(two)]
        m.d.sync += [one.eq(then_one), two.eq(then_two)]
        if self.slots > 1:
            m.d.comb += self.valid.eq(Cat(1, ~self.upper & ~one))
            upper = self._halves(m, opens)
        near = few(m, opens, beats, left)
        with m.If(opens):
            m.d.sync += left.eq(beats)
        with m.Elif(self.moves & (self.upper if self.slots > 1 else 1)):
            m.d.sync += left.eq(left - 1)
        with m.Elif(self.moves):
            m.d.sync += left.eq(left - 2)
        with m.If(opens):
            m.d.comb += [then_one.eq(single), then_two.eq(double)]
        with m.Elif(~self._rests & (self.upper if self.slots > 1 else 1)):
            m.d.comb += [then_one.eq(near(2)), then_two.eq(near(3))]
        with m.Elif(~self._rests):
            m.d.comb += [then_one.eq(near(3)), then_two.eq(near(4))]
        return then_one if self.slots == 1 else then_one | (then_two & ~upper)

    def _halves(self, m: Module, opens: Value) -> Signal:
        """Bit 3 of the addresses of the run and of its plane; `upper` in the next cycle."""
        address, row_stride, plane_stride = (
            self.shell.argument(Opcode.LOAD, name)[BEAT_LOG2]
            for name in ("address", "row_stride", "plane_stride"))
        run, plane, begins, upper = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [begins.eq(Mux(self.plane_ends, plane ^ plane_stride, run ^ row_stride)),
                     upper.eq(self.upper)]
        m.d.sync += self.upper.eq(upper)
        with m.If(self.shell.begins):
            m.d.sync += [run.eq(address), plane.eq(address)]
            m.d.comb += upper.eq(address)
        with m.Elif(opens):
            m.d.sync += run.eq(begins)
            m.d.comb += upper.eq(begins)
            with m.If(self.plane_ends):
                m.d.sync += plane.eq(begins)
        with m.Elif(self.moves):
            m.d.comb += upper.eq(0)
        return upper


def _request(walker: BurstWalker, tensors: Side | None) -> tuple[Signal, Signal]:
    """What a master asks its port for, and the answer: all that the walker asks, but for bursts of
    the tensor memory, whose operations are known by their address."""
    if tensors is None:
        return walker.request, walker.request_ready
    walker.on_chip = walker.shell.argument(Opcode.LOAD, "address")[WINDOW_BIT]
    return Signal(), Signal()


def _connect(m: Module, master: ReadMaster | WriteMaster, valid: Signal, ready: Signal,
             side: Side) -> None:
    """Ask the tensor memory, not the port, in operations whose address lies in its window."""
    walker, on_chip = master.walker, master.walker.on_chip
    assert on_chip is not None
    m.d.comb += [
        valid.eq(walker.request & ~on_chip), side.request.eq(walker.request & on_chip),
        side.address.eq(walker.address), side.length.eq(walker.length),
        walker.request_ready.eq(Mux(on_chip, side.ready, ready))]


class ReadMaster(Elaboratable):
    """Reads bursts and takes every beat in the cycle it comes.

    The stream of beats: `beats` has (valid, data) of each place that `counter` names, a cycle
    after the port. `tensors`: of a tensor memory, which answers in place of the port.
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 port_bits: int = BEAT_BITS, tensors: Side | None = None) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.LOAD)), waits, signals)
        self.shell.takes_late = True
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell, port_bits)
        self.beats = [(Signal(name=f"beat_valid_{slot}"), Signal(BEAT_BITS, name=f"beat_{slot}"))
                      for slot in range(self.counter.slots)]
        self.tensors = tensors
        self.ar_valid, self.ar_ready = _request(self.walker, tensors)
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
        comes, ends, data_in = self.r_valid, self.r_valid & self.r_last, self.r_data
        if self.tensors is not None:
            _connect(m, self, self.ar_valid, self.ar_ready, self.tensors)
            data_in = Mux(self.tensors.valid, self.tensors.data, data_in)
            comes, ends = comes | self.tensors.valid, ends | self.tensors.ends
        taken = register(m, data_in)
        m.d.comb += [
            walker.burst_done.eq(ends),
            shell.done.eq(walker.finished),
            shell.moving.eq(~walker.waiting | comes),
            counter.coming.eq(comes),
        ]
        for slot, (valid, _) in enumerate(self.beats):
            m.d.comb += valid.eq(counter.comes(slot))
        data = [beat for _, beat in self.beats]
        if len(taken) < BEAT_BITS:
            lower = Signal(len(taken))
            with m.If(counter.step):
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
    only). `tensors`: of a tensor memory, which takes the beats in place of the port.
    """

    def __init__(self, config: MasterConfig, waits: int, signals: int,
                 streams: bool = True, port_bits: int = BEAT_BITS, latency: int = 1,
                 tensors: Side | None = None) -> None:
        self.shell = Shell((*TRANSFER, *argument_fields(Opcode.STORE)), waits, signals)
        self.shell.takes_late = True
        self.walker = BurstWalker(self.shell, config)
        self.counter = BeatCounter(self.shell, port_bits) if streams else None
        self.latency = latency
        self.tensors = tensors
        self.aw_valid, self.aw_ready = _request(self.walker, tensors)
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
        moves, ends = self.w_valid & self.w_ready, self.b_valid
        if self.tensors is not None:
            _connect(m, self, self.aw_valid, self.aw_ready, self.tensors)
            moves = moves | (self.tensors.offered & self.tensors.takes)
            ends = ends | self.tensors.ends
        m.d.comb += [
            walker.burst_done.eq(ends),
            shell.done.eq(walker.finished),
            shell.moving.eq(~walker.waiting | moves),
        ]
        if self.counter is None:
            m.d.comb += self.w_valid.eq(shell.active)
        else:
            self._stream(m, self.counter, moves)
        return m

    def _stream(self, m: Module, counter: BeatCounter, moves: Value) -> None:
        """Fetch ahead from the operation's start on; `moves`: a beat leaves."""
        m.submodules.counter = counter
        width = len(self.w_data) + counter.slots
        m.submodules.queue = queue = Queue(width, FETCH_AHEAD, near=True)
        fetches, held, leaves, left = (
            Signal(), Signal(range(FETCH_AHEAD + 1)), Signal(), Signal())
        begins, goes_on = self.shell.begins, fetches & ~(counter.moves & counter.last)
        # Nothing is held when an operation begins, so its first beat asks for no room.
        m.d.comb += [counter.coming.eq(begins | (goes_on & (held < FETCH_AHEAD - 2))),
                     self.fetch.eq(counter.step)]
        m.d.sync += [fetches.eq(begins | goes_on), left.eq(leaves)]
        with m.If(self.fetch & ~left):
            m.d.sync += held.eq(held + 1)
        with m.Elif(left & ~self.fetch):
            m.d.sync += held.eq(held - 1)
        m.d.comb += [
            queue.w_data.eq(self._packed(m, counter)),
            queue.w_en.eq(delay(m, self.fetch, self.latency)),
            self.w_valid.eq(queue.r_rdy if self.walker.on_chip is None
                            else queue.r_rdy & ~self.walker.on_chip),
            Cat(self.w_data, self.w_strobe).eq(queue.r_data),
            leaves.eq(moves),
            queue.r_en.eq(leaves),
        ]
        if self.tensors is not None:
            m.d.comb += [self.tensors.offered.eq(queue.r_rdy), self.tensors.data.eq(self.w_data),
                         self.tensors.strobe.eq(self.w_strobe)]

    def _packed(self, m: Module, counter: BeatCounter) -> Value:
        """Data and strobes of the step that was fetched `latency` cycles ago."""
        upper, valid = (delay(m, value, self.latency) for value in (counter.upper, counter.valid))
        if len(self.w_data) < BEAT_BITS:
            return Cat(self.data.word_select(upper, len(self.w_data)), 1)
        if counter.slots == 1:
            return Cat(self.data, 1)
        first = self.data[:BEAT_BITS]
        return Mux(upper, Cat(Const(0, BEAT_BITS), first, Const(0b10, 2)), Cat(self.data, valid))

"""The shell every unit shares: command queue, wait for tokens, start, end, and counters.

It does not do the unit's work; a body reads the head command, is told `start`, raises `done`.

An operation that starts in cycle s is the head of the queue in every cycle of [s, e) and is
popped by the clock edge that ends cycle e - 1, where the body raises `done`. Its tokens are
registered by the same edge, so another unit sees them in cycle e, and so does this unit's next
operation, which may start in cycle e. There is no bubble between operations. Nobody else looks at
the tokens that a unit takes, so one whose operations last two cycles at least may take them in
cycle s + 1 (`takes_late`): its start then reaches no counter of tokens.

The head is a register. `start` follows from tokens in the same cycle and reaches the whole unit;
a body that takes two cycles at least begins with `begins` instead, its register. Counters book a
cycle one after the COUNTER_LAG cycles in which it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from amaranth.hdl import Cat, DomainRenamer, Elaboratable, Module, Mux, Signal, Value

from cosim.program.table import Opcode
from hw.interface.descriptors import (
    DESCRIPTOR_BYTES,
    HEADER,
    TRANSFER,
    ZERO_POINT_ARGUMENTS,
    Field,
    argument_fields,
)
from hw.rtl.pipeline import delay, late, register
from hw.rtl.transfers.queue import Queue

COMMAND_BITS = 8 * DESCRIPTOR_BYTES
QUEUE_DEPTH = 8  # commands; a unit that ends an operation every cycle never sees it empty
OPCODE_BITS = max(Opcode).bit_length()
COUNTER_BITS = 40  # 2**40 cycles are 3 hours at 100 MHz
#: Cycles from an event until it is told apart; it is counted one later. An IP says only then that
#: its last operation has ended.
COUNTER_LAG = 5
#: The clock domain of a shell whose body's clock stops.
ALWAYS = "always"
_HEADER = {field.name: field for field in HEADER}


def read_field(command: Value, field: Field, bits: int | None = None) -> Value:
    """A field of a command as a signed or unsigned value, cut to its lowest `bits`."""
    width = field.width if bits is None else min(bits, field.width)
    value = command[field.offset : field.offset + width]
    return value.as_signed() if field.signed else value


def fields_read(opcode: Opcode, zero_points: bool) -> list[Field]:
    """The arguments that an engine reads; those of zero points where the design holds some."""
    return [field for field in argument_fields(opcode)
            if zero_points or field.name not in ZERO_POINT_ARGUMENTS]


class Shell(Elaboratable):
    """Queue and token handling of one unit.

    `fields`: the descriptor fields the body reads; only their bits are kept in the queue.
    `waits`, `signals`: how many channels end and start at the unit (local masks).
    """

    def __init__(self, fields: Iterable[Field], waits: int, signals: int) -> None:
        wait, signal = _HEADER["wait"], _HEADER["signal"]
        opcode = _HEADER["opcode"]
        kept = {_HEADER["first_in_layer"].offset,
                *range(opcode.offset, opcode.offset + OPCODE_BITS)}
        kept.update(range(wait.offset, wait.offset + waits))
        kept.update(range(signal.offset, signal.offset + signals))
        for field in fields:
            kept.update(range(field.offset, field.offset + field.width))
        self.kept = sorted(kept)
        self.waits, self.signals = waits, signals
        self.depth = QUEUE_DEPTH
        self.go = Signal()
        self.command = Signal(COMMAND_BITS)
        self.command_valid = Signal()
        self.command_ready = Signal()
        self.available = Signal(max(1, waits))
        self.coming = Signal(max(1, waits))  # may `available` be so in the next cycle?
        self.take = Signal(max(1, waits))
        self.give = Signal(max(1, signals))
        self.head = Signal(COMMAND_BITS)
        self.start = Signal()
        self.begins = Signal()
        self.stays = Signal(init=1)  # not `begins`, a register of its own: half as many follow each
        self.active = Signal()
        self.running = Signal()  # from the cycle after the start to the end
        self.done = Signal()
        self.ends = Signal()
        self.at_once = False  # may an operation end in the cycle in which it starts?
        self.takes_late = False  # does it take its tokens a cycle after the start?
        self.gated = False  # does the body's clock stop while no operation is there?
        self.soon = Signal()  # if gated: may the next cycle have an operation?
        self.moving = Signal(init=1)  # low in cycles in which the body waits for the memory
        self.busy_cycles = Signal(COUNTER_BITS)
        self.idle_cycles = Signal(COUNTER_BITS)
        self.memory_cycles = Signal(COUNTER_BITS)
        self.stall_cycles = [Signal(COUNTER_BITS, name=f"stall_cycles_{number}")
                             for number in range(waits)]

    def argument(self, opcode: Opcode, name: str, bits: int | None = None) -> Value:
        """An argument of the head command, as an operation of that opcode names it."""
        for field in (*argument_fields(opcode), *TRANSFER):
            if field.name == name:
                return read_field(self.head, field, bits)
        raise ValueError(f"{opcode.name} has no argument {name!r}")

    def header(self, name: str) -> Value:
        """A header field of the head command."""
        return read_field(self.head, _HEADER[name])

    @property
    def counters(self) -> list[Signal]:
        """busy, idle, memory stall, then the stall of every channel that ends here."""
        return [self.busy_cycles, self.idle_cycles, self.memory_cycles, *self.stall_cycles]

    def elaborate(self, platform: object) -> Elaboratable:
        """Build the queue, the start condition and the counters.

        Whether the head may start is a register, so that only its tokens are asked in the cycle
        of a start. The queue moves a cycle after its first command became the head; an operation
        of one cycle (`at_once`) cannot wait for that.
        """
        m = Module()
        m.submodules.queue = queue = Queue(len(self.kept), self.depth, spare=3)
        pending, head, moved = Signal(), Signal(len(self.kept)), Signal()
        there, takes, may, here = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            queue.w_data.eq(Cat(self.command[bit] for bit in self.kept)),
            queue.w_en.eq(self.command_valid & queue.room),
            self.command_ready.eq(queue.room),
            Cat(self.head[bit] for bit in self.kept).eq(head),
            takes.eq(self.ends | ~pending),
            there.eq(queue.r_rdy if self.at_once else queue.r_rdy & ~moved),
            queue.r_en.eq(takes if self.at_once else moved),
        ]
        with m.If(takes):
            m.d.sync += [head.eq(queue.r_data), pending.eq(there)]
        wait = self.header("wait")[: max(1, self.waits)]
        missing = Signal(max(1, self.waits))
        m.d.comb += [
            missing.eq(wait & ~self.available),
            self.start.eq(may & (missing == 0)),
            self.active.eq(self.start | self.running),
            self.ends.eq(self.done & self.active if self.at_once else self.done),
            self.take.eq(wait & (self.begins if self.takes_late else self.start).replicate(
                len(self.take))),
            self.give.eq(self.header("signal")[: len(self.give)]
                         & self.ends.replicate(len(self.give))),
        ]
        next_may = self.go & Mux(takes, there, ~self.active)
        m.d.sync += [
            self.running.eq(self.active & ~self.ends), self.begins.eq(self.start),
            self.stays.eq(~self.start), moved.eq(takes & there), here.eq(self.go),
            may.eq(next_may)]
        self._count(m, here, pending)
        if not self.gated:
            return m
        after = Signal(COMMAND_BITS)
        lacks = Mux(takes, read_field(after, _HEADER["wait"]), wait) & ~self.coming
        m.d.comb += [
            Cat(after[bit] for bit in self.kept).eq(queue.r_data),
            self.soon.eq((self.active & ~self.ends) | (next_may & (lacks[: len(wait)] == 0)))]
        return DomainRenamer(ALWAYS)(m)

    def _count(self, m: Module, here: Signal, pending: Signal) -> None:
        """Book a whole wait when it ends: on idle, or on the channel whose token came last.

        Everything is seen COUNTER_LAG cycles late; what is seen after `go` fell is not counted.
        What a cycle is told apart in one cycle and counted in the next.
        """
        waited, has_waited = Signal(COUNTER_BITS, reset_less=True), Signal()
        before = Signal(max(1, self.waits))
        moving, waiting, idle, first = (late(m, value, COUNTER_LAG) for value in (
            self.moving, here & pending, here & ~pending, self.header("first_in_layer")))
        # These come late in their cycle, too late for a shift register; and what is missing is
        # told anew, so that the start need not share its gates.
        wait, there = (delay(m, value, 1) for value in (
            self.header("wait")[: len(before)], self.available))
        active, started, now = (late(m, value, COUNTER_LAG - 1) for value in (
            delay(m, self.active, 1), self.begins, wait & ~there))
        rests = here & ~active & idle
        with m.If(here & active):
            m.d.sync += has_waited.eq(0)
        with m.Elif(here & waiting):
            m.d.sync += [has_waited.eq(1), before.eq(now)]
        books = here & started & has_waited
        ended, runs, stands, waits, books_idle, rests = (register(m, value) for value in (
            here & active, here & active & moving, here & active & ~moving,
            here & waiting & ~active, books & first, rests))
        # The channels missing one cycle ago came last; the lowest number wins a tie.
        stalls = [register(m, books & ~first & before[bit] & ~before[:bit].any())
                  for bit in range(len(self.stall_cycles))]
        with m.If(ended):
            m.d.sync += waited.eq(0)
        with m.Elif(waits):
            m.d.sync += waited.eq(waited + 1)
        for counter, when, by in (
                (self.busy_cycles, runs, 1), (self.memory_cycles, stands, 1),
                (self.idle_cycles, books_idle | rests, Mux(rests, 1, waited)),
                *((counter, when, waited) for counter, when in
                  zip(self.stall_cycles, stalls, strict=True))):
            with m.If(when):
                m.d.sync += counter.eq(counter + by)

"""The SimPy executor: the definition, cycle by cycle, of what a Program means.

It is not fast and decides nothing about memory; `cosim.fast` does the same for a search.

One SimPy process is one unit. The rules, which hardware follows to the cycle:

- Cycles are integers. An operation occupies [start, end). In a cycle t everything that ends at t
  happens first (tokens appear), then operations start, then memories grant.
- A unit runs its operations in order. An operation starts at the first cycle, not before the end
  of the unit's operation before it, at which every channel in its WAIT mask holds a token; it
  takes one of each at once. At its end it puts one token into each channel of its SIGNAL mask;
  a token put at t may be taken at t by an operation that starts at t.
- A compute operation ends FILL + INTERVAL * TRIPS + DRAIN cycles after its start.
- A transfer that starts at s presents its first burst request at s + setup_cycles. Request i + 1
  is presented at the cycle that `memory_rules.next_request` names: at least one cycle after
  request i was accepted, and not before burst i + 1 - outstanding is done. The operation ends
  tail_cycles after its last burst is done. Bursts of one unit are accepted and done in order.
- Requests presented in one cycle are decided together, after all other events of the cycle, in
  the order of `cosim.arbiter`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import numpy as np
import simpy

from arch_models.memory import Memory, Port
from cosim.ddr3_rules import (
    ADMITTED,
    E_UNIT,
    FREE,
    NOTHING,
    R_FOREGROUND,
    R_FREE,
    R_HITS,
    R_MISSES,
    R_SEEN,
    T_CCD,
    T_CL,
    T_PIPELINE,
    controller_port,
    ddr_insert,
    ddr_next,
    ddr_parameters,
    ddr_read_data,
    ddr_state,
    ddr_step,
    ddr_write_data,
    decided_in,
    to_ddr,
    to_fabric,
)
from cosim.memory_rules import FAR, burst_beats, burst_bytes, flat_accept, next_request
from cosim.program import (
    FLAG_FIRST,
    Column,
    Program,
    ProgramError,
    Unit,
    UnitKind,
    layer_macs,
    rows_by_unit,
)
from cosim.result import SimResult, Trace

# SimPy priorities of what is decided after all other events of a cycle (its own are 0 and 1).
GRANT = 2  # ports accept
CONTROL = 3  # the DDR controller acts

# The Python bodies of the shared rules: a call from here need not enter numba.
_burst_bytes, _burst_beats = burst_bytes.py_func, burst_beats.py_func
_flat_accept, _next_request = flat_accept.py_func, next_request.py_func
_to_ddr, _to_fabric, _decided_in = to_ddr, to_fabric, decided_in
_ddr_read_data, _ddr_write_data = ddr_read_data, ddr_write_data
_controller_port = controller_port

Events = Generator[simpy.Event, int, None]


@dataclass
class _Transfer:
    """Bursts of the operation a unit runs: done cycles in order, as far as they are known."""

    done: list[int] = field(default_factory=list)
    ready: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # reads out of order
    waiter: simpy.Event | None = None

    def finished(self, cycle: int) -> None:
        """The memory tells when the next burst of this transfer is done."""
        self.done.append(cycle)
        if self.waiter is not None:
            self.waiter.succeed()
            self.waiter = None


@dataclass
class _Request:
    cycle: int
    unit: int
    index: int  # of the burst in its operation
    address: int
    size: int
    beats: int
    transfer: _Transfer
    accepted: simpy.Event


class _FlatChannel:
    """One direction of one port of the flat memory."""

    def __init__(self, env: simpy.Environment, lead: int, trail: int) -> None:
        self.env, self.lead, self.trail = env, lead, trail
        self.last_accept, self.data_free = -1, 0
        self.pending: list[_Request] = []

    def present(self, request: _Request) -> None:
        """A request appears now; it is granted at the end of this cycle."""
        if not self.pending:
            _at_end_of_cycle(self.env, self.grant)
        self.pending.append(request)

    def grant(self, _: simpy.Event) -> None:
        """Accept every request of this cycle in unit order (they share the request cycle)."""
        for request in sorted(self.pending, key=lambda item: (item.cycle, item.unit)):
            self.last_accept, begin = _flat_accept(request.cycle, self.last_accept, self.lead,
                                                   self.data_free)
            self.data_free = begin + request.beats
            request.transfer.finished(self.data_free + self.trail)
            request.accepted.succeed(self.last_accept)
        self.pending.clear()


def _at_end_of_cycle(env: simpy.Environment, decide: Callable[[simpy.Event], None],
                     priority: int = GRANT, delay: int = 0) -> None:
    event = simpy.Event(env)
    event._ok, event._value = True, None
    event.callbacks.append(decide)
    env.schedule(event, priority, delay)


class _DdrChannel:
    """One direction of one port of the DDR3 memory: a queue of limited depth."""

    def __init__(self, controller: _DdrController, port: Port, write: bool) -> None:
        self.controller, self.env, self.port, self.write = controller, controller.env, port, write
        self.depth = port.write_accept if write else port.read_accept
        self.last_accept, self.data_free, self.held = -1, 0, 0
        self.blocked: list[_Request] = []

    def present(self, request: _Request) -> None:
        """A request appears now; it is decided at the end of this cycle."""
        self.controller.present(self, request)

    def grant(self, request: _Request) -> None:
        """Accept a request if the queue has room; else it waits behind those that wait."""
        if self.held >= self.depth:
            self.blocked.append(request)
        else:
            self.accept(request, max(request.cycle, self.last_accept + 1))

    def accept(self, request: _Request, cycle: int) -> None:
        """The port takes a burst; it is on its way to the controller."""
        self.last_accept = cycle
        self.held += 1
        self.controller.insert(self, request, cycle)
        request.accepted.succeed(cycle)

    def admitted(self, request: _Request, clock: int) -> None:
        """The controller took a burst: a write is answered, and the queue has room again."""
        self.held -= 1
        if self.write:
            request.transfer.finished(_to_fabric(clock, self.controller.t)
                                      + self.port.write_response_cycles)
        if self.blocked and self.held == self.depth - 1:
            self.accept(self.blocked.pop(0), max(self.env.now, self.last_accept) + 1)

    def served(self, request: _Request, first: int, last: int) -> None:
        """The DRAM gives the data of a read; they move over the port in request order."""
        transfer = request.transfer
        transfer.ready[request.index] = (first, last, request.beats)
        while (turn := transfer.ready.pop(len(transfer.done), None)) is not None:
            begin, end, beats = turn
            self.data_free = _ddr_read_data(self.controller.t, begin, end,
                                            self.port.response_cycles, self.data_free, beats)
            transfer.finished(self.data_free)


class _DdrController:
    """The DDR controller on the time line of the fabric; its rules are `cosim.memory_rules`."""

    def __init__(self, env: simpy.Environment, program: Program, memory: Memory) -> None:
        assert memory.ddr is not None
        self.env = env
        self.t = ddr_parameters(memory.ddr)
        limit = sum(unit.outstanding for unit in program.units) + 1
        self.regs, self.banks, self.pool, self.lists, self.sources = ddr_state(
            memory, self.t, limit)
        self.background = len(program.units)
        self.inside: dict[int, tuple[_DdrChannel, _Request]] = {}  # by pool entry
        self.pending: list[tuple[_DdrChannel, _Request]] = []
        self.awake = -1  # the cycle of the next wake that counts
        self.crossing: dict[tuple[int, bool], int] = {}  # controller port, write -> free clock

    def present(self, channel: _DdrChannel, request: _Request) -> None:
        """Requests of one cycle are decided in unit order over all ports: ports share wires."""
        if not self.pending:
            _at_end_of_cycle(self.env, self.grant)
        self.pending.append((channel, request))

    def grant(self, _: simpy.Event) -> None:
        """Offer the requests of this cycle to their ports."""
        for channel, request in sorted(self.pending, key=lambda item: item[1].unit):
            channel.grant(request)
        self.pending.clear()

    def insert(self, channel: _DdrChannel, request: _Request, cycle: int) -> None:
        """A burst accepted in a cycle sets out for the controller."""
        t, port = self.t, channel.port
        if channel.write:
            channel.data_free = _ddr_write_data(cycle, port.write_lead_cycles, channel.data_free,
                                                request.beats)
            leaves = _to_ddr(channel.data_free + port.request_cycles, t)
            arrival = self.cross(channel, leaves, request.size)[1]
            self.crossing[port.controller_port, True] = arrival
        else:
            arrival = _to_ddr(cycle + port.request_cycles, t)
        entry = int(self.lists[FREE, self.regs[R_FREE] - 1])
        ddr_insert(t, self.regs, self.pool, self.lists, arrival, request.unit, request.index,
                   request.address, request.size, int(channel.write))
        self.regs[R_FOREGROUND] += 1
        self.inside[entry] = channel, request
        self.wake(self.env.now)

    def wake(self, cycle: int) -> None:
        """Act at the end of a cycle, unless something already wakes the controller by then."""
        if not self.env.now <= self.awake <= cycle:
            self.awake = cycle
            _at_end_of_cycle(self.env, self.act, CONTROL, cycle - self.env.now)

    def cross(self, channel: _DdrChannel, clock: int, size: int) -> tuple[int, int]:
        """Passage through the controller port that the channel shares."""
        free = self.crossing.get((channel.port.controller_port, channel.write), 0)
        return _controller_port(self.t, clock, free, size)

    def act(self, _: simpy.Event) -> None:
        """Do every event of the controller up to this cycle, then sleep until its next."""
        if self.awake != self.env.now:
            return
        self.awake = -1
        t, state = self.t, (self.t, self.regs, self.pool, self.lists, self.sources)
        while (clock := ddr_next(*state, self.background)) != FAR:
            cycle = int(_decided_in(clock, t))
            if cycle > self.env.now:
                self.wake(cycle)
                return
            what, entry, clock, first, last = ddr_step(
                t, self.regs, self.banks, self.pool, self.lists, self.sources, self.background)
            if what == NOTHING or self.pool[entry, E_UNIT] >= self.background:
                continue
            channel, request = self.inside[entry]
            if what == ADMITTED:
                channel.admitted(request, clock)
                continue
            del self.inside[entry]
            if not channel.write:
                ready = int(t[T_CL] + t[T_CCD] + t[T_PIPELINE])
                begin, end = self.cross(channel, first + ready, request.size)
                end = max(end, last + ready)
                self.crossing[channel.port.controller_port, False] = end
                channel.served(request, begin, end)


class _Ledger:
    """What the processes write down; becomes a SimResult."""

    def __init__(self, program: Program, trace: bool) -> None:
        units, layers = len(program.units), len(program.layers)
        self.busy, self.memory_stall, self.operations = (
            np.zeros(units, np.int64) for _ in range(3))
        self.token_stall = np.zeros((units, len(program.channels)), np.int64)
        self.layer_start = np.full(layers, -1, np.int64)
        self.layer_end = np.full(layers, -1, np.int64)
        (self.layer_busy, self.layer_memory_stall, self.layer_token_stall, self.layer_bytes,
         self.layer_bursts) = (np.zeros((layers, units), np.int64) for _ in range(5))
        last = program.segments[-1].repeat if program.segments else 0
        self.segment_end = np.zeros(last, np.int64)
        count = program.operation_count if trace else 0
        self.trace = Trace(np.zeros(count, np.int64), np.zeros(count, np.int64)) if trace else None


class _Machine:
    """Units, channels and memory of one run."""

    def __init__(self, program: Program, memory: Memory, trace: bool) -> None:
        self.program, self.memory = program, memory
        self.env = simpy.Environment()
        self.ledger = _Ledger(program, trace)
        self.tokens = [channel.initial for channel in program.channels]
        self.since = [0] * len(program.channels)  # when the channel was last filled from empty
        self.total = 0
        self.blocked: dict[int, tuple[int, simpy.Event]] = {}  # unit -> (wait mask, wake)
        self.rows, self.starts = rows_by_unit(program)
        self.ports: dict[tuple[int, UnitKind], _FlatChannel | _DdrChannel] = {}
        self.controller = (_DdrController(self.env, program, memory)
                           if memory.model == "ddr3" else None)
        for index, port in enumerate(memory.ports):
            if self.controller is not None:
                for kind in (UnitKind.READ, UnitKind.WRITE):
                    self.ports[index, kind] = _DdrChannel(self.controller, port,
                                                          kind == UnitKind.WRITE)
                continue
            self.ports[index, UnitKind.READ] = _FlatChannel(
                self.env, port.read_latency_cycles, 0)
            self.ports[index, UnitKind.WRITE] = _FlatChannel(
                self.env, port.write_lead_cycles, port.write_latency_cycles)
        self.running = [self.env.process(self.unit(index)) for index in range(len(program.units))]

    def walk(self, unit: int) -> Iterator[tuple[int, int, int]]:
        """(segment, repeat, row) of a unit's operations in order."""
        for segment, part in enumerate(self.program.segments):
            rows = self.rows[self.starts[segment, unit] : self.starts[segment, unit + 1]].tolist()
            for repeat in range(part.repeat if rows else 0):
                for row in rows:
                    yield segment, repeat, row

    def unit(self, index: int) -> Events:
        """The life of one unit."""
        env, unit, ledger = self.env, self.program.units[index], self.ledger
        idle_since = 0
        for segment, repeat, row in self.walk(index):
            operation = self.program.operations[row].tolist()
            layer = operation[Column.LAYER]
            wait = operation[Column.WAIT]
            if self.missing(wait):
                wake = env.event()
                self.blocked[index] = (wait, wake)
                yield wake
            start = env.now
            self.take(index, layer, wait, idle_since, operation[Column.FLAGS])
            if ledger.layer_start[layer] < 0:
                ledger.layer_start[layer] = start
            if unit.kind == UnitKind.COMPUTE:
                yield env.timeout(operation[Column.FILL] + operation[Column.DRAIN]
                                  + operation[Column.INTERVAL] * operation[Column.TRIPS])
                work = env.now - start
            else:
                address = operation[Column.ADDRESS] + repeat * operation[Column.ADVANCE]
                counts = [0, 0]
                yield from self.transfer(index, unit, operation, address, counts)
                work = counts[0] + unit.setup_cycles + unit.tail_cycles
                ledger.layer_bursts[layer, index] += counts[1]
                ledger.layer_bytes[layer, index] += (
                    operation[Column.ROW_BYTES] * operation[Column.ROWS]
                    * operation[Column.PLANES])
            idle_since = end = env.now
            ledger.busy[index] += work
            ledger.layer_busy[layer, index] += work
            ledger.memory_stall[index] += end - start - work
            ledger.layer_memory_stall[layer, index] += end - start - work
            ledger.layer_end[layer] = end
            ledger.operations[index] += 1
            self.total = end  # the DRAM may still take posted writes after the last end
            if segment == len(self.program.segments) - 1:
                ledger.segment_end[repeat] = max(ledger.segment_end[repeat], end)
            if ledger.trace is not None:
                place = self.place(segment, repeat, row)
                ledger.trace.start[place], ledger.trace.end[place] = start, end
            self.put(operation[Column.SIGNAL])

    def place(self, segment: int, repeat: int, row: int) -> int:
        """Index of an executed operation when repeats are written out."""
        before = sum((part.last - part.first) * part.repeat
                     for part in self.program.segments[:segment])
        part = self.program.segments[segment]
        return before + repeat * (part.last - part.first) + row - part.first

    def missing(self, mask: int) -> bool:
        """Does any channel of the mask lack a token?"""
        return any(self.tokens[bit] == 0 for bit in _bits(mask))

    def take(self, unit: int, layer: int, mask: int, idle_since: int, flags: int) -> None:
        """Take one token of each channel and book the wait for the last of them."""
        now = self.env.now
        if now > idle_since and not flags & FLAG_FIRST:
            cause = min(bit for bit in _bits(mask) if self.since[bit] == now)
            self.ledger.token_stall[unit, cause] += now - idle_since
            self.ledger.layer_token_stall[layer, unit] += now - idle_since
        for bit in _bits(mask):
            self.tokens[bit] -= 1

    def put(self, mask: int) -> None:
        """Put one token into each channel and wake units whose tokens are now complete."""
        for bit in _bits(mask):
            if self.tokens[bit] == 0:
                self.since[bit] = self.env.now
            self.tokens[bit] += 1
            target = self.program.channels[bit].target
            if target in self.blocked:
                wait, wake = self.blocked[target]
                if not self.missing(wait):
                    del self.blocked[target]
                    wake.succeed()

    def transfer(self, index: int, unit: Unit, operation: list[int], address: int,
                 counts: list[int]) -> Events:
        """All bursts of one operation; `counts` receives (beats, bursts)."""
        env = self.env
        width = self.memory.ports[unit.port].width_bytes
        port = self.ports[unit.port, unit.kind]
        transfer = _Transfer()
        accepted = 0
        for run, begin in enumerate(_runs(operation, address)):
            here, left = begin, operation[Column.ROW_BYTES]
            new_run = True
            while left > 0:
                issued = counts[1]
                if issued == 0:
                    request = env.now + unit.setup_cycles
                else:
                    new_run = new_run and run > 0
                    serial = new_run and not unit.overlap_runs
                    done = (yield from _known(env, transfer, issued - 1)) if serial else 0
                    freed = (yield from _known(env, transfer, issued - unit.outstanding)
                             ) if issued >= unit.outstanding else 0
                    request = _next_request(accepted, done, freed, new_run, unit.overlap_runs,
                                            unit.run_setup_cycles)
                if request > env.now:
                    yield env.timeout(request - env.now)
                size = _burst_bytes(here, left, width, unit.max_burst_beats)
                beats = _burst_beats(here, size, width)
                grant = env.event()
                port.present(_Request(env.now, index, issued, here, size, beats, transfer, grant))
                accepted = yield grant
                counts[0] += beats
                counts[1] += 1
                here, left, new_run = here + size, left - size, False
        last = yield from _known(env, transfer, counts[1] - 1)
        yield env.timeout(last + unit.tail_cycles - env.now)


def _runs(operation: list[int], address: int) -> Iterator[int]:
    """Start addresses of the runs of a transfer."""
    for plane in range(operation[Column.PLANES]):
        for row in range(operation[Column.ROWS]):
            yield (address + plane * operation[Column.PLANE_STRIDE]
                   + row * operation[Column.ROW_STRIDE])


def _known(env: simpy.Environment, transfer: _Transfer,
           burst: int) -> Generator[simpy.Event, int, int]:
    """The done cycle of a burst, as soon as the memory knows it."""
    while len(transfer.done) <= burst:
        transfer.waiter = env.event()
        yield transfer.waiter
    return transfer.done[burst]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program on a memory and account for every cycle; the rules are above.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes.
    """
    machine = _Machine(program, memory, trace)
    machine.env.run()
    total = machine.total
    for unit, process in zip(program.units, machine.running, strict=True):
        if process.is_alive:
            raise ProgramError(f"unit {unit.name!r} waits for a token that never comes, "
                               f"at cycle {total}")
    book = machine.ledger
    regs = machine.controller.regs if machine.controller is not None else None
    hits, misses, refreshes = (0, 0, 0) if regs is None else (
        int(regs[R_HITS]), int(regs[R_MISSES]), int(regs[R_SEEN]))
    idle = total - book.busy - book.memory_stall - book.token_stall.sum(axis=1)
    return SimResult(
        total, book.busy, idle, book.memory_stall, book.token_stall, book.operations,
        book.layer_start, book.layer_end, book.layer_busy, book.layer_memory_stall,
        book.layer_token_stall, book.layer_bytes, book.layer_bursts, layer_macs(program),
        book.segment_end, hits, misses, refreshes, book.trace)

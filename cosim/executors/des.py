"""The SimPy executor: the definition, cycle by cycle, of what a Program means.

It is not fast and decides nothing about memory; `cosim.executors.fast` does the same for a search.

One SimPy process is one unit. The rules, which hardware follows to the cycle:

- Cycles are integers. An operation occupies [start, end). In a cycle t everything that ends at t
  happens first (tokens appear), then operations start, then memories grant.
- A unit runs its operations in order. An operation starts at the first cycle, not before the end
  of the unit's operation before it, at which every channel in its WAIT mask holds a token; it
  takes one of each at once. At its end it puts one token into each channel of its SIGNAL mask;
  a token put at t may be taken at t by an operation that starts at t.
- A compute operation ends FILL + INTERVAL * TRIPS + DRAIN cycles after its start. So does a
  transfer on chip (its TRIPS are not 0); it asks no memory and moves TRIPS beats.
- A transfer that starts at s presents its first burst request at s + setup_cycles. Request i + 1
  is presented at the cycle that `memory_rules.next_request` names: at least one cycle after
  request i was accepted, and not before burst i + 1 - outstanding is done. The operation ends
  tail_cycles after its last burst is done. Bursts of one unit are accepted and done in order.
- A transfer is busy for setup_cycles, one cycle a beat and tail_cycles; the rest of its time is
  memory stall, the set-up of later runs included.
- Requests presented in one cycle are decided together, after all other events of the cycle, in
  the order of `cosim.memory.arbiter`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import simpy

from arch_models.memory import Memory
from cosim.compiled import plain
from cosim.executors.des_memory import DdrChannel, DdrController, FlatChannel, Request, Transfer
from cosim.memory.bursts import burst_beats, burst_bytes, next_request
from cosim.program.result import SimResult, Trace
from cosim.program.table import (
    FLAG_FIRST,
    Column,
    Program,
    ProgramError,
    Unit,
    UnitKind,
    layer_macs,
    rows_by_unit,
    runs,
)
from cosim.program.totals import refuse_beyond

# The Python bodies of the shared rules: a call from here need not enter numba.
_burst_bytes, _burst_beats = plain(burst_bytes), plain(burst_beats)
_next_request = plain(next_request)

Events = Generator[simpy.Event, int, None]


class _Call(simpy.Event):
    """Something to call in a cycle to come, with a priority of its own behind SimPy's 0 and 1."""

    def __init__(self, env: Any, delay: int, priority: int,
                 call: Callable[[], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self.callbacks.append(lambda _: call())
        env.schedule(self, priority, delay)


class _Clock:
    """SimPy's time line, as the memories see it."""

    def __init__(self, env: Any) -> None:
        self.env = env  # its clock holds integers here

    @property
    def now(self) -> int:
        """The present cycle."""
        return self.env.now

    def at(self, cycle: int, priority: int, call: Callable[[], None]) -> None:
        """Call at the end of a cycle; see `cosim.executors.des_memory.Clock`."""
        _Call(self.env, cycle - self.env.now, priority, call)


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
        self.trace = Trace(*(np.zeros(count, np.int64) for _ in range(4))) if trace else None


class _Machine:
    """Units, channels and memory of one run."""

    def __init__(self, program: Program, memory: Memory, trace: bool) -> None:
        self.program, self.memory = program, memory
        self.env: Any = simpy.Environment()  # its clock holds integers here
        self.ledger = _Ledger(program, trace)
        self.tokens = [channel.initial for channel in program.channels]
        self.since = [0] * len(program.channels)  # when the channel was last filled from empty
        self.total = 0
        self.blocked: dict[int, tuple[int, simpy.Event]] = {}  # unit -> (wait mask, wake)
        self.rows, self.starts = rows_by_unit(program)
        self.ports: dict[tuple[int, UnitKind], FlatChannel | DdrChannel] = {}
        clock = _Clock(self.env)
        self.controller = (DdrController(clock, program, memory)
                           if memory.model == "ddr3" else None)
        for index, port in enumerate(memory.ports):
            if self.controller is not None:
                for kind in (UnitKind.READ, UnitKind.WRITE):
                    self.ports[index, kind] = DdrChannel(self.controller, port,
                                                          kind == UnitKind.WRITE)
                continue
            self.ports[index, UnitKind.READ] = FlatChannel(
                clock, port.read_latency_cycles, 0)
            self.ports[index, UnitKind.WRITE] = FlatChannel(
                clock, port.write_lead_cycles, port.write_latency_cycles)
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
            if unit.kind == UnitKind.COMPUTE or operation[Column.TRIPS]:
                yield env.timeout(operation[Column.FILL] + operation[Column.DRAIN]
                                  + operation[Column.INTERVAL] * operation[Column.TRIPS])
                work = env.now - start
                if unit.kind != UnitKind.COMPUTE:
                    work = operation[Column.TRIPS] + unit.setup_cycles + unit.tail_cycles
            else:
                address = operation[Column.ADDRESS] + repeat * operation[Column.ADVANCE]
                counts = [0, 0]
                traced = -1 if ledger.trace is None else self.traced(segment, repeat, row)
                yield from self.transfer(index, unit, operation, address, counts, traced)
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
                traced = self.traced(segment, repeat, row)
                ledger.trace.start[traced], ledger.trace.end[traced] = start, end
            self.put(operation[Column.SIGNAL])

    def traced(self, segment: int, repeat: int, row: int) -> int:
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
                 counts: list[int], traced: int) -> Events:
        """All bursts of one operation; `counts` receives (beats, bursts)."""
        env = self.env
        width = self.memory.ports[unit.port].width_bytes
        port = self.ports[unit.port, unit.kind]
        transfer = Transfer()
        accepted = 0
        for run, begin in enumerate(runs(operation, address)):
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
                port.present(Request(env.now, index, issued, here, size, beats, transfer,
                                     grant.succeed, traced))
                accepted = yield grant
                counts[0] += beats
                counts[1] += 1
                here, left, new_run = here + size, left - size, False
        last = yield from _known(env, transfer, counts[1] - 1)
        yield env.timeout(last + unit.tail_cycles - env.now)


def _known(env: simpy.Environment, transfer: Transfer,
           burst: int) -> Generator[simpy.Event, int, int]:
    """The done cycle of a burst, as soon as the memory knows it."""
    while len(transfer.done) <= burst:
        known = env.event()
        transfer.waiter = known.succeed
        yield known
    return transfer.done[burst]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program on a memory and account for every cycle; the rules are above.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes, or a total is beyond counting.
    """
    refuse_beyond(program)
    machine = _Machine(program, memory, trace)
    machine.env.run()
    total = machine.total
    for unit, process in zip(program.units, machine.running, strict=True):
        if process.is_alive:
            raise ProgramError(f"unit {unit.name!r} waits for a token that never comes, "
                               f"at cycle {total}")
    book = machine.ledger
    trace_of_run = book.trace
    if trace_of_run is not None and machine.controller is not None:
        rows = np.zeros((len(trace_of_run.start), 2), np.int64)
        for traced, counts in machine.controller.rows.items():
            rows[traced] = counts
        trace_of_run = Trace(trace_of_run.start, trace_of_run.end, rows[:, 0], rows[:, 1])
    dram = machine.controller.dram.s[0] if machine.controller is not None else None
    hits, misses, refreshes = (0, 0, 0) if dram is None else (
        int(dram.hits), int(dram.misses), int(dram.seen))
    idle = total - book.busy - book.memory_stall - book.token_stall.sum(axis=1)
    return SimResult(
        total, book.busy, idle, book.memory_stall, book.token_stall, book.operations,
        book.layer_start, book.layer_end, book.layer_busy, book.layer_memory_stall,
        book.layer_token_stall, book.layer_bytes, book.layer_bursts, layer_macs(program),
        book.segment_end, hits, misses, refreshes, trace_of_run)

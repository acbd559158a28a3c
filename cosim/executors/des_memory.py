"""The memories of the SimPy executor: flat channels, DDR3 ports and the DDR3 controller.

It walks no operations and knows no tokens; the numbers come from the shared integer rules.

Two phases follow all other events of a cycle: ports accept requests (GRANT), then the controller
acts (CONTROL). The DDR3 ports, which hardware does not emit, work like this:

- A port's direction accepts one burst a cycle while fewer than `read_accept` (`write_accept`)
  bursts wait between it and the controller's window. A request that finds it full waits; when the
  controller takes a burst in cycle c, the request that has waited longest is accepted at c + 1.
- A read leaves for the controller `request_cycles` after its acceptance, a write as long after its
  last beat; beats of writes follow one another in acceptance order.
- A write is done `write_response_cycles` after the controller took it, and at least one cycle
  after the port's write before it: AXI carries one response a cycle. Data of reads cross the
  controller's port, then the AXI port `response_cycles` later, in the order of the unit's requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from arch_models.memory import Memory, Port
from cosim.compiled import plain
from cosim.memory.bursts import FAR, flat_accept
from cosim.memory.controller import controller
from cosim.memory.crossing import (
    controller_port,
    ddr_read_data,
    ddr_write_data,
    decided_in,
    to_ddr,
    to_fabric,
)
from cosim.memory.ddr3 import ADMITTED, NOTHING, SERVED, ddr_insert, ddr_next, ddr_step
from cosim.program.table import Program

#: Order of the two phases, behind everything else of a cycle.
GRANT, CONTROL = 2, 3


class Clock(Protocol):
    """A time line: SimPy's in `cosim.executors.des`, the hardware's in `hw.rtl_sim.ddr3`."""

    @property
    def now(self) -> int:
        """The present cycle."""

    def at(self, cycle: int, priority: int, call: Callable[[], None]) -> None:
        """Call at the end of a cycle, lower priorities first, then in the order asked."""


_flat_accept = plain(flat_accept)  # a call from here need not enter numba


@dataclass
class Transfer:
    """Bursts of the operation a unit runs: done cycles in order, as far as they are known."""

    done: list[int] = field(default_factory=list)
    ready: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # reads out of order
    waiter: Callable[[], object] | None = None

    def finished(self, cycle: int) -> None:
        """The memory tells when the next burst of this transfer is done."""
        self.done.append(cycle)
        if self.waiter is not None:
            waiter, self.waiter = self.waiter, None
            waiter()


@dataclass
class Request:
    """One burst that a unit asks for."""

    cycle: int
    unit: int
    index: int  # of the burst in its operation
    address: int
    size: int
    beats: int
    transfer: Transfer
    accepted: Callable[[int], object]
    traced: int  # of the operation in the trace, -1 if none is kept


class FlatChannel:
    """One direction of one port of the flat memory."""

    def __init__(self, clock: Clock, lead: int, trail: int) -> None:
        self.clock, self.lead, self.trail = clock, lead, trail
        self.last_accept, self.data_free = -1, 0
        self.pending: list[Request] = []

    def present(self, request: Request) -> None:
        """A request appears now; it is granted at the end of this cycle."""
        if not self.pending:
            self.clock.at(self.clock.now, GRANT, self.grant)
        self.pending.append(request)

    def grant(self) -> None:
        """Accept every request of this cycle in unit order (they share the request cycle)."""
        for request in sorted(self.pending, key=lambda item: (item.cycle, item.unit)):
            self.last_accept, begin = _flat_accept(request.cycle, self.last_accept, self.lead,
                                                   self.data_free)
            self.data_free = begin + request.beats
            request.transfer.finished(self.data_free + self.trail)
            request.accepted(self.last_accept)
        self.pending.clear()


class DdrChannel:
    """One direction of one port of the DDR3 memory: a queue of limited depth."""

    def __init__(self, controller: DdrController, port: Port, write: bool) -> None:
        self.controller, self.clock, self.port, self.write = (
            controller, controller.clock, port, write)
        self.depth = port.write_accept if write else port.read_accept
        self.last_accept, self.data_free, self.held, self.last_response = -1, 0, 0, -1
        self.blocked: list[Request] = []

    def present(self, request: Request) -> None:
        """A request appears now; it is decided at the end of this cycle."""
        self.controller.present(self, request)

    def grant(self, request: Request) -> None:
        """Accept a request if the queue has room; else it waits behind those that wait."""
        if self.held >= self.depth:
            self.blocked.append(request)
        else:
            self.accept(request, max(request.cycle, self.last_accept + 1))

    def accept(self, request: Request, cycle: int) -> None:
        """The port takes a burst; it is on its way to the controller."""
        self.last_accept = cycle
        self.held += 1
        self.controller.insert(self, request, cycle)
        request.accepted(cycle)

    def admitted(self, request: Request, clock: int) -> None:
        """The controller took a burst: a write is answered, and the queue has room again."""
        self.held -= 1
        if self.write:
            answered = to_fabric(clock, self.controller.dram.t) + self.port.write_response_cycles
            self.last_response = max(answered, self.last_response + 1)
            request.transfer.finished(self.last_response)
        if self.blocked and self.held == self.depth - 1:
            self.accept(self.blocked.pop(0), max(self.clock.now, self.last_accept) + 1)

    def served(self, request: Request, first: int, last: int) -> None:
        """The DRAM gives the data of a read; they move over the port in request order."""
        transfer = request.transfer
        transfer.ready[request.index] = (first, last, request.beats)
        while (turn := transfer.ready.pop(len(transfer.done), None)) is not None:
            begin, end, beats = turn
            self.data_free = ddr_read_data(self.controller.dram.t, begin, end,
                                           self.port.response_cycles, self.data_free, beats)
            transfer.finished(self.data_free)


class DdrController:
    """The DDR controller on the time line of the fabric; its rules are `cosim.memory.bursts`."""

    def __init__(self, clock: Clock, program: Program, memory: Memory) -> None:
        assert memory.ddr is not None
        self.clock = clock
        self.dram = controller(memory, sum(unit.outstanding for unit in program.units) + 1)
        # Fields as arrays: Python takes ten times as long to read a field of one record.
        self.held, self.unused = self.dram.s["inside"], self.dram.s["unused"]
        self.rows_found = self.dram.s["new_hits"], self.dram.s["new_misses"]
        self.unit_of = self.dram.pool["unit"]
        t = self.dram.t[0]
        self.ready = int(t.t_cl + t.t_ccd + t.pipeline)
        self.background = len(program.units)
        self.inside: dict[int, tuple[DdrChannel, Request]] = {}  # by pool entry
        self.pending: list[tuple[DdrChannel, Request]] = []
        self.rows: dict[int, np.ndarray] = {}  # by operation: rows found open, rows opened
        self.awake = -1  # the cycle of the next wake that counts
        self.crossing: dict[tuple[int, bool], int] = {}  # controller port, write -> free clock

    def present(self, channel: DdrChannel, request: Request) -> None:
        """Requests of one cycle are decided in unit order over all ports: ports share wires."""
        if not self.pending:
            self.clock.at(self.clock.now, GRANT, self.grant)
        self.pending.append((channel, request))

    def grant(self) -> None:
        """Offer the requests of this cycle to their ports."""
        for channel, request in sorted(self.pending, key=lambda item: item[1].unit):
            channel.grant(request)
        self.pending.clear()

    def insert(self, channel: DdrChannel, request: Request, cycle: int) -> None:
        """A burst accepted in a cycle sets out for the controller."""
        t, port = self.dram.t, channel.port
        if channel.write:
            channel.data_free = ddr_write_data(cycle, port.write_lead_cycles, channel.data_free,
                                                request.beats)
            leaves = to_ddr(channel.data_free + port.request_cycles, t)
            arrival = self.cross(channel, leaves, request.size)[1]
            self.crossing[port.controller_port, True] = arrival
        else:
            arrival = to_ddr(cycle + port.request_cycles, t)
        entry = int(self.dram.free[self.unused[0] - 1])
        ddr_insert(self.dram, arrival, request.unit, request.index, request.address, request.size,
                   int(channel.write))
        self.held[0] += 1
        self.inside[entry] = channel, request
        self.wake(self.clock.now)

    def wake(self, cycle: int) -> None:
        """Act at the end of a cycle, unless something already wakes the controller by then."""
        if not self.clock.now <= self.awake <= cycle:
            self.awake = cycle
            self.clock.at(cycle, CONTROL, self.act)

    def cross(self, channel: DdrChannel, clock: int, size: int) -> tuple[int, int]:
        """Passage through the controller port that the channel shares."""
        free = self.crossing.get((channel.port.controller_port, channel.write), 0)
        return controller_port(self.dram.t, clock, free, size)

    def act(self) -> None:
        """Do every event of the controller up to this cycle, then sleep until its next."""
        if self.awake != self.clock.now:
            return
        self.awake = -1
        dram = self.dram
        while (clock := ddr_next(dram, self.background)) != FAR:
            cycle = int(decided_in(clock, dram.t))
            if cycle > self.clock.now:
                self.wake(cycle)
                return
            what, entry, clock, first, last = ddr_step(dram, self.background)
            if what == NOTHING or self.unit_of[entry] >= self.background:
                continue
            channel, request = self.inside[entry]
            if what == SERVED and request.traced >= 0:
                self.rows[request.traced] = self.rows.get(request.traced, 0) + np.array(
                    [int(count[0]) for count in self.rows_found])
            if what == ADMITTED:
                channel.admitted(request, clock)
                continue
            del self.inside[entry]
            if not channel.write:
                begin, end = self.cross(channel, first + self.ready, request.size)
                end = max(end, last + self.ready)
                self.crossing[channel.port.controller_port, False] = end
                channel.served(request, begin, end)

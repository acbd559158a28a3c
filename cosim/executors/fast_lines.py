"""Who waits for the windows of the DDR controller, in the numba executor.

It holds no DRAM rule, and no burst is served here; see `cosim.executors.fast_ddr3`. The lines of
`cosim.memory.ddr3` hold every burst in the order of arrival; here each unit and each background
source keeps its own, which arrive in their order, and the earliest of their first is the line's.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE
from cosim.memory.bursts import FAR, source_address
from cosim.memory.ddr3 import ddr_atoms


@PLAIN_RULE
def find_front(lines, write):
    """Find the burst of a direction that arrives first; of equals, the lower member's."""
    best, soonest = -1, FAR
    for place in range(lines.sizes[write]):
        member = lines.members[write, place]
        if lines.arrival[member] < soonest:
            best, soonest = member, lines.arrival[member]
    lines.front[write].member = best
    lines.front[write].arrival = soonest


@PLAIN_RULE
def join(machine, unit, write, arrival, number):
    """A burst of a unit gets into line; its record is in `flight`."""
    lines = machine.lines
    if lines.arrival[unit] == FAR:
        lines.oldest[unit] = number
        lines.arrival[unit] = arrival
        find_front(lines, write)


@PLAIN_RULE
def leave(machine, member, write):
    """The oldest burst of a member leaves the line for the window."""
    lines, flight = machine.lines, machine.flight
    lines.arrival[member] = FAR
    if member < len(machine.units):
        number = lines.oldest[member] + 1
        lines.oldest[member] = number
        if number < machine.progress[member].issued:
            lines.arrival[member] = flight[member, number & (flight.shape[1] - 1)].arrival
    find_front(lines, write)


@PLAIN_RULE
def ask_again(machine, source):
    """A background source gets into line with its next burst."""
    dram = machine.dram
    asked, member = dram.sources[source], len(machine.units) + source
    burst = machine.flight[member, 0]
    burst.arrival = asked.next_at
    burst.address = source_address(dram.t[0], asked)
    burst.moved = asked.moved
    burst.atoms = ddr_atoms(dram.t[0], burst.address, asked.moved)
    machine.lines.arrival[member] = asked.next_at
    find_front(machine.lines, asked.write)


@PLAIN_RULE
def start_lines(machine):
    """At the start only the background sources have something to ask."""
    for source in range(len(machine.dram.sources)):
        ask_again(machine, source)


@PLAIN_RULE
def admitted_at(machine, write):
    """Clock at which the first of a line enters the window, as far as is known."""
    s, front, flight = machine.dram.s[0], machine.lines.front[write], machine.flight
    if front.member < 0:
        return FAR
    occupied = s.occupied[write]
    if occupied:
        slot = machine.lines.oldest[front.member] & (flight.shape[1] - 1)
        if occupied + flight[front.member, slot].atoms > machine.dram.t[0].entries[write]:
            return FAR
    return max(front.arrival, s.space[write])


@PLAIN_RULE
def enter_pool(machine, member, write):
    """Write the oldest burst of a member into a free place of the controller; its number."""
    dram = machine.dram
    number = machine.lines.oldest[member]
    waiting = machine.flight[member, number & (machine.flight.shape[1] - 1)]
    entry = dram.free[dram.s[0].unused - 1]
    burst = dram.pool[entry]
    burst.arrival = waiting.arrival
    burst.unit = member
    burst.number = number
    burst.address = waiting.address
    burst.moved = waiting.moved
    burst.atoms = waiting.atoms
    burst.write = write
    if member < len(machine.units):
        burst.traced = machine.progress[member].traced
    return entry

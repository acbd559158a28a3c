"""Who waits for the windows of the DDR controller, in the numba executor.

It holds no DRAM rule and serves no burst; see `cosim.executors.fast_controller`. The lines of
`cosim.memory.ddr3` hold every burst in the order of arrival; here each unit and each background
source keeps its own, which arrive in their order, and the earliest of their first is the line's.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE
from cosim.executors.fast_state import place_of
from cosim.memory.bursts import FAR, source_address
from cosim.memory.ddr3 import ddr_atoms


@PLAIN_RULE
def find_front(machine, write):
    """Find the burst of a direction that arrives first; of equals, the lower member's."""
    lines = machine.lines
    best, soonest = -1, FAR
    for place in range(lines.sizes[write]):
        member = lines.members[write, place]
        if lines.arrival[member] < soonest:
            best, soonest = member, lines.arrival[member]
    front = lines.front[write]
    front.member = best
    front.arrival = soonest
    if best >= 0:
        front.place = place_of(machine, best, lines.oldest[best])
        front.atoms = machine.flight[front.place].atoms


@PLAIN_RULE
def join(machine, unit, write, arrival, number):
    """A burst of a unit gets into line; its record is in `flight`."""
    lines = machine.lines
    if lines.arrival[unit] == FAR:
        lines.oldest[unit] = number
        lines.arrival[unit] = arrival
        find_front(machine, write)


@PLAIN_RULE
def leave(machine, member, write):
    """The oldest burst of a member leaves the line for the window."""
    lines = machine.lines
    lines.arrival[member] = FAR
    if member < len(machine.units):
        number = lines.oldest[member] + 1
        lines.oldest[member] = number
        if number < machine.progress[member].issued:
            lines.arrival[member] = machine.flight[place_of(machine, member, number)].arrival
    find_front(machine, write)


@PLAIN_RULE
def ask_again(machine, source):
    """A background source gets into line with its next burst."""
    dram = machine.dram
    asked, member = dram.sources[source], len(machine.units) + source
    burst = machine.flight[place_of(machine, member, 0)]
    burst.arrival = asked.next_at
    burst.address = source_address(dram.t[0], asked)
    burst.moved = asked.moved
    burst.atoms = ddr_atoms(dram.t[0], burst.address, asked.moved)
    machine.lines.arrival[member] = asked.next_at
    find_front(machine, asked.write)


@PLAIN_RULE
def start_lines(machine):
    """At the start only the background sources have something to ask."""
    for source in range(len(machine.dram.sources)):
        ask_again(machine, source)

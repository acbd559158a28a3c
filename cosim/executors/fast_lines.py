"""Who waits for the windows of the DDR controller, in the numba executor.

It holds no DRAM rule and serves no burst; see `cosim.executors.fast_controller`. The lines of
`cosim.memory.ddr3` hold every burst in the order of arrival; here each unit and each background
source keeps its own, which arrive in their order, and the earliest of their first is the line's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cosim.compiled import PLAIN_RULE, at
from cosim.executors.fast_state import flight_of
from cosim.memory.bursts import FAR, precedes, source_address
from cosim.memory.ddr3 import ddr_atoms


class Front(NamedTuple):
    """Whose burst of a direction arrives first (-1: nobody's), and when."""

    member: int
    arrival: Any


@PLAIN_RULE
def find_front(machine, members):
    """The front of a direction; of equals, the lower member's burst is first."""
    best, soonest = -1, FAR
    for place in range(len(members)):
        member = members[place]
        arrival = at(machine.progress, member).arrival
        if arrival < soonest:
            best, soonest = member, arrival
    return Front(best, soonest)


@PLAIN_RULE
def joined(machine, front, member):
    """The front of a direction when a member that was not in line perhaps is."""
    arrival = at(machine.progress, member).arrival
    if precedes(arrival, member, front.arrival, front.member):
        return Front(member, arrival)
    return front


@PLAIN_RULE
def leave(machine, member):
    """The oldest burst of a member leaves the line for the window."""
    x = at(machine.progress, member)
    arrival = FAR
    if member < len(machine.units):
        number = x.oldest + 1
        x.oldest = number
        if number < x.issued:
            arrival = flight_of(machine, member, number).arrival
    x.arrival = arrival


@PLAIN_RULE
def ask_again(machine, source):
    """A background source gets into line with its next burst."""
    dram = machine.dram
    asked, member = at(dram.sources, source), len(machine.units) + source
    burst = flight_of(machine, member, 0)
    burst.arrival = asked.next_at
    burst.address = source_address(dram.t[0], asked)
    burst.moved = asked.moved
    burst.atoms = ddr_atoms(dram.t[0], burst.address, asked.moved)
    at(machine.progress, member).arrival = asked.next_at


@PLAIN_RULE
def start_lines(machine):
    """At the start only the background sources have something to ask."""
    for member in range(len(machine.progress)):
        at(machine.progress, member).arrival = FAR
    for source in range(len(machine.dram.sources)):
        ask_again(machine, source)

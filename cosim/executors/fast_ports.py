"""The ports of the DDR3 memory in the numba executor: bursts are accepted, data return.

It holds no DRAM rule; see `cosim.executors.fast_controller`. Of the order of events it keeps what
can be seen: a burst whose request cycle is known is accepted at once, without a visit of it.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE, at
from cosim.executors.fast_state import (
    BLOCKED,
    READ,
    REQUESTING,
    Walk,
    flight_of,
    next_burst,
    next_event,
    put_down,
    taken_up,
)
from cosim.memory.bursts import FAR, precedes
from cosim.memory.crossing import (
    controller_port,
    ddr_read_data,
    ddr_write_data,
    decided_in,
    passage,
    to_ddr,
    to_fabric,
)
from cosim.memory.ddr3 import ddr_atoms


@PLAIN_RULE
def _need(machine, unit, known, issued):
    """Raise the limit that a writer needs, for its bursts that are not done."""
    x = at(machine.progress, unit)
    for number in range(known, issued):
        asked = flight_of(machine, unit, number).asked
        while (known > number - x.needed >= 0
               and flight_of(machine, unit, number - x.needed).done > asked):
            x.needed += 1


@PLAIN_RULE
def _accept(machine, unit, walk, accepted, asked):
    """Accept the next burst of a unit on a port of the DDR3 memory; where the unit is then.

    `asked`: when it was requested.
    """
    x, settings, dram = at(machine.progress, unit), at(machine.units, unit), machine.dram
    number, address = walk.issued, walk.here
    size, beats, walk = next_burst(machine, unit, walk)
    channel = at(machine.channels, settings.channel)
    channel.accepted = accepted
    channel.held += 1
    burst = flight_of(machine, unit, number)
    if settings.kind == READ:
        arrival = to_ddr(accepted + settings.request, dram.t)
        burst.beats = beats
        burst.last = -1
    else:
        channel.data_free = ddr_write_data(accepted, settings.lead, channel.data_free, beats)
        crossing = at(machine.channels, 2 * settings.controller + 1)
        _, arrival = controller_port(dram.t, to_ddr(channel.data_free + settings.request, dram.t),
                                     crossing.crossing, size)
        crossing.crossing = arrival
        burst.asked = asked
        older = number - x.needed
        if walk.known > older >= 0 and flight_of(machine, unit, older).done > asked:
            _need(machine, unit, walk.known, number + 1)
    burst.arrival = arrival
    burst.address = address
    burst.moved = size
    burst.atoms = ddr_atoms(dram.t[0], address, size)
    if x.arrival == FAR:
        x.oldest = number
        x.arrival = arrival
    dram.s[0].inside += 1
    return Walk(walk.here, walk.left, walk.new_run, number + 1, walk.known, accepted, walk.done)


@PLAIN_RULE
def request_ahead(machine, unit, accepted):
    """Accept every burst of a unit whose request cycle is known, if nothing can come between.

    `accepted`: the port accepts the unit's next burst in that cycle anyhow; -1: none yet.
    Nobody else asks for what a `sole` unit needs, and room in the port's queue only grows until
    its request.
    """
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    channel = at(machine.channels, settings.channel)
    if accepted < 0 and x.doing == BLOCKED:
        return
    walk = taken_up(x)
    doing, due, asked = REQUESTING, accepted, x.presented
    while True:
        if accepted < 0:
            doing, due = next_event(machine, unit, walk)
            if doing != REQUESTING or not settings.sole or channel.held >= settings.accept:
                break
            asked = due
        walk = _accept(machine, unit, walk, due, asked)
        accepted = -1
    put_down(x, walk)
    x.doing = doing
    x.due = due


@PLAIN_RULE
def request(machine, unit, now):
    """A unit asks its port for its next burst now; the cycle that accepts it, -1 if it waits."""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    channel = at(machine.channels, settings.channel)
    x.presented = now
    if channel.held < settings.accept:
        return max(now, channel.accepted + 1)
    x.doing = BLOCKED
    x.due = FAR
    return -1


@PLAIN_RULE
def who_requests(machine, now, engines):
    """(the first unit that asks for a burst in this cycle, when somebody is due besides it); -1 if
    none does, or an operation ends in it. `engines`: when an engine is due."""
    found, soonest = -1, engines
    for place in range(len(machine.movers)):
        unit = machine.movers[place]
        x = at(machine.progress, unit)
        if x.due == now:
            if x.doing != REQUESTING:
                return -1, now
            if found < 0:
                found = unit
                continue
        soonest = min(soonest, x.due)
    if engines == now:
        found = -1
    return found, soonest


@PLAIN_RULE
def _waits_longest(machine, number):
    """The unit whose request has waited longest at one direction of a port; -1: none waits."""
    best = -1
    for unit in range(len(machine.units)):
        x, settings = at(machine.progress, unit), at(machine.units, unit)
        if (x.doing == BLOCKED and settings.channel == number
                and (best < 0 or precedes(x.presented, unit,
                                          at(machine.progress, best).presented, best))):
            best = unit
    return best


@PLAIN_RULE
def admitted(machine, unit, clock):
    """The controller took a burst of a unit: answer a write, make room in the port's queue.

    (who waited for that room, -1: nobody; the cycle in which its burst is accepted).
    """
    settings, x = at(machine.units, unit), at(machine.progress, unit)
    channel = at(machine.channels, settings.channel)
    blocked, accepted = -1, -1
    if channel.held == settings.accept:
        blocked = _waits_longest(machine, settings.channel)
        accepted = max(decided_in(clock, machine.dram.t), channel.accepted) + 1
    channel.held -= 1
    if settings.kind != READ:
        done = max(to_fabric(clock, machine.dram.t) + settings.response, channel.answered + 1)
        channel.answered = done
        flight_of(machine, unit, x.known).done = done
        x.done = done
        x.known += 1
        newer = x.known - 1 + x.needed
        if newer < x.issued and flight_of(machine, unit, newer).asked < done:
            _need(machine, unit, x.known, x.issued)
    return blocked, accepted


@PLAIN_RULE
def served(machine, unit, number, moved, first, last):
    """The DRAM has the data of a read; they move over the port, in the order of the unit's.

    Does its next burst get through?
    """
    settings, x, t = at(machine.units, unit), at(machine.progress, unit), machine.dram.t
    crossing = at(machine.channels, 2 * settings.controller)
    begin, end = passage(t, first, last, crossing.crossing, moved)
    crossing.crossing = end
    burst = flight_of(machine, unit, number)
    if number != x.known:
        burst.first = begin
        burst.last = end
        return False
    channel, issued = at(machine.channels, settings.channel), x.issued
    free = channel.data_free
    while True:
        free = ddr_read_data(t, begin, end, settings.response, free, burst.beats)
        burst.done = free
        number += 1
        if number == issued:
            break
        burst = flight_of(machine, unit, number)
        begin, end = burst.first, burst.last
        if end < 0:
            break
    channel.data_free = x.done = free
    x.known = number
    return True

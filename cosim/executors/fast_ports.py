"""The ports of the DDR3 memory in the numba executor: bursts are accepted, data return.

It holds no DRAM rule; see `cosim.executors.fast_controller`. Of the order of events it keeps what
can be seen: a burst whose request cycle is known is accepted at once, without a visit of it.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE
from cosim.executors.fast_lines import join
from cosim.executors.fast_state import (
    BLOCKED,
    READ,
    REQUESTING,
    WAITING,
    next_burst,
    place_of,
    reschedule,
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
def port_accept(machine, unit, accepted):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
    x, settings, dram = machine.progress[unit], machine.units[unit], machine.dram
    number, address = x.issued, x.here
    size, beats = next_burst(machine, unit)
    channel = machine.channels[settings.channel]
    channel.accepted = accepted
    channel.held += 1
    burst = machine.flight[place_of(machine, unit, number)]
    write = 0 if settings.kind == READ else 1
    if write:
        channel.data_free = ddr_write_data(accepted, settings.lead, channel.data_free, beats)
        crossing = machine.channels[2 * settings.controller + 1]
        _, arrival = controller_port(dram.t, to_ddr(channel.data_free + settings.request, dram.t),
                                     crossing.crossing, size)
        crossing.crossing = arrival
    else:
        arrival = to_ddr(accepted + settings.request, dram.t)
        burst.beats = beats
        burst.last = -1
    burst.arrival = arrival
    burst.address = address
    burst.moved = size
    burst.atoms = ddr_atoms(dram.t[0], address, size)
    join(machine, unit, write, arrival, number)
    dram.s[0].inside += 1
    x.accepted = accepted
    x.issued = number + 1


@PLAIN_RULE
def request_ahead(machine, unit):
    """Accept every burst of a unit whose request cycle is known, if nothing can come between.

    Nobody else asks for what it needs, and room in the port's queue only grows until then.
    """
    settings = machine.units[unit]
    reschedule(machine, unit)
    while (settings.sole and machine.doing[unit] == REQUESTING
           and machine.channels[settings.channel].held < settings.accept):
        port_accept(machine, unit, machine.due[unit])
        reschedule(machine, unit)


@PLAIN_RULE
def _deliver(machine, unit):
    """Move the data of served reads over the port, in the order of the unit's requests."""
    x, settings = machine.progress[unit], machine.units[unit]
    channel = machine.channels[settings.channel]
    while x.known < x.issued:
        burst = machine.flight[place_of(machine, unit, x.known)]
        if burst.last < 0:
            break
        channel.data_free = ddr_read_data(machine.dram.t, burst.first, burst.last,
                                          settings.response, channel.data_free, burst.beats)
        machine.done[unit, x.known & (machine.done.shape[1] - 1)] = channel.data_free
        x.done = channel.data_free
        x.known += 1
    request_ahead(machine, unit)


@PLAIN_RULE
def _unblock(machine, number, cycle):
    """A burst left a port's queue: accept the request that has waited longest; its unit."""
    best = -1
    for unit in range(len(machine.units)):
        if (machine.doing[unit] == BLOCKED and machine.units[unit].channel == number
                and (best < 0 or precedes(machine.progress[unit].presented, unit,
                                          machine.progress[best].presented, best))):
            best = unit
    if best >= 0:
        machine.doing[best] = WAITING
        port_accept(machine, best, max(cycle, machine.channels[number].accepted) + 1)
        request_ahead(machine, best)
    return best


@PLAIN_RULE
def admitted(machine, unit, clock):
    """The controller took a burst of a unit: answer a write, make room in the port's queue.

    Returned is the cycle in which a unit is next due because of that.
    """
    settings, x, soonest = machine.units[unit], machine.progress[unit], FAR
    channel = machine.channels[settings.channel]
    channel.held -= 1
    if channel.held == settings.accept - 1:
        freed = _unblock(machine, settings.channel, decided_in(clock, machine.dram.t))
        if freed >= 0:
            soonest = machine.due[freed]
    if settings.kind != READ:
        done = max(to_fabric(clock, machine.dram.t) + settings.response, channel.answered + 1)
        channel.answered = done
        machine.done[unit, x.known & (machine.done.shape[1] - 1)] = done
        x.done = done
        x.known += 1
        request_ahead(machine, unit)
        soonest = min(soonest, machine.due[unit])
    return soonest


@PLAIN_RULE
def served(machine, entry, first, last):
    """The DRAM has the data of a read; the cycle in which its unit is next due because of that."""
    dram = machine.dram
    burst = dram.pool[entry]
    unit = burst.unit
    crossing = machine.channels[2 * machine.units[unit].controller]
    begin, crossing.crossing = passage(dram.t, first, last, crossing.crossing, burst.moved)
    flown = machine.flight[place_of(machine, unit, burst.number)]
    flown.first = begin
    flown.last = crossing.crossing
    if burst.number != machine.progress[unit].known:
        return FAR
    _deliver(machine, unit)
    return machine.due[unit]

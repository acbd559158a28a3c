"""The DDR3 memory in the numba executor: ports accept bursts, the controller acts, data return.

It holds no DRAM rule; those are in `cosim.memory.ddr3`.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE
from cosim.executors.fast_state import BLOCKED, READ, WAITING, next_burst, reschedule
from cosim.memory.bursts import FAR, precedes
from cosim.memory.ddr3 import (
    ADMITTED,
    NOTHING,
    SERVED,
    controller_port,
    ddr_insert,
    ddr_next,
    ddr_read_data,
    ddr_step,
    ddr_write_data,
    decided_in,
    to_ddr,
    to_fabric,
)


@PLAIN_RULE
def port_accept(machine, unit, accepted):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
    x, settings, dram = machine.progress[unit], machine.units[unit], machine.dram
    number, address = x.issued, x.here
    size, beats = next_burst(machine, unit)
    channel = machine.channels[settings.channel]
    channel.accepted = accepted
    channel.held += 1
    write = 0 if settings.kind == READ else 1
    if write:
        channel.data_free = ddr_write_data(accepted, settings.lead, channel.data_free, beats)
        crossing = machine.channels[2 * settings.controller + 1]
        _, arrival = controller_port(dram.t, to_ddr(channel.data_free + settings.request, dram.t),
                                     crossing.crossing, size)
        crossing.crossing = arrival
    else:
        arrival = to_ddr(accepted + settings.request, dram.t)
        slot = number & (machine.rings.done.shape[1] - 1)
        machine.rings.beats[unit, slot] = beats
        machine.rings.last[unit, slot] = -1
    ddr_insert(dram, arrival, unit, number, address, size, write, x.traced)
    dram.s[0].inside += 1
    x.accepted = accepted
    x.issued = number + 1
    reschedule(machine, unit)


@PLAIN_RULE
def _deliver(machine, unit):
    """Move the data of served reads over the port, in the order of the unit's requests."""
    x, settings, rings = machine.progress[unit], machine.units[unit], machine.rings
    channel = machine.channels[settings.channel]
    while x.known < x.issued:
        slot = x.known & (rings.done.shape[1] - 1)
        if rings.last[unit, slot] < 0:
            break
        channel.data_free = ddr_read_data(
            machine.dram.t, rings.first[unit, slot], rings.last[unit, slot], settings.response,
            channel.data_free, rings.beats[unit, slot])
        rings.done[unit, slot] = channel.data_free
        x.done = channel.data_free
        x.known += 1
    reschedule(machine, unit)


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
    return best


@PLAIN_RULE
def _admitted(machine, unit, clock):
    """The controller took a burst of a unit: answer a write, make room in the port's queue.

    Returned is the cycle in which a unit is next due because of that.
    """
    settings, x, soonest = machine.units[unit], machine.progress[unit], FAR
    channel = machine.channels[settings.channel]
    if settings.kind != READ:
        done = max(to_fabric(clock, machine.dram.t) + settings.response, channel.answered + 1)
        channel.answered = done
        machine.rings.done[unit, x.known & (machine.rings.done.shape[1] - 1)] = done
        x.done = done
        x.known += 1
        reschedule(machine, unit)
        soonest = machine.due[unit]
    channel.held -= 1
    if channel.held == settings.accept - 1:
        freed = _unblock(machine, settings.channel, decided_in(clock, machine.dram.t))
        if freed >= 0:
            soonest = min(soonest, machine.due[freed])
    return soonest


@PLAIN_RULE
def _served_read(machine, entry, first, last):
    """The DRAM has the data of a read; the cycle in which its unit is next due because of that."""
    dram, rings = machine.dram, machine.rings
    t = dram.t[0]
    burst = dram.pool[entry]
    unit = burst.unit
    ready = t.t_cl + t.t_ccd + t.pipeline
    slot = burst.number & (rings.done.shape[1] - 1)
    crossing = machine.channels[2 * machine.units[unit].controller]
    begin, end = controller_port(dram.t, first + ready, crossing.crossing, burst.moved)
    rings.first[unit, slot] = begin
    rings.last[unit, slot] = max(end, last + ready)
    crossing.crossing = rings.last[unit, slot]
    if slot != machine.progress[unit].known & (rings.done.shape[1] - 1):
        return FAR
    _deliver(machine, unit)
    return machine.due[unit]


@PLAIN_RULE
def controller_act(machine, counts, limit):
    """Let the controller act in every cycle before `limit`, the first in which a unit is due.

    What it does may make a unit due earlier; returned is the cycle that then comes first.
    """
    dram, background = machine.dram, len(machine.units)
    while True:
        clock = ddr_next(dram, background)
        # The controller acts at the end of the cycle in which its clock begins.
        if clock == FAR or (limit < FAR and clock * dram.t[0].cycle >= limit * dram.t[0].clock):
            return limit
        what, entry, clock, first, last = ddr_step(dram, background)
        burst = dram.pool[entry]
        if what == NOTHING or burst.unit >= background:
            continue
        if what == SERVED and len(counts.trace_hits):
            counts.trace_hits[burst.traced] += dram.s[0].new_hits
            counts.trace_misses[burst.traced] += dram.s[0].new_misses
        if what == ADMITTED:
            limit = min(limit, _admitted(machine, burst.unit, clock))
        elif machine.units[burst.unit].kind == READ:
            limit = min(limit, _served_read(machine, entry, first, last))

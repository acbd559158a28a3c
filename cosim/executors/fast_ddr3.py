"""The DDR3 memory in the numba executor: ports accept bursts, the controller acts, data return.

It holds no DRAM rule; those are in `cosim.memory.ddr3`. Of the order of events it keeps what can be
seen: a burst whose request cycle is known is accepted at once, without a visit of that cycle, and
a burst that finds the windows empty, and is served before the next comes, never enters one.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE
from cosim.executors.fast_lines import admitted_at, ask_again, enter_pool, join, leave
from cosim.executors.fast_state import (
    BLOCKED,
    READ,
    REQUESTING,
    WAITING,
    next_burst,
    reschedule,
)
from cosim.executors.fast_streams import leap
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
from cosim.memory.ddr3 import ddr_atoms, ddr_enter, ddr_pick, ddr_refresh, ddr_serve, ddr_turn


@PLAIN_RULE
def port_accept(machine, unit, accepted):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
    x, settings, dram = machine.progress[unit], machine.units[unit], machine.dram
    number, address = x.issued, x.here
    size, beats = next_burst(machine, unit)
    channel = machine.channels[settings.channel]
    channel.accepted = accepted
    channel.held += 1
    burst = machine.flight[unit, number & (machine.flight.shape[1] - 1)]
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
    x, settings, flight = machine.progress[unit], machine.units[unit], machine.flight
    channel = machine.channels[settings.channel]
    while x.known < x.issued:
        slot = x.known & (flight.shape[1] - 1)
        burst = flight[unit, slot]
        if burst.last < 0:
            break
        channel.data_free = ddr_read_data(machine.dram.t, burst.first, burst.last,
                                          settings.response, channel.data_free, burst.beats)
        machine.done[unit, slot] = channel.data_free
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
def _admitted(machine, unit, clock):
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
def _served_read(machine, entry, first, last):
    """The DRAM has the data of a read; the cycle in which its unit is next due because of that."""
    dram, flight = machine.dram, machine.flight
    burst = dram.pool[entry]
    unit = burst.unit
    slot = burst.number & (flight.shape[1] - 1)
    crossing = machine.channels[2 * machine.units[unit].controller]
    begin, crossing.crossing = passage(dram.t, first, last, crossing.crossing, burst.moved)
    flight[unit, slot].first = begin
    flight[unit, slot].last = crossing.crossing
    if slot != machine.progress[unit].known & (flight.shape[1] - 1):
        return FAR
    _deliver(machine, unit)
    return machine.due[unit]


@PLAIN_RULE
def _serve(machine, counts, entry, overtakes, now):
    """Serve a burst; the cycle in which its unit is next due because of that."""
    dram, background = machine.dram, len(machine.units)
    burst = dram.pool[entry]
    first, last = ddr_serve(dram, burst, overtakes, background, now)
    if burst.unit >= background:
        ask_again(machine, burst.unit - background)
        return FAR
    if len(counts.trace_hits):
        counts.trace_hits[burst.traced] += dram.s[0].new_hits
        counts.trace_misses[burst.traced] += dram.s[0].new_misses
    if burst.write:
        return FAR
    return _served_read(machine, entry, first, last)


@PLAIN_RULE
def _admit(machine, write, now):
    """The first burst of a line is admitted; (its number, when a unit is next due for that)."""
    member = machine.lines.front[write].member
    entry = enter_pool(machine, member, write)
    leave(machine, member, write)
    soonest = _admitted(machine, member, now) if member < len(machine.units) else FAR
    return entry, soonest


@PLAIN_RULE
def controller_act(machine, counts, limit):
    """Let the controller act in every cycle before `limit`, the first in which a unit is due.

    What it does may make a unit due earlier; returned is the cycle that then comes first. The
    controller acts at the end of the cycle in which its clock begins.
    """
    dram, s = machine.dram, machine.dram.s[0]
    bound = FAR if limit == FAR else to_ddr(limit, dram.t)
    while s.inside > 0:
        if s.in_window[0] + s.in_window[1] == 0:
            leap(machine, counts, bound)
        reads, writes = admitted_at(machine, 0), admitted_at(machine, 1)
        waiting = s.in_window[0] + s.in_window[1]
        now = max(s.now, s.bus) if waiting else FAR
        entry, overtakes = -1, False
        if min(reads, writes) <= now:
            now = min(reads, writes)
            if now >= bound:
                break
            s.now = max(s.now, now)
            write = 0 if now == reads else 1
            entry, soonest = _admit(machine, write, now)
            if soonest < limit:
                limit = soonest
                bound = to_ddr(limit, dram.t)
            at = max(s.now, s.bus)
            if (waiting or at >= bound or at >= s.refresh
                    or at >= min(admitted_at(machine, 0), admitted_at(machine, 1))):
                s.unused -= 1
                ddr_enter(dram, entry, now)
                continue
            dram.pool[entry].admitted = now
            s.now = now = at
            ddr_turn(dram, write, True, now)
        else:
            if now >= bound:
                break
            s.now = now
            if s.refresh <= now:
                ddr_refresh(dram, now)
                continue
            entry, overtakes = ddr_pick(dram, now)
        soonest = _serve(machine, counts, entry, overtakes, now)
        if soonest < limit:
            limit = soonest
            bound = to_ddr(limit, dram.t)
    return limit

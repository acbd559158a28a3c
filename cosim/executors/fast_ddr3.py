"""The DDR3 memory in the numba executor: ports accept bursts, the controller acts, data return.

It holds no DRAM rule; those are in `cosim.memory.ddr3`.
"""

from __future__ import annotations

from cosim.executors.fast_state import (
    BLOCKED,
    G_BEATS,
    G_DONE,
    G_FIRST,
    G_LAST,
    P_ACCEPT,
    P_CROSSING,
    P_DATA,
    P_HELD,
    P_RESPONSE,
    READ,
    U_ACCEPT,
    U_CHANNEL,
    U_CONTROLLER,
    U_KIND,
    U_LEAD,
    U_REQUEST,
    U_RESPONSE,
    WAITING,
    X_ACCEPTED,
    X_DONE,
    X_HERE,
    X_ISSUED,
    X_KNOWN,
    X_PRESENTED,
    X_ROW,
    X_TRACE,
    next_burst,
    reschedule,
)
from cosim.memory.bursts import FAR, PLAIN, precedes
from cosim.memory.ddr3 import (
    ADMITTED,
    E_BYTES,
    E_INDEX,
    E_PLACE,
    E_UNIT,
    NOTHING,
    R_FOREGROUND,
    R_NEW_HITS,
    R_NEW_MISSES,
    SERVED,
    T_CCD,
    T_CL,
    T_CLOCK,
    T_CYCLE,
    T_PIPELINE,
    controller_port,
    ddr_insert,
    ddr_next,
    ddr_read_data,
    ddr_step,
    ddr_write_data,
    to_ddr,
    to_fabric,
)


@PLAIN
def port_accept(unit, accepted, state, doing, due, settings, operation, ring, ports, t, regs,
                pool, lists):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
    x = state[unit]
    index, address = x[X_ISSUED], x[X_HERE]
    size, beats = next_burst(x, settings, operation)
    port = ports[settings[U_CHANNEL]]
    port[P_ACCEPT] = accepted
    port[P_HELD] += 1
    write = 0 if settings[U_KIND] == READ else 1
    if write:
        port[P_DATA] = ddr_write_data(accepted, settings[U_LEAD], port[P_DATA], beats)
        crossing = ports[2 * settings[U_CONTROLLER] + 1]
        _, arrival = controller_port(t, to_ddr(port[P_DATA] + settings[U_REQUEST], t),
                                     crossing[P_CROSSING], size)
        crossing[P_CROSSING] = arrival
    else:
        arrival = to_ddr(accepted + settings[U_REQUEST], t)
        place = index & (ring.shape[1] - 1)
        ring[G_BEATS, place] = beats
        ring[G_LAST, place] = -1
    ddr_insert(t, regs, pool, lists, arrival, unit, index, address, size, write, x[X_TRACE])
    regs[R_FOREGROUND] += 1
    x[X_ACCEPTED] = accepted
    x[X_ISSUED] = index + 1
    reschedule(unit, state, doing, due, settings, ring)


@PLAIN
def _ddr_deliver(unit, state, doing, due, settings, ring, ports, t):
    """Move the data of served reads over the port, in the order of the unit's requests."""
    port, x = ports[settings[U_CHANNEL]], state[unit]
    while x[X_KNOWN] < x[X_ISSUED]:
        place = x[X_KNOWN] & (ring.shape[1] - 1)
        if ring[G_LAST, place] < 0:
            break
        port[P_DATA] = ddr_read_data(t, ring[G_FIRST, place], ring[G_LAST, place],
                                     settings[U_RESPONSE], port[P_DATA], ring[G_BEATS, place])
        ring[G_DONE, place] = port[P_DATA]
        x[X_DONE] = port[P_DATA]
        x[X_KNOWN] += 1
    reschedule(unit, state, doing, due, settings, ring)


@PLAIN
def _ddr_unblock(channel, cycle, state, doing, due, units, operations, rings, ports, t, regs,
                 pool, lists):
    """A burst left the port's queue: accept the request that has waited longest; its unit."""
    best = -1
    for unit in range(len(units)):
        if (doing[unit] == BLOCKED and units[unit, U_CHANNEL] == channel
                and (best < 0 or precedes(state[unit, X_PRESENTED], unit,
                                          state[best, X_PRESENTED], best))):
            best = unit
    if best >= 0:
        accepted = max(cycle, ports[channel, P_ACCEPT]) + 1
        doing[best] = WAITING
        port_accept(best, accepted, state, doing, due, units[best],
                    operations[state[best, X_ROW]], rings[best], ports, t, regs, pool, lists)
    return best


@PLAIN
def controller_act(limit, state, doing, due, units, operations, rings, ports, t, regs, banks, pool,
             lists, sources, trace_hits, trace_misses):
    """Let the controller act in every cycle before `limit`, the first in which a unit is due.

    What it does may make a unit due earlier; returned is the cycle that then comes first.
    """
    background = len(units)
    ready = t[T_CL] + t[T_CCD] + t[T_PIPELINE]
    while True:
        clock = ddr_next(t, regs, pool, lists, sources, background)
        # The controller acts at the end of the cycle in which its clock begins.
        if clock == FAR or (limit < FAR and clock * t[T_CYCLE] >= limit * t[T_CLOCK]):
            return limit
        what, entry, clock, first, last = ddr_step(t, regs, banks, pool, lists, sources,
                                                   background)
        unit = pool[entry, E_UNIT]
        if what == NOTHING or unit >= background:
            continue
        if what == SERVED and len(trace_hits):
            trace_hits[pool[entry, E_PLACE]] += regs[R_NEW_HITS]
            trace_misses[pool[entry, E_PLACE]] += regs[R_NEW_MISSES]
        settings, ring = units[unit], rings[unit]
        write = settings[U_KIND] != READ
        if what == ADMITTED:
            if write:
                x = state[unit]
                port = ports[settings[U_CHANNEL]]
                done = max(to_fabric(clock, t) + settings[U_RESPONSE], port[P_RESPONSE] + 1)
                port[P_RESPONSE] = done
                ring[G_DONE, x[X_KNOWN] & (ring.shape[1] - 1)] = done
                x[X_DONE] = done
                x[X_KNOWN] += 1
                reschedule(unit, state, doing, due, settings, ring)
                limit = min(limit, due[unit])
            channel = settings[U_CHANNEL]
            ports[channel, P_HELD] -= 1
            if ports[channel, P_HELD] == settings[U_ACCEPT] - 1:
                cycle = clock * t[T_CYCLE] // t[T_CLOCK]
                freed = _ddr_unblock(channel, cycle, state, doing, due, units, operations, rings,
                                     ports, t, regs, pool, lists)
                if freed >= 0:
                    limit = min(limit, due[freed])
        elif not write:
            place = pool[entry, E_INDEX] & (ring.shape[1] - 1)
            crossing = ports[2 * settings[U_CONTROLLER]]
            begin, end = controller_port(t, first + ready, crossing[P_CROSSING],
                                         pool[entry, E_BYTES])
            ring[G_FIRST, place] = begin
            ring[G_LAST, place] = max(end, last + ready)
            crossing[P_CROSSING] = ring[G_LAST, place]
            if place == state[unit, X_KNOWN] & (ring.shape[1] - 1):
                _ddr_deliver(unit, state, doing, due, settings, ring, ports, t)
                limit = min(limit, due[unit])

"""The DDR controller in the numba executor: bursts enter its windows and are served, in order.

It decides nothing about DRAM; see `cosim.memory.ddr3`. While the controller acts, what each burst
changes is in values (`Turn`, `Room`), which compiled code keeps in registers: a store into the
record of the state could have changed any other array, as far as LLVM knows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cosim.compiled import PLAIN_RULE, at
from cosim.executors.fast_lines import ask_again, find_front, joined, leave
from cosim.executors.fast_ports import admitted, request, request_ahead, served, who_requests
from cosim.executors.fast_state import COMPUTE, READ, flight_of
from cosim.executors.fast_streams import leap, may_leap
from cosim.memory.bursts import FAR
from cosim.memory.crossing import to_ddr
from cosim.memory.ddr3 import (
    bus_at,
    ddr_choose,
    ddr_direction,
    ddr_refresh,
    ddr_remove,
    ddr_transfer,
)


class Turn(NamedTuple):
    """Fields of STATE (`cosim.memory.controller`) that say whose turn it is, and since when.

    `read`, `written`: last column command of each direction.
    """

    now: Any
    bus: Any
    mode: int
    run: int
    switched: int
    bypassed: int
    read: int
    written: int


class Room(NamedTuple):
    """A window: its bursts and their transactions, when it last got room."""

    bursts: int
    occupied: int
    space: int


class Burst(NamedTuple):
    """A burst that is served: fields of BURST (`cosim.memory.controller`)."""

    unit: int
    number: int
    address: int
    moved: int
    atoms: int
    arrival: int
    admitted: int
    traced: int


@PLAIN_RULE
def _taken_up(s):
    """(turn, window of reads, window of writes) out of the state."""
    return (Turn(s.now, s.bus, s.mode, s.run, s.switched, s.bypassed, s.column[0], s.column[1]),
            Room(s.in_window[0], s.occupied[0], s.space[0]),
            Room(s.in_window[1], s.occupied[1], s.space[1]))


@PLAIN_RULE
def _put_down(s, turn, reads, writes):
    """Write them back."""
    s.now, s.bus, s.mode, s.run = turn.now, turn.bus, turn.mode, turn.run
    s.switched, s.bypassed = turn.switched, turn.bypassed
    s.column[0], s.column[1] = turn.read, turn.written
    s.in_window[0], s.occupied[0], s.space[0] = reads.bursts, reads.occupied, reads.space
    s.in_window[1], s.occupied[1], s.space[1] = writes.bursts, writes.occupied, writes.space


@PLAIN_RULE
def _admitted_at(machine, write, room, front):
    """Clock at which the first of a line enters the window, as far as is known."""
    if room.occupied and front.member >= 0:
        x = at(machine.progress, front.member)
        waiting = flight_of(machine, front.member, x.oldest)
        if room.occupied + waiting.atoms > machine.dram.t[0].entries[write]:
            return FAR
    return max(front.arrival, room.space)  # FAR if there is none


@PLAIN_RULE
def _taken(machine, member, now):
    """The oldest burst of a member, taken out of its line at `now`."""
    x = at(machine.progress, member)
    waiting = flight_of(machine, member, x.oldest)
    burst = Burst(member, x.oldest, waiting.address, waiting.moved, waiting.atoms, waiting.arrival,
                  now, x.traced)
    leave(machine, member)
    return burst


@PLAIN_RULE
def _enter(dram, write, room, burst):
    """A burst enters the window; the window then."""
    s = dram.s[0]
    s.unused -= 1
    entry = at(dram.free, s.unused)
    kept = at(dram.pool, entry)
    kept.unit, kept.number, kept.address = burst.unit, burst.number, burst.address
    kept.moved, kept.atoms, kept.arrival = burst.moved, burst.atoms, burst.arrival
    kept.admitted, kept.traced = burst.admitted, burst.traced
    dram.windows[np.uint64(write), np.uint64(room.bursts)] = entry
    return Room(room.bursts + 1, room.occupied + burst.atoms, room.space)


@PLAIN_RULE
def _chosen(dram, turn, room):
    """Take the burst to serve out of a window: (it, the window then, does it overtake one?)."""
    s, chosen = dram.s[0], 0
    if room.bursts > 1:
        chosen = ddr_choose(dram, turn.mode, room.bursts, _slot(dram, turn), turn.bypassed,
                            turn.switched)
    entry = ddr_remove(dram.windows[np.uint64(turn.mode)], room.bursts, chosen)
    dram.free[np.uint64(s.unused)] = entry
    s.unused += 1
    kept = at(dram.pool, entry)
    burst = Burst(kept.unit, kept.number, kept.address, kept.moved, kept.atoms, kept.arrival,
                  kept.admitted, kept.traced)
    return burst, Room(room.bursts - 1, room.occupied - kept.atoms, turn.now), chosen > 0


@PLAIN_RULE
def _decided(dram, turn, in_reads, in_writes, now):
    """The turn at `now`, perhaps the other direction's: of values, as in `ddr_pick`.

    `in_reads`, `in_writes`: bursts in the windows.
    """
    mode = turn.mode
    waiting, others, last = in_reads, in_writes, turn.written
    if mode:
        waiting, others, last = in_writes, in_reads, turn.read
    write, idle = ddr_direction(dram, mode, turn.run, waiting, others, last, now)
    if write == mode:
        return Turn(now, turn.bus, mode, turn.run, turn.switched, turn.bypassed, turn.read,
                    turn.written)
    bus = max(turn.bus, now + dram.t[0].idle_gap) if idle else turn.bus
    return Turn(now, bus, write, 0, min(now, max(turn.read, turn.written)), 0, turn.read,
                turn.written)


@PLAIN_RULE
def _slot(dram, turn):
    """Clock from which the direction being served may have the bus."""
    return max(turn.now, bus_at(dram.t[0], turn.mode, turn.bus, turn.read, turn.written))


@PLAIN_RULE
def _serve(machine, counts, turn, burst, overtakes):
    """Serve a burst: (turn, is its unit to go on?)."""
    dram, s, write = machine.dram, machine.dram.s[0], turn.mode
    hits, misses = s.hits, s.misses
    first, last, bus = ddr_transfer(dram, burst, write, _slot(dram, turn), turn.switched)
    turn = Turn(turn.now, bus, write, turn.run + burst.atoms, turn.switched,
                turn.bypassed + burst.atoms if overtakes else 0,
                turn.read if write else last, last if write else turn.written)
    if burst.unit >= len(machine.units):
        s.hits, s.misses = hits, misses
        source = at(dram.sources, burst.unit - len(machine.units))
        source.next_at = max(burst.arrival + source.period, last)
        ask_again(machine, burst.unit - len(machine.units))
        return turn, True
    s.inside -= 1
    s.seen = s.refreshes
    if len(counts.trace_hits):
        counts.trace_hits[burst.traced] += s.hits - hits
        counts.trace_misses[burst.traced] += s.misses - misses
    if write:
        return turn, False
    return turn, served(machine, burst.unit, burst.number, burst.moved, first, last)


@PLAIN_RULE
def _go_on(machine, first, other, blocked, accepted, member):
    """Two members (-1: none) ask for more: (fronts of both directions, when one is next due).

    `blocked`: a unit whose burst is accepted in the cycle `accepted`.
    """
    soonest, following = FAR, member
    if blocked < 0:
        blocked, accepted, following = member, -1, -1
    while blocked >= 0:
        if blocked < len(machine.units):
            request_ahead(machine, blocked, accepted)
            soonest = min(soonest, at(machine.progress, blocked).due)
            write = at(machine.units, blocked).kind != READ
        else:
            write = at(machine.dram.sources, blocked - len(machine.units)).write == 1
        if write:
            other = joined(machine, other, blocked)
        else:
            first = joined(machine, first, blocked)
        blocked, accepted, following = following, -1, -1
    return first, other, soonest


@PLAIN_RULE
def _leapt(machine, counts, turn, reads, fronts, bound):
    """(turn, window of reads, its front) after all rounds of streams that fit before `bound`."""
    t = machine.dram.t[0]
    free = max(max(turn.now, reads.space), bus_at(t, 0, turn.bus, turn.read, turn.written))
    if may_leap(machine, fronts[0], fronts[1], free):
        moved, latest, bus = leap(machine, counts, fronts[0], bound)
        if moved:
            return (Turn(latest, bus, 0, turn.run + moved, turn.switched, 0, bus - t.t_ccd,
                         turn.written), Room(0, 0, latest),
                    find_front(machine, machine.readers))
    return turn, reads, fronts[0]


@PLAIN_RULE
def _refreshed(dram, turn, now):
    """The turn after a refresh."""
    s = dram.s[0]
    s.bus = turn.bus
    ddr_refresh(dram, now)
    return Turn(now, s.bus, turn.mode, turn.run, turn.switched, turn.bypassed, turn.read,
                turn.written)


@PLAIN_RULE
def _placed(dram, turn, reads, writes, burst, write, alone):
    """(turn, windows) when a burst has left its line; `alone`: it is served before any other."""
    if alone:
        turn = _decided(dram, turn, 0 if write else 1, 1 if write else 0, burst.admitted)
        if write:
            return turn, reads, Room(0, 0, burst.admitted)
        return turn, Room(0, 0, burst.admitted), writes
    if write:
        return turn, reads, _enter(dram, 1, writes, burst)
    return turn, _enter(dram, 0, reads, burst), writes


@PLAIN_RULE
def _picked(dram, turn, reads, writes, now):
    """(turn, windows, the burst to serve out of one, does it overtake one?)."""
    turn = _decided(dram, turn, reads.bursts, writes.bursts, now)
    if turn.mode:
        burst, writes, overtakes = _chosen(dram, turn, writes)
    else:
        burst, reads, overtakes = _chosen(dram, turn, reads)
    return turn, reads, writes, burst, overtakes


@PLAIN_RULE
def _engines_due(machine):
    """When an engine's operation ends; none begins or ends while the controller acts."""
    soonest = FAR
    for unit in range(len(machine.units)):
        if at(machine.units, unit).kind == COMPUTE:
            soonest = min(soonest, at(machine.progress, unit).due)
    return soonest


@PLAIN_RULE
def controller_act(machine, counts, limit):
    """Let the controller act, and decide what units ask for from the cycle `limit` on, in unit
    order, up to a cycle in which an operation ends: that cycle.

    `limit`: the first cycle in which a unit is due; what the controller does may make one due
    earlier. It acts at the end of the cycle in which its clock begins.
    """
    dram, s, units = machine.dram, machine.dram.s[0], len(machine.units)
    bound = FAR if limit == FAR else to_ddr(limit, dram.t)
    turn, reads, writes = _taken_up(s)
    first, other = find_front(machine, machine.readers), find_front(machine, machine.writers)
    still = _engines_due(machine)
    while True:
        waiting = reads.bursts + writes.bursts
        if waiting == 0 and turn.mode == 0 and s.inside > 0:
            turn, reads, first = _leapt(machine, counts, turn, reads, (first, other), bound)
        read_at = _admitted_at(machine, 0, reads, first)
        admit = min(read_at, _admitted_at(machine, 1, writes, other))
        free = max(turn.now, turn.bus)
        now = free if waiting and free < admit else admit
        blocked, accepted, member = -1, -1, -1
        serves, overtakes = False, False
        if now >= bound or s.inside == 0:
            blocked, soonest = who_requests(machine, limit, still)
            if blocked < 0:
                break
            accepted = request(machine, blocked, limit)
            limit = soonest
            bound = FAR if limit == FAR else to_ddr(limit, dram.t)
        elif now == admit:
            turn = Turn(max(turn.now, now), turn.bus, turn.mode, turn.run, turn.switched,
                        turn.bypassed, turn.read, turn.written)
            write = now != read_at
            burst = _taken(machine, other.member if write else first.member, now)
            if write:
                other = find_front(machine, machine.writers)
            else:
                first = find_front(machine, machine.readers)
            if burst.unit < units:
                blocked, accepted = admitted(machine, burst.unit, now)
                member = burst.unit if write else -1
            serves = (waiting == 0 and free <= now and now < s.refresh
                      and now < first.arrival and now < other.arrival)
            turn, reads, writes = _placed(dram, turn, reads, writes, burst, write, serves)
        elif s.refresh <= now:
            turn = _refreshed(dram, turn, now)
        else:
            serves = True
            turn, reads, writes, burst, overtakes = _picked(dram, turn, reads, writes, now)
        if serves:
            turn, goes_on = _serve(machine, counts, turn, burst, overtakes)
            if goes_on:
                member = burst.unit
        if member >= 0 or blocked >= 0:
            first, other, soonest = _go_on(machine, first, other, blocked, accepted, member)
            if soonest < limit:
                limit = soonest
                bound = to_ddr(limit, dram.t)
    _put_down(s, turn, reads, writes)
    return limit

"""The DDR controller in the numba executor: bursts enter its windows and are served, in order.

It decides nothing about DRAM; see `cosim.memory.ddr3`. While the controller acts, what each burst
changes is in values (`Turn`, `Room`), which compiled code keeps in registers: a store into the
record of the state could have changed any other array, as far as LLVM knows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from cosim.compiled import PLAIN_RULE
from cosim.executors.fast_lines import ask_again, leave
from cosim.executors.fast_ports import admitted, served
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
def _admitted_at(machine, write, room):
    """Clock at which the first of a line enters the window, as far as is known."""
    front = machine.lines.front[write]
    if room.occupied and room.occupied + front.atoms > machine.dram.t[0].entries[write]:
        return FAR
    return max(front.arrival, room.space)  # FAR if there is none


@PLAIN_RULE
def _enter(machine, write, room, now):
    """The first of a line enters the window: (the window then, whose it is)."""
    dram, s, front = machine.dram, machine.dram.s[0], machine.lines.front[write]
    member, waiting = front.member, machine.flight[front.place]
    s.unused -= 1
    entry = dram.free[s.unused]
    burst = dram.pool[entry]
    burst.arrival = waiting.arrival
    burst.unit = member
    burst.address = waiting.address
    burst.moved = waiting.moved
    burst.atoms = waiting.atoms
    burst.write = write
    burst.admitted = now
    if member < len(machine.units):
        burst.number = machine.lines.oldest[member]
        burst.traced = machine.progress[member].traced
    dram.windows[write, room.bursts] = entry
    leave(machine, member, write)
    return Room(room.bursts + 1, room.occupied + burst.atoms, room.space), member


@PLAIN_RULE
def _decided(dram, turn, reads, writes, now):
    """The turn at `now`, perhaps the other direction's: of values, as in `ddr_pick`."""
    mode = turn.mode
    waiting, others, last = reads.bursts, writes.bursts, turn.written
    if mode:
        waiting, others, last = writes.bursts, reads.bursts, turn.read
    write, idle = ddr_direction(dram, mode, turn.run, waiting, others, last, now)
    if write == mode:
        return Turn(now, turn.bus, mode, turn.run, turn.switched, turn.bypassed, turn.read,
                    turn.written)
    bus = max(turn.bus, now + dram.t[0].idle_gap) if idle else turn.bus
    return Turn(now, bus, write, 0, min(now, max(turn.read, turn.written)), 0, turn.read,
                turn.written)


@PLAIN_RULE
def _serve(machine, counts, turn, room):
    """Serve a burst of the window whose turn it is: (turn, window, when its unit is next due)."""
    dram, s, write, now = machine.dram, machine.dram.s[0], turn.mode, turn.now
    slot = max(now, bus_at(dram.t[0], write, turn.bus, turn.read, turn.written))
    chosen = 0
    if room.bursts > 1:
        chosen = ddr_choose(dram, write, room.bursts, slot, turn.bypassed, turn.switched)
    entry = ddr_remove(dram.windows[write], room.bursts, chosen)
    dram.free[s.unused] = entry
    s.unused += 1
    burst, hits, misses, atoms = dram.pool[entry], s.hits, s.misses, dram.pool[entry].atoms
    first, last, bus = ddr_transfer(dram, burst, slot, turn.switched)
    turn = Turn(now, bus, write, turn.run + atoms, turn.switched,
                turn.bypassed + atoms if chosen > 0 else 0,
                turn.read if write else last, last if write else turn.written)
    room = Room(room.bursts - 1, room.occupied - atoms, now)
    soonest = FAR
    if burst.unit >= len(machine.units):
        s.hits, s.misses = hits, misses
        source = dram.sources[burst.unit - len(machine.units)]
        source.next_at = max(burst.arrival + source.period, last)
        ask_again(machine, burst.unit - len(machine.units))
    else:
        s.inside -= 1
        s.seen = s.refreshes
        if len(counts.trace_hits):
            counts.trace_hits[burst.traced] += s.hits - hits
            counts.trace_misses[burst.traced] += s.misses - misses
        if not write:
            soonest = served(machine, entry, first, last)
    return turn, room, soonest


@PLAIN_RULE
def controller_act(machine, counts, limit):
    """Let the controller act in every cycle before `limit`, the first in which a unit is due.

    What it does may make a unit due earlier; returned is the cycle that then comes first. The
    controller acts at the end of the cycle in which its clock begins.
    """
    dram, s = machine.dram, machine.dram.s[0]
    bound = FAR if limit == FAR else to_ddr(limit, dram.t)
    turn, reads, writes = _taken_up(s)
    while s.inside > 0:
        if reads.bursts + writes.bursts == 0 and turn.mode == 0 and may_leap(
                machine, max(max(turn.now, reads.space),
                             bus_at(dram.t[0], 0, turn.bus, turn.read, turn.written))):
            moved, latest, bus = leap(machine, counts, bound)
            if moved:
                turn = Turn(latest, bus, 0, turn.run + moved, turn.switched, 0,
                            bus - dram.t[0].t_ccd, turn.written)
                reads = Room(0, 0, latest)
        read_at, write_at = _admitted_at(machine, 0, reads), _admitted_at(machine, 1, writes)
        now = max(turn.now, turn.bus) if reads.bursts + writes.bursts else FAR
        soonest = FAR
        if min(read_at, write_at) <= now:
            now = min(read_at, write_at)
            if now >= bound:
                break
            turn = Turn(max(turn.now, now), turn.bus, turn.mode, turn.run, turn.switched,
                        turn.bypassed, turn.read, turn.written)
            if now == read_at:
                reads, member = _enter(machine, 0, reads, now)
            else:
                writes, member = _enter(machine, 1, writes, now)
            if member < len(machine.units):
                soonest = admitted(machine, member, now)
        else:
            if now >= bound:
                break
            if s.refresh <= now:
                s.bus = turn.bus
                ddr_refresh(dram, now)
                turn = Turn(now, s.bus, turn.mode, turn.run, turn.switched, turn.bypassed,
                            turn.read, turn.written)
                continue
            turn = _decided(dram, turn, reads, writes, now)
            if turn.mode:
                turn, writes, soonest = _serve(machine, counts, turn, writes)
            else:
                turn, reads, soonest = _serve(machine, counts, turn, reads)
        if soonest < limit:
            limit = soonest
            bound = to_ddr(limit, dram.t)
    _put_down(s, turn, reads, writes)
    return limit

"""Streams of reads in the numba executor: many bursts of the DDR3 memory in one step.

It holds no DRAM rule. A reader is a stream while its port is what delays it: its bursts are full,
as many are in flight as it may have, and each is accepted when the port has moved the beats of an
older one. So they arrive at a *pace* of so many clocks, whatever the DRAM does, as long as data
come in time. If nobody asks but streams of one pace, and the first of them finds the controller
free, then so does its next, and every *round* of one burst each is like the one before. `leap`
does all rounds that fit before something else is due: a refresh, another unit, the end of a row or
of a run.
"""

from __future__ import annotations

from cosim.compiled import PLAIN_RULE, at
from cosim.executors.fast_state import WAITING, flight_of
from cosim.memory.bursts import BOUNDARY_BYTES, FAR
from cosim.memory.crossing import ddr_read_data, passage
from cosim.memory.ddr3 import bank_of, ddr_atoms, row_of


@PLAIN_RULE
def _is_stream(machine, unit, pace):
    """Do like bursts of a unit come at this pace, those in flight and the next?"""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    full, in_flight = 1 << settings.shift, settings.outstanding
    if (settings.pace != pace or x.doing != WAITING or x.new_run
            or x.left <= full or x.issued - x.known != in_flight
            or x.accepted != at(machine.channels, settings.channel).data_free):
        return False
    arrival, atoms = x.arrival, ddr_atoms(machine.dram.t[0], x.here, full)
    for index in range(in_flight):
        burst = flight_of(machine, unit, x.known + index)
        if burst.arrival != arrival or burst.moved != full or burst.atoms != atoms:
            return False
        arrival += pace
    return True


@PLAIN_RULE
def _bursts_ahead(machine, unit):
    """How many bursts of a stream hit the row of its oldest, and are followed by full ones."""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    t = machine.dram.t[0]
    count = (x.left - 1) >> settings.shift
    last = (1 << settings.shift) - 1
    if x.here & last:  # the last one before a boundary is cut
        edge = BOUNDARY_BYTES - (x.here & (BOUNDARY_BYTES - 1))
        count = min(count, edge >> settings.shift)
    row = flight_of(machine, unit, x.known).address >> t.row_shift
    for index in range(min(count, settings.outstanding)):
        address = flight_of(machine, unit, x.known + index).address
        if address >> t.row_shift != row or (address + last) >> t.row_shift != row:
            return index
    if x.here >> t.row_shift != row:
        return min(count, settings.outstanding)
    return min(count, settings.outstanding
               + ((((row + 1) << t.row_shift) - x.here) >> settings.shift))


@PLAIN_RULE
def _in_time(machine, unit, arrival, column):
    """Does a column command hit an open row, and do its data not delay the port?"""
    x, settings, dram = at(machine.progress, unit), at(machine.units, unit), machine.dram
    burst = flight_of(machine, unit, x.known)
    bank = bank_of(dram, burst.address)
    if bank.row != row_of(dram.t[0], burst.address) or bank.column_ready > arrival:
        return False
    length = burst.atoms * dram.t[0].t_ccd
    crossing = at(machine.channels, 2 * settings.controller).crossing
    begin, end = passage(dram.t, column, column + length - dram.t[0].t_ccd, crossing, burst.moved)
    free = at(machine.channels, settings.channel).data_free
    return (crossing <= begin and end <= begin + length
            and ddr_read_data(dram.t, begin, end, settings.response, free, burst.beats)
            == free + burst.beats)


@PLAIN_RULE
def _next_arrival(machine, first, unit):
    """(who comes next in the round, when); -1: the first of the line, of the next round.

    `first`: when the round begins.

    If two come at once or one after the round's end, that is now: rounds are not alike.
    """
    clock = at(machine.progress, unit).arrival
    end = first + at(machine.units, unit).pace
    found, soonest = -1, end
    for place in range(len(machine.readers)):
        member = machine.readers[place]
        arrival = at(machine.progress, member).arrival
        if member == unit or arrival == FAR:
            continue
        if arrival == clock or arrival >= end:
            return -1, clock
        if clock < arrival < soonest:
            found, soonest = member, arrival
    return found, soonest


@PLAIN_RULE
def _whole_rounds(machine, front, bound):
    """Periods that fit before the DDR clock `bound`; `column` of every stream is set."""
    s, t = machine.dram.s[0], machine.dram.t[0]
    unit, arrival, free, rounds = front.member, front.arrival, front.arrival, FAR
    pace = at(machine.units, unit).pace
    while unit >= 0:
        column = max(arrival, free)
        following, soonest = _next_arrival(machine, front.arrival, unit)
        if (column >= soonest or not _is_stream(machine, unit, pace)
                or not _in_time(machine, unit, arrival, column)):
            return 0
        x = at(machine.progress, unit)
        x.column = column
        burst = flight_of(machine, unit, x.known)
        free = column + burst.atoms * t.t_ccd
        rounds = min(rounds, _bursts_ahead(machine, unit))
        room = min(bound, s.refresh) - 1 - column
        unit, arrival = following, soonest
    if free > front.arrival + pace or room < 0:
        return 0
    return min(rounds, room // pace + 1)


@PLAIN_RULE
def _move(machine, unit, rounds):
    """Let so many bursts of a stream be served, and as many others be accepted; their atoms."""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    dram = machine.dram
    cycles, clocks = rounds * settings.max_beats, rounds * settings.pace
    oldest = flight_of(machine, unit, x.known)
    newest = flight_of(machine, unit, x.issued - 1)
    bank, atoms, arrival = bank_of(dram, oldest.address), oldest.atoms, newest.arrival
    last = x.column + clocks - settings.pace + (atoms - 1) * dram.t[0].t_ccd
    bank.precharge_ready = max(bank.precharge_ready, last + dram.t[0].t_rd2pre)
    crossing = at(machine.channels, 2 * settings.controller)
    _, crossing.crossing = passage(dram.t, x.column + clocks - settings.pace, last,
                                   crossing.crossing, oldest.moved)
    for index in range(max(0, rounds - settings.outstanding), rounds):
        burst = flight_of(machine, unit, x.issued + index)
        burst.arrival = arrival + (index + 1) * settings.pace
        burst.address = x.here + (index << settings.shift)
        burst.moved = 1 << settings.shift
        burst.beats = settings.max_beats
        burst.atoms = atoms
        burst.last = -1
    x.here += rounds << settings.shift
    x.left -= rounds << settings.shift
    x.issued += rounds
    x.known += rounds
    x.leaped += rounds
    x.beats += cycles
    x.accepted += cycles
    x.done += cycles
    channel = at(machine.channels, settings.channel)
    channel.accepted += cycles
    channel.data_free += cycles
    x.oldest += rounds
    x.arrival += clocks
    return atoms


@PLAIN_RULE
def may_leap(machine, first, other, free):
    """May only streams ask, the first of them from clock `free` on, when the windows are empty?

    `first`, `other`: the fronts of reads and of writes.
    """
    return (first.arrival >= free and first.member >= 0 and other.member < 0
            and len(machine.dram.sources) == 0 and at(machine.units, first.member).pace > 0)


@PLAIN_RULE
def leap(machine, counts, front, bound):
    """Do all rounds of streams that fit before the DDR clock `bound` at once.

    (transactions moved, last decision, end of its data on the bus); nothing moves if none fits.
    """
    dram, s = machine.dram, machine.dram.s[0]
    rounds = _whole_rounds(machine, front, bound)
    if rounds == 0:
        return 0, 0, 0
    moved, latest, bus = 0, 0, 0
    for place in range(len(machine.readers)):
        unit = machine.readers[place]
        x, settings = at(machine.progress, unit), at(machine.units, unit)
        if x.arrival == FAR:
            continue
        atoms = _move(machine, unit, rounds)
        column = x.column + (rounds - 1) * settings.pace
        if column >= latest:
            latest, bus = column, column + atoms * dram.t[0].t_ccd
        moved += rounds * atoms
        s.hits += rounds
        if len(counts.trace_hits):
            counts.trace_hits[x.traced] += rounds
    s.seen = s.refreshes
    return moved, latest, bus

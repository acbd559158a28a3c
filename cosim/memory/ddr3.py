"""The DDR controller as integer functions: queues, direction, ACTIVATE, PRECHARGE, refresh.

It does not know units, ports or tokens; both executors bring it bursts and carry out what it
decides. `cosim.memory.controller` holds the records and says what each field means.

All times here are DDR clocks. A burst arrives, waits in the line of its direction (oldest first,
then unit number: `cosim.memory.arbiter`), is admitted to the window when its transactions fit into
the queue, and is served whole: its column commands follow one another every t_ccd.

- Events of the controller happen in clock order; at one clock admissions (reads first) precede a
  service. A service is decided when the bus can take the next column command.
- A refresh is due every t_refi and goes before the next service: all rows are closed.
- Direction: the one being served goes on until its window is empty (`idle_gap` then), or until
  the other has waited its starve limit and this one has moved its run of transactions.
- Choice in a window: the burst that can have the earliest column command, the oldest at a tie;
  the oldest anyway if `bypass_transactions` have overtaken it.
- A row may be opened ahead, while others use the bus: PRECHARGE and ACTIVATE are placed at the
  first clock that every gate allows since the burst was admitted (and since the last command of
  the other direction). Gates: t_rp, t_rcd, t_ras, t_rc, t_rrd, t_faw, rd2pre, wr2pre, rd2wr,
  wr2rd, t_ccd. Slots of the command bus are not modelled; `miss_gap_clocks` stands for them.
- DDR4's bank groups: each DRAM burst of a burst goes to its own group, with its own row; t_ccd,
  t_rrd and wr2rd are longer inside a group (JESD79-4).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cosim.compiled import CACHED_RULE, at
from cosim.memory.bursts import FAR, precedes, source_address
from cosim.memory.controller import Controller

NOTHING, ADMITTED, SERVED = range(3)  # what `ddr_step` did


@CACHED_RULE
def ddr_atoms(t: Any, address: int, size: int) -> int:
    """DRAM bursts that cover some bytes."""
    edge = t.atom - 1
    return ((address & edge) + size + edge) >> t.atom_shift


@CACHED_RULE
def ddr_insert(dram: Controller, arrival: int, unit: int, number: int, address: int, size: int,
               write: int, traced: int = -1) -> None:
    """Put a burst that arrives at DDR clock `arrival` into its line; oldest first, then unit."""
    s = dram.s[0]
    s.unused -= 1
    entry = at(dram.free, s.unused)
    burst = at(dram.pool, entry)
    burst.arrival = arrival
    burst.unit = unit
    burst.number = number
    burst.address = address
    burst.moved = size
    burst.atoms = ddr_atoms(dram.t[0], address, size)
    burst.write = write
    burst.traced = traced  # of its operation in a trace; not used here
    line = dram.lines[write]
    rank = s.in_line[write]
    s.in_line[write] += 1
    while rank > 0 and precedes(arrival, unit, at(dram.pool, line[rank - 1]).arrival,
                                at(dram.pool, line[rank - 1]).unit):
        line[rank] = line[rank - 1]
        rank -= 1
    line[rank] = entry


@CACHED_RULE
def ddr_remove(row, count, first):
    """Take an entry out of a list; the later ones move up."""
    entry = at(row, first)
    for index in range(first, count - 1):
        row[index] = row[index + 1]
    return entry


@CACHED_RULE
def _next_event(dram):
    """Set `when` and `admit` (the direction to admit, -1: serve) of the next event."""
    t, s = dram.t[0], dram.s[0]
    when, admit = FAR, -1
    for write in range(2):
        if s.in_line[write] == 0:
            continue
        head = at(dram.pool, dram.lines[write, 0])
        occupied = s.occupied[write]
        if occupied and occupied + head.atoms > t.entries[write]:
            continue
        clock = max(head.arrival, s.space[write])
        if clock < when:
            when, admit = clock, write
    if s.in_window[0] + s.in_window[1] > 0:
        clock = max(s.now, s.bus)
        if clock < when:
            when, admit = clock, -1
    s.when = when
    s.admit = admit


@CACHED_RULE
def ddr_next(dram: Controller, background: int) -> np.int64:
    """DDR clock of the controller's next event; FAR while it holds nothing of the units.

    `background`: unit number of the first source of background traffic. A source has one burst
    outstanding and asks for the next a period later, or when it was served if that is later.
    """
    if dram.s[0].inside == 0:
        return FAR
    _next_event(dram)
    index = 0
    while index < len(dram.sources):
        source = at(dram.sources, index)
        index += 1
        if source.out == 0 and source.next_at <= dram.s[0].when:
            address = source_address(dram.t[0], source)
            ddr_insert(dram, source.next_at, background + index - 1, 0, address, source.moved,
                       source.write)
            source.out = 1
            _next_event(dram)
            # An older burst that does not fit can make the next event later: ask all again.
            index = 0
    return dram.s[0].when


@CACHED_RULE
def _activate_at(dram, bank, admitted, switched):
    """Earliest ACTIVATE of a bank for a burst that is known since `admitted`.

    Rows are opened for the direction being served only, from the last command of the other on.
    """
    t, s = dram.t[0], dram.s[0]
    clock = max(admitted, switched)
    if bank.row >= 0:
        clock = max(clock, bank.precharge_ready) + t.t_rp
    clock = max(clock, bank.activate_ready)
    return max(clock, max(s.activates[3] + t.t_rrd, s.activates[0] + t.t_faw))


@CACHED_RULE
def group_of(t, address):
    """The bank group of an address; 0 if there are none."""
    return (address >> t.group_shift) & t.group_mask


@CACHED_RULE
def bank_of(dram, address):
    """The bank of an address."""
    t = dram.t[0]
    bank = (address >> t.row_shift) & (t.banks - 1)
    return at(dram.banks, (bank << t.group_bits) + group_of(t, address))


@CACHED_RULE
def row_of(t, address):
    """The row of an address, in its bank."""
    return address >> (t.row_shift + t.bank_shift)


@CACHED_RULE
def _column_at(dram, burst, switched):
    """Earliest column command of a burst, as far as its bank goes."""
    bank = bank_of(dram, burst.address)
    if bank.row == row_of(dram.t[0], burst.address):
        return bank.column_ready
    return _activate_at(dram, bank, burst.admitted, switched) + dram.t[0].t_rcd


@CACHED_RULE
def _open_row(dram, bank, address, admitted, switched):
    """Open the row of an address, as soon as it may be."""
    t, s = dram.t[0], dram.s[0]
    activate = _activate_at(dram, bank, admitted, switched)
    if t.group_mask:
        group = group_of(t, address)
        activate = max(activate, s.group_activate[group] + t.t_rrd_l)
        s.group_activate[group] = activate
    for index in range(3):
        s.activates[index] = s.activates[index + 1]
    s.activates[3] = activate
    bank.row = row_of(t, address)
    bank.column_ready = activate + t.t_rcd
    bank.precharge_ready = activate + t.t_ras
    bank.activate_ready = activate + t.t_rc


@CACHED_RULE
def _group_at(dram, address, write):
    """Earliest column command of an address, as far as its bank group goes."""
    t, s = dram.t[0], dram.s[0]
    group = group_of(t, address)
    if write:
        return s.group_column[group] + t.t_ccd_l
    return max(s.group_column[group] + t.t_ccd_l, s.group_write[group] + t.wr2rd_l)


@CACHED_RULE
def bus_at(t, write, bus, read, written):
    """Earliest column command of a direction, as far as the data bus goes.

    `bus`: its first free clock; `read`, `written`: the last column command of each direction.
    """
    if write:
        return max(bus, read + t.t_rd2wr)
    return max(bus, written + t.t_wr2rd)


@CACHED_RULE
def ddr_refresh(dram, now):
    """Close all rows and refresh; the bus is free when it is over.

    Of the refreshes that are due at `now`, all but the last had the memory to themselves.
    """
    t, s, banks = dram.t[0], dram.s[0], dram.banks
    start = max(s.refresh, s.bus)
    opened = False
    for index in range(len(banks)):
        if banks[index].row >= 0:
            opened = True
            start = max(start, banks[index].precharge_ready)
    ready = start + t.t_rfc + (t.t_rp if opened else 0)
    for index in range(len(banks)):
        banks[index].row = -1
        banks[index].activate_ready = ready
    s.bus = max(s.bus, ready)
    s.refresh += t.t_refi
    s.refreshes += 1
    if s.refresh >= ready and now - s.refresh >= t.t_refi:
        count = (now - s.refresh) // t.t_refi
        s.refresh += count * t.t_refi
        s.refreshes += count


@CACHED_RULE
def ddr_choose(dram, write, count, slot, bypassed, switched):
    """Place in the window of the burst to serve: the first that is ready soonest.

    `count`: bursts in the window; `slot`: clock from which its direction may have the bus.
    """
    window = dram.windows[np.uint64(write)]
    best, soonest = 0, FAR
    for index in range(count):
        burst = at(dram.pool, window[index])
        column = max(slot, _column_at(dram, burst, switched))
        if dram.t[0].group_mask:
            column = max(column, _group_at(dram, burst.address, write))
        if column < soonest:
            best, soonest = index, column
        if soonest == slot or bypassed >= dram.t[0].bypass:
            break
    return best


@CACHED_RULE
def ddr_transfer(dram, burst, write, slot, switched):
    """Issue every command of one burst; (first, last) column command, first free clock after it.

    `burst`: has address, moved, atoms and admitted; `slot`: clock from which its direction may
    have the bus.
    """
    t, s = dram.t[0], dram.s[0]
    address, left = burst.address, burst.moved
    first, last, bus, grouped = FAR, slot, slot, t.group_mask > 0
    while left > 0:
        size = min(left, t.row_bytes - (address & (t.row_bytes - 1)))
        if grouped:  # the next DRAM burst is another group's
            size = min(size, t.atom - (address & (t.atom - 1)))
        bank = bank_of(dram, address)
        gap = 0
        if bank.row == row_of(t, address):
            s.hits += 1
        else:
            s.misses += 1
            gap = t.miss_gap
            _open_row(dram, bank, address, burst.admitted, switched)
        column = max(bus, bank.column_ready)
        if grouped:
            column = max(column, _group_at(dram, address, write))
            s.group_column[group_of(t, address)] = column
            if write:
                s.group_write[group_of(t, address)] = column
        first = min(first, column)
        last = column + (ddr_atoms(t, address, size) - 1) * t.t_ccd
        bus = last + t.t_ccd + gap
        bank.precharge_ready = max(bank.precharge_ready,
                                   last + (t.t_wr2pre if write else t.t_rd2pre))
        address += size
        left -= size
    if write:
        s.debt += burst.atoms * t.write_gap
        bus += s.debt >> 3
        s.debt &= 7
    return first, last, bus


@CACHED_RULE
def ddr_direction(dram, mode, run, waiting, others, last, now):
    """Which direction is served now (0 read, 1 write), and may a switch have been idle?

    `waiting`, `others`: bursts in the window of the direction being served, and in the other one;
    `last`: last column command of the other one, which waits from then on, or from its oldest
    burst's admission.
    """
    t, other = dram.t[0], 1 - mode
    if others == 0:
        return mode, False
    if waiting == 0:
        return other, True
    since = max(last, at(dram.pool, dram.windows[np.uint64(other), 0]).admitted)
    starved = now - since >= at(t.starve, other)
    if starved and run >= at(t.most_run, mode):
        return other, False
    return mode, False


@CACHED_RULE
def _admit(dram, write, now):
    """Move the oldest burst of a line into its window; its number in the pool."""
    s = dram.s[0]
    entry = ddr_remove(dram.lines[write], s.in_line[write], 0)
    s.in_line[write] -= 1
    at(dram.pool, entry).admitted = now
    dram.windows[write, s.in_window[write]] = entry
    s.in_window[write] += 1
    s.occupied[write] += at(dram.pool, entry).atoms
    return entry


@CACHED_RULE
def ddr_serve(dram, burst, overtakes, background, now):
    """Serve a burst whose direction's turn it is; (first, last column command).

    `overtakes`: an older one stays in the window.
    """
    s, write = dram.s[0], burst.write
    hits, misses = s.hits, s.misses
    slot = max(now, bus_at(dram.t[0], write, s.bus, s.column[0], s.column[1]))
    first, last, s.bus = ddr_transfer(dram, burst, write, slot, s.switched)
    s.column[write] = last
    s.new_hits = s.hits - hits
    s.new_misses = s.misses - misses
    s.bypassed = s.bypassed + burst.atoms if overtakes else 0
    s.run += burst.atoms
    s.space[write] = now
    if burst.unit >= background:
        s.hits, s.misses = hits, misses
        source = at(dram.sources, burst.unit - background)
        source.out = 0
        source.next_at = max(burst.arrival + source.period, last)
    else:
        s.inside -= 1
        s.seen = s.refreshes
    return first, last


@CACHED_RULE
def ddr_pick(dram, now):
    """Take the burst to serve now out of its window; (its number, does it overtake one?)."""
    s = dram.s[0]
    other = 1 - s.mode
    write, idle = ddr_direction(dram, s.mode, s.run, s.in_window[s.mode], s.in_window[other],
                                s.column[other], now)
    if write != s.mode:
        s.mode = write
        s.switched = min(now, max(s.column[0], s.column[1]))
        s.run = s.bypassed = 0
        if idle:
            s.bus = max(s.bus, now + dram.t[0].idle_gap)
    slot = max(now, bus_at(dram.t[0], write, s.bus, s.column[0], s.column[1]))
    chosen = ddr_choose(dram, write, s.in_window[write], slot, s.bypassed, s.switched)
    entry = ddr_remove(dram.windows[write], s.in_window[write], chosen)
    s.in_window[write] -= 1
    s.occupied[write] -= at(dram.pool, entry).atoms
    dram.free[np.uint64(s.unused)] = entry
    s.unused += 1
    return entry, chosen > 0


@CACHED_RULE
def ddr_step(dram: Controller, background: int) -> tuple[int, int, int, int, int]:
    """Do the event `ddr_next` named; (what, pool entry, DDR clock, first, last column command).

    ADMITTED: a burst enters the scheduler's window. SERVED: all its commands are placed;
    `new_hits` and `new_misses` count its rows.
    """
    s = dram.s[0]
    now, admit = s.when, s.admit
    s.now = max(s.now, now)
    if admit >= 0:
        return ADMITTED, _admit(dram, admit, now), now, now, now
    if s.refresh <= now:
        ddr_refresh(dram, now)
        return NOTHING, 0, now, now, now
    entry, overtakes = ddr_pick(dram, now)
    first, last = ddr_serve(dram, at(dram.pool, entry), overtakes, background, now)
    return SERVED, entry, now, first, last

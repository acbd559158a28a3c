"""The DDR3 controller as integer functions on a few arrays: queues, direction, banks, refresh.

It does not know units, ports or tokens; both executors bring it bursts and carry out what it
decides. `arch_models.memory.Ddr3Timing` says what each number means.

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
"""

from __future__ import annotations

import math

import numpy as np

from arch_models.memory import Ddr3Timing, Memory
from cosim.memory.bursts import CACHED, FAR, PLAIN, precedes

# The state of the controller is a few int64 arrays, so that both executors hold the same thing:
# `regs` (scalars), `banks` (banks x B_COLUMNS), `pool` (bursts x E_COLUMNS), `lists` (rows of
# pool indices: the lines and windows of both directions, and the free entries), `sources`
# (background traffic). `t` are the timing parameters, see `ddr_parameters` for their order.

(T_RCD, T_RP, T_RAS, T_RC, T_RRD, T_FAW, T_CCD, T_CL, T_RD2WR, T_WR2RD, T_RD2PRE, T_WR2PRE,
 T_REFI, T_RFC, T_STARVE_READ, T_STARVE_WRITE, T_RUN_READ, T_RUN_WRITE, T_IDLE_GAP,
 T_ENTRIES_READ, T_ENTRIES_WRITE, T_BYPASS, T_WRITE_GAP, T_ATOM, T_ROW_BYTES, T_BANKS,
 T_CLOCK, T_CYCLE, T_PIPELINE, T_WORD, T_WORD_PER, T_MISS_GAP, T_ATOM_SHIFT,
 T_ROW_SHIFT, T_BANK_SHIFT, T_COUNT) = range(36)

(R_NOW, R_BUS, R_READ, R_WRITE, R_MODE, R_RUN, R_SINCE, R_SINCE_WRITE, R_SPACE, R_SPACE_WRITE,
 R_OCCUPIED, R_OCCUPIED_WRITE, R_BYPASSED, R_DEBT, R_REFRESH, R_ACT0, R_ACT1, R_ACT2, R_ACT3,
 R_FOREGROUND, R_HITS, R_MISSES, R_REFRESHES, R_SEEN, R_LINE, R_LINE_WRITE, R_WINDOW,
 R_WINDOW_WRITE, R_FREE, R_SWITCHED, R_WHEN, R_ADMIT, R_NEW_HITS, R_NEW_MISSES,
 R_COUNT) = range(35)
B_ROW, B_COLUMN_READY, B_PRECHARGE_READY, B_ACTIVATE_READY, B_COLUMNS = range(5)
(E_ARRIVAL, E_UNIT, E_INDEX, E_ADDRESS, E_BYTES, E_ATOMS, E_WRITE, E_ADMITTED, E_PLACE,
 E_COLUMNS) = range(10)
S_PERIOD, S_BYTES, S_WRITE, S_REGION, S_NEXT, S_STATE, S_OUT, S_COLUMNS = range(8)
LINE, WINDOW, FREE = 0, 2, 4  # rows of `lists`: + 1 is the write's
NOTHING, ADMITTED, SERVED = range(3)  # what `ddr_step` did


@CACHED
def to_ddr(cycle: int, t: np.ndarray) -> int:
    """First DDR clock at or after the start of a fabric cycle."""
    return (cycle * t[T_CLOCK] + t[T_CYCLE] - 1) // t[T_CYCLE]


@CACHED
def to_fabric(clock: int, t: np.ndarray) -> int:
    """First fabric cycle that starts at or after a DDR clock."""
    return (clock * t[T_CYCLE] + t[T_CLOCK] - 1) // t[T_CLOCK]


@CACHED
def decided_in(clock: int, t: np.ndarray) -> int:
    """The fabric cycle during which a DDR clock begins: the controller acts at its end."""
    return clock * t[T_CYCLE] // t[T_CLOCK]


def ddr_parameters(ddr: Ddr3Timing) -> np.ndarray:
    """The timing parameters in the order of the T_ names."""
    common = math.gcd(ddr.clock_hz, ddr.fabric_hz)
    return np.array([
        ddr.t_rcd, ddr.t_rp, ddr.t_ras, ddr.t_rc, ddr.t_rrd, ddr.t_faw, ddr.t_ccd,
        ddr.read_latency, ddr.rd2wr, ddr.wr2rd, ddr.rd2pre, ddr.wr2pre, ddr.t_refi, ddr.t_rfc,
        ddr.read_starve, ddr.write_starve, ddr.read_run, ddr.write_run, ddr.idle_gap,
        ddr.read_entries, ddr.write_entries, ddr.bypass_transactions, ddr.write_gap_eighths,
        ddr.transaction_bytes, ddr.row_bytes, ddr.banks, ddr.clock_hz // common,
        ddr.fabric_hz // common, ddr.pipeline_clocks, ddr.word_clocks_numerator,
        ddr.word_clocks_denominator, ddr.miss_gap_clocks, ddr.transaction_bytes.bit_length() - 1,
        ddr.row_bytes.bit_length() - 1, ddr.banks.bit_length() - 1], np.int64)


def ddr_state(memory: Memory, t: np.ndarray, in_flight: int) -> tuple[np.ndarray, ...]:
    """(regs, banks, pool, lists, sources) at cycle 0; `in_flight`: sum of the units' limits."""
    regs = np.zeros(R_COUNT, np.int64)
    if len(t) == 0:
        return regs, *(np.zeros((0, 0), np.int64) for _ in range(4))
    regs[[R_READ, R_WRITE, R_ACT0, R_ACT1, R_ACT2, R_ACT3]] = -(10**6)
    regs[R_REFRESH] = t[T_REFI]
    banks = np.zeros((t[T_BANKS], B_COLUMNS), np.int64)
    banks[:, B_ROW] = -1
    # Posted writes leave their unit's count when they enter the window, which they then fill.
    capacity = in_flight + int(t[T_ENTRIES_READ] + t[T_ENTRIES_WRITE]) + len(memory.background)
    lists = np.zeros((FREE + 1, capacity), np.int64)
    lists[FREE] = np.arange(capacity)
    regs[R_FREE] = capacity
    sources = np.zeros((len(memory.background), S_COLUMNS), np.int64)
    for index, item in enumerate(memory.background):
        sources[index] = (item.period_clocks, item.burst_bytes, item.write, item.region_bytes,
                          0, index + 1, 0)
    return regs, banks, np.zeros((capacity, E_COLUMNS), np.int64), lists, sources


@CACHED
def controller_port(t: np.ndarray, clock: int, free: int, size: int) -> tuple[int, int]:
    """(start, end) of the passage of `size` bytes through one direction of a controller port."""
    start = max(clock, free)
    if t[T_WORD] == 0:
        return start, start
    words = (size + 7) >> 3
    return start, start + -((-words * t[T_WORD]) // t[T_WORD_PER])


@CACHED
def ddr_write_data(accepted: int, lead: int, data_free: int, beats: int) -> int:
    """End of the beats of a write on its port: the next write's beats follow."""
    return max(accepted + lead, data_free) + beats


@CACHED
def ddr_read_data(t: np.ndarray, first: int, last: int, response: int, data_free: int,
                  beats: int) -> int:
    """Done cycle of a read whose data leave the controller port from `first` to `last`.

    The beats follow the port's earlier beats; the last one not before the last data arrived.
    """
    begin = max(to_fabric(first, t) + response, data_free)
    return max(begin + beats, to_fabric(last, t) + response)


@CACHED
def _atoms(t, address, size):
    """DRAM bursts that cover some bytes."""
    edge = t[T_ATOM] - 1
    return ((address & edge) + size + edge) >> t[T_ATOM_SHIFT]


# Not cached: numba would not see a change of `cosim.memory.arbiter`.
@PLAIN
def ddr_insert(t, regs, pool, lists, arrival, unit, index, address, size, write, place=-1):
    """Put a burst that arrives at DDR clock `arrival` into its line; oldest first, then unit."""
    regs[R_FREE] -= 1
    entry = lists[FREE, regs[R_FREE]]
    e = pool[entry]
    e[E_ARRIVAL] = arrival
    e[E_UNIT] = unit
    e[E_INDEX] = index
    e[E_ADDRESS] = address
    e[E_BYTES] = size
    e[E_ATOMS] = _atoms(t, address, size)
    e[E_WRITE] = write
    e[E_PLACE] = place  # of its operation in a trace; not used here
    line = lists[LINE + write]
    place = regs[R_LINE + write]
    regs[R_LINE + write] += 1
    while place > 0 and precedes(arrival, unit, pool[line[place - 1], E_ARRIVAL],
                                 pool[line[place - 1], E_UNIT]):
        line[place] = line[place - 1]
        place -= 1
    line[place] = entry


@CACHED
def _remove(row, count, place):
    entry = row[place]
    for index in range(place, count - 1):
        row[index] = row[index + 1]
    return entry


@CACHED
def _next_event(t, regs, pool, lists):
    """Set R_WHEN and R_ADMIT (the direction to admit, -1: serve) of the next event."""
    when, admit = FAR, -1
    for write in range(2):
        if regs[R_LINE + write] == 0:
            continue
        head = pool[lists[LINE + write, 0]]
        occupied = regs[R_OCCUPIED + write]
        if occupied and occupied + head[E_ATOMS] > t[T_ENTRIES_READ + write]:
            continue
        clock = max(head[E_ARRIVAL], regs[R_SPACE + write])
        if clock < when:
            when, admit = clock, write
    if regs[R_WINDOW] + regs[R_WINDOW_WRITE] > 0:
        clock = max(regs[R_NOW], regs[R_BUS])
        if clock < when:
            when, admit = clock, -1
    regs[R_WHEN] = when
    regs[R_ADMIT] = admit


@PLAIN
def ddr_next(t, regs, pool, lists, sources, background):
    """DDR clock of the controller's next event; FAR while it holds nothing of the units.

    `background`: unit number of the first source of background traffic. A source has one burst
    outstanding and asks for the next a period later, or when it was served if that is later.
    """
    if regs[R_FOREGROUND] == 0:
        return FAR
    _next_event(t, regs, pool, lists)
    index = 0
    while index < len(sources):
        s = sources[index]
        index += 1
        if s[S_OUT] == 0 and s[S_NEXT] <= regs[R_WHEN]:
            s[S_STATE] = (s[S_STATE] * 1103515245 + 12345) % 2147483648
            address = (s[S_STATE] // 16 * t[T_ATOM]) % s[S_REGION]
            ddr_insert(t, regs, pool, lists, s[S_NEXT], background + index - 1, 0, address,
                       s[S_BYTES], s[S_WRITE])
            s[S_OUT] = 1
            _next_event(t, regs, pool, lists)
            # An older burst that does not fit can make the next event later: ask all again.
            index = 0
    return regs[R_WHEN]


@CACHED
def _activate_at(t, regs, bank, admitted):
    """Earliest ACTIVATE of a bank for a burst that is known since `admitted`.

    Rows are opened for the direction being served only, from the last command of the other on.
    """
    clock = max(admitted, regs[R_SWITCHED])
    if bank[B_ROW] >= 0:
        clock = max(clock, bank[B_PRECHARGE_READY]) + t[T_RP]
    clock = max(clock, bank[B_ACTIVATE_READY])
    return max(clock, max(regs[R_ACT3] + t[T_RRD], regs[R_ACT0] + t[T_FAW]))


@CACHED
def _column_at(t, regs, banks, address, admitted):
    """Earliest column command of a burst, as far as its bank goes."""
    bank = banks[(address >> t[T_ROW_SHIFT]) & (t[T_BANKS] - 1)]
    if bank[B_ROW] == address >> (t[T_ROW_SHIFT] + t[T_BANK_SHIFT]):
        return bank[B_COLUMN_READY]
    return _activate_at(t, regs, bank, admitted) + t[T_RCD]


@CACHED
def _bus_at(t, regs, write):
    """Earliest column command of a direction, as far as the data bus goes."""
    if write:
        return max(regs[R_BUS], regs[R_READ] + t[T_RD2WR])
    return max(regs[R_BUS], regs[R_WRITE] + t[T_WR2RD])


@CACHED
def _refresh(t, regs, banks, now):
    """Close all rows and refresh; the bus is free when it is over.

    Of the refreshes that are due at `now`, all but the last had the memory to themselves.
    """
    start = max(regs[R_REFRESH], regs[R_BUS])
    opened = False
    for index in range(t[T_BANKS]):
        if banks[index, B_ROW] >= 0:
            opened = True
            start = max(start, banks[index, B_PRECHARGE_READY])
    ready = start + t[T_RFC] + (t[T_RP] if opened else 0)
    for index in range(t[T_BANKS]):
        banks[index, B_ROW] = -1
        banks[index, B_ACTIVATE_READY] = ready
    regs[R_BUS] = max(regs[R_BUS], ready)
    regs[R_REFRESH] += t[T_REFI]
    regs[R_REFRESHES] += 1
    if regs[R_REFRESH] >= ready and now - regs[R_REFRESH] >= t[T_REFI]:
        count = (now - regs[R_REFRESH]) // t[T_REFI]
        regs[R_REFRESH] += count * t[T_REFI]
        regs[R_REFRESHES] += count


@CACHED
def _choose(t, regs, banks, pool, lists, write, now):
    """Place in the window of the burst to serve: the first that is ready soonest."""
    count = regs[R_WINDOW + write]
    window = lists[WINDOW + write]
    best, soonest = 0, FAR
    slot = max(now, _bus_at(t, regs, write))
    for place in range(count):
        e = pool[window[place]]
        column = max(slot, _column_at(t, regs, banks, e[E_ADDRESS], e[E_ADMITTED]))
        if column < soonest:
            best, soonest = place, column
        if soonest == slot or regs[R_BYPASSED] >= t[T_BYPASS]:
            break
    return best


@CACHED
def _transfer(t, regs, banks, e, now):
    """Issue every command of one burst; (first, last) column command."""
    address, left, write = e[E_ADDRESS], e[E_BYTES], e[E_WRITE]
    first, last = FAR, now
    while left > 0:
        size = min(left, t[T_ROW_BYTES] - (address & (t[T_ROW_BYTES] - 1)))
        atoms = _atoms(t, address, size)
        bank = banks[(address >> t[T_ROW_SHIFT]) & (t[T_BANKS] - 1)]
        row = address >> (t[T_ROW_SHIFT] + t[T_BANK_SHIFT])
        gap = 0
        if bank[B_ROW] == row:
            regs[R_HITS] += 1
        else:
            regs[R_MISSES] += 1
            gap = t[T_MISS_GAP]
            activate = _activate_at(t, regs, bank, e[E_ADMITTED])
            regs[R_ACT0], regs[R_ACT1] = regs[R_ACT1], regs[R_ACT2]
            regs[R_ACT2], regs[R_ACT3] = regs[R_ACT3], activate
            bank[B_ROW] = row
            bank[B_COLUMN_READY] = activate + t[T_RCD]
            bank[B_PRECHARGE_READY] = activate + t[T_RAS]
            bank[B_ACTIVATE_READY] = activate + t[T_RC]
        column = max(max(now, _bus_at(t, regs, write)), bank[B_COLUMN_READY])
        first = min(first, column)
        last = column + (atoms - 1) * t[T_CCD]
        regs[R_BUS] = last + t[T_CCD] + gap
        if write:
            regs[R_WRITE] = last
            bank[B_PRECHARGE_READY] = max(bank[B_PRECHARGE_READY], last + t[T_WR2PRE])
        else:
            regs[R_READ] = last
            bank[B_PRECHARGE_READY] = max(bank[B_PRECHARGE_READY], last + t[T_RD2PRE])
        address += size
        left -= size
    if write:
        regs[R_DEBT] += e[E_ATOMS] * t[T_WRITE_GAP]
        regs[R_BUS] += regs[R_DEBT] >> 3
        regs[R_DEBT] &= 7
    return first, last


@CACHED
def _direction(t, regs, now):
    """Which direction is served now (0 read, 1 write), and may a switch have been idle?"""
    mode = regs[R_MODE]
    other = 1 - mode
    if regs[R_WINDOW + other] == 0:
        return mode, False
    if regs[R_WINDOW + mode] == 0:
        return other, True
    starved = now - regs[R_SINCE + other] >= t[T_STARVE_READ + other]
    if starved and regs[R_RUN] >= t[T_RUN_READ + mode]:
        return other, False
    return mode, False


@CACHED
def ddr_step(t, regs, banks, pool, lists, sources, background):
    """Do the event `ddr_next` named; (what, pool entry, DDR clock, first, last column command).

    ADMITTED: a burst enters the scheduler's window. SERVED: all its commands are placed;
    R_NEW_HITS and R_NEW_MISSES count its rows.
    """
    now, admit = regs[R_WHEN], regs[R_ADMIT]
    regs[R_NOW] = max(regs[R_NOW], now)
    if admit >= 0:
        entry = _remove(lists[LINE + admit], regs[R_LINE + admit], 0)
        regs[R_LINE + admit] -= 1
        e = pool[entry]
        e[E_ADMITTED] = now
        if regs[R_WINDOW + admit] == 0:
            regs[R_SINCE + admit] = max(regs[R_SINCE + admit], now)
        lists[WINDOW + admit, regs[R_WINDOW + admit]] = entry
        regs[R_WINDOW + admit] += 1
        regs[R_OCCUPIED + admit] += e[E_ATOMS]
        return ADMITTED, entry, now, now, now
    if regs[R_REFRESH] <= now:
        _refresh(t, regs, banks, now)
        return NOTHING, 0, now, now, now
    write, idle = _direction(t, regs, now)
    if write != regs[R_MODE]:
        regs[R_MODE] = write
        regs[R_SWITCHED] = min(now, max(regs[R_READ], regs[R_WRITE]))
        regs[R_RUN] = 0
        regs[R_BYPASSED] = 0
        if idle:
            regs[R_BUS] = max(regs[R_BUS], now + t[T_IDLE_GAP])
    place = _choose(t, regs, banks, pool, lists, write, now)
    entry = _remove(lists[WINDOW + write], regs[R_WINDOW + write], place)
    regs[R_WINDOW + write] -= 1
    e = pool[entry]
    hits, misses = regs[R_HITS], regs[R_MISSES]
    first, last = _transfer(t, regs, banks, e, now)
    regs[R_NEW_HITS] = regs[R_HITS] - hits
    regs[R_NEW_MISSES] = regs[R_MISSES] - misses
    regs[R_BYPASSED] = regs[R_BYPASSED] + e[E_ATOMS] if place else 0
    regs[R_RUN] += e[E_ATOMS]
    regs[R_OCCUPIED + write] -= e[E_ATOMS]
    regs[R_SPACE + write] = now
    regs[R_SINCE + write] = last
    lists[FREE, regs[R_FREE]] = entry
    regs[R_FREE] += 1
    if e[E_UNIT] >= background:
        regs[R_HITS], regs[R_MISSES] = hits, misses
        s = sources[e[E_UNIT] - background]
        s[S_OUT] = 0
        s[S_NEXT] = max(e[E_ARRIVAL] + s[S_PERIOD], last)
    else:
        regs[R_FOREGROUND] -= 1
        regs[R_SEEN] = regs[R_REFRESHES]
    return SERVED, entry, now, first, last

"""The memory rules: how transfers become bursts and when a burst is accepted and done.

It does not walk operations or tokens; both executors call these integer functions.

Time is half-open: a burst done at cycle d is no longer in flight at d, and its last beat moved in
cycle d - 1 (a read). Every rule takes and gives integers.

Bursts. A run of bytes is cut into bursts from its start. A burst ends at the end of the run, at
the next multiple of 4096, or when it has `max_burst_beats` beats. A first byte that is not
aligned to the port's width shortens the burst, so that whole beats never exceed the limit.

Flat memory. Each port has a read and a write channel that know nothing of one another. A channel
accepts one burst a cycle, in the order of (request cycle, unit number): accepted at
a = max(request, last acceptance + 1). Its beats move one a cycle in acceptance order, the first
at f = max(a + lead, end of the beats before). A read is done at f + beats, with
lead = read_latency_cycles. A write is done at f + beats + write_latency_cycles, with
lead = write_lead_cycles. Nothing else delays a burst.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from arch_models.memory import Ddr3Timing, Memory
from cosim import arbiter

# The rules allocate nothing, so numba's reference counts would only cost time (a factor of seven).
CACHED = njit(cache=True, error_model="numpy", _nrt=False)
PLAIN = njit(error_model="numpy", _nrt=False)  # calls into another file, whose change must count
precedes = PLAIN(arbiter.precedes)

BOUNDARY_BYTES = 4096
FAR = np.int64(1) << 62  # later than any cycle


@CACHED
def burst_bytes(address: int, remaining: int, width: int, max_beats: int) -> int:
    """Bytes of the burst that starts at `address` when `remaining` bytes of the run are left."""
    count = max_beats * width - address % width
    edge = BOUNDARY_BYTES - address % BOUNDARY_BYTES
    return min(remaining, min(count, edge))


@CACHED
def burst_beats(address: int, count: int, width: int) -> int:
    """Beats of `width` bytes that carry `count` bytes from `address` on; partial beats count."""
    return (address % width + count + width - 1) // width


@CACHED
def next_request(accepted: int, done: int, freed: int, new_run: int, overlap: int,
                 run_setup: int) -> int:
    """Cycle of the next request of a unit.

    `accepted`, `done`: of the burst before; `freed`: when the burst that must leave first for the
    outstanding limit is done (0 if none); `new_run`: the next burst starts a run. Without
    `overlap` a new run waits for the burst before it to be done.
    """
    base = accepted + 1
    if new_run:
        if not overlap:
            base = max(base, done)
        base += run_setup
    return max(base, freed)


@CACHED
def flat_accept(request: int, last_accept: int, lead: int, data_free: int) -> tuple[int, int]:
    """(acceptance cycle, cycle of the first beat) of a burst on a flat channel."""
    accepted = max(request, last_accept + 1)
    return accepted, max(accepted + lead, data_free)


@CACHED
def flat_transfer(address: int, row_bytes: int, rows: int, row_stride: int, planes: int,
                  plane_stride: int, width: int, max_beats: int, lead: int, trail: int,
                  outstanding: int, overlap: int, run_setup: int,
                  ring: np.ndarray) -> tuple[int, int, int]:
    """(cycles from the first request to the last done, beats, bursts) of a transfer alone.

    Exact when no other unit uses the channel: the same recurrence as burst by burst, with the
    first request at cycle 0. `ring`: scratch, at least `outstanding` long.
    """
    accepted, done, data_free = -1, 0, 0
    total_beats, count = 0, 0
    for plane in range(planes):
        for row in range(rows):
            here = address + plane * plane_stride + row * row_stride
            left = row_bytes
            new_run = 1
            while left > 0:
                if count == 0:
                    request = 0
                else:
                    freed = ring[count % outstanding] if count >= outstanding else 0
                    request = next_request(accepted, done, freed, new_run, overlap, run_setup)
                size = burst_bytes(here, left, width, max_beats)
                beats = burst_beats(here, size, width)
                accepted, begin = flat_accept(request, accepted, lead, data_free)
                data_free = begin + beats
                done = data_free + trail
                ring[count % outstanding] = done
                count += 1
                total_beats += beats
                here += size
                left -= size
                new_run = 0
    return done, total_beats, count


# --- DDR3 -----------------------------------------------------------------------------------------
# The state of the controller is a few int64 arrays, so that both executors hold the same thing:
# `regs` (scalars), `banks` (banks x B_COLUMNS), `pool` (bursts x E_COLUMNS), `lists` (rows of
# pool indices: the lines and windows of both directions, and the free entries), `sources`
# (background traffic). `t` are the timing parameters, see `ddr_parameters` for their order.

(T_RCD, T_RP, T_RAS, T_RC, T_RRD, T_FAW, T_CCD, T_CL, T_RD2WR, T_WR2RD, T_RD2PRE, T_WR2PRE,
 T_REFI, T_RFC, T_STARVE_READ, T_STARVE_WRITE, T_RUN_READ, T_RUN_WRITE, T_IDLE_GAP,
 T_ENTRIES_READ, T_ENTRIES_WRITE, T_BYPASS, T_WRITE_GAP, T_ATOM, T_ROW_BYTES, T_BANKS,
 T_CLOCK, T_CYCLE, T_PIPELINE, T_WORD, T_WORD_PER, T_MISS_GAP, T_COUNT) = range(33)

(R_NOW, R_BUS, R_READ, R_WRITE, R_MODE, R_RUN, R_SINCE, R_SINCE_WRITE, R_SPACE, R_SPACE_WRITE,
 R_OCCUPIED, R_OCCUPIED_WRITE, R_BYPASSED, R_DEBT, R_REFRESH, R_ACT0, R_ACT1, R_ACT2, R_ACT3,
 R_FOREGROUND, R_HITS, R_MISSES, R_REFRESHES, R_SEEN, R_LINE, R_LINE_WRITE, R_WINDOW,
 R_WINDOW_WRITE, R_FREE, R_SWITCHED, R_COUNT) = range(31)
B_ROW, B_COLUMN_READY, B_PRECHARGE_READY, B_ACTIVATE_READY, B_COLUMNS = range(5)
E_ARRIVAL, E_UNIT, E_INDEX, E_ADDRESS, E_BYTES, E_ATOMS, E_WRITE, E_ADMITTED, E_COLUMNS = range(9)
S_PERIOD, S_BYTES, S_WRITE, S_REGION, S_NEXT, S_STATE, S_OUT, S_COLUMNS = range(8)
LINE, WINDOW, FREE = 0, 2, 4  # rows of `lists`: + 1 is the write's
NOTHING, ADMITTED, SERVED = range(3)  # what `ddr_step` did


@CACHED
def to_ddr(cycle: int, t: np.ndarray) -> int:
    """First DDR clock at or after the start of a fabric cycle."""
    return -((-cycle * t[T_CLOCK]) // t[T_CYCLE])


@CACHED
def to_fabric(clock: int, t: np.ndarray) -> int:
    """First fabric cycle that starts at or after a DDR clock."""
    return -((-clock * t[T_CYCLE]) // t[T_CLOCK])


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
        ddr.word_clocks_denominator, ddr.miss_gap_clocks], np.int64)


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
    words = (size + 7) // 8
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


# Not cached: numba would not see a change of `cosim.arbiter`.
@PLAIN
def ddr_insert(t, regs, pool, lists, arrival, unit, index, address, size, write):
    """Put a burst that will arrive at DDR clock `arrival` into its line; oldest first, then unit."""
    regs[R_FREE] -= 1
    entry = lists[FREE, regs[R_FREE]]
    e = pool[entry]
    e[E_ARRIVAL] = arrival
    e[E_UNIT] = unit
    e[E_INDEX] = index
    e[E_ADDRESS] = address
    e[E_BYTES] = size
    e[E_ATOMS] = (address % t[T_ATOM] + size + t[T_ATOM] - 1) // t[T_ATOM]
    e[E_WRITE] = write
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
    """(DDR clock, direction to admit or -1 for a service) of the next event; FAR if none."""
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
    return when, admit


@PLAIN
def ddr_next(t, regs, pool, lists, sources, background):
    """DDR clock of the controller's next event; FAR while it holds nothing of the units.

    `background`: unit number of the first source of background traffic. A source has one burst
    outstanding and asks for the next a period later, or when it was served if that is later.
    """
    if regs[R_FOREGROUND] == 0:
        return FAR
    when, _ = _next_event(t, regs, pool, lists)
    for index in range(len(sources)):
        s = sources[index]
        if s[S_OUT] == 0 and s[S_NEXT] <= when:
            s[S_STATE] = (s[S_STATE] * 1103515245 + 12345) % 2147483648
            address = (s[S_STATE] // 16 * t[T_ATOM]) % s[S_REGION]
            ddr_insert(t, regs, pool, lists, s[S_NEXT], background + index, 0, address,
                       s[S_BYTES], s[S_WRITE])
            s[S_OUT] = 1
            when, _ = _next_event(t, regs, pool, lists)
    return when


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
    bank = banks[address // t[T_ROW_BYTES] % t[T_BANKS]]
    if bank[B_ROW] == address // (t[T_ROW_BYTES] * t[T_BANKS]):
        return bank[B_COLUMN_READY]
    return _activate_at(t, regs, bank, admitted) + t[T_RCD]


@CACHED
def _bus_at(t, regs, write):
    """Earliest column command of a direction, as far as the data bus goes."""
    if write:
        return max(regs[R_BUS], regs[R_READ] + t[T_RD2WR])
    return max(regs[R_BUS], regs[R_WRITE] + t[T_WR2RD])


@CACHED
def _refresh(t, regs, banks):
    """Close all rows and refresh once; the bus is free when it is over."""
    start = max(regs[R_REFRESH], regs[R_BUS])
    opened = False
    for index in range(t[T_BANKS]):
        start = max(start, banks[index, B_ACTIVATE_READY] - t[T_RP])
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
        size = min(left, t[T_ROW_BYTES] - address % t[T_ROW_BYTES])
        atoms = (address % t[T_ATOM] + size + t[T_ATOM] - 1) // t[T_ATOM]
        bank = banks[address // t[T_ROW_BYTES] % t[T_BANKS]]
        row = address // (t[T_ROW_BYTES] * t[T_BANKS])
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
        regs[R_BUS] += regs[R_DEBT] // 8
        regs[R_DEBT] %= 8
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
    """Do the controller's next event; (what, pool entry, DDR clock, first, last column command).

    ADMITTED: a burst enters the scheduler's window. SERVED: all its commands are placed.
    """
    now, admit = _next_event(t, regs, pool, lists)
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
        _refresh(t, regs, banks)
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

"""The loop of the numba executor: units, tokens and ports in one compiled function.

It defines nothing; `cosim.des` says what the rules are. `cosim.fast` prepares its arrays.

The loop visits only cycles in which a unit does something. In such a cycle it first ends operations
(their tokens appear), then starts operations, then decides requests in unit order, then lets the
DDR controller act, up to the cycle in which a unit is next due.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosim.ddr3_rules import (
    ADMITTED,
    E_BYTES,
    E_INDEX,
    E_UNIT,
    NOTHING,
    R_FOREGROUND,
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
from cosim.memory_rules import (
    CACHED,
    FAR,
    PLAIN,
    burst_beats,
    burst_bytes,
    flat_accept,
    flat_transfer,
    next_request,
    precedes,
)
from cosim.program import Column, UnitKind

# Columns of the operation table as plain integers: numba freezes them into the kernel.
LAYER, FLAGS, WAIT, SIGNAL = (int(Column[n]) for n in ("LAYER", "FLAGS", "WAIT", "SIGNAL"))
ADDRESS, ROW_BYTES, ROWS, ROW_STRIDE, PLANES, PLANE_STRIDE, ADVANCE = (int(Column[n]) for n in (
    "ADDRESS", "ROW_BYTES", "ROWS", "ROW_STRIDE", "PLANES", "PLANE_STRIDE", "ADVANCE"))
FILL, INTERVAL, TRIPS, DRAIN = (int(Column[n]) for n in ("FILL", "INTERVAL", "TRIPS", "DRAIN"))
COMPUTE, READ = int(UnitKind.COMPUTE), int(UnitKind.READ)

# Columns of the unit table.
(U_KIND, U_PORT, U_OUTSTANDING, U_MAX_BEATS, U_SETUP, U_TAIL, U_OVERLAP, U_RUN_SETUP, U_WIDTH,
 U_LEAD, U_TRAIL, U_CHANNEL, U_ALONE, U_ACCEPT, U_REQUEST, U_RESPONSE, U_CONTROLLER,
 U_COLUMNS) = range(18)

# Columns of the state of a unit. X_LEFT is what remains of the present run, X_ISSUED counts
# accepted bursts, X_KNOWN those whose done cycle is known.
(X_SEGMENT, X_REPEAT, X_PLACE, X_ROW, X_SINCE, X_START, X_PLANE, X_RUN, X_HERE, X_LEFT, X_NEW_RUN,
 X_ISSUED, X_KNOWN, X_ACCEPTED, X_DONE, X_BEATS, X_PRESENTED, X_COLUMNS) = range(18)

# Rows of the rings of a unit: done cycles, and what the controller said of a read that waits for
# its turn (beats, first and last DDR clock of its data).
G_DONE, G_BEATS, G_FIRST, G_LAST, G_ROWS = range(5)

# Columns of a data channel (port * 2, + 1 for writes) and, in the row of the same number, of a
# direction of a controller port (P_CROSSING).
P_ACCEPT, P_DATA, P_HELD, P_CROSSING, P_COLUMNS = range(5)

# What a unit does now, and how many results of alone transfers are kept.
READY, ENDING, REQUESTING, WAITING, BLOCKED, FINISHED = range(6)
MEMO = 4096
(M_UNIT, M_BYTES, M_ROWS, M_ROW_STRIDE, M_PLANES, M_PLANE_STRIDE, M_OFFSET, M_DONE, M_BEATS,
 M_BURSTS, M_COLUMNS) = range(11)


@CACHED
def _bit_index(low: int) -> int:
    """Index of the only bit that is set."""
    index = 0
    step = 32
    while step:
        if low >> step:
            low >>= step
            index += step
        step >>= 1
    return index


@CACHED
def _advance(state, doing, unit, order, starts, repeats):
    """Move a unit to its next operation; FINISHED after its last one."""
    x = state[unit]
    doing[unit] = READY
    segment = x[X_SEGMENT]
    x[X_PLACE] += 1
    if segment < 0 or x[X_PLACE] >= starts[segment, unit + 1]:
        if segment >= 0 and x[X_REPEAT] + 1 < repeats[segment]:
            x[X_REPEAT] += 1
        else:
            segment += 1
            while segment < len(repeats) and starts[segment, unit] == starts[segment, unit + 1]:
                segment += 1
            if segment == len(repeats):
                doing[unit] = FINISHED
                return
            x[X_SEGMENT] = segment
            x[X_REPEAT] = 0
        x[X_PLACE] = starts[segment, unit]
    x[X_ROW] = order[x[X_PLACE]]


@CACHED
def _reschedule(unit, state, doing, due, settings, ring):
    """Set the next event of a unit in a transfer, as far as done cycles are known."""
    if doing[unit] == BLOCKED:
        return
    x = state[unit]
    issued, known = x[X_ISSUED], x[X_KNOWN]
    if x[X_LEFT] == 0:
        if known == issued:
            doing[unit] = ENDING
            due[unit] = x[X_DONE] + settings[U_TAIL]
            return
    else:
        leaver = issued - settings[U_OUTSTANDING]  # must be done before the next request
        serial = x[X_NEW_RUN] and not settings[U_OVERLAP]
        if known > leaver and (known == issued or not serial):
            freed = ring[G_DONE, leaver & (ring.shape[1] - 1)] if leaver >= 0 else 0
            doing[unit] = REQUESTING
            due[unit] = next_request(x[X_ACCEPTED], x[X_DONE], freed, x[X_NEW_RUN],
                                     settings[U_OVERLAP], settings[U_RUN_SETUP])
            return
    doing[unit] = WAITING
    due[unit] = FAR


@CACHED
def _next_burst(x, settings, operation):
    """(bytes, beats) of the burst at X_HERE; X_HERE, X_LEFT and the run counters move on."""
    size = burst_bytes(x[X_HERE], x[X_LEFT], settings[U_WIDTH], settings[U_MAX_BEATS])
    beats = burst_beats(x[X_HERE], size, settings[U_WIDTH])
    x[X_HERE] += size
    x[X_LEFT] -= size
    x[X_NEW_RUN] = 0
    x[X_BEATS] += beats
    if x[X_LEFT] == 0:
        x[X_RUN] += 1
        if x[X_RUN] == operation[ROWS]:
            x[X_RUN] = 0
            x[X_PLANE] += 1
        if x[X_PLANE] < operation[PLANES]:
            x[X_LEFT] = operation[ROW_BYTES]
            x[X_NEW_RUN] = 1
            x[X_HERE] = (operation[ADDRESS] + x[X_REPEAT] * operation[ADVANCE]
                         + x[X_PLANE] * operation[PLANE_STRIDE]
                         + x[X_RUN] * operation[ROW_STRIDE])
    return size, beats


@CACHED
def _alone(unit, address, operation, settings, ring, memo):
    """Row of `memo` with what a transfer that has a flat channel to itself takes.

    The result depends on the address only through its offset in 4096 bytes.
    """
    offset = address & 4095
    key = (unit + 1) * 31 + operation[ROW_BYTES]
    key = key * 31 + operation[ROWS]
    key = key * 31 + operation[ROW_STRIDE]
    key = key * 31 + operation[PLANES]
    key = (key * 31 + operation[PLANE_STRIDE]) * 31 + offset
    place = (key ^ (key >> 12) ^ (key >> 24)) & (MEMO - 1)
    m = memo[place]
    if (m[M_UNIT] == unit + 1 and m[M_OFFSET] == offset and m[M_BYTES] == operation[ROW_BYTES]
            and m[M_ROWS] == operation[ROWS] and m[M_ROW_STRIDE] == operation[ROW_STRIDE]
            and m[M_PLANES] == operation[PLANES]
            and m[M_PLANE_STRIDE] == operation[PLANE_STRIDE]):
        return place
    m[M_UNIT], m[M_OFFSET], m[M_BYTES] = unit + 1, offset, operation[ROW_BYTES]
    m[M_ROWS], m[M_ROW_STRIDE] = operation[ROWS], operation[ROW_STRIDE]
    m[M_PLANES], m[M_PLANE_STRIDE] = operation[PLANES], operation[PLANE_STRIDE]
    m[M_DONE], m[M_BEATS], m[M_BURSTS] = flat_transfer(
        offset, operation[ROW_BYTES], operation[ROWS], operation[ROW_STRIDE], operation[PLANES],
        operation[PLANE_STRIDE], settings[U_WIDTH], settings[U_MAX_BEATS], settings[U_LEAD],
        settings[U_TRAIL], settings[U_OUTSTANDING], settings[U_OVERLAP], settings[U_RUN_SETUP],
        ring[G_DONE])
    return place


@PLAIN
def _ddr_accept(unit, accepted, state, doing, due, settings, operation, ring, ports, t, regs,
                pool, lists):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
    x = state[unit]
    index, address = x[X_ISSUED], x[X_HERE]
    size, beats = _next_burst(x, settings, operation)
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
    ddr_insert(t, regs, pool, lists, arrival, unit, index, address, size, write)
    regs[R_FOREGROUND] += 1
    x[X_ACCEPTED] = accepted
    x[X_ISSUED] = index + 1
    _reschedule(unit, state, doing, due, settings, ring)


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
    _reschedule(unit, state, doing, due, settings, ring)


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
        _ddr_accept(best, accepted, state, doing, due, units[best],
                    operations[state[best, X_ROW]], rings[best], ports, t, regs, pool, lists)
    return best


@PLAIN
def _ddr_act(limit, state, doing, due, units, operations, rings, ports, t, regs, banks, pool,
             lists, sources):
    """Let the controller act in every cycle before `limit`, or before a unit is due again."""
    background = len(units)
    ready = t[T_CL] + t[T_CCD] + t[T_PIPELINE]
    while True:
        clock = ddr_next(t, regs, pool, lists, sources, background)
        # The controller acts at the end of the cycle in which its clock begins.
        if clock == FAR or (limit < FAR and clock * t[T_CYCLE] >= limit * t[T_CLOCK]):
            return
        what, entry, clock, first, last = ddr_step(t, regs, banks, pool, lists, sources,
                                                   background)
        unit = pool[entry, E_UNIT]
        if what == NOTHING or unit >= background:
            continue
        settings, ring = units[unit], rings[unit]
        write = settings[U_KIND] != READ
        if what == ADMITTED:
            if write:
                x = state[unit]
                done = to_fabric(clock, t) + settings[U_RESPONSE]
                ring[G_DONE, x[X_KNOWN] & (ring.shape[1] - 1)] = done
                x[X_DONE] = done
                x[X_KNOWN] += 1
                _reschedule(unit, state, doing, due, settings, ring)
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


def build_loop(sources: int) -> Callable:
    """Compile the loop. `sources` enters numba's cache key, so a changed callee recompiles it."""

    @CACHED
    def run(operations, order, starts, repeats, bases, lengths, firsts, units, tokens, since,
            state, doing, due, rings, memo, ports, t, regs, banks, pool, lists, background, busy,
            memory_stall, token_stall, executed, layer_start, layer_end, layer_busy,
            layer_memory_stall, layer_token_stall, layer_bytes, layer_bursts, segment_end,
            trace_start, trace_end):
        stamp = sources  # keeps the constant in the closure
        unit_count = len(units)
        available = np.int64(0)
        for channel in range(len(tokens)):
            if tokens[channel] > 0:
                available |= np.int64(1) << channel
        for unit in range(unit_count):
            due[unit] = FAR
            state[unit, X_SEGMENT] = -1
            _advance(state, doing, unit, order, starts, repeats)
        now = np.int64(0)
        total = np.int64(0)
        ended = True  # tokens or units may have become free
        while True:
            requests = 0
            for unit in range(unit_count):  # ends
                if due[unit] != now:
                    continue
                if doing[unit] != ENDING:
                    requests += 1
                    continue
                x = state[unit]
                operation = operations[x[X_ROW]]
                layer = operation[LAYER]
                layer_end[layer] = now
                executed[unit] += 1
                ended = True
                total = now  # the DRAM may still take posted writes after the last end
                spent = now - x[X_START]
                if units[unit, U_KIND] != COMPUTE:
                    work = x[X_BEATS] + units[unit, U_SETUP] + units[unit, U_TAIL]
                    memory_stall[unit] += spent - work
                    layer_memory_stall[layer, unit] += spent - work
                    layer_bursts[layer, unit] += x[X_ISSUED]
                    layer_bytes[layer, unit] += (operation[ROW_BYTES] * operation[ROWS]
                                                 * operation[PLANES])
                    spent = work
                busy[unit] += spent
                layer_busy[layer, unit] += spent
                segment = x[X_SEGMENT]
                if segment == len(repeats) - 1:
                    segment_end[x[X_REPEAT]] = max(segment_end[x[X_REPEAT]], now)
                if len(trace_start):
                    index = (bases[segment] + x[X_REPEAT] * lengths[segment] + x[X_ROW]
                             - firsts[segment])
                    trace_start[index] = x[X_START]
                    trace_end[index] = now
                signal = operation[SIGNAL]
                while signal:
                    low = signal & -signal
                    signal ^= low
                    channel = _bit_index(low)
                    if tokens[channel] == 0:
                        available |= low
                        since[channel] = now
                    tokens[channel] += 1
                due[unit] = FAR
                x[X_SINCE] = now
                _advance(state, doing, unit, order, starts, repeats)
            if ended:
                ended = False
                for unit in range(unit_count):  # starts
                    if doing[unit] != READY:
                        continue
                    x = state[unit]
                    operation = operations[x[X_ROW]]
                    wait = operation[WAIT]
                    if wait & ~available:
                        continue
                    layer = operation[LAYER]
                    cause = -1
                    while wait:
                        low = wait & -wait
                        wait ^= low
                        channel = _bit_index(low)
                        if cause < 0 and since[channel] == now:
                            cause = channel
                        tokens[channel] -= 1
                        if tokens[channel] == 0:
                            available ^= low
                    if now > x[X_SINCE] and not operation[FLAGS] & 1:
                        token_stall[unit, cause] += now - x[X_SINCE]
                        layer_token_stall[layer, unit] += now - x[X_SINCE]
                    if layer_start[layer] < 0:
                        layer_start[layer] = now
                    x[X_START] = now
                    settings = units[unit]
                    if settings[U_KIND] == COMPUTE:
                        doing[unit] = ENDING
                        due[unit] = (now + operation[FILL] + operation[DRAIN]
                                     + operation[INTERVAL] * operation[TRIPS])
                        continue
                    address = operation[ADDRESS] + x[X_REPEAT] * operation[ADVANCE]
                    due[unit] = now + settings[U_SETUP]
                    if settings[U_ALONE]:
                        place = _alone(unit, address, operation, settings, rings[unit], memo)
                        x[X_BEATS] = memo[place, M_BEATS]
                        x[X_ISSUED] = memo[place, M_BURSTS]
                        doing[unit] = ENDING
                        due[unit] += memo[place, M_DONE] + settings[U_TAIL]
                        continue
                    x[X_PLANE] = x[X_RUN] = x[X_NEW_RUN] = 0
                    x[X_ISSUED] = x[X_KNOWN] = x[X_BEATS] = 0
                    x[X_HERE] = address
                    x[X_LEFT] = operation[ROW_BYTES]
                    doing[unit] = REQUESTING
                    requests += due[unit] == now
            for unit in range(unit_count if requests else 0):  # in unit order
                if due[unit] != now or doing[unit] != REQUESTING:
                    continue
                settings, x = units[unit], state[unit]
                operation = operations[x[X_ROW]]
                port = ports[settings[U_CHANNEL]]
                if len(t):
                    if port[P_HELD] >= settings[U_ACCEPT]:
                        doing[unit] = BLOCKED
                        due[unit] = FAR
                        x[X_PRESENTED] = now
                        continue
                    _ddr_accept(unit, max(now, port[P_ACCEPT] + 1), state, doing, due, settings,
                                operation, rings[unit], ports, t, regs, pool, lists)
                    continue
                _, beats = _next_burst(x, settings, operation)
                port[P_ACCEPT], begin = flat_accept(now, port[P_ACCEPT], settings[U_LEAD],
                                                    port[P_DATA])
                port[P_DATA] = begin + beats
                x[X_ACCEPTED] = port[P_ACCEPT]
                x[X_DONE] = port[P_DATA] + settings[U_TRAIL]
                ring = rings[unit]
                ring[G_DONE, x[X_ISSUED] & (ring.shape[1] - 1)] = x[X_DONE]
                x[X_ISSUED] += 1
                x[X_KNOWN] += 1
                _reschedule(unit, state, doing, due, settings, ring)
            now = FAR
            for unit in range(unit_count):
                now = min(now, due[unit])
            if len(t) and regs[R_FOREGROUND]:
                _ddr_act(now, state, doing, due, units, operations, rings, ports, t, regs, banks,
                         pool, lists, background)
                now = FAR
                for unit in range(unit_count):
                    now = min(now, due[unit])
            if now == FAR:
                break
        stuck = -1
        for unit in range(unit_count):
            if doing[unit] != FINISHED and stuck < 0:
                stuck = unit
        return total, stuck, stamp

    return run

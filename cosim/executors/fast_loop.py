"""The loop of the numba executor: units and tokens in one compiled function.

It defines nothing; `cosim.executors.des` says what the rules are, and `fast` prepares its arrays.

The loop visits only cycles in which a unit does something. In such a cycle it first ends operations
(their tokens appear), then starts operations, then decides requests in unit order, then lets the
DDR controller act, up to the cycle in which a unit is next due.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosim.executors.fast_ddr3 import controller_act, port_accept
from cosim.executors.fast_state import (
    ADDRESS,
    ADVANCE,
    BLOCKED,
    COMPUTE,
    DRAIN,
    ENDING,
    FILL,
    FINISHED,
    FLAGS,
    G_DONE,
    INTERVAL,
    LAYER,
    M_BEATS,
    M_BURSTS,
    M_BYTES,
    M_DONE,
    M_OFFSET,
    M_PLANE_STRIDE,
    M_PLANES,
    M_ROW_STRIDE,
    M_ROWS,
    M_UNIT,
    MEMO,
    P_ACCEPT,
    P_DATA,
    P_HELD,
    PLANE_STRIDE,
    PLANES,
    READY,
    REQUESTING,
    ROW_BYTES,
    ROW_STRIDE,
    ROWS,
    SIGNAL,
    TRIPS,
    U_ACCEPT,
    U_ALONE,
    U_CHANNEL,
    U_KIND,
    U_LEAD,
    U_MAX_BEATS,
    U_OUTSTANDING,
    U_OVERLAP,
    U_RUN_SETUP,
    U_SETUP,
    U_TAIL,
    U_TRAIL,
    U_WIDTH,
    WAIT,
    X_ACCEPTED,
    X_BEATS,
    X_DONE,
    X_HERE,
    X_ISSUED,
    X_KNOWN,
    X_LEFT,
    X_NEW_RUN,
    X_PLACE,
    X_PLANE,
    X_PRESENTED,
    X_REPEAT,
    X_ROW,
    X_RUN,
    X_SEGMENT,
    X_SINCE,
    X_START,
    X_TRACE,
    next_burst,
    reschedule,
)
from cosim.memory.bursts import CACHED, FAR, flat_accept, flat_transfer
from cosim.memory.ddr3 import R_FOREGROUND


@CACHED
def bit_index(low: int) -> int:
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


def build_loop(sources: int) -> Callable:
    """Compile the loop. `sources` enters numba's cache key, so a changed callee recompiles it."""

    @CACHED
    def run(operations, order, starts, repeats, bases, lengths, firsts, units, tokens, since,
            state, doing, due, rings, memo, ports, t, regs, banks, pool, lists, background, busy,
            memory_stall, token_stall, executed, layer_start, layer_end, layer_busy,
            layer_memory_stall, layer_token_stall, layer_bytes, layer_bursts, segment_end,
            trace_start, trace_end, trace_hits, trace_misses):
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
                    trace_start[x[X_TRACE]] = x[X_START]
                    trace_end[x[X_TRACE]] = now
                signal = operation[SIGNAL]
                while signal:
                    low = signal & -signal
                    signal ^= low
                    channel = bit_index(low)
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
                        channel = bit_index(low)
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
                    x[X_TRACE] = (bases[x[X_SEGMENT]] + x[X_REPEAT] * lengths[x[X_SEGMENT]]
                                  + x[X_ROW] - firsts[x[X_SEGMENT]])
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
            for unit in range(unit_count):  # requests, in unit order
                if requests == 0:
                    break
                if due[unit] != now or doing[unit] != REQUESTING:
                    continue
                requests -= 1
                settings, x = units[unit], state[unit]
                operation = operations[x[X_ROW]]
                port = ports[settings[U_CHANNEL]]
                if len(t):
                    if port[P_HELD] >= settings[U_ACCEPT]:
                        doing[unit] = BLOCKED
                        due[unit] = FAR
                        x[X_PRESENTED] = now
                        continue
                    port_accept(unit, max(now, port[P_ACCEPT] + 1), state, doing, due, settings,
                                operation, rings[unit], ports, t, regs, pool, lists)
                    continue
                _, beats = next_burst(x, settings, operation)
                port[P_ACCEPT], begin = flat_accept(now, port[P_ACCEPT], settings[U_LEAD],
                                                    port[P_DATA])
                port[P_DATA] = begin + beats
                x[X_ACCEPTED] = port[P_ACCEPT]
                x[X_DONE] = port[P_DATA] + settings[U_TRAIL]
                ring = rings[unit]
                ring[G_DONE, x[X_ISSUED] & (ring.shape[1] - 1)] = x[X_DONE]
                x[X_ISSUED] += 1
                x[X_KNOWN] += 1
                reschedule(unit, state, doing, due, settings, ring)
            now = FAR
            for unit in range(unit_count):
                now = min(now, due[unit])
            if len(t) and regs[R_FOREGROUND]:
                now = controller_act(now, state, doing, due, units, operations, rings, ports, t,
                                     regs, banks, pool, lists, background, trace_hits,
                                     trace_misses)
            if now == FAR:
                break
        stuck = -1
        for unit in range(unit_count):
            if doing[unit] != FINISHED and stuck < 0:
                stuck = unit
        return total, stuck, stamp

    return run

"""The numba executor: the meaning of `cosim.des`, to the cycle, at the speed a search needs.

It defines nothing: where it and `cosim.des` differ, this one is wrong.

The loop visits only cycles in which something happens. In such a cycle it first ends operations
(their tokens appear), then starts operations, then lets the memory decide. A transfer that has a
flat channel to itself is evaluated at its start, because nothing can disturb it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numba import njit

from arch_models.memory import Memory
from cosim import memory_rules
from cosim.memory_rules import (
    FAR,
    burst_beats,
    burst_bytes,
    flat_accept,
    flat_transfer,
    next_request,
)
from cosim.program import Column, Program, ProgramError, UnitKind, layer_macs, rows_by_unit
from cosim.result import SimResult, Trace

# Columns of the operation table as plain integers: numba freezes them into the kernel.
LAYER, FLAGS, WAIT, SIGNAL = (int(Column[n]) for n in ("LAYER", "FLAGS", "WAIT", "SIGNAL"))
ADDRESS, ROW_BYTES, ROWS, ROW_STRIDE, PLANES, PLANE_STRIDE, ADVANCE = (int(Column[n]) for n in (
    "ADDRESS", "ROW_BYTES", "ROWS", "ROW_STRIDE", "PLANES", "PLANE_STRIDE", "ADVANCE"))
FILL, INTERVAL, TRIPS, DRAIN = (int(Column[n]) for n in ("FILL", "INTERVAL", "TRIPS", "DRAIN"))
COMPUTE, READ = int(UnitKind.COMPUTE), int(UnitKind.READ)

# Columns of the unit table.
(U_KIND, U_PORT, U_OUTSTANDING, U_MAX_BEATS, U_SETUP, U_TAIL, U_OVERLAP, U_RUN_SETUP, U_WIDTH,
 U_LEAD, U_TRAIL, U_CHANNEL, U_ALONE, U_COLUMNS) = range(14)

# Columns of the state of a unit. X_LEFT is what remains of the present run, X_ISSUED counts
# accepted bursts, X_KNOWN those whose done cycle is known.
(X_STATE, X_NEXT, X_SEGMENT, X_REPEAT, X_PLACE, X_ROW, X_SINCE, X_START, X_PLANE, X_RUN, X_HERE,
 X_LEFT, X_NEW_RUN, X_ISSUED, X_KNOWN, X_ACCEPTED, X_DONE, X_BEATS, X_COLUMNS) = range(19)

# What a unit does now.
READY, ENDING, REQUESTING, WAITING, FINISHED = range(5)


@njit(cache=True)
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


@njit(cache=True)
def _advance(state, unit, starts, repeats):
    """Move a unit to its next operation; FINISHED after its last one."""
    x = state[unit]
    x[X_PLACE] += 1
    segment = x[X_SEGMENT]
    if segment >= 0 and x[X_PLACE] < starts[segment, unit + 1]:
        return
    if segment >= 0 and x[X_REPEAT] + 1 < repeats[segment]:
        x[X_REPEAT] += 1
        x[X_PLACE] = starts[segment, unit]
        return
    segment += 1
    while segment < len(repeats) and starts[segment, unit] == starts[segment, unit + 1]:
        segment += 1
    if segment == len(repeats):
        x[X_STATE] = FINISHED
        return
    x[X_SEGMENT] = segment
    x[X_REPEAT] = 0
    x[X_PLACE] = starts[segment, unit]


@njit(cache=True)
def _reschedule(x, unit, ring):
    """Set the next event of a unit in a transfer, as far as done cycles are known."""
    issued = x[X_ISSUED]
    if x[X_LEFT] == 0:
        if x[X_KNOWN] == issued:
            x[X_STATE] = ENDING
            x[X_NEXT] = x[X_DONE] + unit[U_TAIL]
            return
    else:
        outstanding = unit[U_OUTSTANDING]
        freed = issued - outstanding + 1  # so many bursts must be done
        known = x[X_KNOWN] >= freed
        if x[X_NEW_RUN] and not unit[U_OVERLAP] and x[X_KNOWN] < issued:
            known = False
        if known:
            leaver = ring[(issued - outstanding) % outstanding] if freed > 0 else 0
            x[X_STATE] = REQUESTING
            x[X_NEXT] = next_request(x[X_ACCEPTED], x[X_DONE], leaver, x[X_NEW_RUN],
                                     unit[U_OVERLAP], unit[U_RUN_SETUP])
            return
    x[X_STATE] = WAITING
    x[X_NEXT] = FAR


@njit(cache=True)
def _next_burst(x, unit, operation):
    """(bytes, beats) of the burst at X_HERE; X_HERE, X_LEFT and the run counters move on."""
    size = burst_bytes(x[X_HERE], x[X_LEFT], unit[U_WIDTH], unit[U_MAX_BEATS])
    beats = burst_beats(x[X_HERE], size, unit[U_WIDTH])
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


def _build(sources: int):
    """Compile the loop. `sources` enters numba's cache key, so a changed callee recompiles it."""

    @njit(cache=True)
    def run(operations, order, starts, repeats, bases, lengths, firsts, units, tokens, rings,
            channels, busy, memory_stall, token_stall, executed, layer_start, layer_end,
            layer_busy, layer_memory_stall, layer_token_stall, layer_bytes, layer_bursts,
            segment_end, trace_start, trace_end):
        stamp = sources  # keeps the constant in the closure
        unit_count = len(units)
        state = np.zeros((unit_count, X_COLUMNS), np.int64)
        since = np.zeros(len(tokens), np.int64)
        last_accept = np.full(channels, -1, np.int64)
        data_free = np.zeros(channels, np.int64)
        available = np.int64(0)
        for channel in range(len(tokens)):
            if tokens[channel] > 0:
                available |= np.int64(1) << channel
        for unit in range(unit_count):
            x = state[unit]
            x[X_STATE] = READY
            x[X_NEXT] = FAR
            x[X_SEGMENT] = -1
            _advance(state, unit, starts, repeats)
            x[X_ROW] = order[x[X_PLACE]] if x[X_STATE] != FINISHED else -1
        now = np.int64(0)
        while True:
            for unit in range(unit_count):  # ends
                x = state[unit]
                if x[X_NEXT] != now or x[X_STATE] != ENDING:
                    continue
                row = x[X_ROW]
                operation = operations[row]
                layer = operation[LAYER]
                layer_end[layer] = max(layer_end[layer], now)
                executed[unit] += 1
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
                    index = bases[segment] + x[X_REPEAT] * lengths[segment] + row - firsts[segment]
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
                x[X_STATE] = READY
                x[X_NEXT] = FAR
                x[X_SINCE] = now
                _advance(state, unit, starts, repeats)
                x[X_ROW] = order[x[X_PLACE]] if x[X_STATE] != FINISHED else -1
            for unit in range(unit_count):  # starts
                x = state[unit]
                if x[X_STATE] != READY:
                    continue
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
                    x[X_STATE] = ENDING
                    x[X_NEXT] = (now + operation[FILL] + operation[INTERVAL] * operation[TRIPS]
                                 + operation[DRAIN])
                    continue
                address = operation[ADDRESS] + x[X_REPEAT] * operation[ADVANCE]
                if settings[U_ALONE]:
                    done, beats, bursts = flat_transfer(
                        address, operation[ROW_BYTES], operation[ROWS], operation[ROW_STRIDE],
                        operation[PLANES], operation[PLANE_STRIDE], settings[U_WIDTH],
                        settings[U_MAX_BEATS], settings[U_LEAD], settings[U_TRAIL],
                        settings[U_OUTSTANDING], settings[U_OVERLAP], settings[U_RUN_SETUP],
                        rings[unit])
                    x[X_BEATS] = beats
                    x[X_ISSUED] = bursts
                    x[X_STATE] = ENDING
                    x[X_NEXT] = now + settings[U_SETUP] + done + settings[U_TAIL]
                    continue
                x[X_PLANE] = 0
                x[X_RUN] = 0
                x[X_HERE] = address
                x[X_LEFT] = operation[ROW_BYTES]
                x[X_NEW_RUN] = 0
                x[X_ISSUED] = 0
                x[X_KNOWN] = 0
                x[X_BEATS] = 0
                x[X_STATE] = REQUESTING
                x[X_NEXT] = now + settings[U_SETUP]
            for unit in range(unit_count):  # memory, in unit order
                x = state[unit]
                if x[X_NEXT] != now or x[X_STATE] != REQUESTING:
                    continue
                settings = units[unit]
                _, beats = _next_burst(x, settings, operations[x[X_ROW]])
                channel = settings[U_CHANNEL]
                accepted, begin = flat_accept(now, last_accept[channel], settings[U_LEAD],
                                              data_free[channel])
                last_accept[channel] = accepted
                data_free[channel] = begin + beats
                x[X_ACCEPTED] = accepted
                x[X_DONE] = begin + beats + settings[U_TRAIL]
                rings[unit, x[X_ISSUED] % settings[U_OUTSTANDING]] = x[X_DONE]
                x[X_ISSUED] += 1
                x[X_KNOWN] += 1
                _reschedule(x, settings, rings[unit])
            later = FAR
            for unit in range(unit_count):
                later = min(later, state[unit, X_NEXT])
            if later == FAR:
                break
            now = later
        stuck = -1
        for unit in range(unit_count):
            if state[unit, X_STATE] != FINISHED and stuck < 0:
                stuck = unit
        return now, stuck, stamp

    return run


def _digest() -> int:
    digest = hashlib.sha256()
    for name in (__file__, memory_rules.__file__):
        digest.update(Path(name).read_bytes())
    return int.from_bytes(digest.digest()[:6], "big")


_RUN = _build(_digest())


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program (see `cosim.program`) on a memory and account for every cycle.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes.
    """
    units = len(program.units)
    layers = len(program.layers)
    order, starts = rows_by_unit(program)
    repeats = np.array([part.repeat for part in program.segments], np.int64)
    firsts = np.array([part.first for part in program.segments], np.int64)
    lengths = np.array([part.last - part.first for part in program.segments], np.int64)
    bases = np.concatenate(([0], np.cumsum(repeats * lengths)))[:-1].astype(np.int64)
    table, channels = unit_table(program, memory)
    tokens = np.array([channel.initial for channel in program.channels], np.int64)
    rings = np.zeros((units, max([unit.outstanding for unit in program.units], default=1)),
                     np.int64)
    traced = program.operation_count if trace else 0

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    busy, memory_stall, executed = zeros(units), zeros(units), zeros(units)
    token_stall = zeros(units, len(program.channels))
    layer_start, layer_end = zeros(layers) - 1, zeros(layers) - 1
    layer_busy, layer_memory, layer_token = (zeros(layers, units) for _ in range(3))
    layer_bytes, layer_bursts = zeros(layers, units), zeros(layers, units)
    segment_end = zeros(int(repeats[-1]) if len(repeats) else 0)
    starts_at, ends_at = zeros(traced), zeros(traced)
    total, stuck, _ = _RUN(
        program.operations, order, starts, repeats, bases, lengths, firsts, table, tokens, rings,
        channels, busy, memory_stall, token_stall, executed, layer_start, layer_end, layer_busy,
        layer_memory, layer_token, layer_bytes, layer_bursts, segment_end, starts_at, ends_at)
    if stuck >= 0:
        raise ProgramError(f"unit {program.units[stuck].name!r} waits for a token that never "
                           f"comes, at cycle {total}")
    return SimResult(
        int(total), busy, total - busy - memory_stall - token_stall.sum(axis=1), memory_stall,
        token_stall, executed, layer_start, layer_end, layer_busy, layer_memory, layer_token,
        layer_bytes, layer_bursts, layer_macs(program), segment_end, 0, 0, 0,
        Trace(starts_at, ends_at) if trace else None)


def unit_table(program: Program, memory: Memory) -> tuple[np.ndarray, int]:
    """(units x U_COLUMNS, number of data channels): everything the loop asks of a unit."""
    table = np.zeros((len(program.units), U_COLUMNS), np.int64)
    users: dict[int, int] = {}
    for index, unit in enumerate(program.units):
        if unit.kind == UnitKind.COMPUTE:
            table[index, U_KIND] = unit.kind
            table[index, U_OUTSTANDING] = 1
            continue
        if not 0 <= unit.port < len(memory.ports):
            raise ProgramError(f"unit {unit.name!r}: port is {unit.port}, the memory has "
                               f"{len(memory.ports)}")
        port = memory.ports[unit.port]
        read = unit.kind == UnitKind.READ
        channel = unit.port * 2 + (0 if read else 1)
        users[channel] = users.get(channel, 0) + 1
        table[index] = (
            unit.kind, unit.port, unit.outstanding, unit.max_burst_beats, unit.setup_cycles,
            unit.tail_cycles, unit.overlap_runs, unit.run_setup_cycles, port.width_bytes,
            port.read_latency_cycles if read else port.write_lead_cycles,
            0 if read else port.write_latency_cycles, channel, 0)
    for index, unit in enumerate(program.units):
        if unit.kind != UnitKind.COMPUTE:
            table[index, U_ALONE] = users[int(table[index, U_CHANNEL])] == 1
    return table, 2 * len(memory.ports)

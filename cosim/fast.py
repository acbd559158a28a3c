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

from arch_models.memory import Memory
from cosim import arbiter, memory_rules
from cosim.memory_rules import (
    ADMITTED,
    CACHED,
    E_BYTES,
    E_INDEX,
    E_UNIT,
    FAR,
    NOTHING,
    PLAIN,
    R_FOREGROUND,
    R_HITS,
    R_MISSES,
    R_SEEN,
    T_CCD,
    T_CL,
    T_PIPELINE,
    burst_beats,
    burst_bytes,
    controller_port,
    ddr_insert,
    ddr_next,
    ddr_parameters,
    ddr_read_data,
    ddr_state,
    ddr_step,
    ddr_write_data,
    decided_in,
    flat_accept,
    flat_transfer,
    next_request,
    precedes,
    to_ddr,
    to_fabric,
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
 U_LEAD, U_TRAIL, U_CHANNEL, U_ALONE, U_ACCEPT, U_REQUEST, U_RESPONSE, U_CONTROLLER,
 U_COLUMNS) = range(18)

# Columns of the state of a unit. X_LEFT is what remains of the present run, X_ISSUED counts
# accepted bursts, X_KNOWN those whose done cycle is known.
(X_STATE, X_NEXT, X_SEGMENT, X_REPEAT, X_PLACE, X_ROW, X_SINCE, X_START, X_PLANE, X_RUN, X_HERE,
 X_LEFT, X_NEW_RUN, X_ISSUED, X_KNOWN, X_ACCEPTED, X_DONE, X_BEATS, X_PRESENTED, X_COLUMNS) = range(20)

# Rows of the rings of a unit: done cycles, and what the controller said of a read that waits for
# its turn (beats, first and last DDR clock of its data).
G_DONE, G_BEATS, G_FIRST, G_LAST, G_ROWS = range(5)

# Columns of a data channel (port * 2, + 1 for writes) and, in the row of the same number, of a
# direction of a controller port (P_CROSSING).
P_ACCEPT, P_DATA, P_HELD, P_CROSSING, P_COLUMNS = range(5)

# What a unit does now.
READY, ENDING, REQUESTING, WAITING, BLOCKED, FINISHED = range(6)


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


@CACHED
def _reschedule(x, unit, ring):
    """Set the next event of a unit in a transfer, as far as done cycles are known."""
    if x[X_STATE] == BLOCKED:
        return
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
            leaver = ring[G_DONE, (issued - outstanding) % outstanding] if freed > 0 else 0
            x[X_STATE] = REQUESTING
            x[X_NEXT] = next_request(x[X_ACCEPTED], x[X_DONE], leaver, x[X_NEW_RUN],
                                     unit[U_OVERLAP], unit[U_RUN_SETUP])
            return
    x[X_STATE] = WAITING
    x[X_NEXT] = FAR


@CACHED
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


@PLAIN
def _ddr_accept(unit, accepted, x, settings, operation, ring, ports, t, regs, pool, lists):
    """Accept the next burst of a unit on a port of the DDR3 memory."""
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
        place = index % settings[U_OUTSTANDING]
        ring[G_BEATS, place] = beats
        ring[G_LAST, place] = -1
    ddr_insert(t, regs, pool, lists, arrival, unit, index, address, size, write)
    regs[R_FOREGROUND] += 1
    x[X_ACCEPTED] = accepted
    x[X_ISSUED] = index + 1
    _reschedule(x, settings, ring)


@PLAIN
def _ddr_deliver(x, settings, ring, ports, t):
    """Move the data of served reads over the port, in the order of the unit's requests."""
    port = ports[settings[U_CHANNEL]]
    while x[X_KNOWN] < x[X_ISSUED]:
        place = x[X_KNOWN] % settings[U_OUTSTANDING]
        if ring[G_LAST, place] < 0:
            break
        port[P_DATA] = ddr_read_data(t, ring[G_FIRST, place], ring[G_LAST, place],
                                     settings[U_RESPONSE], port[P_DATA], ring[G_BEATS, place])
        ring[G_DONE, place] = port[P_DATA]
        x[X_DONE] = port[P_DATA]
        x[X_KNOWN] += 1
    _reschedule(x, settings, ring)


@PLAIN
def _ddr_unblock(channel, now, state, units, operations, rings, ports, t, regs, pool, lists):
    """A burst left the port's queue: accept the request that has waited longest."""
    best = -1
    for unit in range(len(units)):
        if (state[unit, X_STATE] == BLOCKED and units[unit, U_CHANNEL] == channel
                and (best < 0 or precedes(state[unit, X_PRESENTED], unit,
                                          state[best, X_PRESENTED], best))):
            best = unit
    if best >= 0:
        accepted = max(now, ports[channel, P_ACCEPT]) + 1
        state[best, X_STATE] = WAITING
        _ddr_accept(best, accepted, state[best], units[best], operations[state[best, X_ROW]],
                    rings[best], ports, t, regs, pool, lists)


@PLAIN
def _ddr_advance(now, state, units, operations, rings, ports, t, regs, banks, pool, lists,
                 sources):
    """Let the controller act up to this cycle; the cycle of its next event."""
    background = len(units)
    while True:
        clock = ddr_next(t, regs, pool, lists, sources, background)
        if clock == FAR:
            return FAR
        cycle = decided_in(clock, t)
        if cycle > now:
            return cycle
        what, entry, clock, first, last = ddr_step(t, regs, banks, pool, lists, sources,
                                                   background)
        unit = pool[entry, E_UNIT]
        if what == NOTHING or unit >= background:
            continue
        settings, x, ring = units[unit], state[unit], rings[unit]
        write = settings[U_KIND] != READ
        if what == ADMITTED:
            if write:
                done = to_fabric(clock, t) + settings[U_RESPONSE]
                ring[G_DONE, x[X_KNOWN] % settings[U_OUTSTANDING]] = done
                x[X_DONE] = done
                x[X_KNOWN] += 1
                _reschedule(x, settings, ring)
            channel = settings[U_CHANNEL]
            ports[channel, P_HELD] -= 1
            if ports[channel, P_HELD] == settings[U_ACCEPT] - 1:
                _ddr_unblock(channel, now, state, units, operations, rings, ports, t, regs, pool,
                             lists)
        elif not write:
            place = pool[entry, E_INDEX] % settings[U_OUTSTANDING]
            ready = t[T_CL] + t[T_CCD] + t[T_PIPELINE]
            crossing = ports[2 * settings[U_CONTROLLER]]
            begin, end = controller_port(t, first + ready, crossing[P_CROSSING],
                                         pool[entry, E_BYTES])
            ring[G_FIRST, place] = begin
            ring[G_LAST, place] = max(end, last + ready)
            crossing[P_CROSSING] = ring[G_LAST, place]
            if place == x[X_KNOWN] % settings[U_OUTSTANDING]:
                _ddr_deliver(x, settings, ring, ports, t)


def _build(sources: int):
    """Compile the loop. `sources` enters numba's cache key, so a changed callee recompiles it."""

    @CACHED
    def run(state, since, operations, order, starts, repeats, bases, lengths, firsts, units, tokens, rings,
            ports, t, regs, banks, pool, lists, background, busy, memory_stall, token_stall, executed, layer_start, layer_end,
            layer_busy, layer_memory_stall, layer_token_stall, layer_bytes, layer_bursts,
            segment_end, trace_start, trace_end):
        stamp = sources  # keeps the constant in the closure
        unit_count = len(units)
        controller = FAR
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
        total = np.int64(0)
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
                        rings[unit, G_DONE])
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
            for unit in range(unit_count):  # requests, in unit order
                x = state[unit]
                if x[X_NEXT] != now or x[X_STATE] != REQUESTING:
                    continue
                settings = units[unit]
                operation = operations[x[X_ROW]]
                port = ports[settings[U_CHANNEL]]
                if len(t):
                    if port[P_HELD] >= settings[U_ACCEPT]:
                        x[X_STATE] = BLOCKED
                        x[X_NEXT] = FAR
                        x[X_PRESENTED] = now
                        continue
                    _ddr_accept(unit, max(now, port[P_ACCEPT] + 1), x, settings, operation,
                                rings[unit], ports, t, regs, pool, lists)
                    controller = now
                    continue
                _, beats = _next_burst(x, settings, operation)
                port[P_ACCEPT], begin = flat_accept(now, port[P_ACCEPT], settings[U_LEAD],
                                                    port[P_DATA])
                port[P_DATA] = begin + beats
                x[X_ACCEPTED] = port[P_ACCEPT]
                x[X_DONE] = port[P_DATA] + settings[U_TRAIL]
                rings[unit, G_DONE, x[X_ISSUED] % settings[U_OUTSTANDING]] = x[X_DONE]
                x[X_ISSUED] += 1
                x[X_KNOWN] += 1
                _reschedule(x, settings, rings[unit])
            if controller <= now:
                controller = _ddr_advance(now, state, units, operations, rings, ports, t, regs,
                                          banks, pool, lists, background)
            later = controller
            for unit in range(unit_count):
                later = min(later, state[unit, X_NEXT])
            if later == FAR:
                break
            now = later
        stuck = -1
        for unit in range(unit_count):
            if state[unit, X_STATE] != FINISHED and stuck < 0:
                stuck = unit
        return total, stuck, stamp

    return run


def _digest() -> int:
    digest = hashlib.sha256()
    for name in (__file__, memory_rules.__file__, arbiter.__file__):
        digest.update(Path(name).read_bytes())
    return int.from_bytes(digest.digest()[:6], "big")


_RUN = _build(_digest())


def simulate(program: Program, memory: Memory, trace: bool = False) -> SimResult:
    """Run a program (see `cosim.program`) on a memory and account for every cycle.

    `trace`: also return start and end of every operation, repeats written out. Raises
    `ProgramError` if a unit waits for a token that never comes.
    """
    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    units = len(program.units)
    layers = len(program.layers)
    order, starts = rows_by_unit(program)
    repeats = np.array([part.repeat for part in program.segments], np.int64)
    firsts = np.array([part.first for part in program.segments], np.int64)
    lengths = np.array([part.last - part.first for part in program.segments], np.int64)
    bases = np.concatenate(([0], np.cumsum(repeats * lengths)))[:-1].astype(np.int64)
    table, ports = unit_table(program, memory)
    tokens = np.array([channel.initial for channel in program.channels], np.int64)
    limits = [unit.outstanding for unit in program.units] + [1]
    rings = np.zeros((units, G_ROWS, max(limits)), np.int64)
    parameters = ddr_parameters(memory.ddr) if memory.model == "ddr3" else zeros(0)
    dram = ddr_state(memory, parameters, sum(limits))
    traced = program.operation_count if trace else 0

    busy, memory_stall, executed = zeros(units), zeros(units), zeros(units)
    token_stall = zeros(units, len(program.channels))
    layer_start, layer_end = zeros(layers) - 1, zeros(layers) - 1
    layer_busy, layer_memory, layer_token = (zeros(layers, units) for _ in range(3))
    layer_bytes, layer_bursts = zeros(layers, units), zeros(layers, units)
    segment_end = zeros(int(repeats[-1]) if len(repeats) else 0)
    starts_at, ends_at = zeros(traced), zeros(traced)
    total, stuck, _ = _RUN(
        zeros(units, X_COLUMNS), zeros(len(tokens)), program.operations, order, starts, repeats, bases, lengths, firsts, table, tokens, rings,
        ports, parameters, *dram, busy, memory_stall, token_stall, executed, layer_start, layer_end, layer_busy,
        layer_memory, layer_token, layer_bytes, layer_bursts, segment_end, starts_at, ends_at)
    regs = dram[0]
    if stuck >= 0:
        raise ProgramError(f"unit {program.units[stuck].name!r} waits for a token that never "
                           f"comes, at cycle {total}")
    return SimResult(
        int(total), busy, total - busy - memory_stall - token_stall.sum(axis=1), memory_stall,
        token_stall, executed, layer_start, layer_end, layer_busy, layer_memory, layer_token,
        layer_bytes, layer_bursts, layer_macs(program), segment_end, int(regs[R_HITS]),
        int(regs[R_MISSES]), int(regs[R_SEEN]),
        Trace(starts_at, ends_at) if trace else None)


def unit_table(program: Program, memory: Memory) -> tuple[np.ndarray, np.ndarray]:
    """(units x U_COLUMNS, channels x P_COLUMNS): everything the loop asks of units and ports."""
    table = np.zeros((len(program.units), U_COLUMNS), np.int64)
    users: dict[int, int] = {}
    rows = len(memory.ports)
    for index, unit in enumerate(program.units):
        table[index, [U_KIND, U_OUTSTANDING, U_CHANNEL]] = unit.kind, 1, -1
        if unit.kind == UnitKind.COMPUTE:
            continue
        if not 0 <= unit.port < len(memory.ports):
            raise ProgramError(f"unit {unit.name!r}: port is {unit.port}, the memory has "
                               f"{len(memory.ports)}")
        port = memory.ports[unit.port]
        rows = max(rows, port.controller_port + 1)
        read = unit.kind == UnitKind.READ
        channel = unit.port * 2 + (0 if read else 1)
        users[channel] = users.get(channel, 0) + 1
        table[index] = (
            unit.kind, unit.port, unit.outstanding, unit.max_burst_beats, unit.setup_cycles,
            unit.tail_cycles, unit.overlap_runs, unit.run_setup_cycles, port.width_bytes,
            port.read_latency_cycles if read and memory.model == "flat"
            else port.write_lead_cycles,
            0 if read else port.write_latency_cycles, channel, 0,
            port.read_accept if read else port.write_accept, port.request_cycles,
            port.response_cycles if read else port.write_response_cycles, port.controller_port)
    for index, unit in enumerate(program.units):
        if unit.kind != UnitKind.COMPUTE and memory.model == "flat":
            table[index, U_ALONE] = users[int(table[index, U_CHANNEL])] == 1
    ports = np.zeros((2 * rows, P_COLUMNS), np.int64)
    ports[:, P_ACCEPT] = -1
    return table, ports

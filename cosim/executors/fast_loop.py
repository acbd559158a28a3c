"""The loop of the numba executor: units and tokens in one compiled function.

It defines nothing; `cosim.executors.des` says what the rules are, and `fast` prepares its arrays.

The loop visits only cycles in which a unit does something. In such a cycle it first ends operations
(their tokens appear), then starts operations, then decides requests in unit order. On a DDR3 memory
the controller does that, and acts up to the cycle in which an operation next ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cosim.compiled import CACHED_RULE, PLAIN_RULE, at
from cosim.executors.fast_controller import controller_act
from cosim.executors.fast_lines import start_lines
from cosim.executors.fast_state import (
    COMPUTE,
    ENDING,
    FINISHED,
    MEMO,
    READY,
    REQUESTING,
    Walk,
    flight_of,
    next_burst,
    next_event,
    put_down,
    taken_up,
)
from cosim.memory.bursts import FAR, flat_accept, flat_transfer
from cosim.memory.controller import record_type

#: The cycle now, the last end, a mask of channels with tokens, requests to decide in this cycle;
#: `ended`: tokens or units may have become free; `late`: an operation ended later than it may.
MOMENT = record_type("now", "total", "available", "requests", "ended", "late")


class Code(NamedTuple):
    """The program: rows by unit (`order`, cut by `starts`), and by segment its repeats, its first
    place in a trace, its length and its first row; by operation of a trace the `latest` cycle at
    which it may end, else the run stops; none where any may."""

    order: np.ndarray
    starts: np.ndarray
    repeats: np.ndarray
    bases: np.ndarray
    lengths: np.ndarray
    firsts: np.ndarray
    latest: np.ndarray


class Tokens(NamedTuple):
    """Tokens in every channel, and the cycle in which the last of them came to an empty one."""

    held: np.ndarray
    since: np.ndarray


class Counts(NamedTuple):
    """What `SimResult` reports, by unit, by layer and by operation of a trace."""

    busy: np.ndarray
    memory_stall: np.ndarray
    token_stall: np.ndarray
    executed: np.ndarray
    layer_start: np.ndarray
    layer_end: np.ndarray
    layer_busy: np.ndarray
    layer_memory_stall: np.ndarray
    layer_token_stall: np.ndarray
    layer_bytes: np.ndarray
    layer_bursts: np.ndarray
    segment_end: np.ndarray
    trace_start: np.ndarray
    trace_end: np.ndarray
    trace_hits: np.ndarray
    trace_misses: np.ndarray


class Run(NamedTuple):
    """One run: what moves, the program, its tokens, what is counted, the moment."""

    machine: Any  # Machine
    code: Code
    tokens: Tokens
    counts: Counts
    moment: np.ndarray  # one MOMENT


@CACHED_RULE
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


@CACHED_RULE
def _advance(machine, code, unit):
    """Move a unit to its next operation; FINISHED after its last one."""
    x = at(machine.progress, unit)
    x.doing = READY
    segment = x.segment
    x.place += 1
    if segment < 0 or x.place >= code.starts[segment, unit + 1]:
        if segment >= 0 and x.turn + 1 < code.repeats[segment]:
            x.turn += 1
        else:
            segment += 1
            while (segment < len(code.repeats)
                   and code.starts[segment, unit] == code.starts[segment, unit + 1]):
                segment += 1
            if segment == len(code.repeats):
                x.doing = FINISHED
                return
            x.segment = segment
            x.turn = 0
        x.place = code.starts[segment, unit]
    x.row = code.order[x.place]


@CACHED_RULE
def _alone(machine, unit, address):
    """Place in `known` of what a transfer that has a flat channel to itself takes.

    The result depends on the address only through its offset in 4096 bytes.
    """
    operation = at(machine.operations, at(machine.progress, unit).row)
    offset = address & 4095
    key = (unit + 1) * 31 + operation.row_bytes
    key = key * 31 + operation.rows
    key = key * 31 + operation.row_stride
    key = key * 31 + operation.planes
    key = (key * 31 + operation.plane_stride) * 31 + offset
    slot = (key ^ (key >> 12) ^ (key >> 24)) & (MEMO - 1)
    kept = at(machine.known, slot)
    if (kept.unit == unit + 1 and kept.offset == offset and kept.row_bytes == operation.row_bytes
            and kept.rows == operation.rows and kept.row_stride == operation.row_stride
            and kept.planes == operation.planes and kept.plane_stride == operation.plane_stride):
        return slot
    kept.unit, kept.offset, kept.row_bytes = unit + 1, offset, operation.row_bytes
    kept.rows, kept.row_stride = operation.rows, operation.row_stride
    kept.planes, kept.plane_stride = operation.planes, operation.plane_stride
    kept.done, kept.beats, kept.bursts = flat_transfer(
        offset, operation, at(machine.units, unit), machine.scratch)
    return slot


@CACHED_RULE
def _end(run, unit):
    """The operation of a unit ends now: count it, signal its tokens, go to the next."""
    machine, counts, tokens, moment = run.machine, run.counts, run.tokens, run.moment[0]
    now = moment.now
    x = at(machine.progress, unit)
    operation, settings = at(machine.operations, x.row), at(machine.units, unit)
    layer = operation.layer
    counts.layer_end[layer] = now
    if len(run.code.latest):
        moment.late |= now > run.code.latest[x.traced]
    counts.executed[unit] += 1
    spent = now - x.start
    if settings.kind != COMPUTE:
        work = x.beats + settings.setup + settings.tail
        counts.memory_stall[unit] += spent - work
        counts.layer_memory_stall[layer, unit] += spent - work
        counts.layer_bursts[layer, unit] += x.issued
        if operation.trips == 0:
            counts.layer_bytes[layer, unit] += (operation.row_bytes * operation.rows
                                                * operation.planes)
        spent = work
    counts.busy[unit] += spent
    counts.layer_busy[layer, unit] += spent
    if x.segment == len(run.code.repeats) - 1:
        counts.segment_end[x.turn] = max(counts.segment_end[x.turn], now)
    if len(counts.trace_start):
        counts.trace_start[x.traced] = x.start
        counts.trace_end[x.traced] = now
    signal = operation.signal
    while signal:
        low = signal & -signal
        signal ^= low
        channel = bit_index(low)
        if tokens.held[channel] == 0:
            moment.available |= low
            tokens.since[channel] = now
        tokens.held[channel] += 1
    x.due = FAR
    x.since = now
    _advance(machine, run.code, unit)


@CACHED_RULE
def _take_tokens(run, wait):
    """Take one token of each channel in a mask; the channel whose token came last."""
    cause = -1
    while wait:
        low = wait & -wait
        wait ^= low
        channel = bit_index(low)
        if cause < 0 and run.tokens.since[channel] == run.moment[0].now:
            cause = channel
        run.tokens.held[channel] -= 1
        if run.tokens.held[channel] == 0:
            run.moment[0].available ^= low
    return cause


@CACHED_RULE
def _start(run, unit):
    """The next operation of a unit starts now; its tokens are there."""
    machine, code, counts, now = run.machine, run.code, run.counts, run.moment[0].now
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    operation = at(machine.operations, x.row)
    layer = operation.layer
    cause = _take_tokens(run, operation.wait)
    if now > x.since and not operation.marks & 1:
        counts.token_stall[unit, cause] += now - x.since
        counts.layer_token_stall[layer, unit] += now - x.since
    if counts.layer_start[layer] < 0:
        counts.layer_start[layer] = now
    x.start = now
    x.traced = (code.bases[x.segment] + x.turn * code.lengths[x.segment] + x.row
                - code.firsts[x.segment])
    if settings.kind == COMPUTE or operation.trips > 0:
        x.issued, x.beats = 0, operation.trips  # of a transfer on chip
        x.doing = ENDING
        x.due = (now + operation.filling + operation.drain
                             + operation.interval * operation.trips)
        return
    address = operation.address + x.turn * operation.advance
    x.due = now + settings.setup
    if settings.alone:
        kept = at(machine.known, _alone(machine, unit, address))
        x.beats = kept.beats
        x.issued = kept.bursts
        x.doing = ENDING
        x.due += kept.done + settings.tail
        return
    x.plane = x.run = x.new_run = 0
    x.issued = x.known = x.beats = 0
    x.here = address
    x.left = operation.row_bytes
    x.doing = REQUESTING
    run.moment[0].requests += x.due == now


@PLAIN_RULE
def _request(machine, unit, now):
    """A unit asks its port of the flat memory for a burst now."""
    x, settings = at(machine.progress, unit), at(machine.units, unit)
    channel = at(machine.channels, settings.channel)
    _, beats, walk = next_burst(machine, unit, taken_up(x))
    accepted, begin = flat_accept(now, channel.accepted, settings.lead, channel.data_free)
    channel.accepted = accepted
    channel.data_free = begin + beats
    done = begin + beats + settings.trail
    flight_of(machine, unit, walk.issued).done = done
    walk = Walk(walk.here, walk.left, walk.new_run, walk.issued + 1, walk.known + 1, accepted,
                done)
    put_down(x, walk)
    x.doing, x.due = next_event(machine, unit, walk)


@PLAIN_RULE
def _cycle(run):
    """Everything that happens in the cycle `now`, and the cycle that comes next."""
    machine, moment = run.machine, run.moment[0]
    units, now = len(machine.units), moment.now
    moment.requests = 0
    for unit in range(units):
        if at(machine.progress, unit).due == now:
            if at(machine.progress, unit).doing == ENDING:
                moment.ended = 1
                moment.total = now  # the DRAM may still take posted writes after the last end
                _end(run, unit)
            else:
                moment.requests += 1
    if moment.ended:
        moment.ended = 0
        for unit in range(units):
            if (at(machine.progress, unit).doing == READY
                    and not at(machine.operations, at(machine.progress, unit).row).wait
                    & ~moment.available):
                _start(run, unit)
    if len(machine.dram.banks):
        moment.now = controller_act(machine, run.counts, _soonest(machine))
        return
    for unit in range(units):  # requests, in unit order
        if moment.requests == 0:
            break
        if at(machine.progress, unit).due == now and at(machine.progress, unit).doing == REQUESTING:
            moment.requests -= 1
            _request(machine, unit, now)
    moment.now = _soonest(machine)


@PLAIN_RULE
def _soonest(machine):
    """The cycle in which a unit is due next."""
    soonest = FAR
    for unit in range(len(machine.units)):
        soonest = min(soonest, at(machine.progress, unit).due)
    return soonest


@CACHED_RULE
def loop(run):
    """(last end, unit that never finishes or -1)."""
    machine, moment = run.machine, run.moment[0]
    for channel in range(len(run.tokens.held)):
        if run.tokens.held[channel] > 0:
            moment.available |= np.int64(1) << channel
    for unit in range(len(machine.units)):
        at(machine.progress, unit).due = FAR
        at(machine.progress, unit).segment = -1
        _advance(machine, run.code, unit)
    start_lines(machine)
    moment.ended = 1
    while moment.now != FAR and not moment.late:
        _cycle(run)
    stuck = -1
    for unit in range(len(machine.units)):
        if at(machine.progress, unit).doing != FINISHED and stuck < 0 and not moment.late:
            stuck = unit
    return moment.total, stuck

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

from typing import Any

import numpy as np

from cosim.compiled import CACHED_RULE, PLAIN_RULE
from cosim.memory import arbiter

precedes = PLAIN_RULE(arbiter.precedes)

BOUNDARY_BYTES = 4096
FAR = np.int64(1) << 62  # later than any cycle


@CACHED_RULE
def burst_bytes(address: int, remaining: int, width: int, max_beats: int) -> int:
    """Bytes of the burst that starts at `address` when `remaining` bytes of the run are left."""
    count = max_beats * width - (address & (width - 1))
    edge = BOUNDARY_BYTES - (address & (BOUNDARY_BYTES - 1))
    return min(remaining, min(count, edge))


@CACHED_RULE
def burst_beats(address: int, count: int, width: int) -> int:
    """Beats of `width` bytes that carry `count` bytes from `address` on; partial beats count."""
    return ((address & (width - 1)) + count + width - 1) // width


@CACHED_RULE
def source_address(t: Any, source: Any) -> int:
    """Where a source of background traffic asks for its next burst."""
    source.random = (source.random * 1103515245 + 12345) % 2147483648
    return (source.random // 16 * t.atom) % source.region


@CACHED_RULE
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


@CACHED_RULE
def flat_accept(request: int, last_accept: int, lead: int, data_free: int) -> tuple[int, int]:
    """(acceptance cycle, cycle of the first beat) of a burst on a flat channel."""
    accepted = max(request, last_accept + 1)
    return accepted, max(accepted + lead, data_free)


@CACHED_RULE
def flat_transfer(address: int, shape: Any, settings: Any,
                  ring: np.ndarray) -> tuple[int, int, int]:
    """(cycles from the first request to the last done, beats, bursts) of a transfer alone.

    Exact when no other unit uses the channel: the same recurrence as burst by burst, with the
    first request at cycle 0. `shape`: a record with row_bytes, rows, row_stride, planes and
    plane_stride; `settings`: one with width, max_beats, lead, trail, outstanding, overlap and
    run_setup, all of a unit. `ring`: scratch, at least `outstanding` long.
    """
    # Read once: every store into the ring could have changed a record, as far as LLVM knows.
    width, max_beats, lead, trail = (settings.width, settings.max_beats, settings.lead,
                                     settings.trail)
    outstanding, overlap, run_setup = (settings.outstanding, settings.overlap,
                                       settings.run_setup)
    row_bytes, rows, row_stride = shape.row_bytes, shape.rows, shape.row_stride
    accepted, done, data_free = -1, 0, 0
    total_beats, count, slot = 0, 0, 0
    shift = 0
    while (1 << shift) < width:
        shift += 1
    for index in range(outstanding):
        ring[index] = 0
    for plane in range(shape.planes):
        for row in range(rows):
            here = address + plane * shape.plane_stride + row * row_stride
            left = row_bytes
            new_run = count > 0
            while left > 0:
                request = 0
                if count:
                    request = next_request(accepted, done, ring[slot], new_run, overlap,
                                           run_setup)
                size = burst_bytes(here, left, width, max_beats)
                beats = ((here & (width - 1)) + size + width - 1) >> shift
                accepted, begin = flat_accept(request, accepted, lead, data_free)
                data_free = begin + beats
                done = data_free + trail
                ring[slot] = done
                slot += 1
                if slot == outstanding:
                    slot = 0
                count += 1
                total_beats += beats
                here += size
                left -= size
                new_run = False
    return done, total_beats, count

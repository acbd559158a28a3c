"""Times one program under thousands of settings at once on a GPU: the recurrence, a thread each.

Which token an operation takes does not depend on times. So `linearize` walks a program once, in
the order of `cosim.recurrence.cpu`, and writes down straight steps; every thread follows them with
its own durations. The results are those of `cosim.recurrence.cpu.Timer`. numba's CUDA target is
imported when a `CudaTimer` is made, never before: a process may fork until then.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cosim.executors.fast import SOURCES
from cosim.executors.fast_loop import bit_index
from cosim.executors.fast_state import COMPUTE, U_CHANNEL, U_KIND, U_OUTSTANDING
from cosim.memory.bursts import CACHED
from cosim.recurrence.cpu import DEEPEST, SETTINGS, Prepared

#: Ends that a thread holds at once: one a unit, and one for every operation whose tokens wait.
SLOTS = 64
#: Bursts that a master may have in flight at most.
MOST_OUTSTANDING = 32
#: Steps of a program at most, repeats written out.
MOST_STEPS = 1 << 22
#: Lanes whose tables stay on the GPU.
MOST_KEPT = 64
#: Threads of a block.
THREADS = 64
_NO_SOURCE = -1


class CudaError(ValueError):
    """There is no GPU to use, or no numba-cuda."""


@dataclass(frozen=True)
class Steps:
    """A program as a straight list of operations.

    `steps`: int32 (operations, 4): cycles, or -1 - row of `rows`; unit, which is the slot of the
    unit's end before; slot that keeps the end for its tokens, or -1; end of the operation's
    `sources`. `sources`: int32, slots of the ends that it waits for. `rows`: int64 (rows, 8): the
    shapes of `Prepared` and -1, then for every host row its unit, zeros and its number.
    """

    steps: np.ndarray
    sources: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Lanes:
    """The settings of L threads: unit tables and clocks, each different one once.

    `numbers`: int32 (units, L): number of the unit's setting; a computing unit's is the clock's.
    `settings`: int64 (units, most, 9), the columns of `SETTINGS`; `counts`: int64 (units,).
    `alone`: bool (L,): the recurrence holds, no two masters share a channel.
    """

    numbers: np.ndarray
    settings: np.ndarray
    counts: np.ndarray
    alone: np.ndarray


@dataclass(frozen=True)
class Job:
    """One program under some of the lanes. `host_cycles`: int64 (clocks, host rows)."""

    steps: Steps
    host_cycles: np.ndarray
    lanes: np.ndarray


def linearize(prepared: Prepared, units: int) -> Steps | None:
    """The straight steps; None if a token never comes or the program is too large for a GPU."""
    rows, starts, repeats = prepared.rows, prepared.starts, prepared.repeats
    count = int(((starts[:, -1] - starts[:, 0]) * repeats).sum())
    what = np.where(rows[:, 2] < 0, rows[:, 3], -1 - rows[:, 2])
    shapes, hosts = len(prepared.shapes), len(prepared.hosts)
    what[prepared.hosts] = -1 - shapes - np.arange(hosts)
    if count > MOST_STEPS or what.max(initial=0) > np.iinfo(np.int32).max or units >= SLOTS:
        return None
    waits = int(_BITS(rows, starts, repeats))
    steps, sources = np.empty((count, 4), np.int32), np.empty(waits, np.int32)
    used = _LINEARIZE(rows, what, starts, repeats, prepared.tokens, steps, sources,
                      np.empty((len(prepared.tokens), DEEPEST), np.int64),
                      np.zeros((len(prepared.tokens), 2), np.int64), np.zeros((units, 3), np.int64),
                      np.zeros(SLOTS, np.int64))
    if used < 0:
        return None
    table = np.zeros((shapes + hosts, 8), np.int64)
    table[:shapes, :7], table[:shapes, 7] = prepared.shapes, -1
    table[shapes:, 0] = _units_of_rows(starts, prepared.hosts)
    table[shapes:, 7] = np.arange(hosts)
    return Steps(steps, sources[:used].copy(), table)


def _units_of_rows(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Units of rows, given their places; `starts` ascends from segment to segment."""
    columns = starts.shape[1]
    unit = np.searchsorted(starts.ravel(), places, side="right") - 1
    return unit % columns


def lanes_of(units: np.ndarray, clocks: np.ndarray) -> Lanes:
    """Lanes of L unit tables, int64 (L, units, columns), and the number of each one's clock."""
    moves = units[0, :, U_KIND] != COMPUTE
    numbers = np.empty((units.shape[1], len(units)), np.int32)
    found: list[np.ndarray] = []
    for unit, move in enumerate(moves):
        if move:
            different, inverse = np.unique(units[:, unit, SETTINGS], axis=0, return_inverse=True)
            numbers[unit] = inverse.ravel()
        else:
            different = np.zeros((int(clocks.max()) + 1, len(SETTINGS)), np.int64)
            numbers[unit] = clocks
        found.append(different)
    counts = np.array([len(item) for item in found], np.int64)
    settings = np.zeros((len(found), int(counts.max()), len(SETTINGS)), np.int64)
    for unit, different in enumerate(found):
        settings[unit, : len(different)] = different
    channels = np.sort(units[:, moves, U_CHANNEL], axis=1)
    alone = (channels[:, 1:] != channels[:, :-1]).all(axis=1)
    alone &= (units[:, :, U_OUTSTANDING] <= MOST_OUTSTANDING).all(axis=1)
    return Lanes(numbers, settings, counts, alone)


class CudaTimer:
    """Times jobs on the GPU of this process. Make it after any fork; `CudaError` without a GPU."""

    def __init__(self) -> None:
        self.kernels = _kernels()
        self.known: dict[int, tuple[Lanes, list[Any]]] = {}

    def total_cycles(self, lanes: Lanes, jobs: Sequence[Job]) -> list[np.ndarray]:
        """int64 cycles of every job's lanes, in the order of its `lanes` (which must be `alone`).

        The lanes stay on the GPU for the next call.
        """
        if not jobs or not any(len(job.lanes) for job in jobs):
            return [np.empty(0, np.int64) for _ in jobs]
        cuda = self.kernels.cuda
        send = cuda.to_device
        kept = self.known.get(id(lanes))
        if kept is None:
            if len(self.known) >= MOST_KEPT:
                self.known.pop(next(iter(self.known)))
            kept = self.known[id(lanes)] = lanes, [
                send(item) for item in (lanes.numbers, lanes.settings, lanes.counts)]
        numbers, settings, counts = kept[1]
        rows = np.concatenate([job.steps.rows for job in jobs])
        steps = np.concatenate([*(job.steps.steps for job in jobs), np.zeros((2, 4), np.int32)])
        rows_at, steps_at, sources_at, lanes_at, hosts_at = (
            np.cumsum([0, *map(len, parts)]) for parts in (
                [job.steps.rows for job in jobs], [job.steps.steps for job in jobs],
                [job.steps.sources for job in jobs], [job.lanes for job in jobs],
                [job.host_cycles.T for job in jobs]))
        width = lanes.counts[rows[:, 0]]
        offsets = np.append(np.cumsum(width) - width, 0)
        for index in range(len(jobs)):
            hosts = rows[rows_at[index] : rows_at[index + 1], 7]
            hosts[hosts >= 0] += hosts_at[index]
            what = steps[steps_at[index] : steps_at[index + 1], 0]
            what[what < 0] = -1 - offsets[rows_at[index] - 1 - what[what < 0]]
        # A column more, so that there is one.
        host_cycles = np.concatenate([*(job.host_cycles for job in jobs), np.zeros(
            (len(jobs[0].host_cycles), 1), np.int64)], axis=1)
        blocks = np.array([(index, place) for index in range(len(jobs))
                           for place in range(lanes_at[index], lanes_at[index + 1], THREADS)])
        durations = cuda.device_array(max(1, int(width.sum())), np.int64)
        totals = cuda.device_array(int(lanes_at[-1]), np.int64)
        with warnings.catch_warnings():
            # Numba warns of every launch that does not fill the GPU; other processes do.
            warnings.filterwarnings("ignore", ".*Grid size")
            if len(rows):
                self.kernels.fill[len(rows), THREADS](send(rows), settings, counts, send(offsets),
                                                      send(host_cycles), durations)
            self.kernels.walk[len(blocks), THREADS](
                send(blocks), send(np.column_stack([steps_at[:-1], steps_at[1:], sources_at[:-1],
                                                    lanes_at[1:]])),
                send(np.concatenate([job.lanes for job in jobs]).astype(np.int32)), send(steps),
                send(np.concatenate([*(job.steps.sources for job in jobs),
                                     np.zeros(1, np.int32)])), numbers, durations, totals)
        return np.split(totals.copy_to_host(), lanes_at[1:-1])


def device_name() -> str:
    """Name of the GPU; `CudaError` if there is none."""
    name = getattr(_kernels().cuda.get_current_device(), "name", "numba's simulator")
    return name.decode() if isinstance(name, bytes) else str(name)


@cache
def _kernels() -> Any:
    """The module of the kernels, once there is a GPU for them."""
    try:
        from cosim.recurrence import cuda_kernels as recurrence_kernels
    except ImportError as error:
        raise CudaError(f"device 'cuda' needs numba-cuda ({error}); install the extra 'cuda', or "
                        "use the device 'cpu'") from None
    if not recurrence_kernels.cuda.is_available():
        raise CudaError("device 'cuda': numba finds no GPU (card, driver or numba-cuda missing); "
                        "use the device 'cpu'")
    return recurrence_kernels


def _build_bits(sources: int) -> Callable:
    @CACHED
    def bits(rows, starts, repeats):
        """Tokens that all operations wait for."""
        stamp = sources  # noqa: F841
        total = 0
        for segment in range(len(repeats)):
            for place in range(starts[segment, 0], starts[segment, starts.shape[1] - 1]):
                wait = rows[place, 0]
                while wait:
                    wait &= wait - 1
                    total += repeats[segment]
        return total

    return bits


def _build_linearize(digest: int) -> Callable:
    """Compile the walk; `digest` enters numba's cache key."""

    @CACHED
    def walk(rows, what, starts, repeats, initial, steps, sources, fifo, ends, state, uses):
        """Sources written, or -1. `fifo`: slots of tokens; `uses`: tokens that need a slot."""
        stamp = digest  # noqa: F841
        available = np.int64(0)
        for channel in range(len(initial)):
            ends[channel, 1] = initial[channel]
            for place in range(initial[channel]):
                fifo[channel, place & (DEEPEST - 1)] = _NO_SOURCE
            if initial[channel] > 0:
                available |= np.int64(1) << channel
        unit_count, segments = len(state), len(repeats)
        step, source = 0, 0
        for unit in range(unit_count):
            x = state[unit]  # segment, repeat, place
            while x[0] < segments and starts[x[0], unit] == starts[x[0], unit + 1]:
                x[0] += 1
            x[2] = starts[x[0], unit] if x[0] < segments else 0
        moved = True
        while moved:
            moved = False
            for unit in range(unit_count):
                x = state[unit]
                while x[0] < segments:
                    wait, signal = rows[x[2], 0], rows[x[2], 1]
                    if wait & ~available:
                        break
                    while wait:
                        low = wait & -wait
                        wait ^= low
                        channel = bit_index(low)
                        first = ends[channel, 0]
                        slot = fifo[channel, first & (DEEPEST - 1)]
                        if slot != _NO_SOURCE:
                            sources[source] = slot
                            source += 1
                            uses[slot] -= 1
                        ends[channel, 0] = first + 1
                        if first + 1 == ends[channel, 1]:
                            available ^= low
                    keep = -1
                    if signal:
                        keep = unit_count
                        while keep < len(uses) and uses[keep] > 0:
                            keep += 1
                        if keep == len(uses):
                            return -1
                    while signal:
                        low = signal & -signal
                        signal ^= low
                        channel = bit_index(low)
                        last = ends[channel, 1]
                        if last - ends[channel, 0] == DEEPEST:
                            return -1
                        fifo[channel, last & (DEEPEST - 1)] = keep
                        uses[keep] += 1
                        ends[channel, 1] = last + 1
                        available |= low
                    steps[step, 0], steps[step, 1] = what[x[2]], unit
                    steps[step, 2], steps[step, 3] = keep, source
                    step += 1
                    moved = True
                    x[2] += 1
                    while x[0] < segments and x[2] == starts[x[0], unit + 1]:
                        x[1] += 1
                        if x[1] == repeats[x[0]]:
                            x[0] += 1
                            x[1] = 0
                        if x[0] < segments:
                            x[2] = starts[x[0], unit]
        return source if step == len(steps) else -1

    return walk


_BITS = _build_bits(SOURCES)
_LINEARIZE = _build_linearize(SOURCES)

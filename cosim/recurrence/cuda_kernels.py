"""The two CUDA kernels of `cosim.recurrence.cuda`, which imports them once it needs a GPU.

They run in numba's simulator too (`NUMBA_ENABLE_CUDASIM=1`). The memory's rules are the Python
functions that the CPU compiles.
"""

from __future__ import annotations

from types import FunctionType

import numpy as np
from numba import cuda

from cosim.compiled import plain
from cosim.memory import bursts as memory_rules
from cosim.recurrence.lanes import MOST_OUTSTANDING, SLOTS

_RULES = {name: cuda.jit(device=True)(plain(getattr(memory_rules, name)))
          for name in ("burst_bytes", "next_request", "flat_accept")}
_FLAT = plain(memory_rules.flat_transfer)
_transfer = cuda.jit(device=True)(FunctionType(_FLAT.__code__, {**_FLAT.__globals__, **_RULES}))


@cuda.jit
def fill(rows, settings, counts, offsets, host_cycles, durations):
    """One block a row: what it takes under every setting of its unit."""
    ring = cuda.local.array(MOST_OUTSTANDING, np.int64)
    place = cuda.blockIdx.x
    row = rows[place]
    for number in range(cuda.threadIdx.x, counts[row.unit], cuda.blockDim.x):
        if row.host >= 0:
            durations[offsets[place] + number] = host_cycles[number, row.host]
        else:
            setting = settings[row.unit, number]
            taken, _, _ = _transfer(row.offset, row, setting, ring)
            durations[offsets[place] + number] = taken + setting.setup + setting.tail


@cuda.jit
def walk(blocks, programs, lanes, steps, sources, numbers, durations, totals):
    """One thread a lane: the ends of all operations, the last of them to `totals`.

    A warp waits where a value is used that was just asked for, so a step is read two steps ahead
    and its duration one. `steps` is two rows longer than its programs.
    """
    ends = cuda.local.array(SLOTS, np.int64)
    program = blocks[cuda.blockIdx.x, 0]
    place = blocks[cuda.blockIdx.x, 1] + cuda.threadIdx.x
    if place < programs[program, 3]:
        lane = lanes[place]
        for slot in range(numbers.shape[0]):
            ends[slot] = 0
        last = ends[0]
        first = programs[program, 0]
        first_source = programs[program, 2]
        source = first_source
        what, unit, keep, until = (np.int64(steps[first, 0]), steps[first, 1], steps[first, 2],
                                   steps[first, 3])
        cycles = what
        if what < 0:
            cycles = durations[numbers[unit, lane] - 1 - what]
        what, unit_1, keep_1, until_1 = (np.int64(steps[first + 1, 0]), steps[first + 1, 1],
                                         steps[first + 1, 2], steps[first + 1, 3])
        number = numbers[unit_1, lane]
        for index in range(first, programs[program, 1]):
            what_2, unit_2, keep_2, until_2 = (
                np.int64(steps[index + 2, 0]), steps[index + 2, 1], steps[index + 2, 2],
                steps[index + 2, 3])
            cycles_1 = what
            if what < 0:
                cycles_1 = durations[number - 1 - what]
            now = ends[unit]
            while source < first_source + until:
                now = max(now, ends[sources[source]])
                source += 1
            now += cycles
            ends[unit] = now
            if keep >= 0:
                ends[keep] = now
            last = max(last, now)
            number = numbers[unit_2, lane]
            cycles, unit, keep, until = cycles_1, unit_1, keep_1, until_1
            what, unit_1, keep_1, until_1 = what_2, unit_2, keep_2, until_2
        totals[place] = last

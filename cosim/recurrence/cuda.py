"""Times one program under thousands of settings at once on a GPU: the recurrence, a thread each.

Every thread follows the steps of `cosim.recurrence.lanes` with its own durations. The results are
those of `cosim.recurrence.cpu.Timer`. numba's CUDA target is imported when a `CudaTimer` is made,
never before: a process may fork until then.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from cosim.recurrence.lanes import Lanes, Steps

#: Lanes whose tables stay on the GPU.
MOST_KEPT = 64
#: Threads of a block.
THREADS = 64


class CudaError(ValueError):
    """There is no GPU to use, or no numba-cuda."""


@dataclass(frozen=True)
class Job:
    """One program under some of the lanes. `host_cycles`: int64 (clocks, host rows)."""

    steps: Steps
    host_cycles: np.ndarray
    lanes: np.ndarray


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
        width = lanes.counts[rows["unit"]]
        offsets = np.append(np.cumsum(width) - width, 0)
        for index in range(len(jobs)):
            hosts = rows["host"][rows_at[index] : rows_at[index + 1]]
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

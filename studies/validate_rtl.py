"""Runs the same programs on compiled RTL and on the executors and counts differing cycles.

It fits nothing and holds no hardware; see `hw.rtl_timed` for the model that runs programs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from arch_models.memory import Memory
from cosim import des, fast
from cosim.program import Program
from cosim.random_programs import random_memory, random_program
from cosim.result import SimResult
from hw.rtl_simulate import RtlError
from hw.rtl_timed import RtlRun, TimedBench, buildable
from studies.errors import UserError
from studies.files import check_writable, write_json


@dataclass(frozen=True)
class Comparison:
    """Counts over everything that ran, and simulated cycles a second of wall time.

    An operation differs if its start or its end does. `counters_differing`: hardware counters
    (busy, idle, memory stall, stall by channel, per unit) that are not those of `SimResult`.
    """

    programs: int = 0
    programs_skipped: int = 0
    operations_compared: int = 0
    operations_differing: int = 0
    counters_compared: int = 0
    counters_differing: int = 0
    cycles_compared: int = 0
    bytes_compared: int = 0
    bytes_differing: int = 0
    verilator_cycles_per_s: float = 0.0
    des_cycles_per_s: float = 0.0
    fast_cycles_per_s: float = 0.0

    @property
    def equal(self) -> bool:
        """Was something compared, and nothing different?"""
        return self.operations_compared > 0 and not (
            self.operations_differing or self.counters_differing or self.bytes_differing)


@dataclass
class _Clock:
    """Wall time of the three simulators over the same cycles."""

    verilator: float = 0.0
    des: float = 0.0
    fast: float = 0.0


def differing_operations(run: RtlRun, result: SimResult) -> np.ndarray:
    """Indices of operations whose start or end differs."""
    assert result.trace is not None
    return np.flatnonzero((run.trace.start != result.trace.start)
                          | (run.trace.end != result.trace.end))


def differing_counters(run: RtlRun, result: SimResult) -> tuple[int, int]:
    """(compared, differing) performance counters."""
    pairs = ((run.busy, result.busy), (run.idle, result.idle),
             (run.memory_stall, result.memory_stall), (run.token_stall, result.token_stall))
    return (sum(mine.size for mine, _ in pairs),
            sum(int((mine != theirs).sum()) for mine, theirs in pairs))


def compare_programs(count: int, seed: int, bench: TimedBench, keep: Path | None = None
                     ) -> Comparison:
    """Run `count` random programs from `seed` on; those too large for the model are skipped.

    `keep`: folder that gets a text file with the seed of every program that differs.
    """
    clock, totals = _Clock(), np.zeros(6, np.int64)
    skipped = 0
    for number in range(seed, seed + count):
        memory = random_memory(number)
        program = buildable(random_program(number, len(memory.ports)))
        if not bench.fits(program):
            skipped += 1
            continue
        run, result = _run_all(program, memory, bench, clock)
        different = differing_operations(run, result)
        counters = differing_counters(run, result)
        totals += (len(run.trace.start), len(different), *counters, run.total_cycles,
                   run.total_cycles != result.total_cycles)
        if keep is not None and (len(different) or counters[1]):
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"rtl-{number}.txt").write_text(
                f"seed {number}, operations {different.tolist()}, counters {counters[1]}\n")
    cycles = int(totals[4])
    return Comparison(
        count - skipped, skipped, int(totals[0]), int(totals[1] + totals[5]), int(totals[2]),
        int(totals[3]), cycles, 0, 0, _rate(cycles, clock.verilator), _rate(cycles, clock.des),
        _rate(cycles, clock.fast))


def _run_all(program: Program, memory: Memory, bench: TimedBench, clock: _Clock
             ) -> tuple[RtlRun, SimResult]:
    begin = time.perf_counter()
    result = fast.simulate(program, memory, trace=True)
    middle = time.perf_counter()
    run = bench.run(program, memory, result.total_cycles + 1000)
    after = time.perf_counter()
    des.simulate(program, memory)
    clock.fast += middle - begin
    clock.verilator += after - middle
    clock.des += time.perf_counter() - after
    return run, result


def _rate(cycles: int, seconds: float) -> float:
    return round(cycles / seconds, 1) if seconds else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """`cosim validate rtl`: 0 if nothing differs, 1 if something does, 2 for a bad argument."""
    parser = argparse.ArgumentParser(prog="cosim validate rtl", description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the seeds of failing programs")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.programs < 0 or chosen.seed < 0:
            raise UserError("programs and seed must not be negative")
        if chosen.json is not None:
            check_writable(chosen.json)
        bench = TimedBench()
        _warm()
        found = compare_programs(chosen.programs, chosen.seed, bench, chosen.keep)
    except (UserError, RtlError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for item in fields(found):
        print(f"{item.name.replace('_', ' '):28} {getattr(found, item.name):>16,}")
    if chosen.json is not None:
        write_json(chosen.json, asdict(found))
    return 0 if found.equal else 1


def _warm() -> None:
    """Compile the numba executor outside the timed part."""
    memory = random_memory(0)
    fast.simulate(random_program(0, len(memory.ports)), memory, trace=True)


if __name__ == "__main__":
    raise SystemExit(main())

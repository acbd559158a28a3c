"""Runs the same programs on compiled RTL and on the executors and counts what differs.

It fits nothing and holds no hardware; `hw.rtl_sim.timed` and `hw.rtl_sim.program` run the RTL.

Three parts: random programs for control and transfers, on a test model without data; random
tiles through every engine of a design, with data; and, if asked for, a whole frame of a network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from arch_models.board import Board, load_board
from arch_models.clock import clocked
from arch_models.fields import FieldError
from arch_models.memory import Memory, memory_for
from arch_models.overlay import Overlay, load_overlay
from arch_models.resources import check_masters
from cosim.analysis import interpret
from cosim.analysis.image import MemoryImage
from cosim.executors import des, fast
from cosim.lowering.wiring import units_of
from cosim.mapping.choose import check_channels
from cosim.program.random import random_memory, random_program
from cosim.program.result import SimResult
from cosim.program.table import Program
from hw.interface.configuration import EmissionError
from hw.interface.descriptors import DescriptorError
from hw.interface.vectors import make_vectors, outputs
from hw.rtl.overlay_top import check_buildable
from hw.rtl_sim.cache import default_cache
from hw.rtl_sim.model import RtlError
from hw.rtl_sim.program import OverlayBench, with_descriptors
from hw.rtl_sim.tiles import random_tiles
from hw.rtl_sim.timed import RtlRun, TimedBench, buildable
from studies.evaluation.emission import whole_frame
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_json
from workloads.graph import Graph, GraphError
from workloads.library import load

Host = Callable[[int, np.ndarray], None]
TILES_A_PROGRAM = 45


@dataclass(frozen=True)
class Seconds:
    """Wall time of the three simulators over the same cycles."""

    verilator: float = 0.0
    des: float = 0.0
    fast: float = 0.0

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.verilator + other.verilator, self.des + other.des,
                       self.fast + other.fast)


@dataclass(frozen=True)
class Comparison:
    """Counts over everything that ran.

    An operation differs if its start or its end does; a total that differs counts as one more.
    `counters`: hardware counters (busy, idle, memory stall, stall by channel, per unit) against
    `SimResult`. `bytes`: of the whole memory after the run.
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
    seconds: Seconds = Seconds()

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(*(getattr(self, item.name) + getattr(other, item.name)
                            for item in fields(self)))

    @property
    def equal(self) -> bool:
        """Was something compared, and nothing different?"""
        return self.operations_compared > 0 and not (
            self.operations_differing or self.counters_differing or self.bytes_differing)

    def summary(self) -> dict[str, int | float]:
        """The counts, and simulated cycles a second of wall time by simulator."""
        found: dict[str, int | float] = {
            item.name: getattr(self, item.name) for item in fields(self)
            if item.name != "seconds"}
        for item in fields(Seconds):
            found[f"{item.name}_cycles_per_s"] = _rate(
                self.cycles_compared, getattr(self.seconds, item.name))
        return found


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


def compare_programs(count: int, seed: int, bench: TimedBench, keep: Path | None = None,
                     model: str = "flat") -> Comparison:
    """Run `count` random programs from `seed` on; those too large for the model are skipped.

    `keep`: folder that gets a text file with the seed of every program that differs.
    """
    total, skipped = Comparison(), 0
    for number in range(seed, seed + count):
        memory = random_memory(number, model)
        program = buildable(random_program(number, len(memory.ports)))
        if not bench.fits(program):
            skipped += 1
            continue
        found = compare_run(program, memory, bench.run)
        total = total + found
        if keep is not None and not found.equal:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"rtl-{number}.txt").write_text(f"seed {number}: {asdict(found)}\n")
    return replace(total, programs_skipped=skipped)


def compare_run(program: Program, memory: Memory,
                run_rtl: Callable[[Program, Memory, int], RtlRun]) -> Comparison:
    """One program: `fast` says the cycles, `run_rtl(program, memory, limit)` is the hardware."""
    begin = time.perf_counter()
    result = fast.simulate(program, memory, trace=True)
    middle = time.perf_counter()
    run = run_rtl(program, memory, result.total_cycles + 1000)
    after = time.perf_counter()
    des.simulate(program, memory)
    end = time.perf_counter()
    counters = differing_counters(run, result)
    different = len(differing_operations(run, result)) + (run.total_cycles != result.total_cycles)
    return Comparison(1, 0, len(run.trace.start), different, *counters, run.total_cycles,
                      seconds=Seconds(after - middle, end - after, middle - begin))


def compare_image(program: Program, memory: Memory, image: np.ndarray, bench: OverlayBench,
                  overlay: Overlay, host: Host) -> tuple[Comparison, np.ndarray]:
    """One program with data. The bytes are those of `cosim.analysis.interpret`; the RTL's image is
    returned too, with the descriptors behind it if the program fetches them."""
    image = with_descriptors(program, image)
    expected = image.copy()
    interpret.run(program, interpret.Machine(overlay, expected, host))
    found = compare_run(program, memory,
                        lambda what, where, limit: bench.run(what, where, image, host, limit))
    return replace(found, bytes_compared=image.size,
                   bytes_differing=int(np.count_nonzero(image != expected))), image


def compare_tiles(count: int, seed: int, overlay: Overlay, board: Board,
                  model: str = "flat") -> Comparison:
    """Random tiles through every engine of an overlay, in programs of TILES_A_PROGRAM."""
    memory = memory_for(board, overlay, model=model)
    total, bench = Comparison(), None
    for index, first in enumerate(range(0, count, TILES_A_PROGRAM)):
        program, image = random_tiles(overlay, board, min(TILES_A_PROGRAM, count - first),
                                      seed + index)
        if bench is None:
            bench = OverlayBench(program, overlay)
        total = total + compare_image(program, memory, image, bench, overlay, _no_host)[0]
    return total


def compare_frame(graph: Graph, overlay: Overlay, board: Board, seed: int = 0,
                  model: str = "flat") -> Comparison:
    """One frame as `cosim emit` writes it, data and all; outputs are compared with the reference
    as well.

    Host layers compute with the reference. Raises `UserError` if the design cannot run it.
    """
    frame = whole_frame(graph, overlay, board)
    graph, overlay, lowered = frame.graph, frame.overlay, frame.lowered
    given = make_vectors(graph, lowered, seed, frame.given.inputs)
    image = MemoryImage.start(graph, lowered, overlay, given.inputs)
    found, after = compare_image(
        lowered.program, memory_for(board, overlay, model=model), image.data,
        OverlayBench(lowered.program, overlay), overlay,
        lambda index, data: image.over(data).run_host(index))
    image = image.over(after)
    wrong = sum(int(np.count_nonzero(image.get(name) != given.expected[name]))
                for name in outputs(graph, lowered))
    return replace(found, bytes_differing=found.bytes_differing + wrong)


def _no_host(index: int, image: np.ndarray) -> None:
    raise AssertionError("tiles have no host operations")


def _rate(cycles: int, seconds: float) -> float:
    return round(cycles / seconds, 1) if seconds else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """`cosim validate rtl`: 0 if nothing differs, 1 if something does, 2 for a bad argument."""
    parser = argparse.ArgumentParser(prog="cosim validate rtl", description=__doc__)
    parser.add_argument("--design", default="default", help="design file, or a shipped design")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--tiles", type=int, default=90)
    parser.add_argument("--network", help="also run one frame of a shipped network, as emitted")
    parser.add_argument("--steps", type=int, help="sampler steps of that frame, if it has any")
    parser.add_argument("--memory", choices=("flat", "ddr3"), default="flat",
                        help="memory of programs, tiles and frames")
    parser.add_argument("--board", default="pynq-z1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the seeds of failing programs")
    chosen = parser.parse_args(arguments)
    try:
        for name in ("programs", "tiles", "seed"):
            if getattr(chosen, name) < 0:
                raise UserError(f"--{name} is {getattr(chosen, name)}, must not be negative")
        if chosen.steps is not None and chosen.steps < 1:
            raise UserError(f"--steps is {chosen.steps}, must be at least 1")
        if chosen.json is not None:
            check_writable(chosen.json)
        board = load_board(chosen.board)
        overlay = clocked(load_overlay(chosen.design), board)
        found = _validate(chosen, overlay, board)
    except (UserError, FieldError, EmissionError, DescriptorError, GraphError,
            RtlError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = found.summary()
    if chosen.json is not None:
        write_json(chosen.json, shown)
    for name, value in shown.items():
        print(f"{name.replace('_', ' '):28} {value:>16,}")
    print(f"compiled models are kept in {default_cache()}; make clean empties it")
    return 0 if found.equal else 1


def _validate(chosen: argparse.Namespace, overlay: Overlay, board: Board) -> Comparison:
    if refused := check_masters(overlay.masters, board) or check_channels(overlay):
        raise UserError(str(refused))
    check_buildable(units_of(overlay, board), overlay)
    warm = random_memory(0)
    fast.simulate(random_program(0, len(warm.ports)), warm, trace=True)  # compiles, untimed
    total = Comparison()
    if chosen.programs:
        total = total + compare_programs(chosen.programs, chosen.seed, TimedBench(), chosen.keep,
                                         chosen.memory)
    if chosen.tiles:
        total = total + compare_tiles(chosen.tiles, chosen.seed, overlay, board,
                                      chosen.memory)
    if chosen.network:
        graph = load(chosen.network)
        if chosen.steps is not None and graph.steps > 1:
            graph = replace(graph, steps=chosen.steps)
        total = total + compare_frame(graph, overlay, board, chosen.seed, chosen.memory)
    return total


if __name__ == "__main__":
    raise SystemExit(main())

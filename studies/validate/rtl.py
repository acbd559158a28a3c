"""Runs the same programs on compiled RTL and on the executors and counts what differs.

It fits nothing and holds no hardware; `hw.rtl_sim.timed` and `hw.rtl_sim.program` run the RTL.

Three parts: random programs for control and transfers, on a test model without data; random
tiles through every engine of a design, with data; and, if asked for, a whole frame of a network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from arch_models.board import Board
from arch_models.clock import clocked
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
from studies.evaluation import inputs
from studies.evaluation.emission import whole_frame
from studies.plain.errors import UserError
from workloads.graph import Graph

Host = Callable[[int, np.ndarray], None]
TILES_A_PROGRAM = 45
BOARD = "pynq-z1"


#: Counts and rates by their names.
Counts = dict[str, int | float]


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

    def summary(self) -> Counts:
        """The counts, and simulated cycles a second of wall time by simulator."""
        found: Counts = {
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


@dataclass(frozen=True)
class Request:
    """What to compare: so many random programs and tiles of a design, and a frame if asked for.

    `steps`: sampler steps of that frame. `memory`: "flat" or "ddr3". `seed` repeats all inputs.
    `reading`: how the network is read if it is an .onnx file. `board`: its ports and its memory.
    """

    design: str = "default"
    programs: int = 200
    tiles: int = 90
    network: str | None = None
    steps: int | None = None
    memory: str = "flat"
    seed: int = 0
    reading: inputs.Reading = inputs.PLAIN
    board: str = BOARD


def run(request: Request) -> Comparison:
    """Run everything that is asked for on both; `UserError` for what cannot be built."""
    board = inputs.board(request.board)
    try:
        overlay = clocked(load_overlay(request.design), board)
        return _compared(request, overlay, board)
    except (EmissionError, DescriptorError, RtlError) as error:
        raise UserError(str(error)) from error


def report(found: Comparison) -> str:
    """What was compared and what differs, one figure a line."""
    lines = [f"{name.replace('_', ' '):28} {value:>16,}"
             for name, value in found.summary().items()]
    return "\n".join([*lines, f"compiled models are kept in {default_cache()}; make clean empties "
                      "it"])


def _compared(request: Request, overlay: Overlay, board: Board) -> Comparison:
    if refused := check_masters(overlay.masters, board) or check_channels(overlay):
        raise UserError(str(refused))
    check_buildable(units_of(overlay, board), overlay)
    warm = random_memory(0)
    fast.simulate(random_program(0, len(warm.ports)), warm, trace=True)  # compiles, untimed
    total = Comparison()
    if request.programs:
        total = total + compare_programs(request.programs, request.seed, TimedBench(), None,
                                         request.memory)
    if request.tiles:
        total = total + compare_tiles(request.tiles, request.seed, overlay, board, request.memory)
    if request.network:
        graph = inputs.workload(request.network, request.reading)
        if request.steps is not None and graph.steps > 1:
            graph = replace(graph, steps=request.steps)
        total = total + compare_frame(graph, overlay, board, request.seed, request.memory)
    return total

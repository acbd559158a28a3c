"""Evaluates one design: map, lower, simulate, then energy and resources. Everything predicted.

It has no memory model or timing of its own: cycles come from the cosim room, joules and sites
from the coefficients of the arch_models room.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from arch_models.board import Board
from arch_models.clock import basis, clocked, predict
from arch_models.engines import Resources, engines_that_run
from arch_models.memory import Memory, memory_for
from arch_models.overlay import Infeasible, Overlay, Rate, overlay_toml
from arch_models.power.energy import energy
from arch_models.resources import check, sites_basis, sites_of
from cosim.analysis.bounds import bounds
from cosim.build import build
from cosim.executors import des, fast
from cosim.lowering.lower import Lowered
from cosim.mapping.choose import work_of
from cosim.mapping.tiles import Mapping
from cosim.program.result import SimResult
from cosim.program.table import UnitKind
from studies.evaluation.activity import Counts, count
from studies.evaluation.layers import layer_times, unit_times
from studies.evaluation.values import ClockReport, Displaced, Evaluation, LayerReport, Resource
from studies.plain.errors import UserError, unknown
from workloads.graph import Graph

__all__ = ["Evaluation", "Infeasible", "Run", "estimated_resources", "evaluate", "feasible",
           "simulate_design"]

T = TypeVar("T")
EXECUTORS = {"fast": fast.simulate, "des": des.simulate}
STEADY_FRAMES = 3


@dataclass(frozen=True)
class Run:
    """One simulated program with everything it was made from."""

    lowered: Lowered
    memory: Memory
    result: SimResult


def feasible(value: T | Infeasible) -> T:
    """The value itself, or `UserError` with the reason when the design is infeasible."""
    if isinstance(value, Infeasible):
        raise UserError(f"the design does not work out: {value}")
    return value


def estimated_resources(overlay: Overlay, board: Board,
                        total: Resources | None = None) -> tuple[Resource, ...]:
    """Estimated DSP, BRAM36, LUT and FF against the board's, the block design's included."""
    total = total or sites_of(overlay)
    return tuple(Resource(name.upper(), float(getattr(total, name)), getattr(board.part, name))
                 for name in ("dsp", "bram36", "lut", "ff"))


def pixels(graph: Graph) -> int:
    """Positions of the largest output: the picture's pixels."""
    return max(graph.tensors[name].positions for name in graph.outputs)


def simulate_design(graph: Graph, overlay: Overlay, board: Board, memory: str = "flat",
                    frames: int = 1, executor: str = "fast", trace: bool = False,
                    steps: int | None = None) -> Run | Infeasible:
    """Build and simulate frames of a graph; `executor` is `fast` or `des`.

    `steps`: sampler steps of a frame, the graph's own number if None.
    """
    if executor not in EXECUTORS:
        raise unknown("executor", executor, tuple(EXECUTORS))
    overlay = clocked(overlay, board)
    lowered = build(graph, overlay, board, frames, steps)
    if isinstance(lowered, Infeasible):
        return lowered
    system = memory_for(board, overlay, memory)
    return Run(lowered, system, EXECUTORS[executor](lowered.program, system, trace))


def evaluate(graph: Graph, overlay: Overlay, board: Board, memory: str = "flat",
             frames: int = STEADY_FRAMES, detail: bool = False) -> Evaluation | Infeasible:
    """Predict latency, period, energy and resources of one frame of a graph on an overlay.

    `frames`: with 1 there is no period (fastest); with more, a second program with that many
    frames in a row gives it. `detail` adds layers and the design file. A design that does not
    fit the board or cannot hold a layer's smallest tile comes back as `Infeasible`.

    A graph with sampler steps has no period: its frames do not overlap. Its layers are those of
    a frame with one step, so a step's layers are counted once.

    Energy is that of one frame by itself, from first in to last out, whatever `frames` is.
    """
    overlay = clocked(overlay, board)
    misfit = check(overlay, board)
    if misfit is not None:
        return misfit
    sampled = graph.steps > 1
    run = simulate_design(graph, overlay, board, memory, trace=detail and not sampled)
    if isinstance(run, Infeasible):
        return run
    once = run
    if detail and sampled:
        traced = simulate_design(graph, overlay, board, memory, trace=True, steps=1)
        if isinstance(traced, Infeasible):
            return traced
        once = traced
    period = None
    if frames > 1 and not sampled:
        steady = simulate_design(graph, overlay, board, memory, frames)
        if isinstance(steady, Infeasible):
            return steady
        period = period_cycles(steady.result)
    program, result = run.lowered.program, run.result
    counts = count(run.lowered, result.layer_bytes, overlay)
    once_counts = counts if once is run else count(
        once.lowered, once.result.layer_bytes, overlay)
    ddr3 = run.memory.model == "ddr3"
    spent = energy(counts.activity(int(result.total_cycles), overlay.clock_hz,
                                   int(result.row_misses) if ddr3 else None), overlay, board)
    moved = _bytes(run)
    return Evaluation(
        workload=graph.name, board=board.name, overlay=overlay.name, memory_model=memory,
        clock_hz=overlay.clock_hz, clock=clock_of(overlay, board),
        frames=1 if sampled else frames, pixels=pixels(graph),
        latency_cycles=result.total_cycles, period_cycles=period,
        macs=int(result.layer_macs.sum()), peak_macs_per_cycle=overlay.macs_per_cycle,
        bytes_read=moved[0], bytes_written=moved[1], bursts=int(result.layer_bursts.sum()),
        operations=int(result.operations.sum()), row_hits=int(result.row_hits),
        row_misses=int(result.row_misses), refreshes=int(result.refreshes),
        lower_bound_cycles=bounds(program, run.memory).cycles if detail else 0,
        energy=spent, resources=estimated_resources(overlay, board),
        units=unit_times(program, result), program_hash=program.content_hash() if detail else "",
        layers=_layers(graph, overlay, board, once, once_counts) if detail else (),
        design_file=overlay_toml(overlay) if detail else "",
        step_cycles=(result.total_cycles - once.result.total_cycles) // (graph.steps - 1)
        if detail and sampled else None,
        displaced=displaced(graph, overlay, run.lowered.mapping), unchecked=board.unchecked,
        sites_basis=sites_basis(overlay))


def at_clock(overlay: Overlay, clock_hz: int) -> Overlay:
    """The design at a rate that is assumed, for a comparison at one clock."""
    return replace(overlay, clock_hz=clock_hz, rate=Rate.FIXED, build="")


def displaced(graph: Graph, overlay: Overlay, mapping: Mapping) -> tuple[Displaced, ...]:
    """The layers on the host whose engine is in fabric: something of it is too small for them."""
    found = []
    for item in mapping.layers:
        if item.engine is None:
            there = [model.engine.value for model in engines_that_run(
                work_of(graph, graph.layer(item.name))) if model.engine in overlay.engines]
            found += [Displaced(item.name, name, item.why_host) for name in there[:1]]
    return tuple(found)


def clock_of(overlay: Overlay, board: Board) -> ClockReport:
    """What stands behind the overlay's rate."""
    found = predict(overlay, board)
    return ClockReport(basis(overlay, board).value, found.mhz, found.low_mhz, found.high_mhz)


def period_cycles(result: SimResult) -> int:
    """Cycles from the end of one steady frame to the end of the next (the last two)."""
    ends = result.segment_end
    if len(ends) < 2:
        return int(result.total_cycles)
    return int(ends[-1] - ends[-2])


def _bytes(run: Run) -> tuple[int, int]:
    kinds = [unit.kind for unit in run.lowered.program.units]
    table = run.result.layer_bytes.sum(axis=0)
    reads = np.array([kind == UnitKind.READ for kind in kinds])
    writes = np.array([kind == UnitKind.WRITE for kind in kinds])
    return int(table[reads].sum()), int(table[writes].sum())


def _layers(graph: Graph, overlay: Overlay, board: Board, run: Run, counts: Counts
            ) -> tuple[LayerReport, ...]:
    """Layers with their energy: their own counts, their share of the time, and row misses by
    bytes, so that the layers' energies sum to the frame's."""
    program, result = run.lowered.program, run.result
    operators = {layer.name: str(layer.operator.value) for layer in graph.layers}
    total_bytes = max(1, int(result.layer_bytes.sum()))
    reports = []
    for item in layer_times(program, result):
        mapped = run.lowered.mapping.layer(item.name)
        index = program.layers.index(item.name)
        moved = int(result.layer_bytes[index].sum())
        misses = round(result.row_misses * moved / total_bytes)
        spent = energy(counts.activity(
            item.cycles, overlay.clock_hz, misses if run.memory.model == "ddr3" else None,
            slice(index, index + 1)), overlay, board)
        reports.append(LayerReport(
            item.name, operators.get(item.name, "host"), item.main_unit,
            mapped.absorbed if mapped else (), item.start_cycles, item.cycles, item.macs,
            item.bytes_read, item.bytes_written,
            item.macs / (max(1, item.cycles) * overlay.macs_per_cycle), item.bound,
            spent.total_j, item.units))
    return tuple(reports)

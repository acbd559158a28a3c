"""Writes a design as HLS C++ for a network, and runs that C++ against the integer reference.

It generates no code and compiles nothing by itself; the hw room does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from arch_models.board import Board
from arch_models.overlay import Overlay
from arch_models.resources import check
from cosim.lower import Lowered, lower
from cosim.mapping import choose_mapping
from hw.configuration import EmissionError
from hw.emit import emit
from hw.fabric import SimulationError
from hw.simulate import CSimReport, run_frame, run_frame_by_layer, run_layers
from studies.errors import UserError
from studies.evaluate import FRAME, feasible
from workloads.graph import Graph


@dataclass(frozen=True)
class Emitted:
    """An emitted project: how many files, and where."""

    files: int
    folder: Path


def lowered_frame(graph: Graph, overlay: Overlay, board: Board) -> Lowered:
    """One frame of the graph on the design; `UserError` if the design does not work out, or the
    graph has sampler steps (the host must carry values between them, which no stretch does)."""
    if graph.steps > 1:
        raise UserError(f"{graph.name} runs {graph.steps} sampler steps a frame, and networks with "
                        "steps are not emitted yet. Emit one without, for example agc-w16.")
    misfit = check(overlay, board)
    if misfit is not None:
        feasible(misfit)
    return lower(graph, overlay, board, feasible(choose_mapping(graph, overlay, FRAME, board)))


def emit_for(graph: Graph, overlay: Overlay, board: Board, folder: Path) -> Emitted:
    """Write the C++, descriptors, weights, inputs and test bench of one frame to a folder."""
    lowered = lowered_frame(graph, overlay, board)
    try:
        emit(lowered, graph, overlay, board, folder)
    except EmissionError as error:
        raise UserError(f"this design cannot be emitted: {error}") from error
    return Emitted(sum(path.is_file() for path in folder.rglob("*")), folder)


def check_emitted(graph: Graph, overlay: Overlay, board: Board) -> CSimReport:
    """Run one whole frame in C, then once more layer by layer, and compare with the reference.

    The first run checks the picture under the units' own order, the second every tensor that
    reaches memory. `UserError` if the C++ does not compile or stops.
    """
    lowered = lowered_frame(graph, overlay, board)
    try:
        return run_frame(lowered, graph, overlay) + run_frame_by_layer(lowered, graph, overlay)
    except (EmissionError, SimulationError) as error:
        raise UserError(f"the C simulation did not finish: {error}") from error


def check_layers(graph: Graph, overlay: Overlay, board: Board) -> CSimReport:
    """Run one layer of each distinct shape in C, at full size, and compare with the reference."""
    try:
        return run_layers(graph, overlay, board)
    except (EmissionError, SimulationError) as error:
        raise UserError(f"the C simulation did not finish: {error}") from error

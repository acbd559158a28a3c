"""Writes a design as HLS C++ for a network, and runs that C++ against the integer reference.

It generates no code and compiles nothing by itself; the hw room does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.literature import Origin
from arch_models.overlay import Overlay, Rate
from arch_models.resources import check
from cosim.build import build
from cosim.lowering.lower import Lowered
from hw.csim.fabric import SimulationError
from hw.csim.simulate import CSimReport, run_frame, run_frame_by_layer, run_layers
from hw.interface.configuration import EmissionError
from hw.project.emit import emit
from hw.project.folder import check_target
from hw.project.scripts import check_family
from studies.evaluation.remedy import held
from studies.plain.errors import UserError
from workloads import frames
from workloads.frames import Frame
from workloads.graph import Graph, GraphError

#: Integers of a frame's inputs by tensor, or None for those that `workloads.frames` knows.
Given = Mapping[str, np.ndarray] | None


@dataclass(frozen=True)
class Emitted:
    """An emitted project: how many files, and where."""

    files: int
    folder: Path


@dataclass(frozen=True)
class WholeFrame:
    """One frame that runs without a caller: its graph, the design at the rate that it runs at,
    its program, and its inputs."""

    graph: Graph
    overlay: Overlay
    lowered: Lowered
    given: Frame


def whole_frame(graph: Graph, overlay: Overlay, board: Board,
                given: Given = None) -> WholeFrame:
    """What `emit` writes and what `--check` and `validate rtl` run (`workloads.frames`).

    `UserError` if nobody said how the network's sampler steps are tied, or if the design does not
    work out.
    """
    try:
        whole, frame = frames.whole_frame(graph, given)
    except GraphError as error:
        raise UserError(f"{graph.name} runs {graph.steps} sampler steps a frame and cannot be "
                        f"emitted: {error}") from error
    if overlay.origin is not Origin.OWN:
        raise UserError(f"the design {overlay.name!r} cannot be emitted: its origin is "
                        f"{overlay.origin.value!r}, so it describes hardware that is not ours.")
    # The project is of one rate, whatever is predicted later.
    overlay = replace(clocked(overlay, board), rate=Rate.FIXED)
    return WholeFrame(whole, overlay, lowered_frame(whole, overlay, board), frame)


def lowered_frame(graph: Graph, overlay: Overlay, board: Board,
                  steps: int | None = None) -> Lowered:
    """One frame of the graph as it is, of a design at its rate; `UserError` if it doesn't work out.

    `steps`: as in `cosim.build.build`.
    """
    found = check(overlay, board) or build(graph, overlay, board, steps=steps)
    return held(found, graph, overlay, board)


def check_emittable(board: Board, folder: Path) -> None:
    """Refuse a board or a folder that cannot be emitted for, before any work is done."""
    try:
        check_family(board)
        check_target(folder)
    except EmissionError as error:
        raise UserError(f"this design cannot be emitted: {error}") from error


def emit_for(graph: Graph, overlay: Overlay, board: Board, folder: Path,
             rtl: bool = False, force: bool = False, given: Given = None) -> Emitted:
    """Write the C++, descriptors, weights, inputs and test bench of one frame to a folder.

    `force`: overwrite files there that no emission wrote. `given`: inputs of the frame, integers
    by tensor, instead of known or random ones.
    """
    frame = whole_frame(graph, overlay, board, given)
    try:
        written = emit(frame.lowered, frame.graph, frame.overlay, board, folder, frame.given,
                       rtl, force)
    except EmissionError as error:
        raise UserError(f"this design cannot be emitted: {error}") from error
    return Emitted(len(written.files) + 1, folder)


def check_emitted(graph: Graph, overlay: Overlay, board: Board,
                  given: Given = None) -> CSimReport:
    """Run one whole frame in C, then once more layer by layer, and compare with the reference.

    The first run checks the picture under the units' own order, the second every tensor that
    reaches memory, of one sampler step if there are any. `UserError` if the C++ does not compile
    or stops.
    """
    frame = whole_frame(graph, overlay, board, given)
    try:
        return (run_frame(frame.lowered, frame.graph, frame.overlay, inputs=frame.given.inputs)
                + run_frame_by_layer(lowered_frame(graph, frame.overlay, board, steps=1), graph,
                                     frame.overlay))
    except (EmissionError, SimulationError) as error:
        raise UserError(f"the C simulation did not finish: {error}") from error


def check_layers(graph: Graph, overlay: Overlay, board: Board) -> CSimReport:
    """Run one layer of each distinct shape in C, at full size, and compare with the reference."""
    try:
        return run_layers(graph, clocked(overlay, board), board)
    except (EmissionError, SimulationError) as error:
        raise UserError(f"the C simulation did not finish: {error}") from error

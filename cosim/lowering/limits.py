"""Lowers what a board's memory holds and an executor can count, and says why where it does not.

It decides nothing else; `lower` writes the rows.
"""

from __future__ import annotations

from arch_models.board import Board
from arch_models.overlay import Infeasible, Overlay
from cosim.lowering.lower import Lowered, lower
from cosim.lowering.phases import TooManyChannels
from cosim.lowering.placement import KnownPlaces, place
from cosim.mapping.tiles import Mapping
from cosim.program.table import MAX_CHANNELS
from cosim.program.totals import beyond
from workloads.graph import Graph


def lower_within(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping, frames: int = 1,
                 steps: int = 1, places: KnownPlaces | None = None) -> Lowered | Infeasible:
    """As `lower`; infeasible if the tensors and weights are more than the board's whole DRAM, or
    the program does more than `cosim.program.totals` lets an executor count, or its units wait for
    each other over more channels than there are (at least one more is needed).

    What an operating system keeps of the DRAM for itself is not counted.
    """
    placement = place(graph, overlay, board, mapping, places)
    size = placement.size_bytes
    if size > board.ddr.size_bytes:
        return Infeasible("ddr.size_bytes", size, board.ddr.size_bytes, "bytes",
                          ("layout", "board.ddr.size_bytes", "a smaller network"))
    try:
        lowered = lower(graph, overlay, board, mapping, frames, steps, placement)
    except TooManyChannels:
        return Infeasible("channels", MAX_CHANNELS + 1, MAX_CHANNELS, "token channels",
                          ("masters", "engines", "phases", "reads"))
    over = beyond(lowered.program)
    if over is None:
        return lowered
    return Infeasible(over.what, over.count, over.most, over.unit,
                      ("clock_hz", "engines", "a smaller network"))

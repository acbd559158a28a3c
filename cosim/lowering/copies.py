"""How described hardware copies weights: in runs of its own, or through the master of the inputs.

It lowers no layer; it changes the loads that lowering wrote. They move the same bytes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from arch_models.literature import WeightCopies
from arch_models.overlay import Overlay
from cosim.lowering.wiring import Wiring
from cosim.mapping.tiles import Mapping
from cosim.program.table import FLAG_FIRST, Buffer, Channel, Column, Opcode
from workloads.graph import Graph


def weight_runs(operations: np.ndarray, arguments: np.ndarray, graph: Graph, overlay: Overlay,
                mapping: Mapping) -> None:
    """Cut each block of stored weights into a run for each output channel, or each kernel."""
    blocks = np.flatnonzero((operations[:, Column.KIND] == Opcode.LOAD)
                            & (arguments[:, 0] == Buffer.WEIGHT)
                            & (operations[:, Column.PLANES] == 1))
    if not len(blocks):
        return
    windows = [graph.layer(item.name).window for item in mapping.layers]
    kernel = np.array([window.rows * window.columns * overlay.weight_bits // 8
                       for window in windows])[operations[blocks, Column.LAYER]]
    run = kernel * (overlay.tn if overlay.loops.weight_copies is WeightCopies.CHANNELS else 1)
    size = operations[blocks, Column.ROW_BYTES]
    operations[blocks, Column.ROWS] = size // run
    operations[blocks, Column.ROW_BYTES] = run
    operations[blocks, Column.ROW_STRIDE] = run


def through_input(operations: np.ndarray, channels: tuple[Channel, ...],
                  wiring: Wiring) -> tuple[Channel, ...]:
    """Let the first input master do what the weight master would, in the order of the table; the
    channels with their ends moved."""
    weight, first = wiring.weight, wiring.inputs[0]
    unit = operations[:, Column.UNIT]
    unit[unit == weight] = first
    mine = np.flatnonzero(unit == first)
    layer = operations[mine, Column.LAYER]
    begins = np.ones(len(mine), bool)
    begins[1:] = layer[1:] != layer[:-1]
    flags = operations[mine, Column.FLAGS] & ~FLAG_FIRST
    operations[mine, Column.FLAGS] = flags | np.where(begins, FLAG_FIRST, 0)

    def moved(end: int) -> int:
        return first if end == weight else end

    return tuple(replace(item, source=moved(item.source), target=moved(item.target))
                 for item in channels)

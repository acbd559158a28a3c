"""One convolution of a described accelerator: its graph, its program, its cycles.

It knows no accelerator and no published figure; those are in the modules beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console

from arch_models.board import Board
from arch_models.overlay import Overlay
from cosim.build import Builder
from cosim.lowering.lower import Lowered
from cosim.program.table import Column, Opcode
from studies.evaluation.evaluate import feasible
from studies.plain.terminal import grid, terminal
from workloads.graph import Graph, Layer, Operator, TensorSpec, Window


def convolution_graph(name: str, channels: int, out: int, size: int, kernel: int, stride: int,
                      sets: int = 1) -> Graph:
    """A square layer on a padded input; each of its sets of kernels reads `channels` planes.

    `size`: output rows and columns. `out`: output channels of a set. Weights are zeros.
    """
    rows = (size - 1) * stride + kernel
    tensors = {"input": TensorSpec("input", channels, rows, rows)}
    layers: list[Layer] = []
    constants: dict[str, np.ndarray] = {}
    for number in range(sets):
        own = f"{name}_{number}"
        tensors[own] = TensorSpec(own, out, size, size)
        arrays: dict[str, np.ndarray] = {
            "weights": np.zeros((out, channels, kernel, kernel), np.int8),
            "bias": np.zeros(out, np.int32), "multiplier": np.ones(out, np.int32),
            "shift": np.zeros(out, np.int32)}
        constants |= {f"{own}.{role}": array for role, array in arrays.items()}
        layers.append(Layer(own, Operator.CONVOLUTION, ("input",), own,
                            window=Window(kernel, kernel, stride),
                            constants={role: f"{own}.{role}" for role in arrays}))
    outputs = tuple(layer.output for layer in layers)
    return Graph(name, ("input",), outputs, tensors, tuple(layers), constants)


def lowered(graph: Graph, design: Overlay, board: Board) -> Lowered:
    """The program of a design at its own clock, which the board that starts it need not make."""
    builder = Builder(graph, board)
    return feasible(builder.lower(design, feasible(builder.mapping(design))))


def convolution_cycles(found: Lowered) -> int:
    """Cycles that the convolution engine works."""
    table = found.program.operations
    rows = table[table[:, Column.KIND] == Opcode.CONVOLUTION]
    return int((rows[:, Column.FILL] + rows[:, Column.INTERVAL] * rows[:, Column.TRIPS]
                + rows[:, Column.DRAIN]).sum())


def moved_bytes(found: Lowered) -> int:
    """Bytes that the masters read and write, all words of tiles counted."""
    table = found.program.operations
    return int((table[:, Column.ROW_BYTES] * table[:, Column.ROWS]
                * table[:, Column.PLANES]).sum())


def show_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]],
               console: Console | None = None) -> None:
    """Print rows of text; the first column stands left, the others right."""
    table = grid(title, head)
    for row in rows:
        table.add_row(*row)
    (console or terminal()).print(table)

"""Splits the products that the array could have made into useful ones and ones lost, by cause.

It simulates nothing; it reads a run of one frame. The parts of a layer sum to its cycles exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arch_models.overlay import Overlay
from arch_models.units import ceil_div
from cosim.program.table import ARGUMENTS, CONVOLUTIONS, Column, Opcode, Program, UnitKind
from studies.evaluation.evaluate import Run
from studies.evaluation.layers import layer_times
from workloads.graph import Graph

POSITIONS = ("out_rows", "out_columns", "in_words", "out_words", "kernel_rows", "kernel_columns")


@dataclass(frozen=True)
class ArrayUse:
    """Products of one layer (or a sum of layers); a cycle has `tm * tn * columns` of them.

    `useful`: the network's. Lost: `output_channels` and `input_channels` that fill no word of
    `tm` or `tn`; `columns` of a row that fill no group; `operations`: fill and drain of the
    pipeline; `waiting`: cycles of the layer in which the engine did not work.
    """

    name: str
    cycles: int
    useful: int
    output_channels: int
    input_channels: int
    columns: int
    operations: int
    waiting: int

    @property
    def slots(self) -> int:
        """All products that the array could have made in the layer's cycles."""
        return (self.useful + self.output_channels + self.input_channels + self.columns
                + self.operations + self.waiting)

    def share(self, part: str) -> float:
        """A part, by its name, over all."""
        return float(getattr(self, part)) / self.slots if self.slots else 0.0


LOST = ("output_channels", "input_channels", "columns", "operations", "waiting")


def array_use(graph: Graph, overlay: Overlay, run: Run) -> tuple[ArrayUse, ...]:
    """The layers that the convolution engine works on, in order; needs a traced run."""
    program = run.lowered.program
    filled, trips, busy = _engine_work(program, run.result.layer_busy)
    per_cycle = overlay.macs_per_cycle
    found = []
    for item in layer_times(program, run.result):
        place = program.layers.index(item.name)
        if not item.macs or not trips[place]:
            continue
        channels = graph.tensors[graph.layer(item.name).output].channels
        rounded = ceil_div(channels, overlay.tm) * overlay.tm
        padded_out = item.macs * rounded // channels
        padded_in = int(filled[place]) * overlay.tm * overlay.tn
        issued, worked = int(trips[place]) * per_cycle, int(busy[place]) * per_cycle
        found.append(ArrayUse(
            item.name, item.cycles, item.macs, padded_out - item.macs, padded_in - padded_out,
            issued - padded_in, worked - issued, item.cycles * per_cycle - worked))
    return tuple(found)


def total(uses: tuple[ArrayUse, ...], name: str = "all") -> ArrayUse:
    """The sum of some layers."""
    names = ("cycles", "useful", *LOST)
    return ArrayUse(name, *(sum(getattr(use, part) for use in uses) for part in names))


def _engine_work(program: Program, layer_busy: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each layer: positions x words x taps, trips in cycles, and cycles that the engine worked.
    """
    table, layers = program.operations, len(program.layers)
    times = np.zeros(len(table), np.int64)
    for segment in program.segments:
        times[segment.first : segment.last] = segment.repeat
    rows = np.flatnonzero(np.isin(table[:, Column.KIND], CONVOLUTIONS))
    product = times[rows].copy()
    for name in POSITIONS:
        product *= program.arguments[rows, ARGUMENTS[Opcode.CONVOLUTION].index(name)]
    filled, trips = np.zeros(layers, np.int64), np.zeros(layers, np.int64)
    np.add.at(filled, table[rows, Column.LAYER], product)
    np.add.at(trips, table[rows, Column.LAYER],
              table[rows, Column.TRIPS] * table[rows, Column.INTERVAL] * times[rows])
    engine = [index for index, unit in enumerate(program.units)
              if unit.kind == UnitKind.COMPUTE and unit.name == "convolution"]
    busy = np.asarray(layer_busy, np.int64)[:, engine].sum(axis=1)
    return filled, trips, busy

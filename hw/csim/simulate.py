"""The C simulation of a lowered frame, compared value by value with the integer reference.

Its seconds are those of this machine; it says nothing about cycles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from arch_models.board import Board
from arch_models.overlay import Infeasible, Overlay
from cosim.analysis.image import MemoryImage
from cosim.build import Builder, build
from cosim.lowering.lower import Lowered
from cosim.mapping.tiles import LayerMapping
from cosim.program.table import Column, Opcode, Program, Segment
from hw.csim.fabric import FLAGS, Fabric
from hw.interface.configuration import configuration_header, configure
from hw.interface.descriptors import encode
from hw.interface.vectors import (
    Vectors,
    host_layers,
    make_vectors,
    outputs,
    outside_inputs,
)
from workloads.graph import Graph, Operator


@dataclass(frozen=True)
class CSimReport:
    """`values_compared` over `tensors` tensors of `layers` layers; `where`: the first tensor
    with a difference, or nothing. `seconds`: the C simulation alone. `macs`: useful ones."""

    values_compared: int
    values_differing: int
    seconds: float
    macs: int
    tensors: int
    layers: int
    where: str = ""

    def __add__(self, other: CSimReport) -> CSimReport:
        return CSimReport(
            self.values_compared + other.values_compared,
            self.values_differing + other.values_differing, self.seconds + other.seconds,
            self.macs + other.macs, self.tensors + other.tensors, self.layers + other.layers,
            self.where or other.where)


EMPTY = CSimReport(0, 0, 0.0, 0, 0, 0)


def run_frame(lowered: Lowered, graph: Graph, overlay: Overlay, seed: int = 0,
              inputs: Mapping[str, np.ndarray] | None = None, order: int = 0,
              flags: tuple[str, ...] = FLAGS) -> CSimReport:
    """Run one whole frame in C and compare the graph's outputs with the reference.

    `inputs` by tensor name; what is missing is drawn from `seed`. `order`: 0, or the seed of a
    random legal order of the units. Raises `EmissionError` if the overlay cannot be emitted.
    """
    vectors = make_vectors(graph, lowered, seed, inputs)
    with Fabric(lowered.program, overlay, host_layers(graph, lowered), flags) as fabric:
        return _frame(fabric, lowered, graph, overlay, vectors, order)


def run_frame_by_layer(lowered: Lowered, graph: Graph, overlay: Overlay, seed: int = 0,
                       inputs: Mapping[str, np.ndarray] | None = None,
                       flags: tuple[str, ...] = FLAGS) -> CSimReport:
    """Run one frame layer by layer and compare every tensor that reaches memory.

    The rows are those of the whole frame, in table order. Slower to call than `run_frame` by
    the comparisons only.
    """
    vectors = make_vectors(graph, lowered, seed, inputs)
    total, program = EMPTY, lowered.program
    descriptors = encode(program)
    with Fabric(program, overlay, host_layers(graph, lowered), flags) as fabric:
        image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
        for segment in _layer_runs(lowered):
            begin = time.perf_counter()
            report = fabric.run(descriptors, (segment,), image.data)
            spent = time.perf_counter() - begin
            rows = program.operations[segment.first : segment.last]
            name = program.layers[int(rows[-1, Column.LAYER])]
            # Descriptor loads carry a layer's name and write nothing of it.
            only_fetches = bool((rows[:, Column.KIND] == Opcode.FETCH).all())
            item = None if only_fetches else lowered.mapping.layer(name)
            whole = segment.last > _last_row(program, int(rows[-1, Column.LAYER]))
            written = (item.output,) if item is not None and whole and (
                item.output not in lowered.mapping.kept) else ()
            found = _compare(image, vectors, written, spent, report.macs)
            total += found if whole or item is None else replace(found, layers=0)
    return total


def run_layers(graph: Graph, overlay: Overlay, board: Board, seed: int = 0) -> CSimReport:
    """One layer of each distinct shape of the frame, each lowered by itself, at full size.

    A layer comes with what the design fuses into it. Raises `ValueError` if a layer that the
    design maps as part of the frame cannot be mapped alone.
    """
    whole = Builder(graph, board).mapping(overlay)
    if isinstance(whole, Infeasible):
        raise ValueError(f"the design cannot run {graph.name}: {whole}")
    total = EMPTY
    fabrics: dict[str, Fabric] = {}
    try:
        for part in _distinct(graph, whole.layers):
            lowered = build(part, overlay, board)
            if isinstance(lowered, Infeasible):
                raise ValueError(f"layer {part.name}: {lowered}")
            key = configuration_header(lowered.program, configure(lowered.program, overlay))
            if key not in fabrics:
                fabrics[key] = Fabric(lowered.program, overlay)
            fabric = fabrics[key]
            fabric.load_host(host_layers(part, lowered))
            fabric.reset()
            total += _frame(fabric, lowered, part, overlay, make_vectors(part, lowered, seed))
    finally:
        for fabric in fabrics.values():
            fabric.close()
    return total


def _frame(fabric: Fabric, lowered: Lowered, graph: Graph, overlay: Overlay, vectors: Vectors,
           order: int = 0) -> CSimReport:
    program = lowered.program
    image = MemoryImage.start(graph, lowered, overlay, vectors.inputs)
    descriptors = encode(program)
    begin = time.perf_counter()
    report = fabric.run(descriptors, program.segments, image.data, order)
    spent = time.perf_counter() - begin
    return _compare(image, vectors, outputs(graph, lowered), spent, report.macs)


def _compare(image: MemoryImage, vectors: Vectors, names: tuple[str, ...], seconds: float,
             macs: int) -> CSimReport:
    compared = differing = 0
    where = ""
    for name in names:
        want = vectors.expected[name]
        different = int(np.count_nonzero(image.get(name) != want))
        compared += want.size
        differing += different
        where = where or (name if different else "")
    return CSimReport(compared, differing, seconds, macs, len(names), 1, where)


def _last_row(program: Program, layer: int) -> int:
    """The last row of a layer; those of two layers may lie among each other."""
    return int(np.flatnonzero(program.operations[:, Column.LAYER] == layer)[-1])


def _layer_runs(lowered: Lowered) -> Iterator[Segment]:
    """Stretches of rows of one layer, in table order; the program must have no repeats.

    Loads of descriptors belong to no layer: the dispatcher does them.
    """
    table = lowered.program.operations
    rows = np.flatnonzero(table[:, Column.KIND] != Opcode.FETCH)
    layer = table[rows, Column.LAYER]
    ends = [*np.flatnonzero((np.diff(layer) != 0) | (np.diff(rows) != 1)), len(rows) - 1]
    first = 0
    for end in ends:
        yield Segment(int(rows[first]), int(rows[end]) + 1)
        first = end + 1


def _distinct(graph: Graph, items: tuple[LayerMapping, ...]) -> Iterator[Graph]:
    """A graph of its own for the first mapped layer of each distinct shape."""
    seen = set()
    for item in items:
        names = (*((item.upsample,) if item.upsample else ()), item.name,
                 *(name for name in item.absorbed if name != item.upsample))
        layers = tuple(graph.layer(name) for name in names)
        inputs = tuple(dict.fromkeys(
            name for layer in layers for name in layer.inputs
            if name not in {other.output for other in layers}))
        key = (item.engine, tuple((layer.operator, layer.window, layer.relu) for layer in layers),
               tuple(graph.tensors[name].shape for name in (*inputs, item.output)))
        if key in seen:
            continue
        seen.add(key)
        tensors = {name: graph.tensors[name] for layer in layers
                   for name in (*layer.inputs, layer.output)}
        if layers[0].operator is Operator.DISPLACEMENTS:
            # Its unit is a grid step, so the reader that says how large a grid is stays.
            reader = next(layer for layer in graph.layers if layers[0].output in layer.inputs)
            layers = (*layers, reader)
            tensors |= {name: graph.tensors[name] for name in (*reader.inputs, reader.output)}
        yield Graph(f"{graph.name}: {item.name}", inputs, (layers[-1].output,), tensors, layers,
                    graph.constants)


__all__ = ["CSimReport", "Vectors", "outside_inputs", "run_frame", "run_frame_by_layer",
           "run_layers"]

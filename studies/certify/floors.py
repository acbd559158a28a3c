"""What the layers of a network take at the least on any design of a box, without tiles.

It knows no buffers; `tables` does, for boxes in which nothing else is left open. Times are
nanoseconds of the processor and cycles of the fabric, apart, since the clock is open too.

A convolution makes every trip of the array, whatever its tiles: at least `result_cycles` for each
group of positions, with the channels of its tensors packed as densely as planes allow. A layer
whose engines no design of the box has runs on the processor, which the layers behind it wait
for. What may be absorbed counts as nothing. What comes before a phase's first convolution may run
while the phase, or its repeat, before is still going on: it counts once, in the first phase only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from arch_models.board import Board
from arch_models.engines import EngineModel, Tile, engines_that_run, interval_cycles, timing
from arch_models.engines.stream import Stream
from arch_models.overlay import Engine, Overlay
from arch_models.units import ROUNDING, ceil_div
from cosim.build import phases
from cosim.lowering.lower import host_ns
from cosim.mapping.choose import FREE, work_of
from cosim.mapping.layout import Drawing
from cosim.mapping.tiles import LayerMapping
from studies.certify.boxes import Box
from workloads.graph import Graph, Layer, Operator, Phase

#: What a fusion may absorb, by the axis that says whether it does.
ABSORBED = {Operator.AVERAGE_POOL: "fuse_pool", Operator.UPSAMPLE: "fuse_upsample",
            Operator.ADD: "fuse_add"}


class Floor(NamedTuple):
    """Cycles of the fabric, nanoseconds of the processor, and what is one or the other: pairs of
    both. All lie one behind the other."""

    cycles: int
    host_ns: float
    either: tuple[tuple[int, float], ...] = ()

    def ms(self, clock_hz: int) -> float:
        """At a clock."""
        either = sum(min(cycles / clock_hz * 1e9, time_ns) for cycles, time_ns in self.either)
        return self.cycles / clock_hz * 1e3 + (self.host_ns + either) / 1e6

    def at(self, clock_hz: int) -> int:
        """Whole cycles of a clock."""
        return int(self.ms(clock_hz) * clock_hz / 1e3 * (1 - ROUNDING))


@dataclass(frozen=True)
class _Convolution:
    repeats: int
    out_channels: int
    rows: int
    columns: int
    planes: int
    taps: int


@dataclass(frozen=True)
class _Movable:
    """A layer that the processor runs unless one of these axes is true; `cycles`: in fabric."""

    name: str
    time_ns: float
    cycles: int
    axes: tuple[str, ...]
    absorbed: str


class Floors:
    """The floors of one network on one board."""

    def __init__(self, graph: Graph, board: Board, base: Overlay) -> None:
        self.graph, self.board, self.base = graph, board, base
        self.layouts = Drawing.start(graph, base)
        self._convolutions: list[_Convolution] = []
        self._movable: list[_Movable] = []
        self._array: dict[tuple, int] = {}
        for number, phase in enumerate(phases(graph)):
            begun = False
            for layer in graph.layers:
                if layer.phase is not phase or layer.operator in FREE:
                    continue
                repeats = graph.steps if phase is Phase.STEP else 1
                if layer.operator is Operator.CONVOLUTION and layer.window.groups == 1:
                    begun = True
                    self._convolutions.append(self._convolution(layer, repeats))
                elif begun:
                    self._add_movable(layer, repeats)
                elif number == 0:
                    self._add_movable(layer, 1)

    def _planes(self, name: str) -> int:
        """Planes of a tensor at the least: all channels behind one another."""
        self.layouts.dense(name)
        return self.layouts.planes(name)

    def _convolution(self, layer: Layer, repeats: int) -> _Convolution:
        source = layer.inputs[0]
        producer = next((item for item in self.graph.layers if item.output == source), None)
        if producer is not None and producer.operator is Operator.UPSAMPLE:
            source = producer.inputs[0]
        out = self.graph.tensors[layer.output]
        return _Convolution(repeats, out.channels, out.rows, out.columns, self._planes(source),
                            layer.window.rows * layer.window.columns)

    def _add_movable(self, layer: Layer, repeats: int) -> None:
        models = engines_that_run(work_of(self.graph, layer))
        if (any(model.engine is Engine.CONVOLUTION for model in models)
                or layer.operator is Operator.TRANSPOSE):
            return  # in fabric, or absorbed by what is
        for name in (*layer.inputs, layer.output):
            self.layouts.dense(name)
        time_ns = host_ns(
            self.graph, self.base, self.board, self.layouts, layer,
            LayerMapping(layer.name, layer.phase, None, layer.inputs, layer.output), False)
        self._movable.append(_Movable(
            layer.name, repeats * time_ns,
            repeats * min((self._streamed(layer, model) for model in models), default=0),
            tuple(f"fabric_{model.engine.value}" for model in models),
            ABSORBED.get(layer.operator, "")))

    def _streamed(self, layer: Layer, model: EngineModel) -> int:
        """Cycles of an engine that takes one beat, or one position, after another; of others none
        are counted."""
        work, out = work_of(self.graph, layer), self.graph.tensors[layer.output]
        if not isinstance(model, Stream) or out.bits != 8:
            return 0
        planes = self._planes(layer.inputs[0])
        cost = model.cost(work, Tile(out.rows, out.columns, self._planes(layer.output),
                                     self.graph.tensors[layer.inputs[0]].channels), self.base)
        interval = interval_cycles(timing(self.base, model.engine, work.operator), work, planes,
                                   self.graph.tensors[layer.inputs[0]].channels)
        return cost.trips * interval

    def floor(self, box: Box) -> Floor:
        """Of every design of the box."""
        cycles = min(self._cycles((int(tm), int(tn), int(columns), int(requantize)))
                     for tm in self._of(box, "tm") for tn in self._of(box, "tn")
                     for columns in self._of(box, "columns")
                     for requantize in self._of(box, "requantize_cycles"))
        host_ns, either = 0.0, []
        for item in self._movable:
            if self._absorbed(box, item):
                continue
            if not any(True in box.values(axis) for axis in item.axes):
                host_ns += item.time_ns
            else:
                either.append((item.cycles, item.time_ns))
        return Floor(cycles, host_ns, tuple(either))

    def moved(self, box: Box, name: str, clock_hz: int) -> int:
        """By how many cycles the floor of a box is higher if the processor runs a layer."""
        for item in self._movable:
            if item.name == name and not self._absorbed(box, item):
                return max(0, int((item.time_ns * clock_hz / 1e9 - item.cycles) * (1 - ROUNDING)))
        return 0

    @staticmethod
    def _absorbed(box: Box, item: _Movable) -> bool:
        return bool(item.absorbed) and True in (box.values(item.absorbed) or (True,))

    def _of(self, box: Box, name: str) -> tuple:
        return box.values(name) or (getattr(self.base, name),)

    def _cycles(self, array: tuple[int, int, int, int]) -> int:
        """Of all convolutions on an array of `tm`, `tn`, `columns`, `requantize_cycles`."""
        found = self._array.get(array)
        if found is None:
            found = self._array[array] = self._count(array)
        return found

    def _count(self, array: tuple[int, int, int, int]) -> int:
        tm, tn, columns, requantize = array
        overlay = replace(self.base, tm=tm, tn=tn, columns=columns, requantize_cycles=requantize)
        cost = timing(overlay, Engine.CONVOLUTION, "convolution")
        lanes = tn // overlay.channel_block
        return sum(item.repeats * (
            cost.fill + cost.drain + cost.interval * ceil_div(item.out_channels, tm) * item.rows
            * ceil_div(item.columns, columns)
            * max(ceil_div(item.planes, lanes) * item.taps, overlay.result_cycles))
            for item in self._convolutions)

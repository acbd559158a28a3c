"""What the layers of a network take at the least on any design of a box, without tiles.

It knows no buffers; `tables` does, for boxes in which nothing else is left open. Times are
nanoseconds of the processor and cycles of the fabric, apart, since the clock is open too.

A convolution makes every trip of the array, whatever its tiles: at least `result_cycles` for each
group of positions, with the channels of its tensors packed as densely as planes allow. What tiles
add is `with_tiles`. It loads and stores every byte at least once, with the widest masters. A layer
whose engines no design of the box has runs on the processor, which the layers behind it wait for.
What may be absorbed counts as nothing. What comes before a phase's first convolution may run while
the phase, or its repeat, before is still going on: it counts once, in the first phase only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from arch_models.engines import EngineModel, Tile, engines_that_run, interval_cycles, timing
from arch_models.engines.stream import Stream
from arch_models.overlay import Engine, Overlay, Role
from arch_models.units import NS_PER_S, ROUNDING, ceil_div
from cosim.analysis.least import Least, unmoved
from cosim.build import phases
from cosim.engines.base import Demand, Mapped, input_bytes
from cosim.lowering.host_times import host_ns
from cosim.mapping.choose import FREE, work_of
from cosim.mapping.layout import Drawing
from cosim.mapping.tiles import LayerMapping
from studies.certify.boxes import Box
from studies.certify.joules import Joules, Span
from studies.certify.parts import Parts
from studies.evaluation.activity import layer_weights
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

    def ms(self, clock_hz: Any) -> Any:
        """At a clock, or at each of some."""
        either = sum(np.minimum(cycles / clock_hz * 1e9, time_ns)
                     for cycles, time_ns in self.either)
        return self.cycles / clock_hz * 1e3 + (self.host_ns + either) / 1e6

    def at(self, clock_hz: int) -> int:
        """Whole cycles of a clock."""
        return int(self.ms(clock_hz) * clock_hz / 1e3 * (1 - ROUNDING))


@dataclass(frozen=True)
class _Convolution:
    """`first_bytes`: a cut of its input into n tiles loads at least an n-th of them before its
    first trip. `work`: bytes and results, whatever the array; `weight`: of its trips; `narrow`:
    its weights have 4 bits."""

    repeats: int
    out_channels: int
    rows: int
    columns: int
    planes: int
    taps: int
    first_bytes: float
    work: Demand
    weight: float
    narrow: bool

    def least(self, halved: bool) -> Demand:
        """What it does on designs of which some keep two narrow weights a byte, or none."""
        weights = self.work.weight_bytes
        return replace(self.work, weight_bytes=weights // 2 if halved and self.narrow else weights)


class Rates(NamedTuple):
    """Bytes a cycle that the masters of input and output move at the most."""

    read: float
    write: float


def with_tiles(compute_cycles: int, overhead: int, first_bytes: float, rate: float) -> int:
    """Cycles of a convolution at the least, whatever its tiles. `compute_cycles`: of its trips.

    With n tiles of its input there are n operations or more, each with an `overhead`, and the
    first waits for an n-th of what is loaded. The sum of both is least where they are equal.
    """
    alone = first_bytes / rate
    tiles = max(1.0, sqrt(alone / max(1, overhead)))
    return compute_cycles + int(tiles * overhead + alone / tiles)


def first_bytes(mapped: Mapped) -> float:
    """See `_Convolution`: of a convolution, from its tensors alone.

    The first tile is none that an edge cuts off, but it may read less by the padding: as many
    rows as its own outputs step over, if windows overlap by as much as is padded.
    """
    item, layer = mapped.item, mapped.layer
    source, out = (mapped.graph.tensors[name] for name in (item.inputs[0], layer.output))
    window, found = layer.window, mapped.bytes_of(item.inputs[0]) / source.positions
    for count, taps, limit in ((out.rows, window.rows, source.rows),
                               (out.columns, window.columns, source.columns)):
        if taps - window.padding < window.stride:
            return 0.0
        found *= min(limit, count * window.stride / (2 if item.upsample else 1))
    return found


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

    def __init__(self, graph: Graph, parts: Parts) -> None:
        self.graph, self.board, self.base, self.parts = graph, parts.board, parts.base, parts
        self.layouts, self._weights = Drawing.start(graph, self.base), layer_weights(graph.name)
        #: Nothing of a frame runs beside the processor's steps.
        self.serial = graph.steps == 1 and len(phases(graph)) == 1
        self._convolutions: list[_Convolution] = []
        self._movable: list[_Movable] = []
        self._array: dict[tuple, list[int]] = {}
        self._known: dict[tuple, int] = {}
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
        source, upsample = layer.inputs[0], ""
        producer = next((item for item in self.graph.layers if item.output == source), None)
        if producer is not None and producer.operator is Operator.UPSAMPLE:
            source, upsample = producer.inputs[0], producer.name
        out, window, planes = self.graph.tensors[layer.output], layer.window, self._planes(source)
        stored = {layer.output, *(item.output for item in self.graph.layers
                                  if layer.output in item.inputs and item.operator in ABSORBED)}
        for name in stored:
            self._planes(name)
        mapped = Mapped(self.graph, self.base, self.layouts, layer, LayerMapping(
            layer.name, layer.phase, Engine.CONVOLUTION, (source,), layer.output,
            upsample=upsample))
        taps = window.rows * window.columns
        return _Convolution(
            repeats, out.channels, out.rows, out.columns, planes, taps, first_bytes(mapped),
            Demand(load_bytes=input_bytes(mapped),
                   weight_bytes=out.channels * planes * self.base.channel_block * taps
                   * self.base.weight_bits // 8,
                   store_bytes=min(map(self.layouts.bytes_of, stored))),
            self._weights.get(layer.name, 1.0), layer.name in self.graph.narrow_layers)

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
        rates = self.rates(box)
        cycles = min(self._count(array, rates, self.parts.keeps(box))
                     for array in self._arrays(box))
        host_ns, either = 0.0, []
        for item in self._movable:
            if self._absorbed(box, item):
                continue
            if not any(True in box.values(axis) for axis in item.axes):
                host_ns += item.time_ns
            else:
                either.append((item.cycles, item.time_ns))
        return Floor(cycles, host_ns, tuple(either))

    def rates(self, box: Box) -> Rates:
        """Of the fastest masters in a box."""
        return Rates(*(self.parts.rate(box, role) for role in (Role.INPUT, Role.OUTPUT)))

    def work(self, box: Box) -> Least:
        """What every design of the box does; of the array its trips alone."""
        found, halved = Least(), True in self._of(box, "narrow_weights")
        for item in self._convolutions:
            work = item.least(halved)
            found = found.with_layer(unmoved(work) if self.parts.keeps(box) else work,
                                     item.repeats, item.weight)
        trips = [self._trips(array) for array in self._arrays(box)]
        return replace(found, trips=min(item[0] for item in trips),
                       weighted_trips=min(item[1] for item in trips))

    def joules(self, joules: Joules, box: Box, clock_hz: int) -> float:
        """Energy of every design of the box, in uJ a pixel."""
        floor = self.floor(box)

        def span(clocks_hz: Any) -> Span:
            return Span(floor.ms(clocks_hz) / 1e3, floor.host_ns / NS_PER_S,
                        floor.cycles / clocks_hz if self.serial else 0.0)

        return joules.of_box(box, self.parts, self.work(box), span, clock_hz)

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

    def _arrays(self, box: Box) -> Iterator[tuple[int, ...]]:
        """`tm`, `tn`, `columns`, `requantize_cycles` of the box's designs."""
        sides = (self._of(box, name) for name in ("tm", "tn", "columns", "requantize_cycles"))
        return (tuple(map(int, array)) for array in itertools.product(*sides))

    def _count(self, array: tuple[int, ...], rates: Rates, keeps: bool) -> int:
        """Cycles of all convolutions on an array; `keeps`: what a layer moves may lie beside the
        products of the layer before it."""
        key = (array, rates, keeps)
        if key not in self._known:
            cost, total = timing(self._with(array), Engine.CONVOLUTION, "convolution"), 0
            for item, trips in zip(self._convolutions, self._each(array), strict=True):
                if keeps:
                    total += item.repeats * (trips * cost.interval + cost.fill + cost.drain)
                    continue
                total += item.repeats * max(
                    with_tiles(trips * cost.interval, cost.fill + cost.drain, item.first_bytes,
                               rates.read),
                    int(item.work.load_bytes / rates.read),
                    int(item.work.store_bytes / rates.write))
            self._known[key] = total
        return self._known[key]

    def _trips(self, array: tuple[int, ...]) -> tuple[int, float]:
        """Of all convolutions, and with their weights."""
        each = list(zip(self._convolutions, self._each(array), strict=True))
        return (sum(item.repeats * trips for item, trips in each),
                sum(item.repeats * trips * item.weight for item, trips in each))

    def _with(self, array: tuple[int, ...]) -> Overlay:
        tm, tn, columns, requantize = array
        return replace(self.base, tm=tm, tn=tn, columns=columns, requantize_cycles=requantize)

    def _each(self, array: tuple[int, ...]) -> list[int]:
        """Trips of each convolution."""
        if array not in self._array:
            overlay = self._with(array)
            lanes = overlay.tn // overlay.channel_block
            self._array[array] = [
                ceil_div(item.out_channels, overlay.tm) * item.rows
                * ceil_div(item.columns, overlay.columns)
                * max(ceil_div(item.planes, lanes) * item.taps, overlay.result_cycles)
                for item in self._convolutions]
        return self._array[array]

"""What the layers of a network take at the least on any design of a box, without tiles.

It knows no buffers; `tables` does, for boxes in which nothing else is left open. Times are
nanoseconds of the processor and cycles of the fabric, apart, since the clock is open too.

A convolution makes every trip of the array, whatever its tiles: at least `result_cycles` for each
group of positions, with the channels of its tensors packed as densely as planes allow. What tiles
add is `with_tiles`. It loads and stores every byte at least once, with the widest masters. Any
other layer takes the least that it takes on an engine that a design of the box may have, or on the
processor, which the layers behind it wait for. What may be absorbed counts as nothing. What comes
before a phase's first convolution may run while the phase, or its repeat, before is still going on:
it counts once, in the first phase only.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from arch_models.engines import EngineModel, engines_that_run, timing
from arch_models.overlay import Engine, Role
from arch_models.units import NS_PER_S, ceil_div
from cosim.analysis.least import Least, unmoved
from cosim.build import phases
from cosim.engines import SLICES
from cosim.engines.base import Demand, Mapped, input_bytes
from cosim.engines.constants import ENTRY_BYTES
from cosim.lowering.host_times import host_ns
from cosim.mapping.choose import FREE, work_of
from cosim.mapping.layout import Drawing
from cosim.mapping.tiles import LayerMapping, NormTile, PlaneTile, StreamTile
from cosim.mapping.words import words_read
from studies.certify.boxes import Box
from studies.certify.joules import Joules, Span
from studies.certify.layers import ABSORBED, absorbed_by, must_map
from studies.certify.parts import Parts
from studies.certify.sizes import ARRAY, Array, arrayed, held_bytes, resized
from studies.certify.times.turns import Brought, Stretch, Turn, Turns, most_ahead
from studies.certify.untiled import Ahead, Floor, Rates, first_bytes, with_tiles
from studies.evaluation.activity import layer_weights
from studies.search.space import Value
from workloads.graph import Graph, Layer, Operator, Phase

#: Engines whose tiles may be cut in rows and columns.
IMAGES = frozenset({Engine.POOL, Engine.UPSAMPLE})
#: Who moves the bytes of `Rates`.
MOVERS = (Role.INPUT, Role.OUTPUT, Role.WEIGHT)


@dataclass(frozen=True)
class _Convolution:
    """A layer on the array, `repeats` times a frame; `always`: on every design.

    `first_bytes`: a cut of its input into n tiles loads at least an n-th of them before its first
    trip. `load_bytes` and on: whatever the array; `weight`: of its trips; `narrow`: its weights
    have 4 bits."""

    layer: Layer
    repeats: int
    always: bool
    out_channels: int
    rows: int
    columns: int
    planes: int
    taps: int
    first_bytes: float
    load_bytes: int
    store_bytes: int
    weight_bytes: int
    weight: float
    narrow: bool

    def least(self, halved: bool) -> Demand:
        """What it does on designs of which some keep two narrow weights a byte, or none."""
        weights = self.weight_bytes // 2 if halved and self.narrow else self.weight_bytes
        return Demand(load_bytes=self.load_bytes, store_bytes=self.store_bytes,
                      weight_bytes=weights)


class _Columns(NamedTuple):
    """Fields of `_Convolution`, each an array."""

    repeats: np.ndarray
    always: np.ndarray
    out_channels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    planes: np.ndarray
    taps: np.ndarray
    first_bytes: np.ndarray
    load_bytes: np.ndarray
    store_bytes: np.ndarray
    weight_bytes: np.ndarray
    weight: np.ndarray
    narrow: np.ndarray


@dataclass(frozen=True)
class _Way:
    """A layer on an engine that is there if `axis` is true: cycles by the value of the engine's
    `own` axis, under None those of the base; bytes that it loads and stores."""

    axis: str
    own: str
    cycles: Mapping[Value | None, int]
    load_bytes: int
    store_bytes: int

    def least(self, box: Box, rates: Rates, keeps: bool) -> float:
        """Cycles on any design of the box that has the engine."""
        cycles = min((self.cycles[value] for value in box.values(self.own)),
                     default=self.cycles[None])
        return float(cycles if keeps else max(cycles, self.load_bytes / rates.read,
                                              self.store_bytes / rates.write))


@dataclass(frozen=True)
class _Movable:
    """A layer that the processor runs unless an engine does: one of these, or the array, as the
    convolution of this number. `repeats` times a frame; `absorbed`: the axis of the fusion that
    may take it."""

    name: str
    repeats: int
    time_ns: float
    ways: tuple[_Way, ...]
    array: int | None
    absorbed: str


class Floors:
    """The floors of one network on one board."""

    def __init__(self, graph: Graph, parts: Parts) -> None:
        self.graph, self.board, self.base, self.parts = graph, parts.board, parts.base, parts
        self.layouts, self._weights = Drawing.start(graph, self.base), layer_weights(graph.name)
        #: Nothing of a frame runs beside the processor's steps.
        self.serial = graph.steps == 1 and len(phases(graph)) == 1
        self._on_array: list[_Convolution] = []
        self._movable: list[_Movable] = []
        self._trips_of: dict[Array, np.ndarray] = {}
        self._cycles_of: dict[Hashable, np.ndarray] = {}
        #: Layers in order: the number of a convolution that is always on the array, or another.
        self._order: list[int | _Movable] = []
        self._known: dict[Hashable, Floor] = {}
        for number, phase in enumerate(phases(graph)):
            begun = False
            for layer in graph.layers:
                if layer.phase is not phase or layer.operator in FREE:
                    continue
                repeats = graph.steps if phase is Phase.STEP else 1
                if must_map(layer) and engines_that_run(work_of(graph, layer)):
                    begun = True
                    self._order.append(len(self._on_array))
                    self._on_array.append(self._convolution(layer, repeats, True))
                elif begun or number == 0:
                    self._add_movable(layer, repeats if begun else 1)
        self._table = _Columns(*(np.array([getattr(item, name) for item in self._on_array])
                                 for name in _Columns._fields))
        #: Axes on which a floor depends, besides those of masters and the array.
        self._axes = sorted({name for item in self._movable for way in item.ways
                             for name in (way.axis, way.own)} | set(ABSORBED.values()))

    def _planes(self, name: str) -> int:
        """Planes of a tensor at the least: all channels behind one another."""
        self.layouts.dense(name)
        return self.layouts.planes(name)

    def _convolution(self, layer: Layer, repeats: int, always: bool) -> _Convolution:
        """`always`: every design has it on the array, where it may absorb an upsampling."""
        source, upsample = layer.inputs[0], ""
        producer = next((item for item in self.graph.layers if item.output == source), None)
        if always and producer is not None and producer.operator is Operator.UPSAMPLE:
            source, upsample = producer.inputs[0], producer.name
        out, window, planes = self.graph.tensors[layer.output], layer.window, self._planes(source)
        stored = {layer.output, *(item.output for item in self.graph.layers
                                  if layer.output in item.inputs and item.operator in ABSORBED)}
        for name in stored:
            self._planes(name)
        mapped = Mapped(self.graph, self.base, self.layouts, layer, LayerMapping(
            layer.name, layer.phase, Engine.CONVOLUTION, (source,), layer.output,
            upsample=upsample))
        taps, least = window.rows * window.columns, min(map(self.layouts.bytes_of, stored))
        weights = 0 if not always else (out.channels * planes * self.base.channel_block * taps
                                        * self.base.weight_bits // 8)
        return _Convolution(
            layer, repeats, always, out.channels, out.rows, out.columns, planes, taps,
            first_bytes(mapped) if always else 0.0, input_bytes(mapped), least, weights,
            self._weights.get(layer.name, 1.0), layer.name in self.graph.narrow_layers)

    def _add_movable(self, layer: Layer, repeats: int) -> None:
        if layer.operator is Operator.TRANSPOSE:
            return  # a product of matrices may absorb it
        models = engines_that_run(work_of(self.graph, layer))
        for name in (*layer.inputs, layer.output):
            self.layouts.dense(name)
        time_ns = host_ns(
            self.graph, self.base, self.board, self.layouts, layer,
            LayerMapping(layer.name, layer.phase, None, layer.inputs, layer.output), False)
        number = None
        if any(model.engine is Engine.CONVOLUTION for model in models):
            number = len(self._on_array)
            self._on_array.append(self._convolution(layer, 1, False))
        self._movable.append(_Movable(
            layer.name, repeats, time_ns,
            tuple(self._way(layer, model) for model in models
                  if model.engine is not Engine.CONVOLUTION),
            number, absorbed_by(self.graph, layer)))
        self._order.append(self._movable[-1])

    def _way(self, layer: Layer, model: EngineModel) -> _Way:
        """What an engine takes at the least, as if all were one tile."""
        source, out = (self.graph.tensors[name] for name in (layer.inputs[0], layer.output))
        engine, planes = model.engine, self._planes(layer.inputs[0])
        self._planes(layer.output)
        own = next(iter(model.axes), "")
        axis = f"fabric_{engine.value}"
        if engine is Engine.GRID_SAMPLE or any(
                self.graph.tensors[name].bits != 8 for name in (*layer.inputs, layer.output)):
            return _Way(axis, "", {None: 0}, 0, 0)
        tile: object = StreamTile(planes, 1, source.positions, out.positions)
        if engine is Engine.NORM:
            tile = NormTile(planes, source.positions, source.positions)
        elif layer.operator is Operator.CONVOLUTION:
            tile = PlaneTile(planes, out.rows, out.columns)
        item = LayerMapping(layer.name, layer.phase, engine, layer.inputs, layer.output, tile=tile)
        work = {value: SLICES[engine].least(Mapped(
            self.graph, self.base if value is None else resized(self.base, {own: value}),
            self.layouts, layer, item)) for value in (*model.axes.get(own, ()), None)}
        cycles: dict[Value | None, int] = {
            value: each.untiled_cycles for value, each in work.items()}
        least = Demand(load_bytes=min(each.load_bytes for each in work.values()),
                       store_bytes=min(each.store_bytes for each in work.values()))
        if engine in IMAGES or layer.operator is Operator.CONVOLUTION:
            least = unmoved(least)  # windows may leave out what is loaded; what follows, be fused
        return _Way(axis, own, cycles, least.load_bytes, least.store_bytes)

    def floor(self, box: Box) -> Floor:
        """Of every design of the box."""
        rates, keeps = self.rates(box), self.parts.keeps(box)
        key = (rates, keeps, self._ahead(box),
               *(box.values(name) for name in (*ARRAY, *self._axes)))
        if key not in self._known:
            self._known[key] = self._floor(box, rates, keeps)
        return self._known[key]

    def _floor(self, box: Box, rates: Rates, keeps: bool) -> Floor:
        always, arrays = self._table.always, self._each(box, rates, keeps)
        cycles = min(int(found[always].sum()) for found in arrays)
        least = np.min(arrays, axis=0)
        host_ns, either = 0.0, []
        ways_of: dict[str, float] = {}
        for item in self._movable:
            if self._absorbed(box, item):
                continue
            ways = [way.least(box, rates, keeps) for way in item.ways if self._may(box, way.axis)]
            if item.array is not None:
                ways.append(float(least[item.array]))
            ways_of[item.name] = min(ways, default=np.inf)
            if ways:
                either.append((item.repeats * min(ways), item.repeats * item.time_ns))
            host_ns += 0.0 if ways else item.repeats * item.time_ns
        return Floor(cycles, host_ns, np.array(either, float).reshape(-1, 2).T,
                     *self._turns(box, rates, keeps, least, ways_of))

    def _turns(self, box: Box, rates: Rates, keeps: bool, least: np.ndarray,
               ways_of: Mapping[str, float]) -> tuple[Turns, tuple[str, ...]]:
        """And names. `least`: cycles of each convolution, `ways_of`: of each other layer."""
        table, ahead = self._table, self._ahead(box)
        weights = table.weight_bytes // (1 + (table.narrow & ahead.halved)) / rates.weights
        if keeps or self.graph.steps > 1:
            return Turns.together(float((table.repeats * weights)[table.always].sum())), ()
        holds = {banks: max(held_bytes(self.base, ahead.bram36, array, ahead.words * banks)
                            for array in self._arrays(box)) / banks / rates.weights
                 for banks in ahead.banks}
        constants = table.out_channels * ENTRY_BYTES / rates.weights
        there = [item for item in self._order if isinstance(item, int) or item.name in ways_of]
        brought = [Brought(constants[item] + weights[item], constants[item], 0.0, 1)
                   if isinstance(item, int) else Brought() for item in there]
        each = [(np.inf, least[item]) if isinstance(item, int)
                else (item.time_ns, ways_of[item.name]) for item in there]
        return Turns.of([Stretch([
            (host_ns, Turn(cycles, one.cycles, one.constants, ahead=held))
            for (host_ns, cycles), one, held in zip(
                each, brought, most_ahead(brought, holds), strict=True)])]), tuple(
            "" if isinstance(item, int) else item.name for item in there)

    def rates(self, box: Box) -> Rates:
        """Of the fastest masters in a box."""
        return Rates(*(self.parts.rate(box, role) for role in MOVERS))

    def work(self, box: Box) -> Least:
        """What every design of the box does; of the array its trips alone."""
        found, halved = Least(), True in self._of(box, "narrow_weights")
        for item in (each for each in self._on_array if each.always):
            work = item.least(halved)
            found = found.with_layer(unmoved(work) if self.parts.keeps(box) else work,
                                     item.repeats, item.weight)
        table = self._table
        times = table.repeats * table.always
        trips = [times * self._trips(array) for array in self._arrays(box)]
        return replace(found, trips=min(int(each.sum()) for each in trips),
                       weighted_trips=min(float(each @ table.weight) for each in trips))

    def joules(self, joules: Joules, box: Box, clock_hz: int) -> float:
        """Energy of every design of the box, in uJ a pixel."""
        floor = self.floor(box)

        def span(clocks_hz: Any) -> Span:
            return Span(floor.ms(clocks_hz) / 1e3, floor.host_ns / NS_PER_S,
                        floor.cycles / clocks_hz if self.serial else 0.0)

        return joules.of_box(box, self.parts, self.work(box), span, clock_hz)

    def away(self, box: Box, name: str, clock_hz: int) -> int:
        """Cycles of a box where the only engine that can leaves a layer to the processor."""
        floor = self.floor(box)
        for item in self._movable:
            if (item.name != name or self._absorbed(box, item)
                    or len(item.ways) + (item.array is not None) > 1):
                continue
            asked = self.rates(box), self.parts.keeps(box)
            cycles = (item.ways[0].least(box, *asked) if item.ways else min(
                float(found[item.array]) for found in self._each(box, *asked)))
            return floor.at(clock_hz, name, max(0, item.repeats * (
                item.time_ns * clock_hz / NS_PER_S - cycles)))
        return floor.at(clock_hz)

    def _may(self, box: Box, axis: str) -> bool:
        """Has a design of the box the engine of an axis?"""
        there = axis in {f"fabric_{engine.value}" for engine in self.base.engines}
        return True in (box.values(axis) or (there,))

    @staticmethod
    def _absorbed(box: Box, item: _Movable) -> bool:
        return bool(item.absorbed) and True in (box.values(item.absorbed) or (True,))

    def _of(self, box: Box, name: str) -> tuple:
        return box.values(name) or (getattr(self.base, name),)

    def _arrays(self, box: Box) -> Iterator[Array]:
        """The arrays of the box's designs."""
        sides = (self._of(box, name) for name in ARRAY)
        return (tuple(map(int, array)) for array in itertools.product(*sides))

    def _ahead(self, box: Box) -> Ahead:
        """Of the box's designs."""
        return Ahead(max(self._of(box, "weight_words")), self._of(box, "weight_banks"),
                     True in self._of(box, "narrow_weights"), self.bram36_of_weights(box))

    def bram36_of_weights(self, box: Box) -> float:
        """What a design of the box leaves WEIGHT of the part's block RAM at the most."""
        others = (self.parts.least(box).bram36
                  - self.parts.part(box, "buffer weight").bram36)
        return max(0.0, self.board.part.bram36 * (1 - self.base.headroom) - others)

    def _each(self, box: Box, rates: Rates, keeps: bool) -> list[np.ndarray]:
        """See `_on`, of each array of the box."""
        return [self._on(item, rates, keeps, self._ahead(box)) for item in self._arrays(box)]

    def _on(self, array: Array, rates: Rates, keeps: bool, ahead: Ahead) -> np.ndarray:
        """Cycles a frame of all layers on an array; `keeps`: what a layer moves may lie beside the
        products of the layer before it."""
        key = (array, rates, keeps, ahead)
        if key not in self._cycles_of:
            table = self._table
            cost = timing(arrayed(self.base, array), Engine.CONVOLUTION, "convolution")
            trips, overhead = self._trips(array) * cost.interval, cost.fill + cost.drain
            if keeps:
                found = trips + overhead
            else:
                weights = table.weight_bytes // (1 + (table.narrow & ahead.halved))
                held = held_bytes(self.base, ahead.bram36, array, ahead.most)
                found = np.maximum.reduce([
                    with_tiles(trips, overhead, table.first_bytes, rates.read),
                    table.load_bytes // rates.read, table.store_bytes // rates.write,
                    np.maximum(0, weights - held) // rates.weights])
            self._cycles_of[key] = table.repeats * found.astype(np.int64)
        return self._cycles_of[key]

    def _trips(self, array: Array) -> np.ndarray:
        """Trips of all layers on an array."""
        if array not in self._trips_of:
            overlay, table = arrayed(self.base, array), self._table
            lanes, least = overlay.tn // overlay.channel_block, overlay.result_cycles
            each = -(-table.out_channels // overlay.tm) * np.maximum(
                -(-table.planes // lanes) * table.taps, least)
            for number, item in enumerate(self._on_array):
                if item.layer.window.groups > 1:
                    words = words_read(item.layer, self.graph, overlay, 0,
                                       ceil_div(item.out_channels, overlay.tm))
                    each[number] = sum(max(word * item.taps, least) for word in words)
            self._trips_of[array] = table.rows * -(-table.columns // overlay.columns) * each
        return self._trips_of[array]

"""The layers of one network on one array at one clock, for every size of the buffers at once.

It adds no layers up; `tables` does. `known`, which callers keep, holds what was worked out before.

A mapping is chosen layer by layer. What a layer leaves to those behind it depends on who runs it,
not on its tile: on the array, another engine, or the processor where no tile fits. So sizes at
which the same engines run the same layers share all but tiles (`alike`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines import engines_that_run
from arch_models.overlay import Engine, Infeasible, Overlay, Role
from cosim.analysis.alone import Alone
from cosim.engines import SLICES
from cosim.engines.base import Demand, Mapped
from cosim.engines.convolution_search import ConvolutionShape, Rooms, search_rooms
from cosim.mapping.choose import Chooser, budget_of, work_of
from cosim.mapping.tiles import ConvolutionTile, LayerMapping, Mapping
from studies.certify.sizes import BANKS, WORDS, Sizes, Tiles, resized
from studies.search.space import Space
from workloads.graph import Graph, Layer, Operator

#: Fields of an overlay on which no tile and no time of a layer depends, and those that `Layers` has
#: from elsewhere: sizes, engines, masters and what a mapping fuses.
OPEN = frozenset({*WORDS, *BANKS, "name", "rate", "engines", "masters", "fusions", "fetch",
                  "control", "layout", "build", "clock_gating", "headroom", "pipelines"})
TIMED = tuple(item.name for item in fields(Overlay) if item.name not in OPEN)
#: What a fusion may absorb, by the axis that says whether it does.
ABSORBED = {Operator.AVERAGE_POOL: "fuse_pool", Operator.UPSAMPLE: "fuse_upsample",
            Operator.ADD: "fuse_add"}
#: What a layer does that energy depends on.
COUNTED = ("load_bytes", "weight_bytes", "store_bytes", "trips", "results", "partials")


def sized(like: Chooser, board: Board, overlay: Overlay) -> Chooser:
    """A chooser for a design with other sizes, that knows the layouts which one has found."""
    chooser = copy(like)
    chooser.overlay, chooser.budget = overlay, budget_of(overlay, board)
    chooser.timings, chooser.shapes, chooser.absorbed, chooser.turned = {}, {}, set(), {}
    chooser.layouts = replace(like.layouts, channels=dict(like.layouts.channels),
                              counts=dict(like.layouts.counts))
    return chooser


class Tiled(NamedTuple):
    """The tiles of a layer: the number of each size's own (banks and words; -1 where it has none),
    all of them, and of those that were asked for what the layer does at least.

    `slowest`: cycles of the slowest unit, of no tile -1; 0 where that was not asked for."""

    kinds: np.ndarray
    tiles: list[object]
    demands: dict[int, Demand]
    slowest: np.ndarray

    @property
    def cycles(self) -> np.ndarray:
        """Of each size, at least so many; -1 where it has no tile."""
        return self.slowest[self.kinds]

    @property
    def work(self) -> Demand:
        """What the layer does at each size, at least."""
        found = {name: np.zeros(len(self.tiles) + 1) for name in COUNTED}
        for number, demand in self.demands.items():
            for name in COUNTED:
                found[name][number] = getattr(demand, name)
        return Demand(**{name: each[self.kinds] for name, each in found.items()})


def engines_of(graph: Graph, layer: Layer, overlay: Overlay) -> list[Engine]:
    """The engines of a design that can run a layer, in the order of `MODELS`."""
    return [model.engine for model in engines_that_run(work_of(graph, layer))
            if model.engine in overlay.engines]


def must_map(layer: Layer) -> bool:
    """Can nothing but the array run a layer?"""
    return layer.operator is Operator.CONVOLUTION and layer.window.groups == 1


def absorbed_by(graph: Graph, layer: Layer) -> str:
    """The axis of the fusion that has a convolution do a layer; empty if none can."""
    if layer.operator is Operator.UPSAMPLE:
        near = [item for item in graph.layers if layer.output in item.inputs]
    else:
        near = [graph.producers[name] for name in layer.inputs if name in graph.producers]
    return ABSORBED.get(layer.operator, "") if any(
        item.operator is Operator.CONVOLUTION for item in near) else ""


def idle_fusions(graph: Graph, space: Space) -> tuple[str, ...]:
    """Axes of fusions without sites of their own that no layer of a network could use and no other
    axis waits for: designs that differ in them alone are the same but for that."""
    used = {"fuse_add", *(absorbed_by(graph, layer) for layer in graph.layers),
            *(axis.when.axis for axis in space.axes if axis.when)}
    return tuple(axis.name for axis in space.axes
                 if axis.name in ABSORBED.values() and axis.name not in used)


class Layers:
    """The layers of one network on one array at one clock, for all sizes of the buffers."""

    def __init__(self, chooser: Chooser, board: Board, sizes: Sizes,
                 known: dict[Hashable, Any]) -> None:
        self.chooser, self.board, self.sizes, self.known = chooser, board, sizes, known
        self.graph, self.overlay = chooser.graph, chooser.overlay
        overlay = chooser.overlay
        self._timers: dict[int, Alone] = {}
        self._choosers: dict[tuple[int, ...], Chooser] = {}
        self._likes: dict[str, int] = {}
        #: All that tiles and times of a layer depend on, besides the layer. No fetch is among it:
        #: at the barrier before a layer its descriptors are there.
        self.array = (sizes, *(getattr(overlay, name) for name in TIMED),
                      tuple((item.role, item.width_bits) for item in overlay.masters
                            if item.role is not Role.FETCH))
        self.rates = {role: sum(item.width_bits for item in overlay.masters_of(role)) / 8
                      for role in (Role.INPUT, Role.WEIGHT, Role.OUTPUT)}

    def _timer(self, bank: int) -> Alone:
        if bank not in self._timers:
            self._timers[bank] = Alone(self.graph, resized(self.overlay, dict(zip(
                BANKS, self.sizes.banks[bank], strict=True))), self.board)
        return self._timers[bank]

    def least(self, item: LayerMapping, there: np.ndarray | None = None) -> Tiled:
        """The tile of a layer at some sizes, or all, and what one unit at a time takes for it.

        Where another engine costs less, the layer runs there: it counts as without a tile, as it
        may at sizes that are not asked for.
        """
        assert item.engine is not None
        engines, tried = self._engines(item), self._tried(item, there)
        mine = tried[engines.index(item.engine)]
        key, filled = ("tiled", self.like(item), engines), sum(
            int(each.asked.sum()) for each in tried)
        before, known = self.known.get(key, (0, Tiled(mine.kinds, [], {}, np.zeros(1))))
        if before < filled:
            kinds = mine.kinds.copy()
            if len(engines) > 1:
                kinds[self.chosen(item, there) != self.place_of(item)] = -1
            known = known._replace(kinds=kinds, tiles=list(mine.tiles))
        asked = np.unique(known.kinds if there is None else known.kinds[there]).tolist()
        new = [number for number in asked if number >= 0 and number not in known.demands]
        if new or before < filled:
            known.demands.update((number, SLICES[item.engine].least(
                self.mapped(item, known.tiles[number]))) for number in new)
            slowest = np.array([0] * len(known.tiles) + [-1], np.int64)
            for number, demand in known.demands.items():
                slowest[number] = self._slowest(demand)
            known = known._replace(slowest=slowest)
            self.known[key] = filled, known
        return known

    def chosen(self, item: LayerMapping, there: np.ndarray | None = None) -> np.ndarray:
        """Who runs a layer at each of some sizes, or of all: the place of its engine among those of
        the design that can, -1: the processor."""
        costs = [each.costs for each in self._tried(item, there)]
        if not costs:
            return np.full(self.sizes.shape, -1)
        return np.where(np.min(costs, axis=0) < np.inf, np.argmin(costs, axis=0), -1)
        # of equal costs the first, as the mapping does

    def place_of(self, item: LayerMapping) -> int:
        """That of the engine which a mapping names."""
        return -1 if item.engine is None else self._engines(item).index(item.engine)

    def _engines(self, item: LayerMapping) -> tuple[Engine, ...]:
        return tuple(engines_of(self.graph, self.graph.layer(item.name), self.overlay))

    def _tried(self, item: LayerMapping, there: np.ndarray | None) -> list[Tiles]:
        """The tiles on each engine, at least at some sizes, or at all."""
        key, engines = ("tried", self.like(item), self._engines(item)), self._engines(item)
        if key not in self.known:
            self.known[key] = [Tiles(self.sizes.shape) for _ in engines]
        for engine, tiles in zip(engines, self.known[key], strict=True):
            self._fill(tiles, item, engine, there)
        return self.known[key]

    def otherwise(self, chooser: Chooser) -> Layers:
        """The layers of a chooser that has mapped some of them otherwise, for the same sizes."""
        found = Layers(chooser, self.board, self.sizes, self.known)
        found._timers = self._timers
        return found

    def words(self, axis: int) -> np.ndarray:
        """Words of a buffer, along its axis of a table."""
        return np.array(self.sizes.words[axis], np.int64).reshape(
            [-1 if place == axis else 1 for place in range(4)])

    def _slowest(self, work: Demand) -> int:
        if self.overlay.tensor_memory_kib:  # a pair moves beside its products
            return int(work.compute_cycles)
        return int(max(work.compute_cycles, work.load_bytes / self.rates[Role.INPUT],
                       work.store_bytes / self.rates[Role.OUTPUT]))

    def mapped(self, item: LayerMapping, tile: object) -> Mapped:
        """A layer with a tile."""
        return Mapped(self.graph, self.overlay, self.chooser.layouts,
                      self.graph.layer(item.name), replace(item, tile=tile))

    def wait(self, role: Role) -> int:
        """Cycles that each transfer of a role takes besides its beats, at least."""
        return self._timer(0).wait(role)

    def alone(self, item: LayerMapping, least: Tiled, there: np.ndarray) -> np.ndarray:
        """What the layer takes alone, where it is asked for; -1 elsewhere."""
        count = len(self.sizes.banks)
        pairs = least.kinds.astype(np.int64) * count + np.arange(count)[:, None, None, None, None]
        cycles = np.full((len(least.tiles) + 1) * count, -1, np.int64)
        for pair in np.unique(pairs[there]).tolist():
            kind, bank = divmod(pair, count)
            key = (self.like(item), self.sizes.banks[bank], least.tiles[kind])
            known = self.known.get(key)
            if known is None:
                known = self.known[key] = self._timer(bank).cycles(
                    self.chooser.layouts, replace(item, tile=least.tiles[kind]))
            cycles[pair] = known
        return np.where(there, cycles[pairs], -1)

    def like(self, item: LayerMapping) -> int:
        """A number that is equal for layers that have the same tiles and take the same time: names
        and values of constants do not count, nor where tensors lie."""
        if item.name not in self._likes:
            layer, graph, layouts = self.graph.layer(item.name), self.graph, self.chooser.layouts
            names = (*item.inputs, item.output, *layer.inputs, layer.output)
            tensors = tuple(
                (spec.channels, spec.rows, spec.columns, spec.bits, layouts.channels.get(name),
                 names.index(name), spec.scale if layer.operator is Operator.SOFTMAX else 0)
                for name in names for spec in [graph.tensors[name]])
            key = (
                "like", self.array, layer.operator, layer.window, layer.relu, layer.fraction_bits,
                tuple((role, graph.constant(layer, role).shape) for role in layer.constants),
                layer.name in graph.narrow_layers, self.chooser.shapes.get(item.name), item.engine,
                len(item.inputs), tensors, bool(item.upsample),
                graph.layer(item.pool).operator if item.pool else None, bool(item.add),
                item.order)
            self._likes[item.name] = self.known.setdefault(key, len(self.known))
        return self._likes[item.name]

    def _fill(self, tiles: Tiles, item: LayerMapping, engine: Engine, there: np.ndarray | None
              ) -> None:
        """Find the tiles of a layer at some sizes, None: at all."""
        missing = tiles.ask(there)
        if engine is Engine.CONVOLUTION:
            if missing.any():  # all sizes of OUTPUT, WEIGHT and the accumulators in one walk
                banks, inputs = (np.flatnonzero(missing.any(axis=axes))
                                 for axes in ((1, 2), (0, 2)))
                tiles.asked[np.ix_(banks, inputs)] = True
                self._search(tiles, item, banks, inputs)
            return
        layer = self.graph.layer(item.name)
        for bank, place_in, place_out in np.argwhere(missing).tolist():
            mine = SLICES[engine].tile(self._sized(bank, place_in, place_out), layer)
            if isinstance(mine, LayerMapping) and mine.engine is engine:
                place = (bank, place_in, slice(None), place_out, slice(None))
                tiles.kinds[place] = tiles.tiles.setdefault(mine.tile, len(tiles.tiles))
                tiles.costs[place] = mine.cost_cycles

    def _search(self, tiles: Tiles, item: LayerMapping, banks: np.ndarray, inputs: np.ndarray
                ) -> None:
        """On the array, at some banks and words of INPUT."""
        if item.name not in self.chooser.shapes:
            return  # it was refused before its tile was searched
        shape = self.chooser.shapes[item.name]
        assert isinstance(shape, ConvolutionShape)
        words = [np.array(values, np.int64) for values in self.sizes.words]
        best = search_rooms(shape, self.chooser.budget, Rooms(
            words[0][inputs], words[1], words[2], words[3],
            np.array(self.sizes.banks, np.int64)[banks]))
        places = best.cost >= 0
        if not places.any():
            return
        found = best.tile[places]
        _, first, inverse = np.unique(_numbers(found), return_index=True, return_inverse=True)
        numbers = np.array([tiles.tiles.setdefault(ConvolutionTile(
            row[0], row[1], row[2], row[3], bool(row[4]), bool(row[5])), len(tiles.tiles))
            for row in found[first].tolist()])
        kinds, costs = np.full(places.shape, -1, np.int16), np.full(places.shape, np.inf)
        kinds[places], costs[places] = numbers[inverse.reshape(-1)], best.cost[places]
        tiles.kinds[np.ix_(banks, inputs)], tiles.costs[np.ix_(banks, inputs)] = kinds, costs

    def _sized(self, bank: int, place_in: int, place_out: int) -> Chooser:
        """A chooser with these sizes, for an engine that knows no words of WEIGHT and
        accumulators."""
        key = (bank, place_in, place_out)
        if key not in self._choosers:
            overlay = resized(self.overlay, {
                "input_words": self.sizes.words[0][place_in],
                "output_words": self.sizes.words[2][place_out],
                **dict(zip(BANKS, self.sizes.banks[bank], strict=True))})
            self._choosers[key] = sized(self.chooser, self.board, overlay)
        return self._choosers[key]


class Alike(NamedTuple):
    """The sizes (banks and words) at which a mapping holds but for its tiles."""

    layers: Layers
    mapping: Mapping
    there: np.ndarray


def alike(layers: Layers, mapping: Mapping, there: np.ndarray, first: int = 0) -> Iterator[Alike]:
    """Parts of the sizes that are `there`, disjoint; those that are in none cannot be built.

    `mapping`: of one size, with the layers of which `layers` was made. Before its layer of number
    `first` all sizes agree with it.
    """
    for item in mapping.layers[first:]:
        if must_map(layers.graph.layer(item.name)):
            continue
        chosen = layers.chosen(item, there)
        mine = layers.place_of(item)
        others = np.unique(chosen[there & (chosen != mine)]).tolist()
        for other in others:
            yield from _elsewhere(layers, item, there & (chosen == other), other)
        there = there & (chosen == mine)
        if not there.any():
            return
    yield Alike(layers, mapping, there)


def _elsewhere(layers: Layers, item: LayerMapping, there: np.ndarray, place: int
               ) -> Iterator[Alike]:
    """Sizes at which somebody else runs a layer: all of them the same, of this place."""
    for size in sorted(np.argwhere(there).tolist(), key=sum, reverse=True):
        found = _mapping_at(layers, layers.sizes.fields(tuple(size)))
        if found is not None:
            other, mapping = found
            number = next(number for number, mine in enumerate(mapping.layers)
                          if mine.name == item.name)
            assert other.place_of(mapping.layers[number]) == place
            yield from alike(other, mapping, there, number + 1)
            return
        there[tuple(size)] = False


def _mapping_at(layers: Layers, size: dict[str, int]) -> tuple[Layers, Mapping] | None:
    """The mapping at a size, and its layers for all of them."""
    like, board = layers.chooser, layers.board
    chooser = Chooser(like.graph, resized(layers.overlay, size), board, like.phases, SLICES,
                      like.known)
    mapping = chooser.run()
    if isinstance(mapping, Infeasible):
        return None
    chooser.overlay, chooser.budget = layers.overlay, budget_of(layers.overlay, board)
    return layers.otherwise(chooser), mapping


def _numbers(rows: np.ndarray) -> np.ndarray:
    """A number for each row of small whole numbers; equal rows have equal numbers."""
    found = np.zeros(len(rows), np.int64)
    for column in rows.T.astype(np.int64):
        found = found * (int(column.max()) + 1) + column
    return found

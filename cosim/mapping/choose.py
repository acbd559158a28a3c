"""Decides for every layer whether an engine or the host runs it.

It chooses no tile: each engine does (`cosim.engines`). It writes no operations and places nothing
in memory. Capacity rules are exact: a tile that is chosen fits the banks it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping as Table
from dataclasses import replace
from typing import Protocol

from arch_models.board import Board
from arch_models.channels import channels
from arch_models.engines import Work, engines_that_run, timing
from arch_models.engines.base import Timing
from arch_models.overlay import Engine, Fusion, Infeasible, Master, Overlay, Role
from cosim.mapping import tile_search
from cosim.mapping.layout import Drawing
from cosim.mapping.tiles import LayerMapping, Mapping
from cosim.mapping.words import group_channels
from cosim.program.table import MAX_CHANNELS
from workloads.graph import Graph, Layer, Operator, Phase

#: Operators that cost nothing: an address change.
FREE = frozenset({Operator.CONCAT})
#: Solved tile searches: (kind of shape, shape, budget) to the best tile.
Known = dict[tuple[type, tuple, tile_search.Budget], tuple]


class ChoosesTile(Protocol):
    """What an engine answers here."""

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping | Infeasible:
        """The best tile of a layer, or the host, or why the design cannot run the graph."""


Engines = Table[Engine, ChoosesTile]


def work_of(graph: Graph, layer: Layer, data_bits: int = 8) -> Work:
    """What a graph layer asks of an engine whose values have so many bits."""
    window = layer.window
    scaled = layer.operator is Operator.AVERAGE_POOL and "multiplier" in layer.constants
    operator = layer.operator
    if operator is Operator.REQUANTIZE:
        operator = Operator.AFFINE  # without an offset
    return Work(str(operator.value), window.rows, window.columns, window.stride,
                window.padding, 1 if operator is Operator.GROUP_NORM else window.groups,
                layer.relu, scaled, group_channels(layer, graph) == (1, 1),
                operator is Operator.CONVOLUTION and any(
                    graph.tensors[name].bits > data_bits for name in (*layer.inputs, layer.output)))


def memory_rate(masters: tuple[Master, ...], clock_hz: int, board: Board) -> float:
    """Bytes a cycle of all masters but the fetch, at most the DDR's peak: what a mapping sees of
    the clock."""
    ports = sum(item.width_bits for item in masters if item.role is not Role.FETCH) / 8
    return min(ports, board.ddr.peak_bytes_per_s / clock_hz)


def engines_for(graph: Graph) -> frozenset[Engine]:
    """The engines that have work to do in a network, if all were in fabric."""
    return frozenset(model.engine for layer in graph.layers
                     for model in engines_that_run(work_of(graph, layer)))


def budget_of(overlay: Overlay, board: Board) -> tile_search.Budget:
    """Buffers and rates for the tile search."""
    def rate(role: Role) -> float:
        return sum(master.width_bits for master in overlay.masters_of(role)) / 8

    read, weight, write = rate(Role.INPUT), rate(Role.WEIGHT), rate(Role.OUTPUT)
    memory = memory_rate(overlay.masters, overlay.clock_hz, board)
    return tile_search.Budget(
        overlay.input_words, overlay.weight_words, overlay.output_words,
        overlay.accumulator_words, overlay.input_banks, overlay.weight_banks,
        overlay.output_banks, overlay.tn // overlay.channel_block,
        overlay.tm // overlay.channel_block, overlay.position_bytes, read, weight, write, memory)


def choose_mapping(graph: Graph, overlay: Overlay, board: Board, phases: tuple[Phase, ...],
                   engines: Engines, known: Known | None = None) -> Mapping | Infeasible:
    """The best tile of every layer in the given phases, or why there is none.

    A convolution without groups must fit the fabric; any other layer that no engine in fabric
    can hold runs on the host. The board's part is its DDR's peak rate. `engines`: how each chooses
    tiles. `known` keeps the tile searches that were solved, for the next designs: equal shapes and
    budgets have equal tiles.
    """
    if refused := check_channels(overlay):
        return refused
    return Chooser(graph, overlay, board, phases, engines, {} if known is None else known).run()


def check_channels(overlay: Overlay) -> Infeasible | None:
    """Are there too many token channels for a descriptor's masks?"""
    count = channels(overlay)
    return None if count <= MAX_CHANNELS else Infeasible(
        "channels", count, MAX_CHANNELS, "token channels", ("masters", "engines", "fetch"))


class Chooser:
    """One pass over the layers; holds what the pass has found so far, and serves the engines."""

    def __init__(self, graph: Graph, overlay: Overlay, board: Board,
                 phases: tuple[Phase, ...], engines: Engines, known: Known) -> None:
        self.graph, self.overlay, self.phases, self.engines = graph, overlay, phases, engines
        self.budget = budget_of(overlay, board)
        self.layouts = Drawing.start(graph, overlay)
        self.known = known
        self.timings: dict[tuple[Engine, str], Timing] = {}
        self.shapes: dict[str, tuple] = {}  # by convolution: what its tile was searched for
        self.absorbed: set[str] = set()
        self.turned: dict[str, Layer] = {}  # by output: transpositions that a matmul may absorb
        self.readers: dict[str, list[Layer]] = {}
        for layer in graph.layers:
            for name in layer.inputs:
                self.readers.setdefault(name, []).append(layer)
        for name in graph.outputs:
            # A graph output has a reader outside, so nothing may absorb it.
            self.readers.setdefault(name, []).extend([graph.layers[-1], graph.layers[-1]])

    def run(self) -> Mapping | Infeasible:
        """Every layer of the phases in order, or the first that does not work out."""
        wanted = frozenset(self.phases)
        found = []
        for layer in self.graph.layers:
            if layer.operator in FREE:
                self.layouts.concat(layer)
                continue
            if layer.name in self.absorbed:
                continue
            if layer.phase not in wanted:
                self.layouts.dense(layer.output)
                continue
            item = self._layer(layer)
            if isinstance(item, Infeasible):
                return replace(item, where=f"layer {layer.name!r}")
            if item is not None:
                if item.engine is None:
                    # What a matmul in fabric would have absorbed.
                    found += [self.host(self.turned.pop(name), item.why_host)
                              for name in layer.inputs if name in self.turned]
                found.append(item)
        return Mapping(self.phases, tuple(found), self.layouts.finished())

    def _layer(self, layer: Layer) -> LayerMapping | Infeasible | None:
        """None: its reader does it. Of several engines the one that costs the least."""
        if layer.operator is Operator.UPSAMPLE and self.upsample_absorbed(layer):
            return None
        if layer.operator is Operator.TRANSPOSE and self._absorbing_matmul(layer):
            self.turned[layer.output] = layer
            return None
        work = work_of(self.graph, layer, self.overlay.data_bits)
        models = engines_that_run(work)
        if not models:
            return self.host(layer, f"no engine runs {layer.operator.value}" + (
                " of 16 bits" if work.wide else ""))
        there = [model for model in models if model.engine in self.overlay.engines]
        if not there:
            return self.host(layer, f"engine {models[-1].engine.value} is not in fabric")
        if len(there) == 1:
            return self.engines[there[0].engine].tile(self, layer)
        return self._fastest(layer, [model.engine for model in there])

    def _fastest(self, layer: Layer, engines: list[Engine]) -> LayerMapping | Infeasible:
        """The engine whose tile costs the fewest cycles; what it absorbs is not counted for it."""
        tried = []
        before = self._told()
        for place, engine in enumerate(engines):
            found = self.engines[engine].tile(self, layer)
            fits = isinstance(found, LayerMapping) and found.engine is not None
            cost = found.cost_cycles if fits else math.inf  # type: ignore[union-attr]
            tried.append((cost, place, found, self._told()))
            self._tell(before)
        _, _, found, after = min(tried, key=lambda item: item[:2])
        self._tell(after)
        return found

    def _told(self) -> tuple[dict, ...]:
        """What engines may tell: layouts, and which layers are absorbed."""
        layouts = self.layouts
        return (dict(layouts.channels), dict(layouts.counts), dict(self.turned),
                dict.fromkeys(self.absorbed))

    def _tell(self, told: tuple[dict, ...]) -> None:
        """Go back, or on, to what was told then."""
        kept: tuple[dict, ...] = (self.layouts.channels, self.layouts.counts, self.turned)
        for now, then in zip(kept, told[:3], strict=True):
            now.clear()
            now.update(then)
        self.absorbed = set(told[3])

    def timing(self, engine: Engine, operator: str) -> Timing:
        """The coefficients of an operator on this design."""
        key = (engine, operator)
        if key not in self.timings:
            self.timings[key] = timing(self.overlay, engine, operator)
        return self.timings[key]

    def host(self, layer: Layer, why: str) -> LayerMapping:
        """The layer left to the host."""
        self.layouts.dense(layer.output)
        return LayerMapping(layer.name, layer.phase, None, layer.inputs, layer.output,
                            why_host=why)

    def single_reader(self, name: str) -> Layer | None:
        """The only layer that reads a tensor; None if there are several, or somebody outside."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 else None

    def upsample_absorbed(self, layer: Layer) -> bool:
        """Will the only reader, a convolution in fabric, do this upsample itself?"""
        reader = self.single_reader(layer.output)
        return (Fusion.UPSAMPLE in self.overlay.fusions and reader is not None
                and reader.operator is Operator.CONVOLUTION and reader.phase is layer.phase
                and reader.window.groups == 1 and Engine.CONVOLUTION in self.overlay.engines)

    def _absorbing_matmul(self, layer: Layer) -> bool:
        """May the only reader, a matmul, load its weights turned by itself?"""
        reader = self.single_reader(layer.output)
        return (reader is not None and reader.operator is Operator.MATMUL
                and reader.phase is layer.phase and reader.inputs[1] == layer.output
                and reader.inputs[0] != layer.output)

    def search(self, search: Callable[..., tuple], shape: tuple) -> tuple:
        """Solve a shape once a budget."""
        key = (type(shape), shape, self.budget)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = search(shape, self.budget)
        return found

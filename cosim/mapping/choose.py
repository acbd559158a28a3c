"""Decides for every layer: engine or host, what it absorbs, and its tiles.

It writes no operations (see `lower`) and places nothing in memory (see `placement`). Capacity
rules are exact: a tile that is chosen fits the banks it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from arch_models.board import Board
from arch_models.channels import channels
from arch_models.engines import Work, engine_for, interval_cycles, timing
from arch_models.engines.base import Timing
from arch_models.engines.norm import MOST_VALUES
from arch_models.overlay import Engine, Fusion, Infeasible, Master, Overlay, Role
from arch_models.units import ceil_div
from cosim.mapping import tile_search
from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import (
    ConvolutionTile,
    GridTile,
    LayerMapping,
    Mapping,
    NormTile,
    StreamTile,
)
from cosim.mapping.words import group_channels, group_words
from cosim.program.table import MAX_CHANNELS, NORM_CONSTANTS, WeightOrder
from workloads.graph import Graph, Layer, Operator, Phase

#: Operators that cost nothing: an address change.
FREE = frozenset({Operator.CONCAT})
POINTWISE = frozenset({Operator.ADD, Operator.MULTIPLY, Operator.AFFINE, Operator.LOOKUP,
                       Operator.SOFTMAX, Operator.REQUANTIZE})
#: Solved tile searches: (shape, budget) to the best tile.
Known = dict[tuple[tuple, tile_search.Budget], tuple]
LOOKUP_TABLE_BYTES = 256
SOFTMAX_TABLE_BYTES = 512


def work_of(graph: Graph, layer: Layer) -> Work:
    """What a graph layer asks of an engine."""
    window = layer.window
    scaled = layer.operator is Operator.AVERAGE_POOL and "multiplier" in layer.constants
    operator = layer.operator
    if operator is Operator.REQUANTIZE:
        operator = Operator.AFFINE  # without an offset
    return Work(str(operator.value), window.rows, window.columns, window.stride,
                window.padding, 1 if operator is Operator.GROUP_NORM else window.groups,
                layer.relu, scaled)


def memory_rate(masters: tuple[Master, ...], clock_hz: int, board: Board) -> float:
    """Bytes a cycle of all masters but the fetch, at most the DDR's peak: what a mapping sees of
    the clock."""
    ports = sum(item.width_bits for item in masters if item.role is not Role.FETCH) / 8
    return min(ports, board.ddr.peak_bytes_per_s / clock_hz)


def engines_for(graph: Graph) -> frozenset[Engine]:
    """The engines that have work to do in a network, if all were in fabric."""
    models = (engine_for(work_of(graph, layer)) for layer in graph.layers)
    return frozenset(model.engine for model in models if model)


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
                   known: Known | None = None) -> Mapping | Infeasible:
    """The best tile of every layer in the given phases, or why there is none.

    A convolution without groups must fit the fabric; any other layer that no engine in fabric
    can hold runs on the host. The board's part is its DDR's peak rate. `known` keeps the tile
    searches that were solved, for the next designs: equal shapes and budgets have equal tiles.
    """
    if refused := check_channels(overlay):
        return refused
    return _Mapper(graph, overlay, board, phases, {} if known is None else known).run()


def check_channels(overlay: Overlay) -> Infeasible | None:
    """Are there too many token channels for a descriptor's masks?"""
    count = channels(overlay)
    return None if count <= MAX_CHANNELS else Infeasible(
        "channels", count, MAX_CHANNELS, "token channels", ("masters", "engines", "fetch"))


class _Mapper:
    """One pass over the layers; holds what the pass has found so far."""

    def __init__(self, graph: Graph, overlay: Overlay, board: Board,
                 phases: tuple[Phase, ...], known: Known) -> None:
        self.graph, self.overlay, self.phases = graph, overlay, phases
        self.budget = budget_of(overlay, board)
        self.layouts = Layouts.start(graph, overlay)
        self.known = known
        self.timings: dict[tuple[Engine, str], Timing] = {}
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
            item = self.layer(layer)
            if isinstance(item, Infeasible):
                return replace(item, where=f"layer {layer.name!r}")
            if item is not None:
                if item.engine is None:
                    # What a matmul in fabric would have absorbed.
                    found += [self.host(self.turned.pop(name), item.why_host)
                              for name in layer.inputs if name in self.turned]
                found.append(item)
        return Mapping(self.phases, tuple(found), self.layouts.frozen())

    def layer(self, layer: Layer) -> LayerMapping | Infeasible | None:
        if layer.operator is Operator.UPSAMPLE and self._absorbing_convolution(layer):
            return None
        if layer.operator is Operator.TRANSPOSE and self._absorbing_matmul(layer):
            self.turned[layer.output] = layer
            return None
        engine = engine_for(work_of(self.graph, layer))
        if engine is None:
            return self.host(layer, f"no engine runs {layer.operator.value}")
        if engine.engine not in self.overlay.engines:
            return self.host(layer, f"engine {engine.engine.value} is not in fabric")
        if layer.operator is Operator.MATMUL:
            return self.matmul(layer)
        if engine.engine is Engine.CONVOLUTION:
            return self.grouped(layer) if layer.window.groups > 1 else self.convolution(layer)
        if engine.engine is Engine.GRID_SAMPLE:
            return self.grid(layer)
        if engine.engine is Engine.NORM:
            return self.norm(layer)
        return self.stream(layer, engine.engine)

    def timing(self, engine: Engine, operator: str) -> Timing:
        key = (engine, operator)
        if key not in self.timings:
            self.timings[key] = timing(self.overlay, engine, operator)
        return self.timings[key]

    def host(self, layer: Layer, why: str) -> LayerMapping:
        self.layouts.dense(layer.output)
        return LayerMapping(layer.name, layer.phase, None, layer.inputs, layer.output,
                            why_host=why)

    def single_reader(self, name: str) -> Layer | None:
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 else None

    def _absorbing_convolution(self, layer: Layer) -> bool:
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

    def _fused_behind(self, layer: Layer) -> tuple[Layer | None, Layer | None]:
        """The pool or the addition that this convolution absorbs."""
        reader = self.single_reader(layer.output)
        if (reader is None or reader.phase is not layer.phase
                or layer.operator is Operator.MATMUL):
            return None, None
        window, spec = reader.window, self.graph.tensors[layer.output]
        if (reader.operator is Operator.AVERAGE_POOL and Fusion.POOL in self.overlay.fusions
                and "multiplier" not in reader.constants and window.padding == 0
                and window.rows == window.columns == window.stride == 2
                and spec.rows % 2 == spec.columns % 2 == 0):
            return reader, None
        if (reader.operator is Operator.ADD and Fusion.ADD in self.overlay.fusions
                and not reader.relu and len(set(reader.inputs)) == 2):
            other = next(name for name in reader.inputs if name != layer.output)
            if (self.layouts.known(other) and self.layouts.is_dense(other)
                    and self._made_before(other, layer)):
                return None, reader
        return None, None

    def _made_before(self, name: str, layer: Layer) -> bool:
        for other in self.graph.layers:
            if other.name == layer.name:
                return True
            if other.output == name:
                return True
        return False

    def convolution(self, layer: Layer) -> LayerMapping | Infeasible:
        overlay, graph, window = self.overlay, self.graph, layer.window
        source, upsample = layer.inputs[0], ""
        producer = next((item for item in graph.layers if item.output == source), None)
        if (producer is not None and producer.operator is Operator.UPSAMPLE
                and self._absorbing_convolution(producer)):
            source, upsample = producer.inputs[0], producer.name
        pool, add = self._fused_behind(layer)
        target = (pool or add or layer).output
        skip = ""
        if add is not None:
            skip = next(name for name in add.inputs if name != layer.output)
        self.layouts.dense(target)
        spec, out = graph.tensors[source], graph.tensors[layer.output]
        planes = self.layouts.planes(source)
        grouped, in_words = 0, ceil_div(planes, self.budget.lanes_in)
        out_words = ceil_div(out.channels, overlay.tm)
        group_out, group_in = group_channels(layer, graph)
        if group_in:
            grouped = 1
            in_words = max(
                group_words(word, overlay.tm, overlay.tn, out.channels, group_out, group_in)[1]
                for word in range(out_words))
            planes = min(planes, in_words * self.budget.lanes_in)
        if out_words * overlay.tm > overlay.parameter_entries // 2:
            return Infeasible("parameter_entries", 2 * out_words * overlay.tm,
                              overlay.parameter_entries, "entries", ("parameter_entries", "tm"))
        found = self.timing(Engine.CONVOLUTION, "convolution")
        shape = tile_search.ConvolutionShape(
            spec.rows, spec.columns, planes, out.rows, out.columns,
            self.layouts.planes(target), in_words, out_words,
            window.rows, window.columns, window.stride, window.padding, int(bool(upsample)),
            int(pool is not None), int(add is not None), overlay.columns,
            overlay.result_cycles,
            overlay.tm * overlay.tn * overlay.weight_bits // 8, found.fill + found.drain,
            found.interval, overlay.most_in_words or planes,
            1 if grouped else overlay.most_out_words or out_words, grouped, overlay.tile_rows,
            overlay.tile_columns)
        best = self._search(tile_search.search_convolution, shape)
        if best[0] < 0:
            return _no_convolution_tile(shape, overlay)
        _, out, words, rows, columns, resident, outer = best
        tile = ConvolutionTile(out, words, rows, columns, bool(resident), bool(outer))
        behind = [item.name for item in (pool, add) if item is not None]
        absorbed = (*([upsample] if upsample else []), *behind)
        self.absorbed.update(absorbed)
        return LayerMapping(
            layer.name, layer.phase, Engine.CONVOLUTION, (source, *([skip] if skip else [])),
            target, absorbed, upsample, pool.name if pool else "", add.name if add else "", skip,
            tile, best[0])

    def grouped(self, layer: Layer) -> LayerMapping:
        """A convolution in groups, each output word over its own input words, or the host."""
        if not self.layouts.is_dense(layer.inputs[0]):
            return self.host(layer, f"{layer.inputs[0]!r} has gaps between its channels")
        found = self.convolution(layer)
        return self.host(layer, str(found)) if isinstance(found, Infeasible) else found

    def matmul(self, layer: Layer) -> LayerMapping:
        """A 1x1 convolution whose weights are the second operand, or the host."""
        left, right = layer.inputs
        order = WeightOrder.ROWS if right in self.turned else WeightOrder.COLUMNS
        operand = self.turned[right].inputs[0] if right in self.turned else right
        why = self._operand_misfit(layer, operand, order)
        if why:
            return self.host(layer, why)
        found = self.convolution(layer)
        if isinstance(found, Infeasible):
            return self.host(layer, str(found))
        absorbed = (self.turned.pop(right).name,) if right in self.turned else ()
        return replace(found, inputs=(left, operand), absorbed=absorbed, order=order)

    def _operand_misfit(self, layer: Layer, operand: str, order: WeightOrder) -> str:
        """Why WEIGHT cannot take an activation; empty if it can."""
        overlay, tensors = self.overlay, self.graph.tensors
        for name in (layer.inputs[0], operand, layer.output):
            if tensors[name].bits != 8:
                return f"{name!r} has {tensors[name].bits} bits, must have 8"
        if (overlay.data_bits, overlay.weight_bits, overlay.channel_block) != (8, 8, 8):
            return "activations become weights only where both have 8 bits, 8 channels a beat"
        for name in (layer.inputs[0], operand):
            if not self.layouts.is_dense(name):
                return f"{name!r} has gaps between its channels"
        if order is WeightOrder.ROWS and tensors[operand].channels % overlay.channel_block:
            # Lanes that no channel has may hold anything, on both sides of the product.
            return (f"{operand!r} has {tensors[operand].channels} channels, must be a multiple "
                    f"of {overlay.channel_block}")
        return ""

    def norm(self, layer: Layer) -> LayerMapping:
        """Blocks of whole groups on the norm engine, or the host."""
        why = self._norm_misfit(layer)
        if why:
            return self.host(layer, why)
        spec = self.graph.tensors[layer.inputs[0]]
        sums, found = (self.timing(Engine.NORM, name) for name in ("group_sums", "group_norm"))
        block = self.overlay.channel_block
        each = spec.channels // layer.window.groups
        shape = tile_search.NormShape(
            self.layouts.planes(layer.inputs[0]), math.lcm(each, block) // block, spec.positions,
            sums.fill + sums.drain, found.fill + found.drain, found.interval)
        best = self._search(tile_search.search_norm, shape)
        if best[0] < 0:
            return self.host(layer, "no block of whole groups fits INPUT and OUTPUT")
        self.layouts.dense(layer.output)
        return LayerMapping(layer.name, layer.phase, Engine.NORM, layer.inputs, layer.output,
                            tile=NormTile(*best[1:]), cost_cycles=best[0])

    def _norm_misfit(self, layer: Layer) -> str:
        """Why the norm engine cannot hold a group norm's numbers; empty if it can."""
        overlay, tensors = self.overlay, self.graph.tensors
        first = layer.inputs[0]
        for name in (*layer.inputs, layer.output):
            if tensors[name].bits != 8 or overlay.position_bytes != 8:
                return f"{name!r} has {tensors[name].bits} bits, must have 8"
            if name != layer.output and not self.layouts.is_dense(name):
                return f"{name!r} has gaps between its channels"
        values = tensors[first].elements // layer.window.groups
        if values > MOST_VALUES:
            return f"a group has {values} values, at most {MOST_VALUES}"
        planes = self.layouts.planes(first)
        entries = NORM_CONSTANTS + planes * (overlay.channel_block + len(layer.inputs) - 1)
        if entries > overlay.vector_entries:
            return f"vector_entries needs {entries}, has {overlay.vector_entries}"
        return ""

    def _search(self, search: Callable[..., tuple], shape: tuple) -> tuple:
        """Solve a shape once a budget."""
        key = (shape, self.budget)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = search(shape, self.budget)
        return found

    def stream(self, layer: Layer, engine: Engine) -> LayerMapping | Infeasible:
        graph, operator = self.graph, layer.operator
        spec, out = graph.tensors[layer.inputs[0]], graph.tensors[layer.output]
        planes = self.layouts.planes(layer.inputs[0])
        if not self._stream_fits(layer, planes):
            return self.host(layer, "its tables, parameters or layout do not fit the engine")
        operands, broadcast = 1, 0
        if operator in (Operator.ADD, Operator.MULTIPLY):
            operands = 2
            broadcast = int(operator is Operator.MULTIPLY
                            and graph.tensors[layer.inputs[1]].channels == 1
                            and spec.channels > 1)
        work = work_of(graph, layer)
        found = self.timing(engine, work.operator)
        interval = interval_cycles(found, work, planes, spec.channels)
        whole = operator in (Operator.SOFTMAX, Operator.FLOW_SUM)
        one_out = operator is Operator.FLOW_SUM
        best: tuple = (-1.0, 0, 0)
        unit_in, unit_out = 1, 1
        for unit_in, unit_out, units in _units(layer, spec.rows, spec.columns, out.rows,
                                               out.columns):
            shape = tile_search.StreamShape(
                planes, units, unit_in, unit_out, operands, broadcast, int(whole), int(one_out),
                int(whole), found.fill + found.drain, interval)
            best = self._search(tile_search.search_stream, shape)
            if best[0] >= 0:
                break
        if best[0] < 0:
            return self.host(layer, "no tile fits INPUT and OUTPUT")
        if one_out:
            self.layouts.dense(layer.output)
        else:
            self.layouts.same(layer.output, layer.inputs[0])
        return LayerMapping(layer.name, layer.phase, engine, layer.inputs, layer.output,
                            tile=StreamTile(best[1], best[2], unit_in, unit_out),
                            cost_cycles=best[0])

    def _stream_fits(self, layer: Layer, planes: int) -> bool:
        """Do tables, parameters and layouts allow the fabric at all?"""
        overlay, operator, layouts = self.overlay, layer.operator, self.layouts
        first = layer.inputs[0]
        if operator is not Operator.FLOW_SUM and overlay.data_bits == 8 and any(
                self.graph.tensors[name].bits != 8 for name in (*layer.inputs, layer.output)):
            return False
        if operator in (Operator.AFFINE, Operator.REQUANTIZE):
            return 2 * planes * overlay.channel_block <= overlay.vector_entries
        if operator is Operator.LOOKUP:
            return overlay.table_bytes >= 2 * LOOKUP_TABLE_BYTES
        if operator is Operator.SOFTMAX:
            spec = self.graph.tensors[layer.output]
            digits = spec.bits == 8 and math.frexp(spec.scale)[0] == 0.5
            return (overlay.table_bytes >= 2 * LOOKUP_TABLE_BYTES + SOFTMAX_TABLE_BYTES
                    and layouts.is_dense(first) and digits)
        if operator is Operator.FLOW_SUM:
            entries = self.graph.tensors[layer.inputs[1]].rows
            return layouts.is_dense(first) and 2 * entries <= overlay.vector_entries
        if operator is Operator.ADD:
            return layouts.parts(first) == layouts.parts(layer.inputs[1])
        if operator is Operator.MULTIPLY:
            other = self.graph.tensors[layer.inputs[1]]
            # One value a channel has too few positions for the engine, which reads them all.
            return other.positions == self.graph.tensors[first].positions and (
                other.channels == 1 or layouts.parts(first) == layouts.parts(layer.inputs[1]))
        return True

    def grid(self, layer: Layer) -> LayerMapping:
        graph = self.graph
        source, grid = (graph.tensors[name] for name in layer.inputs)
        planes = self.layouts.planes(layer.inputs[0])
        found = self.timing(Engine.GRID_SAMPLE, "grid_sample")
        grids = grid.channels // 2
        shape = tile_search.GridShape(
            source.positions, planes, grids, grid.positions, found.fill + found.drain,
            found.interval, found.interval_per_plane)
        best = self._search(tile_search.search_grid, shape)
        if best[0] < 0:
            return self.host(layer, "no tile fits INPUT and OUTPUT")
        self.layouts.repeated(layer.output, layer.inputs[0], grids)
        return LayerMapping(layer.name, layer.phase, Engine.GRID_SAMPLE, layer.inputs,
                            layer.output, tile=GridTile(*best[1:5]), cost_cycles=best[0])


def _units(layer: Layer, rows: int, columns: int, out_rows: int,
           out_columns: int) -> list[tuple[int, int, int]]:
    """Ways to cut the positions: (positions read, positions written, how many units)."""
    operator, window = layer.operator, layer.window
    if operator in POINTWISE:
        ways = [(columns, columns, rows)]
        for size in (64, 16, 8, 1):
            if size < columns and rows * columns % size == 0:
                ways.append((size, size, rows * columns // size))
        return ways
    if operator is Operator.UPSAMPLE:
        return [(columns, 4 * columns, rows)]
    if operator is Operator.AVERAGE_POOL and rows % window.stride == columns % window.stride == 0:
        return [(window.stride * columns, out_columns, out_rows)]
    if operator is Operator.FLOW_SUM:
        return [(columns, columns, rows)]
    # Overlapping windows: a plane is one unit.
    return [(rows * columns, out_rows * out_columns, 1)]


def _no_convolution_tile(shape: tile_search.ConvolutionShape, overlay: Overlay) -> Infeasible:
    """Which buffer the smallest tile (one word, one row, one column) misses.

    With groups the smallest tile has all input words of one output word.
    """
    words = shape.in_words if shape.grouped else 1
    taps = shape.kernel_rows * shape.kernel_columns * words
    if taps > overlay.weight_words:
        return Infeasible("weight_words", taps, overlay.weight_words, "words",
                          ("weight_words", "tm", "tn"))
    least = min(shape.in_rows, shape.kernel_rows) * min(shape.in_columns, shape.kernel_columns)
    least *= words
    if least > overlay.input_words:
        return Infeasible("input_words", least, overlay.input_words, "words",
                          ("input_words", "tn"))
    if overlay.output_words < 1:
        return Infeasible("output_words", 1, overlay.output_words, "words", ("output_words",))
    return Infeasible("accumulator_words", 4 if shape.pool else 1, overlay.accumulator_words,
                      "words", ("accumulator_words", "weight_words", "input_words"))

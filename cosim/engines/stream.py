"""The engines that stream a tile, in mapping and lowering: tile, search, constants, lower bound.

Elementwise, lookup, pool, upsample and softmax differ in operators and constants only. The rows
are written by `stream_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from arch_models.engines import Tile, Work, interval_cycles, timing
from arch_models.overlay import Engine
from arch_models.units import ceil_div
from cosim.compiled import kept
from cosim.engines.base import Demand, Job, Mapped, Site, edge, share
from cosim.engines.buffers import Buffers
from cosim.engines.constants import ENTRY_BYTES, layer_entries
from cosim.engines.rows import BY_ONE
from cosim.engines.stream_rows import StreamPlan, stream_rows
from cosim.engines.stream_values import pointwise, windows
from cosim.mapping import tile_search
from cosim.mapping.choose import Chooser, work_of
from cosim.mapping.tile_search import TRANSFER_CYCLES, Totals, sizes, total
from cosim.mapping.tiles import LayerMapping, StreamTile
from cosim.program.table import Buffer, Opcode
from workloads.graph import Layer, Operator
from workloads.reference import fraction_bits_of

LOOKUP_TABLE_BYTES, SOFTMAX_TABLE_BYTES = 256, 512
SOFTMAX_TABLE_BEAT = 64  # behind the two lookup tables of 256 bytes
LOOKUP_TABLE_BEATS = 32
POINTWISE = frozenset({Operator.ADD, Operator.MULTIPLY, Operator.AFFINE, Operator.LOOKUP,
                       Operator.SOFTMAX, Operator.REQUANTIZE})
#: A change of scale is an affine step without offset.
AFFINES = (Operator.AFFINE, Operator.REQUANTIZE)
TWO_OPERANDS = (Operator.ADD, Operator.MULTIPLY)
#: A trip is a position, and a tile has all planes.
BY_POSITION = (Operator.SOFTMAX, Operator.FLOW_SUM)
OPCODES = {
    Operator.ADD: Opcode.ADD, Operator.MULTIPLY: Opcode.MULTIPLY, Operator.AFFINE: Opcode.AFFINE,
    Operator.FLOW_SUM: Opcode.FLOW_SUM, Operator.LOOKUP: Opcode.LOOKUP,
    Operator.AVERAGE_POOL: Opcode.AVERAGE_POOL, Operator.MAX_POOL: Opcode.MAX_POOL,
    Operator.UPSAMPLE: Opcode.UPSAMPLE, Operator.SOFTMAX: Opcode.SOFTMAX,
    Operator.REQUANTIZE: Opcode.AFFINE,
}
#: Operations that read more positions than they write, or fewer.
WINDOWS = (Opcode.AVERAGE_POOL, Opcode.MAX_POOL, Opcode.UPSAMPLE)
BEATS, CHANNELS = ("positions", "planes"), ("positions", "channels")
IMAGE = ("in_rows", "in_columns", "planes")
COST_ARGUMENTS: Mapping[Engine, Mapping[Opcode, tuple[str, ...]]] = {
    Engine.ELEMENTWISE: {Opcode.ADD: BEATS, Opcode.MULTIPLY: BEATS, Opcode.AFFINE: BEATS,
                         Opcode.FLOW_SUM: CHANNELS},
    Engine.LOOKUP: {Opcode.LOOKUP: BEATS}, Engine.SOFTMAX: {Opcode.SOFTMAX: CHANNELS},
    Engine.POOL: {Opcode.AVERAGE_POOL: IMAGE, Opcode.MAX_POOL: IMAGE},
    Engine.UPSAMPLE: {Opcode.UPSAMPLE: IMAGE},
}


@dataclass(frozen=True)
class StreamSlice:
    """One of the engines; see `EngineSlice`."""

    engine: Engine

    @property
    def cost_arguments(self) -> Mapping[Opcode, tuple[str, ...]]:
        """See `EngineSlice`."""
        return COST_ARGUMENTS[self.engine]

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping:
        """Planes and groups of positions, whole rows if they fit."""
        engine = self.engine
        graph, operator = chooser.graph, layer.operator
        spec, out = graph.tensors[layer.inputs[0]], graph.tensors[layer.output]
        planes = chooser.layouts.planes(layer.inputs[0])
        if not _fits(chooser, layer, planes):
            return chooser.host(layer, "its tables, parameters or layout do not fit the engine")
        operands, broadcast = 1, 0
        if operator in TWO_OPERANDS:
            operands = 2
            broadcast = int(operator is Operator.MULTIPLY
                            and graph.tensors[layer.inputs[1]].channels == 1
                            and spec.channels > 1)
        work = work_of(graph, layer)
        found = chooser.timing(engine, work.operator)
        interval = interval_cycles(found, work, planes, spec.channels)
        whole = operator in BY_POSITION
        one_out = operator is Operator.FLOW_SUM
        best: tuple = (-1.0, 0, 0)
        unit_in, unit_out = 1, 1
        for unit_in, unit_out, units in _units(layer, spec.rows, spec.columns, out.rows,
                                               out.columns):
            shape = StreamShape(
                planes, units, unit_in, unit_out, operands, broadcast, int(whole), int(one_out),
                int(whole), found.fill + found.drain, interval)
            best = chooser.search(search, shape)
            if best[0] >= 0:
                break
        if best[0] < 0:
            return chooser.host(layer, "no tile fits INPUT and OUTPUT")
        if one_out:
            chooser.layouts.dense(layer.output)
        else:
            chooser.layouts.same(layer.output, layer.inputs[0])
        return LayerMapping(layer.name, layer.phase, engine, layer.inputs, layer.output,
                            tile=StreamTile(best[1], best[2], unit_in, unit_out),
                            cost_cycles=best[0])

    def constants(self, mapped: Mapped) -> list[tuple[str, int]]:
        """Entries of an affine step, or a table."""
        operator = mapped.layer.operator
        if operator in AFFINES:
            planes = mapped.planes(mapped.item.inputs[0])
            return [("parameters", planes * mapped.overlay.channel_block * ENTRY_BYTES)]
        if operator is Operator.LOOKUP:
            return [("table", LOOKUP_TABLE_BYTES)]
        return [("table", SOFTMAX_TABLE_BYTES)] if operator is Operator.SOFTMAX else []

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """Entries, or the table of a lookup (256 x int8, entry v + 128) or a softmax (256 x
        uint16)."""
        if role == "table":
            table = mapped.graph.constant(mapped.layer, "table")
            return table.astype("<u2" if table.dtype.itemsize == 2 else "i1").tobytes()
        source = mapped.item.inputs[0]
        return layer_entries(mapped.graph, mapped.layer, "offset",
                             mapped.planes(source) * mapped.overlay.channel_block,
                             mapped.layouts.places(source))

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """The displacements of a flow sum."""
        return mapped.item.inputs[1:] if mapped.layer.operator is Operator.FLOW_SUM else ()

    def job(self, mapped: Mapped, site: Site) -> Job:
        """One operation a tile; two operands share an INPUT bank."""
        graph, overlay, layer, item = mapped.graph, mapped.overlay, mapped.layer, mapped.item
        tile, operator = item.tile, layer.operator
        assert isinstance(tile, StreamTile)
        spec, out = graph.tensors[item.inputs[0]], graph.tensors[layer.output]
        planes = mapped.planes(item.inputs[0])
        units = spec.positions // tile.unit_in
        flow, two = operator is Operator.FLOW_SUM, operator in TWO_OPERANDS
        edge_planes, edge_units = edge(planes, tile.planes), edge(units, tile.units)
        block = overlay.channel_block
        common = site.common(
            overlay,
            BY_ONE if two else share(site.wires.inputs,
                                     ceil_div(edge_planes, overlay.tn // block),
                                     edge_units * tile.unit_in),
            share(site.wires.outputs, 0 if flow else ceil_div(edge_planes, overlay.tm // block),
                  edge_units * tile.unit_out))
        plan = StreamPlan(
            int(OPCODES[operator]), 2 if two else 1,
            int(two and mapped.planes(item.inputs[1]) == 1
                and graph.tensors[item.inputs[1]].channels == 1 and spec.channels > 1),
            planes, mapped.planes(item.output), units, tile.unit_in, tile.unit_out, tile.planes,
            tile.units, tile.unit_in // spec.columns if tile.unit_in >= spec.columns else 1,
            spec.columns, out.columns, spec.channels, *_parameters(mapped, site),
            *_scalars(mapped))
        source, target = site.line(mapped, item.inputs[0]), site.line(mapped, item.output)
        other = site.line(mapped, item.inputs[1]) if two else source
        if mapped.layouts.is_grid(item.output):
            target = target._replace(position_bytes=8)
        most = 1 + (site.masters + 1) * (ceil_div(planes, tile.planes)
                                         * ceil_div(units, tile.units))
        return Job(stream_rows, common, plan, (source, other, target), site.wires, most)

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """Output beats, or positions of all channels."""
        work = work_of(mapped.graph, mapped.layer)
        channels = mapped.graph.tensors[mapped.item.inputs[0]].channels
        if "positions" in values:
            planes = values.get("planes", ceil_div(channels, mapped.overlay.channel_block))
            return work, Tile(1, values["positions"], planes, channels)
        rows, columns = values["in_rows"], values["in_columns"]
        if opcode is Opcode.UPSAMPLE:
            return work, Tile(2 * rows, 2 * columns, values["planes"], channels)
        rows, columns = ((size + 2 * work.padding - work.kernel_rows) // work.stride + 1
                         for size in (rows, columns))
        return work, Tile(rows, columns, values["planes"], channels)

    def least(self, mapped: Mapped) -> Demand:
        """Every trip, and fill and drain of each tile."""
        layer, item, tile = mapped.layer, mapped.item, mapped.item.tile
        assert isinstance(tile, StreamTile)
        loaded = mapped.bytes_of(item.inputs[0])
        if layer.operator in TWO_OPERANDS:
            loaded += mapped.bytes_of(item.inputs[1])
        spec, work = mapped.graph.tensors[item.inputs[0]], work_of(mapped.graph, layer)
        planes = mapped.planes(item.inputs[0])
        found = timing(mapped.overlay, self.engine, work.operator)
        units = spec.positions // tile.unit_in
        trips = units * tile.unit_out * (1 if layer.operator in BY_POSITION else planes)
        stages = ceil_div(planes, tile.planes) * ceil_div(units, tile.units)
        cycles = trips * interval_cycles(found, work, planes, spec.channels)
        return Demand(compute_cycles=cycles + stages * (found.fill + found.drain),
                      untiled_cycles=cycles, load_bytes=loaded,
                      store_bytes=mapped.bytes_of(item.output))

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """See `EngineSlice`."""
        (windows if opcode in WINDOWS else pointwise)(memories, opcode, values)


def _parameters(mapped: Mapped, site: Site) -> tuple[int, int, int, int]:
    """Address, bytes, buffer and place of a layer's constants; 0 bytes if none."""
    operator = mapped.layer.operator
    base = site.parity * (mapped.overlay.vector_entries // 2)
    if operator is Operator.FLOW_SUM:
        # A displacement tensor is a list of (x, y) beats: the entries themselves.
        name = mapped.layer.inputs[1]
        entries = mapped.graph.tensors[name].positions
        return site.addresses[name], entries * 8, int(Buffer.VECTOR_PARAMETERS), base
    if operator in AFFINES:
        return *site.blobs["parameters"], int(Buffer.VECTOR_PARAMETERS), base
    if operator is Operator.LOOKUP:
        return *site.blobs["table"], int(Buffer.TABLE), site.parity * LOOKUP_TABLE_BEATS
    if operator is Operator.SOFTMAX:
        return *site.blobs["table"], int(Buffer.TABLE), SOFTMAX_TABLE_BEAT
    return 0, 0, 0, 0


def _scalars(mapped: Mapped) -> tuple[int, int, int]:
    """The last arguments of the layer's operations."""
    layer, graph = mapped.layer, mapped.graph
    operator, window = layer.operator, layer.window
    if operator is Operator.ADD:
        first, second = (int(item) for item in graph.constant(layer, "multiplier"))
        return first, second, mapped.constant("shift")
    if operator is Operator.MULTIPLY:
        return (int(graph.tensors[layer.inputs[1]].channels == 1),
                mapped.constant("multiplier"), mapped.constant("shift"))
    if operator in AFFINES:
        return int(layer.relu), 0, 0
    if operator is Operator.FLOW_SUM:
        return layer.fraction_bits, 0, 0
    if operator is Operator.SOFTMAX:
        return fraction_bits_of(graph.tensors[layer.output]), 0, 0
    return window.rows, window.stride, window.padding


def _fits(chooser: Chooser, layer: Layer, planes: int) -> bool:
    """Do tables, parameters and layouts allow the fabric at all?"""
    overlay, operator, layouts = chooser.overlay, layer.operator, chooser.layouts
    first = layer.inputs[0]
    if operator is not Operator.FLOW_SUM and overlay.data_bits == 8 and any(
            chooser.graph.tensors[name].bits != 8 for name in (*layer.inputs, layer.output)):
        return False
    if operator in AFFINES:
        return 2 * planes * overlay.channel_block <= overlay.vector_entries
    if operator is Operator.LOOKUP:
        return overlay.table_bytes >= 2 * LOOKUP_TABLE_BYTES
    if operator is Operator.SOFTMAX:
        spec = chooser.graph.tensors[layer.output]
        digits = spec.bits == 8 and math.frexp(spec.scale)[0] == 0.5
        return (overlay.table_bytes >= 2 * LOOKUP_TABLE_BYTES + SOFTMAX_TABLE_BYTES
                and layouts.is_dense(first) and digits)
    if operator is Operator.FLOW_SUM:
        entries = chooser.graph.tensors[layer.inputs[1]].rows
        return layouts.is_dense(first) and 2 * entries <= overlay.vector_entries
    if operator is Operator.ADD:
        return layouts.parts(first) == layouts.parts(layer.inputs[1])
    if operator is Operator.MULTIPLY:
        other = chooser.graph.tensors[layer.inputs[1]]
        # One value a channel has too few positions for the engine, which reads them all.
        return other.positions == chooser.graph.tensors[first].positions and (
            other.channels == 1 or layouts.parts(first) == layouts.parts(layer.inputs[1]))
    return True


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
    # Windows that lie apart are cut between any two rows of them.
    apart = max(window.rows, window.columns) <= window.stride and window.padding == 0
    if operator in (Operator.AVERAGE_POOL, Operator.MAX_POOL) and apart and (
            rows % window.stride == columns % window.stride == 0):
        return [(window.stride * columns, out_columns, out_rows)]
    if operator is Operator.FLOW_SUM:
        return [(columns, columns, rows)]
    # Overlapping windows: a plane is one unit.
    return [(rows * columns, out_rows * out_columns, 1)]


class StreamShape(NamedTuple):
    """A streaming layer as its tile search sees it."""

    planes: int
    units: int
    unit_in: int
    unit_out: int
    operands: int
    broadcast: int
    whole_planes: int
    one_out_plane: int
    by_position: int
    overhead: int
    interval: int


@kept(tile_search)
def search(shape, budget):
    """(cost, planes, units) of the best tile; cost < 0: none fits."""
    plane_found = np.empty(2 * shape.planes + 2, np.int64)
    unit_found = np.empty(2 * shape.units + 2, np.int64)
    plane_count = sizes(shape.planes, 1, plane_found)
    unit_count = sizes(shape.units, 1, unit_found)
    best = (-1.0, 0, 0)
    in_positions, out_positions = shape.units * shape.unit_in, shape.units * shape.unit_out
    out_planes = 1 if shape.one_out_plane else shape.planes
    stored = out_planes * out_positions * budget.position_bytes
    trips = out_positions if shape.by_position else out_positions * shape.planes
    for plane_index in range(1 if shape.whole_planes else plane_count):
        planes = plane_found[plane_index]
        tiles = -(-shape.planes // planes)
        other = 0
        if shape.operands == 2:
            other = 1 if shape.broadcast else planes
        words = -(-planes // budget.lanes_in) + -(-other // budget.lanes_in)
        out_words = 1 if shape.one_out_plane else -(-planes // budget.lanes_out)
        read = shape.planes * in_positions * budget.position_bytes
        read += tiles * other * in_positions * budget.position_bytes
        for unit_index in range(unit_count):
            units = unit_found[unit_index]
            if (words * units * shape.unit_in > budget.input_words
                    or out_words * units * shape.unit_out > budget.output_words):
                continue
            stages = tiles * -(-shape.units // units)
            compute = trips * shape.interval + stages * shape.overhead
            loads = read / budget.read_rate + stages * shape.operands * TRANSFER_CYCLES
            stores = stored / budget.write_rate + stages * TRANSFER_CYCLES
            first = ((planes + other) * units * shape.unit_in * budget.position_bytes
                     / budget.read_rate + TRANSFER_CYCLES)
            out_tile = 1 if shape.one_out_plane else planes
            last = (out_tile * units * shape.unit_out * budget.position_bytes
                    / budget.write_rate + TRANSFER_CYCLES)
            cost = total(budget, Totals(
                compute, loads, 0.0, stores, float(read + stored), 0, first, last))
            if best[0] < 0 or cost < best[0]:
                best = (cost, planes, units)
    return best

"""The engines that stream a tile, in mapping and lowering: tile, search, constants, lower bound.

Elementwise, lookup, pool, upsample and softmax differ in operators and constants only. The rows
are written by `stream_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from arch_models.engines import Tile, Work, interval_cycles, timing
from arch_models.engines.base import Timing
from arch_models.literature import Copies, Origin
from arch_models.overlay import Engine
from arch_models.units import ceil_div
from cosim.engines.base import Demand, Job, Mapped, Site, edge, least_read, share
from cosim.engines.buffers import Buffers, streamed
from cosim.engines.constants import ENTRY_BYTES, layer_entries
from cosim.engines.rows import BY_ONE
from cosim.engines.stream_rows import ImageCut, StreamPlan, image_rows, stream_rows
from cosim.engines.stream_values import pointwise, windows
from cosim.mapping.choose import Chooser, work_of
from cosim.mapping.stream_search import ImageShape, StreamShape, search, search_images
from cosim.mapping.tiles import LayerMapping, PlaneTile, StreamTile
from cosim.mapping.words import lacks_zero_points, span
from cosim.program.table import Buffer, Opcode
from workloads.graph import Layer, Operator
from workloads.reference import fraction_bits_of, offset_of, zeros_of

LOOKUP_TABLE_BYTES, SOFTMAX_TABLE_BYTES = 256, 512
SOFTMAX_TABLE_BEAT = 64  # behind the two lookup tables of 256 bytes
LOOKUP_TABLE_BEATS = 32
POINTWISE = frozenset({Operator.ADD, Operator.MULTIPLY, Operator.AFFINE, Operator.LOOKUP,
                       Operator.SOFTMAX, Operator.REQUANTIZE})
#: A change of scale is an affine step without offset.
AFFINES = (Operator.AFFINE, Operator.REQUANTIZE)
#: Operators on images, which may be cut in rows and columns.
IMAGES = frozenset({Operator.ADD, Operator.MULTIPLY, Operator.AFFINE, Operator.LOOKUP,
                    Operator.REQUANTIZE, Operator.AVERAGE_POOL, Operator.MAX_POOL,
                    Operator.UPSAMPLE})
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
    accesses = staticmethod(streamed)

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
        why = _misfit(chooser, layer, planes)
        if why:
            return chooser.host(layer, why)
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
        tile: object = None
        ways = [] if _asks_for_images(chooser, layer) else _units(
            layer, spec.rows, spec.columns, out.rows, out.columns)
        for unit_in, unit_out, units in ways:
            shape = StreamShape(
                planes, units, unit_in, unit_out, operands, broadcast, int(whole), int(one_out),
                int(whole), found.fill + found.drain, interval)
            best = chooser.search(search, shape)
            if best[0] >= 0:
                tile = StreamTile(best[1], best[2], unit_in, unit_out)
                break
        if tile is None and _cuts_images(chooser, layer):
            window, loops = layer.window, chooser.overlay.loops
            best = chooser.search(search_images, ImageShape(
                planes, spec.rows, spec.columns, out.rows, out.columns, window.rows,
                window.columns, window.stride, window.padding, int(operator is Operator.UPSAMPLE),
                operands, broadcast, loops.stream_rows, loops.stream_columns,
                found.fill + found.drain, interval))
            tile = PlaneTile(*best[1:])
        if best[0] < 0:
            return chooser.host(layer, "no tile fits INPUT and OUTPUT")
        if one_out:
            chooser.layouts.dense(layer.output)
        else:
            chooser.layouts.same(layer.output, layer.inputs[0])
        return LayerMapping(layer.name, layer.phase, engine, layer.inputs, layer.output,
                            tile=tile, cost_cycles=best[0])

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
        if isinstance(mapped.item.tile, PlaneTile):
            return _image_job(mapped, site, mapped.item.tile)
        tile, item = mapped.item.tile, mapped.item
        assert isinstance(tile, StreamTile)
        spec = mapped.graph.tensors[item.inputs[0]]
        units = spec.positions // tile.unit_in
        flow, two = mapped.layer.operator is Operator.FLOW_SUM, _two(mapped)
        planes = mapped.planes(item.inputs[0])
        edge_planes, edge_units = edge(planes, tile.planes), edge(units, tile.units)
        overlay, block = mapped.overlay, mapped.overlay.channel_block
        common = site.common(
            overlay,
            BY_ONE if two else share(site.wires.inputs,
                                     ceil_div(edge_planes, overlay.tn // block),
                                     edge_units * tile.unit_in),
            share(site.wires.outputs, 0 if flow else ceil_div(edge_planes, overlay.tm // block),
                  edge_units * tile.unit_out))
        source, target = site.line(mapped, item.inputs[0]), site.line(mapped, item.output)
        other = site.line(mapped, item.inputs[1]) if two else source
        if mapped.layouts.is_grid(item.output):
            target = target._replace(position_bytes=8)
        most = 1 + (site.masters + 1) * (ceil_div(planes, tile.planes)
                                         * ceil_div(units, tile.units))
        return Job(stream_rows, common, _plan(mapped, site, tile), (source, other, target),
                   site.wires, most)

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
        loaded = mapped.bytes_of(item.inputs[0])
        if layer.operator in TWO_OPERANDS:
            loaded += mapped.bytes_of(item.inputs[1])
        spec, work = mapped.graph.tensors[item.inputs[0]], work_of(mapped.graph, layer)
        planes = mapped.planes(item.inputs[0])
        found = timing(mapped.overlay, self.engine, work.operator)
        if isinstance(tile, PlaneTile):
            return _least_of_images(mapped, tile, found, interval_cycles(
                found, work, planes, spec.channels))
        assert isinstance(tile, StreamTile)
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


def _two(mapped: Mapped) -> bool:
    return mapped.layer.operator in TWO_OPERANDS


def _plan(mapped: Mapped, site: Site, tile: StreamTile) -> StreamPlan:
    """What the rows of a layer have in common."""
    graph, layer, item = mapped.graph, mapped.layer, mapped.item
    spec, out = graph.tensors[item.inputs[0]], graph.tensors[layer.output]
    broadcast = (_two(mapped) and mapped.planes(item.inputs[1]) == 1
                 and graph.tensors[item.inputs[1]].channels == 1 and spec.channels > 1)
    return StreamPlan(
        int(OPCODES[layer.operator]), 2 if _two(mapped) else 1, int(broadcast),
        mapped.planes(item.inputs[0]), mapped.planes(item.output),
        spec.positions // tile.unit_in, tile.unit_in, tile.unit_out, tile.planes, tile.units,
        tile.unit_in // spec.columns if tile.unit_in >= spec.columns else 1,
        spec.columns, out.columns, spec.channels, *_parameters(mapped, site), *_scalars(mapped),
        *zeros_of(graph, layer), offset_of(graph, layer))


def _image_job(mapped: Mapped, site: Site, tile: PlaneTile) -> Job:
    """The job of a layer that is cut in rows and columns."""
    overlay, item, window = mapped.overlay, mapped.item, mapped.layer.window
    source, target = site.area(mapped, item.inputs[0]), site.area(mapped, item.output)
    other = site.area(mapped, item.inputs[1]) if _two(mapped) else source
    planes = edge(source.planes, tile.planes)
    cut = ImageCut(tile.rows, tile.columns, window.rows, window.columns, window.stride,
                   window.padding, int(mapped.layer.operator is Operator.UPSAMPLE))
    read = min(span(top, min(tile.rows, target.rows - top), cut.stride, cut.kernel_rows,
                    cut.padding, cut.upsample, source.rows)[1]
               for top in range(0, target.rows, tile.rows))
    block = overlay.channel_block
    common = site.common(
        overlay,
        BY_ONE if _two(mapped) else share(site.wires.inputs,
                                          ceil_div(planes, overlay.tn // block), read),
        share(site.wires.outputs, ceil_div(planes, overlay.tm // block),
              edge(target.rows, tile.rows)))
    stages = (ceil_div(source.planes, tile.planes) * ceil_div(target.rows, tile.rows)
              * ceil_div(target.columns, tile.columns))
    plan = _plan(mapped, site, StreamTile(tile.planes, 1, 1, 1))
    return Job(image_rows, common, (plan, cut), (source, other, target), site.wires,
               1 + (site.masters + 1) * stages)


def _least_of_images(mapped: Mapped, tile: PlaneTile, found: Timing, interval: int) -> Demand:
    """Every trip; every byte but those that tiles read twice."""
    item, window = mapped.item, mapped.layer.window
    source, out = (mapped.graph.tensors[name] for name in (item.inputs[0], item.output))
    upsample = int(mapped.layer.operator is Operator.UPSAMPLE)
    rows, columns = (
        least_read(count, window.stride, size, window.padding, upsample, limit)
        for count, size, limit in ((out.rows, window.rows, source.rows),
                                   (out.columns, window.columns, source.columns)))
    planes = mapped.planes(item.inputs[0])
    cycles = planes * out.positions * interval
    stages = (ceil_div(planes, tile.planes) * ceil_div(out.rows, tile.rows)
              * ceil_div(out.columns, tile.columns))
    return Demand(
        compute_cycles=cycles + stages * (found.fill + found.drain), untiled_cycles=cycles,
        load_bytes=rows * columns * planes * mapped.overlay.position_bytes + (
            mapped.bytes_of(item.inputs[1]) if _two(mapped) else 0),
        store_bytes=mapped.bytes_of(item.output))


def _cuts_images(chooser: Chooser, layer: Layer) -> bool:
    """May a layer be cut in columns as well? An edge in a padded window has no operation of ours
    in the middle of a row, so only described hardware cuts there."""
    return layer.operator in IMAGES and (
        layer.window.padding == 0 or chooser.overlay.origin is Origin.LITERATURE)


def _asks_for_images(chooser: Chooser, layer: Layer) -> bool:
    """Do the loops of a described design say how images are cut or copied?"""
    loops = chooser.overlay.loops
    return layer.operator in IMAGES and bool(
        loops.stream_rows or loops.stream_columns or loops.copies is Copies.ROWS)


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


def _misfit(chooser: Chooser, layer: Layer, planes: int) -> str:
    """Why widths, tables, parameters or layouts keep a layer from the fabric; "" if they do not."""
    overlay, operator, layouts = chooser.overlay, layer.operator, chooser.layouts
    first, tensors = layer.inputs[0], chooser.graph.tensors
    widths = {tensors[name].bits for name in (*layer.inputs, layer.output)}
    if operator is not Operator.FLOW_SUM and overlay.data_bits == 8 and widths != {8}:
        return f"values of {max(widths)} bits; the engine takes 8"
    if operator in AFFINES:
        return _short("vector_entries", 2 * planes * overlay.channel_block, overlay.vector_entries)
    if operator is Operator.LOOKUP:
        return _short("table_bytes", 2 * LOOKUP_TABLE_BYTES, overlay.table_bytes)
    if operator is Operator.SOFTMAX:
        spec = tensors[layer.output]
        if spec.bits != 8 or math.frexp(spec.scale)[0] != 0.5:
            return "its shares must count in 8 bits by a power of two"
        return _scattered(chooser, first) or _short(
            "table_bytes", 2 * LOOKUP_TABLE_BYTES + SOFTMAX_TABLE_BYTES, overlay.table_bytes)
    if operator is Operator.FLOW_SUM:
        return _scattered(chooser, first) or _short(
            "vector_entries", 2 * tensors[layer.inputs[1]].rows, overlay.vector_entries)
    # One value a channel has too few positions for the engine, which reads them all.
    if operator is Operator.MULTIPLY and tensors[first].positions != tensors[
            layer.inputs[1]].positions:
        return "one value a channel; the engine multiplies position by position"
    spread = operator is Operator.MULTIPLY and tensors[layer.inputs[1]].channels == 1
    if operator in TWO_OPERANDS and lacks_zero_points(layer, overlay):
        return "zero_points is false, must be true for operands that hold a zero point"
    if operator in TWO_OPERANDS and not spread and (
            layouts.parts(first) != layouts.parts(layer.inputs[1])):
        return "the channels of its operands lie in memory in different parts"
    return ""


def _short(field: str, needed: int, held: int) -> str:
    return f"needs {field} of {needed}, has {held}" if needed > held else ""


def _scattered(chooser: Chooser, name: str) -> str:
    return "" if chooser.layouts.is_dense(name) else "the channels of its input lie in parts"


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

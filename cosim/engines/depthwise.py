"""The depthwise engine in mapping and lowering: tile, search, constants, rows, lower bound, bytes.

What a trip does, and so the order of weights, is in `hw.rtl.engines.depthwise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from arch_models.engines import Tile, Work, timing
from arch_models.engines.depthwise import words_of_plane
from arch_models.overlay import PARAMETER_SETS, Engine, Overlay
from arch_models.units import ceil_div
from cosim.compiled import CACHED
from cosim.engines.base import Demand, Job, Mapped, Site, byte_misfit, edge, input_bytes, share
from cosim.engines.buffers import BEAT, Accesses, Buffers, entries_of
from cosim.engines.constants import ENTRY_BYTES, layer_entries
from cosim.engines.rows import (
    IN_FILLED,
    IN_FREE,
    OUT_FILLED,
    OUT_FREE,
    Box,
    Turn,
    block_load,
    channel_mask,
    compute_row,
    shared_load,
    tile_store,
)
from cosim.mapping.choose import Chooser, work_of
from cosim.mapping.tile_search import (
    OPERATION_RUNS,
    RUN_CYCLES,
    TRANSFER_CYCLES,
    Totals,
    loaded,
    sizes,
    total,
)
from cosim.mapping.tiles import LayerMapping, PlaneTile
from cosim.mapping.words import lacks_zero_points, span
from cosim.program.table import Buffer, Opcode
from workloads import arithmetic
from workloads.graph import Layer

DEPTHWISE = int(Opcode.DEPTHWISE)
PARAMETERS, WEIGHTS = int(Buffer.DEPTHWISE_PARAMETERS), int(Buffer.DEPTHWISE_WEIGHTS)
SETS = PARAMETER_SETS[Engine.DEPTHWISE]


class DepthwiseSlice:
    """See `EngineSlice`."""

    engine = Engine.DEPTHWISE
    cost_arguments: Mapping[Opcode, tuple[str, ...]] = {
        Opcode.DEPTHWISE: ("planes", "row_span", "column_span")}

    def accesses(self, opcode: Opcode, values: Mapping[str, np.ndarray], trips: np.ndarray,
                 overlay: Overlay) -> Accesses:
        """A trip reads a beat of INPUT and a word of weights; a result is a beat, and reads its
        entries."""
        results = values["planes"]
        for name in ("row_span", "column_span"):
            results = results * ((values[name] - 1) // values["stride"] + 1)
        return {"input": trips / (overlay.tn // BEAT * overlay.columns),
                "depthwise weights": trips, "depthwise parameters": results,
                "output": results / (overlay.tm // BEAT)}

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping:
        """Planes, rows and columns of outputs, or the host."""
        why = _misfit(chooser, layer)
        if why:
            return chooser.host(layer, why)
        overlay, window, source = chooser.overlay, layer.window, layer.inputs[0]
        spec, out = chooser.graph.tensors[source], chooser.graph.tensors[layer.output]
        found = chooser.timing(self.engine, self.engine.value)
        best = chooser.search(search, DepthwiseShape(
            chooser.layouts.planes(source), spec.rows, spec.columns, out.rows, out.columns,
            window.rows, window.columns, window.stride, window.padding,
            words_of_plane(window.rows, window.columns, overlay), overlay.depthwise_taps,
            _set_planes(overlay), _set_words(overlay), found.fill + found.drain, found.interval))
        if best[0] < 0:
            return chooser.host(layer, "no tile fits INPUT, OUTPUT and the engine's weights")
        chooser.layouts.same(layer.output, source)
        return LayerMapping(layer.name, layer.phase, self.engine, layer.inputs, layer.output,
                            tile=PlaneTile(*best[1:]), cost_cycles=best[0])

    def constants(self, mapped: Mapped) -> list[tuple[str, int]]:
        """An entry a channel, and words of weights for each plane."""
        planes, window = mapped.planes(mapped.item.inputs[0]), mapped.layer.window
        words = planes * words_of_plane(window.rows, window.columns, mapped.overlay)
        return [("parameters", planes * BEAT * ENTRY_BYTES),
                ("weights", words * mapped.overlay.depthwise_taps * BEAT)]

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """Entries, or weights [plane][group of columns][row][column of the group][channel]."""
        source = mapped.item.inputs[0]
        channels = mapped.planes(source) * BEAT
        places = mapped.layouts.places(source)
        if role == "parameters":
            return layer_entries(mapped.graph, mapped.layer, "bias", channels, places)
        window, taps = mapped.layer.window, mapped.overlay.depthwise_taps
        groups = ceil_div(window.columns, taps)
        padded = np.zeros((channels, window.rows, groups * taps), np.int8)
        padded[places, :, : window.columns] = mapped.graph.constant(mapped.layer, "weights")[:, 0]
        shaped = padded.reshape(-1, BEAT, window.rows, groups, taps)
        return shaped.transpose(0, 3, 2, 4, 1).tobytes()

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """None."""
        return ()

    def job(self, mapped: Mapped, site: Site) -> Job:
        """One operation a tile; the weights of a block of planes are loaded once."""
        overlay, layer, item = mapped.overlay, mapped.layer, mapped.item
        tile, window = item.tile, layer.window
        assert isinstance(tile, PlaneTile)
        source, target = site.area(mapped, item.inputs[0]), site.area(mapped, item.output)
        planes = edge(source.planes, tile.planes)
        read = min(span(top, min(tile.rows, target.rows - top), window.stride, window.rows,
                        window.padding, 0, source.rows)[1]
                   for top in range(0, target.rows, tile.rows))
        lanes_in, lanes_out = overlay.tn // BEAT, overlay.tm // BEAT
        common = site.common(
            overlay, share(site.wires.inputs, ceil_div(planes, lanes_in), read),
            share(site.wires.outputs, ceil_div(planes, lanes_out), edge(target.rows, tile.rows)))
        plan = DepthwisePlan(
            tile.planes, tile.rows, tile.columns, window.rows, window.columns, window.stride,
            window.padding, window.pad_value, int(layer.relu),
            words_of_plane(window.rows, window.columns, overlay),
            overlay.depthwise_taps, _set_planes(overlay), _set_words(overlay),
            site.blobs["parameters"][0], site.blobs["weights"][0],
            mapped.layouts.real_channels(item.inputs[0]))
        blocks = ceil_div(source.planes, tile.planes)
        spatial = ceil_div(target.rows, tile.rows) * ceil_div(target.columns, tile.columns)
        return Job(depthwise_rows, common, plan, (source, target), site.wires,
                   blocks * (2 + spatial * (1 + site.masters)))

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """Outputs of a tile."""
        rows, columns = ((values[name] - 1) // mapped.layer.window.stride + 1
                         for name in ("row_span", "column_span"))
        return work_of(mapped.graph, mapped.layer), Tile(rows, columns, values["planes"])

    def least(self, mapped: Mapped) -> Demand:
        """Every trip; every byte but those that tiles read twice."""
        overlay, item, tile, window = (mapped.overlay, mapped.item, mapped.item.tile,
                                       mapped.layer.window)
        assert isinstance(tile, PlaneTile)
        out, planes = mapped.graph.tensors[item.output], mapped.planes(item.inputs[0])
        found = timing(overlay, self.engine, self.engine.value)
        across = ceil_div(out.columns, tile.columns)
        read = (out.columns - across) * window.stride + across * overlay.depthwise_taps
        taps = overlay.depthwise_taps
        # Where a step is longer than the taps of a trip, a cut saves trips.
        whole = (out.columns - 1) * min(window.stride, taps) + taps
        each = (planes * out.rows * words_of_plane(window.rows, window.columns, overlay)
                * found.interval)
        stages = ceil_div(planes, tile.planes) * ceil_div(out.rows, tile.rows) * across
        overhead = found.fill + found.drain
        weights = sum(size for _, size in self.constants(mapped))
        return Demand(
            compute_cycles=each * read + stages * overhead,
            untiled_cycles=each * whole + overhead,
            load_bytes=input_bytes(mapped), weight_bytes=weights,
            ahead_bytes=min(weights, SETS * weights // planes * tile.planes),
            store_bytes=mapped.bytes_of(item.output))

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """See `EngineSlice`."""
        _compute(memories, values)


def _set_planes(overlay: Overlay) -> int:
    """Planes whose entries one of the two sets on chip holds."""
    return overlay.vector_entries // (SETS * BEAT)


def _set_words(overlay: Overlay) -> int:
    """Words of weights in a set."""
    return overlay.vector_entries // SETS


def _misfit(chooser: Chooser, layer: Layer) -> str:
    """Why the engine cannot hold a layer's numbers; empty if it can."""
    overlay, window = chooser.overlay, layer.window
    misfit = byte_misfit(chooser, (layer.inputs[0], layer.output))
    if misfit:
        return misfit
    if overlay.weight_bits != 8:
        return f"weight_bits is {overlay.weight_bits}, must be 8"
    if window.padding >= min(window.rows, window.columns):
        return f"padding is {window.padding}, must be less than the kernel"
    if lacks_zero_points(layer, overlay):
        return "zero_points is false, must be true for padding that is not 0"
    return ""


class DepthwiseShape(NamedTuple):
    """A depthwise convolution as its tile search sees it. `words`: of a plane's weights."""

    planes: int
    in_rows: int
    in_columns: int
    out_rows: int
    out_columns: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    words: int
    taps: int
    set_planes: int
    set_words: int
    overhead: int
    interval: int


@CACHED
def search(shape, budget):
    """(cost, planes, rows, columns) of the best tile; cost < 0: none fits."""
    planes_tried, rows_tried = sizes(shape.planes, 1, 0), sizes(shape.out_rows, 1, 0)
    best = (-1.0, 0, 0, 0)
    stored = shape.planes * shape.out_rows * shape.out_columns * budget.position_bytes
    weights = shape.planes * (8 * 8 + shape.words * shape.taps * 8)
    for columns in sizes(shape.out_columns, 1, 0):
        across = -(-shape.out_columns // columns)
        most_columns, all_columns = loaded(shape.out_columns, columns, shape.stride,
                                           shape.kernel_columns, shape.padding, 0,
                                           shape.in_columns)
        steps = (shape.out_columns - across) * shape.stride + across * shape.taps
        for rows in rows_tried:
            spatial = across * -(-shape.out_rows // rows)
            most_rows, all_rows = loaded(shape.out_rows, rows, shape.stride, shape.kernel_rows,
                                         shape.padding, 0, shape.in_rows)
            read = shape.planes * all_rows * all_columns * budget.position_bytes
            for planes in planes_tried:
                if (planes > shape.set_planes or planes * shape.words > shape.set_words
                        or -(-planes // budget.lanes_in) * most_rows * most_columns
                        > budget.input_words
                        or -(-planes // budget.lanes_out) * rows * columns > budget.output_words):
                    continue
                blocks = -(-shape.planes // planes)
                stages = blocks * spatial
                compute = (shape.planes * shape.out_rows * steps * shape.words * shape.interval
                           + stages * shape.overhead)
                in_runs = shape.planes * spatial * (
                    1 if most_columns == shape.in_columns else most_rows)
                out_runs = shape.planes * spatial * (1 if columns == shape.out_columns else rows)
                first = (planes * most_rows * most_columns * budget.position_bytes
                         / budget.read_rate + TRANSFER_CYCLES)
                last = (planes * rows * columns * budget.position_bytes / budget.write_rate
                        + TRANSFER_CYCLES)
                cost = total(budget, Totals(
                    compute,
                    read / budget.read_rate + stages * TRANSFER_CYCLES + in_runs * RUN_CYCLES,
                    weights / budget.weight_rate + 2 * blocks * TRANSFER_CYCLES,
                    stored / budget.write_rate + stages * TRANSFER_CYCLES + out_runs * RUN_CYCLES,
                    float(read + weights + stored),
                    in_runs + out_runs + OPERATION_RUNS * (3 * stages + 2 * blocks), first, last))
                if best[0] < 0 or cost < best[0]:
                    best = (cost, planes, rows, columns)
    return best


class DepthwisePlan(NamedTuple):
    """A depthwise convolution: its tile, its window, its constants. `real`: channels before each
    plane."""

    tile_planes: int
    tile_rows: int
    tile_columns: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    pad_value: int
    relu: int
    words: int
    taps: int
    set_planes: int
    set_words: int
    parameter_address: int
    weight_address: int
    real: np.ndarray


@CACHED
def depthwise_rows(table, row, common, plan, areas, wires):
    """Write one depthwise convolution (areas: source, target); return the next row."""
    source, target = areas
    ins, outs = wires.inputs, wires.outputs
    needs = channel_mask(ins, IN_FILLED, common.input_share)
    needs |= channel_mask(outs, OUT_FREE, common.output_share)
    gives = channel_mask(ins, IN_FREE, common.input_share)
    gives |= channel_mask(outs, OUT_FILLED, common.output_share)
    across = -(-target.columns // plan.tile_columns)
    spatial = -(-target.rows // plan.tile_rows) * across
    word_bytes = plan.taps * 8
    stage = 0
    held = table.blocks[common.engine]
    for plane in range(0, source.planes, plan.tile_planes):
        planes = min(plan.tile_planes, source.planes - plane)
        entry, word = held * plan.set_planes * 8, held * plan.set_words
        held = (held + 1) % SETS
        row = block_load(table, row, Turn(common.layer, wires.weight_unit, wires.weight_free, 0),
                         PARAMETERS, entry, plan.parameter_address + plane * 64, planes * 64)
        row = block_load(table, row, Turn(common.layer, wires.weight_unit, 0,
                                          wires.weight_filled), WEIGHTS, word * plan.taps,
                         plan.weight_address + plane * plan.words * word_bytes,
                         planes * plan.words * word_bytes)
        for place in range(spatial):
            top = place // across * plan.tile_rows
            left = place % across * plan.tile_columns
            rows = min(plan.tile_rows, target.rows - top)
            columns = min(plan.tile_columns, target.columns - left)
            in_top, in_rows = span(top, rows, plan.stride, plan.kernel_rows, plan.padding, 0,
                                   source.rows)
            in_left, in_columns = span(left, columns, plan.stride, plan.kernel_columns,
                                       plan.padding, 0, source.columns)
            in_base = stage % common.input_banks * common.input_words
            out_base = stage % common.output_banks * common.output_words
            row = shared_load(table, row, common, ins, in_base, source,
                              Box(plane, planes, in_top, in_rows, in_left, in_columns))
            channels = plan.real[plane + planes] - plan.real[plane]
            compute_row(table, row, common, DEPTHWISE,
                        needs | (wires.weight_filled if place == 0 else 0),
                        gives | (wires.weight_free if place == spatial - 1 else 0),
                        channels * rows * columns * plan.kernel_rows * plan.kernel_columns)
            line = table.arguments[row]
            line[0], line[1], line[2], line[3] = in_base, in_rows, in_columns, planes
            line[4], line[5], line[6] = word, entry, out_base
            line[7], line[8] = (rows - 1) * plan.stride + 1, (columns - 1) * plan.stride + 1
            line[9], line[10], line[11] = plan.kernel_rows, plan.kernel_columns, plan.stride
            line[12] = in_top - (top * plan.stride - plan.padding)
            line[13] = in_left - (left * plan.stride - plan.padding)
            line[14], line[15] = plan.relu, plan.pad_value
            row = tile_store(table, row + 1, common, outs, 0, out_base, target,
                             Box(plane, planes, top, rows, left, columns))
            stage += 1
    table.blocks[common.engine] = held
    return row


def _compute(memories: Buffers, a: Mapping[str, int]) -> None:
    """One operation: products with a tile that has its own value outside, sums, requantization."""
    planes, stride, taps = a["planes"], a["stride"], memories.overlay.depthwise_taps
    kernel_rows, groups = a["kernel_rows"], ceil_div(a["kernel_columns"], taps)
    rows, columns = ((a[name] - 1) // stride + 1 for name in ("row_span", "column_span"))
    tile = memories.read(a["in_base"], a["in_rows"] * a["in_columns"], planes)
    tile = tile.reshape(planes, a["in_rows"], a["in_columns"], BEAT)
    weights = memories.constants(Buffer.DEPTHWISE_WEIGHTS, a["weight_base"] * taps,
                                 planes * groups * kernel_rows * taps).astype(np.int64)
    weights = weights.reshape(planes, groups, kernel_rows, taps, BEAT).transpose(0, 2, 1, 3, 4)
    weights = weights.reshape(planes, kernel_rows, groups * taps, BEAT)
    high_rows = max(0, a["row_span"] - 1 + kernel_rows - a["pad_top"] - a["in_rows"])
    high_columns = max(0, a["column_span"] - 1 + groups * taps - a["pad_left"] - a["in_columns"])
    padded = np.pad(tile, ((0, 0), (a["pad_top"], high_rows), (a["pad_left"], high_columns),
                           (0, 0)), constant_values=a["pad_value"])
    sums = np.zeros((planes, rows, columns, BEAT), np.int64)
    for row in range(kernel_rows):
        for column in range(groups * taps):
            part = padded[:, row : row + a["row_span"] : stride,
                          column : column + a["column_span"] : stride]
            sums += part * weights[:, row, column][:, None, None]
    entries = memories.constants(Buffer.DEPTHWISE_PARAMETERS, a["parameter_base"], planes * BEAT)
    offset, multiplier, shift = (item.reshape(planes, 1, 1, BEAT) for item in entries_of(entries))
    value = arithmetic.requantize(sums + offset, multiplier, shift)
    value = np.maximum(value, 0) if a["relu"] else value
    memories.write(a["out_base"], value.reshape(planes, rows * columns, BEAT))

"""Turns a mapped layer into what the row kernels need: addresses, tiles, timings, wires.

It writes no rows and ties no layers to each other; `lower` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from arch_models.engines import interval_cycles, timing
from arch_models.overlay import Engine, Overlay
from arch_models.units import ceil_div
from cosim.lowering import kernels, row_parts
from cosim.lowering.placement import Placement
from cosim.lowering.plans import Area, Common, ConvolutionPlan, GridPlan, NormPlan, StreamPlan
from cosim.lowering.wiring import EngineWires, Wiring
from cosim.mapping.choose import work_of
from cosim.mapping.tiles import (
    ConvolutionTile,
    GridTile,
    LayerMapping,
    Mapping,
    NormTile,
    StreamTile,
)
from cosim.mapping.words import convolution_words, group_channels, group_words
from cosim.program.table import Buffer, Opcode, WeightOrder
from workloads.graph import Graph, Layer, Operator
from workloads.reference import fraction_bits_of

SOFTMAX_TABLE_BEAT = 64  # behind the two lookup tables of 256 bytes
LOOKUP_TABLE_BEATS = 32
OPCODES = {
    Operator.ADD: Opcode.ADD, Operator.MULTIPLY: Opcode.MULTIPLY, Operator.AFFINE: Opcode.AFFINE,
    Operator.FLOW_SUM: Opcode.FLOW_SUM, Operator.LOOKUP: Opcode.LOOKUP,
    Operator.AVERAGE_POOL: Opcode.AVERAGE_POOL, Operator.MAX_POOL: Opcode.MAX_POOL,
    Operator.UPSAMPLE: Opcode.UPSAMPLE, Operator.SOFTMAX: Opcode.SOFTMAX,
    # A change of scale is an affine step without offset.
    Operator.REQUANTIZE: Opcode.AFFINE,
}


class Job(NamedTuple):
    """One layer in fabric: its kernel and the kernel's arguments. `real`: channels by plane."""

    kernel: Callable[..., Any]
    common: Common
    plan: Any
    areas: tuple[Area, ...]
    wires: EngineWires
    real: np.ndarray | None


class Planner:
    """Makes the jobs of a mapping in order; parameter sets alternate between layers."""

    def __init__(self, graph: Graph, overlay: Overlay, mapping: Mapping, placement: Placement,
                 wiring: Wiring) -> None:
        self.graph, self.overlay, self.mapping = graph, overlay, mapping
        self.placement, self.wiring = placement, wiring
        self.layouts = mapping.layouts
        self.layers = {layer.name: layer for layer in graph.layers}
        self.sequence = {Engine.CONVOLUTION: 0, Engine.ELEMENTWISE: 0, Engine.LOOKUP: 0}

    def jobs(self) -> list[Job | None]:
        """A job for each mapped layer; None for those of the host."""
        return [self._job(index, item) for index, item in enumerate(self.mapping.layers)]

    def _job(self, index: int, item: LayerMapping) -> Job | None:
        if item.engine is None:
            return None
        if isinstance(item.tile, ConvolutionTile):
            return self._convolution_job(index, item, item.tile)
        if isinstance(item.tile, GridTile):
            return self._grid_job(index, item, item.tile)
        if isinstance(item.tile, NormTile):
            return self._norm_job(index, item, item.tile)
        assert isinstance(item.tile, StreamTile)
        return self._stream_job(index, item, item.tile)

    def _common(self, index: int, item: LayerMapping, wires: EngineWires, interval: int,
                operator: str, input_share: int, output_share: int) -> Common:
        overlay = self.overlay
        assert item.engine is not None
        found = timing(overlay, item.engine, operator)
        return Common(index, wires.unit, overlay.tn // overlay.channel_block,
                      overlay.tm // overlay.channel_block, overlay.input_words,
                      overlay.input_banks, overlay.output_words, overlay.output_banks,
                      found.fill, interval, found.drain, input_share, output_share)

    def _area(self, name: str) -> Area:
        spec = self.graph.tensors[name]
        step = 8 if self.layouts.is_grid(name) else self.layouts.position_bytes
        return Area(self.placement.addresses[name], self.layouts.planes(name), spec.rows,
                    spec.columns, step)

    def _list(self, name: str) -> Area:
        """The tensor as a list of positions: one column, so that any range is one run."""
        area = self._area(name)
        return area._replace(rows=area.rows * area.columns, columns=1)

    def _share(self, masters: np.ndarray, least_words: int, least_positions: int) -> int:
        """How the masters split every tile of a layer; each must have a part of each tile."""
        count = len(masters)
        if count == 1:
            return row_parts.BY_ONE
        if least_words >= count:
            return row_parts.BY_WORDS
        return row_parts.BY_POSITIONS if least_positions >= count else row_parts.BY_ONE

    def _convolution_job(self, index: int, item: LayerMapping, tile: ConvolutionTile) -> Job:
        graph, overlay = self.graph, self.overlay
        layer = self.layers[item.name]
        wires = self.wiring.engines[Engine.CONVOLUTION]
        out, window = graph.tensors[layer.output], layer.window
        in_words, out_words, _ = convolution_words(layer, graph, overlay, self.mapping, item)
        edge_rows = out.rows - (ceil_div(out.rows, tile.rows) - 1) * tile.rows
        group_out, group_in = group_channels(layer, graph)
        edge_in = in_words - (ceil_div(in_words, tile.in_words) - 1) * tile.in_words
        edge_out = out_words - (ceil_div(out_words, tile.out_words) - 1) * tile.out_words
        if group_in:
            edge_in = min(group_words(word, overlay.tm, overlay.tn, out.channels,
                                                group_out, group_in)[1]
                          for word in range(out_words))
        source = self._area(item.inputs[0])
        # The real rows that the smallest tile reads, at least.
        read_rows = max(1, edge_rows * window.stride - window.padding) >> bool(item.upsample)
        common = self._common(
            index, item, wires, timing(overlay, Engine.CONVOLUTION, "convolution").interval,
            "convolution",
            self._share(wires.inputs, in_words if tile.resident else edge_in,
                        min(read_rows, source.rows)),
            self._share(wires.outputs, edge_out, edge_rows >> bool(item.pool)))
        new, skip, shift = self._add_scale(layer, item)
        parity = self.sequence[Engine.CONVOLUTION] % 2
        self.sequence[Engine.CONVOLUTION] += 1
        if item.order is WeightOrder.STORED:
            operand, weights = source, self.placement.blob(item.name, "weights").address
        else:
            operand = self._area(item.inputs[1])
            weights = operand.address
        parameters = self.placement.blob(item.name, "parameters")
        plan = ConvolutionPlan(
            overlay.tm, overlay.columns, overlay.result_cycles, out.channels, out.rows,
            out.columns, in_words, out_words, tile.out_words, tile.in_words, tile.rows,
            tile.columns, int(tile.resident), int(tile.weights_outer), window.rows, window.columns,
            window.stride, window.padding, int(bool(item.upsample)), int(layer.relu),
            int(bool(item.pool)), int(bool(item.add)), new, skip, shift, weights,
            overlay.tm * overlay.tn * overlay.weight_bits // 8, overlay.weight_words,
            overlay.weight_banks, 0, self.wiring.weight, wires.weight_filled, wires.weight_free,
            parameters.address, parameters.size_bytes,
            parity * (overlay.parameter_entries // 2 // overlay.tm * overlay.tm),
            wires.skip_filled, group_out, group_in, int(item.order), operand.planes,
            operand.rows * operand.columns)
        target = self._area(item.output)
        skip_area = self._area(item.skip) if item.skip else target
        real = self.layouts.real_channels(item.inputs[0])
        return Job(kernels.convolution_rows, common, plan, (source, target, skip_area), wires,
                   real)

    def _add_scale(self, layer: Layer, item: LayerMapping) -> tuple[int, int, int]:
        """Multipliers of the new and of the skipped operand, and the shift."""
        if not item.add:
            return 0, 0, 0
        add = self.layers[item.add]
        multiplier = [int(value) for value in self.graph.constant(add, "multiplier")]
        if add.inputs[0] != layer.output:
            multiplier.reverse()
        return multiplier[0], multiplier[1], int(self.graph.constant(add, "shift")[0])

    def _stream_job(self, index: int, item: LayerMapping, tile: StreamTile) -> Job:
        graph, layer, engine = self.graph, self.layers[item.name], item.engine
        assert engine is not None
        wires, work = self.wiring.engines[engine], work_of(graph, layer)
        spec, out = graph.tensors[item.inputs[0]], graph.tensors[layer.output]
        planes = self.layouts.planes(item.inputs[0])
        units = spec.positions // tile.unit_in
        operator = layer.operator
        found = timing(self.overlay, engine, work.operator)
        flow, two = operator is Operator.FLOW_SUM, operator in (Operator.ADD, Operator.MULTIPLY)
        edge_planes = planes - (ceil_div(planes, tile.planes) - 1) * tile.planes
        edge_units = units - (ceil_div(units, tile.units) - 1) * tile.units
        block = self.overlay.channel_block
        common = self._common(
            index, item, wires, interval_cycles(found, work, planes, spec.channels),
            work.operator,
            row_parts.BY_ONE if two else self._share(
                wires.inputs, ceil_div(edge_planes, self.overlay.tn // block),
                edge_units * tile.unit_in),
            self._share(wires.outputs,
                        0 if flow else ceil_div(edge_planes, self.overlay.tm // block),
                        edge_units * tile.unit_out))
        address, size, buffer, base = self._parameters(item, layer, engine, planes)
        first, second, third = self._stream_scalars(layer)
        plan = StreamPlan(
            int(OPCODES[operator]), 2 if two else 1,
            int(two and self.layouts.planes(item.inputs[1]) == 1
                and graph.tensors[item.inputs[1]].channels == 1 and spec.channels > 1),
            planes, self.layouts.planes(item.output), units, tile.unit_in, tile.unit_out,
            tile.planes, tile.units, int(operator in (Operator.SOFTMAX, Operator.FLOW_SUM)),
            tile.unit_in // spec.columns if tile.unit_in >= spec.columns else 1, spec.columns,
            out.columns, spec.channels, self.wiring.weight, wires.weight_filled,
            wires.weight_free, address, size, buffer, base, first, second, third)
        source, target = self._list(item.inputs[0]), self._list(item.output)
        other = self._list(item.inputs[1]) if two else source
        if self.placement.mapping.layouts.is_grid(item.output):
            target = target._replace(position_bytes=8)
        return Job(kernels.stream_rows, common, plan, (source, other, target), wires, None)

    def _parameters(self, item: LayerMapping, layer: Layer, engine: Engine,
                    planes: int) -> tuple[int, int, int, int]:
        """Address, bytes, buffer and place of a streaming layer's constants; 0 bytes if none."""
        operator = layer.operator
        if operator in (Operator.AFFINE, Operator.REQUANTIZE, Operator.FLOW_SUM):
            parity = self.sequence[Engine.ELEMENTWISE] % 2
            self.sequence[Engine.ELEMENTWISE] += 1
            base = parity * (self.overlay.vector_entries // 2)
            if operator is Operator.FLOW_SUM:
                # A displacement tensor is a list of (x, y) beats: the entries themselves.
                entries = self.graph.tensors[layer.inputs[1]].positions
                address = self.placement.addresses[layer.inputs[1]]
                return address, entries * 8, int(Buffer.VECTOR_PARAMETERS), base
            blob = self.placement.blob(item.name, "parameters")
            return blob.address, blob.size_bytes, int(Buffer.VECTOR_PARAMETERS), base
        if operator is Operator.LOOKUP:
            parity = self.sequence[Engine.LOOKUP] % 2
            self.sequence[Engine.LOOKUP] += 1
            blob = self.placement.blob(item.name, "table")
            return (blob.address, blob.size_bytes, int(Buffer.TABLE),
                    parity * LOOKUP_TABLE_BEATS)
        if operator is Operator.SOFTMAX:
            blob = self.placement.blob(item.name, "table")
            return blob.address, blob.size_bytes, int(Buffer.TABLE), SOFTMAX_TABLE_BEAT
        return 0, 0, 0, 0

    def _stream_scalars(self, layer: Layer) -> tuple[int, int, int]:
        operator, window = layer.operator, layer.window
        if operator is Operator.ADD:
            first, second = (int(item) for item in self.graph.constant(layer, "multiplier"))
            return first, second, int(self.graph.constant(layer, "shift")[0])
        if operator is Operator.MULTIPLY:
            return (int(self.graph.tensors[layer.inputs[1]].channels == 1),
                    int(self.graph.constant(layer, "multiplier")[0]),
                    int(self.graph.constant(layer, "shift")[0]))
        if operator in (Operator.AFFINE, Operator.REQUANTIZE):
            return int(layer.relu), 0, 0
        if operator is Operator.FLOW_SUM:
            return layer.fraction_bits, 0, 0
        if operator is Operator.SOFTMAX:
            return fraction_bits_of(self.graph.tensors[layer.output]), 0, 0
        return window.rows, window.stride, window.padding

    def _grid_job(self, index: int, item: LayerMapping, tile: GridTile) -> Job:
        layer = self.layers[item.name]
        wires = self.wiring.engines[Engine.GRID_SAMPLE]
        found = timing(self.overlay, Engine.GRID_SAMPLE, "grid_sample")
        grid = self.graph.tensors[item.inputs[1]]
        common = self._common(index, item, wires, found.interval, "grid_sample", row_parts.BY_ONE,
                              row_parts.BY_ONE)
        plan = GridPlan(grid.channels // 2, grid.positions, tile.planes, tile.grids, tile.chunk,
                        tile.part, found.interval, found.interval_per_plane, layer.fraction_bits)
        areas = (self._area(item.inputs[0]), self._list(item.inputs[1]), self._list(item.output))
        return Job(kernels.grid_rows, common, plan, areas, wires, None)

    def _norm_job(self, index: int, item: LayerMapping, tile: NormTile) -> Job:
        layer, overlay = self.layers[item.name], self.overlay
        wires = self.wiring.engines[Engine.NORM]
        sums = timing(overlay, Engine.NORM, "group_sums")
        source = self._list(item.inputs[0])
        spec, positions = self.graph.tensors[item.inputs[0]], source.rows
        edge_planes = source.planes - (ceil_div(source.planes, tile.planes) - 1) * tile.planes
        edge_chunk = positions - (ceil_div(positions, tile.chunk) - 1) * tile.chunk
        edge_part = min(size - (ceil_div(size, tile.part) - 1) * tile.part
                        for size in (tile.chunk, edge_chunk))
        block = overlay.channel_block
        common = self._common(
            index, item, wires, timing(overlay, Engine.NORM, "group_norm").interval, "group_norm",
            self._share(wires.inputs, ceil_div(edge_planes, overlay.tn // block), edge_chunk),
            self._share(wires.outputs, ceil_div(edge_planes, overlay.tm // block), edge_part))
        constants = self.placement.blob(item.name, "norm")
        gain, offset = (self.placement.addresses[name] if name else 0
                        for name in (item.inputs[1:] or ("", "")))
        plan = NormPlan(
            source.planes, spec.channels, spec.channels // layer.window.groups, positions,
            tile.planes, tile.chunk, tile.part, int(layer.relu), sums.fill, sums.interval,
            sums.drain, sums.drain_per_group, sums.drain_per_channel, self.wiring.weight,
            wires.weight_filled, wires.weight_free, constants.address, constants.size_bytes,
            gain, offset, source.planes * block if len(item.inputs) == 3 else 0)
        return Job(kernels.norm_rows, common, plan, (source, self._list(item.output)), wires,
                   None)

    def most_rows(self, jobs: list[Job | None]) -> int:
        """At least as many rows as the layers, the host and the descriptor loads need."""
        total = 2 * len(jobs) + len(self.mapping.phases) + 2
        masters = len(self.wiring.inputs) + len(self.wiring.outputs) + 2
        for item, job in zip(self.mapping.layers, jobs, strict=True):
            if job is None:
                continue
            plan = job.plan
            if isinstance(item.tile, ConvolutionTile):
                spatial = (ceil_div(plan.conv_rows, plan.tile_rows)
                           * ceil_div(plan.conv_columns, plan.tile_columns))
                out_tiles = ceil_div(plan.out_words, plan.tile_out_words)
                in_tiles = ceil_div(plan.in_words, plan.tile_in_words)
                stages = spatial * out_tiles
                loads = stages * in_tiles
                if plan.resident:
                    loads = stages if plan.weights_outer else spatial
                weights = out_tiles if plan.weights_outer else stages * in_tiles
                total += (1 + stages * (in_tiles + len(self.wiring.outputs) + plan.add)
                          + loads * len(self.wiring.inputs) + weights)
            elif isinstance(item.tile, GridTile):
                banks = (ceil_div(job.areas[0].planes, plan.tile_planes) * plan.grids
                         * ceil_div(plan.positions, plan.chunk))
                total += banks * (masters + 2 * ceil_div(plan.chunk, plan.sub_chunk))
            elif isinstance(item.tile, NormTile):
                total += 3 + ceil_div(plan.planes, plan.tile_planes) * ceil_div(
                    plan.positions, plan.chunk) * (
                        2 * masters + 1 + (masters + 1) * ceil_div(plan.chunk, plan.part))
            else:
                total += 1 + (masters + 1) * (ceil_div(plan.planes, plan.tile_planes)
                                              * ceil_div(plan.units, plan.tile_units))
        return total

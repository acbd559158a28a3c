"""Lowers a mapped graph to the Program that the executors run and the hardware executes.

It chooses no tile and no address; the rows of a layer are written by `kernels`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from arch_models.board import Board
from arch_models.engines import interval_cycles, timing
from arch_models.engines.host import cache_ns, software_ns, start_ns
from arch_models.overlay import Engine, Overlay, Start
from arch_models.units import ceil_div, cycles_from_ns
from workloads.graph import Graph, Layer, Operator, Phase, multiply_accumulates

from . import kernels
from .kernels import Area, Common, ConvolutionPlan, GridPlan, StreamPlan
from .mapping import ConvolutionTile, GridTile, LayerMapping, Mapping, StreamTile, work_of
from .placement import Placement, convolution_words, place
from .program import ARGUMENT_COUNT, FLAG_FIRST, Buffer, Column, Opcode, Program, Segment
from .wiring import EngineWires, Wiring, wire

START = "start"  # the pseudo-layer of a host operation that only starts the fabric
DESCRIPTOR_BYTES = 64
FETCH_ROWS = 64  # descriptors in one fetch
FETCH_AHEAD = 4  # fetches that may be ahead of the last store
SOFTMAX_TABLE_BEAT = 64  # behind the two lookup tables of 256 bytes
LOOKUP_TABLE_BEATS = 32
OPCODES = {
    Operator.ADD: Opcode.ADD, Operator.MULTIPLY: Opcode.MULTIPLY, Operator.AFFINE: Opcode.AFFINE,
    Operator.FLOW_SUM: Opcode.FLOW_SUM, Operator.LOOKUP: Opcode.LOOKUP,
    Operator.AVERAGE_POOL: Opcode.AVERAGE_POOL, Operator.MAX_POOL: Opcode.MAX_POOL,
    Operator.UPSAMPLE: Opcode.UPSAMPLE, Operator.SOFTMAX: Opcode.SOFTMAX,
}


@dataclass(frozen=True)
class Lowered:
    """A program, where its data lie, and the mapping it came from.

    `program.layers[i]` is `mapping.layers[i].name`; the last layer is the pseudo-layer `start`.
    A HOST operation's argument is such an index.
    """

    program: Program
    placement: Placement
    mapping: Mapping


def lower(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping, frames: int = 1,
          steps: int = 1) -> Lowered:
    """The program of the mapped phases: a segment a phase, frames and steps as repeats."""
    placement = place(graph, overlay, board, mapping)
    return _Lowering(graph, overlay, board, mapping, placement).run(frames, steps)


@dataclass
class _Rows:
    """First and last row of every unit in one lowered layer; -1 if it has none."""

    item: LayerMapping | None
    first: np.ndarray
    last: np.ndarray

    def units(self, wanted: tuple[int, ...]) -> list[int]:
        return [index for index, unit in enumerate(wanted) if self.first[unit] >= 0]


class _Lowering:
    """One lowering: the tables being filled and where the next row goes."""

    def __init__(self, graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
                 placement: Placement) -> None:
        self.graph, self.overlay, self.board = graph, overlay, board
        self.mapping, self.placement = mapping, placement
        self.layouts = mapping.layouts
        self.wiring: Wiring = wire(overlay, board)
        self.layers = {layer.name: layer for layer in graph.layers}
        self.sequence = {Engine.CONVOLUTION: 0, Engine.ELEMENTWISE: 0, Engine.LOOKUP: 0}
        self.weight_bank = 0
        self.row = 0
        self.initial = 0
        self.ops, self.args = kernels.tables(0, ARGUMENT_COUNT)
        units = len(self.wiring.units)
        # First and last rows by unit: at most a host start and the layer itself for each layer.
        self.marks = np.full((2 * len(mapping.layers) + 4, 2, units), -1, np.int64)
        self.marked = 0

    def run(self, frames: int, steps: int) -> Lowered:
        jobs = [self._job(index, item) for index, item in enumerate(self.mapping.layers)]
        self.ops, self.args = kernels.tables(self._most_rows(jobs), ARGUMENT_COUNT)
        segments = []
        for phase, indices in self._phases():
            begin = self.row
            self._segment(jobs, indices)
            repeat = {Phase.FRAME: frames, Phase.STEP: steps}.get(phase, 1)
            segments.append(Segment(begin, self.row, repeat))
        if self.wiring.fetch >= 0:
            self._fetch(segments)
        self.ops, self.args = self.ops[: self.row], self.args[: self.row]
        names = (*(item.name for item in self.mapping.layers), START)
        program = Program(self.graph.name, self.wiring.units,
                          self.wiring.with_initial(self.initial), names, self.ops, self.args,
                          tuple(segments))
        return Lowered(program, self.placement, self.mapping)

    def _phases(self) -> Iterator[tuple[Phase, list[int]]]:
        phase, indices = None, []
        for index, item in enumerate(self.mapping.layers):
            if item.phase is not phase and indices:
                assert phase is not None
                yield phase, indices
                indices = []
            phase = item.phase
            indices.append(index)
        if phase is not None:
            yield phase, indices

    # --- rows -----------------------------------------------------------------------------

    def _job(self, index: int, item: LayerMapping):
        if item.engine is None:
            return None
        if isinstance(item.tile, ConvolutionTile):
            return self._convolution_job(index, item, item.tile)
        if isinstance(item.tile, GridTile):
            return self._grid_job(index, item, item.tile)
        assert isinstance(item.tile, StreamTile)
        return self._stream_job(index, item, item.tile)

    def _most_rows(self, jobs: list) -> int:
        """At least as many rows as the layers, the host and the descriptor loads need."""
        total = 2 * len(jobs) + len(self.mapping.phases) + 2
        masters = len(self.wiring.inputs) + len(self.wiring.outputs) + 2
        for item, job in zip(self.mapping.layers, jobs, strict=True):
            if job is None:
                continue
            plan = job[2]
            if isinstance(item.tile, ConvolutionTile):
                stages = (ceil_div(plan.conv_rows, plan.tile_rows)
                          * ceil_div(plan.conv_columns, plan.tile_columns)
                          * ceil_div(plan.out_words, plan.tile_out_words))
                total += 1 + stages * (masters + 1) * ceil_div(plan.in_words, plan.tile_in_words)
            elif isinstance(item.tile, GridTile):
                banks = (ceil_div(job[3][0].planes, plan.tile_planes) * plan.grids
                         * ceil_div(plan.positions, plan.chunk))
                total += banks * (masters + 2 * ceil_div(plan.chunk, plan.sub_chunk))
            else:
                total += 1 + (masters + 1) * (ceil_div(plan.planes, plan.tile_planes)
                                              * ceil_div(plan.units, plan.tile_units))
        return total

    def _emit(self, job: tuple, rows: _Rows) -> None:
        kernel, common, plan, areas, wires, real = job
        head = (self.ops, self.args, self.row, common)
        tail = (wires.inputs, wires.outputs)
        if kernel is kernels.convolution_rows:
            plan = plan._replace(weight_bank=self.weight_bank)
            self.row, self.weight_bank = kernel(*head, plan, *areas, *tail, real, rows.first,
                                                rows.last)
            return
        self.row = kernel(*head, plan, *areas, *tail, rows.first, rows.last)

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
            return kernels.BY_ONE
        if least_words >= count:
            return kernels.BY_WORDS
        return kernels.BY_POSITIONS if least_positions >= count else kernels.BY_ONE

    def _convolution_job(self, index: int, item: LayerMapping, tile: ConvolutionTile) -> tuple:
        graph, overlay = self.graph, self.overlay
        layer = self.layers[item.name]
        wires = self.wiring.engines[Engine.CONVOLUTION]
        out, window = graph.tensors[layer.output], layer.window
        in_words, out_words, _ = convolution_words(layer, graph, overlay, self.mapping, item)
        edge_rows = out.rows - (ceil_div(out.rows, tile.rows) - 1) * tile.rows
        edge_in = in_words - (ceil_div(in_words, tile.in_words) - 1) * tile.in_words
        edge_out = out_words - (ceil_div(out_words, tile.out_words) - 1) * tile.out_words
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
        weights = self.placement.blob(item.name, "weights")
        parameters = self.placement.blob(item.name, "parameters")
        plan = ConvolutionPlan(
            overlay.tm, overlay.columns, out.channels, out.rows, out.columns, in_words,
            out_words, tile.out_words, tile.in_words, tile.rows, tile.columns,
            int(tile.resident), int(tile.weights_outer), window.rows, window.columns,
            window.stride, window.padding, int(bool(item.upsample)), int(layer.relu),
            int(bool(item.pool)), int(bool(item.add)), new, skip, shift, weights.address,
            overlay.tm * overlay.tn * overlay.weight_bits // 8, overlay.weight_words,
            overlay.weight_banks, 0, self.wiring.weight, wires.weight_filled, wires.weight_free,
            parameters.address, parameters.size_bytes,
            parity * (overlay.parameter_entries // 2), wires.skip_filled)
        target = self._area(item.output)
        skip_area = self._area(item.skip) if item.skip else target
        real = self.layouts.real_channels(item.inputs[0])
        return (kernels.convolution_rows, common, plan, (source, target, skip_area), wires, real)

    def _add_scale(self, layer: Layer, item: LayerMapping) -> tuple[int, int, int]:
        """Multipliers of the new and of the skipped operand, and the shift."""
        if not item.add:
            return 0, 0, 0
        add = self.layers[item.add]
        multiplier = [int(value) for value in self.graph.constant(add, "multiplier")]
        if add.inputs[0] != layer.output:
            multiplier.reverse()
        return multiplier[0], multiplier[1], int(self.graph.constant(add, "shift")[0])

    def _stream_job(self, index: int, item: LayerMapping, tile: StreamTile) -> tuple:
        graph, layer, engine = self.graph, self.layers[item.name], item.engine
        assert engine is not None
        wires, work = self.wiring.engines[engine], work_of(graph, layer)
        spec, out = graph.tensors[item.inputs[0]], graph.tensors[layer.output]
        planes = self.layouts.planes(item.inputs[0])
        units = spec.positions // tile.unit_in
        operator, window = layer.operator, layer.window
        found = timing(self.overlay, engine, work.operator)
        flow, two = operator is Operator.FLOW_SUM, operator in (Operator.ADD, Operator.MULTIPLY)
        edge_planes = planes - (ceil_div(planes, tile.planes) - 1) * tile.planes
        edge_units = units - (ceil_div(units, tile.units) - 1) * tile.units
        block = self.overlay.channel_block
        common = self._common(
            index, item, wires, interval_cycles(found, work, planes, spec.channels),
            work.operator,
            kernels.BY_ONE if two else self._share(
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
        return kernels.stream_rows, common, plan, (source, other, target), wires, None

    def _parameters(self, item: LayerMapping, layer: Layer, engine: Engine,
                    planes: int) -> tuple[int, int, int, int]:
        """Address, bytes, buffer and place of a streaming layer's constants; 0 bytes if none."""
        operator = layer.operator
        if operator in (Operator.AFFINE, Operator.FLOW_SUM):
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
        if operator is Operator.AFFINE:
            return int(layer.relu), 0, 0
        if operator is Operator.FLOW_SUM:
            return layer.fraction_bits, 0, 0
        return window.rows, window.stride, window.padding

    def _grid_job(self, index: int, item: LayerMapping, tile: GridTile) -> tuple:
        layer = self.layers[item.name]
        wires = self.wiring.engines[Engine.GRID_SAMPLE]
        found = timing(self.overlay, Engine.GRID_SAMPLE, "grid_sample")
        grid = self.graph.tensors[item.inputs[1]]
        common = self._common(index, item, wires, found.interval, "grid_sample", kernels.BY_ONE,
                              kernels.BY_ONE)
        plan = GridPlan(grid.channels // 2, grid.positions, tile.planes, tile.grids, tile.chunk,
                        tile.part, found.interval, found.interval_per_plane, layer.fraction_bits)
        areas = (self._area(item.inputs[0]), self._list(item.inputs[1]), self._list(item.output))
        return kernels.grid_rows, common, plan, areas, wires, None

    # --- order between layers -------------------------------------------------------------

    def _segment(self, jobs: list, indices: list[int]) -> None:
        """Write one phase: its layers in order, tied by barriers, repeatable."""
        self.weight_bank = 0
        done: list[_Rows] = []
        fabric = [index for index in indices if jobs[index] is not None]
        starts_on_host = bool(indices) and jobs[indices[0]] is None
        if fabric and not starts_on_host:
            done.append(self._host(None, fabric[0], len(self.mapping.layers),
                                   start_ns(self.board, self.overlay.control)))
        for place_in, index in enumerate(indices):
            item, job = self.mapping.layers[index], jobs[index]
            if job is None:
                after = indices[place_in + 1] if place_in + 1 < len(indices) else None
                to_fabric = after is not None and jobs[after] is not None
                done.append(self._host(item, index, index, self._host_ns(item, to_fabric)))
                continue
            if (self.overlay.control.start is Start.LAYER and done
                    and done[-1].item is not None and done[-1].item.engine is not None):
                done.append(self._host(None, index, len(self.mapping.layers),
                                       start_ns(self.board, self.overlay.control)))
            rows = self._blank(item)
            self._emit(job, rows)
            done.append(rows)
        for before, after in itertools.pairwise(done):
            self._barrier(before, after)
        self._wrap(done)
        self._release(done)
        self._displacements(done)

    def _blank(self, item: LayerMapping | None) -> _Rows:
        first, last = self.marks[self.marked]
        self.marked += 1
        return _Rows(item, first, last)

    def _host(self, item: LayerMapping | None, layer: int, argument: int,
              time_ns: float) -> _Rows:
        rows, row = self._blank(item), self.row
        line = self.ops[row]
        line[Column.UNIT], line[Column.KIND] = self.wiring.host, Opcode.HOST
        line[Column.LAYER], line[Column.FLAGS] = layer, FLAG_FIRST
        line[Column.FILL] = max(1, cycles_from_ns(time_ns, self.overlay.clock_hz))
        self.args[row, 0] = argument
        if item is not None:
            source = self.layers[item.name]
            line[Column.MACS] = multiply_accumulates(self.graph, source)
        rows.first[self.wiring.host] = rows.last[self.wiring.host] = row
        self.row += 1
        return rows

    def _host_ns(self, item: LayerMapping, to_fabric: bool) -> float:
        """Software, cache maintenance of what is read and written, and the restart behind it."""
        layer, graph = self.layers[item.name], self.graph
        out = graph.tensors[item.output]
        total = software_ns(self.board, str(layer.operator.value), out.elements,
                            multiply_accumulates(graph, layer),
                            layer.window.rows * layer.window.columns)
        for name in (*item.inputs, item.output):
            size = self.placement.place(name).size_bytes
            total += cache_ns(self.board, self.overlay.control, size)
        if to_fabric:
            total += start_ns(self.board, self.overlay.control)
        return total

    def _tie(self, signal_row: int, wait_row: int, mask: int) -> None:
        self.ops[signal_row, Column.SIGNAL] |= mask
        self.ops[wait_row, Column.WAIT] |= mask

    def _barrier(self, before: _Rows, after: _Rows) -> None:
        """The first loads of a layer wait for the last stores of the layer before it."""
        wiring = self.wiring
        from_host = before.first[wiring.host] >= 0
        to_host = after.first[wiring.host] >= 0
        if from_host and to_host:
            return
        if from_host:
            for i in after.units(wiring.inputs):
                self._tie(before.last[wiring.host], after.first[wiring.inputs[i]],
                          wiring.host_in[i])
            return
        for j in before.units(wiring.outputs):
            store = before.last[wiring.outputs[j]]
            if to_host:
                self._tie(store, after.first[wiring.host], wiring.to_host[j])
                continue
            for i in after.units(wiring.inputs):
                self._tie(store, after.first[wiring.inputs[i]], wiring.layer_done[j][i])

    def _wrap(self, done: list[_Rows]) -> None:
        """A repeat, or the next segment, starts when this one's last stores are done."""
        wiring = self.wiring
        fabric = [rows for rows in done if rows.first[wiring.host] < 0]
        if not fabric:
            return
        first, last = fabric[0], fabric[-1]
        weight = next((int(rows.first[wiring.weight]) for rows in fabric
                       if rows.first[wiring.weight] >= 0), -1)
        for j in last.units(wiring.outputs):
            store = last.last[wiring.outputs[j]]
            for i in first.units(wiring.inputs):
                self._tie(store, first.first[wiring.inputs[i]], wiring.layer_done[j][i])
                self.initial |= wiring.layer_done[j][i]
            if weight >= 0:
                # Banks of weights begin anew in each repeat, so none may still be in use.
                self._tie(store, weight, wiring.frame_done[j])
                self.initial |= wiring.frame_done[j]

    def _release(self, done: list[_Rows]) -> None:
        """The host may write the next frame's tensors when this frame has read them."""
        wiring = self.wiring
        written: set[str] = set()
        first_host = -1
        for rows in done:
            if rows.first[wiring.host] < 0:
                break
            if rows.item is not None:
                written.add(rows.item.output)
                first_host = int(rows.first[wiring.host]) if first_host < 0 else first_host
        last = None
        for rows in done:
            if rows.item is None or rows.first[wiring.host] >= 0:
                continue
            names = {leaf for name in rows.item.inputs for leaf in self.layouts.leaves(name)}
            if names & written:
                last = rows
        if first_host < 0 or last is None:
            return
        for j in last.units(wiring.outputs):
            self._tie(last.last[wiring.outputs[j]], first_host, wiring.release[j])
            self.initial |= wiring.release[j]

    def _displacements(self, done: list[_Rows]) -> None:
        """The weight master may load what the host writes only after the host wrote it."""
        wiring = self.wiring
        hosts = {rows.item.output: rows for rows in done
                 if rows.item is not None and rows.first[wiring.host] >= 0}
        for rows in done:
            if rows.item is None or rows.first[wiring.weight] < 0:
                continue
            if self.layers[rows.item.name].operator is not Operator.FLOW_SUM:
                continue
            maker = hosts.get(rows.item.inputs[1])
            if maker is not None:
                self._tie(int(maker.last[wiring.host]), int(rows.first[wiring.weight]),
                          wiring.host_weight)

    # --- descriptors ----------------------------------------------------------------------

    def _fetch(self, segments: list[Segment]) -> None:
        """Put the descriptor loads of each segment in front of it and tie them to its rows."""
        ops, args, made = [], [], []
        address, position = self.placement.size_bytes, 0
        for segment in segments:
            body = self.ops[segment.first : segment.last]
            loads = self._fetch_rows(body, address)
            address += len(body) * DESCRIPTOR_BYTES
            ops += [loads, body]
            args += [np.zeros((len(loads), ARGUMENT_COUNT), np.int32),
                     self.args[segment.first : segment.last]]
            made.append(Segment(position, position + len(loads) + len(body), segment.repeat))
            position = made[-1].last
        self.ops, self.args, self.row = np.concatenate(ops), np.concatenate(args), position
        segments[:] = made

    def _fetch_rows(self, body: np.ndarray, address: int) -> np.ndarray:
        wiring = self.wiring
        count = ceil_div(len(body), FETCH_ROWS)
        loads = np.zeros((count, len(Column)), np.int64)
        loads[:, Column.UNIT], loads[:, Column.KIND] = wiring.fetch, Opcode.FETCH
        for index in range(count):
            rows = body[index * FETCH_ROWS : (index + 1) * FETCH_ROWS]
            size = len(rows) * DESCRIPTOR_BYTES
            line = loads[index]
            line[Column.ADDRESS] = address + index * FETCH_ROWS * DESCRIPTOR_BYTES
            line[Column.ROW_BYTES] = line[Column.ROW_STRIDE] = line[Column.PLANE_STRIDE] = size
            line[Column.ROWS] = line[Column.PLANES] = 1
            line[Column.LAYER] = rows[0, Column.LAYER]
            units, where = np.unique(rows[:, Column.UNIT], return_index=True)
            for unit, at in zip(units.tolist(), where.tolist(), strict=True):
                line[Column.SIGNAL] |= wiring.fetched[unit]
                rows[at, Column.WAIT] |= wiring.fetched[unit]
            stores = np.flatnonzero(rows[:, Column.UNIT] == wiring.outputs[0])
            if len(stores) and index + FETCH_AHEAD < count:
                rows[stores[-1], Column.SIGNAL] |= wiring.credit
                loads[index + FETCH_AHEAD, Column.WAIT] |= wiring.credit
        first = np.ones(count, bool)
        first[1:] = loads[1:, Column.LAYER] != loads[:-1, Column.LAYER]
        loads[first, Column.FLAGS] = FLAG_FIRST
        return loads

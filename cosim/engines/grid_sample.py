"""The grid sampler in mapping and lowering: tile, search, rows, lower bound.

It loads whole source planes with the grid's positions; it has no constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from arch_models.engines import Tile, Work, timing
from arch_models.overlay import Engine
from arch_models.units import ceil_div
from cosim.compiled import CACHED
from cosim.engines.base import Demand, Job, Mapped, Site
from cosim.engines.buffers import BEAT, Buffers, streamed
from cosim.engines.rows import (
    IN_FILLED,
    IN_FREE,
    IN_UNIT,
    INPUT,
    OUT_FILLED,
    OUT_FREE,
    Box,
    Turn,
    channel_mask,
    compute_row,
    tile_load,
    tile_store,
)
from cosim.mapping.choose import Chooser, work_of
from cosim.mapping.tile_search import TRANSFER_CYCLES, Totals, sizes, total
from cosim.mapping.tiles import GridTile, LayerMapping
from cosim.program.table import Opcode
from workloads import arithmetic
from workloads.graph import Layer

GRID_SAMPLE = int(Opcode.GRID_SAMPLE)


class GridSampleSlice:
    """See `EngineSlice`."""

    engine = Engine.GRID_SAMPLE
    cost_arguments: Mapping[Opcode, tuple[str, ...]] = {
        Opcode.GRID_SAMPLE: ("positions", "planes")}
    accesses = staticmethod(streamed)

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping:
        """Source planes and grids that share a bank, positions in chunks."""
        graph = chooser.graph
        source, grid = (graph.tensors[name] for name in layer.inputs)
        planes = chooser.layouts.planes(layer.inputs[0])
        found = chooser.timing(Engine.GRID_SAMPLE, "grid_sample")
        grids = grid.channels // 2
        shape = GridShape(
            source.positions, planes, grids, grid.positions, found.fill + found.drain,
            found.interval, found.interval_per_plane)
        best = chooser.search(search, shape)
        if best[0] < 0:
            return chooser.host(layer, "no tile fits INPUT and OUTPUT")
        chooser.layouts.repeated(layer.output, layer.inputs[0], grids)
        return LayerMapping(layer.name, layer.phase, Engine.GRID_SAMPLE, layer.inputs,
                            layer.output, tile=GridTile(*best[1:5]), cost_cycles=best[0])

    def constants(self, mapped: Mapped) -> list[tuple[str, int]]:
        """None."""
        return []

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """Nothing."""
        return b""

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """None: the input master loads the grid."""
        return ()

    def job(self, mapped: Mapped, site: Site) -> Job:
        """One master loads the image and then the grids of a bank."""
        item, tile = mapped.item, mapped.item.tile
        assert isinstance(tile, GridTile)
        grid = mapped.graph.tensors[item.inputs[1]]
        plan = GridPlan(grid.channels // 2, grid.positions, tile.planes, tile.grids, tile.chunk,
                        tile.part, mapped.layer.fraction_bits)
        areas = (site.area(mapped, item.inputs[0]), site.line(mapped, item.inputs[1]),
                 site.line(mapped, item.output))
        banks = (ceil_div(areas[0].planes, tile.planes) * plan.grids
                 * ceil_div(plan.positions, tile.chunk))
        return Job(grid_rows, site.common(mapped.overlay), plan, areas, site.wires,
                   banks * (site.masters + 2 * ceil_div(tile.chunk, tile.part)))

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """Positions of some planes."""
        return work_of(mapped.graph, mapped.layer), Tile(1, values["positions"],
                                                         values["planes"])

    def least(self, mapped: Mapped) -> Demand:
        """Every position of every plane; fill and drain left out."""
        item, tile = mapped.item, mapped.item.tile
        assert isinstance(tile, GridTile)
        found = timing(mapped.overlay, Engine.GRID_SAMPLE, "grid_sample")
        grid = mapped.graph.tensors[item.inputs[1]]
        planes = mapped.planes(item.inputs[0])
        positions, whole = grid.channels // 2 * grid.positions, planes * found.interval_per_plane
        return Demand(
            compute_cycles=positions * (ceil_div(planes, tile.planes) * found.interval + whole),
            untiled_cycles=positions * (found.interval + whole),
            load_bytes=mapped.bytes_of(item.inputs[0]) + mapped.bytes_of(item.inputs[1]),
            store_bytes=mapped.bytes_of(item.output))

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """See `EngineSlice`."""
        rows, columns, planes = (values[name] for name in ("in_rows", "in_columns", "planes"))
        image = memories.read(values["in_base"], rows * columns, planes).transpose(0, 2, 1)
        image = image.reshape(planes * BEAT, rows, columns).astype(np.int8)
        beats = memories.read(values["grid_base"], values["positions"], 1)[0].astype(np.int8)
        grid = np.ascontiguousarray(beats).view("<i2")[:, :2].T[:, :, None]
        result = arithmetic.bilinear(image, grid, values["fraction_bits"])[:, :, 0]
        memories.write(values["out_base"],
                       result.reshape(planes, BEAT, -1).transpose(0, 2, 1))


class GridShape(NamedTuple):
    """A grid sampling as its tile search sees it."""

    image: int
    planes: int
    grids: int
    positions: int
    overhead: int
    interval_base: int
    interval_per_plane: int


@CACHED
def search(shape, budget):
    """(cost, planes, grids, chunk, positions an operation) of the best tile; cost < 0: none."""
    grids_tried, chunks_tried = sizes(shape.grids, 1, 0), sizes(shape.positions, 1, 0)
    best = (-1.0, 0, 0, 0, 0)
    stored = float(shape.planes * shape.grids * shape.positions * budget.position_bytes)
    for planes in sizes(shape.planes, 1, 0):
        source_words = -(-planes // budget.lanes_in) * shape.image
        if source_words >= budget.input_words:
            continue
        tiles = -(-shape.planes // planes)
        out_words = -(-planes // budget.lanes_out)
        most = budget.output_words // out_words
        if most < 1:
            continue
        for grids in grids_tried:
            groups = -(-shape.grids // grids)
            room = (budget.input_words - source_words) // grids
            for chunk in chunks_tried:
                if chunk > room:
                    continue
                chunks = -(-shape.positions // chunk)
                parts = -(-chunk // most)
                part = -(-chunk // parts)
                read = float(groups * chunks * shape.planes * shape.image
                             + tiles * shape.grids * shape.positions) * budget.position_bytes
                stages = tiles * shape.grids * chunks * parts
                compute = (shape.grids * shape.positions
                           * (tiles * shape.interval_base
                              + shape.planes * shape.interval_per_plane)
                           + stages * shape.overhead)
                banks = tiles * groups * chunks
                loads = read / budget.read_rate + (banks + banks * grids) * TRANSFER_CYCLES
                stores = stored / budget.write_rate + stages * TRANSFER_CYCLES
                first = ((planes * shape.image + grids * chunk) * budget.position_bytes
                         / budget.read_rate + TRANSFER_CYCLES)
                last = planes * part * budget.position_bytes / budget.write_rate + TRANSFER_CYCLES
                cost = total(budget, Totals(
                    float(compute), loads, 0.0, stores, read + stored, 0, first, last))
                if best[0] < 0 or cost < best[0]:
                    best = (cost, planes, grids, chunk, part)
                # Smaller chunks only load the image again.
                break
    return best


class GridPlan(NamedTuple):
    """A grid sampling: source planes and grids that share a bank, positions in chunks."""

    grids: int
    positions: int
    tile_planes: int
    tile_grids: int
    chunk: int
    sub_chunk: int
    fraction_bits: int


@CACHED
def grid_rows(table, row, common, plan, areas, wires):
    """Write one grid sampling (areas: source, grid, target); return the next row.

    `source` and `grid` share an INPUT bank. Grids are read as lists of positions.
    """
    source, grid, target = areas
    ins, outs = wires.inputs, wires.outputs
    image = source.rows * source.columns
    out_filled = channel_mask(outs, OUT_FILLED, common.output_share)
    out_free = channel_mask(outs, OUT_FREE, common.output_share)
    bank, stage = 0, 0
    for plane in range(0, source.planes, plan.tile_planes):
        planes = min(plan.tile_planes, source.planes - plane)
        words = -(-planes // common.lanes_in) * image
        for grid_first in range(0, plan.grids, plan.tile_grids):
            grids = min(plan.tile_grids, plan.grids - grid_first)
            for begin in range(0, plan.positions, plan.chunk):
                size = min(plan.chunk, plan.positions - begin)
                base = bank % common.input_banks * common.input_words
                bank += 1
                turn = Turn(common.layer, ins[0, IN_UNIT], ins[0, IN_FREE], 0)
                row = tile_load(table, row, turn, INPUT, base, image, source,
                                Box(plane, planes, 0, source.rows, 0, source.columns))
                for index in range(grids):
                    done = ins[0, IN_FILLED] if index == grids - 1 else 0
                    turn = Turn(common.layer, ins[0, IN_UNIT], 0, done)
                    row = tile_load(table, row, turn, INPUT, base + words + index * size, size,
                                    grid, Box(grid_first + index, 1, begin, size, 0, 1))
                for index in range(grids):
                    for offset in range(0, size, plan.sub_chunk):
                        part = min(plan.sub_chunk, size - offset)
                        out_base = stage % common.output_banks * common.output_words
                        stage += 1
                        wait, signal = out_free, out_filled
                        if index == 0 and offset == 0:
                            wait |= ins[0, IN_FILLED]
                        if index == grids - 1 and offset + part == size:
                            signal |= ins[0, IN_FREE]
                        compute_row(table, row, common, GRID_SAMPLE, wait, signal, 0)
                        line = table.arguments[row]
                        line[0], line[1], line[2] = base, source.rows, source.columns
                        line[3] = planes
                        line[4] = base + words + index * size + offset
                        line[5], line[6], line[7] = part, out_base, plan.fraction_bits
                        row += 1
                        place = (grid_first + index) * source.planes + plane
                        row = tile_store(table, row, common, outs, 0, out_base, target,
                                         Box(place, planes, begin + offset, part, 0, 1))
    return row

"""The exact searches over the tiles of a layer that streams: of positions, or of rows and columns.

It knows no graph; `cosim.engines.stream` calls it once for each distinct shape.
"""

from __future__ import annotations

from typing import NamedTuple

from cosim.compiled import CACHED
from cosim.mapping.tile_search import (
    OPERATION_RUNS,
    RUN_CYCLES,
    TRANSFER_CYCLES,
    Totals,
    loaded,
    sizes,
    total,
)


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


@CACHED
def search(shape, budget):
    """(cost, planes, units) of the best tile; cost < 0: none fits."""
    planes_tried, units_tried = sizes(shape.planes, 1, 0), sizes(shape.units, 1, 0)
    if shape.whole_planes:
        planes_tried = planes_tried[:1]
    best = (-1.0, 0, 0)
    in_positions, out_positions = shape.units * shape.unit_in, shape.units * shape.unit_out
    out_planes = 1 if shape.one_out_plane else shape.planes
    stored = out_planes * out_positions * budget.position_bytes
    trips = out_positions if shape.by_position else out_positions * shape.planes
    for planes in planes_tried:
        tiles = -(-shape.planes // planes)
        other = 0
        if shape.operands == 2:
            other = 1 if shape.broadcast else planes
        words = -(-planes // budget.lanes_in) + -(-other // budget.lanes_in)
        out_words = 1 if shape.one_out_plane else -(-planes // budget.lanes_out)
        read = shape.planes * in_positions * budget.position_bytes
        read += tiles * other * in_positions * budget.position_bytes
        for units in units_tried:
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


class ImageShape(NamedTuple):
    """A streaming layer that is cut in rows and columns of its output. `most_rows`,
    `most_columns`: of a tile, 0 where the search may choose."""

    planes: int
    in_rows: int
    in_columns: int
    out_rows: int
    out_columns: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    upsample: int
    operands: int
    broadcast: int
    most_rows: int
    most_columns: int
    overhead: int
    interval: int


@CACHED
def search_images(shape, budget):
    """(cost, planes, rows, columns) of the best tile; cost < 0: none fits."""
    step = 1 << shape.upsample
    rows_tried = sizes(shape.out_rows, step, shape.most_rows)
    columns_tried = sizes(shape.out_columns, step, shape.most_columns)
    planes_tried = sizes(shape.planes, 1, 0)
    best = (-1.0, 0, 0, 0)
    position = budget.position_bytes
    stored = shape.planes * shape.out_rows * shape.out_columns * position
    trips = shape.planes * shape.out_rows * shape.out_columns * shape.interval
    for columns in columns_tried:
        wide, all_columns = loaded(shape.out_columns, columns, shape.stride, shape.kernel_columns,
                                   shape.padding, shape.upsample, shape.in_columns)
        for rows in rows_tried:
            high, all_rows = loaded(shape.out_rows, rows, shape.stride, shape.kernel_rows,
                                    shape.padding, shape.upsample, shape.in_rows)
            spatial = -(-shape.out_rows // rows) * -(-shape.out_columns // columns)
            for planes in planes_tried:
                blocks = -(-shape.planes // planes)
                other = 0
                if shape.operands == 2:
                    other = 1 if shape.broadcast else planes
                if ((-(-planes // budget.lanes_in) + -(-other // budget.lanes_in)) * high * wide
                        > budget.input_words
                        or -(-planes // budget.lanes_out) * rows * columns > budget.output_words):
                    continue
                stages = blocks * spatial
                read = (shape.planes + blocks * other) * all_rows * all_columns * position
                in_runs = (shape.planes + blocks * other) * spatial * (
                    1 if wide == shape.in_columns else high)
                out_runs = shape.planes * spatial * (1 if columns == shape.out_columns else rows)
                cost = total(budget, Totals(
                    trips + stages * shape.overhead,
                    read / budget.read_rate + stages * shape.operands * TRANSFER_CYCLES
                    + in_runs * RUN_CYCLES, 0.0,
                    stored / budget.write_rate + stages * TRANSFER_CYCLES + out_runs * RUN_CYCLES,
                    float(read + stored), in_runs + out_runs + OPERATION_RUNS * 3 * stages,
                    (planes + other) * high * wide * position / budget.read_rate + TRANSFER_CYCLES,
                    planes * rows * columns * position / budget.write_rate + TRANSFER_CYCLES))
                if best[0] < 0 or cost < best[0]:
                    best = (cost, planes, rows, columns)
    return best

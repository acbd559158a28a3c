"""The exact search over the tiles of a convolution.

It knows no graph; `cosim.engines.convolution` calls it once for each distinct shape.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import kept
from cosim.mapping import tile_search, words
from cosim.mapping.tile_search import (
    OPERATION_RUNS,
    RUN_CYCLES,
    TRANSFER_CYCLES,
    Totals,
    loaded,
    sizes,
    total,
)


class ConvolutionShape(NamedTuple):
    """One convolution as its tile search sees it; everything else does not change the choice."""

    in_rows: int
    in_columns: int
    in_planes: int
    conv_rows: int
    conv_columns: int
    out_planes: int
    in_words: int
    out_words: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    upsample: int
    pool: int
    add: int
    unroll: int
    result_cycles: int
    weight_word_bytes: int
    overhead: int
    interval: int
    most_in_words: int
    most_out_words: int
    grouped: int
    fixed_rows: int
    fixed_columns: int


@kept(tile_search, words)
def search(shape, budget):
    """(cost, out words, in words, rows, columns, resident, weights outer); cost < 0: no tile."""
    taps = shape.kernel_rows * shape.kernel_columns
    even = 2 if shape.pool else 1
    rows_found = np.empty(2 * shape.conv_rows + 2, np.int64)
    columns_found = np.empty(2 * shape.conv_columns + 2, np.int64)
    out_found = np.empty(2 * shape.out_words + 2, np.int64)
    row_count = sizes(shape.conv_rows, even, rows_found)
    column_count = sizes(shape.conv_columns, even, columns_found)
    out_count = sizes(shape.out_words, 1, out_found)
    in_found = np.empty(2 * shape.in_words + 2, np.int64)
    in_count = sizes(shape.in_words, 1, in_found)
    if shape.fixed_rows:
        row_count = 1
        rows_found[0] = max(even, min(shape.conv_rows, shape.fixed_rows) // even * even)
    if shape.fixed_columns:
        column_count = 1
        columns_found[0] = max(even, min(shape.conv_columns, shape.fixed_columns) // even * even)
    best = (-1.0, 0, 0, 0, 0, 0, 0)
    quarter = 4 if shape.pool else 1
    stored_bytes = shape.out_planes * (shape.conv_rows * shape.conv_columns // quarter)
    stored_bytes *= budget.position_bytes
    skip_bytes = stored_bytes if shape.add else 0
    block = shape.out_words * shape.in_words * taps * shape.weight_word_bytes
    for column_index in range(column_count):
        columns = columns_found[column_index]
        most_columns, all_columns = loaded(shape.conv_columns, columns, shape.stride,
                                            shape.kernel_columns, shape.padding, shape.upsample,
                                            shape.in_columns)
        column_tiles = -(-shape.conv_columns // columns)
        edge = shape.conv_columns - (column_tiles - 1) * columns
        column_trips = (column_tiles - 1) * -(-columns // shape.unroll) + -(-edge // shape.unroll)
        groups = shape.out_words * shape.conv_rows * column_trips * shape.interval
        for row_index in range(row_count):
            rows = rows_found[row_index]
            stored = rows * columns // quarter
            if stored > budget.output_words:
                continue
            most_rows, all_rows = loaded(shape.conv_rows, rows, shape.stride, shape.kernel_rows,
                                          shape.padding, shape.upsample, shape.in_rows)
            positions_in = most_rows * most_columns
            if positions_in > budget.input_words:
                continue
            # Groups: each output word reads words of its own, all in one operation.
            resident = (not shape.grouped
                        and shape.in_words * positions_in <= budget.input_words)
            spatial = -(-shape.conv_rows // rows) * column_tiles
            whole_input = shape.in_planes * all_rows * all_columns * budget.position_bytes
            for out_index in range(out_count):
                tile_out = out_found[out_index]
                if tile_out * stored > budget.output_words or tile_out > shape.most_out_words:
                    continue
                most_in = min(shape.most_in_words, budget.weight_words // (tile_out * taps))
                if not resident:
                    most_in = min(most_in, budget.input_words // positions_in)
                out_tiles = -(-shape.out_words // tile_out)
                stages = spatial * out_tiles
                store_time = stored_bytes / budget.write_rate + stages * TRANSFER_CYCLES
                tile_bytes = tile_out * stored * budget.lanes_out * budget.position_bytes
                for in_index in range(in_count):
                    tile_in = in_found[in_index]
                    if tile_in > most_in:
                        continue
                    if shape.grouped and tile_in < shape.in_words:
                        break
                    in_tiles = -(-shape.in_words // tile_in)
                    # A column of the unroll has its own accumulator memory.
                    if in_tiles > 1 and (tile_out * rows * -(-columns // shape.unroll)
                                         > budget.accumulator_words // shape.unroll):
                        break
                    edge_in = shape.in_words - (in_tiles - 1) * tile_in
                    trips = ((in_tiles - 1) * max(tile_in * taps, shape.result_cycles)
                             + max(edge_in * taps, shape.result_cycles))
                    compute = groups * trips + stages * in_tiles * shape.overhead
                    first_planes = shape.in_planes if resident else tile_in * budget.lanes_in
                    first = max(first_planes * positions_in * budget.position_bytes
                                / budget.read_rate,
                                tile_out * tile_in * taps * shape.weight_word_bytes
                                / budget.weight_rate) + TRANSFER_CYCLES
                    last = tile_bytes / budget.write_rate + TRANSFER_CYCLES
                    for outer in range(2):
                        if outer == 1 and (in_tiles > 1 or out_tiles == 1 or spatial == 1):
                            continue
                        if outer == 1 or not resident:
                            input_bytes = whole_input * out_tiles
                            input_loads = stages * in_tiles
                        else:
                            input_bytes = whole_input
                            input_loads = spatial
                        if outer == 1 or out_tiles * in_tiles == 1:
                            weight_bytes = block
                            weight_loads = out_tiles
                        else:
                            weight_bytes = block * spatial
                            weight_loads = stages * in_tiles
                        skip_loads = stages if shape.add else 0
                        # Rows of a tile as wide as the tensor are one run; others are a run each.
                        input_runs = shape.in_planes * spatial * (
                            1 if most_columns == shape.in_columns else most_rows)
                        if outer == 1 or not resident:
                            input_runs *= out_tiles
                        out_runs = shape.out_planes * spatial * (
                            1 if columns == shape.conv_columns else rows >> (even - 1))
                        skip_runs = out_runs if shape.add else 0
                        loads = ((input_bytes + skip_bytes) / budget.read_rate
                                 + (input_loads + skip_loads) * TRANSFER_CYCLES
                                 + (input_runs + skip_runs) * RUN_CYCLES)
                        stores = store_time + out_runs * RUN_CYCLES
                        runs = input_runs + skip_runs + out_runs + OPERATION_RUNS * (
                            stages * (in_tiles + 1) + input_loads + skip_loads + weight_loads)
                        weights = weight_bytes / budget.weight_rate + weight_loads * TRANSFER_CYCLES
                        moved = input_bytes + skip_bytes + weight_bytes + stored_bytes
                        cost = total(budget, Totals(
                            compute, loads, weights, stores, moved, runs, first, last))
                        if best[0] < 0 or cost < best[0]:
                            best = (cost, tile_out, tile_in, rows, columns, int(resident), outer)
    return best

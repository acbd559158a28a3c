"""Exact search over the legal tiles of one layer, with a closed-form cost in cycles.

It emits nothing and knows no graph; `mapping` calls it once for each distinct shape.

The cost is a pipeline's: the slowest of compute, loads, weights and stores over the whole layer,
plus the first tile's loads and the last tile's store. With one bank instead of two a stage cannot
overlap its neighbour, so their times add. Bytes break ties (`BYTE_CYCLES` each), so that of two
equally fast tilings the one that moves less wins. Only balanced tile sizes ceil(size / n) are
tried: any other size has as many tiles and larger buffers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED, PLAIN, sources
from cosim.mapping import words
from cosim.mapping.words import span

#: Changes with what the searches call.
STAMP = sources(words)

#: Weight of a byte moved against a cycle: a tie-breaker, not a time.
BYTE_CYCLES = 1.0 / 256
#: Cycles of a transfer operation besides its beats: set-up, first data, response. A guess that
#: only steers the choice of tiles; the executors time transfers themselves.
TRANSFER_CYCLES = 40


#: Cycles that every run of rows costs a transfer besides its beats (a burst cut short): a guess
#: that only steers the choice of tiles.
RUN_CYCLES = 4
#: Weight of a run against a cycle where transfers hide behind compute: a tie-breaker.
RUN_TIE = 1.0

#: An operation weighs as many runs in the tie-breaker: it is a descriptor to write and to read.
OPERATION_RUNS = 8


class Budget(NamedTuple):
    """Buffers and rates that tiles must live with. Rates are bytes a cycle."""

    input_words: int
    weight_words: int
    output_words: int
    accumulator_words: int
    input_banks: int
    weight_banks: int
    output_banks: int
    lanes_in: int
    lanes_out: int
    position_bytes: int
    read_rate: float
    weight_rate: float
    write_rate: float
    memory_rate: float


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


class GridShape(NamedTuple):
    """A grid sampling as its tile search sees it."""

    image: int
    planes: int
    grids: int
    positions: int
    overhead: int
    interval_base: int
    interval_per_plane: int


class NormShape(NamedTuple):
    """A group norm as its tile search sees it. `unit`: planes of the smallest whole block."""

    planes: int
    unit: int
    positions: int
    sums_overhead: int
    overhead: int
    interval: int


@PLAIN
def _sizes(length, step, found):
    """Balanced tile sizes of a length, largest first, multiples of `step`; returns how many."""
    units = -(-length // step)
    count, previous = 0, -1
    tiles = 1
    while tiles <= units:
        size = -(-units // tiles)
        if size != previous:
            found[count] = min(length, size * step)
            count += 1
            previous = size
        if size == 1:
            break
        # The next number of tiles that changes the size.
        tiles = max(tiles + 1, -(-units // (size - 1)))
    return count


@PLAIN
def _loaded(length, size, stride, taps, padding, upsample, limit):
    """Largest and total number of real rows that the tiles of an axis read."""
    most, total = 0, 0
    for start in range(0, length, size):
        count = span(start, min(size, length - start), stride, taps, padding, upsample, limit)[1]
        most = max(most, count)
        total += count
    return most, total


@PLAIN
def _total(budget, compute, loads, weights, stores, moved, runs, first, last):
    serial = compute
    if budget.input_banks == 1:
        serial += loads
    if budget.weight_banks == 1:
        serial += weights
    if budget.output_banks == 1:
        serial += stores
    body = max(max(serial, loads), max(weights, stores))
    body = max(body, moved / budget.memory_rate)
    return body + first + last + moved * BYTE_CYCLES + runs * RUN_TIE


@CACHED
def search_convolution(shape, budget, stamp=STAMP):
    """(cost, out words, in words, rows, columns, resident, weights outer); cost < 0: no tile."""
    taps = shape.kernel_rows * shape.kernel_columns
    even = 2 if shape.pool else 1
    rows_found = np.empty(2 * shape.conv_rows + 2, np.int64)
    columns_found = np.empty(2 * shape.conv_columns + 2, np.int64)
    out_found = np.empty(2 * shape.out_words + 2, np.int64)
    row_count = _sizes(shape.conv_rows, even, rows_found)
    column_count = _sizes(shape.conv_columns, even, columns_found)
    out_count = _sizes(shape.out_words, 1, out_found)
    in_found = np.empty(2 * shape.in_words + 2, np.int64)
    in_count = _sizes(shape.in_words, 1, in_found)
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
        most_columns, all_columns = _loaded(shape.conv_columns, columns, shape.stride,
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
            most_rows, all_rows = _loaded(shape.conv_rows, rows, shape.stride, shape.kernel_rows,
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
                        cost = _total(budget, compute, loads, weights, stores, moved, runs, first,
                                      last)
                        if best[0] < 0 or cost < best[0]:
                            best = (cost, tile_out, tile_in, rows, columns, int(resident), outer)
    return best


@CACHED
def search_stream(shape, budget):
    """(cost, planes, units) of the best tile; cost < 0: none fits."""
    plane_found = np.empty(2 * shape.planes + 2, np.int64)
    unit_found = np.empty(2 * shape.units + 2, np.int64)
    plane_count = _sizes(shape.planes, 1, plane_found)
    unit_count = _sizes(shape.units, 1, unit_found)
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
            cost = _total(budget, compute, loads, 0.0, stores, float(read + stored), 0, first,
                          last)
            if best[0] < 0 or cost < best[0]:
                best = (cost, planes, units)
    return best


@CACHED
def search_grid(shape, budget):
    """(cost, planes, grids, chunk, positions an operation) of the best tile; cost < 0: none."""
    plane_found = np.empty(2 * shape.planes + 2, np.int64)
    grid_found = np.empty(2 * shape.grids + 2, np.int64)
    chunk_found = np.empty(2 * shape.positions + 2, np.int64)
    plane_count = _sizes(shape.planes, 1, plane_found)
    grid_count = _sizes(shape.grids, 1, grid_found)
    chunk_count = _sizes(shape.positions, 1, chunk_found)
    best = (-1.0, 0, 0, 0, 0)
    stored = float(shape.planes * shape.grids * shape.positions * budget.position_bytes)
    for plane_index in range(plane_count):
        planes = plane_found[plane_index]
        source_words = -(-planes // budget.lanes_in) * shape.image
        if source_words >= budget.input_words:
            continue
        tiles = -(-shape.planes // planes)
        out_words = -(-planes // budget.lanes_out)
        most = budget.output_words // out_words
        if most < 1:
            continue
        for grid_index in range(grid_count):
            grids = grid_found[grid_index]
            groups = -(-shape.grids // grids)
            room = (budget.input_words - source_words) // grids
            for chunk_index in range(chunk_count):
                chunk = chunk_found[chunk_index]
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
                cost = _total(budget, float(compute), loads, 0.0, stores, read + stored, 0, first,
                              last)
                if best[0] < 0 or cost < best[0]:
                    best = (cost, planes, grids, chunk, part)
                # Smaller chunks only load the image again.
                break
    return best


@CACHED
def search_norm(shape, budget):
    """(cost, planes, chunk, part) of the best tile; cost < 0: none fits.

    The times of the entries are the same for every tile and left out.
    """
    plane_found = np.empty(2 * shape.planes + 2, np.int64)
    chunk_found = np.empty(2 * shape.positions + 2, np.int64)
    plane_count = _sizes(shape.planes, shape.unit, plane_found)
    chunk_count = _sizes(shape.positions, 1, chunk_found)
    best = (-1.0, 0, 0, 0)
    size = float(shape.planes * shape.positions * budget.position_bytes)
    for plane_index in range(plane_count):
        planes = plane_found[plane_index]
        words = -(-planes // budget.lanes_in)
        most = budget.output_words // -(-planes // budget.lanes_out)
        if most < 1:
            continue
        for chunk_index in range(chunk_count):
            chunk = chunk_found[chunk_index]
            if words * chunk > budget.input_words:
                continue
            parts = -(-chunk // most)
            part = -(-chunk // parts)
            chunks = -(-shape.positions // chunk)
            stages = -(-shape.planes // planes) * chunks
            passes = 1 if chunks == 1 else 2
            compute = (2 * shape.planes * shape.positions * shape.interval
                       + stages * (shape.sums_overhead + parts * shape.overhead))
            loads = passes * (size / budget.read_rate + stages * TRANSFER_CYCLES)
            stores = size / budget.write_rate + stages * parts * TRANSFER_CYCLES
            first = planes * chunk * budget.position_bytes / budget.read_rate + TRANSFER_CYCLES
            last = planes * part * budget.position_bytes / budget.write_rate + TRANSFER_CYCLES
            cost = _total(budget, float(compute), loads, 0.0, stores, (1 + passes) * size, 0,
                          first, last)
            if best[0] < 0 or cost < best[0]:
                best = (cost, planes, chunk, part)
    return best

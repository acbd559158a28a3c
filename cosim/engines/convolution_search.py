"""The exact search over the tiles of a convolution, for one set of buffers or for many at once.

It knows no graph; `cosim.engines.convolution` calls it once for each distinct shape.

A tile needs so many words of each buffer, and fits every larger one. So one walk over the tiles
answers for all sizes: a tile is noted at the smallest sizes that hold it, and afterwards each size
takes the best of those below it. Of tiles of equal cost the one that is met first wins, as in a
walk for one size alone. INPUT alone is walked size by size, because a tile whose whole input fits
is never loaded in parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED, PLAIN, PLAIN_RULE
from cosim.mapping.tile_search import (
    OPERATION_RUNS,
    RUN_CYCLES,
    TRANSFER_CYCLES,
    Budget,
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
    taps_per_cycle: int = 1
    weights_a_byte: int = 1  # 2: a word of WEIGHT holds two words of weights
    no_reuse: int = 0  # 1: each output tile reads its inputs and its weights again


class Rooms(NamedTuple):
    """Sizes of the buffers in words, ascending; `banks`: (n, 3) of input, weight and output."""

    input_words: np.ndarray
    weight_words: np.ndarray
    output_words: np.ndarray
    accumulator_words: np.ndarray
    banks: np.ndarray


class Best(NamedTuple):
    """The best tile of every room: (banks, input, weight, output, accumulator) words.

    `cost`: -1 where none fits. `met`: its number in the order of the walk. `tile`, one axis more:
    out words, in words, rows, columns, resident, weights outer.
    """

    cost: np.ndarray
    met: np.ndarray
    tile: np.ndarray


class Walked(NamedTuple):
    """A spatial tile: convolution rows and columns, what it reads, how many there are.

    `groups`: cycles of one trip of every group of positions of the layer; `held`: words of output.
    """

    rows: int
    columns: int
    in_rows: int
    in_columns: int
    whole_input: int
    spatial: int
    groups: int
    held: int


class Cuts(NamedTuple):
    """Sizes that are tried: words of output and of input channels."""

    out_words: np.ndarray
    in_words: np.ndarray


class Blocked(NamedTuple):
    """Words of one operation, and how the layer is walked."""

    out_words: int
    in_words: int
    resident: int
    outer: int


def search(shape, budget):
    """(cost, out words, in words, rows, columns, resident, weights outer); cost < 0: no tile."""
    words = [np.array([size]) for size in budget[:4]]
    best = search_rooms(shape, budget, Rooms(words[0], words[1], words[2], words[3],
                                             np.array([budget[4:7]])))
    return (float(best.cost[0, 0, 0, 0, 0]), *best.tile[0, 0, 0, 0, 0].tolist())


@PLAIN_RULE
def _totals(shape, budget, walked, blocked):
    """Cycles, bytes and runs of the layer cut like this."""
    taps = shape.kernel_rows * shape.kernel_columns
    tile_out, tile_in = blocked.out_words, blocked.in_words
    resident, outer = blocked.resident, blocked.outer
    out_tiles = -(-shape.out_words // tile_out)
    in_tiles = -(-shape.in_words // tile_in)
    stages = walked.spatial * out_tiles
    quarter = 4 if shape.pool else 1
    stored_bytes = shape.out_planes * (shape.conv_rows * shape.conv_columns // quarter)
    stored_bytes *= budget.position_bytes
    skip_bytes = stored_bytes if shape.add else 0
    block = shape.out_words * shape.in_words * taps * shape.weight_word_bytes
    edge_in = shape.in_words - (in_tiles - 1) * tile_in
    each = -(-taps // shape.taps_per_cycle)
    trips = ((in_tiles - 1) * max(tile_in * each, shape.result_cycles)
             + max(edge_in * each, shape.result_cycles))
    compute = walked.groups * trips + stages * in_tiles * shape.overhead
    first_planes = shape.in_planes if resident else tile_in * budget.lanes_in
    first = max(first_planes * walked.in_rows * walked.in_columns * budget.position_bytes
                / budget.read_rate,
                tile_out * tile_in * taps * shape.weight_word_bytes
                / budget.weight_rate) + TRANSFER_CYCLES
    tile_bytes = tile_out * walked.held * budget.lanes_out * budget.position_bytes
    last = tile_bytes / budget.write_rate + TRANSFER_CYCLES
    again = outer == 1 or not resident
    input_bytes = walked.whole_input * out_tiles if again else walked.whole_input
    input_loads = stages * in_tiles if again else walked.spatial
    if outer == 1 or out_tiles * in_tiles == 1:
        weight_bytes = block
        weight_loads = out_tiles
    else:
        weight_bytes = block * walked.spatial
        weight_loads = stages * in_tiles
    skip_loads = stages if shape.add else 0
    # Rows of a tile as wide as the tensor are one run; others are a run each.
    input_runs = shape.in_planes * walked.spatial * (
        1 if walked.in_columns == shape.in_columns else walked.in_rows)
    if again:
        input_runs *= out_tiles
    out_runs = shape.out_planes * walked.spatial * (
        1 if walked.columns == shape.conv_columns else walked.rows >> (1 if shape.pool else 0))
    skip_runs = out_runs if shape.add else 0
    loads = ((input_bytes + skip_bytes) / budget.read_rate
             + (input_loads + skip_loads) * TRANSFER_CYCLES
             + (input_runs + skip_runs) * RUN_CYCLES)
    stores = (stored_bytes / budget.write_rate + stages * TRANSFER_CYCLES
              + out_runs * RUN_CYCLES)
    runs = input_runs + skip_runs + out_runs + OPERATION_RUNS * (
        stages * (in_tiles + 1) + input_loads + skip_loads + weight_loads)
    weights = weight_bytes / budget.weight_rate + weight_loads * TRANSFER_CYCLES
    moved = input_bytes + skip_bytes + weight_bytes + stored_bytes
    return Totals(compute, loads, weights, stores, moved, runs, first, last)


@PLAIN
def _rows_and_columns(shape):
    """(n, 3) each: a tile size of the axis, the most and all real rows (columns) its tiles read."""
    even = 2 if shape.pool else 1
    rows = sizes(shape.conv_rows, even, shape.fixed_rows)
    columns = sizes(shape.conv_columns, even, shape.fixed_columns)
    down, across = np.empty((len(rows), 3), np.int64), np.empty((len(columns), 3), np.int64)
    for index in range(len(rows)):
        down[index, 0] = rows[index]
        down[index, 1], down[index, 2] = loaded(
            shape.conv_rows, rows[index], shape.stride, shape.kernel_rows, shape.padding,
            shape.upsample, shape.in_rows)
    for index in range(len(columns)):
        across[index, 0] = columns[index]
        across[index, 1], across[index, 2] = loaded(
            shape.conv_columns, columns[index], shape.stride, shape.kernel_columns, shape.padding,
            shape.upsample, shape.in_columns)
    return down, across


@PLAIN_RULE
def _walk(shape, budget, down, row, across, column):
    """The spatial tile of a size of rows and one of columns."""
    rows, columns = down[row, 0], across[column, 0]
    column_tiles = -(-shape.conv_columns // columns)
    edge = shape.conv_columns - (column_tiles - 1) * columns
    column_trips = (column_tiles - 1) * -(-columns // shape.unroll) + -(-edge // shape.unroll)
    return Walked(rows, columns, down[row, 1], across[column, 1],
                  shape.in_planes * down[row, 2] * across[column, 2] * budget.position_bytes,
                  -(-shape.conv_rows // rows) * column_tiles,
                  shape.out_words * shape.conv_rows * column_trips * shape.interval,
                  rows * columns // (4 if shape.pool else 1))


@PLAIN_RULE
def _holding(buffer, need):
    """Place of the first size of a buffer that holds so much."""
    place = 0
    while place < len(buffer) and buffer[place] < need:
        place += 1
    return place


@PLAIN_RULE
def _better(best, place, cost, met):
    """Is a tile better than the one at a place, or as good and met before?"""
    known = best.cost[place]
    return known < 0 or cost < known or (cost == known and met < best.met[place])


@PLAIN_RULE
def _note(shape, budget, rooms, walked, blocked, place, best):
    """Keep a tile, with each choice of banks, where it is the best so far; `place`: places of
    INPUT, WEIGHT, OUTPUT and the accumulators, and the tile's number."""
    totals = _totals(shape, budget, walked, blocked)
    for index in range(len(rooms.banks)):
        cost = total(Budget(
            budget.input_words, budget.weight_words, budget.output_words,
            budget.accumulator_words, rooms.banks[index, 0], rooms.banks[index, 1],
            rooms.banks[index, 2], budget.lanes_in, budget.lanes_out,
            budget.position_bytes, budget.read_rate, budget.weight_rate, budget.write_rate,
            budget.memory_rate), totals)
        at = (index, place[0], place[1], place[2], place[3])
        if _better(best, at, cost, place[4]):
            best.cost[at] = cost
            best.met[at] = place[4]
            best.tile[(*at, 0)], best.tile[(*at, 1)] = blocked.out_words, blocked.in_words
            best.tile[(*at, 2)], best.tile[(*at, 3)] = walked.rows, walked.columns
            best.tile[(*at, 4)], best.tile[(*at, 5)] = blocked.resident, blocked.outer


@PLAIN_RULE
def _cut(shape, budget, rooms, walked, cuts, room, met, best):
    """Note every cut of the channels of a spatial tile, for one size of INPUT (`room`); returns
    how many tiles were met."""
    taps = shape.kernel_rows * shape.kernel_columns
    size, positions = rooms.input_words[room], walked.in_rows * walked.in_columns
    if positions > size:
        return met
    # Groups: each output word reads words of its own, all in one operation.
    resident = (not shape.grouped and not shape.no_reuse
                and shape.in_words * positions <= size)
    most_in = shape.most_in_words if resident else min(shape.most_in_words, size // positions)
    for tile_out in cuts.out_words:
        output = _holding(rooms.output_words, tile_out * walked.held)
        if tile_out > shape.most_out_words or output == len(rooms.output_words):
            continue
        # A column of the unroll has its own accumulator memory.
        partial = _holding(rooms.accumulator_words, shape.unroll * (
            tile_out * walked.rows * -(-walked.columns // shape.unroll)))
        for tile_in in cuts.in_words:
            split = tile_in < shape.in_words
            if split and (shape.grouped or partial == len(rooms.accumulator_words)):
                break
            weight = _holding(rooms.weight_words,
                              -(-tile_in * tile_out * taps // shape.weights_a_byte))
            if tile_in > most_in or weight == len(rooms.weight_words):
                continue
            for outer in range(2):
                if outer == 1 and (split or shape.no_reuse or tile_out >= shape.out_words
                                   or walked.spatial == 1):
                    continue
                _note(shape, budget, rooms, walked,
                      Blocked(tile_out, tile_in, int(resident), outer),
                      (room, weight, output, partial if split else 0, met), best)
                met += 1
    return met


@PLAIN_RULE
def _offer(best, at, after):
    """Let a larger buffer take the tile of a smaller one."""
    if _better(best, after, best.cost[at], best.met[at]):
        best.cost[after] = best.cost[at]
        best.met[after] = best.met[at]
        for index in range(best.tile.shape[5]):
            best.tile[(*after, index)] = best.tile[(*at, index)]


@PLAIN_RULE
def _spread(best):
    """Let every size take the best of the smaller ones; INPUT is walked size by size."""
    banks, inputs, weights, outputs, partials = best.cost.shape
    for bank in range(banks):
        for room in range(inputs):
            for weight in range(weights):
                for output in range(outputs):
                    for partial in range(partials):
                        at = (bank, room, weight, output, partial)
                        if best.cost[at] < 0:
                            continue
                        if weight + 1 < weights:
                            _offer(best, at, (bank, room, weight + 1, output, partial))
                        if output + 1 < outputs:
                            _offer(best, at, (bank, room, weight, output + 1, partial))
                        if partial + 1 < partials:
                            _offer(best, at, (bank, room, weight, output, partial + 1))


@CACHED
def search_rooms(shape, budget, rooms):
    """The best tile for each size of the buffers in `rooms`, in whose place those of `budget` do
    not count."""
    extent = (len(rooms.banks), len(rooms.input_words), len(rooms.weight_words),
              len(rooms.output_words), len(rooms.accumulator_words))
    best = Best(np.full(extent, -1.0), np.zeros(extent, np.int64),
                np.zeros((*extent, 6), np.int64))
    cuts = Cuts(sizes(shape.out_words, 1, 0), sizes(shape.in_words, 1, 0))
    down, across = _rows_and_columns(shape)
    most_out, most_in = rooms.output_words[-1], rooms.input_words[-1]
    quarter = 4 if shape.pool else 1
    met = 0
    for column in range(len(across)):
        for row in range(len(down)):
            if (down[row, 0] * across[column, 0] // quarter > most_out
                    or down[row, 1] * across[column, 1] > most_in):
                continue
            walked = _walk(shape, budget, down, row, across, column)
            for room in range(len(rooms.input_words)):
                met = _cut(shape, budget, rooms, walked, cuts, room, met, best)
    _spread(best)
    return best

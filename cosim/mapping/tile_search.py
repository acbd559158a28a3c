"""Parts of the exact searches over the legal tiles of one layer: sizes, and a closed-form cost.

It knows no engine; each has a search of its own (`cosim.engines`), called once for each distinct
shape.

The cost is a pipeline's: the slowest of compute, loads, weights and stores over the whole layer,
plus the first tile's loads and the last tile's store. With one bank instead of two a stage cannot
overlap its neighbour, so their times add. Bytes break ties (`BYTE_CYCLES` each), so that of two
equally fast tilings the one that moves less wins. Only balanced tile sizes ceil(size / n) are
tried: any other size has as many tiles and larger buffers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import PLAIN
from cosim.mapping.words import span

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


@PLAIN
def sizes(length, step, asked):
    """Tile sizes of a length, largest first, multiples of `step`: balanced ones, or where `asked`
    is not 0 that one alone."""
    found = np.empty(2 * length + 2, np.int64)
    if asked:
        found[0] = max(step, min(length, asked) // step * step)
        return found[:1]
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
    return found[:count]


@PLAIN
def loaded(length, size, stride, taps, padding, upsample, limit):
    """Largest and total number of real rows that the tiles of an axis read."""
    most, total = 0, 0
    for start in range(0, length, size):
        count = span(start, min(size, length - start), stride, taps, padding, upsample, limit)[1]
        most = max(most, count)
        total += count
    return most, total


class Totals(NamedTuple):
    """Cycles of a layer's computation and transfers, and what is moved and how.

    `first`, `last`: of the first tile's loads and the last one's store; `moved`: bytes; `runs` of
    rows.
    """

    compute: float
    loads: float
    weights: float
    stores: float
    moved: float
    runs: float
    first: float
    last: float


@PLAIN
def total(budget, totals):
    """Closed-form cost of a layer in cycles, with tie-breakers."""
    serial = totals.compute
    if budget.input_banks == 1:
        serial += totals.loads
    if budget.weight_banks == 1:
        serial += totals.weights
    if budget.output_banks == 1:
        serial += totals.stores
    body = max(max(serial, totals.loads), max(totals.weights, totals.stores))
    body = max(body, totals.moved / budget.memory_rate)
    return (body + totals.first + totals.last + totals.moved * BYTE_CYCLES
            + totals.runs * RUN_TIE)

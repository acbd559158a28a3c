"""Parts of the row kernels: one transfer, one computation, one DRAM pattern, shared masks.

They know no layer; each engine's kernel puts them together. None is kept on disk: its callers
carry this file in their cache keys (`cosim.compiled`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import PLAIN
from cosim.program.table import FLAG_FIRST, Buffer, Column, Opcode

UNIT, KIND, LAYER, FLAGS = (int(Column.UNIT), int(Column.KIND), int(Column.LAYER),
                            int(Column.FLAGS))
WAIT, SIGNAL = int(Column.WAIT), int(Column.SIGNAL)
ADDRESS, ROW_BYTES, ROWS, ROW_STRIDE = (int(Column.ADDRESS), int(Column.ROW_BYTES),
                                        int(Column.ROWS), int(Column.ROW_STRIDE))
PLANES, PLANE_STRIDE = int(Column.PLANES), int(Column.PLANE_STRIDE)
FILL, INTERVAL, TRIPS, DRAIN, MACS = (int(Column.FILL), int(Column.INTERVAL), int(Column.TRIPS),
                                      int(Column.DRAIN), int(Column.MACS))
LOAD, STORE = int(Opcode.LOAD), int(Opcode.STORE)
INPUT, WEIGHT, OUTPUT = int(Buffer.INPUT), int(Buffer.WEIGHT), int(Buffer.OUTPUT)

#: Columns of the wire tables. Inputs: unit, bit masks of the channels to and from the engine.
IN_UNIT, IN_FILLED, IN_FREE = 0, 1, 2
OUT_UNIT, OUT_FILLED, OUT_FREE, OUT_SKIP_FREE = 0, 1, 2, 3

#: How the masters of one role share a tile.
BY_ONE, BY_WORDS, BY_POSITIONS = 0, 1, 2



class Table(NamedTuple):
    """The rows of a program being written, and what later rows must know of them.

    `operations`, `arguments`: as in `Program`. `first`, `last`: rows of each unit in this layer,
    -1 if it has none. `blocks`: blocks of weights that each engine (by unit) was given in this
    segment.
    """

    operations: np.ndarray
    arguments: np.ndarray
    first: np.ndarray
    last: np.ndarray
    blocks: np.ndarray


class Area(NamedTuple):
    """A tensor in DRAM: planes of rows x columns positions of `position_bytes`.

    `apart`: is each row of a tile a run of its own, even if it is as wide as the tensor?
    `more_rows`, `more_columns`: that lie beside those of the tensor and come with each tile.
    """

    address: int
    planes: int
    rows: int
    columns: int
    position_bytes: int
    apart: int = 0
    more_rows: int = 0
    more_columns: int = 0


class Box(NamedTuple):
    """A part of an area: planes, rows and columns from the first of each on."""

    plane: int
    planes: int
    top: int
    rows: int
    left: int
    columns: int


class Turn(NamedTuple):
    """Who does an operation, for which layer, and its tokens."""

    layer: int
    unit: int
    wait: int
    signal: int


class Common(NamedTuple):
    """What every operation of a layer shares."""

    layer: int
    engine: int
    lanes_in: int
    lanes_out: int
    input_words: int
    input_banks: int
    output_words: int
    output_banks: int
    input_share: int
    output_share: int


class Wires(NamedTuple):
    """An engine's unit, and its channels as masks: `inputs` (masters, 3), `outputs` (masters, 4),
    columns above; those to and from the weight master, 0 if there are none."""

    unit: int
    inputs: np.ndarray
    outputs: np.ndarray
    weight_unit: int
    weight_filled: int
    weight_free: int
    skip_filled: int


@PLAIN
def open_row(table, row, turn, kind):
    """Who runs the row, for which layer, and what it waits for and signals."""
    ops, args = table.operations, table.arguments
    for column in range(ops.shape[1]):
        ops[row, column] = 0
    for column in range(args.shape[1]):
        args[row, column] = 0
    ops[row, UNIT] = turn.unit
    ops[row, KIND] = kind
    ops[row, LAYER] = turn.layer
    ops[row, WAIT] = turn.wait
    ops[row, SIGNAL] = turn.signal
    if table.first[turn.unit] < 0:
        table.first[turn.unit] = row
        ops[row, FLAGS] = FLAG_FIRST
    table.last[turn.unit] = row


@PLAIN
def dram_pattern(table, row, area, box):
    """The planes and runs of a tile of a tensor."""
    ops = table.operations
    rows, columns = box.rows + area.more_rows, box.columns + area.more_columns
    pitch = (area.columns + area.more_columns) * area.position_bytes
    plane = (area.rows + area.more_rows) * pitch
    ops[row, ADDRESS] = (area.address + box.plane * plane + box.top * pitch
                         + box.left * area.position_bytes)
    ops[row, PLANES] = box.planes
    ops[row, PLANE_STRIDE] = plane
    if box.columns == area.columns and not area.apart:
        # Rows that touch are one run: the bursts are as long as they can be.
        ops[row, ROW_BYTES] = rows * pitch
        ops[row, ROWS] = 1
        ops[row, ROW_STRIDE] = rows * pitch
    else:
        ops[row, ROW_BYTES] = columns * area.position_bytes
        ops[row, ROWS] = rows
        ops[row, ROW_STRIDE] = pitch


@PLAIN
def tile_load(table, row, turn, buffer, base, positions, area, box):
    """One master loads a tile; returns the next row."""
    open_row(table, row, turn, LOAD)
    dram_pattern(table, row, area, box)
    args = table.arguments
    args[row, 0] = buffer
    args[row, 1] = base
    args[row, 2] = positions
    return row + 1


@PLAIN
def shared_load(table, row, common, ins, base, area, box):
    """Load a tile into INPUT, by one master or split between all; returns the next row."""
    share = common.input_share
    count = ins.shape[0] if share != BY_ONE else 1
    positions = box.rows * box.columns
    words = -(-box.planes // common.lanes_in)
    for index in range(count):
        turn = Turn(common.layer, ins[index, IN_UNIT], ins[index, IN_FREE], ins[index, IN_FILLED])
        if share == BY_WORDS:
            begin, end = words * index // count, words * (index + 1) // count
            low, high = begin * common.lanes_in, min(box.planes, end * common.lanes_in)
            row = tile_load(table, row, turn, INPUT, base + begin * positions, positions, area,
                            Box(box.plane + low, high - low, box.top, box.rows, box.left,
                                box.columns))
        else:
            begin, end = box.rows * index // count, box.rows * (index + 1) // count
            row = tile_load(table, row, turn, INPUT, base + begin * box.columns, positions, area,
                            Box(box.plane, box.planes, box.top + begin, end - begin, box.left,
                                box.columns))
    return row


@PLAIN
def tile_store(table, row, common, outs, add, base, area, box):
    """The write masters store a tile of OUTPUT; returns the next row."""
    share = common.output_share
    count = outs.shape[0] if share != BY_ONE else 1
    positions = box.rows * box.columns
    words = -(-box.planes // common.lanes_out)
    for index in range(count):
        signal = outs[index, OUT_FREE] | (outs[index, OUT_SKIP_FREE] if add else 0)
        low, high, begin, end = 0, box.planes, 0, box.rows
        offset = 0
        if share == BY_WORDS:
            offset = words * index // count
            low = offset * common.lanes_out
            high = min(box.planes, words * (index + 1) // count * common.lanes_out)
            offset *= positions
        elif share == BY_POSITIONS:
            begin, end = box.rows * index // count, box.rows * (index + 1) // count
            offset = begin * box.columns
        open_row(table, row, Turn(common.layer, outs[index, OUT_UNIT], outs[index, OUT_FILLED],
                                  signal), STORE)
        dram_pattern(table, row, area, Box(box.plane + low, high - low, box.top + begin,
                                           end - begin, box.left, box.columns))
        table.arguments[row, 0] = base + offset
        table.arguments[row, 1] = positions
        row += 1
    return row


@PLAIN
def channel_mask(wires, column, share):
    """The channels of the masters that take part."""
    if share == BY_ONE:
        return wires[0, column]
    found = 0
    for index in range(wires.shape[0]):
        found |= wires[index, column]
    return found


@PLAIN
def compute_row(table, row, common, kind, wait, signal, macs):
    """One operation of an engine; its times come from the engine's model afterwards."""
    open_row(table, row, Turn(common.layer, common.engine, wait, signal), kind)
    table.operations[row, MACS] = macs


@PLAIN
def block_load(table, row, turn, buffer, base, address, size):
    """Consecutive bytes into a buffer; returns the next row."""
    open_row(table, row, turn, LOAD)
    ops = table.operations
    ops[row, ADDRESS] = address
    ops[row, ROW_BYTES] = size
    ops[row, ROWS] = 1
    ops[row, ROW_STRIDE] = size
    ops[row, PLANES] = 1
    ops[row, PLANE_STRIDE] = size
    table.arguments[row, 0] = buffer
    table.arguments[row, 1] = base
    table.arguments[row, 2] = 0
    return row + 1

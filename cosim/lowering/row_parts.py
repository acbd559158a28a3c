"""Parts of the row kernels: one transfer, one computation, one DRAM pattern, shared masks.

They know no layer; `kernels` puts them together. None is cached: numba does not see a change of a
function in another file, so its callers carry this one in their cache keys (`cosim.compiled`).
"""

from __future__ import annotations

from cosim.compiled import PLAIN
from cosim.program.table import FLAG_FIRST, Buffer, Column, Opcode, WeightOrder

UNIT, KIND, LAYER, FLAGS = (int(Column.UNIT), int(Column.KIND), int(Column.LAYER),
                            int(Column.FLAGS))
WAIT, SIGNAL = int(Column.WAIT), int(Column.SIGNAL)
ADDRESS, ROW_BYTES, ROWS, ROW_STRIDE = (int(Column.ADDRESS), int(Column.ROW_BYTES),
                                        int(Column.ROWS), int(Column.ROW_STRIDE))
PLANES, PLANE_STRIDE = int(Column.PLANES), int(Column.PLANE_STRIDE)
FILL, INTERVAL, TRIPS, DRAIN, MACS = (int(Column.FILL), int(Column.INTERVAL), int(Column.TRIPS),
                                      int(Column.DRAIN), int(Column.MACS))
LOAD, STORE, CONVOLUTION = int(Opcode.LOAD), int(Opcode.STORE), int(Opcode.CONVOLUTION)
ADD, MULTIPLY, AFFINE = int(Opcode.ADD), int(Opcode.MULTIPLY), int(Opcode.AFFINE)
FLOW_SUM, LOOKUP, SOFTMAX = int(Opcode.FLOW_SUM), int(Opcode.LOOKUP), int(Opcode.SOFTMAX)
AVERAGE_POOL, MAX_POOL = int(Opcode.AVERAGE_POOL), int(Opcode.MAX_POOL)
UPSAMPLE, GRID_SAMPLE = int(Opcode.UPSAMPLE), int(Opcode.GRID_SAMPLE)
INPUT, WEIGHT, OUTPUT = int(Buffer.INPUT), int(Buffer.WEIGHT), int(Buffer.OUTPUT)
CONVOLUTION_PARAMETERS = int(Buffer.CONVOLUTION_PARAMETERS)
NORM_PARAMETERS = int(Buffer.NORM_PARAMETERS)
GROUP_SUMS, GROUP_NORM = int(Opcode.GROUP_SUMS), int(Opcode.GROUP_NORM)
STORED, BY_ROWS = int(WeightOrder.STORED), int(WeightOrder.ROWS)

#: Columns of the wire tables. Inputs: unit, bit masks of the channels to and from the engine.
IN_UNIT, IN_FILLED, IN_FREE = 0, 1, 2
OUT_UNIT, OUT_FILLED, OUT_FREE, OUT_SKIP_FREE = 0, 1, 2, 3

#: How the masters of one role share a tile.
BY_ONE, BY_WORDS, BY_POSITIONS = 0, 1, 2


@PLAIN
def open_row(ops, args, row, layer, unit, kind, wait, signal, first, last):
    """Who runs the row, for which layer, and what it waits for and signals."""
    for column in range(ops.shape[1]):
        ops[row, column] = 0
    for column in range(args.shape[1]):
        args[row, column] = 0
    ops[row, UNIT] = unit
    ops[row, KIND] = kind
    ops[row, LAYER] = layer
    ops[row, WAIT] = wait
    ops[row, SIGNAL] = signal
    if first[unit] < 0:
        first[unit] = row
        ops[row, FLAGS] = FLAG_FIRST
    last[unit] = row


@PLAIN
def dram_pattern(ops, row, area, plane, planes, top, rows, left, columns):
    """The planes and runs of a tile of a tensor."""
    pitch = area.columns * area.position_bytes
    ops[row, ADDRESS] = (area.address + plane * area.rows * pitch + top * pitch
                         + left * area.position_bytes)
    ops[row, PLANES] = planes
    ops[row, PLANE_STRIDE] = area.rows * pitch
    if columns == area.columns:
        # Rows that touch are one run: the bursts are as long as they can be.
        ops[row, ROW_BYTES] = rows * pitch
        ops[row, ROWS] = 1
        ops[row, ROW_STRIDE] = rows * pitch
    else:
        ops[row, ROW_BYTES] = columns * area.position_bytes
        ops[row, ROWS] = rows
        ops[row, ROW_STRIDE] = pitch


@PLAIN
def tile_load(ops, args, row, layer, unit, wait, signal, buffer, base, positions, area, plane,
          planes, top, rows, left, columns, first, last):
    """One master loads a tile; returns the next row."""
    open_row(ops, args, row, layer, unit, LOAD, wait, signal, first, last)
    dram_pattern(ops, row, area, plane, planes, top, rows, left, columns)
    args[row, 0] = buffer
    args[row, 1] = base
    args[row, 2] = positions
    return row + 1


@PLAIN
def shared_load(ops, args, row, common, ins, waits, signals, base, area, plane, planes, top,
                 rows, left, columns, first, last):
    """Load a tile into INPUT, by one master or split between all; masks by wait/signal flags."""
    share = common.input_share
    count = ins.shape[0] if share != BY_ONE else 1
    positions = rows * columns
    words = -(-planes // common.lanes_in)
    for index in range(count):
        wait = ins[index, IN_FREE] if waits else 0
        signal = ins[index, IN_FILLED] if signals else 0
        unit = ins[index, IN_UNIT]
        if share == BY_WORDS:
            begin, end = words * index // count, words * (index + 1) // count
            low, high = begin * common.lanes_in, min(planes, end * common.lanes_in)
            row = tile_load(ops, args, row, common.layer, unit, wait, signal, INPUT, base + begin *
                            positions, positions, area, plane + low, high - low, top, rows, left,
                            columns, first, last)
        else:
            begin, end = rows * index // count, rows * (index + 1) // count
            row = tile_load(ops, args, row, common.layer, unit, wait, signal, INPUT, base + begin *
                            columns, positions, area, plane, planes, top + begin, end - begin, left,
                            columns, first, last)
    return row


@PLAIN
def tile_store(ops, args, row, common, outs, add, base, area, plane, planes, top, rows, left,
           columns, first, last):
    """The write masters store a tile of OUTPUT; returns the next row."""
    share = common.output_share
    count = outs.shape[0] if share != BY_ONE else 1
    positions = rows * columns
    words = -(-planes // common.lanes_out)
    for index in range(count):
        signal = outs[index, OUT_FREE] | (outs[index, OUT_SKIP_FREE] if add else 0)
        low, high, begin, end = 0, planes, 0, rows
        offset = 0
        if share == BY_WORDS:
            offset = words * index // count
            low = offset * common.lanes_out
            high = min(planes, words * (index + 1) // count * common.lanes_out)
            offset *= positions
        elif share == BY_POSITIONS:
            begin, end = rows * index // count, rows * (index + 1) // count
            offset = begin * columns
        open_row(ops, args, row, common.layer, outs[index, OUT_UNIT], STORE,
                 outs[index, OUT_FILLED], signal, first, last)
        dram_pattern(ops, row, area, plane + low, high - low, top + begin, end - begin, left,
                     columns)
        args[row, 0] = base + offset
        args[row, 1] = positions
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
def compute_row(ops, args, row, common, kind, wait, signal, interval, trips, macs, first, last):
    """One operation of an engine."""
    open_row(ops, args, row, common.layer, common.engine, kind, wait, signal, first, last)
    ops[row, FILL] = common.fill
    ops[row, INTERVAL] = interval
    ops[row, TRIPS] = trips
    ops[row, DRAIN] = common.drain
    ops[row, MACS] = macs


@PLAIN
def block_load(ops, args, row, layer, unit, wait, signal, buffer, base, address, size, first,
                last):
    """Consecutive bytes into a buffer; returns the next row."""
    open_row(ops, args, row, layer, unit, LOAD, wait, signal, first, last)
    ops[row, ADDRESS] = address
    ops[row, ROW_BYTES] = size
    ops[row, ROWS] = 1
    ops[row, ROW_STRIDE] = size
    ops[row, PLANES] = 1
    ops[row, PLANE_STRIDE] = size
    args[row, 0] = buffer
    args[row, 1] = base
    args[row, 2] = 0
    return row + 1


@PLAIN
def operand_load(ops, args, row, layer, unit, wait, signal, base, plan, lanes_in, tn, out_word,
                 out_words, word, words, first, last):
    """Blocks of weights from an activation: a range of its planes and of its positions."""
    out_low = out_word * plan.tm
    in_low = word * tn
    if plan.order == BY_ROWS:
        plane, planes = word * lanes_in, words * lanes_in
        begin, positions = out_low, out_words * plan.tm
    else:
        plane, planes = out_low // 8, out_words * plan.tm // 8
        begin, positions = in_low, words * tn
    planes = min(planes, plan.operand_planes - plane)
    positions = min(positions, plan.operand_positions - begin)
    open_row(ops, args, row, layer, unit, LOAD, wait, signal, first, last)
    ops[row, ADDRESS] = plan.weight_address + (plane * plan.operand_positions + begin) * 8
    ops[row, ROW_BYTES] = positions * 8
    ops[row, ROWS] = 1
    ops[row, ROW_STRIDE] = positions * 8
    ops[row, PLANES] = planes
    ops[row, PLANE_STRIDE] = plan.operand_positions * 8
    args[row, 0] = WEIGHT
    args[row, 1] = base
    args[row, 2] = words
    args[row, 3] = plan.order
    return row + 1


@PLAIN
def outs_skip_mask(outs, share):
    """Tokens that say a bank of OUTPUT may take a skip tile."""
    return channel_mask(outs, OUT_SKIP_FREE, share)

"""Numba kernels that write the rows of one layer into the tables of a program.

They choose nothing: tiles come from `mapping`, addresses from `placement`, tokens from `lower`.
Every function here is compiled; the search over tiles lives in `tile_search`.
"""

from __future__ import annotations

import numba
import numpy as np

from .program import FLAG_FIRST, Buffer, Column, Opcode

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

#: Columns of the wire tables. Inputs: unit, bit masks of the channels to and from the engine.
IN_UNIT, IN_FILLED, IN_FREE = 0, 1, 2
OUT_UNIT, OUT_FILLED, OUT_FREE, OUT_SKIP_FREE = 0, 1, 2, 3

#: How the masters of one role share a tile.
BY_ONE, BY_WORDS, BY_POSITIONS = 0, 1, 2


@numba.njit(cache=True)
def _begin(ops, row, common_layer, unit, kind, wait, signal, first, last):
    ops[row, UNIT] = unit
    ops[row, KIND] = kind
    ops[row, LAYER] = common_layer
    ops[row, WAIT] = wait
    ops[row, SIGNAL] = signal
    if first[unit] < 0:
        first[unit] = row
        ops[row, FLAGS] = FLAG_FIRST
    last[unit] = row


@numba.njit(cache=True)
def _pattern(ops, row, area, plane, planes, top, rows, left, columns):
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


@numba.njit(cache=True)
def _load(ops, args, row, layer, unit, wait, signal, buffer, base, positions, area, plane,
          planes, top, rows, left, columns, first, last):
    _begin(ops, row, layer, unit, LOAD, wait, signal, first, last)
    _pattern(ops, row, area, plane, planes, top, rows, left, columns)
    args[row, 0] = buffer
    args[row, 1] = base
    args[row, 2] = positions
    return row + 1


@numba.njit(cache=True)
def _shared_load(ops, args, row, common, ins, waits, signals, base, area, plane, planes, top,
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
            row = _load(ops, args, row, common.layer, unit, wait, signal, INPUT,
                        base + begin * positions, positions, area, plane + low, high - low,
                        top, rows, left, columns, first, last)
        else:
            begin, end = rows * index // count, rows * (index + 1) // count
            row = _load(ops, args, row, common.layer, unit, wait, signal, INPUT,
                        base + begin * columns, positions, area, plane, planes, top + begin,
                        end - begin, left, columns, first, last)
    return row


@numba.njit(cache=True)
def _store(ops, args, row, common, outs, add, base, area, plane, planes, top, rows, left,
           columns, first, last):
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
        _begin(ops, row, common.layer, outs[index, OUT_UNIT], STORE, outs[index, OUT_FILLED],
               signal, first, last)
        _pattern(ops, row, area, plane + low, high - low, top + begin, end - begin, left, columns)
        args[row, 0] = base + offset
        args[row, 1] = positions
        row += 1
    return row


@numba.njit(cache=True)
def _mask(wires, column, share):
    if share == BY_ONE:
        return wires[0, column]
    found = 0
    for index in range(wires.shape[0]):
        found |= wires[index, column]
    return found


@numba.njit(cache=True)
def _compute(ops, row, common, kind, wait, signal, interval, trips, macs, first, last):
    _begin(ops, row, common.layer, common.engine, kind, wait, signal, first, last)
    ops[row, FILL] = common.fill
    ops[row, INTERVAL] = interval
    ops[row, TRIPS] = trips
    ops[row, DRAIN] = common.drain
    ops[row, MACS] = macs


@numba.njit(cache=True)
def _bytes_load(ops, args, row, layer, unit, wait, signal, buffer, base, address, size, first,
                last):
    _begin(ops, row, layer, unit, LOAD, wait, signal, first, last)
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


@numba.njit(cache=True)
def span(start, count, stride, taps, padding, upsample, limit):
    """First real row and number of real rows that output rows [start, start + count) read."""
    low = start * stride - padding
    high = (start + count - 1) * stride - padding + taps - 1
    low_real = max(0, low) >> upsample
    high_real = min((limit << upsample) - 1, high) >> upsample
    return low_real, high_real - low_real + 1


@numba.njit(cache=True)
def convolution_rows(ops, args, row, common, plan, source, target, skip, ins, outs, cumulative,
                     first, last):
    """Write one convolution; return (next row, next weight bank).

    `cumulative`: real channels before each input plane, for counting useful products.
    """
    taps = plan.kernel_rows * plan.kernel_columns
    row_tiles = -(-plan.conv_rows // plan.tile_rows)
    column_tiles = -(-plan.conv_columns // plan.tile_columns)
    spatial = row_tiles * column_tiles
    out_tiles = -(-plan.out_words // plan.tile_out_words)
    in_tiles = -(-plan.in_words // plan.tile_in_words)
    loaded_once = out_tiles * in_tiles == 1
    weights_outer = plan.weights_outer == 1
    in_filled = _mask(ins, IN_FILLED, common.input_share)
    in_free = _mask(ins, IN_FREE, common.input_share)
    out_filled = _mask(outs, OUT_FILLED, common.output_share)
    out_free = _mask(outs, OUT_FREE, common.output_share)
    halve = 1 if plan.pool else 0
    input_count, stage, weight_bank = 0, 0, plan.weight_bank
    in_base = 0
    weight_base = 0
    weight_wait = plan.weight_free
    if plan.parameter_bytes:
        row = _bytes_load(ops, args, row, common.layer, plan.weight_unit, plan.weight_free, 0,
                          CONVOLUTION_PARAMETERS, plan.parameter_base,
                          plan.parameter_address, plan.parameter_bytes, first, last)
        # The token taken here is that of the first weight block.
        weight_wait = 0
    for outer in range(out_tiles if weights_outer else spatial):
        for inner in range(spatial if weights_outer else out_tiles):
            out_tile = outer if weights_outer else inner
            place = inner if weights_outer else outer
            top = place // column_tiles * plan.tile_rows
            left = place % column_tiles * plan.tile_columns
            rows = min(plan.tile_rows, plan.conv_rows - top)
            columns = min(plan.tile_columns, plan.conv_columns - left)
            in_top, in_rows = span(top, rows, plan.stride, plan.kernel_rows, plan.padding,
                                   plan.upsample, source.rows)
            in_left, in_columns = span(left, columns, plan.stride, plan.kernel_columns,
                                       plan.padding, plan.upsample, source.columns)
            out_word = out_tile * plan.tile_out_words
            out_words = min(plan.tile_out_words, plan.out_words - out_word)
            plane = out_word * common.lanes_out
            out_planes = min(target.planes, (out_word + out_words) * common.lanes_out) - plane
            out_base = stage % common.output_banks * common.output_words
            if plan.add:
                row = _load(ops, args, row, common.layer, ins[0, IN_UNIT],
                            outs_skip_mask(outs, common.output_share), plan.skip_filled, OUTPUT,
                            out_base, rows * columns, skip, plane, out_planes, top, rows, left,
                            columns, first, last)
            for in_tile in range(in_tiles):
                word = in_tile * plan.tile_in_words
                words = min(plan.tile_in_words, plan.in_words - word)
                if plan.resident:
                    first_use = in_tile == 0 and (weights_outer or inner == 0)
                    last_use = in_tile == in_tiles - 1 and (weights_outer
                                                            or inner == out_tiles - 1)
                    load_word, load_words = 0, plan.in_words
                else:
                    first_use = last_use = True
                    load_word, load_words = word, words
                if first_use:
                    in_base = input_count % common.input_banks * common.input_words
                    input_count += 1
                    low = load_word * common.lanes_in
                    high = min(source.planes, (load_word + load_words) * common.lanes_in)
                    row = _shared_load(ops, args, row, common, ins, True, True, in_base, source,
                                       low, high - low, in_top, in_rows, in_left, in_columns,
                                       first, last)
                new_weights = not loaded_once or place == 0
                if weights_outer:
                    new_weights = inner == 0
                if new_weights:
                    weight_base = weight_bank * plan.weight_words
                    weight_bank = (weight_bank + 1) % plan.weight_banks
                    offset = (out_word * plan.in_words + out_words * word) * taps
                    row = _bytes_load(
                        ops, args, row, common.layer, plan.weight_unit, weight_wait,
                        plan.weight_filled, WEIGHT, weight_base,
                        plan.weight_address + offset * plan.weight_word_bytes,
                        out_words * words * taps * plan.weight_word_bytes, first, last)
                    weight_wait = plan.weight_free
                kept = inner < spatial - 1 if weights_outer else (loaded_once
                                                                  and place < spatial - 1)
                first_part, last_part = in_tile == 0, in_tile == in_tiles - 1
                wait = plan.weight_filled if new_weights else 0
                signal = 0 if kept else plan.weight_free
                if first_use:
                    wait |= in_filled
                if last_use:
                    signal |= in_free
                if first_part:
                    wait |= out_free
                if last_part:
                    signal |= out_filled
                    if plan.add:
                        wait |= plan.skip_filled
                trips = out_words * -(-columns // plan.unroll) * rows * words * taps
                real_out = min(plan.out_channels, (out_word + out_words) * plan.tm)
                real_out -= out_word * plan.tm
                real_in = (cumulative[min(source.planes, (word + words) * common.lanes_in)]
                           - cumulative[word * common.lanes_in])
                _compute(ops, row, common, CONVOLUTION, wait, signal, common.interval, trips,
                         real_out * rows * columns * real_in * taps, first, last)
                line = args[row]
                line[0] = in_base + (word * in_rows * in_columns if plan.resident else 0)
                line[1], line[2], line[3] = in_rows, in_columns, words
                line[4] = weight_base
                line[5] = plan.parameter_base + out_word * plan.tm
                line[6] = out_base
                line[7], line[8], line[9] = rows, columns, out_words
                line[10], line[11] = plan.kernel_rows, plan.kernel_columns
                line[12] = plan.stride
                line[13] = (in_top << plan.upsample) - (top * plan.stride - plan.padding)
                line[14] = (in_left << plan.upsample) - (left * plan.stride - plan.padding)
                line[15] = plan.upsample
                line[16], line[17] = first_part, last_part
                line[18], line[19], line[20] = plan.relu, plan.pool, plan.add
                line[21], line[22], line[23] = plan.add_new, plan.add_skip, plan.add_shift
                row += 1
            row = _store(ops, args, row, common, outs, plan.add, out_base, target, plane,
                         out_planes, top >> halve, rows >> halve, left >> halve,
                         columns >> halve, first, last)
            stage += 1
    return row, weight_bank


@numba.njit(cache=True)
def outs_skip_mask(outs, share):
    """Tokens that say a bank of OUTPUT may take a skip tile."""
    return _mask(outs, OUT_SKIP_FREE, share)


@numba.njit(cache=True)
def stream_rows(ops, args, row, common, plan, source, other, target, ins, outs, first, last):
    """Write one streaming layer (all but convolution and grid sampling); return the next row."""
    in_filled = _mask(ins, IN_FILLED, common.input_share)
    in_free = _mask(ins, IN_FREE, common.input_share)
    out_filled = _mask(outs, OUT_FILLED, common.output_share)
    out_free = _mask(outs, OUT_FREE, common.output_share)
    two_masters = plan.operands == 2 and ins.shape[0] > 1
    if two_masters:
        in_filled = ins[0, IN_FILLED] | ins[1, IN_FILLED]
        in_free = ins[0, IN_FREE] | ins[1, IN_FREE]
    plane_tiles = -(-plan.planes // plan.tile_planes)
    unit_tiles = -(-plan.units // plan.tile_units)
    if plan.parameter_bytes:
        row = _bytes_load(ops, args, row, common.layer, plan.parameter_unit,
                          plan.parameter_free, plan.parameter_filled, plan.parameter_buffer,
                          plan.parameter_base, plan.parameter_address, plan.parameter_bytes,
                          first, last)
    stages = plane_tiles * unit_tiles
    for stage in range(stages):
        plane = stage // unit_tiles * plan.tile_planes
        unit = stage % unit_tiles * plan.tile_units
        planes = min(plan.tile_planes, plan.planes - plane)
        units = min(plan.tile_units, plan.units - unit)
        in_positions, out_positions = units * plan.unit_in, units * plan.unit_out
        in_base = stage % common.input_banks * common.input_words
        out_base = stage % common.output_banks * common.output_words
        other_base = in_base + -(-planes // common.lanes_in) * in_positions
        begin = unit * plan.unit_in
        if plan.operands == 1:
            row = _shared_load(ops, args, row, common, ins, True, True, in_base, source, plane,
                               planes, begin, in_positions, 0, 1, first, last)
        else:
            second = 1 if two_masters else 0
            row = _load(ops, args, row, common.layer, ins[0, IN_UNIT], ins[0, IN_FREE],
                        ins[0, IN_FILLED] if two_masters else 0, INPUT, in_base, in_positions,
                        source, plane, planes, begin, in_positions, 0, 1, first, last)
            row = _load(ops, args, row, common.layer, ins[second, IN_UNIT],
                        ins[1, IN_FREE] if two_masters else 0, ins[second, IN_FILLED], INPUT,
                        other_base, in_positions, other, 0 if plan.broadcast else plane,
                        1 if plan.broadcast else planes, begin, in_positions, 0, 1, first, last)
        wait, signal = in_filled | out_free, in_free | out_filled
        if plan.parameter_bytes and stage == 0:
            wait |= plan.parameter_filled
        if plan.parameter_bytes and stage == stages - 1:
            signal |= plan.parameter_free
        trips = out_positions if plan.by_position else out_positions * planes
        _compute(ops, row, common, plan.opcode, wait, signal, common.interval, trips, 0, first,
                 last)
        _stream_arguments(args[row], plan, in_base, other_base, out_base, in_positions,
                          planes, plane, unit, units)
        row += 1
        out_plane, out_planes = plane, planes
        if plan.opcode == FLOW_SUM:
            out_plane, out_planes = 0, 1
        row = _store(ops, args, row, common, outs, 0, out_base, target, out_plane, out_planes,
                     unit * plan.unit_out, out_positions, 0, 1, first, last)
    return row


@numba.njit(cache=True)
def _stream_arguments(line, plan, in_base, other_base, out_base, positions, planes, plane, unit,
                      units):
    line[0] = in_base
    if plan.opcode in (ADD, MULTIPLY):
        line[1], line[2], line[3], line[4] = other_base, out_base, positions, planes
        line[5], line[6], line[7] = plan.first, plan.second, plan.third
    elif plan.opcode == AFFINE:
        line[1], line[2], line[3] = out_base, positions, planes
        line[4], line[5] = plan.parameter_base + plane * 8, plan.first
    elif plan.opcode == LOOKUP:
        line[1], line[2], line[3], line[4] = out_base, positions, planes, plan.parameter_base
    elif plan.opcode == SOFTMAX:
        line[1], line[2], line[3] = out_base, positions, plan.channels
        line[4] = plan.parameter_base
    elif plan.opcode == FLOW_SUM:
        line[1], line[2], line[3], line[4] = out_base, plan.out_columns, positions, plan.channels
        line[5], line[6], line[7] = plan.parameter_base, unit, plan.first
    else:
        line[1], line[2], line[3] = units * plan.in_rows_per_unit, plan.in_columns, planes
        line[4] = out_base
        if plan.opcode != UPSAMPLE:
            line[5], line[6], line[7] = plan.first, plan.second, plan.third


@numba.njit(cache=True)
def grid_rows(ops, args, row, common, plan, source, grid, target, ins, outs, first, last):
    """Write one grid sampling; return the next row. `source` and `grid` share an INPUT bank.

    `source.columns` and `source.rows` are the image's; grids are read as lists of positions.
    """
    image = source.rows * source.columns
    out_filled = _mask(outs, OUT_FILLED, common.output_share)
    out_free = _mask(outs, OUT_FREE, common.output_share)
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
                row = _load(ops, args, row, common.layer, ins[0, IN_UNIT], ins[0, IN_FREE], 0,
                            INPUT, base, image, source, plane, planes, 0, source.rows, 0,
                            source.columns, first, last)
                for index in range(grids):
                    done = ins[0, IN_FILLED] if index == grids - 1 else 0
                    row = _load(ops, args, row, common.layer, ins[0, IN_UNIT], 0, done, INPUT,
                                base + words + index * size, size, grid, grid_first + index, 1,
                                begin, size, 0, 1, first, last)
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
                        interval = plan.interval_base + plan.interval_per_plane * planes
                        _compute(ops, row, common, GRID_SAMPLE, wait, signal, interval, part, 0,
                                 first, last)
                        line = args[row]
                        line[0], line[1], line[2] = base, source.rows, source.columns
                        line[3] = planes
                        line[4] = base + words + index * size + offset
                        line[5], line[6], line[7] = part, out_base, plan.fraction_bits
                        row += 1
                        row = _store(ops, args, row, common, outs, 0, out_base, target,
                                     (grid_first + index) * source.planes + plane, planes,
                                     begin + offset, part, 0, 1, first, last)
    return row


def tables(count: int, arguments: int) -> tuple[np.ndarray, np.ndarray]:
    """Zeroed operation and argument tables."""
    return (np.zeros((count, len(Column)), np.int64), np.zeros((count, arguments), np.int32))

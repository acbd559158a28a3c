"""Numba kernels that write the rows of one layer into the tables of a program.

They choose nothing: tiles come from `mapping`, addresses from `placement`, tokens from `lower`.
The arguments are the plans of `plans`; the search over tiles lives in `tile_search`.
"""

from __future__ import annotations

import numpy as np

from cosim.compiled import CACHED, PLAIN, sources
from cosim.lowering import row_parts
from cosim.lowering.row_parts import (
    ADD,
    AFFINE,
    CONVOLUTION,
    CONVOLUTION_PARAMETERS,
    DRAIN,
    FILL,
    FLOW_SUM,
    GRID_SAMPLE,
    GROUP_NORM,
    GROUP_SUMS,
    IN_FILLED,
    IN_FREE,
    IN_UNIT,
    INPUT,
    LOOKUP,
    MULTIPLY,
    NORM_PARAMETERS,
    OUT_FILLED,
    OUT_FREE,
    OUTPUT,
    SOFTMAX,
    STORED,
    UPSAMPLE,
    WEIGHT,
    block_load,
    channel_mask,
    compute_row,
    operand_load,
    outs_skip_mask,
    shared_load,
    tile_load,
    tile_store,
)
from cosim.mapping import words as words_of
from cosim.mapping.words import group_words, span
from cosim.program.table import NORM_CONSTANTS, Column

#: Changes with what the kernels call.
STAMP = sources(row_parts, words_of)


@CACHED
def convolution_rows(ops, args, row, common, plan, source, target, skip, ins, outs, cumulative,
                      first, last,
                     stamp=STAMP):
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
    in_filled = channel_mask(ins, IN_FILLED, common.input_share)
    in_free = channel_mask(ins, IN_FREE, common.input_share)
    out_filled = channel_mask(outs, OUT_FILLED, common.output_share)
    out_free = channel_mask(outs, OUT_FREE, common.output_share)
    halve = 1 if plan.pool else 0
    input_count, stage, weight_bank = 0, 0, plan.weight_bank
    in_base = 0
    weight_base = 0
    weight_wait = plan.weight_free
    if plan.parameter_bytes:
        row = block_load(ops, args, row, common.layer, plan.weight_unit, plan.weight_free, 0,
                         CONVOLUTION_PARAMETERS, plan.parameter_base, plan.parameter_address,
                         plan.parameter_bytes, first, last)
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
                row = tile_load(ops, args, row, common.layer, ins[0, IN_UNIT],
                                outs_skip_mask(outs, common.output_share), plan.skip_filled,
                                OUTPUT, out_base, rows * columns, skip, plane, out_planes, top,
                                rows, left, columns, first, last)
            for in_tile in range(in_tiles):
                word = in_tile * plan.tile_in_words
                words = min(plan.tile_in_words, plan.in_words - word)
                block = out_word * plan.in_words + out_words * word
                if plan.group_in:
                    word, words = group_words(out_word, plan.tm, common.lanes_in * 8,
                                              plan.out_channels, plan.group_out, plan.group_in)
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
                    row = shared_load(ops, args, row, common, ins, True, True, in_base, source,
                                      low, high - low, in_top, in_rows, in_left, in_columns,
                                      first, last)
                new_weights = not loaded_once or place == 0
                if weights_outer:
                    new_weights = inner == 0
                if new_weights:
                    weight_base = weight_bank * plan.weight_words
                    weight_bank = (weight_bank + 1) % plan.weight_banks
                    if plan.order == STORED:
                        offset = block * taps
                        row = block_load(ops, args, row, common.layer, plan.weight_unit,
                                         weight_wait, plan.weight_filled, WEIGHT, weight_base,
                                         plan.weight_address + offset * plan.weight_word_bytes,
                                         out_words * words * taps * plan.weight_word_bytes,
                                         first, last)
                    else:
                        row = operand_load(ops, args, row, common.layer, plan.weight_unit,
                                           weight_wait, plan.weight_filled, weight_base, plan,
                                           common.lanes_in, common.lanes_in * 8, out_word,
                                           out_words, word, words, first, last)
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
                trips = (out_words * -(-columns // plan.unroll) * rows
                         * max(words * taps, plan.result_cycles))
                real_out = min(plan.out_channels, (out_word + out_words) * plan.tm)
                real_out -= out_word * plan.tm
                real_in = (cumulative[min(source.planes, (word + words) * common.lanes_in)]
                           - cumulative[word * common.lanes_in])
                if plan.group_in:
                    real_in = plan.group_in
                compute_row(ops, args, row, common, CONVOLUTION, wait, signal, common.interval,
                            trips, real_out * rows * columns * real_in * taps, first, last)
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
            row = tile_store(ops, args, row, common, outs, plan.add, out_base, target, plane,
                             out_planes, top >> halve, rows >> halve, left >> halve, columns >>
                             halve, first, last)
            stage += 1
    return row, weight_bank


@PLAIN
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
        line[4], line[5] = plan.parameter_base, plan.first
    elif plan.opcode == FLOW_SUM:
        line[1], line[2], line[3], line[4] = out_base, plan.out_columns, positions, plan.channels
        line[5], line[6], line[7] = plan.parameter_base, unit, plan.first
    else:
        line[1], line[2], line[3] = units * plan.in_rows_per_unit, plan.in_columns, planes
        line[4] = out_base
        if plan.opcode != UPSAMPLE:
            line[5], line[6], line[7] = plan.first, plan.second, plan.third


@CACHED
def stream_rows(ops, args, row, common, plan, source, other, target, ins, outs, first, last,
                stamp=STAMP):
    """Write one streaming layer (all but convolution and grid sampling); return the next row."""
    in_filled = channel_mask(ins, IN_FILLED, common.input_share)
    in_free = channel_mask(ins, IN_FREE, common.input_share)
    out_filled = channel_mask(outs, OUT_FILLED, common.output_share)
    out_free = channel_mask(outs, OUT_FREE, common.output_share)
    two_masters = plan.operands == 2 and ins.shape[0] > 1
    if two_masters:
        in_filled = ins[0, IN_FILLED] | ins[1, IN_FILLED]
        in_free = ins[0, IN_FREE] | ins[1, IN_FREE]
    plane_tiles = -(-plan.planes // plan.tile_planes)
    unit_tiles = -(-plan.units // plan.tile_units)
    if plan.parameter_bytes:
        row = block_load(ops, args, row, common.layer, plan.parameter_unit, plan.parameter_free,
                         plan.parameter_filled, plan.parameter_buffer, plan.parameter_base,
                         plan.parameter_address, plan.parameter_bytes, first, last)
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
            row = shared_load(ops, args, row, common, ins, True, True, in_base, source, plane,
                              planes, begin, in_positions, 0, 1, first, last)
        else:
            second = 1 if two_masters else 0
            row = tile_load(ops, args, row, common.layer, ins[0, IN_UNIT], ins[0, IN_FREE],
                            ins[0, IN_FILLED] if two_masters else 0, INPUT, in_base,
                            in_positions, source, plane, planes, begin, in_positions, 0, 1,
                            first, last)
            row = tile_load(ops, args, row, common.layer, ins[second, IN_UNIT], ins[1, IN_FREE]
                            if two_masters else 0, ins[second, IN_FILLED], INPUT, other_base,
                            in_positions, other, 0 if plan.broadcast else plane, 1 if
                            plan.broadcast else planes, begin, in_positions, 0, 1, first, last)
        wait, signal = in_filled | out_free, in_free | out_filled
        if plan.parameter_bytes and stage == 0:
            wait |= plan.parameter_filled
        if plan.parameter_bytes and stage == stages - 1:
            signal |= plan.parameter_free
        trips = out_positions if plan.by_position else out_positions * planes
        compute_row(ops, args, row, common, plan.opcode, wait, signal, common.interval, trips, 0,
                    first, last)
        _stream_arguments(args[row], plan, in_base, other_base, out_base, in_positions,
                          planes, plane, unit, units)
        row += 1
        out_plane, out_planes = plane, planes
        if plan.opcode == FLOW_SUM:
            out_plane, out_planes = 0, 1
        row = tile_store(ops, args, row, common, outs, 0, out_base, target, out_plane,
                         out_planes, unit * plan.unit_out, out_positions, 0, 1, first, last)
    return row


@CACHED
def grid_rows(ops, args, row, common, plan, source, grid, target, ins, outs, first, last,
              stamp=STAMP):
    """Write one grid sampling; return the next row. `source` and `grid` share an INPUT bank.

    `source.columns` and `source.rows` are the image's; grids are read as lists of positions.
    """
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
                row = tile_load(ops, args, row, common.layer, ins[0, IN_UNIT], ins[0, IN_FREE],
                                0, INPUT, base, image, source, plane, planes, 0, source.rows, 0,
                                source.columns, first, last)
                for index in range(grids):
                    done = ins[0, IN_FILLED] if index == grids - 1 else 0
                    row = tile_load(ops, args, row, common.layer, ins[0, IN_UNIT], 0, done,
                                    INPUT, base + words + index * size, size, grid, grid_first +
                                    index, 1, begin, size, 0, 1, first, last)
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
                        compute_row(ops, args, row, common, GRID_SAMPLE, wait, signal, interval,
                                    part, 0, first, last)
                        line = args[row]
                        line[0], line[1], line[2] = base, source.rows, source.columns
                        line[3] = planes
                        line[4] = base + words + index * size + offset
                        line[5], line[6], line[7] = part, out_base, plan.fraction_bits
                        row += 1
                        row = tile_store(ops, args, row, common, outs, 0, out_base, target,
                                         (grid_first + index) * source.planes + plane, planes,
                                         begin + offset, part, 0, 1, first, last)
    return row


@CACHED
def norm_rows(ops, args, row, common, plan, source, target, ins, outs, first, last,
              stamp=STAMP):
    """Write one group norm; return the next row. Each block: its sums, then its affine step.

    A block that fits one bank is loaded once, any other once for each pass.
    """
    in_filled = channel_mask(ins, IN_FILLED, common.input_share)
    in_free = channel_mask(ins, IN_FREE, common.input_share)
    out_filled = channel_mask(outs, OUT_FILLED, common.output_share)
    out_free = channel_mask(outs, OUT_FREE, common.output_share)
    signal = 0 if plan.film else plan.parameter_filled
    row = block_load(ops, args, row, common.layer, plan.parameter_unit, plan.parameter_free,
                     signal, NORM_PARAMETERS, 0, plan.constant_address, plan.constant_bytes,
                     first, last)
    gain_base = plan.constant_bytes // 8
    offset_base = gain_base + plan.film // 8
    if plan.film:
        row = block_load(ops, args, row, common.layer, plan.parameter_unit, 0, 0,
                         NORM_PARAMETERS, gain_base, plan.gain_address, plan.film, first, last)
        row = block_load(ops, args, row, common.layer, plan.parameter_unit, 0,
                         plan.parameter_filled, NORM_PARAMETERS, offset_base,
                         plan.offset_address, plan.film, first, last)
    resident = plan.chunk >= plan.positions
    bank, stage = 0, 0
    in_base = 0
    for plane in range(0, plan.planes, plan.tile_planes):
        planes = min(plan.tile_planes, plan.planes - plane)
        channels = min(plan.channels - plane * 8, planes * 8)
        last_block = plane + planes == plan.planes
        for second in range(2):
            for begin in range(0, plan.positions, plan.chunk):
                size = min(plan.chunk, plan.positions - begin)
                end = begin + size == plan.positions
                filled = 0
                if second == 0 or not resident:
                    in_base = bank % common.input_banks * common.input_words
                    bank += 1
                    row = shared_load(ops, args, row, common, ins, True, True, in_base, source,
                                      plane, planes, begin, size, 0, 1, first, last)
                    filled = in_filled
                if second == 0:
                    wait = filled
                    if plane == 0 and begin == 0:
                        wait |= plan.parameter_filled
                    compute_row(ops, args, row, common, GROUP_SUMS, wait,
                                0 if resident else in_free, plan.sums_interval, planes * size, 0,
                                first, last)
                    ops[row, FILL], ops[row, DRAIN] = plan.sums_fill, plan.sums_drain
                    if end:
                        ops[row, DRAIN] += (channels // plan.group_channels * plan.group_cycles
                                            + channels * plan.channel_cycles)
                    line = args[row]
                    line[0], line[1], line[2], line[3] = in_base, size, planes, channels
                    line[4], line[5] = plan.group_channels, NORM_CONSTANTS + plane * 8
                    if plan.film:
                        line[6], line[7], line[11] = gain_base + plane, offset_base + plane, 1
                    line[8], line[9], line[10] = plan.positions, begin == 0, end
                    row += 1
                    continue
                for offset in range(0, size, plan.part):
                    part = min(plan.part, size - offset)
                    out_base = stage % common.output_banks * common.output_words
                    stage += 1
                    wait, signal = out_free, out_filled
                    if offset == 0:
                        wait |= filled
                    if offset + part == size:
                        signal |= in_free
                        if last_block and end:
                            signal |= plan.parameter_free
                    compute_row(ops, args, row, common, GROUP_NORM, wait, signal,
                                common.interval, planes * part, 0, first, last)
                    line = args[row]
                    line[0], line[1], line[2] = in_base + offset, size, out_base
                    line[3], line[4], line[5] = part, planes, plan.relu
                    row += 1
                    row = tile_store(ops, args, row, common, outs, 0, out_base, target, plane,
                                     planes, begin + offset, part, 0, 1, first, last)
    return row


def tables(count: int, arguments: int) -> tuple[np.ndarray, np.ndarray]:
    """Operation and argument tables; a row is meaningful once it is written whole."""
    return (np.empty((count, len(Column)), np.int64), np.empty((count, arguments), np.int32))

"""The row kernel of the convolution: loads, blocks of weights, operations, stores of one layer.

It chooses nothing: tiles and addresses come with the plan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import PLAIN, kept
from cosim.engines import rows as row_parts
from cosim.engines.rows import (
    ADDRESS,
    IN_FILLED,
    IN_FREE,
    IN_UNIT,
    LOAD,
    OUT_FILLED,
    OUT_FREE,
    OUT_SKIP_FREE,
    OUTPUT,
    PLANE_STRIDE,
    PLANES,
    ROW_BYTES,
    ROW_STRIDE,
    ROWS,
    WEIGHT,
    Box,
    Turn,
    block_load,
    channel_mask,
    compute_row,
    open_row,
    shared_load,
    tile_load,
    tile_store,
)
from cosim.mapping import words as shared_words
from cosim.mapping.words import group_words, span
from cosim.program.table import Buffer, Opcode, WeightOrder

CONVOLUTION = int(Opcode.CONVOLUTION)
CONVOLUTION_PARAMETERS = int(Buffer.CONVOLUTION_PARAMETERS)
STORED, BY_ROWS = int(WeightOrder.STORED), int(WeightOrder.ROWS)


class ConvolutionPlan(NamedTuple):
    """One convolution with what it absorbs. Tiles in words, convolution rows and columns.

    `group_out`, `group_in`: channels of a group, 0 without groups; then `in_words` are those of
    one output word, and a tile has one. `real`: real channels before each input plane, for counting
    useful products. A matmul (`order` not STORED) loads its weights from the
    activation at `weight_address`.
    """

    tm: int
    out_channels: int
    conv_rows: int
    conv_columns: int
    in_words: int
    out_words: int
    tile_out_words: int
    tile_in_words: int
    tile_rows: int
    tile_columns: int
    resident: int
    weights_outer: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    upsample: int
    relu: int
    pool: int
    add: int
    add_new: int
    add_skip: int
    add_shift: int
    weight_address: int
    weight_word_bytes: int
    weight_words: int
    weight_banks: int
    parameter_address: int
    parameter_bytes: int
    parameter_base: int
    group_out: int
    group_in: int
    order: int
    operand_planes: int
    operand_positions: int
    real: np.ndarray


@PLAIN
def _operand_load(table, row, turn, base, plan, lanes_in, outputs, inputs):
    """Blocks of weights from an activation: a range of its planes and of its positions.

    `outputs`, `inputs`: first word and how many, of output and of input channels.
    """
    out_word, out_words = outputs
    word, words = inputs
    tn = lanes_in * 8
    if plan.order == BY_ROWS:
        plane, planes = word * lanes_in, words * lanes_in
        begin, positions = out_word * plan.tm, out_words * plan.tm
    else:
        plane, planes = out_word * plan.tm // 8, out_words * plan.tm // 8
        begin, positions = word * tn, words * tn
    planes = min(planes, plan.operand_planes - plane)
    positions = min(positions, plan.operand_positions - begin)
    open_row(table, row, turn, LOAD)
    ops, args = table.operations, table.arguments
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


@kept(row_parts, shared_words)
def convolution_rows(table, row, common, plan, areas, wires):
    """Write one convolution (areas: source, target, skip tile); return the next row."""
    source, target, skip = areas
    ins, outs = wires.inputs, wires.outputs
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
    input_count, stage = 0, 0
    weight_bank = table.blocks[common.engine]
    in_base = 0
    weight_base = 0
    weight_wait = wires.weight_free
    if plan.parameter_bytes:
        turn = Turn(common.layer, wires.weight_unit, wires.weight_free, 0)
        row = block_load(table, row, turn, CONVOLUTION_PARAMETERS, plan.parameter_base,
                         plan.parameter_address, plan.parameter_bytes)
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
                turn = Turn(common.layer, ins[0, IN_UNIT],
                            channel_mask(outs, OUT_SKIP_FREE, common.output_share),
                            wires.skip_filled)
                row = tile_load(table, row, turn, OUTPUT, out_base, rows * columns, skip,
                                Box(plane, out_planes, top, rows, left, columns))
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
                    row = shared_load(table, row, common, ins, in_base, source,
                                      Box(low, high - low, in_top, in_rows, in_left, in_columns))
                new_weights = not loaded_once or place == 0
                if weights_outer:
                    new_weights = inner == 0
                if new_weights:
                    weight_base = weight_bank * plan.weight_words
                    weight_bank = (weight_bank + 1) % plan.weight_banks
                    turn = Turn(common.layer, wires.weight_unit, weight_wait,
                                wires.weight_filled)
                    if plan.order == STORED:
                        row = block_load(table, row, turn, WEIGHT, weight_base,
                                         plan.weight_address
                                         + block * taps * plan.weight_word_bytes,
                                         out_words * words * taps * plan.weight_word_bytes)
                    else:
                        row = _operand_load(table, row, turn, weight_base, plan,
                                            common.lanes_in, (out_word, out_words),
                                            (word, words))
                    weight_wait = wires.weight_free
                kept = inner < spatial - 1 if weights_outer else (loaded_once
                                                                  and place < spatial - 1)
                first_part, last_part = in_tile == 0, in_tile == in_tiles - 1
                wait = wires.weight_filled if new_weights else 0
                signal = 0 if kept else wires.weight_free
                if first_use:
                    wait |= in_filled
                if last_use:
                    signal |= in_free
                if first_part:
                    wait |= out_free
                if last_part:
                    signal |= out_filled
                    if plan.add:
                        wait |= wires.skip_filled
                real_out = min(plan.out_channels, (out_word + out_words) * plan.tm)
                real_out -= out_word * plan.tm
                real_in = (plan.real[min(source.planes, (word + words) * common.lanes_in)]
                           - plan.real[word * common.lanes_in])
                if plan.group_in:
                    real_in = plan.group_in
                compute_row(table, row, common, CONVOLUTION, wait, signal,
                            real_out * rows * columns * real_in * taps)
                line = table.arguments[row]
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
            row = tile_store(table, row, common, outs, plan.add, out_base, target,
                             Box(plane, out_planes, top >> halve, rows >> halve, left >> halve,
                                 columns >> halve))
            stage += 1
    table.blocks[common.engine] = weight_bank
    return row

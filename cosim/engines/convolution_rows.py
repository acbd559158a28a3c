"""The row kernel of the convolution: loads, blocks of weights, operations, stores of one layer.

It chooses nothing: tiles and addresses come with the plan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosim.compiled import CACHED, PLAIN_RULE
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
from cosim.mapping.words import group_words, span
from cosim.program.table import Buffer, WeightOrder

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
    pad_value: int
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
    opcode: int
    group_out: int
    group_in: int
    order: int
    operand_planes: int
    operand_positions: int
    real: np.ndarray


class Walk(NamedTuple):
    """How a layer is walked: numbers of tiles, and the tokens of its masters as masks.

    `loaded_once`: the weights are one block, which stays for the whole layer.
    """

    column_tiles: int
    spatial: int
    out_tiles: int
    in_tiles: int
    loaded_once: bool
    in_filled: int
    in_free: int
    out_filled: int
    out_free: int


class Stage(NamedTuple):
    """One tile of the output: what is stored at once, and the rows and columns that it reads.

    `inner`: its number within the outer loop, `place` its number among the spatial tiles.
    """

    inner: int
    place: int
    out_word: int
    out_words: int
    out_base: int
    out: Box
    read: Box


class Part(NamedTuple):
    """One operation of a stage: input words, what it loads first and what it is the last to use.

    `block`: the block of weights, in words of taps before it.
    """

    word: int
    words: int
    block: int
    first_part: bool
    last_part: bool
    first_use: bool
    last_use: bool
    new_weights: bool
    keeps_weights: bool


@PLAIN_RULE
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


@PLAIN_RULE
def _walk(common, plan, wires):
    ins, outs = wires.inputs, wires.outputs
    column_tiles = -(-plan.conv_columns // plan.tile_columns)
    out_tiles = -(-plan.out_words // plan.tile_out_words)
    in_tiles = -(-plan.in_words // plan.tile_in_words)
    return Walk(column_tiles, -(-plan.conv_rows // plan.tile_rows) * column_tiles, out_tiles,
                in_tiles, out_tiles * in_tiles == 1,
                channel_mask(ins, IN_FILLED, common.input_share),
                channel_mask(ins, IN_FREE, common.input_share),
                channel_mask(outs, OUT_FILLED, common.output_share),
                channel_mask(outs, OUT_FREE, common.output_share))


@PLAIN_RULE
def _stage(common, plan, walk, source, target, number):
    """The output tile of a number; weights outside count spatial tiles first, else words."""
    if plan.weights_outer:
        out_tile, place = number // walk.spatial, number % walk.spatial
        inner = place
    else:
        place, out_tile = number // walk.out_tiles, number % walk.out_tiles
        inner = out_tile
    top = place // walk.column_tiles * plan.tile_rows
    left = place % walk.column_tiles * plan.tile_columns
    rows = min(plan.tile_rows, plan.conv_rows - top)
    columns = min(plan.tile_columns, plan.conv_columns - left)
    in_top, in_rows = span(top, rows, plan.stride, plan.kernel_rows, plan.padding, plan.upsample,
                           source.rows)
    in_left, in_columns = span(left, columns, plan.stride, plan.kernel_columns, plan.padding,
                               plan.upsample, source.columns)
    out_word = out_tile * plan.tile_out_words
    out_words = min(plan.tile_out_words, plan.out_words - out_word)
    plane = out_word * common.lanes_out
    planes = min(target.planes, (out_word + out_words) * common.lanes_out) - plane
    return Stage(inner, place, out_word, out_words,
                 number % common.output_banks * common.output_words,
                 Box(plane, planes, top, rows, left, columns),
                 Box(0, 0, in_top, in_rows, in_left, in_columns))


@PLAIN_RULE
def _part(common, plan, walk, stage, in_tile):
    """One tile of the input words of a stage."""
    word = in_tile * plan.tile_in_words
    words = min(plan.tile_in_words, plan.in_words - word)
    block = stage.out_word * plan.in_words + stage.out_words * word
    if plan.group_in:
        word, words = group_words(stage.out_word, plan.tm, common.lanes_in * 8, plan.out_channels,
                                  plan.group_out, plan.group_in)
    first_part, last_part = in_tile == 0, in_tile == walk.in_tiles - 1
    first_use = last_use = True
    if plan.resident:
        first_use = first_part and (plan.weights_outer == 1 or stage.inner == 0)
        last_use = last_part and (plan.weights_outer == 1 or stage.inner == walk.out_tiles - 1)
    if plan.weights_outer:
        new_weights, keeps = stage.inner == 0, stage.inner < walk.spatial - 1
    else:
        new_weights = not walk.loaded_once or stage.place == 0
        keeps = walk.loaded_once and stage.place < walk.spatial - 1
    return Part(word, words, block, first_part, last_part, first_use, last_use, new_weights, keeps)


@PLAIN_RULE
def _input_load(table, row, common, plan, wires, base, source, tile):
    """The words of a part, or all words of its rows and columns where they stay on chip."""
    stage, part = tile
    word, words = (0, plan.in_words) if plan.resident else (part.word, part.words)
    low = word * common.lanes_in
    high = min(source.planes, (word + words) * common.lanes_in)
    read = stage.read
    return shared_load(table, row, common, wires.inputs, base, source,
                       Box(low, high - low, read.top, read.rows, read.left, read.columns))


@PLAIN_RULE
def _weight_load(table, row, common, plan, turn, base, stage, part):
    """The block of weights of a part, from the constants or from an activation."""
    if plan.order != STORED:
        return _operand_load(table, row, turn, base, plan, common.lanes_in,
                             (stage.out_word, stage.out_words), (part.word, part.words))
    taps = plan.kernel_rows * plan.kernel_columns * plan.weight_word_bytes
    return block_load(table, row, turn, WEIGHT, base, plan.weight_address + part.block * taps,
                      stage.out_words * part.words * taps)


@PLAIN_RULE
def _tokens(plan, wires, walk, part):
    """What the operation of a part waits for, and what it signals."""
    wait = wires.weight_filled if part.new_weights else 0
    signal = 0 if part.keeps_weights else wires.weight_free
    if part.first_use:
        wait |= walk.in_filled
    if part.last_use:
        signal |= walk.in_free
    if part.first_part:
        wait |= walk.out_free
    if part.last_part:
        signal |= walk.out_filled
        if plan.add:
            wait |= wires.skip_filled
    return wait, signal


@PLAIN_RULE
def _useful(common, plan, source, stage, part):
    """Products of a part with real channels on both sides."""
    real_out = (min(plan.out_channels, (stage.out_word + stage.out_words) * plan.tm)
                - stage.out_word * plan.tm)
    real_in = (plan.real[min(source.planes, (part.word + part.words) * common.lanes_in)]
               - plan.real[part.word * common.lanes_in])
    if plan.group_in:
        real_in = plan.group_in
    return (real_out * stage.out.rows * stage.out.columns * real_in
            * plan.kernel_rows * plan.kernel_columns)


@PLAIN_RULE
def _arguments(line, plan, stage, part, in_base, weight_base):
    """The arguments of an operation, in the order of `ARGUMENTS`."""
    out, read = stage.out, stage.read
    line[0] = in_base + (part.word * read.rows * read.columns if plan.resident else 0)
    line[1], line[2], line[3] = read.rows, read.columns, part.words
    line[4] = weight_base
    line[5] = plan.parameter_base + stage.out_word * plan.tm
    line[6] = stage.out_base
    line[7], line[8], line[9] = out.rows, out.columns, stage.out_words
    line[10], line[11] = plan.kernel_rows, plan.kernel_columns
    line[12] = plan.stride
    line[13] = (read.top << plan.upsample) - (out.top * plan.stride - plan.padding)
    line[14] = (read.left << plan.upsample) - (out.left * plan.stride - plan.padding)
    line[15] = plan.upsample
    line[16], line[17] = part.first_part, part.last_part
    line[18], line[19], line[20] = plan.relu, plan.pool, plan.add
    line[21], line[22], line[23] = plan.add_new, plan.add_skip, plan.add_shift
    line[24] = plan.pad_value


@PLAIN_RULE
def _skip_load(table, row, common, wires, skip, stage):
    """The tile that is added, into the bank of OUTPUT that the stage fills."""
    turn = Turn(common.layer, wires.inputs[0, IN_UNIT],
                channel_mask(wires.outputs, OUT_SKIP_FREE, common.output_share), wires.skip_filled)
    return tile_load(table, row, turn, OUTPUT, stage.out_base,
                     stage.out.rows * stage.out.columns, skip, stage.out)


@PLAIN_RULE
def _store(table, row, common, plan, wires, target, stage):
    """The finished tile; a pooled one is half as high and wide."""
    out, halve = stage.out, 1 if plan.pool else 0
    return tile_store(table, row, common, wires.outputs, plan.add, stage.out_base, target,
                      Box(out.plane, out.planes, out.top >> halve, out.rows >> halve,
                          out.left >> halve, out.columns >> halve))


@CACHED
def convolution_rows(table, row, common, plan, areas, wires):
    """Write one convolution (areas: source, target, skip tile); return the next row."""
    source, target, skip = areas
    walk = _walk(common, plan, wires)
    weight_bank = table.blocks[common.engine]
    weight_wait = wires.weight_free
    if plan.parameter_bytes:
        turn = Turn(common.layer, wires.weight_unit, wires.weight_free, 0)
        row = block_load(table, row, turn, CONVOLUTION_PARAMETERS, plan.parameter_base,
                         plan.parameter_address, plan.parameter_bytes)
        # The token taken here is that of the first weight block.
        weight_wait = 0
    loads, in_base, weight_base = 0, 0, 0
    for number in range(walk.spatial * walk.out_tiles):
        stage = _stage(common, plan, walk, source, target, number)
        if plan.add:
            row = _skip_load(table, row, common, wires, skip, stage)
        for in_tile in range(walk.in_tiles):
            part = _part(common, plan, walk, stage, in_tile)
            if part.first_use:
                in_base = loads % common.input_banks * common.input_words
                loads += 1
                row = _input_load(table, row, common, plan, wires, in_base, source, (stage, part))
            if part.new_weights:
                weight_base = weight_bank * plan.weight_words
                weight_bank = (weight_bank + 1) % plan.weight_banks
                turn = Turn(common.layer, wires.weight_unit, weight_wait, wires.weight_filled)
                row = _weight_load(table, row, common, plan, turn, weight_base, stage, part)
                weight_wait = wires.weight_free
            wait, signal = _tokens(plan, wires, walk, part)
            compute_row(table, row, common, plan.opcode, wait, signal,
                        _useful(common, plan, source, stage, part))
            _arguments(table.arguments[row], plan, stage, part, in_base, weight_base)
            row += 1
        row = _store(table, row, common, plan, wires, target, stage)
    table.blocks[common.engine] = weight_bank
    return row

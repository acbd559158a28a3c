"""The row kernel of the engines that stream a tile: loads, one operation, stores.

It chooses nothing: tiles and addresses come with the plan.
"""

from __future__ import annotations

from typing import NamedTuple

from cosim.compiled import CACHED, PLAIN
from cosim.engines.rows import (
    IN_FILLED,
    IN_FREE,
    IN_UNIT,
    INPUT,
    OUT_FILLED,
    OUT_FREE,
    Box,
    Turn,
    block_load,
    channel_mask,
    compute_row,
    shared_load,
    tile_load,
    tile_store,
)
from cosim.mapping.words import span
from cosim.program.table import Opcode

ADD, MULTIPLY, AFFINE = int(Opcode.ADD), int(Opcode.MULTIPLY), int(Opcode.AFFINE)
FLOW_SUM, LOOKUP, SOFTMAX = int(Opcode.FLOW_SUM), int(Opcode.LOOKUP), int(Opcode.SOFTMAX)
UPSAMPLE = int(Opcode.UPSAMPLE)
WINDOWS = (int(Opcode.AVERAGE_POOL), int(Opcode.MAX_POOL), UPSAMPLE)


class StreamPlan(NamedTuple):
    """A layer that streams tiles: `operands` one or two, `units` groups of positions.

    `first`, `second`, `third`: the last arguments of the operations but for `zero_in`,
    `zero_other` and `offset`.
    """

    opcode: int
    operands: int
    broadcast: int
    planes: int
    out_planes: int
    units: int
    unit_in: int
    unit_out: int
    tile_planes: int
    tile_units: int
    in_rows_per_unit: int
    in_columns: int
    out_columns: int
    channels: int
    parameter_address: int
    parameter_bytes: int
    parameter_buffer: int
    parameter_base: int
    first: int
    second: int
    third: int
    zero_in: int
    zero_other: int
    offset: int


class ImageCut(NamedTuple):
    """How a layer is cut in rows and columns of its output, and what window reads them."""

    rows: int
    columns: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    upsample: int


@PLAIN
def _arguments(line, plan, bases, tile):
    """`bases`: of input, second operand and output. `tile`: planes, units in the place of rows,
    positions in the place of columns."""
    in_base, other_base, out_base = bases
    plane, planes, positions = tile.plane, tile.planes, tile.columns
    unit, units = tile.top, tile.rows
    line[0] = in_base
    if plan.opcode in (ADD, MULTIPLY):
        line[1], line[2], line[3], line[4] = other_base, out_base, positions, planes
        line[5], line[6], line[7] = plan.first, plan.second, plan.third
        if plan.opcode == ADD:
            line[8] = plan.offset
        else:
            line[8], line[9], line[10] = plan.zero_in, plan.zero_other, plan.offset
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
def stream_rows(table, row, common, plan, areas, wires):
    """Write one streaming layer (areas: source, second operand, target); return the next row."""
    source, other, target = areas
    ins, outs = wires.inputs, wires.outputs
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
        turn = Turn(common.layer, wires.weight_unit, wires.weight_free, wires.weight_filled)
        row = block_load(table, row, turn, plan.parameter_buffer, plan.parameter_base,
                         plan.parameter_address, plan.parameter_bytes)
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
            row = shared_load(table, row, common, ins, in_base, source,
                              Box(plane, planes, begin, in_positions, 0, 1))
        else:
            second = 1 if two_masters else 0
            turn = Turn(common.layer, ins[0, IN_UNIT], ins[0, IN_FREE],
                        ins[0, IN_FILLED] if two_masters else 0)
            row = tile_load(table, row, turn, INPUT, in_base, in_positions, source,
                            Box(plane, planes, begin, in_positions, 0, 1))
            turn = Turn(common.layer, ins[second, IN_UNIT],
                        ins[1, IN_FREE] if two_masters else 0, ins[second, IN_FILLED])
            row = tile_load(table, row, turn, INPUT, other_base, in_positions, other,
                            Box(0 if plan.broadcast else plane, 1 if plan.broadcast else planes,
                                begin, in_positions, 0, 1))
        wait, signal = in_filled | out_free, in_free | out_filled
        if plan.parameter_bytes and stage == 0:
            wait |= wires.weight_filled
        if plan.parameter_bytes and stage == stages - 1:
            signal |= wires.weight_free
        compute_row(table, row, common, plan.opcode, wait, signal, 0)
        _arguments(table.arguments[row], plan, (in_base, other_base, out_base),
                   Box(plane, planes, unit, units, 0, in_positions))
        row += 1
        out_plane, out_planes = plane, planes
        if plan.opcode == FLOW_SUM:
            out_plane, out_planes = 0, 1
        row = tile_store(table, row, common, outs, 0, out_base, target,
                         Box(out_plane, out_planes, unit * plan.unit_out, out_positions, 0, 1))
    return row


@PLAIN
def _tokens(common, plan, wires):
    """Channels that every operation of a layer waits for, and that it signals."""
    ins, outs = wires.inputs, wires.outputs
    wait = channel_mask(ins, IN_FILLED, common.input_share)
    signal = channel_mask(ins, IN_FREE, common.input_share)
    if plan.operands == 2 and ins.shape[0] > 1:
        wait = ins[0, IN_FILLED] | ins[1, IN_FILLED]
        signal = ins[0, IN_FREE] | ins[1, IN_FREE]
    return (wait | channel_mask(outs, OUT_FREE, common.output_share),
            signal | channel_mask(outs, OUT_FILLED, common.output_share))


@PLAIN
def _both_loads(table, row, common, plan, ins, base, areas, box):
    """The tiles of two operands, by two masters if there are two."""
    second = 1 if ins.shape[0] > 1 else 0
    positions = box.rows * box.columns
    turn = Turn(common.layer, ins[0, IN_UNIT], ins[0, IN_FREE],
                ins[0, IN_FILLED] if second else 0)
    row = tile_load(table, row, turn, INPUT, base, positions, areas[0], box)
    turn = Turn(common.layer, ins[second, IN_UNIT], ins[1, IN_FREE] if second else 0,
                ins[second, IN_FILLED])
    other = Box(0 if plan.broadcast else box.plane, 1 if plan.broadcast else box.planes, box.top,
                box.rows, box.left, box.columns)
    return tile_load(table, row, turn, INPUT,
                     base + -(-box.planes // common.lanes_in) * positions, positions, areas[1],
                     other)


@CACHED
def image_rows(table, row, common, plans, areas, wires):
    """Write one layer that is cut in rows and columns (areas: source, second operand, target)."""
    plan, cut = plans
    source, _, target = areas
    wait, signal = _tokens(common, plan, wires)
    if plan.parameter_bytes:
        turn = Turn(common.layer, wires.weight_unit, wires.weight_free, wires.weight_filled)
        row = block_load(table, row, turn, plan.parameter_buffer, plan.parameter_base,
                         plan.parameter_address, plan.parameter_bytes)
    across = -(-target.columns // cut.columns)
    spatial = -(-target.rows // cut.rows) * across
    stages = -(-plan.planes // plan.tile_planes) * spatial
    for stage in range(stages):
        plane, place = stage // spatial * plan.tile_planes, stage % spatial
        planes = min(plan.tile_planes, plan.planes - plane)
        top, left = place // across * cut.rows, place % across * cut.columns
        rows, columns = min(cut.rows, target.rows - top), min(cut.columns, target.columns - left)
        in_top, in_rows = span(top, rows, cut.stride, cut.kernel_rows, cut.padding, cut.upsample,
                               source.rows)
        in_left, in_columns = span(left, columns, cut.stride, cut.kernel_columns, cut.padding,
                                   cut.upsample, source.columns)
        in_base = stage % common.input_banks * common.input_words
        out_base = stage % common.output_banks * common.output_words
        box = Box(plane, planes, in_top, in_rows, in_left, in_columns)
        if plan.operands == 1:
            row = shared_load(table, row, common, wires.inputs, in_base, source, box)
        else:
            row = _both_loads(table, row, common, plan, wires.inputs, in_base, areas, box)
        first = plan.parameter_bytes and stage == 0
        last = plan.parameter_bytes and stage == stages - 1
        compute_row(table, row, common, plan.opcode, wait | (wires.weight_filled if first else 0),
                    signal | (wires.weight_free if last else 0), 0)
        # What a padded window reads beyond the image counts as if it were there.
        high = (rows - 1) * cut.stride + cut.kernel_rows - 2 * cut.padding
        wide = (columns - 1) * cut.stride + cut.kernel_columns - 2 * cut.padding
        line = table.arguments[row]
        other = in_base + -(-planes // common.lanes_in) * in_rows * in_columns
        _arguments(line, plan, (in_base, other, out_base),
                   Box(plane, planes, 0, in_rows if cut.upsample else high, 0,
                       in_rows * in_columns))
        if plan.opcode in WINDOWS:
            line[2] = in_columns if cut.upsample else wide
        row = tile_store(table, row + 1, common, wires.outputs, 0, out_base, target,
                         Box(plane, planes, top, rows, left, columns))
    return row

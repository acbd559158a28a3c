"""What the engines that stream a tile do to bytes.

It is the numpy counterpart of the emitted C++; it counts no cycles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cosim.engines.buffers import BEAT, Buffers, entries_of
from cosim.program.table import Buffer, Opcode
from workloads import arithmetic


def pointwise(memories: Buffers, opcode: Opcode, a: Mapping[str, int]) -> None:
    """Elementwise, lookup, softmax or flow sum on one tile."""
    positions, planes = a["positions"], a.get("planes", 0)
    if opcode is Opcode.SOFTMAX:
        _softmax(memories, a)
        return
    if opcode is Opcode.FLOW_SUM:
        _flow_sum(memories, a)
        return
    value = memories.read(a["in_base"], positions, planes)
    if opcode is Opcode.ADD:
        other = memories.read(a["other_base"], positions, planes)
        both = value * a["multiplier_in"] + other * a["multiplier_other"] + a["offset"]
        result = arithmetic.saturate(arithmetic.round_shift(both, a["shift"]))
    elif opcode is Opcode.MULTIPLY:
        if a["broadcast"]:
            other = memories.read(a["other_base"], positions, 1)[:, :, :1]
        else:
            other = memories.read(a["other_base"], positions, planes)
        product = (value.astype(np.int64) - a["zero_in"]) * (other - a["zero_other"])
        result = arithmetic.saturate(arithmetic.round_shift(
            product * a["multiplier"] + a["offset"], a["shift"]))
    elif opcode is Opcode.AFFINE:
        entries = memories.constants(Buffer.VECTOR_PARAMETERS, a["parameter_base"],
                                     planes * BEAT)
        offset, multiplier, shift = (item.reshape(planes, 1, BEAT)
                                     for item in entries_of(entries))
        result = arithmetic.saturate(
            arithmetic.round_shift(value * multiplier + offset, shift))
        if a["relu"]:
            result = np.maximum(result, 0)
    else:
        table = memories.constants(Buffer.TABLE, a["table_base"], 32).reshape(-1)
        result = table[value + 128]
    memories.write(a["out_base"], result)


def _softmax(memories: Buffers, a: Mapping[str, int]) -> None:
    channels = a["channels"]
    planes = -(-channels // BEAT)
    value = memories.read(a["in_base"], a["positions"], planes)
    logits = value.transpose(0, 2, 1).reshape(planes * BEAT, -1)[:channels]
    table = memories.constants(Buffer.TABLE, a["table_base"], 64)
    table = table.reshape(-1).view("<u2")
    result = np.zeros((planes * BEAT, a["positions"]), np.int8)
    result[:channels] = arithmetic.softmax(logits[:, :, None], table,
                                           a["fraction_bits"])[:, :, 0]
    memories.write(a["out_base"], result.reshape(planes, BEAT, -1).transpose(0, 2, 1))


def _flow_sum(memories: Buffers, a: Mapping[str, int]) -> None:
    channels, positions, columns = a["channels"], a["positions"], a["columns"]
    planes = -(-channels // BEAT)
    masks = memories.read(a["in_base"], positions, planes).transpose(0, 2, 1)
    masks = masks.reshape(planes * BEAT, positions)[:channels]
    entries = memories.constants(Buffer.VECTOR_PARAMETERS, a["parameter_base"], channels)
    shift = np.ascontiguousarray(entries).view("<i2")[:, :2].T.astype(np.int64)
    moved = arithmetic.round_shift(shift @ masks, arithmetic.MASK_FRACTION_BITS)
    place = np.arange(positions)
    identity = np.stack([place % columns, place // columns + a["first_row"]])
    grid = arithmetic.saturate((identity << a["fraction_bits"]) + moved, 16)
    beats = np.zeros((positions, 4), "<i2")
    beats[:, :2] = grid.T
    memories.write(a["out_base"], beats.view(np.int8).reshape(1, positions, BEAT))


def windows(memories: Buffers, opcode: Opcode, a: Mapping[str, int]) -> None:
    """Pool or upsample on one tile."""
    rows, columns, planes = a["in_rows"], a["in_columns"], a["planes"]
    value = memories.read(a["in_base"], rows * columns, planes)
    value = value.reshape(planes, rows, columns, BEAT)
    if opcode is Opcode.UPSAMPLE:
        result = value.repeat(2, axis=1).repeat(2, axis=2)
    else:
        kernel, stride, pad = a["kernel"], a["stride"], a.get("padding", 0)
        padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad), (0, 0)),
                        constant_values=-128)
        views = np.lib.stride_tricks.sliding_window_view(
            padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
        if opcode is Opcode.MAX_POOL:
            result = views.max(axis=(4, 5))
        else:
            shift = (kernel * kernel).bit_length() - 1
            result = arithmetic.round_shift(views.sum(axis=(4, 5)), shift)
    memories.write(a["out_base"], result.reshape(planes, -1, BEAT))

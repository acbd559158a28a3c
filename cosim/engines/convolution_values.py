"""What the convolution does to bytes: products, sums, requantization, and what it fuses.

It is the numpy counterpart of the emitted C++, and counts how often memories are reached; it counts
no cycles.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from arch_models.overlay import Overlay
from cosim.engines.buffers import Accesses, Buffers, entries_of, span_of
from cosim.program.table import Buffer, Opcode
from workloads import arithmetic


def convolve(memories: Buffers, a: Mapping[str, int], narrow: bool = False) -> None:
    """One operation of the convolution engine; `narrow`: its weights lie two a byte."""
    rows, columns, up = a["in_rows"], a["in_columns"], a["upsample"]
    count = a["in_words"] * rows * columns
    tile = memories.input[span_of(memories.input, a["in_base"], count)]
    tile = tile.reshape(a["in_words"], rows, columns, memories.tn)
    # Products in float64 are exact far beyond int32 sums, and much faster than in integers.
    tile = tile.repeat(1 << up, axis=1).repeat(1 << up, axis=2).astype(np.float64)
    taps = a["kernel_rows"] * a["kernel_columns"]
    words = _weights(memories, a["weight_base"], a["out_words"] * a["in_words"] * taps, narrow)
    words = words.reshape(a["out_words"], a["in_words"], a["kernel_rows"],
                          a["kernel_columns"], memories.tm, memories.tn)
    # [kernel row][kernel column][in word, n][out word, m]
    factors = words.transpose(2, 3, 1, 5, 0, 4).astype(np.float64).reshape(
        a["kernel_rows"], a["kernel_columns"], a["in_words"] * memories.tn, -1)
    out_rows, out_columns = a["out_rows"], a["out_columns"]
    y = np.arange(out_rows) * a["stride"] - a["pad_top"]
    x = np.arange(out_columns) * a["stride"] - a["pad_left"]
    low_y, low_x = max(0, -int(y[0])), max(0, -int(x[0]))
    high_y = max(0, int(y[-1]) + a["kernel_rows"] - tile.shape[1])
    high_x = max(0, int(x[-1]) + a["kernel_columns"] - tile.shape[2])
    padded = np.pad(tile, ((0, 0), (low_y, high_y), (low_x, high_x), (0, 0)),
                    constant_values=a["pad_value"])
    padded = padded.transpose(1, 2, 0, 3).reshape(*padded.shape[1:3], -1)
    sums = np.zeros((out_rows * out_columns, a["out_words"] * memories.tm))
    for ky in range(a["kernel_rows"]):
        for kx in range(a["kernel_columns"]):
            part = padded[(y + ky + low_y)[:, None], (x + kx + low_x)[None]]
            sums += part.reshape(out_rows * out_columns, -1) @ factors[ky, kx]
    total = sums.astype(np.int64).reshape(out_rows, out_columns, a["out_words"], memories.tm)
    total = total.transpose(2, 0, 1, 3).copy()
    entries = memories.constants(Buffer.CONVOLUTION_PARAMETERS, a["parameter_base"],
                                 a["out_words"] * memories.tm)
    offset, multiplier, shift = (item.reshape(a["out_words"], 1, 1, memories.tm)
                                 for item in entries_of(entries))
    places = span_of(memories.accumulator, 0, 0)
    if not (a["first"] and a["last"]):
        places = span_of(memories.accumulator, 0, a["out_words"] * out_rows * out_columns)
    if a["first"]:
        total += offset
    else:
        total += memories.accumulator[places].reshape(total.shape)
    if not a["last"]:
        memories.accumulator[places] = total.reshape(-1, memories.tm)
        return
    value = arithmetic.requantize(total, multiplier, shift).astype(np.int64)
    if a["relu"]:
        value = np.maximum(value, 0)
    halve = int(a["pool"] > 0)
    count = a["out_words"] * (out_rows >> halve) * (out_columns >> halve)
    target = span_of(memories.output, a["out_base"], count)
    if a["add"]:
        skip = memories.output[target].astype(np.int64).reshape(value.shape)
        both = value * a["add_multiplier_new"] + skip * a["add_multiplier_skip"]
        value = arithmetic.saturate(
            arithmetic.round_shift(both, a["add_shift"])).astype(np.int64)
    if halve:
        value = value.reshape(a["out_words"], out_rows // 2, 2, out_columns // 2, 2, memories.tm)
        value = _pooled(value, a["pool"])
    memories.output[target] = value.reshape(-1, memories.tm).astype(np.int8)


def _weights(memories: Buffers, base: int, count: int, narrow: bool) -> np.ndarray:
    """int8 (count, tm * tn): words of weights from a word of WEIGHT on."""
    if not narrow:
        return memories.weight[span_of(memories.weight, base, count)]
    held = memories.weight[span_of(memories.weight, base, -(-count // 2))]
    halves = held.reshape(-1, memories.tm // 2 * memories.tn)[:count]
    # Shifts of int8 keep the sign.
    return np.concatenate([halves << 4 >> 4, halves >> 4], axis=1)


def _pooled(value: np.ndarray, pool: int) -> np.ndarray:
    """(words, rows, 2, columns, 2, tm): the mean of each square (1), or its greatest (2)."""
    if pool == 2:
        return np.asarray(value.max(axis=(2, 4)))
    return np.asarray(arithmetic.round_shift(value.sum(axis=(2, 4)), 2))


def accesses(opcode: Opcode, values: Mapping[str, np.ndarray], trips: np.ndarray,
             overlay: Overlay) -> Accesses:
    """A trip reads INPUT and WEIGHT across; partial sums and results go a word at a time. See
    `EngineSlice`."""
    words = values["out_rows"] * values["out_columns"] * values["out_words"]
    partial = (2 - values["first"] - values["last"]) * words
    results = values["last"] * words
    return {"input": trips, "weight": trips, "accumulator": partial / overlay.columns,
            "output": results, "parameters": results * (overlay.tm / overlay.requantizers),
            "skip": results * values["add"]}

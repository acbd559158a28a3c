"""Convolution on floating-point BLAS: exact in integers, and plain in float64.

It scales nothing down and knows no layer: the integer form returns int32 accumulators.

float32 holds every integer up to 2 ** 24. A product of two int8 values is at most 2 ** 14, so a
sum of 1,024 of them is exact in any order; longer sums are cut into such pieces and the pieces
added in int32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EXACT_TERMS = 1024  # 1024 * 128 * 128 = 2 ** 24
BLOCK_VALUES = 1 << 20  # values gathered at a time, 8 MiB of float64


def exact_matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int32 product of int8-valued float32 matrices (m, k) and (k, n); k up to 2 ** 17 - 1."""
    inner = left.shape[1]
    if inner >= 1 << 17:
        raise ValueError(f"inner size {inner}: the int32 accumulator could overflow at 2**17")
    total = np.zeros((left.shape[0], right.shape[1]), np.int32)
    for start in range(0, inner, EXACT_TERMS):
        piece = left[:, start : start + EXACT_TERMS] @ right[start : start + EXACT_TERMS]
        total += piece.astype(np.int32)
    return total


def convolve(
    value: np.ndarray, weights: np.ndarray, stride: int = 1, padding: int = 0, groups: int = 1,
    pad_value: float = 0,
) -> np.ndarray:
    """int32 (out, out_rows, out_columns) of int8 value (in, rows, columns), `pad_value` outside.

    `weights`: int8 (out, in / groups, kernel_rows, kernel_columns). No bias.
    """
    if value.dtype != np.int8 or weights.dtype != np.int8:
        raise ValueError(f"value is {value.dtype}, weights are {weights.dtype}; both must be int8")
    return _convolve(_padded(value, padding, pad_value), weights, stride, groups, exact_matmul,
                     np.int32)


def accumulate(
    value: np.ndarray, weights: np.ndarray, stride: int = 1, padding: int = 0, groups: int = 1,
    pad_value: float = 0,
) -> np.ndarray:
    """int64 accumulators of int8 or int16 values; the wide ones by float64, exact below 2 ** 53.

    A wide product has 23 bits, so hardware needs two passes of 8 bits or a longer accumulator.
    """
    if value.dtype == np.int16:
        return _convolve(_padded(value, padding, pad_value), weights, stride, groups, np.matmul,
                         np.float64).astype(np.int64)
    return convolve(value, weights, stride, padding, groups, pad_value).astype(np.int64)


def convolve_real(
    value: np.ndarray, weights: np.ndarray, stride: int = 1, padding: int = 0, groups: int = 1,
    pad_value: float = 0,
) -> np.ndarray:
    """The same of real values, in float64."""
    return _convolve(_padded(value, padding, pad_value), weights, stride, groups, np.matmul,
                     np.float64)


def _padded(value: np.ndarray, padding: int, pad_value: float) -> np.ndarray:
    return np.pad(value, ((0, 0), (padding, padding), (padding, padding)),
                  constant_values=pad_value)


def _convolve(
    padded: np.ndarray, weights: np.ndarray, stride: int, groups: int,
    product: Callable[[np.ndarray, np.ndarray], np.ndarray], dtype: type,
) -> np.ndarray:
    out, per_group, kernel_rows, kernel_columns = weights.shape
    if per_group * groups != padded.shape[0] or out % groups:
        raise ValueError(f"weights {weights.shape} in {groups} groups do not fit "
                         f"{padded.shape[0]} input channels")
    out_rows = (padded.shape[1] - kernel_rows) // stride + 1
    out_columns = (padded.shape[2] - kernel_columns) // stride + 1
    result = np.empty((out, out_rows, out_columns), dtype)
    work = np.float64 if dtype is np.float64 else np.float32
    each = out // groups
    for group in range(groups):
        part = padded[group * per_group : (group + 1) * per_group]
        flat = weights[group * each : (group + 1) * each].reshape(each, -1).astype(work)
        _convolve_group(part, flat, (kernel_rows, kernel_columns), stride,
                        result[group * each : (group + 1) * each], product)
    return result


def _convolve_group(padded: np.ndarray, flat: np.ndarray, kernel: tuple[int, int], stride: int,
                    result: np.ndarray,
                    product: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 3, 4, 1, 2)
    out, out_rows, out_columns = result.shape
    step = max(1, BLOCK_VALUES // (flat.shape[1] * out_columns))
    for row in range(0, out_rows, step):
        block = windows[:, :, :, row : row + step].astype(flat.dtype, order="C")
        rows = block.shape[3]
        columns = block.reshape(flat.shape[1], rows * out_columns)
        result[:, row : row + rows] = product(flat, columns).reshape(out, rows, out_columns)

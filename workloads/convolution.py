"""Convolution on floating-point BLAS: exact in integers, and plain in float64.

It scales nothing down and knows no layer: the integer form returns int32 accumulators.

float32 holds every integer up to 2 ** 24. A product of two int8 values is at most 2 ** 14, so a
sum of 1,024 of them is exact in any order; longer sums are cut into such pieces and the pieces
added in int32.

Large products are cut into blocks, and threads of our own take a block each on a BLAS of one
thread. BLAS's own threads spin while they wait for one another: beside other work on the machine
a product with few rows took a hundred times as long. Blocks depend on shapes alone, so that the
number of cores changes no value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

EXACT_TERMS = 1024  # 1024 * 128 * 128 = 2 ** 24
BLOCK_VALUES = 1 << 18  # values gathered at a time, 2 MiB of float64
SMALL_PRODUCT = 1 << 18  # multiply-accumulates that BLAS does on one thread by itself

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


def exact_matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int32 product of int8-valued float32 matrices (..., m, k) and (..., k, n); k up to
    2 ** 17 - 1."""
    inner = left.shape[-1]
    if inner >= 1 << 17:
        raise ValueError(f"inner size {inner}: the int32 accumulator could overflow at 2**17")
    if inner <= EXACT_TERMS:
        return np.matmul(left, right).astype(np.int32)
    total = np.zeros((*left.shape[:-1], right.shape[-1]), np.int32)
    for start in range(0, inner, EXACT_TERMS):
        piece = np.matmul(left[..., start : start + EXACT_TERMS],
                          right[..., start : start + EXACT_TERMS, :])
        total += piece.astype(np.int32)
    return total


def exact_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """int64 product of matrices of integers (m, k) and (k, n), of 8 or 16 bits."""
    if left.dtype == right.dtype == np.int8:
        return _product(left, right, exact_matmul, np.float32, np.int32).astype(np.int64)
    # Products of at most 31 bits: float64 holds sums of 2 ** 22 of them exactly.
    return _product(left, right, np.matmul, np.float64, np.float64).astype(np.int64)


def real_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float64 product of real matrices (m, k) and (k, n)."""
    return _product(left, right, np.matmul, np.float64, np.float64)


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
    if not padding:
        return value
    channels, rows, columns = value.shape
    padded = np.full((channels, rows + 2 * padding, columns + 2 * padding), pad_value, value.dtype)
    padded[:, padding : padding + rows, padding : padding + columns] = value
    return padded


def _product(left: np.ndarray, right: np.ndarray, product: Product, work: type,
             dtype: type) -> np.ndarray:
    """A matrix product, a block of the right one's columns after another."""
    result: np.ndarray = np.empty((left.shape[0], right.shape[1]), dtype)
    flat: np.ndarray = left.astype(work, copy=False)
    step = max(1, BLOCK_VALUES // max(1, left.shape[1]))

    def block(start: int) -> None:
        part = slice(start, start + step)
        result[:, part] = product(flat, right[:, part].astype(work, copy=False))

    _each(block, range(0, right.shape[1], step), left.size * right.shape[1])
    return result


def _convolve(
    padded: np.ndarray, weights: np.ndarray, stride: int, groups: int, product: Product,
    dtype: type,
) -> np.ndarray:
    out, per_group, kernel_rows, kernel_columns = weights.shape
    if per_group * groups != padded.shape[0] or out % groups:
        raise ValueError(f"weights {weights.shape} in {groups} groups do not fit "
                         f"{padded.shape[0]} input channels")
    rows = (padded.shape[1] - kernel_rows) // stride + 1
    columns = (padded.shape[2] - kernel_columns) // stride + 1
    work = np.float64 if dtype is np.float64 else np.float32
    taps, flat = _taps(weights, groups, work)
    inputs = padded.reshape(groups, per_group, *padded.shape[1:])
    result = np.empty((groups, out // groups, rows, columns), dtype)

    def block(chosen: tuple[slice, slice]) -> None:
        group, part = chosen
        height = part.stop - part.start
        gathered = np.empty((group.stop - group.start, per_group, len(taps), height, columns), work)
        for index, (row, column) in enumerate(taps):
            first = row + part.start * stride
            gathered[:, :, index] = inputs[
                group, :, first : first + (height - 1) * stride + 1 : stride,
                column : column + (columns - 1) * stride + 1 : stride]
        found = product(flat[group], gathered.reshape(len(gathered), flat.shape[2], -1))
        result[group, :, part] = found.reshape(len(found), -1, height, columns)

    _each(block, _blocks(groups, rows, flat.shape[2] * columns), flat.size * rows * columns)
    return result.reshape(out, rows, columns)


def _taps(weights: np.ndarray, groups: int,
          work: type) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The places of a kernel that hold any weight (dilation is zeros between them), and the
    weights there as matrices (groups, out / groups, in / groups * taps)."""
    used = [(int(row), int(column)) for row, column in np.argwhere(
        (weights != 0).any(axis=(0, 1)))] or [(0, 0)]
    at_taps = weights[:, :, [row for row, _ in used], [column for _, column in used]]
    return used, at_taps.astype(work).reshape(groups, len(weights) // groups, -1)


def _blocks(groups: int, rows: int, row_values: int) -> Iterator[tuple[slice, slice]]:
    """Groups and output rows in pieces that gather at most `BLOCK_VALUES`, or one row of one
    group."""
    height = min(rows, max(1, BLOCK_VALUES // max(1, row_values)))
    wide = max(1, BLOCK_VALUES // max(1, row_values * height))
    for group in range(0, groups, wide):
        for row in range(0, rows, height):
            yield (slice(group, min(group + wide, groups)), slice(row, min(row + height, rows)))


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _each(work: Callable[[Any], None], pieces: Iterable[Any], products: int) -> None:
    """Do all pieces, those of a large product on all cores."""
    if products <= SMALL_PRODUCT:
        for piece in pieces:
            work(piece)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)
    left = list(pieces)

    def own(first: int) -> None:
        for piece in left[first::cores]:
            work(piece)

    with _libraries().limit(limits=1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        list(pool.map(own, range(min(cores, len(left)))))

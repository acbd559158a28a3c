"""Integer arithmetic of quantized layers: the one rounding rule, tables and fixed-point forms.

It knows no graph and no layer; `workloads.reference` applies these functions to tensors.

The rule, everywhere a value is scaled down: round half to even, then saturate.

    round_shift(p, 0) = p
    round_shift(p, s) = (p + (1 << (s - 1)) - 1 + ((p >> s) & 1)) >> s        (>> floors)
    requantize(v, m, s) = saturate(round_shift(v * m, s))

`v` is int32, `m` a signed 16-bit and `s` an integer from 0 to 47, so `v * m` fits 48 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

MULTIPLIER_BITS = 15  # 0 < multiplier < 2 ** 15 (affine and matmul allow a sign)
MAX_SHIFT = 47
MASK_FRACTION_BITS = 7  # softmax masks, heat maps, sigmoids and pictures: scale 2 ** -7
EXP_ONE = 1 << 15  # exp tables hold exp * 2 ** 15 as uint16
RECIPROCAL_BITS = 40  # softmax: reciprocal = 2 ** 40 // sum
KEYPOINT_FRACTION_BITS = 14  # keypoints: int16, normalized coordinate * 2 ** 14
NORM_FRACTION_BITS = 12  # group norm: scales and offsets; its affine step has twice as many
FILM_FRACTION_BITS = 24  # group norm: step of a modulating gain
COEFFICIENT_FRACTION_BITS = 14  # sampler coefficients: int16, -1 .. 1 times 2 ** 14
GAUSSIAN_ENTRIES = 1024
GAUSSIAN_STEP_BITS = 3  # one table step is 2 ** 3 keypoint steps, 2 ** -11 of a unit


def round_shift(value: np.ndarray | int, shift: np.ndarray | int) -> np.ndarray:
    """`value / 2 ** shift`, rounded half to even, as int64. `shift` broadcasts; 0 to 47."""
    wide = np.asarray(value, dtype=np.int64)
    digits = np.asarray(shift, dtype=np.int64)
    if digits.size and (digits.min() < 0 or digits.max() > MAX_SHIFT):
        raise ValueError(f"shift is {digits.min()}..{digits.max()}, must be 0..{MAX_SHIFT}")
    # A tie is decided by the last digit kept; without a shift nothing is added.
    rounded = np.asarray(wide >> digits)
    rounded &= np.where(digits > 0, np.int64(1), np.int64(0))
    rounded += np.where(digits > 0, (np.int64(1) << digits >> 1) - 1, 0)
    rounded += wide
    rounded >>= digits
    return rounded


def limits(bits: int) -> tuple[int, int]:
    """Least and greatest value of a signed integer of 8, 16 or 32 bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def integer_type(bits: int) -> np.dtype:
    """The numpy type of a tensor of 8, 16 or 32 bits; ValueError for another width."""
    if bits not in (8, 16, 32):
        raise ValueError(f"bits is {bits}, must be 8, 16 or 32")
    return np.dtype(f"int{bits}")


def saturate(value: np.ndarray, bits: int = 8) -> np.ndarray:
    """`value` clipped to signed `bits`, in the numpy type of that width."""
    least, greatest = limits(bits)
    return np.clip(value, least, greatest).astype(integer_type(bits))


def requantize(
    value: np.ndarray, multiplier: np.ndarray | int, shift: np.ndarray | int, bits: int = 8
) -> np.ndarray:
    """`saturate(round_shift(value * multiplier, shift))`; multiplier and shift broadcast."""
    product = np.asarray(value, dtype=np.int64) * np.asarray(multiplier, dtype=np.int64)
    rounded, (least, greatest) = round_shift(product, shift), limits(bits)
    return np.clip(rounded, least, greatest, out=rounded).astype(integer_type(bits))


def floor_log2(value: np.ndarray | float) -> np.ndarray:
    """Exponents of the greatest powers of two not above positive values; exact on any processor.

    A logarithm is not: vector units differ in its last bit, which decides at a power of two.
    """
    return np.frexp(value)[1] - 1


def ceil_log2(value: np.ndarray | float) -> np.ndarray:
    """Exponents of the least powers of two not below positive values, exact in the same way."""
    mantissa, exponent = np.frexp(value)
    return exponent - (mantissa == 0.5)


def multiplier_and_shift(ratio: float, power_of_two: bool) -> tuple[int, int]:
    """The (multiplier, shift) whose `multiplier / 2 ** shift` is nearest to a positive ratio.

    Power-of-two form: multiplier 1 (2 ** n with shift 0 if the ratio is above 1). Otherwise
    2 ** 14 <= multiplier < 2 ** 15 where the shift allows it. ValueError outside
    2 ** -47 .. 2 ** 15.
    """
    if not 2.0**-MAX_SHIFT <= ratio < 2.0**MULTIPLIER_BITS:
        raise ValueError(f"scale ratio is {ratio:g}, must be from 2**-{MAX_SHIFT} to "
                         f"2**{MULTIPLIER_BITS}")
    if power_of_two:
        exponent = round(float(np.log2(ratio)))
        return (1, -exponent) if exponent <= 0 else (1 << min(exponent, 14), 0)
    shift = MULTIPLIER_BITS - 1 - int(floor_log2(ratio))
    shift = max(0, min(shift, MAX_SHIFT))
    multiplier = int(np.rint(ratio * 2.0**shift))
    if multiplier >= 1 << MULTIPLIER_BITS:  # rounded up to 2 ** 15
        multiplier, shift = (multiplier + 1) >> 1, shift - 1
    return multiplier, shift


def lookup_table(
    function: Callable[[np.ndarray], np.ndarray], in_scale: float, out_scale: float
) -> np.ndarray:
    """int8 (256): entry v + 128 is saturate(rint(function(v * in_scale) / out_scale))."""
    real = function(np.arange(-128, 128) * in_scale) / out_scale
    return saturate(np.rint(real), 8)


def wide_table(
    function: Callable[[np.ndarray], np.ndarray], in_scale: float, out_scale: float
) -> np.ndarray:
    """int16 (257): entry i is saturate16(rint(function(256 (i - 128) in_scale) / out_scale))."""
    return saturate(np.rint(function(np.arange(-128, 129) * 256 * in_scale) / out_scale), 16)


def interpolate(value: np.ndarray, table: np.ndarray) -> np.ndarray:
    """int16 from int16 by a table of 257: with h = (x >> 8) + 128 and f = x & 255

        y = round_shift(table[h] * (256 - f) + table[h + 1] * f, 8)

    `table`: (257,), or (channels, 257) for values (channels, ...).
    """
    wide = value.astype(np.int64)
    index, part = (wide >> 8) + 128, wide & 255
    entries = np.broadcast_to(table.astype(np.int64), (len(value), 257))
    channel = np.arange(len(value)).reshape(-1, *[1] * (value.ndim - 1))
    total = entries[channel, index] * (256 - part) + entries[channel, index + 1] * part
    return saturate(round_shift(total, 8), 16)


def sigmoid(value: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-value)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -value))


def silu(value: np.ndarray) -> np.ndarray:
    """value * sigmoid(value)."""
    return value * sigmoid(value)


def exp_table(in_scale: float) -> np.ndarray:
    """uint16 (256): entry d is rint(2 ** 15 * exp(-d * in_scale)), for d = max - value."""
    return np.rint(EXP_ONE * np.exp(-np.arange(256) * in_scale)).astype(np.uint16)


def softmax(
    logits: np.ndarray, table: np.ndarray, fraction_bits: int = MASK_FRACTION_BITS, bits: int = 8
) -> np.ndarray:
    """Softmax over axis 0 of int8 logits; the result's scale is 2 ** -fraction_bits.

    At each position, in integers (`table` from `exp_table`):
        e_c = table[max - x_c]            1 <= sum of e < 2 ** 31, since table[0] = 2 ** 15
        reciprocal = 2 ** 40 // sum(e)    floor division, once a position
        y_c = saturate(round_shift(e_c * reciprocal, 40 - fraction_bits))
    So a probability of one becomes 127 with 7 fraction bits. The floor makes y too small by
    less than 2 ** fraction_bits * sum(e) / 2 ** 40 of a step.
    """
    wide = logits.astype(np.int64)
    exponentials = table.astype(np.int64)[wide.max(axis=0, keepdims=True) - wide]
    reciprocal = (1 << RECIPROCAL_BITS) // exponentials.sum(axis=0, keepdims=True)
    return saturate(
        round_shift(exponentials * reciprocal, RECIPROCAL_BITS - fraction_bits), bits
    )


def bilinear(image: np.ndarray, grid: np.ndarray, fraction_bits: int) -> np.ndarray:
    """Sample `image` (channels, rows, columns) at int16 `grid` (2, out_rows, out_columns).

    The image is int8 or int16, and so is the result.

    grid[0] is x (columns), grid[1] is y (rows), in pixels of the image times 2 ** F; F is
    `fraction_bits`. A pixel outside the image is zero. Per position, shared by all channels:
        x0 = x >> F, fx = x & (2 ** F - 1), y0 and fy alike            (>> floors)
        w00 = (2**F - fx) * (2**F - fy)   w01 = fx * (2**F - fy)       w01 is at (y0, x0 + 1)
        w10 = (2**F - fx) * fy            w11 = fx * fy                w10 is at (y0 + 1, x0)
    and per channel
        out = saturate(round_shift(w00*v00 + w01*v01 + w10*v10 + w11*v11, 2 * F))
    The weights sum to 2 ** 2F, so the scale of the image is the scale of the result.
    """
    rows, columns = image.shape[1:]
    one = 1 << fraction_bits
    x, y = grid[0].astype(np.int64), grid[1].astype(np.int64)
    left, top = x >> fraction_bits, y >> fraction_bits
    right_part, low_part = x & (one - 1), y & (one - 1)
    total = np.zeros((image.shape[0], *grid.shape[1:]), np.int64)
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            weight = (right_part if right else one - right_part) * (
                low_part if down else one - low_part
            )
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            weight = np.where(inside, weight, 0)
            pixel = image[:, np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
            total += weight * pixel
    return saturate(round_shift(total, 2 * fraction_bits), 8 * image.itemsize)


def displacements(
    source: np.ndarray, driving: np.ndarray, rows: int, columns: int, fraction_bits: int
) -> np.ndarray:
    """Displacement of each keypoint in grid steps: int16 (2, K + 1, 1); entry 0 is zero.

    `source`, `driving`: int16 (2, K, 1), x then y, with 14 fraction bits. A normalized
    difference of 2 is (columns - 1) pixels, so with F = `fraction_bits`
        d_x = saturate16(round_shift((source_x - driving_x) * (columns - 1), 15 - F))
    and d_y alike with rows.
    """
    difference = source.astype(np.int64) - driving.astype(np.int64)
    size = np.array([columns - 1, rows - 1]).reshape(2, 1, 1)
    found = np.zeros((2, source.shape[1] + 1, 1), np.int16)
    found[:, 1:] = requantize(difference, size, KEYPOINT_FRACTION_BITS + 1 - fraction_bits, 16)
    return found


def identity_grid(rows: int, columns: int, fraction_bits: int) -> np.ndarray:
    """int64 (2, rows, columns): x = column << F and y = row << F."""
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack([column, row]) << fraction_bits


def sparse_flow(shift: np.ndarray, rows: int, columns: int, fraction_bits: int) -> np.ndarray:
    """Grids int16 (2 (K + 1), rows, columns); channel 2k is x, 2k + 1 is y of grid k.

    `shift` from `displacements`. grid_k = saturate16(identity + d_k); grid 0 is the identity.
    """
    identity = identity_grid(rows, columns, fraction_bits)
    moved = identity[None] + shift.astype(np.int64)[:, :, 0].T[:, :, None, None]
    return saturate(moved, 16).reshape(-1, rows, columns)


def flow_sum(masks: np.ndarray, shift: np.ndarray, fraction_bits: int) -> np.ndarray:
    """One grid int16 (2, rows, columns) from masks int8 (K + 1, rows, columns), scale 2 ** -7.

        x = saturate16((column << F) + round_shift(sum over k of mask_k * d_kx, 7))
    and y alike; the sum fits int32.
    """
    moved = np.einsum("krc,pk->prc", masks.astype(np.int64), shift[:, :, 0].astype(np.int64))
    identity = identity_grid(masks.shape[1], masks.shape[2], fraction_bits)
    return saturate(identity + round_shift(moved, MASK_FRACTION_BITS), 16)


def modulated(
    scale: np.ndarray, offset: np.ndarray, gain: np.ndarray, moved: np.ndarray, film: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of a group norm's channels, modulated by a gain f and an offset h each.

        scale = round_shift(scale * f * m0, 24),  offset = round_shift(offset * f * m0, 24) + h * m1

    All int64 (channels); `film` is (m0, m1).
    """
    first, second = (int(item) for item in film)
    return (round_shift(scale * gain * first, FILM_FRACTION_BITS),
            round_shift(offset * gain * first, FILM_FRACTION_BITS) + moved * second)


def group_norm_entries(
    sums: tuple[int, int, int], scale: np.ndarray, offset: np.ndarray, epsilon: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multipliers int16, offsets int32 and shifts for the second pass of a group norm.

    `sums`: count n, sum S1 and sum of squares S2 of the group's values. `scale`, `offset`:
    gamma and beta of its channels in output steps, with 12 fraction bits. In integers:
        root = isqrt(max(n * S2 - S1 * S1 + epsilon, 1) << 8)      16 n times the deviation
        A = (scale * n << 16) // root                              24 fraction bits, floors
        B = (offset << 12) - A * S1 // n
        drop = max(0, bit length of abs(A) - 15, bit length of abs(B) - 31), at most 24
        multiplier = saturate16(round_shift(A, drop)), offset = saturate32(round_shift(B, drop)),
        shift = 24 - drop
    The second pass is then the affine step y = saturate(round_shift(x * multiplier + offset,
    shift)). Every product fits int64 for n up to 2 ** 18.
    """
    count, total, squares = sums
    root = math.isqrt(max(count * squares - total * total + epsilon, 1) << 8)
    slope = (scale.astype(np.int64) * count << NORM_FRACTION_BITS + 4) // root
    start = (offset.astype(np.int64) << NORM_FRACTION_BITS) - slope * total // count
    drop = np.array([max(0, int(first).bit_length() - 15, int(second).bit_length() - 31)
                     for first, second in zip(slope, start, strict=True)])
    drop = np.minimum(drop, 2 * NORM_FRACTION_BITS)
    return (saturate(round_shift(slope, drop), 16), saturate(round_shift(start, drop), 32),
            (2 * NORM_FRACTION_BITS - drop).astype(np.int32))


def gaussian_table(variance: float) -> np.ndarray:
    """uint16 (1024): entry i is rint(2 ** 15 * exp(-(i / 2 ** 11) ** 2 / (2 variance)))."""
    distance = np.arange(GAUSSIAN_ENTRIES) * 2.0 ** (GAUSSIAN_STEP_BITS - KEYPOINT_FRACTION_BITS)
    return np.rint(EXP_ONE * np.exp(-(distance**2) / (2 * variance))).astype(np.uint16)


def axis_coordinates(count: int) -> np.ndarray:
    """int16 (count): the normalized coordinate of each row or column, -1 .. 1 times 2 ** 14."""
    if count == 1:
        return np.full(1, -(1 << KEYPOINT_FRACTION_BITS), np.int16)
    steps = (2 * np.arange(count) - (count - 1)) * (1 << KEYPOINT_FRACTION_BITS)
    return np.rint(steps / (count - 1)).astype(np.int16)


def heat_maps(
    source: np.ndarray, driving: np.ndarray, table: np.ndarray, row_axis: np.ndarray,
    column_axis: np.ndarray,
) -> np.ndarray:
    """Maps int8 (K + 1, rows, columns), scale 2 ** -7; channel 0 is zero.

    `source`, `driving`: int16 (2, K, 1), x then y. Separable; with table from `gaussian_table`
        g(a, p) = table[min(round_shift(abs(a - p), 3), 1023)]
        h(point) = g(row_axis[r], point_y) * g(column_axis[c], point_x)      (at most 2 ** 30)
        y = saturate(round_shift(h(driving) - h(source), 23))
    """
    wide = table.astype(np.int64)

    def profile(axis: np.ndarray, point: np.ndarray) -> np.ndarray:
        distance = np.abs(axis.astype(np.int64)[None, :] - point.astype(np.int64)[:, None])
        return wide[np.minimum(round_shift(distance, GAUSSIAN_STEP_BITS), GAUSSIAN_ENTRIES - 1)]

    def product(points: np.ndarray) -> np.ndarray:
        by_row = profile(row_axis, points[1, :, 0])
        by_column = profile(column_axis, points[0, :, 0])
        return by_row[:, :, None] * by_column[:, None, :]

    maps = np.zeros((source.shape[1] + 1, len(row_axis), len(column_axis)), np.int8)
    maps[1:] = saturate(round_shift(product(driving) - product(source), 30 - MASK_FRACTION_BITS))
    return maps


def fixed_keypoints(points: np.ndarray) -> np.ndarray:
    """int16 (2, K, 1) from real keypoints (K, 2), x and y in -1 .. 1; read as FP16 first.

    FP16 is how the codec sends them. saturate16(rint(fp16(point) * 2 ** 14)).
    """
    half = np.asarray(points, dtype=np.float16).astype(np.float64)
    if half.ndim != 2 or half.shape[1] != 2 or not np.isfinite(half).all():
        raise ValueError(f"points have shape {half.shape}, must be (K, 2) and finite")
    return saturate(np.rint(half.T[:, :, None] * (1 << KEYPOINT_FRACTION_BITS)), 16)

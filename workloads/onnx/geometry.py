"""Windows, paddings and interpolation of ONNX nodes as numbers and matrices.

It makes no layers; `onnx_windows` does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workloads.onnx.read import Node
from workloads.onnx.walk import Unsupported

Pair = tuple[int, int]


@dataclass(frozen=True)
class Sliding:
    """A sliding window over (rows, columns). `before` and `after` are the paddings of each."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair
    after: Pair

    @property
    def extent(self) -> Pair:
        """Rows and columns that the window spans."""
        return tuple((size - 1) * step + 1  # type: ignore[return-value]
                     for size, step in zip(self.kernel, self.dilation, strict=True))


def sliding(node: Node, kernel: Sequence[int], size: Pair) -> Sliding:
    """The window of a convolution or a pool over `size` (rows, columns).

    One-dimensional windows run along the rows. `Unsupported` for three dimensions.
    """
    rank = len(kernel)
    if rank not in (1, 2):
        raise Unsupported(f"kernel {list(kernel)} must have one or two dimensions")

    def pair(values: Sequence[int], fill: int) -> Pair:
        found = [int(value) for value in values] + [fill] * (2 - rank)
        return found[0], found[1]

    pads = [int(value) for value in node.attribute("pads", [0] * 2 * rank)]
    found = Sliding(pair(kernel, 1), pair(node.attribute("strides", [1] * rank), 1),
                    pair(node.attribute("dilations", [1] * rank), 1),
                    pair(pads[:rank], 0), pair(pads[rank:], 0))
    automatic = node.text("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (-(-length // step) - 1) * step + extent - length) for length, step, extent
                 in zip(size, found.stride, found.extent, strict=True)]
        less, more = [value // 2 for value in total], [-(-value // 2) for value in total]
        before, after = (less, more) if automatic == "SAME_UPPER" else (more, less)
        found = Sliding(found.kernel, found.stride, found.dilation, (before[0], before[1]),
                        (after[0], after[1]))
    if node.attribute("ceil_mode", 0):
        found = _reaching(found, size)
    return found


def _reaching(window: Sliding, size: Pair) -> Sliding:
    """The window with so much more padding behind that a last partial step counts.

    A window that would start behind the input does not count.
    """
    after = []
    for axis in (0, 1):
        step, before = window.stride[axis], window.before[axis]
        room = size[axis] + before + window.after[axis] - window.extent[axis]
        last = -(-room // step)
        if last * step >= size[axis] + before:
            last -= 1
        after.append(window.after[axis] + last * step - room)
    return Sliding(window.kernel, window.stride, window.dilation, window.before,
                   (after[0], after[1]))


def spread(weights: np.ndarray, window: Sliding) -> np.ndarray:
    """Weights (out, in, rows, columns) with the zero taps of a dilation written out."""
    if window.dilation == (1, 1):
        return weights
    wide = np.zeros((*weights.shape[:2], *window.extent), weights.dtype)
    wide[:, :, :: window.dilation[0], :: window.dilation[1]] = weights
    return wide


def evenly_padded(weights: np.ndarray, before: Pair, after: Pair) -> tuple[np.ndarray, int]:
    """Weights grown by zero taps, and the one padding with which they compute the same.

    A side that is padded by less than the greatest padding p gets p - padding zero taps: they
    read the rows that the even padding adds, and weigh them zero.
    """
    most = max(*before, *after)
    grow = [(most - left, most - right) for left, right in zip(before, after, strict=True)]
    return np.pad(weights, ((0, 0), (0, 0), *grow)), most


@dataclass(frozen=True)
class Phases:
    """A transposed convolution along one axis: output `step * m + a` is the sum over taps u of
    input m + u - before, weighted by weight `taps[a][u]` (-1: none). `positions` m, `size` n."""

    taps: np.ndarray
    before: int
    after: int
    positions: int
    size: int


def phases(length: int, kernel: int, step: int, dilation: int, before: int, after: int,
           extra: int) -> Phases:
    """From out[step * i + tap * dilation - before] += in[i] * weight[tap]."""
    reach = (kernel - 1) * dilation
    size = step * (length - 1) + extra + reach + 1 - before - after
    low, high = -((step - 1 + before) // step), (reach - before) // step
    taps = np.full((step, high - low + 1), -1)
    for phase in range(step):
        for shift in range(low, high + 1):
            place = phase + before + step * shift
            if 0 <= place <= reach and place % dilation == 0:
                taps[phase, high - shift] = place // dilation
    positions = -(-size // step)
    return Phases(taps, high, positions - length - low, positions, size)


def interpolation(node: Node, before: int, after: int, scale: float,
                  old: bool = False) -> np.ndarray:
    """float64 (after, before): what Resize reads along one axis. `Unsupported` beyond nearest
    and linear. `old`: Upsample, and Resize of operator set 10, know only one rule, asymmetric and
    floor."""
    mode = node.text("mode", "nearest")
    if old:
        place = np.arange(after) / scale
    else:
        place = _coordinates(node.text("coordinate_transformation_mode", "half_pixel"), before,
                             after, scale)
    matrix = np.zeros((after, before))
    rows = np.arange(after)
    if mode == "nearest":
        way = "floor" if old else node.text(
            "nearest_mode", "round_prefer_floor")
        whole = {"floor": np.floor(place), "ceil": np.ceil(place),
                 "round_prefer_floor": np.ceil(place - 0.5),
                 "round_prefer_ceil": np.floor(place + 0.5)}[way]
        matrix[rows, np.clip(whole, 0, before - 1).astype(int)] = 1
        return matrix
    if mode != "linear" or node.attribute("antialias", 0):
        raise Unsupported(f"mode {mode} must be nearest or linear, without antialias")
    place = np.clip(place, 0, before - 1)
    low = np.minimum(np.floor(place).astype(int), max(before - 2, 0))
    np.add.at(matrix, (rows, low), 1 - (place - low))
    np.add.at(matrix, (rows, np.minimum(low + 1, before - 1)), place - low)
    return matrix


def _coordinates(mode: str, before: int, after: int, scale: float) -> np.ndarray:
    rows = np.arange(after)
    match mode:
        case "half_pixel" | "pytorch_half_pixel" if mode == "half_pixel" or after > 1:
            return (rows + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return np.zeros(after)
        case "asymmetric":
            return rows / scale
        case "align_corners":
            return rows * ((before - 1) / max(after - 1, 1))
    raise Unsupported(f"coordinate_transformation_mode {mode} must be half_pixel, "
                      "pytorch_half_pixel, asymmetric or align_corners")


def exact_step(matrix: np.ndarray) -> float:
    """The step of int8 weights that holds a matrix, exactly if a power of two does."""
    for digits in range(8):
        if np.array_equal(np.rint(matrix * 2**digits), matrix * 2**digits) and (
                np.abs(matrix).max() * 2**digits <= 127):
            return 2.0**-digits
    return float(np.abs(matrix).max()) / 127


def grid_digits(rows: int, columns: int) -> int:
    """Binary digits of int16 coordinates that reach twice the picture."""
    return max(0, 14 - math.ceil(math.log2(max(rows, columns, 2))))

"""What a Resize reads along one axis, as a matrix.

It makes no layers; `sampling` does. The rules are those of the operator's specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from workloads.onnx.read import Node
from workloads.onnx.walk import Unsupported


@dataclass(frozen=True)
class Stretch:
    """One axis of a Resize: sizes before and after, the scale as the file states it, and the
    part of the axis that is read (tf_crop_and_resize), from 0 to 1."""

    before: int
    after: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    @property
    def kept(self) -> bool:
        """Does the axis stay as it is?"""
        return self.before == self.after and self.scale == 1.0 and self.region == (0.0, 1.0)


def interpolation(node: Node, axis: Stretch, old: bool = False) -> np.ndarray:
    """float64 (after, before): what each place reads along one axis; a row of zeros reads none.

    `old`: Upsample, and Resize of operator set 10, know only one rule: asymmetric, and nearest is
    floor, ceil where the axis shrinks.
    """
    mode = node.text("mode", "nearest")
    place = _coordinates("asymmetric" if old else node.text(
        "coordinate_transformation_mode", "half_pixel"), axis)
    if mode == "nearest":
        matrix = _nearest(("ceil" if axis.scale < 1 else "floor") if old else
                          node.text("nearest_mode", "round_prefer_floor"), place, axis)
    elif mode in ("linear", "bilinear", "trilinear"):
        matrix = _weighed(node, axis, place, _hat, 1.0)
    elif mode == "cubic":
        sharp = node.attribute("cubic_coeff_a", -0.75)
        matrix = _weighed(node, axis, place, lambda gap: _cubic(gap, sharp), 2.0)
    else:
        raise Unsupported(f"mode {mode} must be nearest, linear or cubic")
    if node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        beyond = (place < 0) | (place > axis.before - 1)
        if beyond.any() and node.attribute("extrapolation_value", 0.0) != 0:
            raise Unsupported("extrapolation_value must be 0")
        matrix[beyond] = 0
    return matrix


def _nearest(way: str, place: np.ndarray, axis: Stretch) -> np.ndarray:
    rules = {"floor": np.floor(place), "ceil": np.ceil(place),
             "round_prefer_floor": np.ceil(place - 0.5),
             "round_prefer_ceil": np.floor(place + 0.5)}
    if way not in rules:
        raise Unsupported(f"nearest_mode {way} must be {', '.join(rules)}")
    matrix = np.zeros((axis.after, axis.before))
    matrix[np.arange(axis.after), np.clip(rules[way], 0, axis.before - 1).astype(int)] = 1
    return matrix


def _hat(gap: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(gap), 0)


def _cubic(gap: np.ndarray, sharp: float) -> np.ndarray:
    """Keys 1981, "Cubic convolution interpolation for digital image processing"."""
    far = np.abs(gap)
    near = ((sharp + 2) * far - (sharp + 3)) * far**2 + 1
    outer = sharp * (((far - 5) * far + 8) * far - 4)
    return np.where(far <= 1, near, np.where(far < 2, outer, 0))


def _weighed(node: Node, axis: Stretch, place: np.ndarray, kernel, reach: float) -> np.ndarray:
    """Weights of all places within reach. Those beyond the ends count for the end, or not at all
    (exclude_outside). `antialias` widens the kernel when the axis shrinks."""
    wide = max(1.0, 1 / axis.scale) if node.attribute("antialias", 0) else 1.0
    far = math.ceil(reach * wide)
    taps = np.floor(place).astype(int)[:, None] + np.arange(-far, far + 1)
    weights = kernel((taps - place[:, None]) / wide)
    inside = (taps >= 0) & (taps < axis.before)
    if node.attribute("exclude_outside", 0):
        weights = np.where(inside, weights, 0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((axis.after, axis.before))
    rows = np.broadcast_to(np.arange(axis.after)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, axis.before - 1)), weights)
    return matrix


def _coordinates(mode: str, axis: Stretch) -> np.ndarray:
    """float64: where each place of the result lies on the axis before.

    Where it lies beside a half or a whole is decided by rounding, so this counts in float32, as
    onnxruntime does.
    """
    rows, last, scale = np.arange(axis.after, dtype=np.float32), axis.before - 1, np.float32(
        axis.scale)
    half = np.float32(0.5)
    match mode:
        case "half_pixel":
            place = (rows + half) / scale - half
        case "pytorch_half_pixel":
            place = (rows + half) / scale - half if axis.after > 1 else 0 * rows
        case "half_pixel_symmetric":
            length = axis.before * scale  # of the result, not rounded
            place = axis.before / 2 * (1 - axis.after / length) + (rows + half) / scale - half
        case "asymmetric":
            place = rows / scale
        case "tf_half_pixel_for_nn":
            place = (rows + half) / scale
        case "align_corners":
            _check_whole(mode, axis)
            place = rows * np.float32(last) / np.float32(max(axis.after - 1, 1))
        case "tf_crop_and_resize":
            _check_whole(mode, axis)
            start, end = (np.float32(value) for value in axis.region)
            place = start * last + rows * (end - start) * last / np.float32(axis.after - 1) if (
                axis.after > 1) else np.full(axis.after, half * (start + end) * last)
        case _:
            raise Unsupported(f"coordinate_transformation_mode {mode} is not known")
    return place.astype(np.float64)


def _check_whole(mode: str, axis: Stretch) -> None:
    """Where a scale makes no whole number of places, the standard's tests divide by the length
    before rounding and onnxruntime by the one after."""
    length = axis.before * axis.scale
    if abs(length - axis.after) > 1e-3 and axis.after > 1:
        raise Unsupported(f"{mode} of {axis.before} places by {axis.scale:g} is {length:g}, no "
                          "whole number: runtimes differ there; give sizes instead of scales")


def exact_step(matrix: np.ndarray) -> float:
    """The step of int8 weights that holds a matrix, exactly if a power of two does."""
    for digits in range(8):
        if np.array_equal(np.rint(matrix * 2**digits), matrix * 2**digits) and (
                np.abs(matrix).max() * 2**digits <= 127):
            return 2.0**-digits
    return max(float(np.abs(matrix).max()), 1e-9) / 127


def grid_digits(*sizes: int) -> int:
    """Binary digits of int16 coordinates that reach twice the picture."""
    return max(0, 14 - math.ceil(math.log2(max(*sizes, 2))))

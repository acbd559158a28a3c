"""Windows and paddings of ONNX nodes as numbers, over any number of axes.

It makes no layers; `windows` does. Interpolation is in `interpolation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from workloads.onnx.read import Node
from workloads.onnx.walk import Unsupported

Sizes = tuple[int, ...]
#: A place outside the input, where no value is; -1 is a zero.
OUTSIDE = -2


@dataclass(frozen=True)
class Sliding:
    """A sliding window over the spatial axes. `before` and `after` are the paddings of each;
    `stated` those behind that the file gives: a ceil_mode reaches further, or less far."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    after: Sizes
    stated: Sizes

    @property
    def extent(self) -> Sizes:
        """Places that the window spans along each axis."""
        return tuple((size - 1) * step + 1
                     for size, step in zip(self.kernel, self.dilation, strict=True))

    def starts(self, size: Sizes) -> list[np.ndarray]:
        """Where the windows begin along each axis, over `size`; negative before the input."""
        return [np.arange(-self.before[axis],
                          size[axis] + self.after[axis] - self.extent[axis] + 1,
                          self.stride[axis]) for axis in range(len(size))]


def sliding(node: Node, kernel: Sequence[int], size: Sizes) -> Sliding:
    """The window of a convolution or a pool over `size`, one number an axis.

    One-dimensional windows run along the first of two axes, the second has one place.
    """
    rank = len(kernel)
    if max(rank, 2) != len(size):
        raise Unsupported(f"a window of {rank} axes does not fit an input of {len(size)}")

    def full(values: Sequence[int], fill: int) -> Sizes:
        return tuple(int(value) for value in values) + (fill,) * (len(size) - rank)

    automatic = node.text("auto_pad", "NOTSET")
    pads = [0] * 2 * rank if automatic == "VALID" else node.attribute("pads", [0] * 2 * rank)
    found = Sliding(full(kernel, 1), full(node.attribute("strides", [1] * rank), 1),
                    full(node.attribute("dilations", [1] * rank), 1),
                    full(pads[:rank], 0), full(pads[rank:], 0), full(pads[rank:], 0))
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        total = [max(0, (-(-length // step) - 1) * step + extent - length) for length, step, extent
                 in zip(size, found.stride, found.extent, strict=True)]
        less, more = tuple(value // 2 for value in total), tuple(-(-value // 2) for value in total)
        before, after = (less, more) if automatic == "SAME_UPPER" else (more, less)
        found = replace(found, before=before, after=after, stated=after)
    if node.attribute("ceil_mode", 0):
        found = _reaching(found, size)
    if any(start.size == 0 for start in found.starts(size)):
        raise Unsupported(f"a window of {found.extent} is larger than the padded input {size}")
    return found


def _reaching(window: Sliding, size: Sizes) -> Sliding:
    """The window with so much more padding behind that a last partial step counts.

    A window that would start behind the input does not count.
    """
    after = []
    for axis in range(len(size)):
        step, before = window.stride[axis], window.before[axis]
        room = size[axis] + before + window.after[axis] - window.extent[axis]
        last = -(-room // step)
        if last * step >= size[axis] + before:
            last -= 1
        after.append(window.after[axis] + last * step - room)
    return replace(window, after=tuple(after))


def windowed(places: np.ndarray, window: Sliding) -> np.ndarray:
    """(batch, channels, windows along each axis, taps): what each window reads of places (batch,
    channels, ...); `OUTSIDE` in the padding."""
    found, axes = places, len(window.kernel)
    for axis, start in enumerate(window.starts(places.shape[2:])):
        taps = np.arange(window.kernel[axis]) * window.dilation[axis]
        index = start[:, None] + taps
        size = places.shape[2 + axis]
        inside = (index >= 0) & (index < size)
        found = np.take(found, np.where(inside, index, 0), 2 + 2 * axis)
        shape = (1,) * (2 + 2 * axis) + inside.shape + (1,) * (axes - axis - 1)
        found = np.where(inside.reshape(shape), found, OUTSIDE)
    order = (0, 1, *(2 + 2 * axis for axis in range(axes)), *(3 + 2 * axis for axis in range(axes)))
    found = found.transpose(order)
    return found.reshape(*found.shape[: 2 + axes], -1)


def counted(window: Sliding, size: Sizes, padding: bool) -> np.ndarray:
    """How many places of each window count: those inside, with `padding` also the stated pads."""
    total = np.ones(())
    for axis, start in enumerate(window.starts(size)):
        index = start[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        low, high = (-window.before[axis], size[axis] + window.stated[axis]) if padding else (
            0, size[axis])
        total = np.multiply.outer(total, ((index >= low) & (index < high)).sum(axis=1))
    return total


def reached(weights: np.ndarray, window: Sliding, size: Sizes) -> tuple[np.ndarray, Sliding]:
    """Weights (out, in, ...) and their window without the outer taps that read padding alone."""
    kernel, before, after = list(window.kernel), list(window.before), list(window.after)
    for axis, starts in enumerate(window.starts(size)):
        step = window.dilation[axis]
        read = [bool(((starts + tap * step >= 0) & (starts + tap * step < size[axis])).any())
                for tap in range(kernel[axis])]
        if not any(read):
            continue
        first = min(read.index(True), max(0, before[axis]) // step)
        last = min(read[::-1].index(True), max(0, after[axis]) // step)
        weights = np.moveaxis(np.moveaxis(weights, 2 + axis, 0)[
            first : kernel[axis] - last], 0, 2 + axis)
        before[axis] -= first * step
        after[axis] -= last * step
        kernel[axis] -= first + last
    return weights, replace(window, kernel=tuple(kernel), before=tuple(before),
                            after=tuple(after), stated=tuple(after))


def spread(weights: np.ndarray, dilation: Sizes) -> np.ndarray:
    """Weights (out, in, ...) with the zero taps of a dilation written out."""
    if max(dilation) == 1:
        return weights
    extent = [(size - 1) * step + 1 for size, step in zip(weights.shape[2:], dilation, strict=True)]
    wide = np.zeros((*weights.shape[:2], *extent), weights.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, step) for step in dilation))] = weights
    return wide


def evenly_padded(weights: np.ndarray, before: Sizes, after: Sizes) -> tuple[np.ndarray, int]:
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


def transposed(node: Node, kernel: Sizes, size: Sizes) -> tuple[Sliding, Sizes]:
    """The window of a transposed convolution and the rows added behind each axis.

    Pads follow from `output_shape` or `auto_pad` where they are given.
    """
    rank, automatic = len(kernel), node.text("auto_pad", "NOTSET")
    full = max(rank, 2) - rank
    stride = (*node.attribute("strides", [1] * rank), *[1] * full)
    dilation = (*node.attribute("dilations", [1] * rank), *[1] * full)
    extra = [*node.attribute("output_padding", [0] * rank), *[0] * full]
    pads = [0] * 2 * rank if automatic == "VALID" else node.attribute("pads", [0] * 2 * rank)
    before, after = [*pads[:rank], *[0] * full], [*pads[rank:], *[0] * full]
    taps = (*kernel, *[1] * full)
    wanted = node.attribute("output_shape", None)
    if wanted is None and automatic.startswith("SAME"):
        wanted = [length * step for length, step in zip(size[:rank], stride, strict=False)]
    for axis, length in enumerate(wanted[-rank:] if wanted else ()):
        total = (stride[axis] * (size[axis] - 1) + extra[axis]
                 + (taps[axis] - 1) * dilation[axis] + 1 - length)
        extra[axis] -= min(0, total)
        total = max(0, total)
        less = total // 2
        before[axis], after[axis] = (
            (less, total - less) if automatic == "SAME_UPPER" else (total - less, less))
    window = Sliding(taps, stride, dilation, tuple(before), tuple(after), tuple(after))
    return window, tuple(extra)

"""What convolutions, pools, resizing and grid sampling of ONNX become.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.

The graph has square strides, even paddings and no dilation. Uneven paddings of a convolution and
dilations become zero taps, those of a pool are written out; strides that differ become the
greatest common one and a view; a transposed convolution becomes one convolution that makes all
phases, and a view that puts them side by side.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import functions
from workloads.onnx.geometry import (
    Phases,
    Sliding,
    evenly_padded,
    exact_step,
    grid_digits,
    interpolation,
    phases,
    sliding,
    spread,
)
from workloads.onnx.read import Node
from workloads.onnx.stated import output_steps
from workloads.onnx.walk import Unsupported, View, Walk, three


def picture(walk: Walk, name: str) -> View:
    """A view of shape (1, channels, rows, columns); one-dimensional signals get one column."""
    view = walk.view(name)
    if len(view.shape) not in (3, 4) or view.shape[0] != 1:
        raise Unsupported(f"shape {view.shape} must be (1, channels, rows, columns)")
    if len(view.shape) == 3:
        moved = None if view.moved is None else view.moved[..., None]
        view = View(view.tensor, (*view.shape, 1), moved)
    return view


def finish(walk: Walk, node: Node, made: str, rank: int, skip: tuple[int, int] = (1, 1)) -> None:
    """The node's output is the tensor made, every `skip`-th row and column of it."""
    shape: tuple[int, ...] = (1, *walk.tensors[made].shape)
    view = View(made, shape)
    if skip != (1, 1):
        places = view.places[:, :, :: skip[0], :: skip[1]]
        view = View(made, places.shape, places)
    if rank == 3:
        moved = None if view.moved is None else view.moved[..., 0]
        view = View(made, view.shape[:3], moved)
    walk.views[node.outputs[0]] = view


def convolution(walk: Walk, name: str, source: str, weights: np.ndarray, bias: np.ndarray,
                window: Window, steps: np.ndarray | None = None) -> str:
    """Append a convolution; `steps` are the weights' steps if they are given."""
    channels = walk.tensors[source].channels
    if weights.shape[1] * window.groups != channels or len(weights) % window.groups:
        raise Unsupported(f"weights {weights.shape} in {window.groups} groups do not fit "
                          f"{channels} channels")
    out = _windowed(walk, source, window, len(weights))
    made = walk.add(name, Operator.CONVOLUTION, (source,),
                    ("weights", "bias", "multiplier", "shift"), out, window=window)
    walk.weights[f"{made}.weights"] = np.ascontiguousarray(weights, np.float32)
    walk.weights[f"{made}.bias"] = np.asarray(bias, np.float32)
    if steps is not None:
        flat = np.asarray(steps, np.float64).reshape(-1)
        if flat.size not in (1, len(weights)):
            raise Unsupported(f"{flat.size} scales of the weights must be one or {len(weights)}, "
                              "one an output channel")
        walk.weight_steps[made] = np.broadcast_to(flat, (len(weights),)).copy()
    return made


def _windowed(walk: Walk, source: str, window: Window, channels: int) -> tuple[int, int, int]:
    spec = walk.tensors[source]
    rows, columns = ((size + 2 * window.padding - extent) // window.stride + 1
                     for size, extent in ((spec.rows, window.rows), (spec.columns, window.columns)))
    return channels, rows, columns


def conv(walk: Walk, node: Node) -> None:
    """Conv of one or two dimensions, in groups, dilated, with any padding."""
    view = picture(walk, node.inputs[0])
    weights, bias = walk.constant(node.inputs[1]), walk.optional(node, 2)
    rank = weights.ndim
    weights = weights[..., None] if rank == 3 else weights
    if weights.ndim != 4:
        raise Unsupported(f"weights {weights.shape} must have one or two dimensions of a window")
    window = sliding(node, weights.shape[2 : rank], (view.shape[2], view.shape[3]))
    groups = node.attribute("group", 1)
    weights, padding = evenly_padded(spread(weights, window), window.before, window.after)
    stride = math.gcd(*window.stride) if max(window.stride) > 1 else 1
    source = walk.arranged(view.tensor, view.places[0])
    shape = (weights.shape[2], weights.shape[3])
    made = convolution(
        walk, node.outputs[0], source, weights, np.zeros(len(weights)) if bias is None else bias,
        Window(*shape, stride, padding, groups),
        output_steps(walk.steps.get(node.inputs[1]), 0))
    finish(walk, node, made, rank, (window.stride[0] // stride, window.stride[1] // stride))


def conv_transpose(walk: Walk, node: Node) -> None:
    """ConvTranspose: all phases of a stride at once, side by side as channels, then a view."""
    view = picture(walk, node.inputs[0])
    weights, bias = walk.constant(node.inputs[1]), walk.optional(node, 2)
    rank, groups = weights.ndim, node.attribute("group", 1)
    weights = weights[..., None] if rank == 3 else weights
    if node.text("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise Unsupported("auto_pad and output_shape must be left out; state pads")
    window = sliding(node, weights.shape[2 : rank], (view.shape[2], view.shape[3]))
    extra = (*node.attribute("output_padding", [0, 0]), 0)
    axes = [phases(view.shape[2 + axis], window.kernel[axis], window.stride[axis],
                   window.dilation[axis], window.before[axis], window.after[axis],
                   int(extra[axis])) for axis in (0, 1)]
    if min(axes[0].before, axes[0].after, axes[1].before, axes[1].after) < 0:
        raise Unsupported("pads larger than the kernel reaches")
    made_of = _phase_weights(weights, groups, axes[0], axes[1])
    grown, padding = evenly_padded(made_of, (axes[0].before, axes[1].before),
                                   (axes[0].after, axes[1].after))
    each = len(axes[0].taps) * len(axes[1].taps)
    channels = len(grown) // each
    steps = output_steps(walk.steps.get(node.inputs[1]), 1)
    if steps is not None and steps.size > 1:
        # Steps along the second axis are those of one group's channels.
        steps = np.repeat(np.tile(steps, groups), each)
    made = convolution(
        walk, node.outputs[0], walk.arranged(view.tensor, view.places[0]), grown,
        np.repeat(np.zeros(channels) if bias is None else bias, each),
        Window(grown.shape[2], grown.shape[3], 1, padding, groups), steps)
    places = np.arange(walk.tensors[made].elements, dtype=np.int32).reshape(
        channels, len(axes[0].taps), len(axes[1].taps), axes[0].positions, axes[1].positions)
    whole = places.transpose(0, 3, 1, 4, 2).reshape(
        1, channels, axes[0].positions * len(axes[0].taps), -1)
    cut = whole[:, :, : axes[0].size, : axes[1].size]
    cut = cut[..., 0] if rank == 3 else cut
    walk.views[node.outputs[0]] = View(made, cut.shape, cut if each > 1 else None)


def _phase_weights(weights: np.ndarray, groups: int, rows: Phases, columns: Phases) -> np.ndarray:
    """(in, out / groups, ...) to (out * phases, in / groups, ...)."""
    entering, leaving = weights.shape[:2]
    extended = np.pad(weights, ((0, 0), (0, 0), (0, 1), (0, 1)))  # tap -1 is zero
    taken = extended[:, :, rows.taps][:, :, :, :, columns.taps]  # in, out, a, u, b, v
    parts = taken.reshape(groups, entering // groups, *taken.shape[1:])
    return parts.transpose(0, 2, 3, 5, 1, 4, 6).reshape(
        groups * leaving * len(rows.taps) * len(columns.taps), entering // groups,
        rows.taps.shape[1], columns.taps.shape[1])


def pool(walk: Walk, node: Node) -> None:
    """MaxPool and AveragePool."""
    view = picture(walk, node.inputs[0])
    rank, greatest = len(walk.lazy(node.inputs[0]).shape), node.operator == "MaxPool"
    window = sliding(node, node.attribute("kernel_shape", []), (view.shape[2], view.shape[3]))
    if window.dilation != (1, 1):
        raise Unsupported("dilations must be 1")
    if len(node.outputs) > 1 and any(node.outputs[1:]):
        raise Unsupported("the indices of the greatest values must not be used")
    places, window = _cropped(view.places[0], window)
    sides = {*window.before, *window.after}
    whole = node.attribute("count_include_pad", 0)
    if not greatest and sides != {0} and whole and node.attribute("ceil_mode", 0):
        raise Unsupported("ceil_mode of an average that counts pads must be 0")
    padding, size = 0, places.shape[1:]
    if len(sides) == 1:
        padding = window.before[0]
    else:  # the nearest value inside is in every window that reaches it: it changes no maximum
        around = ((0, 0), *zip(window.before, window.after, strict=True))
        places = np.pad(places, around, "edge") if greatest else np.pad(
            places, around, constant_values=-1)
    stride = math.gcd(*window.stride) if max(window.stride) > 1 else 1
    source = walk.arranged(view.tensor, places)
    made = _pooled(walk, node.outputs[0], source,
                   Window(*window.kernel, stride, padding), greatest)
    skip = (window.stride[0] // stride, window.stride[1] // stride)
    if greatest or whole or sides == {0}:
        finish(walk, node, made, rank, skip)
        return
    # The pads are zeros that do not count: the mean is taken over fewer values at the edges.
    inner = replace(node, outputs=(f"{node.outputs[0]}.padded",))
    finish(walk, inner, made, rank, skip)
    parts = [window.kernel[axis] / _inside(window, axis, size[axis]) for axis in (0, 1)]
    factor = np.multiply.outer(*parts)[None, None]
    functions.affine(walk, node, inner.outputs[0], factor[..., 0] if rank == 3 else factor,
                     np.array(0.0))


def _cropped(places: np.ndarray, window: Sliding) -> tuple[np.ndarray, Sliding]:
    """Without the rows and columns behind the last window, which a negative padding stands for."""
    rows, columns = (size + min(0, after)
                     for size, after in zip(places.shape[1:], window.after, strict=True))
    after = (max(0, window.after[0]), max(0, window.after[1]))
    return places[:, :rows, :columns], replace(window, after=after)


def _inside(window: Sliding, axis: int, size: int) -> np.ndarray:
    """How many places of each window along an axis lie inside the input."""
    end = size + window.after[axis] - window.kernel[axis]
    starts = np.arange(-window.before[axis], end + 1, window.stride[axis])
    return np.minimum(starts + window.kernel[axis], size) - np.maximum(starts, 0)


def _pooled(walk: Walk, name: str, source: str, window: Window, greatest: bool,
            own_scale: bool = False) -> str:
    """Append a pool. An average keeps its source's scale where that only needs a shift and no
    file says otherwise: then a convolution can absorb it."""
    shape = _windowed(walk, source, window, walk.tensors[source].channels)
    if greatest:
        made = walk.add(name, Operator.MAX_POOL, (source,), (), shape, window=window)
        return walk.keep_scale(made, source)
    area = window.rows * window.columns
    shifted = not area & (area - 1) and not own_scale and source not in walk.fixed
    roles = () if shifted else ("multiplier", "shift")
    return walk.add(name, Operator.AVERAGE_POOL, (source,), roles, shape, window=window)


def reduce_positions(walk: Walk, name: str, source: str, greatest: bool) -> str:
    """The mean or the greatest value of each channel."""
    spec = walk.tensors[source]
    window = Window(spec.rows, spec.columns, max(spec.rows, spec.columns))
    return _pooled(walk, name, source, window, greatest, own_scale=True)


def resize(walk: Walk, node: Node) -> None:
    """Nearest: repeats of two, or moved elements. Linear: a matrix product for each axis."""
    view = picture(walk, node.inputs[0])
    sizes, scales = _resized(walk, node, view.shape)
    old = node.operator == "Upsample" or walk.model.opset < 11
    for axis in (2, 3):
        matrix = interpolation(node, view.shape[axis], sizes[axis], scales[axis], old)
        if node.text("mode", "nearest") == "nearest":
            places = view.places.take(matrix.argmax(axis=1), axis)
            view = View(view.tensor, places.shape, places)
        elif not np.array_equal(matrix, np.eye(*matrix.shape)):
            view = _mixed(walk, node, view, axis, matrix)
    walk.views[node.outputs[0]] = _repeated(walk, node, view)


def _resized(walk: Walk, node: Node, shape: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """Output size and scale of each axis."""
    scales_at = 1 if node.operator == "Upsample" or walk.model.opset < 11 else 2
    scales, sizes = walk.optional(node, scales_at), walk.optional(node, 3)
    axes = [axis % 4 for axis in node.attribute("axes", range(4))]
    if node.attribute("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise Unsupported("keep_aspect_ratio_policy must be stretch")
    found, ratio = list(shape), [1.0] * 4
    if sizes is not None and sizes.size:
        for axis, size in zip(axes, sizes.reshape(-1), strict=True):
            found[axis], ratio[axis] = int(size), float(size) / shape[axis]
    elif scales is not None and scales.size:
        for axis, scale in zip(axes, scales.reshape(-1), strict=True):
            found[axis], ratio[axis] = math.floor(shape[axis] * scale), float(scale)
    else:
        raise Unsupported("scales or sizes must be constant")
    if found[:2] != list(shape[:2]):
        raise Unsupported(f"{shape} to {tuple(found)} must keep the channels")
    return found, ratio


def _repeated(walk: Walk, node: Node, view: View) -> View:
    """The view made of upsamples by two where it is nothing else."""
    channels, rows, columns = walk.tensors[view.tensor].shape
    times = view.shape[2] // max(rows, 1)
    plain = (view.moved is not None and times >= 2 and not times & (times - 1)
             and view.shape == (1, channels, rows * times, columns * times))
    if not plain:
        return view
    there = np.arange(channels * rows * columns).reshape(1, channels, rows, columns)
    if not np.array_equal(view.places, there.repeat(times, 2).repeat(times, 3)):
        return view
    made = view.tensor
    while times > 1:
        channels, rows, columns = walk.tensors[made].shape
        twice = walk.add(node.outputs[0], Operator.UPSAMPLE, (made,), (),
                         (channels, 2 * rows, 2 * columns))
        made, times = walk.keep_scale(twice, made), times // 2
    return View(made, view.shape)


def _mixed(walk: Walk, node: Node, view: View, axis: int, matrix: np.ndarray) -> View:
    """Interpolate along an axis: a convolution whose channels are the places of the axis."""
    moved = np.moveaxis(view.places, axis, 0)
    source = walk.arranged(view.tensor, moved.reshape(three((1, len(moved), moved[0].size))),
                           free=True)
    step = exact_step(matrix)
    made = convolution(walk, f"{node.outputs[0]}.axis{axis}", source,
                       matrix.reshape(*matrix.shape, 1, 1), np.zeros(len(matrix)), Window(),
                       np.array([step]))
    if source in walk.fixed:
        walk.fixed[made] = walk.fixed[source]
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    back = np.moveaxis(places.reshape(len(matrix), *moved.shape[1:]), 0, axis)
    return View(made, back.shape, back)


def grid_sample(walk: Walk, node: Node) -> None:
    """GridSample with zeros around: the grid becomes int16 coordinates in pixels."""
    if node.text("mode", "linear") not in ("linear", "bilinear"):
        raise Unsupported(f"mode {node.text('mode', '')} must be bilinear")
    if node.text("padding_mode", "zeros") != "zeros":
        raise Unsupported(f"padding_mode {node.text('padding_mode', '')} must be zeros")
    view, grid = picture(walk, node.inputs[0]), walk.view(node.inputs[1])
    source = walk.arranged(view.tensor, view.places[0])
    moved = grid.places[0].transpose(2, 0, 1)
    wanted = walk.arranged(grid.tensor, moved)
    spec = walk.tensors[source]
    digits = grid_digits(spec.rows, spec.columns)
    name = walk.add(f"{node.outputs[0]}.pixels", Operator.AFFINE, (wanted,),
                    ("multiplier", "offset", "shift"), bits=16)
    size = np.array([spec.columns, spec.rows], np.float32)
    corners = bool(node.attribute("align_corners", 0))
    walk.weights[f"{name}.scale"] = ((size - 1) if corners else size) / 2
    walk.weights[f"{name}.offset"] = (size - 1) / 2
    walk.fixed[name] = 2.0**-digits
    made = walk.add(node.outputs[0], Operator.GRID_SAMPLE, (source, name), (),
                    (spec.channels, *moved.shape[1:]), fraction_bits=digits)
    walk.keep_scale(made, source)
    finish(walk, node, made, 4)

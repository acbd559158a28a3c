"""What convolutions and pools of ONNX become.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.

The graph has square strides, even paddings and no dilation. Uneven paddings of a convolution and
dilations become zero taps, those of a pool are written out; strides that differ become the
greatest common one and a view; a transposed convolution becomes one convolution that makes all
phases, and a view that puts them side by side. Several batches, and the depths of a window of
three axes, become one tall picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import shifted
from workloads.onnx.read import Node
from workloads.onnx.rules import functions
from workloads.onnx.rules.geometry import (
    OUTSIDE,
    Phases,
    Sizes,
    Sliding,
    counted,
    evenly_padded,
    phases,
    reached,
    sliding,
    spread,
    transposed,
    windowed,
)
from workloads.onnx.rules.stated import output_steps
from workloads.onnx.walk import Unsupported, View, Walk


@dataclass(frozen=True)
class Kernel:
    """Weights (out, in / groups, ...) and bias, the window they slide in, the steps of the weights
    if a file states them, and the axes of the file's weights (3: the last one was added here)."""

    weights: np.ndarray
    bias: np.ndarray
    window: Sliding
    groups: int
    steps: np.ndarray | None
    rank: int


#: Taps of a convolution for each that has a weight: of more, zeros are not written out.
MOST_EMPTY = 16


def spatial(view: View) -> View:
    """A view of shape (batch, channels, ...); one-dimensional signals get one column."""
    if len(view.shape) < 3:
        raise Unsupported(f"shape {view.shape} must be (batch, channels, rows, ...)")
    if len(view.shape) == 3:
        moved = None if view.moved is None else view.moved[..., None]
        view = View(view.tensor, (*view.shape, 1), moved)
    return view


def finish(walk: Walk, node: Node, made: str, rank: int, skip: Sizes = (1, 1)) -> None:
    """The node's output is the tensor made, every `skip`-th row and column of it."""
    shape: Sizes = (1, *walk.tensors[made].shape)
    view = View(made, shape)
    if max(skip) > 1:
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
    if window.padding:
        window = replace(window, pad_value=walk.pad_value(source))
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
    """Conv of up to three axes, in groups, dilated, with any padding and batch."""
    weights, given = walk.constant(node.inputs[1]), walk.optional(node, 2)
    seen, offset = shifted.held(walk, node.inputs[0])
    view = spatial(seen)
    rank = weights.ndim
    weights = weights[..., None] if rank == 3 else weights
    if not 4 <= weights.ndim == len(view.shape) <= 5:
        raise Unsupported(f"weights {weights.shape} must have the axes of the input "
                          f"{view.shape}, at most three of a window")
    weights, window = reached(weights, sliding(node, weights.shape[2:rank], view.shape[2:]),
                              view.shape[2:])
    more = shifted.added(weights, offset)
    bias = more if given is None else given.reshape(-1) + more
    steps = output_steps(walk.steps.get(node.inputs[1]), 0)
    groups = node.attribute("group", 1)
    if len(view.shape) == 5 or view.shape[0] != 1:
        _stacked(walk, node, view, Kernel(weights, bias, window, groups, steps, rank))
        return
    reach = [size + 2 * max(*window.before, *window.after) - before - after
             for size, before, after in zip(window.extent, window.before, window.after,
                                            strict=True)]
    if math.prod(reach) > MOST_EMPTY * math.prod(window.kernel) and min(
            *window.before, *window.after) >= 0:
        _phased(walk, node, view, Kernel(weights, bias, window, groups, steps, rank))
        return
    weights, padding = evenly_padded(spread(weights, window.dilation), window.before, window.after)
    stride = math.gcd(*window.stride)
    source = walk.arranged(view.tensor, view.places[0])
    made = convolution(walk, node.outputs[0], source, weights, bias,
                       Window(weights.shape[2], weights.shape[3], stride, padding, groups),
                       steps)
    finish(walk, node, made, rank, tuple(step // stride for step in window.stride))


def _phased(walk: Walk, node: Node, view: View, kernel: Kernel) -> None:
    """A convolution that would be zero taps for the most part: of each phase of its dilation, the
    padding written out, as one picture of several; the phases are put side by side again."""
    window = kernel.window
    steps, sizes = window.dilation, [
        size + before + after for size, before, after in zip(
            view.shape[2:], window.before, window.after, strict=True)]
    made = [size - extent + 1 for size, extent in zip(sizes, window.extent, strict=True)]
    more = [(before, after + -size % step) for before, after, size, step in zip(
        window.before, window.after, sizes, steps, strict=True)]
    padded = np.pad(view.places[0], ((0, 0), *more), constant_values=-1)
    # Phases behind the last place that is made read nothing that counts.
    used = [min(step, count) for step, count in zip(steps, made, strict=True)]
    parts = np.stack([padded[:, row :: steps[0], column :: steps[1]]
                      for row in range(used[0]) for column in range(used[1])])
    one, none = (1, 1), (0, 0)
    _stacked(walk, node, View(view.tensor, parts.shape, parts), replace(
        kernel, window=Sliding(window.kernel, one, one, none, none, none), rank=4))
    found = walk.views[node.outputs[0]]
    channels, rows, columns = found.shape[1:]
    whole = found.places.reshape(*used, channels, rows, columns).transpose(2, 3, 0, 4, 1)
    around = [(0, step - count) for step, count in zip(steps, used, strict=True)]
    whole = np.pad(whole, ((0, 0), (0, 0), around[0], (0, 0), around[1]), constant_values=-1)
    whole = whole.reshape(1, channels, rows * steps[0], columns * steps[1])[
        :, :, : made[0] : window.stride[0], : made[1] : window.stride[1]]
    whole = whole[..., 0] if kernel.rank == 3 else whole
    walk.views[node.outputs[0]] = View(found.tensor, whole.shape, np.ascontiguousarray(whole))


def _stacked(walk: Walk, node: Node, view: View, kernel: Kernel) -> None:
    """Batches and depths below one another as one tall picture, their paddings written out.

    The depths that a window reads lie behind one another as channels. Windows that reach from
    one picture into the next are left out by the view.
    """
    places, weights, window = view.places, kernel.weights, kernel.window
    if places.ndim == 4:
        places, weights = places[:, :, None], weights[:, :, None]
        window = Sliding(*(((fill, *part)) for fill, part in (
            (1, window.kernel), (1, window.stride), (1, window.dilation), (0, window.before),
            (0, window.after), (0, window.stated))))
    around = [(max(0, before), max(0, after))
              for before, after in zip(window.before, window.after, strict=True)]
    depth, rows, columns = (len(start) for start in window.starts(places.shape[2:]))
    stride = math.gcd(*window.stride[1:])
    high = places.shape[3] + sum(around[1])
    around[1] = (around[1][0], around[1][1] + -high % stride)
    padded = np.pad(places, ((0, 0), (0, 0), *around), constant_values=-1)
    index = (np.arange(depth)[:, None] * window.stride[0]
             + np.arange(window.kernel[0]) * window.dilation[0])
    taken = padded[:, :, index].transpose(1, 3, 0, 2, 4, 5)
    batch, high = places.shape[0], padded.shape[3]
    tall = taken.reshape(places.shape[1] * window.kernel[0], -1, padded.shape[4])
    flat = spread(weights, (1, *window.dilation[1:]))
    flat = flat.reshape(len(flat), -1, *flat.shape[3:])
    made = convolution(walk, node.outputs[0], walk.arranged(view.tensor, tall), flat, kernel.bias,
                       Window(flat.shape[2], flat.shape[3], stride, 0, kernel.groups),
                       kernel.steps)
    spec = walk.tensors[made]
    down = (np.arange(batch * depth)[:, None] * high + np.arange(rows) * window.stride[1]) // stride
    right = np.arange(columns) * window.stride[2] // stride
    found = np.arange(spec.elements, dtype=np.int32).reshape(spec.shape)[:, down][..., right]
    found = np.moveaxis(found.reshape(spec.channels, batch, depth, rows, columns), 0, 1)
    found = found[:, :, 0] if kernel.rank < 5 else found
    found = found[..., 0] if kernel.rank == 3 else found
    walk.views[node.outputs[0]] = View(made, found.shape, found)


def conv_transpose(walk: Walk, node: Node) -> None:
    """ConvTranspose: all phases of a stride at once, side by side as channels, then a view."""
    seen, offset = shifted.held(walk, node.inputs[0])
    view = spatial(seen)
    weights, given = walk.constant(node.inputs[1]), walk.optional(node, 2)
    rank, groups = weights.ndim, node.attribute("group", 1)
    weights = weights[..., None] if rank == 3 else weights
    if not 4 <= weights.ndim == len(view.shape) <= 5:
        raise Unsupported(f"weights {weights.shape} must have the axes of the input "
                          f"{view.shape}, at most three of a window")
    window, extra = transposed(node, weights.shape[2:rank], view.shape[2:])
    bias = np.zeros(weights.shape[1] * groups) if given is None else given.reshape(-1)
    axes = [phases(view.shape[2 + axis], window.kernel[axis], window.stride[axis],
                   window.dilation[axis], window.before[axis], window.after[axis],
                   int(extra[axis])) for axis in range(len(view.shape) - 2)]
    steps = output_steps(walk.steps.get(node.inputs[1]), 1)
    if steps is not None and steps.size > 1:
        # Steps along the second axis are those of one group's channels.
        steps = np.tile(steps, groups)
    if len(axes) == 3 or view.shape[0] != 1 or min(
            axes[0].before, axes[0].after, axes[1].before, axes[1].after) < 0:
        parts = weights.reshape(groups, len(weights) // groups, weights.shape[1], -1)
        bias = bias + shifted.added(parts.swapaxes(1, 2).reshape(bias.size, -1), offset)
        _stuffed(walk, node, view, Kernel(weights, bias, window, groups, steps, rank), extra)
        return
    made_of = _phase_weights(weights, groups, axes[0], axes[1])
    grown, padding = evenly_padded(made_of, (axes[0].before, axes[1].before),
                                   (axes[0].after, axes[1].after))
    each = len(axes[0].taps) * len(axes[1].taps)
    channels = len(grown) // each
    if steps is not None and steps.size > 1:
        steps = np.repeat(steps, each)
    made = convolution(
        walk, node.outputs[0], walk.arranged(view.tensor, view.places[0]), grown,
        np.repeat(bias, each) + shifted.added(grown, offset),
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


def _stuffed(walk: Walk, node: Node, view: View, kernel: Kernel, extra: Sizes) -> None:
    """A transposed convolution as a convolution of the input with zeros between its places.

    Where phases do not do: several batches, three axes, pads beyond the kernel's reach.
    """
    weights, window, groups = kernel.weights, kernel.window, kernel.groups
    axes = range(len(window.kernel))
    size = [(view.shape[2 + axis] - 1) * window.stride[axis] + 1 for axis in axes]
    places = np.full((*view.shape[:2], *size), -1, np.int32)
    places[(slice(None), slice(None), *(slice(None, None, step) for step in window.stride))] = (
        view.places)
    for axis in axes:
        reach = window.extent[axis] - 1
        before, after = reach - window.before[axis], reach - window.after[axis] + extra[axis]
        around = [(0, 0)] * places.ndim
        around[2 + axis] = (max(0, before), max(0, after))
        places = np.pad(places, around, constant_values=-1)
        cut = slice(max(0, -before), places.shape[2 + axis] - max(0, -after))
        places = places[(slice(None),) * (2 + axis) + (cut,)]
    entering, leaving = weights.shape[:2]
    parts = weights.reshape(groups, entering // groups, *weights.shape[1:]).swapaxes(1, 2)
    turned = np.flip(parts.reshape(groups * leaving, entering // groups, *weights.shape[2:]),
                     tuple(2 + axis for axis in axes))
    one, none = tuple(1 for _ in axes), tuple(0 for _ in axes)
    plain = Sliding(window.kernel, one, window.dilation, none, none, none)
    _stacked(walk, node, View(view.tensor, places.shape, places),
             replace(kernel, weights=turned, window=plain))


def pool(walk: Walk, node: Node) -> None:
    """MaxPool and AveragePool of any number of axes."""
    greatest = node.operator == "MaxPool"
    seen, offset = shifted.held(walk, node.inputs[0])
    view, rank = spatial(seen), len(seen.shape)
    if len(node.outputs) > 1 and any(node.outputs[1:]):
        raise Unsupported("the indices of the greatest values must not be used")
    window = sliding(node, node.attribute("kernel_shape", []), view.shape[2:])
    whole = bool(node.attribute("count_include_pad", 0))
    inner = replace(node, outputs=(f"{node.outputs[0]}.padded",))
    area = math.prod(window.kernel)
    factor = area / counted(window, view.shape[2:], whole)[None, None]
    plain = greatest or bool((factor == 1).all())
    target = node if plain else inner
    if view.shape[0] == 1 and len(view.shape) == 4 and max(window.dilation) == 1:
        _slid(walk, target, view, window, greatest, rank)
    else:
        _gathered(walk, target, view, window, greatest, rank)
    shifted.pooled(walk, target.outputs[0], offset, greatest)
    if not plain:
        # Pads that do not count: the mean is taken over fewer values at the edges.
        functions.affine(walk, node, inner.outputs[0], factor[..., 0] if rank == 3 else factor,
                         np.array(0.0))


def _slid(walk: Walk, node: Node, view: View, window: Sliding, greatest: bool, rank: int) -> None:
    """One picture: a pool whose uneven paddings are written out."""
    places, window = _cropped(view.places[0], window)
    padding = 0
    if len({*window.before, *window.after}) == 1:
        padding = window.before[0]
    else:  # the nearest value inside is in every window that reaches it: it changes no maximum
        around = ((0, 0), *zip(window.before, window.after, strict=True))
        places = np.pad(places, around, "edge") if greatest else np.pad(
            places, around, constant_values=-1)
    stride = math.gcd(*window.stride)
    source = walk.arranged(view.tensor, places)
    made = _pooled(walk, node.outputs[0], source,
                   Window(window.kernel[0], window.kernel[1], stride, padding), greatest)
    finish(walk, node, made, rank, tuple(step // stride for step in window.stride))


def _cropped(places: np.ndarray, window: Sliding) -> tuple[np.ndarray, Sliding]:
    """Without the rows and columns behind the last window, which a negative padding stands for."""
    rows, columns = (size + min(0, after)
                     for size, after in zip(places.shape[1:], window.after, strict=True))
    after = tuple(max(0, value) for value in window.after)
    return places[:, :rows, :columns], replace(window, after=after)


def _gathered(walk: Walk, node: Node, view: View, window: Sliding, greatest: bool,
              rank: int) -> None:
    """Any window: what it reads is moved side by side, and each becomes a channel of its own."""
    taps = windowed(view.places, window)
    flat = taps.reshape(-1, taps.shape[-1])
    if greatest:  # a value that the window has anyhow changes no maximum
        first = np.take_along_axis(flat, (flat != OUTSIDE).argmax(axis=1)[:, None], 1)
        flat = np.where(flat == OUTSIDE, first, flat)
    flat = np.maximum(flat, -1)
    source = walk.arranged(view.tensor, flat[:, :, None])
    made = reduce_positions(walk, node.outputs[0], source, greatest)
    shape = taps.shape[:-2] if rank == 3 else taps.shape[:-1]
    walk.views[node.outputs[0]] = View(made, shape)


def _pooled(walk: Walk, name: str, source: str, window: Window, greatest: bool,
            own_scale: bool = False) -> str:
    """Append a pool. An average keeps its source's scale where that only needs a shift and no
    file says otherwise: then a convolution can absorb it."""
    shape = _windowed(walk, source, window, walk.tensors[source].channels)
    if greatest:
        made = walk.add(name, Operator.MAX_POOL, (source,), (), shape, window=window)
        return walk.keep_scale(made, source)
    area = window.rows * window.columns
    if window.padding:
        window = replace(window, pad_value=walk.pad_value(source))
    plain = not area & (area - 1) and not own_scale and source not in walk.fixed
    roles = () if plain else ("multiplier", "shift")
    return walk.add(name, Operator.AVERAGE_POOL, (source,), roles, shape, window=window)


def reduce_positions(walk: Walk, name: str, source: str, greatest: bool) -> str:
    """The mean or the greatest value of each channel."""
    spec = walk.tensors[source]
    window = Window(spec.rows, spec.columns, max(spec.rows, spec.columns))
    return _pooled(walk, name, source, window, greatest, own_scale=True)

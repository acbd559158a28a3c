"""Says what each ONNX operator becomes: one rule an operator, from a node to layers and views.

It walks no graph and reads no file. A rule that cannot keep a node's meaning raises Unsupported.
Windows are in `onnx_windows`, elementwise operators in `onnx_functions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import functions as functions
from workloads.onnx import windows as windows
from workloads.onnx.fold import run_node
from workloads.onnx.functions import is_symmetric, stated_step, stated_zero
from workloads.onnx.read import Node
from workloads.onnx.walk import Unsupported, View, Walk, as_three, first_axes


def _gemm(walk: Walk, node: Node) -> None:
    """alpha * x W + beta * c; the product of two activations without c is a MatMul."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if node.attribute("transA", 0):
        raise Unsupported("transA must be 0")
    weights = walk.constant(node.inputs[1])
    weights = weights if node.attribute("transB", 0) else weights.T
    bias = walk.optional(node, 2)
    offset = np.zeros(len(weights))
    if bias is not None:
        if bias.size not in (1, len(weights)):
            raise Unsupported(f"c {bias.shape} must have one value an output")
        offset = np.broadcast_to(bias.reshape(-1), (len(weights),)) * beta
    _dense(walk, node, node.inputs[0], weights * alpha, offset, -1, node.inputs[1])


def _matmul(walk: Walk, node: Node) -> None:
    left, right = node.inputs
    if right in walk.constants:
        _dense(walk, node, left, _matrix(walk.constants[right]).T, None, -1, right)
    elif left in walk.constants:
        if walk.steps.get(left) is not None and walk.steps[left].size > 1:
            raise Unsupported("a constant on the left must have one scale")
        _dense(walk, node, right, _matrix(walk.constants[left]), None, -2, left)
    else:
        _product(walk, node, walk.view(left), walk.view(right))


def _matrix(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2 or array.size != array.shape[-1] * array.shape[-2]:
        raise Unsupported(f"constant {array.shape} must be one matrix")
    return array.reshape(array.shape[-2:])


def _dense(walk: Walk, node: Node, name: str, weights: np.ndarray, bias: np.ndarray | None,
           axis: int, weight_name: str) -> None:
    """A matrix times one axis: a convolution whose channels are that axis."""
    view = walk.view(name)
    if len(view.shape) < 2 or view.shape[axis] != weights.shape[1]:
        raise Unsupported(f"{weights.shape[1]} weights a row do not fit {view.shape}")
    bias = np.zeros(len(weights)) if bias is None else bias
    steps = walk.steps.get(weight_name)
    moved, _ = first_axes(view.places, (axis % len(view.shape),))
    spec = walk.tensors[view.tensor]
    if spec.elements == weights.shape[1] == moved.size and view.moved is None:
        # All of a picture: the window is the whole picture, nothing moves.
        made = windows.convolution(walk, node.outputs[0], view.tensor,
                                   weights.reshape(len(weights), *spec.shape), bias,
                                   Window(spec.rows, spec.columns), steps)
    else:
        source = walk.arranged(view.tensor, moved.reshape(len(moved), -1, 1), free=True)
        made = windows.convolution(walk, node.outputs[0], source,
                                   weights.reshape(*weights.shape, 1, 1), bias, Window(), steps)
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    found = np.moveaxis(places.reshape(len(weights), *moved.shape[1:]), 0,
                        axis % len(view.shape))
    _set(walk, node.outputs[0], made, found)


def _set(walk: Walk, name: str, tensor: str, places: np.ndarray) -> None:
    """A view; plain if nothing is moved."""
    plain = bool((places.reshape(-1) == np.arange(places.size)).all())
    walk.views[name] = View(tensor, places.shape, None if plain else places)


def _product(walk: Walk, node: Node, left: View, right: View) -> None:
    """The product of two activations for each head, columns of the result as channels.

    out[n, m] = sum over k of right[k, n] * left[m, k]. Heads lie behind one another as channels.
    """
    heads = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    a = np.broadcast_to(left.places, (*heads, rows, inner)).reshape(-1, rows, inner)
    b = np.broadcast_to(right.places, (*heads, inner, columns)).reshape(-1, inner, columns)
    parts = []
    for index in range(len(a)):
        name = node.outputs[0] if len(a) == 1 else f"{node.outputs[0]}.head{index}"
        first = walk.arranged(left.tensor, a[index].T[:, :, None], free=True)
        second = walk.arranged(right.tensor, b[index].T[:, :, None], free=True)
        spec = walk.tensors[first]
        parts.append(walk.add(name, Operator.MATMUL, (first, second), ("multiplier", "shift"),
                              (columns, spec.rows, spec.columns)))
    made = parts[0] if len(parts) == 1 else walk.add(
        node.outputs[0], Operator.CONCAT, tuple(_same_positions(walk, parts)), (),
        (columns * len(parts), rows, 1))
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    _set(walk, node.outputs[0], made,
         places.reshape(*heads, columns, rows).swapaxes(-1, -2))


def _same_positions(walk: Walk, parts: list[str]) -> list[str]:
    """The parts with all positions along the rows."""
    return [walk.arranged(name, np.arange(walk.tensors[name].elements).reshape(
        walk.tensors[name].channels, -1, 1)) for name in parts]


def _softmax(walk: Walk, node: Node) -> None:
    view = walk.view(node.inputs[0])
    rank = len(view.shape)
    axis = node.attribute("axis", 1 if walk.model.opset < 13 else -1) % rank
    if walk.model.opset < 13 and math.prod(view.shape[axis + 1:]) > 1:
        raise Unsupported(f"axis {axis} of an old operator set spans several axes")
    moved, back = first_axes(view.places, (axis,))
    source = walk.arranged(view.tensor, moved.reshape(len(moved), -1, 1), free=True)
    made = walk.add(node.outputs[0], Operator.SOFTMAX, (source,), ("table",))
    walk.fixed[made] = 2.0**-7
    _set(walk, node.outputs[0], made, back(np.arange(moved.size, dtype=np.int32)))


def _concat(walk: Walk, node: Node) -> None:
    """Behind one another as channels. Parts with other scales than the whole are rescaled."""
    seen = [walk.view(name) for name in node.inputs]
    axis = node.attribute("axis", 1) % len(seen[0].shape)
    wanted = functions.next_scale(walk, node.outputs[0])
    scales = {walk.fixed.get(view.tensor) for view in seen}
    if wanted is None and len(scales) == 1:
        wanted = next(iter(scales))
    parts, rest, shape = [], seen[0].shape, None
    for name, view in zip(node.inputs, seen, strict=True):
        if walk.fixed.get(view.tensor, wanted) != wanted:
            view = walk.settled(View(view.tensor, view.shape, view.moved, lambda x: x),
                                f"{name}.in.{node.outputs[0]}")
        order, _ = first_axes(view.places, (axis,))
        part = walk.arranged(view.tensor, order.reshape(len(order), -1, 1), free=True)
        spec = walk.tensors[part]
        if shape is not None and (spec.rows, spec.columns) != shape:
            part = walk.arranged(part, np.arange(spec.elements).reshape(spec.channels, *shape))
        shape = shape or (spec.rows, spec.columns)
        if wanted is not None:
            walk.fixed[part] = wanted
        parts.append(part)
    assert shape is not None
    channels = sum(walk.tensors[part].channels for part in parts)
    made = walk.add(node.outputs[0], Operator.CONCAT, tuple(parts), (), (channels, *shape))
    if wanted is not None:
        walk.fixed[made] = wanted
    others = [size for index, size in enumerate(rest) if index != axis]
    places = np.arange(walk.tensors[made].elements, dtype=np.int32).reshape(channels, *others)
    _set(walk, node.outputs[0], made, np.moveaxis(places, 0, axis))


def _move(walk: Walk, node: Node) -> None:
    """Operators that only move elements move places instead."""
    view = walk.lazy(node.inputs[0])
    if node.operator in ("Identity", "Dropout", "Cast"):
        walk.views[node.outputs[0]] = view
        return
    further: list[np.ndarray | None] = [
        walk.constant(name) if name else None for name in node.inputs[1:]]
    if node.operator == "Pad" and node.text("mode", "constant") == "constant":
        view = walk.view(node.inputs[0])
        if len(further) > 1 and further[1] is not None and further[1].reshape(-1)[0] != 0:
            raise Unsupported("padding must be zero, or taken from inside")
        further = [further[0], np.array(-1, np.int64), *further[2:]]
        node = _with_three_inputs(node)
    try:
        found = run_node(node, [view.places.astype(np.int64), *further], walk.model.opset)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    for name, places in zip(node.outputs, found, strict=False):
        if name:
            places = places.astype(np.int32)
            plain = (view.moved is None and places.size == math.prod(view.shape)
                     and bool((places.reshape(-1) == np.arange(places.size)).all()))
            walk.views[name] = View(view.tensor, places.shape, None if plain else places,
                                    view.function)


def _with_three_inputs(node: Node) -> Node:
    """A Pad that states its value."""
    inputs = [*node.inputs[:2], "the value", *node.inputs[3:]]
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(inputs)
    return Node(node.name, node.operator, tuple(inputs), node.outputs, node.attributes, proto)


def _reduce(walk: Walk, node: Node) -> None:
    """Means, sums and greatest values over some axes: a pool over all positions."""
    view = walk.view(node.inputs[0])
    rank = len(view.shape)
    axes = node.attribute("axes", None)
    if axes is None:
        given = walk.optional(node, 1)
        axes = None if given is None else [int(axis) for axis in given.reshape(-1)]
    if node.operator.startswith("Global"):
        axes = range(2, rank)
    if not axes and node.attribute("noop_with_empty_axes", 0):
        walk.views[node.outputs[0]] = view
        return
    gone = {axis % rank for axis in (axes or range(rank))}
    kept = tuple(axis for axis in range(rank) if axis not in gone)
    moved, _ = first_axes(view.places, kept)
    channels = math.prod(moved.shape[: len(kept)])
    places = moved.reshape(channels, *as_three(moved.reshape(1, channels, *(
        moved.shape[len(kept):]))).shape[1:])
    source = walk.arranged(view.tensor, places, free=True)
    made = windows.reduce_positions(walk, node.outputs[0], source, node.operator.endswith("Max")
                                    or node.operator == "GlobalMaxPool")
    stays = node.attribute("keepdims", 1) or node.operator.startswith("Global")
    shape = tuple(1 if axis in gone else size for axis, size in enumerate(view.shape)
                  if stays or axis not in gone)
    count = float(math.prod(view.shape) // channels)
    walk.views[node.outputs[0]] = View(
        made, shape, None, (lambda x: x * count) if node.operator == "ReduceSum" else None)


def _normalize(walk: Walk, node: Node, name: str, kept: int, groups: int | None = None) -> View:
    """Zero mean, unit variance over all axes but the first `kept`; with `groups` the second axis
    counts as that many. A group norm without scale and offset."""
    view = walk.view(name)
    places = view.places
    if groups is not None:
        if view.shape[1] % groups:
            raise Unsupported(f"{groups} groups do not divide {view.shape[1]} channels")
        places = places.reshape(view.shape[0], groups, view.shape[1] // groups, *view.shape[2:])
    count = math.prod(places.shape[:kept])
    spec = walk.tensors[view.tensor]
    if view.moved is None and spec.channels % count == 0:
        source, result = view.tensor, view
    else:
        # Each group becomes one channel.
        source = walk.arranged(view.tensor, places.reshape(count, -1, 1), free=True)
        result = View(source, view.shape)
    channels = walk.tensors[source].channels
    made = walk.add(node.outputs[0], Operator.GROUP_NORM, (source,),
                    ("scale", "offset", "epsilon"), window=Window(groups=count))
    walk.weights[f"{made}.scale"] = np.ones(channels, np.float32)
    walk.weights[f"{made}.offset"] = np.zeros(channels, np.float32)
    walk.weights[f"{made}.epsilon"] = np.array([node.attribute("epsilon", 1e-5)])
    return View(made, result.shape)


def _norm(walk: Walk, node: Node) -> None:
    """Layer, instance and group normalization, their scales and offsets as an affine step."""
    rank = len(walk.lazy(node.inputs[0]).shape)
    scale, offset = walk.optional(node, 1), walk.optional(node, 2)
    if any(name for name in node.outputs[1:]):
        raise Unsupported("mean and deviation must not be used")
    if node.operator == "LayerNormalization":
        kept, groups = node.attribute("axis", -1) % rank, None
    elif node.operator == "InstanceNormalization":
        kept, groups = 2, None
    else:
        kept, groups = 2, int(node.attribute("num_groups", 1))
    view = _normalize(walk, node, node.inputs[0], kept, groups)
    if node.operator != "LayerNormalization":
        channels = view.shape[1]
        shape = (1, channels, *[1] * (rank - 2))
        scale, offset = (None if array is None else np.repeat(
            array.reshape(-1), channels // array.size).reshape(shape) for array in (scale, offset))
    inner = f"{node.outputs[0]}.plain"
    walk.views[inner] = view
    scale = np.array(1.0) if scale is None else scale.astype(np.float64)
    offset = np.array(0.0) if offset is None else offset.astype(np.float64)
    if (scale == 1).all() and (offset == 0).all():
        walk.views[node.outputs[0]] = view
    else:
        functions.affine(walk, node, inner, scale, offset)


def _axes_norm(walk: Walk, node: Node) -> None:
    """A normalization written out by an exporter, over any axes (`onnx_patterns`)."""
    view = walk.view(node.inputs[0])
    rank = len(view.shape)
    gone = {axis % rank for axis in node.attribute("axes", [-1])}
    kept = tuple(axis for axis in range(rank) if axis not in gone)
    moved, back = first_axes(view.places, kept)
    inner = f"{node.outputs[0]}.moved"
    _set(walk, inner, view.tensor, moved)
    found = _normalize(walk, node, inner, len(kept))
    _set(walk, node.outputs[0], found.tensor, back(found.places))


def _quantize_linear(walk: Walk, node: Node) -> None:
    scale = walk.constant(node.inputs[1])
    zero = stated_zero(walk, node)
    if node.inputs[0] in walk.constants:
        array = walk.constants[node.inputs[0]]
        counted = np.rint(array / _along_axis(scale, array.ndim, node)) + _along_axis(
            zero.astype(np.float64), array.ndim, node)
        bounds = np.iinfo(zero.dtype)
        walk.constants[node.outputs[0]] = np.clip(
            counted, bounds.min, bounds.max).astype(zero.dtype)
        return
    if scale.size != 1:
        raise Unsupported("activations must have one scale")
    if zero.dtype not in (np.int8, np.uint8):
        raise Unsupported(f"{zero.dtype} activations must have 8 bits")
    step = stated_step(walk, node)
    if not is_symmetric(zero):
        _complain(walk, node, zero)
        walk.widened += 1
    view = walk.lazy(node.inputs[0])
    if (zero == np.iinfo(zero.dtype).min).all() and not functions.is_positive(walk, view.tensor):
        # A range that begins at zero cuts off what is below: quantizers drop a ReLU for it.
        functions.relu(walk, node)
        view = walk.view(node.outputs[0])
    view = walk.settled(view, node.inputs[0])
    if walk.fixed.get(view.tensor, step) != step:
        # The file rescales a tensor that already has a scale: one more rounding, kept.
        view = walk.settled(View(view.tensor, view.shape, view.moved,
                                 lambda x: x), node.outputs[0])
    walk.fixed[view.tensor] = step
    walk.views[node.outputs[0]] = view


def _dequantize_linear(walk: Walk, node: Node) -> None:
    name = node.inputs[0]
    if name not in walk.constants:
        walk.views[node.outputs[0]] = walk.lazy(name)
        return
    raw, zero = walk.constant(name), walk.optional(node, 2)
    scale = walk.constant(node.inputs[1]).astype(np.float64)
    array = raw.astype(np.float64)
    zero = np.zeros(1, raw.dtype) if zero is None else zero
    if raw.dtype.itemsize != 1 and raw.dtype != np.int32:
        raise Unsupported(f"{raw.dtype} values must have 8 bits, or 32 for a bias")
    regular = is_symmetric(zero)
    if not regular:
        _complain(walk, node, zero)
    array = array - _along_axis(zero.astype(np.float64), array.ndim, node)
    walk.constants[node.outputs[0]] = array * _along_axis(scale, array.ndim, node)
    if regular and raw.dtype in (np.int8, np.uint8):
        walk.steps[node.outputs[0]] = scale
    elif raw.dtype != np.int32:
        walk.widened += 1


def _along_axis(scale: np.ndarray, rank: int, node: Node) -> np.ndarray:
    """A scale shaped to broadcast along the node's axis."""
    if node.attribute("block_size", 0):
        raise Unsupported("block_size must be 0")
    axis = node.attribute("axis", 1) % max(rank, 1)
    shape = [-1 if index == axis else 1 for index in range(rank)]
    return scale.reshape(shape) if scale.size > 1 else scale.reshape(-1)[0]


def _complain(walk: Walk, node: Node, zero: np.ndarray) -> None:
    """Note a zero point, unless ranges are to be widened; the walk goes on to find them all."""
    if not walk.symmetric:
        walk.problems.append((node, (
            f"the zero point must be {128 if zero.dtype == np.uint8 else 0} ({zero.dtype}); "
            "--symmetric widens the ranges, or quantize again with ActivationSymmetric and "
            "WeightSymmetric (onnxruntime)")))


Rule = Callable[[Walk, Node], None]
RULES: Mapping[str, Rule] = {
    "Conv": windows.conv, "ConvTranspose": windows.conv_transpose, "Gemm": _gemm,
    "MatMul": _matmul, "BatchNormalization": functions.batch_norm, "Relu": functions.relu,
    "Clip": functions.clip, "Min": functions.clip, "Max": functions.clip, "Add": functions.add,
    "Sub": functions.add, "Mul": functions.mul, "Div": functions.mul, "Pow": functions.power,
    "Neg": functions.negative, "PRelu": functions.slope, "Concat": _concat,
    "MaxPool": windows.pool, "AveragePool": windows.pool, "GlobalAveragePool": _reduce,
    "GlobalMaxPool": _reduce, "ReduceMean": _reduce, "ReduceSum": _reduce, "ReduceMax": _reduce,
    "Resize": windows.resize, "Upsample": windows.resize, "GridSample": windows.grid_sample,
    "Softmax": _softmax, "LayerNormalization": _norm, "InstanceNormalization": _norm,
    "GroupNormalization": _norm, "Normalize over axes": _axes_norm,
    "QuantizeLinear": _quantize_linear, "DequantizeLinear": _dequantize_linear,
    **dict.fromkeys(functions.ONE, functions.one),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
                     "Transpose", "Slice", "Split", "Gather", "Expand", "Tile", "Pad",
                     "DepthToSpace", "SpaceToDepth"), _move),
}

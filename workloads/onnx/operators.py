"""Says what each ONNX operator becomes: one rule an operator, from a node to layers and views.

It walks no graph and reads no file. A rule that cannot keep a node's meaning raises Unsupported.
Windows are in `onnx_windows`, elementwise operators in `onnx_functions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import functions, stated, windows
from workloads.onnx.fold import run_node
from workloads.onnx.read import Node
from workloads.onnx.walk import Unsupported, View, Walk, first_axes


def _gemm(walk: Walk, node: Node) -> None:
    """alpha * x W + beta * c; the product of two activations without c is a MatMul."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if node.attribute("transA", 0):
        raise Unsupported("transA must be 0")
    given, turned = walk.constant(node.inputs[1]), bool(node.attribute("transB", 0))
    weights = given if turned else given.T
    steps = stated.output_steps(walk.steps.get(node.inputs[1]), 0 if turned else 1)
    steps = None if steps is None or alpha == 0 else steps * abs(alpha)
    bias = walk.optional(node, 2)
    bias = np.zeros(1) if bias is None else bias * beta
    rows = walk.lazy(node.inputs[0]).shape[0]
    try:
        np.broadcast_to(bias, (rows, len(weights)))
    except ValueError as error:
        raise Unsupported(f"c {bias.shape} must broadcast to {(rows, len(weights))}") from error
    if bias.ndim < 2 or bias.shape[0] == 1:
        offset = np.broadcast_to(bias.reshape(-1), (len(weights),))
        _dense(walk, node, node.inputs[0], weights * alpha, offset, -1, steps)
        return
    # A c with a value for each row is added behind the product.
    inner = replace(node, outputs=(f"{node.outputs[0]}.product",))
    _dense(walk, inner, node.inputs[0], weights * alpha, None, -1, steps)
    functions.affine(walk, node, inner.outputs[0], np.array(1.0), bias.astype(np.float64))


def _matmul(walk: Walk, node: Node) -> None:
    left, right = node.inputs
    if right in walk.constants:
        _dense(walk, node, left, _matrix(walk.constants[right]).T, None, -1,
               stated.output_steps(walk.steps.get(right), -1))
    elif left in walk.constants:
        _dense(walk, node, right, _matrix(walk.constants[left]), None, -2,
               stated.output_steps(walk.steps.get(left), -2))
    else:
        _product(walk, node, walk.view(left), walk.view(right))


def _matrix(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2 or array.size != array.shape[-1] * array.shape[-2]:
        raise Unsupported(f"constant {array.shape} must be one matrix")
    return array.reshape(array.shape[-2:])


def _dense(walk: Walk, node: Node, name: str, weights: np.ndarray, bias: np.ndarray | None,
           axis: int, steps: np.ndarray | None) -> None:
    """A matrix times one axis: a convolution whose channels are that axis."""
    view = walk.view(name)
    if len(view.shape) < 2 or view.shape[axis] != weights.shape[1]:
        raise Unsupported(f"{weights.shape[1]} weights a row do not fit {view.shape}")
    bias = np.zeros(len(weights)) if bias is None else bias
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
    if node.operator == "Cast" and node.attribute("to", 1) not in FLOATS:
        raise Unsupported("activations must stay floating point")
    if node.operator in ("Identity", "Dropout", "Cast"):
        walk.views[node.outputs[0]] = view
        return
    further: list[np.ndarray | None] = [
        walk.constant(name) if name else None for name in node.inputs[1:]]
    if node.operator == "Pad":
        node, further = _pad(walk, node, further)
        view = walk.view(node.inputs[0])
    try:
        found = run_node(node, [view.places.astype(np.int64), *further],
                         max(walk.model.opset, 13) if node.operator == "Pad" else walk.model.opset)
    except ValueError as error:
        raise Unsupported(str(error)) from error
    for name, places in zip(node.outputs, found, strict=False):
        if name:
            places = places.astype(np.int32)
            plain = (view.moved is None and places.size == math.prod(view.shape)
                     and bool((places.reshape(-1) == np.arange(places.size)).all()))
            walk.views[name] = View(view.tensor, places.shape, None if plain else places,
                                    view.function)


def _pad(walk: Walk, node: Node, further: list[np.ndarray | None]) -> tuple[
    Node, list[np.ndarray | None]
]:
    """A Pad of any operator set as one with inputs: its places, -1 where a zero is put."""
    pads = np.asarray(node.attribute("pads", []), np.int64) if not further else further[0]
    value = further[1] if len(further) > 1 else None
    real = float(node.attribute("value", 0.0)) if value is None else float(value.reshape(-1)[0])
    plain = node.text("mode", "constant") == "constant"
    if node.inputs[0] in walk.counted:
        real = walk.counted[node.inputs[0]].real(real)
    if plain and real != 0 and np.any(pads):
        raise Unsupported(f"padding stands for {real:g}, must be zero, or taken from inside")
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    kept = [item for item in node.proto.attribute if item.name == "mode"]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    inputs = (node.inputs[0], "the pads", "the value", *node.inputs[3:])
    del proto.input[:]
    proto.input.extend(inputs)
    return replace(node, inputs=inputs, proto=proto), [
        pads, np.array(-1, np.int64), *further[2:]]


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
    rest = (*moved.shape[len(kept):], 1, 1)[:max(2, rank - len(kept))]
    places = moved.reshape(channels, math.prod(rest[:-1]), rest[-1])
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


#: Types of a Cast that change no value here: float32, float16, double, bfloat16.
FLOATS = (1, 10, 11, 16)
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
    "QuantizeLinear": stated.quantize_linear,
    "DequantizeLinear": stated.dequantize_linear,
    **dict.fromkeys(functions.ONE, functions.one),
    **dict.fromkeys(("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
                     "Transpose", "Slice", "Split", "Gather", "Expand", "Tile", "Pad",
                     "DepthToSpace", "SpaceToDepth"), _move),
}

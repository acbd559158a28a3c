"""What reductions, softmax and normalizations of ONNX become.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.
"""

from __future__ import annotations

import math

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import shifted
from workloads.onnx.read import Node
from workloads.onnx.rules import functions, windows
from workloads.onnx.rules.curves import Linear
from workloads.onnx.walk import Unsupported, View, Walk, first_axes


def softmax(walk: Walk, node: Node) -> None:
    """Over one axis; before operator set 13 over all axes from that one on."""
    view, _ = shifted.held(walk, node.inputs[0])  # differences alone count
    rank = max(len(view.shape), 1)
    axis = node.attribute("axis", 1 if node.opset < 13 else -1)
    if not -rank <= axis < rank:
        raise Unsupported(f"axis {axis} must be from {-rank} to {rank - 1}")
    axis %= rank
    axes = tuple(range(axis, rank)) if node.opset < 13 else (axis,)
    moved, back = first_axes(view.places.reshape(view.shape or (1,)), axes)
    count = math.prod(moved.shape[: len(axes)])
    source = walk.arranged(view.tensor, moved.reshape(count, -1, 1), free=True)
    made = walk.add(node.outputs[0], Operator.SOFTMAX, (source,), ("table",))
    walk.fixed[made] = 2.0**-7
    walk.put(node.outputs[0], made, back(np.arange(moved.size, dtype=np.int32)).reshape(view.shape))


def reduced_axes(walk: Walk, node: Node, rank: int) -> list[int]:
    """The axes that a reduction takes together, from its attribute or its second input."""
    axes = node.attribute("axes", None)
    if axes is None:
        given = walk.optional(node, 1)
        axes = None if given is None else [int(axis) for axis in given.reshape(-1)]
    if node.operator.startswith("Global"):
        axes = range(2, rank)
    if not axes and node.attribute("noop_with_empty_axes", 0):
        return []
    wrong = [axis for axis in axes or () if not -rank <= axis < rank]
    if wrong:
        raise Unsupported(f"axis {wrong[0]} must be from {-rank} to {rank - 1}")
    return sorted({axis % rank for axis in (axes or range(rank))})


def reduce(walk: Walk, node: Node) -> None:
    """Means, sums and greatest values over some axes: a pool over all positions."""
    view, offset = shifted.held(walk, node.inputs[0])
    rank = len(view.shape)
    gone = reduced_axes(walk, node, rank)
    if not gone:
        walk.views[node.outputs[0]] = walk.lazy(node.inputs[0])
        return
    greatest = node.operator in ("GlobalMaxPool", "ReduceMax")
    kept = tuple(axis for axis in range(rank) if axis not in gone)
    moved, _ = first_axes(view.places, kept)
    channels = math.prod(moved.shape[: len(kept)])
    rest = (*moved.shape[len(kept):], 1, 1)[:max(2, rank - len(kept))]
    places = moved.reshape(channels, math.prod(rest[:-1]), rest[-1])
    source = walk.arranged(view.tensor, places, free=True)
    made = windows.reduce_positions(walk, node.outputs[0], source, greatest)
    stays = node.attribute("keepdims", 1) or node.operator.startswith("Global")
    shape = tuple(1 if axis in gone else size for axis, size in enumerate(view.shape)
                  if stays or axis not in gone)
    walk.views[node.outputs[0]] = View(made, shape)
    shifted.pooled(walk, node.outputs[0], offset, greatest)
    if node.operator == "ReduceSum":
        walk.views[node.outputs[0]] = View(
            made, shape, None, Linear(float(math.prod(view.shape) // channels)))


def _normalize(walk: Walk, node: Node, name: str, kept: int, groups: int | None = None) -> View:
    """Zero mean, unit variance over all axes but the first `kept`; with `groups` the second axis
    counts as that many. A group norm without scale and offset."""
    view, _ = shifted.held(walk, name)  # differences alone count
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
    made = _group_norm(walk, node.outputs[0], source, count, node.attribute("epsilon", 1e-5))
    return View(made, result.shape)


def _group_norm(walk: Walk, name: str, source: str, groups: int, epsilon: float) -> str:
    channels = walk.tensors[source].channels
    made = walk.add(name, Operator.GROUP_NORM, (source,),
                    ("scale", "offset", "epsilon"), window=Window(groups=groups))
    walk.weights[f"{made}.scale"] = np.ones(channels, np.float32)
    walk.weights[f"{made}.offset"] = np.zeros(channels, np.float32)
    walk.weights[f"{made}.epsilon"] = np.array([epsilon])
    return made


def norm(walk: Walk, node: Node) -> None:
    """Layer, instance and group normalization, their scales and offsets as an affine step."""
    rank = len(walk.lazy(node.inputs[0]).shape)
    scale, offset = walk.optional(node, 1), walk.optional(node, 2)
    if any(walk.consumers(name) or name in walk.model.outputs for name in node.outputs[1:]):
        raise Unsupported("mean and deviation must not be used")
    if node.operator == "LayerNormalization":
        axis = node.attribute("axis", -1)
        if not -rank <= axis < rank:
            raise Unsupported(f"axis {axis} must be from {-rank} to {rank - 1}")
        kept, groups = axis % rank, None
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
    _scaled(walk, node, view, scale, offset)


def _scaled(walk: Walk, node: Node, view: View, scale: np.ndarray | None,
            offset: np.ndarray | None) -> None:
    """The scale and the offset of a normalization behind it."""
    inner = f"{node.outputs[0]}.plain"
    walk.views[inner] = view
    scale = np.array(1.0) if scale is None else scale.astype(np.float64)
    offset = np.array(0.0) if offset is None else offset.astype(np.float64)
    if (scale == 1).all() and (offset == 0).all():
        walk.views[node.outputs[0]] = view
    else:
        functions.affine(walk, node, inner, scale, offset)


def axes_norm(walk: Walk, node: Node) -> None:
    """A normalization written out by an exporter, over any axes (`patterns`)."""
    view = walk.view(node.inputs[0])
    rank = len(view.shape)
    gone = {axis % rank for axis in node.attribute("axes", [-1])}
    kept = tuple(axis for axis in range(rank) if axis not in gone)
    moved, back = first_axes(view.places, kept)
    inner = f"{node.outputs[0]}.moved"
    walk.put(inner, view.tensor, moved)
    found = _normalize(walk, node, inner, len(kept))
    walk.put(node.outputs[0], found.tensor, back(found.places))


def root_mean_square(walk: Walk, node: Node) -> None:
    """x / sqrt(mean(x * x) + epsilon) over some axes, times a constant.

    A group norm of x beside -x: their mean is zero, so their variance is the mean square.
    """
    view = walk.view(node.inputs[0])
    rank = len(view.shape)
    gone = {axis % rank for axis in node.attribute("axes", [-1])}
    kept = tuple(axis for axis in range(rank) if axis not in gone)
    moved, back = first_axes(view.places, kept)
    count = math.prod(moved.shape[: len(kept)])
    source = walk.arranged(view.tensor, moved.reshape(count, -1, 1), free=True)
    turned = walk.add(f"{node.outputs[0]}.negative", Operator.AFFINE, (source,),
                      ("multiplier", "offset", "shift"))
    walk.weights[f"{turned}.scale"] = -np.ones(count, np.float32)
    walk.weights[f"{turned}.offset"] = np.zeros(count, np.float32)
    spec = walk.tensors[source]
    both = walk.add(f"{node.outputs[0]}.both", Operator.CONCAT, (source, turned), (),
                    (2 * count, spec.rows, spec.columns))
    for name in (turned, both):
        walk.keep_scale(name, source)
    pairs = np.arange(2 * spec.elements).reshape(2, count, -1).swapaxes(0, 1)
    made = _group_norm(walk, node.outputs[0], walk.arranged(
        both, pairs.reshape(2 * count, -1, 1), free=True), count, node.attribute("epsilon", 1e-5))
    places = np.arange(2 * spec.elements, dtype=np.int32).reshape(count, 2, -1)[:, 0]
    inner = f"{node.outputs[0]}.plain"
    walk.put(inner, made, back(places.reshape(-1)))
    _scaled(walk, node, walk.views[inner],
            None if len(node.inputs) < 2 else walk.constant(node.inputs[1]), None)

"""What operators that only move, choose or join elements become.

It walks no graph and computes nothing. A rule that cannot keep a node's meaning raises
Unsupported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from workloads.graph import Operator
from workloads.onnx import shifted
from workloads.onnx.fold import run_node
from workloads.onnx.read import Node, made_node
from workloads.onnx.rules import functions
from workloads.onnx.rules.steps import Steps
from workloads.onnx.walk import Unsupported, View, Walk, first_axes

#: Types of a Cast that change no value here: float32, float16, double, bfloat16.
FLOATS = (1, 10, 11, 16)
BOOL = 9
#: Integers of 8 bits and more.
WHOLE = (2, 3, 4, 5, 6, 7, 12, 13)
#: Operators that take integers for their order alone.
ORDERS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
#: A padding of so little and less is left out of every maximum.
NEVER = -1e4


def concat(walk: Walk, node: Node) -> None:
    """Behind one another as channels. Parts with other scales than the whole are rescaled, parts
    without elements left out."""
    node = replace(node, inputs=tuple(
        name for name in node.inputs if math.prod(walk.shape(name)) > 0))
    rest = walk.shape(node.inputs[0])
    axis = node.attribute("axis", 1) % len(rest)
    for name in node.inputs:
        shifted.held(walk, name)  # applies what is still to be applied
    wanted, offset = shifted.joined(walk, node)
    parts, shape = [], None
    for name in node.inputs:
        view = shifted.part(walk, name, node.outputs[0], wanted, offset)
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
    if offset:
        walk.shifts[made] = offset
    others = [size for index, size in enumerate(rest) if index != axis]
    places = np.arange(walk.tensors[made].elements, dtype=np.int32).reshape(channels, *others)
    walk.put(node.outputs[0], made, np.moveaxis(places, 0, axis))
    shifted.pass_on(walk, node.outputs[0], offset)


def move(walk: Walk, node: Node) -> None:
    """Operators that only move elements move places instead."""
    if node.operator in ("Cast", "CastLike") and _kind(walk, node) not in FLOATS:
        _cast(walk, node)
        return
    zeros = node.operator in ("Pad", "Trilu", "CenterCropPad")
    view, offset = shifted.held(walk, node.inputs[0]) if zeros else (
        walk.lazy(node.inputs[0]), 0.0)
    if node.operator in ("Identity", "Dropout", "Cast", "CastLike"):
        if any(walk.consumers(name) or name in walk.model.outputs for name in node.outputs[1:]):
            raise Unsupported("the mask must not be used")
        training = walk.optional(node, 2) if node.operator == "Dropout" else None
        if training is not None and training.all():
            raise Unsupported("training_mode must be false; export for inference")
        walk.views[node.outputs[0]] = view
        return
    further: list[np.ndarray | None] = [
        walk.constant(name) if name else None for name in node.inputs[1:]]
    places = view.places.astype(np.int64)
    if node.operator == "Pad":
        node, further, places = _pad(walk, node, further, places)
    shift = node.operator in ("Trilu", "CenterCropPad")  # these write zeros, which are -1 here
    try:
        found = run_node(node, [places + shift, *further])
    except ValueError as error:
        raise Unsupported(str(error)) from error
    for name, moved in zip(node.outputs, found, strict=False):
        if name:
            if not moved.size:
                raise Unsupported(f"{name!r} would have no elements")
            moved = (moved - shift).astype(np.int32)
            plain = (view.moved is None and moved.size == math.prod(view.shape)
                     and bool((moved.reshape(-1) == np.arange(moved.size)).all()))
            walk.views[name] = View(view.tensor, moved.shape, None if plain else moved,
                                    view.function)
            shifted.pass_on(walk, name, offset)


def _cast(walk: Walk, node: Node) -> None:
    """A Cast to a type that is no float: digits go; what reads it must not count in integers."""
    kind = _kind(walk, node)
    if kind != BOOL and kind not in WHOLE:
        raise Unsupported("activations must stay floating point, or become whole numbers")
    if kind != BOOL and any(other.operator not in ("Cast", "CastLike", *ORDERS)
                            for other in walk.consumers(node.outputs[0])):
        raise Unsupported("what counts in integers behind it is not imported; let activations "
                          "stay floating point, or cut it off (onnx.utils.extract_model)")
    functions.one(walk, replace(node, operator="Is not zero" if kind == BOOL else "Cut to whole",
                                inputs=node.inputs[:1]))


def _kind(walk: Walk, node: Node) -> int:
    """The type that a Cast asks for, by ONNX's number."""
    if node.operator == "Cast":
        return int(node.attribute("to", 1))
    if node.inputs[1] in walk.views:
        return FLOATS[0]
    return int(onnx.helper.np_dtype_to_tensor_dtype(walk.constant(node.inputs[1]).dtype))


def _pad(walk: Walk, node: Node, further: list[np.ndarray | None], places: np.ndarray) -> tuple[
    Node, list[np.ndarray | None], np.ndarray
]:
    """A Pad of any operator set as one with inputs and without negative pads, which cut places
    off first: its places, -1 where a zero is put."""
    pads, value = _stated_pads(node, further)
    mode = node.text("mode", "constant")
    if node.inputs[0] in walk.counted:
        value = walk.counted[node.inputs[0]].real(value)
    if mode == "constant" and value != 0 and np.any(pads):
        if value > NEVER or not _only_maxima(walk, node):
            raise Unsupported(f"padding stands for {value:g}, must be zero, or taken from inside")
        mode = "edge"  # a value that is inside changes no maximum
    inputs = (node.inputs[0], "the pads", "the value", *node.inputs[3:])
    given = further[2] if len(further) > 2 else None
    axes = range(places.ndim) if given is None else given.reshape(-1).tolist()
    for axis, (before, after) in zip(axes, pads.reshape(2, -1).T.tolist(), strict=True):
        size = places.shape[axis]
        places = places.take(range(max(0, -before), size - max(0, -after)), axis)
    return made_node("Pad", inputs, node.outputs, name=node.name, mode=mode), [
        np.maximum(pads, 0), np.array(-1, np.int64), *further[2:]], places


def _stated_pads(node: Node, further: Sequence[np.ndarray | None]) -> tuple[np.ndarray, float]:
    """The pads of a Pad of any operator set, and the value that is put there."""
    pads = np.asarray(node.attribute("pads", []), np.int64) if not further else further[0]
    value = further[1] if len(further) > 1 else None
    real = float(node.attribute("value", 0.0)) if value is None else float(value.reshape(-1)[0])
    if pads is None:
        raise Unsupported("the pads must be constant")
    return pads, real


def _only_maxima(walk: Walk, node: Node) -> bool:
    readers = walk.consumers(node.outputs[0])
    return bool(readers) and all(other.operator == "MaxPool" for other in readers)


def pad_in_steps(walk: Walk, node: Node) -> list[Node] | None:
    """A Pad with another value v than zero: x - v, padded with zeros, plus v."""
    if node.text("mode", "constant") != "constant" or node.inputs[0] in walk.counted:
        return None
    further = [walk.constant(name) if name else None for name in node.inputs[1:]]
    pads, value = _stated_pads(node, further)
    if value == 0 or not np.any(pads) or not math.isfinite(value) or abs(value) >= -NEVER:
        return None
    steps = Steps(walk, node)
    amount = steps.constant(value)
    padded = steps("Pad", steps("Sub", node.inputs[0], amount), steps.constant(pads, np.int64),
                   steps.constant(0.0), *node.inputs[3:])
    steps("Add", padded, amount, out=node.outputs[0])
    return steps.nodes


def scatter(walk: Walk, node: Node) -> None:
    """ScatterND and ScatterElements at constant indices: what stays, beside what is put there."""
    if node.text("reduction", "none") != "none":
        raise Unsupported(f"reduction {node.text('reduction', '')} must be none")
    name, other = node.inputs[0], node.inputs[2]
    old, new = (np.arange(math.prod(walk.shape(item))).reshape(walk.shape(item))
                for item in (name, other))
    found = run_node(node, [old, walk.constant(node.inputs[1]), new + old.size])[0]
    put = found >= old.size
    filled = f"{node.outputs[0]}.put"
    if other in walk.constants:
        walk.constants[filled] = walk.constants[other].reshape(-1)[np.where(
            put, found - old.size, 0)]
    else:
        view = walk.view(other)
        walk.views[filled] = View(view.tensor, found.shape, view.places.reshape(-1)[np.where(
            put, found - old.size, 0)])
    condition = f"{node.outputs[0]}.condition"
    walk.constants[condition] = put
    where(walk, replace(node, operator="Where", inputs=(condition, filled, name)))


def chosen_in_steps(walk: Walk, node: Node) -> list[Node] | None:
    """Where by a condition of activations, which is 0 or 1: a * condition + b * (1 - condition)."""
    condition, *names = node.inputs
    if condition in walk.constants:
        return None
    if any(name in walk.constants and not np.isfinite(walk.constants[name]).all()
           for name in names):
        raise Unsupported("what an activation chooses must be finite")
    steps = Steps(walk, node)
    other = steps("Sub", steps.constant(1.0), condition)
    steps("Add", steps("Mul", condition, names[0]), steps("Mul", other, names[1]),
          out=node.outputs[0])
    return steps.nodes


def where(walk: Walk, node: Node) -> None:
    """Where with a constant condition: places of one tensor, or a mask."""
    condition = walk.constant(node.inputs[0]).astype(bool)
    first, second = node.inputs[1:]
    if first in walk.constants or second in walk.constants:
        name, other = (second, first) if first in walk.constants else (first, second)
        kept = condition if name == first else ~condition
        values = walk.constants[other].astype(np.float64)
        functions.affine(walk, node, name, kept.astype(np.float64), np.where(kept, 0.0, values))
        return
    left, right = walk.view(first), walk.view(second)
    shape = np.broadcast_shapes(condition.shape, left.shape, right.shape)
    if left.tensor == right.tensor:
        places = np.where(condition, left.places, right.places)
        walk.put(node.outputs[0], left.tensor, np.broadcast_to(places, shape).copy())
        return
    none = np.array(-1)
    for name, view, keep in ((f"{node.outputs[0]}.first", left, condition),
                             (f"{node.outputs[0]}.second", right, ~condition)):
        places = np.broadcast_to(np.where(keep, view.places, none), shape)
        walk.views[name] = View(view.tensor, shape, np.ascontiguousarray(places))
    functions.add(walk, replace(node, operator="Add", inputs=(
        f"{node.outputs[0]}.first", f"{node.outputs[0]}.second")))

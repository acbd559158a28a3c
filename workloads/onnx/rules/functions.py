"""What elementwise operators of ONNX become: chains of one variable, affine steps, sums, products.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from workloads.graph import Operator
from workloads.onnx.read import Node
from workloads.onnx.rules.curves import ONE, Linear, safe
from workloads.onnx.rules.steps import Steps
from workloads.onnx.walk import Unsupported, View, Walk, as_three, first_axes
from workloads.quantization.float_network import FUNCTIONS, Function


def one(walk: Walk, node: Node) -> None:
    """A function of one variable, put on top of those that are still to be applied."""
    _chain(walk, node, walk.lazy(node.inputs[0]), ONE[node.operator](node))


def _chain(walk: Walk, node: Node, view: View, function: Function) -> None:
    walk.views[node.outputs[0]] = replace(view, function=chained(view, function))


def chained(view: View, function: Function) -> Function:
    """The function behind those that the view still has to apply."""
    inner = view.function
    if inner is None:
        return function
    if isinstance(inner, Linear) and isinstance(function, Linear):
        return Linear(inner.scale * function.scale,
                      inner.offset * function.scale + function.offset)
    return lambda x: function(inner(x))


def relu(walk: Walk, node: Node) -> None:
    """Part of the layer before if that layer can, and if no rounding changes."""
    view = walk.lazy(node.inputs[0])
    index = walk.producer(view.tensor) if view.function is None else None
    stated, wanted = walk.fixed.get(view.tensor), next_scale(walk, node.outputs[0])
    if index is not None and stated in (None, wanted) and walk.alone(view, node):
        layer = walk.layers[index]
        if layer.operator in (Operator.CONVOLUTION, Operator.AFFINE, Operator.GROUP_NORM):
            walk.layers[index] = replace(layer, relu=True)
            walk.views[node.outputs[0]] = view
            return
    _chain(walk, node, view, FUNCTIONS["relu"])


def is_positive(walk: Walk, tensor: str) -> bool:
    """Is it plain that a tensor has no value below zero?"""
    index = walk.producer(tensor)
    if index is None:
        return False
    layer = walk.layers[index]
    if layer.operator in (Operator.MAX_POOL, Operator.AVERAGE_POOL, Operator.UPSAMPLE,
                          Operator.CONCAT, Operator.RESHAPE, Operator.TRANSPOSE, Operator.GATHER):
        return all(is_positive(walk, name) for name in layer.inputs)
    return layer.relu or layer.operator is Operator.SOFTMAX


def next_scale(walk: Walk, name: str) -> float | None:
    """The step with which an ONNX tensor is quantized next, if the file says one."""
    for node in walk.consumers(name):
        if node.operator == "QuantizeLinear" and node.inputs[1] in walk.constants:
            return stated_step(walk, node)
    return None


def stated_zero(walk: Walk, node: Node) -> np.ndarray:
    """The zero point of a QuantizeLinear; without one it is 0, of uint8 if nothing else is said."""
    zero = walk.optional(node, 2)
    if zero is None:
        kind = node.attribute("output_dtype", 0) or onnx.TensorProto.UINT8
        zero = np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(kind))
    return zero


def integer_bounds(kind: np.dtype) -> tuple[int, int]:
    """The least and the greatest integer of a type, of four bits as well."""
    signed, bits = not kind.name.startswith("u"), int(kind.name.lstrip("uint"))
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def is_symmetric(zero: np.ndarray) -> bool:
    """Is a zero point in the middle of its type's range?"""
    return bool((zero == (128 if zero.dtype == np.uint8 else 0)).all())


def stated_step(walk: Walk, node: Node) -> float:
    """The step of a QuantizeLinear; with a zero point the step of the symmetric range around."""
    zero, step = stated_zero(walk, node), float(walk.constant(node.inputs[1]).reshape(-1)[0])
    if is_symmetric(zero):
        return step
    middle, (low, high) = int(zero.reshape(-1)[0]), integer_bounds(zero.dtype)
    return step * max(high - middle, middle - low) / 127


def clip(walk: Walk, node: Node) -> None:
    """Clip, and Min and Max with one constant."""
    least, greatest = node.attribute("min", None), node.attribute("max", None)
    if node.operator == "Clip":
        for place, array in ((0, walk.optional(node, 1)), (1, walk.optional(node, 2))):
            if array is not None:
                bound = float(array.reshape(-1)[0])
                least, greatest = (bound, greatest) if place == 0 else (least, bound)
        name = node.inputs[0]
    else:
        name, array, _ = with_constant(walk, node)
        if array.size != 1:
            raise Unsupported("the constant must be one number")
        bound = float(array.reshape(-1)[0])
        least, greatest = (None, bound) if node.operator == "Min" else (bound, None)
    if greatest is None and least == 0:
        relu(walk, replace(node, inputs=(name,)))
        return
    low = -np.inf if least is None else least
    high = np.inf if greatest is None else greatest
    _chain(walk, node, walk.lazy(name), lambda x: np.clip(x, low, high))


def with_constant(walk: Walk, node: Node) -> tuple[str, np.ndarray, bool]:
    """The activation, the constant, and whether the constant comes first."""
    if len(node.inputs) != 2:
        raise Unsupported(f"{len(node.inputs)} inputs must be two")
    first, second = node.inputs
    if first in walk.constants:
        return second, walk.constants[first].astype(np.float64), True
    return first, walk.constant(second).astype(np.float64), False


def _constants(walk: Walk, node: Node) -> int:
    return sum(name in walk.constants for name in node.inputs)


def add(walk: Walk, node: Node) -> None:
    """Add and Sub."""
    sign = 1.0 if node.operator == "Add" else -1.0
    if _constants(walk, node):
        name, array, first = with_constant(walk, node)
        if first:
            affine(walk, node, name, np.array(sign), array)
        else:
            affine(walk, node, name, np.array(1.0), sign * array)
        return
    left, right = walk.lazy(node.inputs[0]), walk.lazy(node.inputs[1])
    if sign < 0:
        right = _negated(walk, node, right, may_fold=left.tensor != right.tensor)
    if _of_one_variable(walk, node, left, right, np.add):
        return
    _combine(walk, node, left, right, Operator.ADD)


def mul(walk: Walk, node: Node) -> None:
    """Mul, and Div by a constant or of one by an activation."""
    divides = node.operator == "Div"
    if _constants(walk, node):
        name, array, first = with_constant(walk, node)
        if divides and first:
            if array.size != 1:
                turned = f"{node.outputs[0]}.reciprocal"
                one(walk, replace(node, operator="Reciprocal", inputs=(name,), outputs=(turned,)))
                affine(walk, node, turned, array, np.array(0.0))
                return
            value = float(array.reshape(-1)[0])
            _chain(walk, node, walk.lazy(name), safe(lambda x: value / x))
        else:
            affine(walk, node, name, 1 / array if divides else array, np.array(0.0))
        return
    left, right = walk.lazy(node.inputs[0]), walk.lazy(node.inputs[1])
    join = safe(np.divide) if divides else np.multiply
    if _of_one_variable(walk, node, left, right, join):
        return
    if divides:  # by an activation: times its reciprocal
        turned = f"{node.outputs[0]}.reciprocal"
        one(walk, replace(node, operator="Reciprocal", inputs=node.inputs[1:], outputs=(turned,)))
        right = walk.lazy(turned)
        node = replace(node, operator="Mul", inputs=(node.inputs[0], turned))
    _combine(walk, node, left, right, Operator.MULTIPLY)


def power(walk: Walk, node: Node) -> None:
    """Pow with a constant exponent or of a constant number."""
    base = walk.constants.get(node.inputs[0])
    if base is not None and base.size == 1 and base.ndim <= len(walk.lazy(node.inputs[1]).shape):
        number = float(base.reshape(-1)[0])
        _chain(walk, node, walk.lazy(node.inputs[1]), safe(lambda x: np.power(number, x)))
        return
    exponent = walk.constant(node.inputs[1])
    if np.unique(exponent).size != 1:
        raise Unsupported("the exponent must be one number")
    value, view = float(exponent.reshape(-1)[0]), walk.lazy(node.inputs[0])
    shape = np.broadcast_shapes(view.shape, exponent.shape)
    if shape != view.shape:
        view = replace(view, shape=shape, moved=np.broadcast_to(view.places, shape))
    _chain(walk, node, view, safe(lambda x: np.power(x, value)))


def negative(walk: Walk, node: Node) -> None:
    """Neg."""
    affine(walk, node, node.inputs[0], np.array(-1.0), np.array(0.0))


def slope(walk: Walk, node: Node) -> None:
    """PRelu with one slope; `slopes_in_steps` takes others."""
    value = float(walk.constant(node.inputs[1]).reshape(-1)[0])
    _chain(walk, node, walk.lazy(node.inputs[0]), lambda x: np.where(x < 0, value * x, x))


def slopes_in_steps(walk: Walk, node: Node) -> list[Node] | None:
    """PRelu with a slope a channel: relu(x) - relu(-x) * slope."""
    name, slopes = node.inputs
    if slopes in walk.constants and np.unique(walk.constants[slopes]).size == 1:
        return None
    steps = Steps(walk, node)
    sloped = steps("Mul", steps("Relu", steps("Neg", name)), slopes)
    steps("Sub", steps("Relu", name), sloped, out=node.outputs[0])
    return steps.nodes


def batch_norm(walk: Walk, node: Node) -> None:
    """BatchNormalization: an affine step for each channel."""
    if node.attribute("training_mode", 0) or any(
            walk.consumers(name) or name in walk.model.outputs for name in node.outputs[1:]):
        raise Unsupported("training_mode must be 0, without further outputs; export for inference")
    gamma, beta, mean, variance = (
        walk.constant(name).astype(np.float64) for name in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    rank = len(walk.lazy(node.inputs[0]).shape)
    shape = (1, -1, *[1] * (rank - 2))
    affine(walk, node, node.inputs[0], scale.reshape(shape),
           (beta - mean * scale).reshape(shape))


def affine(walk: Walk, node: Node, name: str, scale: np.ndarray, offset: np.ndarray) -> None:
    """x * scale + offset: in the layer before, in a table, or a layer of its own."""
    view = walk.lazy(name)
    shape = np.broadcast_shapes(view.shape, scale.shape, offset.shape)
    if scale.size == offset.size == 1 and shape == view.shape:
        one_scale, one_offset = float(scale.reshape(-1)[0]), float(offset.reshape(-1)[0])
        if view.function is None and _fold(walk, node, view, one_scale, one_offset):
            walk.views[node.outputs[0]] = view
        else:
            _chain(walk, node, view, Linear(one_scale, one_offset))
        return
    if isinstance(view.function, Linear):
        offset = view.function.offset * scale + offset
        scale = view.function.scale * scale
        view = replace(view, function=None)
    else:
        view = walk.view(name)
    if shape != view.shape:
        places = np.broadcast_to(view.places, shape)
        view = View(view.tensor, shape, places)
    if not walk.whole(view):
        found = _by_channel(walk, view, scale, offset) if walk.once(view) else None
        if found is not None and _fold(walk, node, view, *found):
            walk.views[node.outputs[0]] = view
            return
        view = View(walk.arranged(view.tensor, as_three(view.places)), shape)
    found = _by_channel(walk, view, scale, offset)
    if found is None:
        view = _along(walk, view, scale, offset)
        found = _by_channel(walk, view, scale, offset)
        assert found is not None
    if not _fold(walk, node, view, *found):
        made = walk.add(node.outputs[0], Operator.AFFINE, (view.tensor,),
                        ("multiplier", "offset", "shift"))
        for role, array in zip(("scale", "offset"), found, strict=True):
            walk.weights[f"{made}.{role}"] = array.astype(np.float32)
        view = replace(view, tensor=made)
    walk.views[node.outputs[0]] = view


def _by_channel(walk: Walk, view: View, *arrays: np.ndarray) -> tuple[np.ndarray, ...] | None:
    """One value a channel of the view's tensor; None if the arrays vary inside a channel. A
    channel that the view leaves out gets zeros."""
    spec, found = walk.tensors[view.tensor], []
    for array in arrays:
        flat = np.full(spec.elements, np.nan)
        flat[view.places.reshape(-1)] = np.broadcast_to(array, view.shape).reshape(-1)
        table = flat.reshape(spec.channels, -1)
        read = ~np.isnan(table)
        first = table[np.arange(len(table)), read.argmax(axis=1)]
        if (read & (table != first[:, None])).any():
            return None
        found.append(np.where(np.isnan(first), 0.0, first))
    return tuple(found)


def _along(walk: Walk, view: View, *arrays: np.ndarray) -> View:
    """The same view of a tensor whose channels run along the axis on which arrays vary."""
    rank = len(view.shape)
    full = [array.reshape((1,) * (rank - array.ndim) + array.shape) for array in arrays]
    axes = tuple(sorted({axis for array in full for axis in range(rank) if array.shape[axis] > 1}))
    moved, back = first_axes(view.places, axes)
    channels = math.prod(moved.shape[: len(axes)])
    source = walk.arranged(view.tensor, moved.reshape(channels, -1, 1), free=True)
    places = back(np.arange(moved.size, dtype=np.int32))
    return View(source, view.shape, places)


def _fold(walk: Walk, node: Node, view: View, scale: np.ndarray | float,
          offset: np.ndarray | float) -> bool:
    """Put x * scale + offset into the layer that makes x, if only this node reads it."""
    index = walk.producer(view.tensor)
    if index is None or view.tensor in walk.fixed or not walk.alone(view, node):
        return False
    layer = walk.layers[index]
    if layer.relu or layer.name in walk.weight_steps:
        return False
    roles = {Operator.CONVOLUTION: ("weights", "bias"), Operator.AFFINE: ("scale", "offset"),
             Operator.GROUP_NORM: ("scale", "offset")}.get(layer.operator)
    if layer.operator is Operator.MATMUL and np.ndim(scale) == 0 and np.ndim(offset) == 0 and (
            float(offset) == 0 and float(scale) > 0):
        key = f"{layer.name}.factor"
        walk.weights[key] = np.asarray(walk.weights.get(key, np.float32(1)) * scale, np.float32)
        return True
    if roles is None:
        return False
    first, second = (f"{layer.name}.{role}" for role in roles)
    old = walk.weights[first]
    by_channel = np.broadcast_to(np.asarray(scale, np.float64), (len(old),))
    walk.weights[first] = np.asarray(
        old * by_channel.reshape(-1, *[1] * (old.ndim - 1)), np.float32)
    walk.weights[second] = np.asarray(walk.weights[second] * by_channel + offset, np.float32)
    return True


def _negated(walk: Walk, node: Node, view: View, may_fold: bool) -> View:
    """The view times -1."""
    if may_fold and view.function is None and _fold(walk, node, view, -1.0, 0.0):
        return view
    offset = walk.added(view)
    if offset:  # -1 - q has the range of q, -q has not
        step = walk.fixed[view.tensor]
        turned = walk.settled(replace(view, function=lambda x: -x - step), node.outputs[0])
        walk.fixed[turned.tensor], walk.shifts[turned.tensor] = step, -offset - step
        return replace(turned, function=Linear(1.0, offset + step))
    inner = view.function or FUNCTIONS["identity"]
    return replace(view, function=lambda x: -inner(x))


def _of_one_variable(walk: Walk, node: Node, left: View, right: View,
                     join: Callable[..., np.ndarray]) -> bool:
    """f(x) and g(x) of the same x become one function; x * sigmoid(x) for instance."""
    if left.tensor != right.tensor or left.shape != right.shape:
        return False
    if left.moved is not right.moved and not np.array_equal(left.places, right.places):
        return False
    first, second = (view.function or FUNCTIONS["identity"] for view in (left, right))
    walk.views[node.outputs[0]] = replace(left, function=lambda x: join(first(x), second(x)))
    return True


def _combine(walk: Walk, node: Node, left: View, right: View, operator: Operator) -> None:
    """A layer of two activations, in the order of the one that need not move."""
    shape = np.broadcast_shapes(left.shape, right.shape)
    settled = []
    for view, name in ((left, node.inputs[0]), (right, node.inputs[1])):
        held = walk.added(view)
        done = replace(view, function=None) if held else walk.settled(view, name)
        settled.append(done)
        if view is walk.views.get(name) and not held:
            walk.views[name] = done
    main, other = settled
    if not _fills(walk, main, shape) or (_fills(walk, other, shape) and main.moved is not None
                                         and other.moved is None):
        main, other = other, main
    if not _fills(walk, main, shape):
        places = np.broadcast_to(main.places, shape)
        main = View(walk.arranged(main.tensor, as_three(places)), shape)
    spec = walk.tensors[main.tensor]
    index = np.empty(spec.elements, np.int32)
    index[main.places.reshape(-1)] = np.broadcast_to(other.places, shape).reshape(-1)
    table = index.reshape(spec.shape)
    if operator is Operator.MULTIPLY and spec.positions > 1 and (table == table[:, :1, :1]).all():
        table = table[:, :1, :1]
    elif operator is Operator.MULTIPLY and spec.channels > 1 and (table == table[:1]).all():
        table = table[:1]
    second = walk.arranged(other.tensor, table)
    zeros = [walk.shifts.get(view.tensor, 0.0) for view in (main, other)]
    role = {Operator.ADD: "offset", Operator.MULTIPLY: "zeros"}[operator] if any(zeros) else ""
    made = walk.add(node.outputs[0], operator, (main.tensor, second),
                    ("multiplier", "shift", *filter(None, [role])))
    if role:
        walk.weights[f"{made}.{role}"] = np.array(
            [-sum(zeros)] if role == "offset" else zeros, np.float32)
    walk.views[node.outputs[0]] = View(made, shape, main.moved)


def _fills(walk: Walk, view: View, shape: tuple[int, ...]) -> bool:
    return view.shape == shape and walk.whole(view)

"""What QuantizeLinear, DequantizeLinear and the integers between them become.

It chooses no scale; `workloads.quantization` does where a file states none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from workloads.onnx import shifted
from workloads.onnx.read import Node
from workloads.onnx.rules import functions
from workloads.onnx.rules.curves import Linear
from workloads.onnx.rules.functions import integer_bounds, is_symmetric, stated_step, stated_zero
from workloads.onnx.walk import Counted, Unsupported, View, Walk
from workloads.quantization.float_network import FUNCTIONS

#: Operators that bound integers.
BOUNDING = frozenset({"Clip", "Relu", "Min", "Max"})
#: Operators that take integers as they are: they choose or move elements.
MOVING = frozenset({
    "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Split", "Gather", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "Concat",
    "MaxPool"})


def quantize_linear(walk: Walk, node: Node) -> None:
    """A constant is rounded, an activation counts in the stated step from here on."""
    scale = _scale(walk, node)
    zero = stated_zero(walk, node)
    if node.inputs[0] in walk.constants:
        array = walk.constants[node.inputs[0]]
        counted = np.rint(array / _along_axis(scale, array.shape, node)) + _along_axis(
            zero.astype(np.float64), array.shape, node)
        low, high = integer_bounds(zero.dtype)
        walk.constants[node.outputs[0]] = np.clip(counted, low, high).astype(zero.dtype)
        return
    walk.stated = True
    if scale.size != 1 or zero.size != 1:
        raise Unsupported("activations must have one scale and one zero point; quantize them by "
                          "tensor")
    if zero.dtype not in (np.int8, np.uint8):
        raise Unsupported(f"{zero.dtype} activations must be int8 or uint8; quantize again so")
    walk.counted[node.outputs[0]] = Counted(
        float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), zero.dtype)
    if not is_symmetric(zero):
        if shifted.hold(walk, node, walk.counted[node.outputs[0]]):
            return
        _complain(walk, node, zero, shifted.against(walk, node, walk.counted[node.outputs[0]]))
        walk.widened += 1
    step = stated_step(walk, node)
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


def dequantize_linear(walk: Walk, node: Node) -> None:
    """Constants are computed along the node's own axis; integers count by its own scale."""
    name = node.inputs[0]
    if name not in walk.constants:
        _recounted(walk, node)
        return
    raw, zero = walk.constant(name), walk.optional(node, 2)
    zero = np.zeros(1, raw.dtype) if zero is None else zero
    if raw.dtype.itemsize != 1 and raw.dtype != np.int32:
        raise Unsupported(f"{raw.dtype} values must have 8 bits, or 32 for a bias")
    scale = _along_axis(_scale(walk, node).astype(np.float64), raw.shape, node)
    array = raw.astype(np.float64) - _along_axis(zero.astype(np.float64), raw.shape, node)
    walk.constants[node.outputs[0]] = array * scale
    if raw.dtype == np.int32 or "float" in raw.dtype.name:
        return
    # Integers less their zero point: most weights hold no value that int8 does not.
    if array.min(initial=0) >= -128 and array.max(initial=0) <= 127:
        walk.steps[node.outputs[0]] = np.asarray(scale)
    elif any(other.operator not in ("Add", "Sub", "Mul", "Div")
             for other in walk.consumers(node.outputs[0])):  # those keep any constant
        _complain(walk, node, zero)
        walk.widened += 1


def _recounted(walk: Walk, node: Node) -> None:
    """A DequantizeLinear of an activation: (integer - zero point) * scale, both its own."""
    counted = counting(walk, node.inputs[0])
    if counted is None:
        raise Unsupported(f"{node.inputs[0]!r} must be integers: made by a QuantizeLinear, or an "
                          "input of int8 or uint8, and since then moved or bounded at most")
    walk.stated = True
    scale, zero = _scale(walk, node), walk.optional(node, 2)
    if scale.size != 1 or (zero is not None and zero.size != 1):
        raise Unsupported("activations must have one scale and one zero point; quantize them by "
                          "tensor")
    step, middle = float(scale.reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0])
    view = walk.lazy(node.inputs[0])
    if (step, middle) != (counted.step, counted.zero):
        factor, old = step / counted.step, walk.fixed.get(view.tensor)
        function = functions.chained(view, Linear(factor, (counted.zero - middle) * step))
        view = walk.settled(replace(view, function=function), node.outputs[0])
        if isinstance(function, Linear) and function.offset == 0 and old is not None:
            walk.fixed[view.tensor] = old * factor
    walk.views[node.outputs[0]] = view


def counting(walk: Walk, name: str) -> Counted | None:
    """How an ONNX activation counts, None if it does not."""
    return walk.counted.get(name) or walk.integers.get(name)


def keep_integers(walk: Walk, node: Node) -> None:
    """What chooses, moves or bounds integers that an input of the file gave makes such again."""
    active = [name for name in node.inputs if name and name not in walk.constants]
    if active and all(name in walk.integers for name in active) and (
            _moves(node) or node.operator in BOUNDING):
        walk.integers.update(dict.fromkeys(filter(None, node.outputs), walk.integers[active[0]]))


def _moves(node: Node) -> bool:
    return node.operator in MOVING or (
        node.operator in ("Resize", "Upsample") and node.text("mode", "nearest") == "nearest")


def on_integers(walk: Walk, node: Node, rule: Callable[[Walk, Node], None]) -> None:
    """A node that reads what a QuantizeLinear made: its numbers are integers, not values."""
    kinds = {walk.counted[name] for name in node.inputs if name in walk.counted}
    active = [name for name in node.inputs if name and name not in walk.constants]
    counted = next(iter(kinds))
    if len(kinds) > 1 or not all(name in walk.counted for name in active):
        raise Unsupported("integers of different scales or zero points meet before their "
                          "DequantizeLinear; put it behind DequantizeLinear")
    if node.operator in BOUNDING:
        _bounded(walk, node, counted)
    elif _moves(node):
        rule(walk, _with_values(walk, node, counted) if node.operator == "Concat" else node)
    else:
        raise Unsupported("works on integers between QuantizeLinear and DequantizeLinear; put it "
                          "behind DequantizeLinear")
    walk.counted.update((name, counted) for name in node.outputs if name in walk.views)


def _with_values(walk: Walk, node: Node, counted: Counted) -> Node:
    """A Concat whose constant integers are the values that they stand for, in the same steps."""
    names = list(node.inputs)
    steps = {walk.fixed.get(walk.lazy(name).tensor) for name in names if name in walk.counted}
    for place, name in enumerate(names):
        if name not in walk.counted:
            names[place] = f"{name}.in.{node.outputs[0]}"
            walk.constants[names[place]] = counted.step * (
                walk.constant(name).astype(np.float64) - counted.zero)
            held = walk.lazy(names[place]).tensor
            walk.fixed.update((held, step) for step in steps if step is not None)
    return replace(node, inputs=tuple(names))


def _bounded(walk: Walk, node: Node, counted: Counted) -> None:
    """Clip, Relu, Min and Max of integers, with the bounds' real values."""
    name, bounds = node.inputs[0], np.iinfo(counted.kind)
    low, high = int(bounds.min), int(bounds.max)
    least, greatest = low, high
    if node.operator == "Relu":
        least = 0
    elif node.operator == "Clip":
        given = [walk.optional(node, place) for place in (1, 2)]
        least = low if given[0] is None else int(given[0].reshape(-1)[0])
        greatest = high if given[1] is None else int(given[1].reshape(-1)[0])
    else:
        name, array, _ = functions.with_constant(walk, node)
        if array.size != 1:
            raise Unsupported("the constant must be one number")
        least, greatest = (low, int(array.reshape(-1)[0])) if node.operator == "Min" else (
            int(array.reshape(-1)[0]), high)
    view = walk.lazy(name)
    if least > low or greatest < high:
        start = counted.real(least) if least > low else -np.inf
        end = counted.real(greatest) if greatest < high else np.inf
        step = walk.fixed.get(view.tensor)
        inner = view.function or FUNCTIONS["identity"]
        # Like numpy and the standard: the upper bound wins.
        view = walk.settled(replace(
            view, function=lambda x: np.minimum(np.maximum(inner(x), start), end)),
            node.outputs[0])
        if step is not None:
            walk.fixed[view.tensor] = step
    walk.views[node.outputs[0]] = view


def output_steps(steps: np.ndarray | None, axis: int) -> np.ndarray | None:
    """The stated steps of weights, one or one an output channel along `axis`.

    None where they run along another axis: such weights are rounded anew by output channel.
    """
    if steps is None or steps.size == 1:
        return None if steps is None else steps.reshape(-1)
    return steps.reshape(-1) if steps.shape[axis] == steps.size else None


def _scale(walk: Walk, node: Node) -> np.ndarray:
    """The scales of a node; those of constants may be zero."""
    scale = walk.constant(node.inputs[1])
    dead = node.inputs[0] in walk.constants and node.operator == "DequantizeLinear"
    wrong = ~np.isfinite(scale) | (scale < 0) | ((scale == 0) & (not dead))
    if wrong.any():
        raise Unsupported(f"a scale is {scale[wrong][0]:g}, must be finite and above 0; quantize "
                          "again")
    return scale


def _along_axis(scale: np.ndarray, shape: tuple[int, ...], node: Node) -> np.ndarray:
    """A scale or zero point repeated as the node's axis and blocks ask, to broadcast to `shape`."""
    if scale.size == 1:
        return scale.reshape(-1)[0]
    axis = node.attribute("axis", 1) % max(len(shape), 1)
    block = node.attribute("block_size", 0)
    if block:
        return np.repeat(scale, block, axis).take(range(shape[axis]), axis)
    return scale.reshape([-1 if index == axis else 1 for index in range(len(shape))])


def _complain(walk: Walk, node: Node, zero: np.ndarray, why: str = "") -> None:
    """Note a zero point, unless ranges are to be widened; the walk goes on to find them all."""
    if not walk.symmetric:
        walk.problems.append((node, (
            f"the zero point must be {128 if zero.dtype == np.uint8 else 0} ({zero.dtype})"
            f"{f', for {why}' if why else ''}; "
            "--symmetric widens the ranges, or quantize again with ActivationSymmetric and "
            "WeightSymmetric (onnxruntime)")))

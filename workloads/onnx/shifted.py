"""Holds activations with a zero point exactly, where everything that reads them can take it.

It widens nothing; `stated` does that for all others. An integer q of uint8 is held as q - 128, so a
tensor's values lie (zero point - 128) steps above the real ones. A layer that makes it adds them in
its bias, a table in its entries. A product takes away the sum of its weights times so many steps,
and pads with so many; moves and maxima pass them on. What the network's callers give and read holds
none: its inputs and outputs count from zero in the file's steps, with 16 bits, and a layer adds or
takes away the zero point.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.graph import Operator
from workloads.onnx.read import Node
from workloads.onnx.rules import functions
from workloads.onnx.rules.curves import ONE, Linear
from workloads.onnx.walk import Counted, View, Walk

#: Layers that add a number to each channel of what they make.
ADDING = {Operator.CONVOLUTION: "bias", Operator.AFFINE: "offset", Operator.GROUP_NORM: "offset"}
#: Operators that choose or move elements, so that what they make is held alike.
PASSING = frozenset({
    "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Split", "Gather", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool"})
#: Functions of one variable: a table has the zero point in its entries.
TABLES = frozenset({*ONE, "Relu", "Clip"})


def hold(walk: Walk, node: Node, counted: Counted) -> bool:
    """Let a QuantizeLinear keep its step and zero point; False where something is against it."""
    middle = 128 if counted.kind == np.uint8 else 0
    view, offset = walk.lazy(node.inputs[0]), counted.step * (counted.zero - middle)
    if not _all_take(walk, node.outputs[0], counted):
        return False
    if walk.producer(view.tensor) is None and view.function is None:
        view = _entered(walk, node, view, counted.step)
    if walk.added(view) == offset and walk.fixed[view.tensor] == counted.step:
        walk.views[node.outputs[0]] = view  # it was only moved since it was quantized alike
        return True
    if view.function is not None:
        view = walk.settled(replace(view, function=functions.chained(
            view, Linear(1.0, offset))), node.inputs[0])
    elif not _adds(walk, node, view, offset, ends=counted.zero == np.iinfo(counted.kind).min):
        return False
    walk.fixed[view.tensor], walk.shifts[view.tensor] = counted.step, offset
    if counted.zero == np.iinfo(counted.kind).min:
        walk.least[view.tensor] = offset
    walk.views[node.outputs[0]] = replace(view, function=Linear(1.0, -offset))
    walk.exact += 1
    return True


def _adds(walk: Walk, node: Node, view: View, offset: float, ends: bool) -> bool:
    """Let what makes a tensor add an offset; False if it cannot. `ends`: integers end where the
    values are zero, which is a ReLU."""
    index = walk.producer(view.tensor)
    if index is None or view.tensor in walk.fixed or not walk.alone(view, node):
        return False
    layer = walk.layers[index]
    if layer.operator not in ADDING or (layer.relu and not ends):
        return False
    walk.layers[index] = replace(layer, relu=False)
    key = f"{layer.name}.{ADDING[layer.operator]}"
    walk.weights[key] = np.asarray(walk.weights[key] + offset, np.float32)
    return True


def _entered(walk: Walk, node: Node, view: View, step: float) -> View:
    """An input of the network, with the file's steps and no zero point, as a layer counts it."""
    if walk.symmetric or view.tensor in walk.fixed or not walk.alone(view, node):
        return view
    walk.tensors[view.tensor] = replace(walk.tensors[view.tensor], bits=16)
    walk.fixed[view.tensor] = step
    return replace(view, tensor=walk.summed(view.tensor, 0.0, bits=8))


def _all_take(walk: Walk, name: str, counted: Counted) -> bool:
    """Can all that read what a QuantizeLinear made take it? A design that pads with zero alone
    has outputs of 8 bits."""
    if walk.symmetric and name in walk.model.outputs:
        return False
    return all(_takes(walk, name, other, counted) for other in walk.consumers(name))


def _takes(walk: Walk, name: str, node: Node, counted: Counted) -> bool:
    """Can a reader of what a QuantizeLinear made, and all behind it that is held alike, take it?"""
    if node.inputs[0] != name or name in node.inputs[1:]:
        return False
    if node.operator in ("DequantizeLinear", "QuantizeLinear"):
        alike = _counted_alike(walk, node, counted)
        if node.operator == "QuantizeLinear" and not alike:
            return True  # counted anew: a table
        passes = alike
    else:
        passes = _passes(walk, node, counted)
    if not passes:
        return node.operator in TABLES or _is_product(walk, node)
    return all(_all_take(walk, out, counted) for out in node.outputs if out)


def _counted_alike(walk: Walk, node: Node, counted: Counted) -> bool:
    step, zero = (walk.constants.get(name) for name in (*node.inputs[1:3], "", "")[:2])
    return (step is not None and step.size == 1 and float(step.reshape(-1)[0]) == counted.step
            and zero is not None and zero.size == 1 and zero.dtype == counted.kind
            and int(zero.reshape(-1)[0]) == counted.zero)


def _passes(walk: Walk, node: Node, counted: Counted) -> bool:
    """Does it only choose or move elements, and put zeros?"""
    if node.operator in ("Resize", "Upsample"):
        return node.text("mode", "nearest") == "nearest"
    return node.operator in PASSING and (
        node.operator != "Pad" or _pads_zeros(walk, node, counted))


def _pads_zeros(walk: Walk, node: Node, counted: Counted) -> bool:
    """Does a Pad put what stands for zero?"""
    if node.text("mode", "constant") != "constant":
        return True
    given = walk.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    value = float(node.attribute("value", 0.0) if given is None else given.reshape(-1)[0])
    integers = given is not None and given.dtype.kind in "iu"
    return value == (counted.zero if integers else 0)


def _is_product(walk: Walk, node: Node) -> bool:
    """Is it a product with constant weights? In a design whose padding is zero it pads nothing."""
    if node.operator not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
        return False
    if not set(node.inputs[1:2]) <= {
            *walk.constants, *(out for other in walk.model.nodes for out in other.outputs
                               if other.operator == "DequantizeLinear"
                               and other.inputs[0] in walk.constants)}:
        return False
    if node.operator == "Conv" and walk.symmetric:
        return not any(node.attribute("pads", [0])) and node.text("auto_pad", "NOTSET") in (
            "NOTSET", "VALID")
    if node.operator == "ConvTranspose":
        return not walk.symmetric
    return node.operator != "Gemm" or not node.attribute("transA", 0)


def held(walk: Walk, name: str) -> tuple[View, float]:
    """The view of an activation as its tensor holds it, and what that adds to the values; with its
    function applied, and 0, where no zero point is held."""
    view = walk.lazy(name)
    offset = walk.added(view)
    return (replace(view, function=None), offset) if offset else (walk.view(name), 0.0)


def pass_on(walk: Walk, name: str, offset: float) -> None:
    """Note that what was made of a held tensor holds the same zero point."""
    if offset:
        walk.views[name] = replace(walk.views[name], function=Linear(1.0, -offset))


def taken(walk: Walk, name: str, weights: np.ndarray) -> tuple[View, np.ndarray]:
    """The view of an activation as its tensor holds it, and what the bias of a product with
    weights (outputs, ...) has to add for that."""
    view, offset = held(walk, name)
    return view, added(weights, offset)


def added(weights: np.ndarray, offset: float) -> np.ndarray:
    """What the bias of a product with weights (outputs, ...) has to add for an offset."""
    return -offset * weights.reshape(len(weights), -1).sum(axis=1, dtype=np.float64)

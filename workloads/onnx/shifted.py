"""Holds activations with a zero point exactly, where everything that reads them can take it.

It widens nothing; `stated` does that for all others. An integer q of uint8 is held as q - 128, so a
tensor's values lie (zero point - 128) steps above the real ones. A layer that makes it adds them in
its bias, a table in its entries. A product takes away the sum of its weights times so many steps,
and pads with so many; moves and maxima pass them on. What the network's callers give and read holds
none: its inputs and outputs count from zero in the file's steps, with 16 bits, and a layer adds or
takes away the zero point. Sums and products of two activations and means take zero points away by
constants of their own, before they round; a concatenation counts its parts anew, by tables.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.graph import Operator
from workloads.onnx.read import Node
from workloads.onnx.rules import functions
from workloads.onnx.rules.curves import ONE, Linear
from workloads.onnx.walk import Counted, View, Walk
from workloads.quantization.float_network import FUNCTIONS

#: Layers that add a number to each channel of what they make.
ADDING = {Operator.CONVOLUTION: "bias", Operator.AFFINE: "offset", Operator.GROUP_NORM: "offset"}
#: Layers of two activations: the fabric adds their number in a design with `zero_points` alone.
PAIRS = (Operator.ADD, Operator.MULTIPLY)
#: Layers that add one number to all that they make.
SHIFTING = (*PAIRS, Operator.AVERAGE_POOL)
#: Operators that choose or move elements, so that what they make is held alike.
PASSING = frozenset({
    "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Split", "Gather", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool",
    "GlobalMaxPool", "ReduceMax", "Resize", "Upsample"})
#: Operators that take zero points away, or whose results no zero point changes.
TAKING = frozenset({
    "AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "BatchNormalization", "Softmax",
    "LayerNormalization", "InstanceNormalization", "GroupNormalization"})
#: Functions of one variable: a table has the zero point in its entries.
TABLES = frozenset({*ONE, "Relu", "Clip"})


def hold(walk: Walk, node: Node, counted: Counted) -> bool:
    """Let a QuantizeLinear keep its step and zero point; False where something is against it."""
    view, offset = walk.lazy(node.inputs[0]), _offset(counted)
    ends = counted.zero == np.iinfo(counted.kind).min
    if not _all_take(walk, node.outputs[0], counted):
        return False
    if walk.producer(view.tensor) is None and view.function is None:
        view = _entered(walk, node, view, counted.step)
    if walk.added(view) == offset and walk.fixed[view.tensor] == counted.step:
        walk.views[node.outputs[0]] = view  # it counts so already
        walk.exact += 1
        return True
    if ends and view.function is FUNCTIONS["relu"] and _adds(
            walk, node, replace(view, function=None), offset, ends):
        pass  # integers end where the values are zero: nothing else of the ReLU is left
    elif view.function is not None:
        view = walk.settled(replace(view, function=functions.chained(
            view, Linear(1.0, offset))), node.inputs[0])
    elif not _adds(walk, node, view, offset, ends):
        return False
    walk.fixed[view.tensor], walk.shifts[view.tensor] = counted.step, offset
    if ends:
        walk.least[view.tensor] = offset
    walk.views[node.outputs[0]] = replace(view, function=Linear(1.0, -offset))
    walk.exact += 1
    return True


def _offset(counted: Counted) -> float:
    """What a tensor that holds such integers adds to their values."""
    return counted.step * (counted.zero - (128 if counted.kind == np.uint8 else 0))


def _adds(walk: Walk, node: Node, view: View, offset: float, ends: bool) -> bool:
    """Let what makes a tensor add an offset; False if it cannot. `ends`: integers end where the
    values are zero, which is a ReLU."""
    index = walk.producer(view.tensor)
    if index is None or view.tensor in walk.fixed or not walk.alone(view, node):
        return False
    layer = walk.layers[index]
    if layer.operator in SHIFTING:
        if walk.symmetric and layer.operator in PAIRS:
            return False
        shift(walk, view.tensor, offset)
        return True
    if layer.operator not in ADDING or (layer.relu and not ends):
        return False
    walk.layers[index] = replace(layer, relu=False)
    key = f"{layer.name}.{ADDING[layer.operator]}"
    walk.weights[key] = np.asarray(walk.weights[key] + offset, np.float32)
    return True


def shift(walk: Walk, tensor: str, offset: float) -> None:
    """Let the sum, product or mean that makes a tensor add an offset."""
    index = walk.producer(tensor)
    assert index is not None
    layer = walk.layers[index]
    roles = ("offset",) if layer.operator in PAIRS else ("offset", "multiplier", "shift")
    walk.layers[index] = replace(layer, constants={
        **{role: f"{layer.name}.{role}" for role in roles}, **layer.constants})
    key = f"{layer.name}.offset"
    walk.weights[key] = np.asarray(walk.weights.get(key, np.zeros(1)) + offset, np.float32)


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
    if node.operator in ("Add", "Sub", "Mul", "Div"):
        return not walk.symmetric or set(node.inputs) == {name} or any(
            _is_constant(walk, other) for other in node.inputs)
    if node.operator == "Concat":
        return name not in walk.counted and following(walk, node.outputs[0]) is not None
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
        return node.operator in TABLES or node.operator in TAKING or _is_product(walk, node)
    return all(_all_take(walk, out, counted) for out in node.outputs if out)


def against(walk: Walk, node: Node, counted: Counted) -> str:
    """Who keeps a QuantizeLinear from holding its zero point, in words."""
    reader = _hindering(walk, node.outputs[0], counted)
    if reader is not None:
        return f"{reader.operator.rpartition(':')[2]} reads it"
    index = walk.producer(walk.lazy(node.inputs[0]).tensor)
    return f"{walk.layers[index].operator.value} makes it" if index is not None else "it enters"


def _hindering(walk: Walk, name: str, counted: Counted) -> Node | None:
    for other in walk.consumers(name):
        if not _takes(walk, name, other, counted):
            behind = (_hindering(walk, out, counted) for out in other.outputs
                      if out and (other.operator in PASSING or _counted_alike(
                          walk, other, counted)))
            return next(filter(None, behind), other)
    return None


def following(walk: Walk, name: str) -> Counted | None:
    """How an activation counts that is quantized and not otherwise read, None if it is."""
    found = {_counted_by(walk, node) for node in walk.consumers(name)}
    return next(iter(found)) if len(found) == 1 and name not in walk.model.outputs else None


def _counted_by(walk: Walk, node: Node) -> Counted | None:
    step = walk.constants.get(node.inputs[1]) if node.operator == "QuantizeLinear" else None
    if step is None or step.size != 1:
        return None
    zero = functions.stated_zero(walk, node)
    return Counted(float(step.reshape(-1)[0]), int(zero.reshape(-1)[0]), zero.dtype)


def joined(walk: Walk, node: Node) -> tuple[float | None, float]:
    """The step of a concatenation, None if it is free, and what its tensor adds to the values."""
    counted = following(walk, node.outputs[0])
    if counted is not None and _all_take(walk, walk.consumers(node.outputs[0])[0].outputs[0],
                                         counted):
        return counted.step, _offset(counted)
    wanted = functions.next_scale(walk, node.outputs[0])
    scales = {walk.fixed.get(walk.lazy(name).tensor) for name in node.inputs}
    return (next(iter(scales)) if wanted is None and len(scales) == 1 else wanted), 0.0


def part(walk: Walk, name: str, out: str, step: float | None, offset: float) -> View:
    """A part of a concatenation, counted as that is: by a table where it was counted otherwise."""
    view, found = held(walk, name)
    if walk.fixed.get(view.tensor, step) != step or found != offset:
        view = walk.settled(replace(view, function=lambda x: x + (offset - found)),
                            f"{name}.in.{out}")
        if offset and step is not None:
            walk.fixed[view.tensor], walk.shifts[view.tensor] = step, offset
    return view


def _counted_alike(walk: Walk, node: Node, counted: Counted) -> bool:
    if node.operator not in ("QuantizeLinear", "DequantizeLinear"):
        return False
    step, zero = (walk.constants.get(name) for name in (*node.inputs[1:3], "", "")[:2])
    return (step is not None and step.size == 1 and float(step.reshape(-1)[0]) == counted.step
            and zero is not None and zero.size == 1 and zero.dtype == counted.kind
            and int(zero.reshape(-1)[0]) == counted.zero)


def _passes(walk: Walk, node: Node, counted: Counted) -> bool:
    """Does it only choose, move or mix elements, and put zeros?"""
    if node.operator in ("Resize", "Upsample") and node.inputs[0] in walk.counted:
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
    if not all(_is_constant(walk, name) for name in node.inputs[1:2]):
        return False
    if node.operator == "Conv" and walk.symmetric:
        return not any(node.attribute("pads", [0])) and node.text("auto_pad", "NOTSET") in (
            "NOTSET", "VALID")
    if node.operator == "ConvTranspose":
        return not walk.symmetric
    return node.operator != "Gemm" or not node.attribute("transA", 0)


def _is_constant(walk: Walk, name: str) -> bool:
    """Is a tensor of the file a constant, or integers of one that are still to be taken back?"""
    maker = walk.maker(name)
    return name in walk.constants or (
        maker is not None and maker.operator == "DequantizeLinear"
        and maker.inputs[0] in walk.constants)


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


def pooled(walk: Walk, name: str, offset: float, greatest: bool) -> None:
    """What a pool of a held tensor made: a maximum holds the same zero point, a mean none."""
    if greatest:
        pass_on(walk, name, offset)
    elif offset:
        shift(walk, walk.views[name].tensor, -offset)


def taken(walk: Walk, name: str, weights: np.ndarray) -> tuple[View, np.ndarray]:
    """The view of an activation as its tensor holds it, and what the bias of a product with
    weights (outputs, ...) has to add for that."""
    view, offset = held(walk, name)
    return view, added(weights, offset)


def added(weights: np.ndarray, offset: float) -> np.ndarray:
    """What the bias of a product with weights (outputs, ...) has to add for an offset."""
    return -offset * weights.reshape(len(weights), -1).sum(axis=1, dtype=np.float64)

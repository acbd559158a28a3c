"""Holds activations with a zero point exactly, where every reader can take it in its bias.

It widens nothing; `stated` does that for all others. An integer q of uint8 is held as q - 128, so a
tensor's values lie (zero point - 128) steps above the real ones. A layer that makes it adds them in
its bias; a product that reads it takes away the sum of its weights times so many steps. A padded
convolution cannot, since hardware pads with zeros.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.graph import Operator
from workloads.onnx.read import Node
from workloads.onnx.rules import functions
from workloads.onnx.rules.curves import Linear
from workloads.onnx.walk import View, Walk

#: Layers that add a number to each channel of what they make.
ADDING = {Operator.CONVOLUTION: "bias", Operator.AFFINE: "offset", Operator.GROUP_NORM: "offset"}


def hold(walk: Walk, node: Node, step: float, zero: np.ndarray) -> bool:
    """Let a QuantizeLinear keep its step and zero point; False where something is against it."""
    middle = 128 if zero.dtype == np.uint8 else 0
    view, offset = walk.lazy(node.inputs[0]), step * (int(zero.reshape(-1)[0]) - middle)
    if not _read_by_products(walk, node):
        return False
    if view.function is not None:
        view = walk.settled(replace(view, function=functions.chained(
            view, Linear(1.0, offset))), node.inputs[0])
    else:
        index = walk.producer(view.tensor)
        layer = None if index is None else walk.layers[index]
        if layer is None or layer.operator not in ADDING or layer.relu or (
                view.tensor in walk.fixed or not walk.alone(view, node)):
            return False
        key = f"{layer.name}.{ADDING[layer.operator]}"
        walk.weights[key] = np.asarray(walk.weights[key] + offset, np.float32)
    walk.fixed[view.tensor], walk.shifts[view.tensor] = step, offset
    walk.views[node.outputs[0]] = replace(view, function=Linear(1.0, -offset))
    return True


def _read_by_products(walk: Walk, node: Node) -> bool:
    """Is what a QuantizeLinear makes dequantized alike, and then read by products alone that pad
    nothing?"""
    inner = walk.consumers(node.outputs[0])
    if not inner or any(other.operator != "DequantizeLinear" or other.inputs[1:] != node.inputs[1:]
                        for other in inner):
        return False
    names = [name for other in inner for name in other.outputs]
    readers = [(name, other) for name in names for other in walk.consumers(name)]
    outside = {*node.outputs, *names}.intersection(walk.model.outputs)
    return bool(readers) and not outside and all(
        _takes(walk, name, other) for name, other in readers)


def _takes(walk: Walk, name: str, node: Node) -> bool:
    """Can a reader take away what a tensor adds?"""
    if node.inputs[0] != name or name in node.inputs[1:] or not set(node.inputs[1:2]) <= {
            *walk.constants, *(out for other in walk.model.nodes for out in other.outputs
                               if other.operator == "DequantizeLinear"
                               and other.inputs[0] in walk.constants)}:
        return False
    if node.operator == "Conv":
        return (not any(node.attribute("pads", [0])) and node.text("auto_pad", "NOTSET")
                in ("NOTSET", "VALID") and len(node.attribute("kernel_shape", [1, 1])) == 2)
    return node.operator == "MatMul" or (
        node.operator == "Gemm" and not node.attribute("transA", 0))


def taken(walk: Walk, name: str, weights: np.ndarray) -> tuple[View, np.ndarray]:
    """The view of an activation as its tensor holds it, and what the bias of a product with
    weights (outputs, ...) has to add for that."""
    view = walk.lazy(name)
    offset = walk.shifts.get(view.tensor, 0.0)
    if view.function != Linear(1.0, -offset) or not offset:
        return walk.view(name), np.zeros(len(weights))
    total = weights.reshape(len(weights), -1).sum(axis=1, dtype=np.float64)
    return replace(view, function=None), -offset * total

"""Computes what depends on no input: constants, shapes, and where moved elements come from.

It touches no activation; it runs single nodes with the operators' reference implementation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from workloads.onnx.read import Node

#: Elements of a computed constant or of a tensor.
MOST_ELEMENTS = 1 << 27
#: Operators that exporters use to compute shapes and constants.
FOLDED = frozenset({
    "Abs", "Add", "And", "ArgMax", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape",
    "Cos", "CumSum", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "Identity",
    "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul",
    "Neg", "NonZero", "Not", "OneHot", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round",
    "ScatterElements", "ScatterND", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor"})
#: Operators whose output may be larger than their inputs together.
GROWING = frozenset({"ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Tile"})


def constant_of(node: Node) -> np.ndarray | None:
    """The value of a Constant node; None if it is no number, or damaged."""
    if "value" in node.attributes:
        try:
            return numpy_helper.to_array(node.attributes["value"])
        except Exception:  # whatever a damaged tensor raises
            return None
    for key, kind in (("value_float", np.float32), ("value_int", np.int64),
                      ("value_floats", np.float32), ("value_ints", np.int64)):
        if key in node.attributes:
            return np.asarray(node.attributes[key], kind)
    return None


def run_node(node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of one node. ValueError if it would make too much or does not work."""
    grown = _grown(node, inputs)
    if grown > MOST_ELEMENTS:
        raise ValueError(f"{grown} elements, must be at most {MOST_ELEMENTS}")
    feeds = {name: array for name, array in zip(node.inputs, inputs, strict=True)
             if name and array is not None}
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
             for name, array in feeds.items()}
    graph = onnx.helper.make_graph(
        [node.proto], "one",
        [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.outputs])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", node.opset)])
    try:
        return [np.asarray(item) for item in ReferenceEvaluator(model).run(None, feeds)]
    except Exception as error:  # the reference raises many types
        raise ValueError(" ".join(str(error).split())[:200]) from error


def _grown(node: Node, inputs: Sequence[np.ndarray | None]) -> int:
    """A bound on the elements of a growing operator's output, 0 for others."""
    if node.operator not in GROWING:
        return 0
    first = inputs[0]
    assert first is not None
    second = inputs[1] if len(inputs) > 1 and inputs[1] is not None else np.array([1])
    sizes: list[float]
    match node.operator:
        case "ConstantOfShape":
            sizes = [float(size) for size in first.reshape(-1)]
        case "Range":
            third = inputs[2]
            assert third is not None
            sizes = [abs(float(second - first)) / max(abs(float(third)), 1e-30) + 1]
        case "OneHot":
            sizes = [float(first.size), float(second.reshape(-1)[0])]
        case "Tile":
            sizes = [float(first.size), *(float(size) for size in second.reshape(-1))]
        case "Pad":
            pads = np.asarray(node.attribute("pads", second), np.float64).reshape(2, -1)
            axes = inputs[3] if len(inputs) > 3 and inputs[3] is not None else (
                np.arange(first.ndim))
            sizes = [float(size) for size in first.shape]
            for axis, more in zip(axes.tolist(), np.maximum(pads, 0).sum(axis=0), strict=True):
                sizes[axis] += float(more)
        case _:
            wanted = tuple(int(size) for size in second.reshape(-1))
            sizes = [float(size) for size in np.broadcast_shapes(first.shape, wanted)]
    return int(min(np.prod(sizes, dtype=np.float64), 2.0**62))

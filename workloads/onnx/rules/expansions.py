"""Operators that stand for several simpler ones, and what these are.

It makes no layers: the walk takes the steps instead of the node. A rule returns None where the
node is simple already.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.onnx.read import Node
from workloads.onnx.rules import foreign, functions, matrices, moves
from workloads.onnx.rules.norms import reduced_axes
from workloads.onnx.rules.recurrent import recurrent
from workloads.onnx.rules.steps import Expansion, Steps
from workloads.onnx.walk import Unsupported, Walk


def _several(walk: Walk, node: Node) -> list[Node] | None:
    """Sum, Mean, Min and Max of any number of tensors, two by two.

    max(a, b) = a + relu(b - a). One activation and one constant number are a clip.
    """
    steps, names = Steps(walk, node), list(node.inputs)
    extreme = node.operator in ("Min", "Max")
    if extreme and len(names) == 2:
        constants = [walk.constants[name] for name in names if name in walk.constants]
        if len(constants) == 1 and constants[0].size == 1 and not walk.counted.keys() & set(names):
            other = names[0] if names[1] in walk.constants else names[1]
            if constants[0].ndim <= walk.rank(other):
                return None
        elif walk.counted.keys() & set(names):
            return None
    found = names[0]
    for name in names[1:]:
        if not extreme:
            found = steps("Add", found, name)
            continue
        above = steps("Relu", steps("Sub", *(
            (name, found) if node.operator == "Max" else (found, name))))
        found = steps("Add" if node.operator == "Max" else "Sub", found, above)
    if node.operator == "Mean":
        found = steps("Mul", found, steps.constant(1 / len(names)))
    return steps.last(found)


def _reduced(walk: Walk, node: Node) -> list[Node] | None:
    """Reductions other than means, sums and maxima, as functions around these."""
    steps, source = Steps(walk, node), node.inputs[0]
    axes = reduced_axes(walk, node, walk.rank(source))

    def over(operator: str, name: str) -> str:
        if not axes:
            return name
        return steps(operator, name, steps.constant(axes, np.int64),
                     keepdims=node.attribute("keepdims", 1))

    match node.operator:
        case "ReduceMin":
            return steps.last(steps("Neg", over("ReduceMax", steps("Neg", source))))
        case "ReduceL1":
            return steps.last(over("ReduceSum", steps("Abs", source)))
        case "ReduceSumSquare":
            return steps.last(over("ReduceSum", steps("Mul", source, source)))
        case "ReduceL2":
            return steps.last(steps("Sqrt", over("ReduceSum", steps("Mul", source, source))))
        case "ReduceLogSum":
            return steps.last(steps("Log", over("ReduceSum", source)))
        case _:
            return steps.last(steps("Log", over("ReduceSum", steps("Exp", source))))


def _lp_norm(walk: Walk, node: Node) -> list[Node] | None:
    """LpNormalization: x over its norm along an axis."""
    steps, source = Steps(walk, node), node.inputs[0]
    axes = steps.constant([node.attribute("axis", -1)], np.int64)
    operator = "ReduceL1" if node.attribute("p", 2) == 1 else "ReduceL2"
    return steps.last(steps("Div", source, steps(operator, source, axes)))


def _log_softmax(walk: Walk, node: Node) -> list[Node] | None:
    steps = Steps(walk, node)
    axis = node.attribute("axis", 1 if node.opset < 13 else -1)
    return steps.last(steps("Log", steps.softmax(node.inputs[0], axis, node.opset)))


def _mean_variance(walk: Walk, node: Node) -> list[Node] | None:
    """MeanVarianceNormalization: (x - mean) / sqrt(variance), written out."""
    steps, source = Steps(walk, node), node.inputs[0]
    axes = steps.constant(node.attribute("axes", [0, 2, 3]), np.int64)
    centered = steps("Sub", source, steps("ReduceMean", source, axes))
    variance = steps("ReduceMean", steps("Mul", centered, centered), axes)
    return steps.last(steps("Div", centered, steps("Sqrt", variance)))


def _einsum(walk: Walk, node: Node) -> list[Node] | None:
    """A product of two tensors whose letters are batches, kept or summed: a MatMul."""
    text = node.text("equation", "").replace(" ", "")
    sides, _, result = text.partition("->")
    parts = sides.split(",")
    known = [*parts, result]
    if len(parts) != 2 or "->" not in text or any(
            "." in part or len(set(part)) != len(part) for part in known):
        raise Unsupported(f"equation {text!r} must be of two tensors, without dots, each letter "
                          "once a tensor")
    left, right = parts
    if any(letter not in right + result for letter in left) or any(
            letter not in left + result for letter in right):
        raise Unsupported(f"equation {text!r}: a letter that one tensor alone has must be kept")
    batch = [letter for letter in result if letter in left and letter in right]
    inner = [letter for letter in left if letter in right and letter not in result]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]
    steps, sizes = Steps(walk, node), dict[str, int]()
    for name, part in zip(node.inputs, parts, strict=True):
        shape = walk.lazy(name).shape
        if len(shape) != len(part):
            raise Unsupported(f"equation {text!r} does not fit {shape}")
        sizes.update(zip(part, shape, strict=True))

    def flat(name: str, part: str, first: list[str], second: list[str]) -> str:
        order = [*batch, *first, *second]
        turned = steps("Transpose", name, perm=[part.index(letter) for letter in order])
        shape = [*(sizes[letter] for letter in batch), *(
            int(np.prod([sizes[letter] for letter in group])) for group in (first, second))]
        return steps("Reshape", turned, steps.constant(shape, np.int64))

    made = steps("MatMul", flat(node.inputs[0], left, rows, inner),
                 flat(node.inputs[1], right, inner, columns))
    order = [*batch, *rows, *columns]
    whole = steps("Reshape", made, steps.constant([sizes[letter] for letter in order], np.int64))
    return steps.last(steps("Transpose", whole, perm=[order.index(letter) for letter in result]))


EXPANSIONS: Mapping[str, Expansion] = {
    "Gemm": matrices.gemm_in_steps, "MatMul": matrices.matmul_of_vectors,
    "PRelu": functions.slopes_in_steps, "Pad": moves.pad_in_steps,
    **dict.fromkeys(("Sum", "Mean", "Min", "Max"), _several),
    **dict.fromkeys(("ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
                     "ReduceLogSumExp"), _reduced),
    "LpNormalization": _lp_norm, "LogSoftmax": _log_softmax, "Einsum": _einsum,
    "MeanVarianceNormalization": _mean_variance,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent), **foreign.FOREIGN,
}

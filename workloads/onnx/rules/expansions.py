"""Operators that stand for several simpler ones, and what these are.

It makes no layers: the walk takes the steps instead of the node. A rule returns None where the
node is simple already.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np

from workloads.onnx.branches import branch
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
    """A product of two tensors whose letters are batches, kept or summed: a MatMul. One tensor
    alone is summed and turned."""
    parts, result = _equation(walk, node)
    text = node.text("equation", "")
    if len(parts) > 2 or any(len(set(part)) != len(part) for part in (*parts, result)):
        raise Unsupported(f"equation {text!r} must be of one or two tensors, each letter once a "
                          "tensor")
    steps, sizes, names = Steps(walk, node), dict[str, int](), list(node.inputs)
    for place, (name, part) in enumerate(zip(names, parts, strict=True)):
        shape = walk.shape(name)
        if len(shape) != len(part):
            raise Unsupported(f"equation {text!r} does not fit {shape}")
        elsewhere = result + "".join(parts[:place] + parts[place + 1:])
        gone = [index for index, letter in enumerate(part) if letter not in elsewhere]
        if gone:  # a letter that one tensor alone has is summed first
            names[place] = steps("ReduceSum", name, steps.constant(gone, np.int64), keepdims=0)
        parts[place] = "".join(letter for letter in part if letter in elsewhere)
        sizes.update((letter, size) for letter, size in zip(part, shape, strict=True)
                     if letter in elsewhere)

    def turned(name: str, order: Sequence[int]) -> str:
        kept = list(order) == sorted(order)
        return name if kept else steps("Transpose", name, perm=list(order))

    if len(parts) == 1:
        return steps.last(turned(names[0], [parts[0].index(letter) for letter in result]))
    left, right = parts
    batch = [letter for letter in result if letter in left and letter in right]
    inner = [letter for letter in left if letter in right and letter not in result]
    rows = [letter for letter in left if letter not in right]
    columns = [letter for letter in right if letter not in left]

    def flat(name: str, part: str, first: list[str], second: list[str]) -> str:
        order = [*batch, *first, *second]
        found = turned(name, [part.index(letter) for letter in order])
        shape = [*(sizes[letter] for letter in batch), *(
            int(np.prod([sizes[letter] for letter in group])) for group in (first, second))]
        return steps("Reshape", found, steps.constant(shape, np.int64))

    made = steps("MatMul", flat(names[0], left, rows, inner),
                 flat(names[1], right, inner, columns))
    order = [*batch, *rows, *columns]
    whole = steps("Reshape", made, steps.constant([sizes[letter] for letter in order], np.int64))
    return steps.last(turned(whole, [order.index(letter) for letter in result]))


def _equation(walk: Walk, node: Node) -> tuple[list[str], str]:
    """The letters of each tensor and of the result; dots become letters that no one else has."""
    text = node.text("equation", "").replace(" ", "")
    sides, arrow, result = text.partition("->")
    parts = sides.split(",")
    if len(parts) != len(node.inputs):
        raise Unsupported(f"equation {text!r} is of {len(parts)} tensors, given {len(node.inputs)}")
    more = [len(walk.shape(name)) - len(part.replace("...", ""))
            for name, part in zip(node.inputs, parts, strict=True) if "..." in part]
    if len(set(more)) > 1 or min(more, default=0) < 0:
        raise Unsupported(f"equation {text!r}: dots must stand for the same axes in each tensor")
    free = [letter for letter in string.ascii_letters if letter not in text]
    dots = "".join(free[:more[0]]) if more else ""
    if not arrow:  # the letters that stand once, in their order
        every = sides.replace("...", "").replace(",", "")
        result = "..." * bool(more) + "".join(sorted(
            letter for letter in set(every) if every.count(letter) == 1))
    return [part.replace("...", dots) for part in parts], result.replace("...", dots)


def _compared(walk: Walk, node: Node) -> list[Node] | None:
    """Comparisons are 0 or 1 by the sign of a difference."""
    steps, (left, right) = Steps(walk, node), node.inputs
    if node.operator.startswith("Less"):
        left, right = right, left
    way = {"Equal": "Is zero", "Greater": "Is above zero", "Less": "Is above zero"}.get(
        node.operator, "Is not below zero")
    return steps.last(steps(way, steps("Sub", left, right)))


def _logic(walk: Walk, node: Node) -> list[Node] | None:
    """And, Or, Xor and Not of what is 0 or 1."""
    steps, names = Steps(walk, node), node.inputs
    match node.operator:
        case "And":
            return steps.last(steps("Mul", *names))
        case "Not":
            return steps.last(steps("Sub", steps.constant(1.0), names[0]))
        case "Xor":
            return steps.last(steps("Abs", steps("Sub", *names)))
        case _:
            return steps.last(steps("Is above zero", steps("Add", *names)))


def _running_sum(walk: Walk, node: Node) -> list[Node] | None:
    """CumSum along a constant axis: a product with a matrix of ones on one side of its diagonal."""
    steps, shape = Steps(walk, node), walk.shape(node.inputs[0])
    rank = len(shape)
    axis = int(walk.constant(node.inputs[1]).reshape(-1)[0]) % max(rank, 1)
    ones = np.triu(np.ones((shape[axis],) * 2), int(node.attribute("exclusive", 0)))
    order = [*(other for other in range(rank) if other != axis), axis]
    made = steps("MatMul", steps("Transpose", node.inputs[0], perm=order), steps.constant(
        ones.T if node.attribute("reverse", 0) else ones))
    return steps.last(steps("Transpose", made, perm=np.argsort(order).tolist()))


def _local_response(walk: Walk, node: Node) -> list[Node] | None:
    """LRN: x / (bias + alpha / size * the sum of squares of so many neighbouring channels)^beta."""
    steps, source, size = Steps(walk, node), node.inputs[0], int(node.attribute("size", 1))
    channels = walk.shape(source)[1]
    apart = np.subtract.outer(np.arange(channels), np.arange(channels))
    near = (apart <= (size - 1) // 2) & (apart >= -(size - 1 - (size - 1) // 2))
    rank = len(walk.shape(source))
    weights = near.T.astype(np.float32) * node.attribute("alpha", 1e-4) / size
    total = steps("Conv", steps("Mul", source, source), steps.constant(
        weights.reshape(channels, channels, *[1] * (rank - 2))), steps.constant(
            np.full(channels, node.attribute("bias", 1.0))))
    factor = steps("Pow", total, steps.constant(-node.attribute("beta", 0.75)))
    return steps.last(steps("Mul", source, factor))


def _lp_pool(walk: Walk, node: Node) -> list[Node] | None:
    """LpPool and GlobalLpPool: the p-th root of a sum of p-th powers."""
    steps, power = Steps(walk, node), node.attribute("p", 2)
    powers = steps("Pow", steps("Abs", node.inputs[0]), steps.constant(float(power)))
    if node.operator == "GlobalLpPool":
        axes = list(range(2, len(walk.shape(node.inputs[0]))))
        total = steps("ReduceSum", powers, steps.constant(axes, np.int64))
    else:
        kept = {key: value for key, value in node.attributes.items() if key != "p"}
        area = float(np.prod(node.attribute("kernel_shape", [1])))
        total = steps("Mul", steps("AveragePool", powers, **kept, count_include_pad=1),
                      steps.constant(area))
    return steps.last(steps("Pow", total, steps.constant(1.0 / power)))


EXPANSIONS: Mapping[str, Expansion] = {
    "If": branch, "Gemm": matrices.gemm_in_steps, "MatMul": matrices.matmul_of_vectors,
    "PRelu": functions.slopes_in_steps, "Pad": moves.pad_in_steps,
    **dict.fromkeys(("Sum", "Mean", "Min", "Max"), _several),
    **dict.fromkeys(("ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
                     "ReduceLogSumExp"), _reduced),
    "Where": moves.chosen_in_steps,
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"), _compared),
    **dict.fromkeys(("And", "Or", "Xor", "Not"), _logic), "CumSum": _running_sum,
    "LRN": _local_response, **dict.fromkeys(("LpPool", "GlobalLpPool"), _lp_pool),
    "LpNormalization": _lp_norm, "LogSoftmax": _log_softmax, "Einsum": _einsum,
    "MeanVarianceNormalization": _mean_variance,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent), **foreign.FOREIGN,
}

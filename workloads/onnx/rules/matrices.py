"""What products of matrices of ONNX become: convolutions of one place, or products of activations.

It walks no graph. A rule that cannot keep a node's meaning raises Unsupported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.graph import Operator, Window
from workloads.onnx import shifted
from workloads.onnx.read import Node
from workloads.onnx.rules import functions, stated, windows
from workloads.onnx.rules.steps import Steps
from workloads.onnx.walk import Unsupported, View, Walk, first_axes


def gemm(walk: Walk, node: Node) -> None:
    """alpha * x W + beta * c with constant W and c."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    given, turned = walk.constant(node.inputs[1]), bool(node.attribute("transB", 0))
    if given.ndim != 2 or len(walk.lazy(node.inputs[0]).shape) != 2:
        raise Unsupported(f"shapes {walk.lazy(node.inputs[0]).shape} and {given.shape} must be "
                          "two matrices")
    weights = given if turned else given.T
    steps = stated.output_steps(walk.steps.get(node.inputs[1]), 0 if turned else 1)
    steps = None if steps is None or alpha == 0 else steps * abs(alpha)
    bias = walk.optional(node, 2)
    bias = np.zeros(1) if bias is None else bias * beta
    rows = walk.lazy(node.inputs[0]).shape[0]
    try:
        np.broadcast_to(bias, (rows, len(weights)))
    except ValueError as error:
        raise Unsupported(f"c {bias.shape} must broadcast to {(rows, len(weights))}") from error
    if bias.ndim < 2 or bias.shape[0] == 1:
        offset = np.broadcast_to(bias.reshape(-1), (len(weights),))
        _dense(walk, node, node.inputs[0], weights * alpha, offset, -1, steps)
        return
    # A c with a value for each row is added behind the product.
    inner = replace(node, outputs=(f"{node.outputs[0]}.product",))
    _dense(walk, inner, node.inputs[0], weights * alpha, None, -1, steps)
    functions.affine(walk, node, inner.outputs[0], np.array(1.0), bias.astype(np.float64))


def gemm_in_steps(walk: Walk, node: Node) -> list[Node] | None:
    """A Gemm with a transposed or constant first matrix, or with further activations, as single
    steps; None if it is a product with constants."""
    left, right = node.inputs[:2]
    last = node.inputs[2] if len(node.inputs) > 2 else ""
    plain = left not in walk.constants and right in walk.constants and (
        not last or last in walk.constants)
    if plain and not node.attribute("transA", 0):
        return None
    steps = Steps(walk, node)

    def times(name: str, factor: float) -> str:
        return name if factor == 1.0 else steps("Mul", name, steps.constant(factor))

    if node.attribute("transA", 0):
        left = steps("Transpose", left, perm=[1, 0])
    if node.attribute("transB", 0):
        right = steps("Transpose", right, perm=[1, 0])
    found = times(steps("MatMul", left, right), node.attribute("alpha", 1.0))
    if not last:
        return steps.last(found)
    steps("Add", found, times(last, node.attribute("beta", 1.0)), out=node.outputs[0])
    return steps.nodes


def matmul(walk: Walk, node: Node) -> None:
    """A constant matrix makes a convolution of one place, two activations a product each head."""
    left, right = node.inputs
    if right in walk.constants and _one_matrix(walk.constants[right]):
        _dense(walk, node, left, _matrix(walk.constants[right]).T, None, -1,
               stated.output_steps(walk.steps.get(right), -1))
    elif left in walk.constants and _one_matrix(walk.constants[left]):
        _dense(walk, node, right, _matrix(walk.constants[left]), None, -2,
               stated.output_steps(walk.steps.get(left), -2))
    else:
        _product(walk, node, walk.view(left), walk.view(right))


def matmul_of_vectors(walk: Walk, node: Node) -> list[Node] | None:
    """Operands of one axis get a second one, which goes again behind the product."""
    steps, names, gone = Steps(walk, node), list(node.inputs), list[int]()
    for place, name in enumerate(node.inputs):
        if walk.rank(name) == 1:
            names[place] = steps("Unsqueeze", name, steps.constant([place], np.int64))
            gone.append(place - 2)
    if not gone:
        return None
    steps("Squeeze", steps("MatMul", *names), steps.constant(gone, np.int64), out=node.outputs[0])
    return steps.nodes


def _one_matrix(array: np.ndarray) -> bool:
    return array.ndim >= 2 and array.size == array.shape[-1] * array.shape[-2]


def _matrix(array: np.ndarray) -> np.ndarray:
    return array.reshape(array.shape[-2:])


def _dense(walk: Walk, node: Node, name: str, weights: np.ndarray, bias: np.ndarray | None,
           axis: int, steps: np.ndarray | None) -> None:
    """A matrix times one axis: a convolution whose channels are that axis."""
    view, more = shifted.taken(walk, name, weights)
    if len(view.shape) < 2 or view.shape[axis] != weights.shape[1]:
        raise Unsupported(f"{weights.shape[1]} weights a row do not fit {view.shape}")
    bias = more if bias is None else bias + more
    moved, _ = first_axes(view.places, (axis % len(view.shape),))
    spec = walk.tensors[view.tensor]
    if spec.elements == weights.shape[1] == moved.size and view.moved is None:
        # All of a picture: the window is the whole picture, nothing moves.
        made = windows.convolution(walk, node.outputs[0], view.tensor,
                                   weights.reshape(len(weights), *spec.shape), bias,
                                   Window(spec.rows, spec.columns), steps)
    else:
        source = walk.arranged(view.tensor, moved.reshape(len(moved), -1, 1), free=True)
        made = windows.convolution(walk, node.outputs[0], source,
                                   weights.reshape(*weights.shape, 1, 1), bias, Window(), steps)
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    found = np.moveaxis(places.reshape(len(weights), *moved.shape[1:]), 0,
                        axis % len(view.shape))
    walk.put(node.outputs[0], made, found)


def _product(walk: Walk, node: Node, left: View, right: View) -> None:
    """The product of two activations for each head, columns of the result as channels.

    out[n, m] = sum over k of right[k, n] * left[m, k]. Heads lie behind one another as channels.
    """
    heads = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    if right.shape[-2] != inner:
        raise Unsupported(f"matrices {left.shape} and {right.shape} do not fit together")
    a = np.broadcast_to(left.places, (*heads, rows, inner)).reshape(-1, rows, inner)
    b = np.broadcast_to(right.places, (*heads, inner, columns)).reshape(-1, inner, columns)
    parts = []
    for index in range(len(a)):
        name = node.outputs[0] if len(a) == 1 else f"{node.outputs[0]}.head{index}"
        first = walk.arranged(left.tensor, a[index].T[:, :, None], free=True)
        second = walk.arranged(right.tensor, b[index].T[:, :, None], free=True)
        spec = walk.tensors[first]
        parts.append(walk.add(name, Operator.MATMUL, (first, second), ("multiplier", "shift"),
                              (columns, spec.rows, spec.columns)))
    made = parts[0] if len(parts) == 1 else walk.add(
        node.outputs[0], Operator.CONCAT, tuple(_same_positions(walk, parts)), (),
        (columns * len(parts), rows, 1))
    places = np.arange(walk.tensors[made].elements, dtype=np.int32)
    walk.put(node.outputs[0], made, places.reshape(*heads, columns, rows).swapaxes(-1, -2))


def _same_positions(walk: Walk, parts: list[str]) -> list[str]:
    """The parts with all positions along the rows."""
    return [walk.arranged(name, np.arange(walk.tensors[name].elements).reshape(
        walk.tensors[name].channels, -1, 1)) for name in parts]

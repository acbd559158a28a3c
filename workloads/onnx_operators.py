"""Says what each ONNX operator becomes: one rule an operator, from a node to layers.

It walks no graph and reads no file. A rule that cannot keep a node's meaning raises Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from .graph import Layer, Operator, Window
from .onnx_read import Node
from .onnx_walk import Unsupported, Walk, logical_shape, sliding_window


def _conv(walk: Walk, node: Node) -> None:
    weights = walk.constant(node.inputs[1])
    window = sliding_window(node, weights.shape[2:], node.attribute("group", 1))
    bias = walk.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else (
        np.zeros(len(weights)))
    _convolution(walk, node, walk.value(node.inputs[0]), weights, bias, window, node.inputs[1])


def _convolution(walk: Walk, node: Node, source: str, weights: np.ndarray, bias: np.ndarray,
                 window: Window, weight_name: str) -> None:
    name = walk.add(node, Operator.CONVOLUTION, (source,),
                    ("weights", "bias", "multiplier", "shift"), window=window)
    walk.weights[f"{name}.weights"] = weights.astype(np.float32)
    walk.weights[f"{name}.bias"] = bias.astype(np.float32)
    if weight_name in walk.steps:
        steps = np.broadcast_to(walk.steps[weight_name].reshape(-1), (len(weights),))
        walk.weight_steps[name] = steps.astype(np.float64)


def _dense(walk: Walk, node: Node) -> None:
    """Gemm or MatMul by a constant: a convolution whose window is the whole input."""
    weights = walk.constant(node.inputs[1])
    if weights.ndim != 2:
        raise Unsupported(f"weights {weights.shape} must be a matrix")
    if not (node.operator == "Gemm" and node.attribute("transB", 0)):
        weights = weights.T
    if node.attribute("transA", 0):
        raise Unsupported("transA must be 0")
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    bias = np.zeros(len(weights))
    if len(node.inputs) > 2:
        bias = np.broadcast_to(walk.constant(node.inputs[2]).reshape(-1), (len(weights),)) * beta
    source = walk.value(node.inputs[0])
    channels, rows, columns = walk.tensors[source].shape
    if channels * rows * columns != weights.shape[1]:
        raise Unsupported(f"{weights.shape[1]} weights a row do not fit "
                          f"{channels}x{rows}x{columns}")
    shaped = weights.reshape(len(weights), channels, rows, columns) * alpha
    _convolution(walk, node, source, shaped, bias, Window(rows, columns), node.inputs[1])


def _batch_norm(walk: Walk, node: Node) -> None:
    gamma, beta, mean, variance = (walk.constant(name) for name in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    _affine(walk, node, node.inputs[0], scale, beta - mean * scale)


def _affine(walk: Walk, node: Node, name: str, scale: np.ndarray, offset: np.ndarray) -> None:
    """Fold into the convolution before, or make an affine layer."""
    source = walk.value(name)
    index = walk.producer(source)
    layer = walk.layers[index] if index is not None else None
    foldable = (layer is not None and layer.operator is Operator.CONVOLUTION and not layer.relu
                and len(walk.consumers(name)) == 1 and source not in walk.fixed
                and layer.name not in walk.weight_steps and name not in walk.model.outputs)
    if foldable and layer is not None:
        weights, bias = (f"{layer.name}.{role}" for role in ("weights", "bias"))
        walk.weights[weights] = walk.weights[weights] * scale.reshape(-1, 1, 1, 1)
        walk.weights[bias] = walk.weights[bias] * scale + offset
        walk.alias[node.outputs[0]] = source
        return
    made = walk.add(node, Operator.AFFINE, (source,), ("multiplier", "offset", "shift"))
    channels = walk.tensors[source].channels
    walk.weights[f"{made}.scale"] = np.broadcast_to(scale, (channels,)).astype(np.float32)
    walk.weights[f"{made}.offset"] = np.broadcast_to(offset, (channels,)).astype(np.float32)


def _next_scale(walk: Walk, name: str) -> float | None:
    """The scale with which an ONNX tensor is quantized next, if the file says one."""
    for node in walk.consumers(name):
        if node.operator == "QuantizeLinear":
            return float(np.asarray(walk.constant(node.inputs[1])).reshape(-1)[0])
    return None


def _relu(walk: Walk, node: Node) -> None:
    """Fuse into the convolution or affine before, unless that would change a rounding."""
    source = walk.value(node.inputs[0])
    index = walk.producer(source)
    stated, wanted = walk.fixed.get(source), _next_scale(walk, node.outputs[0])
    if index is not None and stated in (None, wanted) and _lone(walk, source, node):
        layer = walk.layers[index]
        if layer.operator in (Operator.CONVOLUTION, Operator.AFFINE):
            walk.layers[index] = replace(layer, relu=True)
            walk.alias[node.outputs[0]] = source
            return
    walk.lookup(node, "relu", source)


def _lone(walk: Walk, source: str, node: Node) -> bool:
    """Whether nothing but this node and quantizers on the way to it read a tensor."""
    names = [name for name, tensor in walk.alias.items() if tensor == source]
    readers = [other for name in names for other in walk.consumers(name) if other is not node]
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    return (all(other.operator in quantizers and other.outputs[0] in names for other in readers)
            and not any(name in walk.model.outputs for name in names))


def _clip(walk: Walk, node: Node) -> None:
    bounds = [node.attribute("min", None), node.attribute("max", None)]
    for position in (1, 2):
        if len(node.inputs) > position and node.inputs[position]:
            bounds[position - 1] = float(walk.constant(node.inputs[position]))
    if bounds[0] == 0 and bounds[1] is None:
        return _relu(walk, node)
    if bounds != [0, 6]:
        raise Unsupported(f"bounds {bounds} must be 0 and 6, or 0 alone")
    return walk.lookup(node, "relu6", walk.value(node.inputs[0]))


def _function(name: str) -> Callable[[Walk, Node], None]:
    def rule(walk: Walk, node: Node) -> None:
        if name == "hard_sigmoid" and abs(node.attribute("alpha", 0.2) - 1 / 6) > 1e-4:
            raise Unsupported(f"alpha {node.attribute('alpha', 0.2)} must be 1/6")
        walk.lookup(node, name, walk.value(node.inputs[0]))
    return rule


#: x * f(x) as one table.
_GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def _mul(walk: Walk, node: Node) -> None:
    first, second = node.inputs
    if first in walk.constants:
        first, second = second, first
    if second in walk.constants:
        scale = _per_channel(walk, second)
        return _affine(walk, node, first, scale, np.zeros_like(scale))
    for gate, other in ((second, first), (first, second)):
        index = walk.producer(walk.value(gate))
        layer = walk.layers[index] if index is not None else None
        joined = _GATES.get(walk.functions.get(layer.name, "")) if layer is not None else None
        if (index is not None and layer is not None and joined is not None
                and layer.inputs[0] == walk.value(other)
                and layer.output not in walk.fixed and _lone(walk, layer.output, node)):
            del walk.layers[index], walk.tensors[layer.output]
            del walk.functions[layer.name]
            return walk.lookup(node, joined, walk.value(other))
    left, right = walk.tensors[walk.value(first)], walk.tensors[walk.value(second)]
    if left.elements < right.elements:
        left, right = right, left
    if right.shape not in (left.shape, (1, left.rows, left.columns), (left.channels, 1, 1)):
        raise Unsupported(f"shapes {left.shape} and {right.shape} do not fit")
    walk.add(node, Operator.MULTIPLY, (left.name, right.name), ("multiplier", "shift"))
    return None


def _per_channel(walk: Walk, name: str) -> np.ndarray:
    array = walk.constant(name)
    if array.size > 1 and (array.ndim < 3 or array.shape[-1] != 1 or array.shape[-2] != 1):
        raise Unsupported(f"constant {name!r} {array.shape} must have one value a channel")
    return array.reshape(-1)


def _add(walk: Walk, node: Node) -> None:
    first, second = node.inputs
    if first in walk.constants:
        first, second = second, first
    if second in walk.constants:
        array = walk.constant(second)
        dense = len(walk.model.shapes[first]) == 2
        offset = array.reshape(-1) if dense else _per_channel(walk, second)
        return _affine(walk, node, first, np.ones_like(offset), offset)
    left, right = walk.tensors[walk.value(first)], walk.tensors[walk.value(second)]
    if left.shape != right.shape:
        raise Unsupported(f"shapes {left.shape} and {right.shape} must be equal")
    walk.add(node, Operator.ADD, (left.name, right.name), ("multiplier", "shift"))
    return None


def _concat(walk: Walk, node: Node) -> None:
    if node.attribute("axis", 1) not in (1, -3):
        raise Unsupported(f"axis {node.attribute('axis', 1)} must be 1")
    wanted = _next_scale(walk, node.outputs[0])
    parts = []
    for name in node.inputs:
        part = walk.value(name)
        if wanted is not None and walk.fixed.get(part, wanted) != wanted:
            # The file gives the parts other scales than the whole: one more rounding each.
            moved = f"{part}.in.{node.outputs[0]}"
            walk.tensor(moved, walk.tensors[part].shape)
            walk.layers.append(Layer(moved, Operator.LOOKUP, (part,), moved,
                                     constants={"table": f"{moved}.table"}))
            walk.functions[moved], walk.fixed[moved] = "identity", wanted
            part = moved
        parts.append(part)
    walk.add(node, Operator.CONCAT, tuple(parts))


def _max_pool(walk: Walk, node: Node) -> None:
    window = sliding_window(node, node.attribute("kernel_shape", []))
    walk.keep_scale(walk.add(node, Operator.MAX_POOL, (walk.value(node.inputs[0]),),
                             window=window))


def _average_pool(walk: Walk, node: Node) -> None:
    source = walk.value(node.inputs[0])
    if node.operator == "AveragePool":
        window = sliding_window(node, node.attribute("kernel_shape", []))
        if window.padding and not node.attribute("count_include_pad", 0):
            raise Unsupported("pads need count_include_pad = 1")
    else:
        if node.operator == "ReduceMean":
            axes = node.attribute("axes", None)
            axes = axes if axes is not None else walk.constant(node.inputs[1])
            if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
                raise Unsupported(f"axes {list(axes)} must be rows and columns")
        spec = walk.tensors[source]
        window = Window(spec.rows, spec.columns, max(spec.rows, spec.columns))
    channels, rows, columns = walk.tensors[source].shape
    shape = (channels, (rows + 2 * window.padding - window.rows) // window.stride + 1,
             (columns + 2 * window.padding - window.columns) // window.stride + 1)
    walk.add(node, Operator.AVERAGE_POOL, (source,), ("multiplier", "shift"), shape,
             window=window)


def _resize(walk: Walk, node: Node) -> None:
    source = walk.value(node.inputs[0])
    before, after = walk.tensors[source], logical_shape(walk.model.shapes[node.outputs[0]])
    nearest = node.attribute("mode", b"nearest") == b"nearest"
    if not nearest or after != (before.channels, 2 * before.rows, 2 * before.columns):
        raise Unsupported(f"{before.shape} to {after} must be nearest and twice as large")
    # At exactly twice the size these agree; another pair would pick other pixels.
    pair = (node.attribute("coordinate_transformation_mode", b"half_pixel"),
            node.attribute("nearest_mode", b"round_prefer_floor"))
    if node.operator == "Resize" and pair not in (
            (b"asymmetric", b"floor"), (b"half_pixel", b"round_prefer_floor"),
            (b"half_pixel", b"round_prefer_ceil"), (b"pytorch_half_pixel", b"round_prefer_floor")):
        raise Unsupported(f"coordinate and nearest mode {pair} are not those of a plain repeat")
    walk.keep_scale(walk.add(node, Operator.UPSAMPLE, (source,)))


def _softmax(walk: Walk, node: Node) -> None:
    rank = len(walk.model.shapes[node.inputs[0]])
    if node.attribute("axis", -1) % rank != 1:
        raise Unsupported(f"axis {node.attribute('axis', -1)} must be the channels")
    name = walk.add(node, Operator.SOFTMAX, (walk.value(node.inputs[0]),), ("table",))
    walk.fixed[name] = 2.0**-7


def _same(walk: Walk, node: Node) -> None:
    name = node.inputs[0]
    if name in walk.constants:
        walk.constants[node.outputs[0]] = walk.constants[name]
        if name in walk.steps:
            walk.steps[node.outputs[0]] = walk.steps[name]
        return
    walk.alias[node.outputs[0]] = walk.value(node.inputs[0])


def _flatten(walk: Walk, node: Node) -> None:
    """Rows of features keep the order channel, row, column, so only the shape's name changes."""
    source = walk.value(node.inputs[0])
    shape = walk.model.shapes[node.outputs[0]]
    elements = walk.tensors[source].elements
    same = len(shape) == 4 and logical_shape(shape) == walk.tensors[source].shape
    if shape[0] != 1 or not (same or (len(shape) == 2 and shape[1] == elements)):
        raise Unsupported(f"shape {shape} must be (1, {elements})")
    walk.alias[node.outputs[0]] = source


def _quantize_linear(walk: Walk, node: Node) -> None:
    _symmetric(walk, node)
    scale = walk.constant(node.inputs[1])
    if node.inputs[0] in walk.constants:
        array = walk.constants[node.inputs[0]]
        steps = _along_axis(scale, array.ndim, node)
        walk.constants[node.outputs[0]] = np.clip(np.rint(array / steps), -128, 127)
        return
    source = walk.value(node.inputs[0])
    if scale.size != 1:
        raise Unsupported("activations must have one scale")
    step = float(scale.reshape(-1)[0])
    if walk.fixed.get(source, step) != step:
        # The file rescales a tensor that already has a scale: one more rounding, kept.
        walk.lookup(node, "identity", source)
        source = node.outputs[0]
    walk.fixed[source] = step
    walk.alias[node.outputs[0]] = source


def _dequantize_linear(walk: Walk, node: Node) -> None:
    name = node.inputs[0]
    if name not in walk.constants:
        return _same(walk, node)
    array = walk.constant(name).astype(np.float64)
    _symmetric(walk, node)
    if walk.constants[name].dtype == np.uint8:
        array = array - 128
    scale = walk.constant(node.inputs[1]).astype(np.float64)
    walk.constants[node.outputs[0]] = array * _along_axis(scale, array.ndim, node)
    walk.steps[node.outputs[0]] = scale
    return None


def _along_axis(scale: np.ndarray, rank: int, node: Node) -> np.ndarray:
    """A scale shaped to broadcast along the node's axis."""
    axis = node.attribute("axis", 1) % max(rank, 1)
    shape = [-1 if index == axis else 1 for index in range(rank)]
    return scale.reshape(shape) if scale.size > 1 else scale.reshape(-1)[0]


def _symmetric(walk: Walk, node: Node) -> None:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return
    zero = walk.constant(node.inputs[2])
    wanted = 128 if zero.dtype == np.uint8 else 0
    if (zero != wanted).any():
        raise Unsupported(f"zero point {int(zero.reshape(-1)[0])} must be {wanted} "
                          f"({zero.dtype}); quantize symmetrically")


RULES: Mapping[str, Callable[[Walk, Node], None]] = {
    "Conv": _conv, "Gemm": _dense, "MatMul": _dense, "BatchNormalization": _batch_norm,
    "Relu": _relu, "Clip": _clip, "Add": _add, "Mul": _mul, "Concat": _concat,
    "Sigmoid": _function("sigmoid"), "Tanh": _function("tanh"),
    "HardSigmoid": _function("hard_sigmoid"), "HardSwish": _function("hard_swish"),
    "Swish": _function("silu"),
    "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _average_pool,
    "ReduceMean": _average_pool, "Resize": _resize, "Upsample": _resize, "Softmax": _softmax,
    "Identity": _same, "Dropout": _same, "Flatten": _flatten, "Reshape": _flatten,
    "Squeeze": _flatten, "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear, "Constant": lambda walk, node: None,
}

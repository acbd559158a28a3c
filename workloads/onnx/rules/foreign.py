"""Operators of other domains, and those that compute with integers, as ONNX's usual ones.

It makes no layers. Sources: the operator lists of ONNX, of onnxruntime (com.microsoft) and of
QONNX; a name of another domain carries it before a colon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from workloads.onnx.read import NEWEST_OPSET, Node
from workloads.onnx.rules.stated import counting
from workloads.onnx.rules.steps import Expansion, Steps
from workloads.onnx.walk import Unsupported, Walk

_MS, _QONNX = "com.microsoft:", "qonnx.custom_op.general:"
#: Attributes of convolutions.
_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _plain(node: Node, *names: str) -> dict[str, Any]:
    """Some attributes of a node, where it has them."""
    return {name: node.attributes[name] for name in names if name in node.attributes}


def _real(steps: Steps, place: int, axis: int = 1) -> str:
    """The value of three inputs: integers, their scale, their zero point."""
    return steps("DequantizeLinear", *steps.node.inputs[place : place + 3], axis=axis)


def _bias(steps: Steps, place: int) -> list[str]:
    """An int32 bias in steps of input times weight."""
    node, walk = steps.node, steps.walk
    if len(node.inputs) <= place or not node.inputs[place]:
        return []
    scale = walk.constant(node.inputs[1]) * walk.constant(node.inputs[4])
    return [steps.constant(walk.constant(node.inputs[place]) * scale.reshape(-1))]


def _quantized(steps: Steps, real: str, place: int) -> list[Node]:
    """The node's output: a value in the scale and zero point at two of its inputs."""
    steps("QuantizeLinear", real, *steps.node.inputs[place : place + 2], out=steps.node.outputs[0])
    return steps.nodes


def _linear_conv(walk: Walk, node: Node) -> list[Node]:
    steps = Steps(walk, node)
    real = steps("Conv", _real(steps, 0), _real(steps, 3, 0), *_bias(steps, 8),
                 **_plain(node, *_WINDOW))
    return _quantized(steps, real, 6)


def _linear_matmul(walk: Walk, node: Node) -> list[Node]:
    steps = Steps(walk, node)
    return _quantized(steps, steps("MatMul", _real(steps, 0, -2), _real(steps, 3, -1)), 6)


def _linear_gemm(walk: Walk, node: Node) -> list[Node]:
    steps = Steps(walk, node)
    if node.attribute("alpha", 1.0) != 1.0:
        raise Unsupported("alpha must be 1")
    axis = 0 if node.attribute("transB", 0) else 1
    real = steps("Gemm", _real(steps, 0), _real(steps, 3, axis), *_bias(steps, 6),
                 **_plain(node, "transA", "transB"))
    if len(node.inputs) < 8 or not node.inputs[7]:
        return steps.last(real)
    return _quantized(steps, real, 7)


def _linear_two(operator: str) -> Expansion:
    def found(walk: Walk, node: Node) -> list[Node]:
        steps = Steps(walk, node)
        return _quantized(steps, steps(operator, _real(steps, 0), _real(steps, 3)), 6)
    return found


def _linear_one(operator: str, *kept: str) -> Expansion:
    def found(walk: Walk, node: Node) -> list[Node]:
        steps = Steps(walk, node)
        if node.attribute("channels_last", 0):
            raise Unsupported("channels_last must be 0")
        return _quantized(steps, steps(operator, _real(steps, 0), **_plain(node, *kept)), 3)
    return found


def _linear_softmax(walk: Walk, node: Node) -> list[Node]:
    """The axis is the last one by default, whatever the operator set (onnxruntime)."""
    steps = Steps(walk, node)
    opset = int(node.attribute("opset", NEWEST_OPSET))
    return _quantized(steps, steps.softmax(_real(steps, 0), node.attribute("axis", -1), opset), 3)


def _linear_concat(walk: Walk, node: Node) -> list[Node]:
    steps = Steps(walk, node)
    parts = [_real(steps, place) for place in range(2, len(node.inputs), 3)]
    return _quantized(steps, steps("Concat", *parts, axis=node.attribute("axis", 1)), 0)


def _integer(operator: str, *kept: str) -> Expansion:
    """ConvInteger and MatMulInteger: the product of (x - its zero) and (w - its zero)."""
    def found(walk: Walk, node: Node) -> list[Node]:
        steps, (left, right) = Steps(walk, node), node.inputs[:2]
        zeros = [walk.optional(node, place) for place in (2, 3)]
        weights = walk.constant(right).astype(np.float64)
        if zeros[1] is not None:
            shape = (-1, *[1] * (weights.ndim - 1)) if operator == "Conv" else (-1,)
            weights = weights - zeros[1].astype(np.float64).reshape(shape)
        if counting(walk, left):
            zero = np.zeros((), np.uint8) if zeros[0] is None else zeros[0]
            left = steps("DequantizeLinear", left, steps.constant(1.0),
                         steps.constant(zero, zero.dtype.type))
        elif zeros[0] is not None and zeros[0].any():
            raise Unsupported(f"the zero point of {left!r} must be 0, or {left!r} integers: made "
                              "by a QuantizeLinear, or an input of int8 or uint8")
        return steps.last(steps(operator, left, steps.constant(weights), **_plain(node, *kept)))
    return found


def _dynamic(walk: Walk, node: Node) -> list[Node]:
    """DynamicQuantizeLinear: the values themselves, in steps of one. Their scale is calibrated
    here, not taken from each input as the file would."""
    value, scale, zero = node.outputs
    readers = walk.consumers(value)
    if not readers or any(other.operator not in ("ConvInteger", "MatMulInteger")
                          for other in readers) or value in walk.model.outputs:
        raise Unsupported("its integers must be read by ConvInteger or MatMulInteger alone; "
                          "quantize the network statically")
    walk.constants[scale], walk.constants[zero] = np.ones((), np.float32), np.zeros((), np.uint8)
    walk.dynamic += 1
    steps = Steps(walk, node)
    steps("Identity", node.inputs[0], out=value)
    return steps.nodes


def _quant(walk: Walk, node: Node) -> list[Node] | None:
    """QONNX Quant: integers of any width up to 8, bounded between quantizing and back."""
    name, (scale, zero, width) = node.inputs[0], (walk.constant(item) for item in node.inputs[1:4])
    bits, signed = float(width.reshape(-1)[0]), bool(node.attribute("signed", 1))
    narrow = int(node.attribute("narrow", 0))
    low = -(2.0 ** (bits - 1)) + narrow if signed else 0.0
    high = 2.0 ** (bits - 1) - 1 if signed else 2.0**bits - 1 - narrow
    if node.text("rounding_mode", "ROUND").upper() != "ROUND":
        raise Unsupported(f"rounding_mode {node.text('rounding_mode', '')} must be ROUND")
    if (zero != 0).any():
        raise Unsupported("the zero point must be 0")
    if width.size != 1:
        raise Unsupported("the width must be one number")
    steps, real = Steps(walk, node), scale.astype(np.float64)
    if name in walk.constants:
        counted = np.clip(np.rint(walk.constants[name] / real), low, high)
        walk.constants[node.outputs[0]] = counted * real
        if high <= 127 and low >= -128:
            rank = counted.ndim
            walk.steps[node.outputs[0]] = real.reshape((1,) * (rank - real.ndim) + real.shape)
        return []
    if bits > 8:  # finer than anything here counts
        return steps.last(name)
    kind: type = np.int8 if high <= 127 else np.uint8
    none = steps.constant(0, kind)
    counted_name = steps("QuantizeLinear", name, node.inputs[1], none)
    bounded = steps("Clip", counted_name, steps.constant(low, kind), steps.constant(high, kind))
    return steps.last(steps("DequantizeLinear", bounded, node.inputs[1], none))


def _bipolar(walk: Walk, node: Node) -> list[Node]:
    """QONNX BipolarQuant of constants: the sign, times a scale."""
    array, scale = walk.constant(node.inputs[0]), walk.constant(node.inputs[1])
    walk.constants[node.outputs[0]] = np.where(array >= 0, 1.0, -1.0) * scale
    return []


def _renamed(operator: str, *kept: str) -> Expansion:
    def found(walk: Walk, node: Node) -> list[Node]:
        steps = Steps(walk, node)
        return steps.last(steps(operator, *node.inputs, **_plain(node, *kept)))
    return found


def _gelu(walk: Walk, node: Node) -> list[Node]:
    """Gelu, FastGelu (tanh), BiasGelu and QuickGelu (x * sigmoid(alpha * x))."""
    steps, name = Steps(walk, node), node.inputs[0]
    if len(node.inputs) > 1 and node.inputs[1]:
        name = steps("Add", name, node.inputs[1])
    if node.operator.endswith("QuickGelu"):
        return steps.last(steps("Swish", name, alpha=node.attribute("alpha", 1.702)))
    way = "tanh" if node.operator.endswith("FastGelu") else "none"
    return steps.last(steps("Gelu", name, approximate=way))


def _fused_conv(walk: Walk, node: Node) -> list[Node]:
    steps = Steps(walk, node)
    name = steps("Conv", *node.inputs[:3], **_plain(node, *_WINDOW))
    if len(node.inputs) > 3:
        name = steps("Add", name, node.inputs[3])
    numbers = node.attribute("activation_params", [])
    return steps.last(_activated(steps, name, numbers))


def _activated(steps: Steps, name: str, numbers: Sequence[float]) -> str:
    """What a fused activation makes of a result."""
    activation = steps.node.text("activation", "")
    match activation:
        case "":
            return name
        case "Relu" | "Sigmoid" | "Tanh":
            return steps(activation, name)
        case "LeakyRelu":
            return steps(activation, name, alpha=numbers[0] if numbers else 0.01)
        case "Clip":
            return steps("Clip", name, *(steps.constant(item) for item in numbers))
    raise Unsupported(f"activation {activation} must be Relu, Sigmoid, Tanh, LeakyRelu or Clip")


def _fused_gemm(walk: Walk, node: Node) -> list[Node] | None:
    steps = Steps(walk, node)
    name = steps("Gemm", *filter(None, node.inputs),
                 **_plain(node, "alpha", "beta", "transA", "transB"))
    return steps.last(_activated(steps, name, [node.attribute("activation_alpha", 0.01)]))


def _dynamic_matmul(walk: Walk, node: Node) -> list[Node]:
    """DynamicQuantizeMatMul: the activation's range is calibrated here."""
    steps = Steps(walk, node)
    raw, scale, zero = walk.constant(node.inputs[1]), walk.constant(node.inputs[2]), walk.optional(
        node, 3)
    walk.dynamic += 1
    weights = (raw - np.float64(0 if zero is None else zero)) * scale
    name = steps("MatMul", node.inputs[0], steps.constant(weights))
    if len(node.inputs) > 4 and node.inputs[4]:
        name = steps("Add", name, node.inputs[4])
    return steps.last(name)


def _dynamic_lstm(walk: Walk, node: Node) -> list[Node]:
    """DynamicQuantizeLSTM: an LSTM whose weights are int8, (directions, inputs, gates), with a
    scale a direction or a gate's row; ranges of activations are calibrated here."""
    steps, names = Steps(walk, node), list(node.inputs[:8])
    for place, first in ((1, 8), (2, 10)):
        raw, scale, zero = (walk.constant(name) for name in (
            names[place], *node.inputs[first : first + 2]))
        real = (raw - _by_direction(zero, raw)) * _by_direction(scale, raw)
        names[place] = steps.constant(real.transpose(0, 2, 1))
    walk.dynamic += 1
    steps("LSTM", *names, out=node.outputs[0], **_plain(
        node, "direction", "hidden_size", "input_forget", "activations", "clip"))
    one = steps.nodes.pop()
    return [replace(one, outputs=node.outputs)]


def _by_direction(array: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A number a direction, or one a direction and gate's row, to broadcast to the weights."""
    return array.astype(np.float64).reshape(len(weights), 1, -1)


def _fused_matmul(walk: Walk, node: Node) -> list[Node]:
    steps, names = Steps(walk, node), list(node.inputs[:2])
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise Unsupported("transBatchA and transBatchB must be 0")
    for place, key in enumerate(("transA", "transB")):
        if node.attribute(key, 0):
            rank = walk.rank(names[place])
            names[place] = steps("Transpose", names[place], perm=[
                *range(rank - 2), rank - 1, rank - 2])
    product = steps("MatMul", *names)
    return steps.last(steps("Mul", product, steps.constant(node.attribute("alpha", 1.0))))


def _root_mean_square(walk: Walk, node: Node) -> list[Node]:
    """RMSNormalization, which onnxruntime calls SimplifiedLayerNormalization."""
    steps, rank = Steps(walk, node), walk.rank(node.inputs[0])
    first = node.attribute("axis", -1) % rank
    return steps.last(steps("Root mean square", *node.inputs[:2], axes=list(range(first, rank)),
                            epsilon=node.attribute("epsilon", 1e-5)))


def _skip_norm(walk: Walk, node: Node) -> list[Node]:
    """SkipLayerNormalization: a sum before the norm. It may hand the sum on as well."""
    steps = Steps(walk, node)
    simple = "Simplified" in node.operator
    scale, offset = node.inputs[2], "" if simple or len(node.inputs) < 4 else node.inputs[3]
    last = node.inputs[(3 if simple else 4):]
    total = steps("Add", *node.inputs[:2])
    if last and last[0]:
        total = steps("Add", total, last[0])
    if len(node.outputs) > 3 and node.outputs[3]:
        steps("Identity", total, out=node.outputs[3])
    epsilon = node.attribute("epsilon", 1e-12)
    if simple:
        rank = walk.rank(node.inputs[0])
        return steps.last(steps("Root mean square", total, scale, axes=[rank - 1],
                                epsilon=epsilon))
    return steps.last(steps("LayerNormalization", total, scale, *([offset] if offset else []),
                            epsilon=epsilon, axis=-1))


_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
FOREIGN: Mapping[str, Expansion] = {
    "QLinearConv": _linear_conv, "QLinearMatMul": _linear_matmul,
    "ConvInteger": _integer("Conv", *_WINDOW),
    "MatMulInteger": _integer("MatMul"), "DynamicQuantizeLinear": _dynamic,
    "RMSNormalization": _root_mean_square, "SimplifiedLayerNormalization": _root_mean_square,
    f"{_MS}QGemm": _linear_gemm, f"{_MS}QLinearAdd": _linear_two("Add"),
    f"{_MS}QLinearMul": _linear_two("Mul"), f"{_MS}QLinearConcat": _linear_concat,
    f"{_MS}QLinearSigmoid": _linear_one("Sigmoid"),
    f"{_MS}QLinearLeakyRelu": _linear_one("LeakyRelu", "alpha"),
    f"{_MS}QLinearSoftmax": _linear_softmax,
    f"{_MS}QLinearGlobalAveragePool": _linear_one("GlobalAveragePool"),
    f"{_MS}QLinearAveragePool": _linear_one("AveragePool", *_POOL),
    f"{_MS}QuantizeLinear": _renamed("QuantizeLinear", "axis"),
    f"{_MS}DequantizeLinear": _renamed("DequantizeLinear", "axis"),
    **{_MS + name: _gelu for name in ("Gelu", "FastGelu", "BiasGelu", "QuickGelu")},
    f"{_MS}FusedConv": _fused_conv, f"{_MS}FusedGemm": _fused_gemm,
    f"{_MS}DynamicQuantizeMatMul": _dynamic_matmul,
    f"{_MS}DynamicQuantizeLSTM": _dynamic_lstm, f"{_MS}FusedMatMul": _fused_matmul,
    f"{_MS}SimplifiedLayerNormalization": _root_mean_square,
    f"{_MS}SkipLayerNormalization": _skip_norm,
    f"{_MS}SkipSimplifiedLayerNormalization": _skip_norm,
    f"{_QONNX}Quant": _quant, f"{_QONNX}IntQuant": _quant, f"{_QONNX}BipolarQuant": _bipolar,
}
#: Those with integers on both sides: whoever makes these looks at what reads them.
LINEAR = frozenset(name for name in FOREIGN if "QLinear" in name or name.endswith(":QGemm"))

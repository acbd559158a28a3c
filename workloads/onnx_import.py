"""Imports ONNX networks: static int8 (QDQ) as they are, float ones by quantizing them.

It reads no files itself (`onnx_read`) and invents no meaning: an operator it does not know is
listed with its node, all of them at once, and nothing is dropped.

Batch one, tensors of rank 4 (one, channels, rows, columns) or 2 (one, features). Weights and
activations of a QDQ network must be symmetric; uint8 with zero point 128 is the same as int8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .float_network import FloatNetwork
from .graph import Graph, GraphError, Layer, Operator, TensorSpec, Window
from .onnx_read import Model, Node, read_model
from .post_training import Recipe, quantize


@dataclass(frozen=True)
class Imported:
    """A quantized graph, the float network behind it, and how its numbers came about."""

    graph: Graph
    network: FloatNetwork
    note: str


class Unsupported(Exception):
    """One node cannot be imported; the message says why. Collected, never shown alone."""


def import_onnx(
    path: Path, calibration: Sequence[Mapping[str, np.ndarray]] | None = None,
    recipe: Recipe | None = None, seed: int = 0,
) -> Imported:
    """The integer graph of an ONNX file.

    `calibration`: real inputs by name, each (channels, rows, columns); without it, four seeded
    inputs from a standard normal distribution are used and the note says so. Scales and weights
    that the file states (QDQ) are kept. `recipe`: multiplier-and-shift scales if not given.
    `GraphError` lists every unsupported node.
    """
    network = float_network(read_model(path))
    stated = bool(network.weight_steps)
    recipe = recipe or Recipe(power_of_two=False, correct_bias=not stated)
    if calibration is None:
        calibration = random_inputs(network.graph, 4, seed)
        origin = "random calibration (standard normal, 4 inputs)"
    else:
        origin = f"calibrated with {len(calibration)} given inputs"
    graph = quantize(network, calibration, recipe)
    note = "scales as the file states them" if stated else f"float network, {origin}"
    return Imported(graph, network, note)


def random_inputs(graph: Graph, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Seeded standard normal inputs of a graph."""
    random = np.random.default_rng(seed)
    return [{name: random.normal(0, 1, graph.tensors[name].shape).astype(np.float32)
             for name in graph.inputs} for _ in range(count)]


def float_network(model: Model) -> FloatNetwork:
    """The model as a float network; `GraphError` lists every unsupported node."""
    walk = _Walk(model)
    problems = []
    # What follows a node that failed is judged by its operator only.
    failed: set[str] = set()
    for name in model.inputs:
        try:
            walk.tensor(name)
        except Unsupported as problem:
            problems.append(f"input {name!r}: {problem}")
            failed.add(name)
    for node in model.nodes:
        rule = _RULES.get(node.operator)
        try:
            if rule is None:
                raise Unsupported("no such operator here")
            if failed.isdisjoint(node.inputs):
                rule(walk, node)
            else:
                failed.update(node.outputs)
        except Unsupported as problem:
            problems.append(f"{node.operator} {node.name!r}: {problem}")
            failed.update(node.outputs)
    if problems:
        raise GraphError(f"{model.name}: {len(problems)} nodes are not supported: "
                         + "; ".join(problems))
    return walk.network()


@dataclass
class _Walk:
    """What the nodes seen so far have become."""

    model: Model
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    weight_steps: dict[str, np.ndarray] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, float] = field(default_factory=dict)
    #: Steps of dequantized constants, by the constant's name.
    steps: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.constants.update(self.model.constants)

    def tensor(self, name: str, shape: tuple[int, int, int] | None = None) -> str:
        """Declare a graph tensor for an ONNX tensor."""
        self.tensors[name] = TensorSpec(name, *(shape or logical_shape(self.model.shapes[name])))
        self.alias[name] = name
        return name

    def value(self, name: str) -> str:
        """The graph tensor that an ONNX activation has become."""
        if name not in self.alias:
            raise Unsupported(f"input {name!r} is a constant or was not imported")
        return self.alias[name]

    def constant(self, name: str) -> np.ndarray:
        if name not in self.constants:
            raise Unsupported(f"input {name!r} must be a constant")
        return self.constants[name]

    def consumers(self, name: str) -> list[Node]:
        return [node for node in self.model.nodes if name in node.inputs]

    def producer(self, tensor: str) -> int | None:
        """Index of the layer that makes a graph tensor."""
        return next((index for index, layer in enumerate(self.layers)
                     if layer.output == tensor), None)

    def add(self, node: Node, operator: Operator, inputs: tuple[str, ...],
            roles: tuple[str, ...] = (), shape: tuple[int, int, int] | None = None,
            **fields: Any) -> str:
        out = self.tensor(node.outputs[0], shape)
        constants = {role: f"{out}.{role}" for role in roles}
        self.layers.append(Layer(out, operator, inputs, out, constants=constants, **fields))
        return out

    def keep_scale(self, name: str) -> None:
        """The tensor counts in its source's steps."""
        source = self.layers[-1].inputs[0]
        if source in self.fixed:
            self.fixed[name] = self.fixed[source]

    def lookup(self, node: Node, function: str, source: str) -> None:
        name = self.add(node, Operator.LOOKUP, (source,), ("table",))
        self.functions[name] = function

    def network(self) -> FloatNetwork:
        outputs = tuple(self.value(name) for name in self.model.outputs)
        graph = Graph(self.model.name, self.model.inputs, outputs, self.tensors,
                      tuple(self.layers), {})
        return FloatNetwork(graph, self.weights, self.functions, self.fixed, self.weight_steps)


def logical_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, rows, columns) of an ONNX shape; `Unsupported` for another rank or batch."""
    if len(shape) not in (2, 4) or shape[0] != 1 or min(shape) < 1:
        raise Unsupported(f"shape {shape} must be (1, channels, rows, columns) or (1, features)")
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else (shape[1], 1, 1)


def _even(values: Sequence[int], what: str) -> int:
    if len(set(values)) != 1:
        raise Unsupported(f"{what} {list(values)} must be equal on all sides")
    return int(values[0])


def _window(node: Node, kernel: Sequence[int], groups: int = 1) -> Window:
    if node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise Unsupported("auto_pad must be NOTSET")
    if set(node.attribute("dilations", [1])) != {1}:
        raise Unsupported("dilations must be 1")
    if node.attribute("ceil_mode", 0):
        raise Unsupported("ceil_mode must be 0")
    if len(kernel) != 2:
        raise Unsupported(f"kernel {list(kernel)} must have rows and columns")
    stride = _even(node.attribute("strides", [1, 1]), "strides")
    padding = _even(node.attribute("pads", [0, 0, 0, 0]), "pads")
    return Window(int(kernel[0]), int(kernel[1]), stride, padding, groups)


def _conv(walk: _Walk, node: Node) -> None:
    weights = walk.constant(node.inputs[1])
    window = _window(node, weights.shape[2:], node.attribute("group", 1))
    bias = walk.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else (
        np.zeros(len(weights)))
    _convolution(walk, node, walk.value(node.inputs[0]), weights, bias, window, node.inputs[1])


def _convolution(walk: _Walk, node: Node, source: str, weights: np.ndarray, bias: np.ndarray,
                 window: Window, weight_name: str) -> None:
    name = walk.add(node, Operator.CONVOLUTION, (source,),
                    ("weights", "bias", "multiplier", "shift"), window=window)
    walk.weights[f"{name}.weights"] = weights.astype(np.float32)
    walk.weights[f"{name}.bias"] = bias.astype(np.float32)
    if weight_name in walk.steps:
        steps = np.broadcast_to(walk.steps[weight_name].reshape(-1), (len(weights),))
        walk.weight_steps[name] = steps.astype(np.float64)


def _dense(walk: _Walk, node: Node) -> None:
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


def _batch_norm(walk: _Walk, node: Node) -> None:
    gamma, beta, mean, variance = (walk.constant(name) for name in node.inputs[1:5])
    scale = gamma / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    _affine(walk, node, node.inputs[0], scale, beta - mean * scale)


def _affine(walk: _Walk, node: Node, name: str, scale: np.ndarray, offset: np.ndarray) -> None:
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


def _next_scale(walk: _Walk, name: str) -> float | None:
    """The scale with which an ONNX tensor is quantized next, if the file says one."""
    for node in walk.consumers(name):
        if node.operator == "QuantizeLinear":
            return float(np.asarray(walk.constant(node.inputs[1])).reshape(-1)[0])
    return None


def _relu(walk: _Walk, node: Node) -> None:
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


def _lone(walk: _Walk, source: str, node: Node) -> bool:
    """Whether nothing but this node and quantizers on the way to it read a tensor."""
    names = [name for name, tensor in walk.alias.items() if tensor == source]
    readers = [other for name in names for other in walk.consumers(name) if other is not node]
    quantizers = ("QuantizeLinear", "DequantizeLinear")
    return (all(other.operator in quantizers and other.outputs[0] in names for other in readers)
            and not any(name in walk.model.outputs for name in names))


def _clip(walk: _Walk, node: Node) -> None:
    bounds = [node.attribute("min", None), node.attribute("max", None)]
    for position in (1, 2):
        if len(node.inputs) > position and node.inputs[position]:
            bounds[position - 1] = float(walk.constant(node.inputs[position]))
    if bounds[0] == 0 and bounds[1] is None:
        return _relu(walk, node)
    if bounds != [0, 6]:
        raise Unsupported(f"bounds {bounds} must be 0 and 6, or 0 alone")
    return walk.lookup(node, "relu6", walk.value(node.inputs[0]))


def _function(name: str) -> Callable[[_Walk, Node], None]:
    def rule(walk: _Walk, node: Node) -> None:
        if name == "hard_sigmoid" and abs(node.attribute("alpha", 0.2) - 1 / 6) > 1e-4:
            raise Unsupported(f"alpha {node.attribute('alpha', 0.2)} must be 1/6")
        walk.lookup(node, name, walk.value(node.inputs[0]))
    return rule


#: x * f(x) as one table.
_GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}


def _mul(walk: _Walk, node: Node) -> None:
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


def _per_channel(walk: _Walk, name: str) -> np.ndarray:
    array = walk.constant(name)
    if array.size > 1 and (array.ndim < 3 or array.shape[-1] != 1 or array.shape[-2] != 1):
        raise Unsupported(f"constant {name!r} {array.shape} must have one value a channel")
    return array.reshape(-1)


def _add(walk: _Walk, node: Node) -> None:
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


def _concat(walk: _Walk, node: Node) -> None:
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


def _max_pool(walk: _Walk, node: Node) -> None:
    window = _window(node, node.attribute("kernel_shape", []))
    walk.keep_scale(walk.add(node, Operator.MAX_POOL, (walk.value(node.inputs[0]),),
                             window=window))


def _average_pool(walk: _Walk, node: Node) -> None:
    source = walk.value(node.inputs[0])
    if node.operator == "AveragePool":
        window = _window(node, node.attribute("kernel_shape", []))
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


def _resize(walk: _Walk, node: Node) -> None:
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


def _softmax(walk: _Walk, node: Node) -> None:
    rank = len(walk.model.shapes[node.inputs[0]])
    if node.attribute("axis", -1) % rank != 1:
        raise Unsupported(f"axis {node.attribute('axis', -1)} must be the channels")
    name = walk.add(node, Operator.SOFTMAX, (walk.value(node.inputs[0]),), ("table",))
    walk.fixed[name] = 2.0**-7


def _same(walk: _Walk, node: Node) -> None:
    name = node.inputs[0]
    if name in walk.constants:
        walk.constants[node.outputs[0]] = walk.constants[name]
        if name in walk.steps:
            walk.steps[node.outputs[0]] = walk.steps[name]
        return
    walk.alias[node.outputs[0]] = walk.value(node.inputs[0])


def _flatten(walk: _Walk, node: Node) -> None:
    """Rows of features keep the order channel, row, column, so only the shape's name changes."""
    source = walk.value(node.inputs[0])
    shape = walk.model.shapes[node.outputs[0]]
    elements = walk.tensors[source].elements
    same = len(shape) == 4 and logical_shape(shape) == walk.tensors[source].shape
    if shape[0] != 1 or not (same or (len(shape) == 2 and shape[1] == elements)):
        raise Unsupported(f"shape {shape} must be (1, {elements})")
    walk.alias[node.outputs[0]] = source


def _quantize_linear(walk: _Walk, node: Node) -> None:
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


def _dequantize_linear(walk: _Walk, node: Node) -> None:
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


def _symmetric(walk: _Walk, node: Node) -> None:
    if len(node.inputs) < 3 or not node.inputs[2]:
        return
    zero = walk.constant(node.inputs[2])
    wanted = 128 if zero.dtype == np.uint8 else 0
    if (zero != wanted).any():
        raise Unsupported(f"zero point {int(zero.reshape(-1)[0])} must be {wanted} "
                          f"({zero.dtype}); quantize symmetrically")


_RULES: Mapping[str, Callable[[_Walk, Node], None]] = {
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

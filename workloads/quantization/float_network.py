"""Executes a graph's structure with real weights: what a quantized network is compared with.

It quantizes nothing. Tensors hold real values; grids are in pixels, keypoints in -1 .. 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workloads import arithmetic
from workloads.convolution import convolve_real, real_product
from workloads.graph import Graph, GraphError, Layer, Operator, TensorSpec
from workloads.reference import gathered

Arrays = Sequence[np.ndarray]
Function = Callable[[np.ndarray], np.ndarray]

#: Functions of one variable that a lookup layer may stand for.
FUNCTIONS: Mapping[str, Function] = {
    "sigmoid": arithmetic.sigmoid,
    "silu": arithmetic.silu,
    "hard_sigmoid": lambda value: np.clip(value / 6 + 0.5, 0, 1),
    "hard_swish": lambda value: value * np.clip(value / 6 + 0.5, 0, 1),
    "relu": lambda value: np.maximum(value, 0),
    "relu6": lambda value: np.clip(value, 0, 6),
    "tanh": np.tanh,
    "identity": lambda value: value,
}


@dataclass(frozen=True)
class FloatNetwork:
    """A graph whose layers have real weights.

    `graph`: the structure; its constants hold only what depends on no weight. `weights`: float32
    arrays named layer.role; roles: convolution: weights, bias; affine: scale, offset;
    group_norm: scale, offset, epsilon; matmul: factor; lookup: in_factor, out_factor if any;
    add, average_pool: offset if any; multiply: zeros, what each input is above its value, and
    offset if any;
    heat_maps: variance.
    `functions`: what each lookup layer computes, by a name in `FUNCTIONS` or as it is.
    `fixed_scales`: tensors whose scale follows from their meaning (masks, pictures, grids); the
    others are calibrated. `weight_steps`: steps of convolution weights by layer and output channel
    where they are given, not to be chosen. `wide`: tensors of 16 bits whose scale is calibrated;
    the scale of others stays as the graph says. `least`: where a tensor's values end below.
    """

    graph: Graph
    weights: Mapping[str, np.ndarray]
    functions: Mapping[str, str | Function]
    fixed_scales: Mapping[str, float]
    weight_steps: Mapping[str, np.ndarray] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    least: Mapping[str, float] = field(default_factory=dict)

    def function(self, layer: Layer) -> Function:
        """What a lookup layer computes."""
        found = self.functions[layer.name]
        return FUNCTIONS[found] if isinstance(found, str) else found


def execute_real(
    network: FloatNetwork, inputs: Mapping[str, np.ndarray],
    seen: Callable[[Layer, np.ndarray], None] | None = None,
) -> dict[str, np.ndarray]:
    """Every tensor in float32 from real inputs of the specs' shapes. `seen` is told what each
    layer computed before its ReLU, in float64."""
    values = {name: np.asarray(array, np.float32) for name, array in inputs.items()}
    for name in network.graph.inputs:
        shape = network.graph.tensors[name].shape
        if name not in values or values[name].shape != shape:
            found = values[name].shape if name in values else "missing"
            raise GraphError(f"input {name!r} is {found}, must be {shape}")
    for layer in network.graph.layers:
        computed = _computed(network, layer, [values[name] for name in layer.inputs])
        if seen is not None:
            seen(layer, computed)
        values[layer.output] = _handed_on(network, layer, computed)
    return values


def execute_reachable(
    network: FloatNetwork, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The tensors that follow from some of the inputs alone."""
    values = {name: np.asarray(array, np.float32) for name, array in inputs.items()}
    for layer in network.graph.layers:
        if all(name in values for name in layer.inputs):
            values[layer.output] = execute_real_layer(
                network, layer, [values[name] for name in layer.inputs])
    return values


def execute_real_layer(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    """The output of one layer: computed in float64, rounded to float32.

    Rounding hides in what order a processor adds and how its vector units take a function, but
    for values that lie on the edge between two float32 numbers. So calibration finds the same
    scales on another machine.
    """
    return _handed_on(network, layer, _computed(network, layer, inputs))


def _computed(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    rule = _RULES.get(layer.operator)
    if rule is None:
        raise GraphError(f"layer {layer.name!r}: {layer.operator} has no real form here")
    if layer.operator is Operator.CONVOLUTION:  # counts in float64 itself, block by block
        return rule(network, layer, inputs)
    return rule(network, layer, [item.astype(np.float64) for item in inputs])


def _handed_on(network: FloatNetwork, layer: Layer, value: np.ndarray) -> np.ndarray:
    value = value.astype(np.float32)
    least = 0 if layer.relu else network.least.get(layer.output)
    return value if least is None else np.maximum(value, np.float32(least))


def _weight(network: FloatNetwork, layer: Layer, role: str) -> np.ndarray:
    return network.weights[f"{layer.name}.{role}"]


def _column(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, 1, 1)


def _outside(network: FloatNetwork, layer: Layer) -> float:
    """The value of what a layer reads outside its input."""
    steps = layer.window.pad_value
    return steps * network.fixed_scales[layer.inputs[0]] if steps else 0.0


def _convolution(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    window = layer.window
    total = convolve_real(inputs[0], _weight(network, layer, "weights"), window.stride,
                          window.padding, window.groups, _outside(network, layer))
    total += _column(_weight(network, layer, "bias"))
    return total


def _windows(value: np.ndarray, layer: Layer, fill: float) -> np.ndarray:
    window, pad = layer.window, layer.window.padding
    padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(
        padded, (window.rows, window.columns), axis=(1, 2))
    return found[:, :: window.stride, :: window.stride]


def _downsample(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    graph = network.graph
    weights = graph.constant(layer, "weights") * 2.0 ** -int(graph.constant(layer, "shift")[0])
    return np.einsum("crkij,ij->crk", _windows(inputs[0], layer, 0), weights)


def _affine(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    return (inputs[0] * _column(_weight(network, layer, "scale"))
            + _column(_weight(network, layer, "offset")))


def _lookup(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    """function(x * in_factor) / out_factor, factors by channel where given."""
    function = network.function(layer)
    if f"{layer.name}.in_factor" not in network.weights:
        return function(inputs[0])
    into, out = (_column(_weight(network, layer, role)) for role in ("in_factor", "out_factor"))
    return function(inputs[0] * into) / out


def _softmax(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    shifted = np.exp(inputs[0] - inputs[0].max(axis=0, keepdims=True))
    return shifted / shifted.sum(axis=0, keepdims=True)


def _bilinear(image: np.ndarray, grid: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[1:]
    left, top = np.floor(grid[0]).astype(int), np.floor(grid[1]).astype(int)
    part_x, part_y = grid[0] - left, grid[1] - top
    total = np.zeros((image.shape[0], *grid.shape[1:]))
    for down in (0, 1):
        for right in (0, 1):
            column, row = left + right, top + down
            weight = (part_x if right else 1 - part_x) * (part_y if down else 1 - part_y)
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            pixel = image[:, np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
            total += np.where(inside, weight, 0) * pixel
    return total


def _grid_sample(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    image, grids = inputs
    return np.concatenate([_bilinear(image, grids[index : index + 2])
                           for index in range(0, grids.shape[0], 2)])


def grid_of_displacements(graph: Graph, layer: Layer) -> TensorSpec:
    """The grid that is made of the displacements of a layer, which are in its pixels."""
    return next(graph.tensors[other.output] for other in graph.layers
                if layer.output in other.inputs)


def _displacements(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    grid = grid_of_displacements(network.graph, layer)
    size = np.array([grid.columns - 1, grid.rows - 1], np.float32).reshape(2, 1, 1) / 2
    moved = (inputs[0] - inputs[1]) * size
    return np.concatenate([np.zeros((2, 1, 1)), moved], axis=1)


def _heat_maps(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    graph = network.graph
    one = 1 << arithmetic.KEYPOINT_FRACTION_BITS
    row_axis = graph.constant(layer, "row_axis") / one
    column_axis = graph.constant(layer, "column_axis") / one
    variance = float(_weight(network, layer, "variance")[0])

    def maps(points: np.ndarray) -> np.ndarray:
        by_row = np.exp(-((row_axis[None] - points[1]) ** 2) / (2 * variance))
        by_column = np.exp(-((column_axis[None] - points[0]) ** 2) / (2 * variance))
        return by_row[:, :, None] * by_column[:, None, :]

    difference = maps(inputs[1]) - maps(inputs[0])
    return np.concatenate([np.zeros_like(difference[:1]), difference])


def _sparse_flow(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    out = network.graph.tensors[layer.output]
    identity = arithmetic.identity_grid(out.rows, out.columns, 0)
    moved = identity[None] + inputs[0][:, :, 0].T[:, :, None, None]
    return moved.reshape(-1, out.rows, out.columns)


def _flow_sum(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    masks, shift = inputs
    identity = arithmetic.identity_grid(masks.shape[1], masks.shape[2], 0)
    return identity + np.einsum("krc,pk->prc", masks, shift[:, :, 0])


def _offset(network: FloatNetwork, layer: Layer) -> float:
    """What a layer adds because zero points are held."""
    return float(_weight(network, layer, "offset")[0]) if "offset" in layer.constants else 0.0


def _multiply(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    first, second = (_weight(network, layer, "zeros") if "zeros" in layer.constants
                     else (0.0, 0.0))
    return (inputs[0] - first) * (inputs[1] - second) + _offset(network, layer)


def _matmul(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    left, right = inputs
    total = real_product(right.reshape(right.shape[0], -1), left.reshape(left.shape[0], -1))
    return (total * network.weights.get(f"{layer.name}.factor", np.float32(1))).reshape(
        right.shape[0], *left.shape[1:])


def _group_norm(network: FloatNetwork, layer: Layer, inputs: Arrays) -> np.ndarray:
    value = inputs[0].reshape(layer.window.groups, -1).astype(np.float64)
    spread = value.var(axis=1, keepdims=True) + float(_weight(network, layer, "epsilon")[0])
    plain = ((value - value.mean(axis=1, keepdims=True)) / np.sqrt(spread)).reshape(inputs[0].shape)
    plain = plain * _column(_weight(network, layer, "scale")) + _column(
        _weight(network, layer, "offset"))
    return plain * inputs[1] + inputs[2] if len(inputs) == 3 else plain


_RULES: Mapping[Operator, Callable[[FloatNetwork, Layer, Arrays], np.ndarray]] = {
    Operator.MATMUL: _matmul,
    Operator.GROUP_NORM: _group_norm,
    Operator.TRANSPOSE: lambda network, layer, inputs: inputs[0].reshape(
        inputs[0].shape[0], -1).T[:, None, :],
    Operator.RESHAPE: lambda network, layer, inputs: inputs[0].reshape(
        network.graph.tensors[layer.output].shape),
    Operator.GATHER: lambda network, layer, inputs: gathered(
        inputs[0], network.graph.constant(layer, "places"),
        network.graph.tensors[layer.output].shape, _outside(network, layer)),
    Operator.REQUANTIZE: lambda network, layer, inputs: inputs[0],
    Operator.SAMPLER: lambda network, layer, inputs: (
        inputs[2][0] * inputs[0] + inputs[2][1] * inputs[1]),
    Operator.CONVOLUTION: _convolution,
    Operator.UPSAMPLE: lambda network, layer, inputs: inputs[0].repeat(2, 1).repeat(2, 2),
    Operator.AVERAGE_POOL: lambda network, layer, inputs: _windows(
        inputs[0], layer, _outside(network, layer)).mean(axis=(3, 4)) + _offset(network, layer),
    Operator.MAX_POOL: lambda network, layer, inputs: _windows(
        inputs[0], layer, -np.inf).max(axis=(3, 4)),
    Operator.DOWNSAMPLE: _downsample,
    Operator.ADD: lambda network, layer, inputs: (
        inputs[0] + inputs[1] + _offset(network, layer)),
    Operator.MULTIPLY: _multiply,
    Operator.AFFINE: _affine,
    Operator.LOOKUP: _lookup,
    Operator.SOFTMAX: _softmax,
    Operator.GRID_SAMPLE: _grid_sample,
    Operator.CONCAT: lambda network, layer, inputs: np.concatenate(inputs),
    Operator.DISPLACEMENTS: _displacements,
    Operator.HEAT_MAPS: _heat_maps,
    Operator.SPARSE_FLOW: _sparse_flow,
    Operator.FLOW_SUM: _flow_sum,
}

"""Executes a graph in integers, layer by layer: the numeric oracle of the project.

It is exact and fast enough to use, but it models no hardware, no tiles and no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from workloads import arithmetic
from workloads.convolution import accumulate, exact_product
from workloads.graph import Graph, GraphError, Layer, Operator, Phase, TensorSpec

Arrays = Sequence[np.ndarray]
Rule = Callable[[Graph, Layer, Arrays], np.ndarray]


def execute(
    graph: Graph, inputs: Mapping[str, np.ndarray], phases: Iterable[Phase] | None = None
) -> dict[str, np.ndarray]:
    """Run the layers of the given phases (all if None); return every tensor by name.

    `inputs`: the graph's inputs, and for a part of the phases also the tensors that the phases
    left out would have made. Each has the shape and the integer type of its spec. `GraphError`
    names a missing or ill-formed input. The layers of the phase `step` run as often as the graph
    says if it carries values from step to step, else once.
    """
    layers = graph.layers if phases is None else graph.phase(*phases)
    values: dict[str, np.ndarray] = {}
    for name, array in inputs.items():
        values[name] = _checked(graph, name, array)
    for phase, part in groupby(layers, key=lambda layer: layer.phase):
        run = tuple(part)
        for repeat in range(graph.steps if phase is Phase.STEP and graph.carried else 1):
            if repeat:
                values |= {given: values[made] for given, made in graph.carried}
            _run(graph, run, values)
    return values


def _run(graph: Graph, layers: Iterable[Layer], values: dict[str, np.ndarray]) -> None:
    for layer in layers:
        missing = [name for name in layer.inputs if name not in values]
        if missing:
            raise GraphError(f"layer {layer.name!r} reads {missing[0]!r}, which is neither given "
                             "nor made by an earlier layer")
        values[layer.output] = execute_layer(
            graph, layer, [values[name] for name in layer.inputs])


def execute_layer(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """The output of one layer from its inputs, in order.

    The rows and columns of the inputs may be a part of those in the specs: the layer is then
    applied to that part, with zeros around it.
    """
    return _RULES[layer.operator](graph, layer, inputs)


def _checked(graph: Graph, name: str, array: np.ndarray) -> np.ndarray:
    if name not in graph.tensors:
        raise GraphError(f"input {name!r}: graph {graph.name!r} has no such tensor")
    spec = graph.tensors[name]
    if array.shape != spec.shape or array.dtype != arithmetic.integer_type(spec.bits):
        raise GraphError(f"input {name!r} is {array.dtype} {array.shape}, must be "
                         f"int{spec.bits} {spec.shape}")
    return array


def _out(graph: Graph, layer: Layer) -> TensorSpec:
    return graph.tensors[layer.output]


def _column(array: np.ndarray) -> np.ndarray:
    """One value a channel, shaped to broadcast over rows and columns."""
    return array.reshape(-1, 1, 1)


def _rectified(value: np.ndarray, layer: Layer) -> np.ndarray:
    return np.maximum(value, 0) if layer.relu else value


def products(graph: Graph, layer: Layer, value: np.ndarray) -> np.ndarray:
    """int64 sums of weight * value of a convolution, without its bias."""
    window = layer.window
    return accumulate(value, graph.constant(layer, "weights"), window.stride, window.padding,
                      window.groups, window.pad_value)


def scaled_products(graph: Graph, layer: Layer, total: np.ndarray) -> np.ndarray:
    """What a convolution makes of its `products`."""
    scaled = arithmetic.requantize(
        total + _column(graph.constant(layer, "bias")),
        _column(graph.constant(layer, "multiplier")), _column(graph.constant(layer, "shift")),
        _out(graph, layer).bits)
    return _rectified(scaled, layer)


def _convolution(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """acc = bias + sum of weight * value; y = requantize(acc, multiplier, shift); then ReLU."""
    return scaled_products(graph, layer, products(graph, layer, inputs[0]))


def _upsample(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """out[r, c] = in[r >> 1, c >> 1]."""
    return inputs[0].repeat(2, axis=1).repeat(2, axis=2)


def _windows(value: np.ndarray, layer: Layer, fill: int) -> np.ndarray:
    window, pad = layer.window, layer.window.padding
    padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(
        padded, (window.rows, window.columns), axis=(1, 2))
    return found[:, :: window.stride, :: window.stride]


def pool_scale(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Multiplier and shift of an average pool: its constants, or 1 and log2 of the window."""
    if "multiplier" in layer.constants:
        return (int(graph.constant(layer, "multiplier")[0]),
                int(graph.constant(layer, "shift")[0]))
    return 1, (layer.window.rows * layer.window.columns).bit_length() - 1


def offset_of(graph: Graph, layer: Layer) -> int:
    """What a layer adds before its shift because zero points are held; 0 where none are."""
    return int(graph.constant(layer, "offset")[0]) if "offset" in layer.constants else 0


def zeros_of(graph: Graph, layer: Layer) -> tuple[int, int]:
    """What stands for zero in the operands of a product, in their steps."""
    if "zeros" not in layer.constants:
        return 0, 0
    first, second = graph.constant(layer, "zeros")
    return int(first), int(second)


def _average_pool(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift(sum of the window * multiplier + offset, shift)); padding counts
    as zeros."""
    total = _windows(inputs[0], layer, layer.window.pad_value).sum(axis=(3, 4), dtype=np.int64)
    multiplier, shift = pool_scale(graph, layer)
    return arithmetic.saturate(arithmetic.round_shift(
        total * multiplier + offset_of(graph, layer), shift), _out(graph, layer).bits)


def _max_pool(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """The greatest value of the window; padding never wins."""
    return _windows(inputs[0], layer, -128).max(axis=(3, 4))


def _downsample(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift(sum of weight * value, shift)); channels share the weights."""
    weights = graph.constant(layer, "weights").astype(np.int64)
    total = np.einsum("crkij,ij->crk", _windows(inputs[0], layer, 0), weights, dtype=np.int64)
    return arithmetic.requantize(total, 1, int(graph.constant(layer, "shift")[0]))


def _add(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift(a * m0 + b * m1 + offset, shift))."""
    first, second = graph.constant(layer, "multiplier").astype(np.int64)
    total = inputs[0].astype(np.int64) * first + inputs[1].astype(np.int64) * second
    shifted = arithmetic.round_shift(
        total + offset_of(graph, layer), graph.constant(layer, "shift")[0])
    return _rectified(arithmetic.saturate(shifted, _out(graph, layer).bits), layer)


def _multiply(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift((a - z0) * (b - z1) * multiplier + offset, shift)); b may be one
    channel or one position."""
    first, second = (array.astype(np.int64) - zero for array, zero in
                     zip(inputs, zeros_of(graph, layer), strict=True))
    product = first * second  # numpy repeats a lone channel or position
    total = product * int(graph.constant(layer, "multiplier")[0]) + offset_of(graph, layer)
    return arithmetic.saturate(arithmetic.round_shift(
        total, graph.constant(layer, "shift")[0]), _out(graph, layer).bits)


def _affine(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift(x * multiplier + offset, shift)) by channel; then ReLU."""
    total = inputs[0].astype(np.int64) * _column(graph.constant(layer, "multiplier"))
    total += _column(graph.constant(layer, "offset"))
    shifted = arithmetic.round_shift(total, _column(graph.constant(layer, "shift")))
    return _rectified(arithmetic.saturate(shifted, _out(graph, layer).bits), layer)


def _lookup(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = table[x + 128], or table[channel][x + 128] if each channel has its own."""
    table = graph.constant(layer, "table")
    if inputs[0].dtype == np.int16:
        return arithmetic.saturate(
            arithmetic.interpolate(inputs[0], table), _out(graph, layer).bits)
    index = inputs[0].astype(np.int16) + 128
    return table[index] if table.ndim == 1 else table[_column(np.arange(len(table))), index]


def fraction_bits_of(spec: TensorSpec) -> int:
    """n of a scale 2 ** -n; `GraphError` if the scale is no power of two."""
    digits = round(-float(np.log2(spec.scale)))
    if spec.scale != 2.0**-digits:
        raise GraphError(f"tensor {spec.name!r}: scale {spec.scale} must be a power of two")
    return digits


def _softmax(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    out = _out(graph, layer)
    return arithmetic.softmax(
        inputs[0], graph.constant(layer, "table"), fraction_bits_of(out), out.bits)


def _grid_sample(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """Grid k (channels 2k and 2k + 1) makes the k-th group of the image's channels."""
    image, grids = inputs
    parts = [arithmetic.bilinear(image, grids[index : index + 2], layer.fraction_bits)
             for index in range(0, grids.shape[0], 2)]
    return np.concatenate(parts)


def _concat(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    return np.concatenate(inputs)


def _displacements(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """In steps of the grids that the layer's readers make; their size is in those specs."""
    grid = next(graph.tensors[other.output] for other in graph.layers
                if layer.output in other.inputs)
    return arithmetic.displacements(
        inputs[0], inputs[1], grid.rows, grid.columns, layer.fraction_bits)


def _heat_maps(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    table, rows, columns = (
        graph.constant(layer, role) for role in ("table", "row_axis", "column_axis"))
    return arithmetic.heat_maps(inputs[0], inputs[1], table, rows, columns)


def _sparse_flow(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    out = _out(graph, layer)
    return arithmetic.sparse_flow(inputs[0], out.rows, out.columns, layer.fraction_bits)


def _flow_sum(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    return arithmetic.flow_sum(inputs[0], inputs[1], layer.fraction_bits)


def _matmul(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """out[c, p] = requantize(sum over i of right[c, i] * left[i, p], multiplier, shift).

    `left`: int8 or int16 (inner, rows, columns). `right`: as well (out channels, as many positions
    as inner).
    """
    left, right = (array.reshape(array.shape[0], -1) for array in inputs)
    total = exact_product(right, left)
    scaled = arithmetic.requantize(
        total, graph.constant(layer, "multiplier")[0], graph.constant(layer, "shift")[0],
        _out(graph, layer).bits)
    return scaled.reshape(right.shape[0], *inputs[0].shape[1:])


def _transpose(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """out[p, 0, c] = in[c, p] for positions p in row order."""
    return np.ascontiguousarray(inputs[0].reshape(inputs[0].shape[0], -1).T)[:, None, :]


def gathered(value: np.ndarray, places: np.ndarray, shape: tuple[int, int, int],
             nothing: float = 0) -> np.ndarray:
    """out[i] = in[places[i]] with both counted in order; `nothing` where the place is -1."""
    found = np.where(places < 0, nothing, value.reshape(-1)[places])
    return found.astype(value.dtype).reshape(shape)


def _reshape(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    return inputs[0].reshape(_out(graph, layer).shape)


def _row(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """Row x mod rows of the table."""
    table = graph.constant(layer, "table")
    return table[int(inputs[0].flat[0]) % len(table)].reshape(_out(graph, layer).shape)


def _requantize(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = requantize(x, multiplier, shift)."""
    return arithmetic.requantize(
        inputs[0], graph.constant(layer, "multiplier")[0], graph.constant(layer, "shift")[0],
        _out(graph, layer).bits)


def _sampler(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """y = saturate(round_shift(x * c0 + round_shift(v * c1 * multiplier, shift), 14)).

    `x`: int16 latent. `v`: int8 velocity; multiplier / 2 ** shift is its step in latent steps.
    `c`: int16 coefficients (2, 1, 1) with 14 fraction bits.
    """
    latent, velocity, factors = (array.astype(np.int64) for array in inputs)
    multiplier, shift = (int(graph.constant(layer, role)[0]) for role in ("multiplier", "shift"))
    moved = arithmetic.round_shift(velocity * factors[1] * multiplier, shift)
    total = arithmetic.round_shift(
        latent * factors[0] + moved, arithmetic.COEFFICIENT_FRACTION_BITS)
    return arithmetic.saturate(total, _out(graph, layer).bits)


def _group_norm(graph: Graph, layer: Layer, inputs: Arrays) -> np.ndarray:
    """Sums over each group, then an affine step (`arithmetic.group_norm_entries`).

    Further inputs, int8 or int16 (channels, 1, 1), modulate (`arithmetic.modulated`).
    """
    value = inputs[0]
    scale, offset = (graph.constant(layer, role).astype(np.int64) for role in ("scale", "offset"))
    if len(inputs) == 3:
        gain, moved = (array.reshape(-1).astype(np.int64) for array in inputs[1:])
        scale, offset = arithmetic.modulated(scale, offset, gain, moved,
                                             graph.constant(layer, "film"))
    epsilon = int(graph.constant(layer, "epsilon")[0])
    bits = _out(graph, layer).bits
    result = np.empty(value.shape, arithmetic.integer_type(bits))
    each = value.shape[0] // layer.window.groups
    for start in range(0, value.shape[0], each):
        part = value[start : start + each].astype(np.int64)
        sums = (part.size, int(part.sum()), int((part * part).sum()))
        channels = slice(start, start + each)
        multiplier, begin, shift = arithmetic.group_norm_entries(
            sums, scale[channels], offset[channels], epsilon)
        total = part * _column(multiplier).astype(np.int64) + _column(begin)
        result[channels] = arithmetic.saturate(
            arithmetic.round_shift(total, _column(shift)), bits)
    return _rectified(result, layer)


_RULES: Mapping[Operator, Rule] = {
    Operator.MATMUL: _matmul,
    Operator.TRANSPOSE: _transpose,
    Operator.RESHAPE: _reshape,
    Operator.GATHER: lambda graph, layer, inputs: gathered(
        inputs[0], graph.constant(layer, "places"), _out(graph, layer).shape,
        layer.window.pad_value),
    Operator.REQUANTIZE: _requantize,
    Operator.ROW: _row,
    Operator.SAMPLER: _sampler,
    Operator.GROUP_NORM: _group_norm,
    Operator.CONVOLUTION: _convolution,
    Operator.UPSAMPLE: _upsample,
    Operator.AVERAGE_POOL: _average_pool,
    Operator.MAX_POOL: _max_pool,
    Operator.DOWNSAMPLE: _downsample,
    Operator.ADD: _add,
    Operator.MULTIPLY: _multiply,
    Operator.AFFINE: _affine,
    Operator.LOOKUP: _lookup,
    Operator.SOFTMAX: _softmax,
    Operator.GRID_SAMPLE: _grid_sample,
    Operator.CONCAT: _concat,
    Operator.DISPLACEMENTS: _displacements,
    Operator.HEAT_MAPS: _heat_maps,
    Operator.SPARSE_FLOW: _sparse_flow,
    Operator.FLOW_SUM: _flow_sum,
}

"""Computes the integer constants of each layer from real weights and chosen scales.

It chooses no activation scale and runs no network; `post_training` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from workloads import arithmetic
from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork

#: A bias must leave room in the int32 accumulator.
BIAS_LIMIT = 1 << 30
#: The greatest ratio of scales that a multiplier of 15 bits holds.
LARGEST_RATIO = float((1 << arithmetic.MULTIPLIER_BITS) - 1)


@dataclass(frozen=True)
class Recipe:
    """Choices of the quantizer.

    `power_of_two`: scales are powers of two (multiplier 1 and a shift); otherwise multiplier and
    shift. `search`: choose each scale for the least squared error, not for the greatest value.
    `balance`: how far channels of a tensor are brought to one range, 0 to 1; 0.75 lost least
    on the trained narrow decoder (0, 0.25, 0.5, 0.75 and 1 were tried).
    `channel_tables`: a lookup between free channels gets a table for each channel.
    `activation_bits`: 8, or 16 for every activation whose scale is calibrated; inputs of the
    network and of a softmax stay at 8. `correct_bias`: remove the mean error of each convolution
    channel on the calibration inputs.
    """

    power_of_two: bool = True
    search: bool = True
    balance: float = 0.75
    channel_tables: bool = False
    activation_bits: int = 8
    correct_bias: bool = True


def _scaled_column(ratios: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    # Beyond these bounds every accumulator but zero saturates, or none reaches a step.
    held = np.clip(ratios, 2.0**-arithmetic.MAX_SHIFT, LARGEST_RATIO)
    pairs = [arithmetic.multiplier_and_shift(float(ratio), recipe.power_of_two)
             for ratio in held]
    return (np.array([pair[0] for pair in pairs], np.int32),
            np.array([pair[1] for pair in pairs], np.int32))


def least_steps(bias: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """The least weight step of each output channel: the bias must fit, and the shift must not
    pass its limit even for a dead channel."""
    return np.maximum(np.abs(bias) / (in_scale * BIAS_LIMIT), 2.0**-30 * out_scale / in_scale)


def weight_scales(
    weights: np.ndarray, least: np.ndarray, recipe: Recipe, limit: int = 127
) -> np.ndarray:
    """A step for each output channel, not below `least`; weights are -limit .. limit steps."""
    flat = weights.reshape(len(weights), -1)
    greatest = np.maximum(np.abs(flat).max(axis=1), 1e-12)
    tops = greatest / limit
    if recipe.power_of_two:
        tops = 2.0 ** arithmetic.ceil_log2(tops)
    best, least_error = tops, np.full(len(flat), np.inf)
    shrink = (1.0, 0.5) if recipe.power_of_two else tuple(np.arange(1.0, 0.6, -0.04))
    for factor in shrink if recipe.search else (1.0,):
        step = (tops * factor)[:, None]
        error = ((np.clip(np.rint(flat / step), -limit, limit) * step - flat) ** 2).sum(axis=1)
        best = np.where(error < least_error, tops * factor, best)
        least_error = np.minimum(error, least_error)
    if recipe.power_of_two:
        least = 2.0 ** arithmetic.ceil_log2(least)
    return np.maximum(best, least)


def _convolution(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    weights = network.weights[f"{layer.name}.weights"].astype(np.float64)
    bias = network.weights[f"{layer.name}.bias"].astype(np.float64)
    in_scale = graph.tensors[layer.inputs[0]].scale
    out_scale = graph.tensors[layer.output].scale
    # A bias beyond this saturates the output whatever the weights add; a mask may be infinite.
    most_in, most_out = (graph.tensors[name].scale * 2.0 ** (graph.tensors[name].bits - 1)
                         for name in (layer.inputs[0], layer.output))
    reach = np.abs(weights).sum(axis=(1, 2, 3)) * most_in + 2 * most_out
    bias = np.clip(bias, -reach, reach)
    steps, least = network.weight_steps.get(layer.name), least_steps(bias, in_scale, out_scale)
    low = -127
    if steps is None:
        steps = weight_scales(weights, least, recipe)
    else:  # a file may state -128, and any step for a channel without weights
        steps, low = np.maximum(steps, least), -128
    quantized = np.clip(np.rint(weights / steps.reshape(-1, 1, 1, 1)), low, 127)
    multiplier, shift = _scaled_column(in_scale * steps / out_scale, recipe)
    return {
        "weights": quantized.astype(np.int8),
        "bias": np.rint(bias / (in_scale * steps)).astype(np.int32),
        "multiplier": multiplier,
        "shift": shift,
    }


def _signed_fixed_point(values: np.ndarray, ratio: float, offsets: np.ndarray) -> tuple[
    np.ndarray, np.ndarray, np.ndarray
]:
    """int16 multipliers, int32 offsets and shifts for y = (x * values + offsets) * ratio."""
    scaled = values.astype(np.float64) * ratio
    room = np.maximum(np.maximum(np.abs(scaled), np.abs(offsets) * 2.0**-14), 2.0**-16)
    shift = np.clip(14 - arithmetic.ceil_log2(room), 0, 30).astype(np.int32)
    return (np.rint(scaled * 2.0**shift).astype(np.int32),
            np.rint(offsets * 2.0**shift).astype(np.int32), shift)


def _affine(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    in_scale = graph.tensors[layer.inputs[0]].scale
    out_scale = graph.tensors[layer.output].scale
    scales = network.weights[f"{layer.name}.scale"].astype(np.float64)
    offsets = network.weights[f"{layer.name}.offset"].astype(np.float64) / out_scale
    # An offset beyond this saturates the output whatever is added; a mask may be infinite.
    most_in, most_out = (2.0 ** (graph.tensors[name].bits - 1)
                         for name in (layer.inputs[0], layer.output))
    reach = np.abs(scales) * (in_scale / out_scale) * most_in + 2 * most_out
    multiplier, offset, shift = _signed_fixed_point(
        scales, in_scale / out_scale, np.clip(offsets, -reach, reach))
    return {"multiplier": multiplier, "offset": offset, "shift": shift}


def _add(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    out_scale = graph.tensors[layer.output].scale
    ratios = np.array([graph.tensors[name].scale / out_scale for name in layer.inputs])
    digits = -arithmetic.floor_log2(ratios.min()) if recipe.power_of_two else (
        13 - arithmetic.floor_log2(ratios.max()))
    steps = _offset_steps(network, layer, out_scale)
    shift = int(np.clip(digits, 0, min(24, _most_digits(steps))))
    return {"multiplier": np.clip(np.rint(ratios * 2.0**shift), 0, 32767).astype(np.int32),
            "shift": np.array([shift], np.int32), **_offset(steps, shift)}


def _offset_steps(network: FloatNetwork, layer: Layer, out_scale: float) -> float | None:
    """What a layer adds because zero points are held, in output steps; None if it holds none."""
    if "offset" not in layer.constants:
        return None
    return float(network.weights[f"{layer.name}.offset"][0]) / out_scale


def _most_digits(steps: float | None) -> int:
    """The greatest shift with which an offset of so many output steps fits int32."""
    return arithmetic.MAX_SHIFT if steps is None else 30 - int(arithmetic.ceil_log2(
        max(1.0, abs(steps))))


def _offset(steps: float | None, shift: int) -> dict[str, np.ndarray]:
    return {} if steps is None else {"offset": np.array([np.rint(steps * 2.0**shift)], np.int32)}


def _scaled_with_offset(ratio: float, steps: float | None, recipe: Recipe) -> dict[
    str, np.ndarray
]:
    """Multiplier, shift and offset of one ratio of scales; a shift that is shorter for the offset
    leaves digits of the multiplier out that no result shows."""
    multiplier, shift = _scaled_column(np.array([ratio]), recipe)
    most = _most_digits(steps)
    if shift[0] > most:
        multiplier, shift = np.rint(multiplier * 2.0 ** (most - shift)).astype(np.int32), np.array(
            [most], np.int32)
    return {"multiplier": multiplier, "shift": shift, **_offset(steps, int(shift[0]))}


def _product(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    first, second = (graph.tensors[name].scale for name in layer.inputs)
    out_scale = graph.tensors[layer.output].scale
    found = _scaled_with_offset(
        first * second / out_scale, _offset_steps(network, layer, out_scale), recipe)
    if "zeros" in layer.constants:
        found["zeros"] = np.rint(network.weights[f"{layer.name}.zeros"] / np.array(
            [first, second])).astype(np.int32)
    return found


def _lookup(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    function = network.function(layer)
    into, out = (network.weights.get(f"{layer.name}.{role}") for role in (
        "in_factor", "out_factor"))
    in_scale, out_scale = graph.tensors[layer.inputs[0]].scale, graph.tensors[layer.output].scale
    wide = graph.tensors[layer.inputs[0]].bits == 16
    table = arithmetic.wide_table if wide else arithmetic.lookup_table
    if into is None or out is None:
        return {"table": table(function, in_scale, out_scale)}
    return {"table": np.stack([
        table(function, in_scale * float(first), out_scale * float(second))
        for first, second in zip(into, out, strict=True)])}


def _softmax(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    return {"table": arithmetic.exp_table(graph.tensors[layer.inputs[0]].scale)}


def _average_pool(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    if "multiplier" not in layer.constants:
        return {}
    area = layer.window.rows * layer.window.columns
    out_scale = graph.tensors[layer.output].scale
    return _scaled_with_offset(graph.tensors[layer.inputs[0]].scale / out_scale / area,
                               _offset_steps(network, layer, out_scale),
                               replace(recipe, power_of_two=False))


def _matmul(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    first, second = (graph.tensors[name].scale for name in layer.inputs)
    factor = float(network.weights.get(f"{layer.name}.factor", np.float32(1)))
    ratio = np.array([factor * first * second / graph.tensors[layer.output].scale])
    # A factor such as 1 / sqrt(32) is no power of two: this one scale always has a multiplier.
    form = replace(recipe, power_of_two=recipe.power_of_two and factor == 1.0)
    multiplier, shift = _scaled_column(ratio, form)
    return {"multiplier": multiplier, "shift": shift}


def _rescaled(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    """Requantize: input over output step. Sampler: velocity over latent step."""
    source = layer.inputs[1 if layer.operator is Operator.SAMPLER else 0]
    ratio = np.array([graph.tensors[source].scale / graph.tensors[layer.output].scale])
    multiplier, shift = _scaled_column(ratio, recipe)
    return {"multiplier": multiplier, "shift": shift}


def _group_norm(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    source, out_scale = graph.tensors[layer.inputs[0]], graph.tensors[layer.output].scale
    one = 1 << arithmetic.NORM_FRACTION_BITS
    count = source.elements // layer.window.groups
    epsilon = float(network.weights[f"{layer.name}.epsilon"][0]) / source.scale**2 * count**2
    found = {role: np.rint(network.weights[f"{layer.name}.{role}"] / out_scale * one)
             .astype(np.int32) for role in ("scale", "offset")}
    found["epsilon"] = np.array([round(epsilon)], np.int64)
    if len(layer.inputs) == 3:
        gain, moved = (graph.tensors[name].scale for name in layer.inputs[1:])
        found["film"] = np.rint([
            gain * (1 << arithmetic.FILM_FRACTION_BITS), moved / out_scale * one]).astype(np.int32)
    return found


CONSTANTS: Mapping[
    Operator, Callable[[FloatNetwork, Graph, Layer, Recipe], dict[str, np.ndarray]]
] = {
    Operator.CONVOLUTION: _convolution,
    Operator.AFFINE: _affine,
    Operator.ADD: _add,
    Operator.MULTIPLY: _product,
    Operator.LOOKUP: _lookup,
    Operator.SOFTMAX: _softmax,
    Operator.AVERAGE_POOL: _average_pool,
    Operator.MATMUL: _matmul,
    Operator.GROUP_NORM: _group_norm,
    Operator.REQUANTIZE: _rescaled,
    Operator.SAMPLER: _rescaled,
}

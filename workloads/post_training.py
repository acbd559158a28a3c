"""Turns a float network into an integer graph: calibrates scales, rounds weights, corrects bias.

It trains nothing and needs no torch. Everything is symmetric: weights by output channel,
activations by tensor, zero points are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import arithmetic
from .balance import balance
from .convolution import convolve
from .equalize import movable, rescale, root
from .float_network import FUNCTIONS, FloatNetwork, convolution_before_relu, execute_real
from .graph import Graph, Layer, Operator
from .reference import execute_layer
from .verify import keeps_scale, verify

Values = Mapping[str, np.ndarray]
#: Values kept of one tensor of one calibration input; the largest one is kept besides.
SAMPLES = 1 << 14
#: A bias must leave room in the int32 accumulator.
BIAS_LIMIT = 1 << 30


@dataclass(frozen=True)
class Recipe:
    """Choices of the quantizer.

    `power_of_two`: scales are powers of two (multiplier 1 and a shift); otherwise multiplier and
    shift. `search`: choose each scale for the least squared error, not for the greatest value.
    `balance`: how far channels of a tensor are brought to one range, 0 to 1; 0.75 lost least
    on the trained narrow decoder (0, 0.25, 0.5, 0.75 and 1 were tried).
    `correct_bias`: remove the mean error of each convolution channel on the calibration inputs.
    """

    power_of_two: bool = True
    search: bool = True
    balance: float = 0.75
    correct_bias: bool = True


@dataclass(frozen=True)
class Observed:
    """Samples of each tensor, the greatest magnitude of each of its channels, and the mean of
    each convolution channel before ReLU."""

    samples: Mapping[str, np.ndarray]
    greatest: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]


def quantize(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe | None = None
) -> Graph:
    """The integer graph of a network; `calibration` holds real inputs, at least one set."""
    if not calibration:
        raise ValueError("calibration is empty, must hold at least one set of inputs")
    recipe = recipe or Recipe()
    network, observed = _equalized(network, calibration, recipe)
    scales = choose_scales(network, observed.samples, recipe)
    tensors = {name: replace(spec, scale=scales[name])
               for name, spec in network.graph.tensors.items()}
    constants: dict[str, np.ndarray] = dict(network.graph.constants)
    graph = replace(network.graph, tensors=tensors, constants=constants)
    for layer in graph.layers:
        rule = _CONSTANTS.get(layer.operator)
        if rule is not None:
            for role, array in rule(network, graph, layer, recipe).items():
                constants[layer.constants[role]] = array
    if recipe.correct_bias:
        _correct_bias(graph, constants, calibration, observed.means)
    verify(graph)
    return graph


def quantized_inputs(graph: Graph, inputs: Values) -> dict[str, np.ndarray]:
    """Real inputs as integers: saturate(rint(value / scale))."""
    found = {}
    for name in graph.inputs:
        spec = graph.tensors[name]
        found[name] = arithmetic.saturate(np.rint(inputs[name] / spec.scale), spec.bits)
    return found


def observe(network: FloatNetwork, calibration: Sequence[Values]) -> Observed:
    """Run the float network on the calibration inputs."""
    random = np.random.default_rng(0)
    samples: dict[str, list[np.ndarray]] = {}
    greatest: dict[str, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}
    for inputs in calibration:
        values = execute_real(network, inputs)
        for name, value in values.items():
            flat = value.reshape(-1)
            peak = np.abs(value).max(axis=(1, 2))
            greatest[name] = np.maximum(greatest.get(name, 0.0), peak)
            kept = flat if flat.size <= SAMPLES else random.choice(flat, SAMPLES)
            samples.setdefault(name, []).extend((kept, flat[[np.argmax(np.abs(flat))]]))
        for layer in network.graph.layers:
            if layer.operator is Operator.CONVOLUTION:
                before = convolution_before_relu(
                    network, layer, [values[name] for name in layer.inputs])
                mean = before.mean(axis=(1, 2), dtype=np.float64) / len(calibration)
                means[layer.name] = means.get(layer.name, 0) + mean
    joined = {name: np.concatenate(parts) for name, parts in samples.items()}
    return Observed(joined, greatest, means)


def best_scale(
    samples: np.ndarray, recipe: Recipe,
    function: Callable[[np.ndarray], np.ndarray] | None = None,
) -> float:
    """The step of an int8 tensor that holds the samples best.

    With `recipe.search` the least mean squared error, measured behind `function` if given.
    """
    greatest = max(float(np.abs(samples).max()), 1e-9)
    top = np.log2(greatest / 127)
    if recipe.power_of_two:
        candidates = 2.0 ** (np.ceil(top) - np.arange(5 if recipe.search else 1))
    else:
        candidates = 2.0 ** (top - np.arange(0, 4, 0.125 if recipe.search else 4))
    judged = function or (lambda value: value)
    wanted = judged(samples)
    errors = [
        float(np.mean((judged(np.clip(np.rint(samples / step), -128, 127) * step) - wanted) ** 2))
        for step in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


def tied(graph: Graph, cut: frozenset[str] = frozenset()) -> dict[str, str]:
    """The group of each tensor: tensors of a group share a scale. A name of the group stands
    for it. Parts of concatenations named in `cut` are left out."""
    parent = {name: name for name in graph.tensors}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for layer in graph.layers:
        if keeps_scale(layer):
            inputs = layer.inputs if layer.operator is Operator.CONCAT else layer.inputs[:1]
            for name in inputs:
                if layer.operator is not Operator.CONCAT or name not in cut:
                    parent[find(name)] = find(layer.output)
    return {name: find(name) for name in graph.tensors}


def choose_scales(
    network: FloatNetwork, samples: Mapping[str, np.ndarray], recipe: Recipe,
    cut: frozenset[str] = frozenset(),
) -> dict[str, float]:
    """The scale of every tensor; those of wider integers stay as the graph says."""
    graph = network.graph
    groups = tied(graph, cut)
    judged = {layer.inputs[0]: FUNCTIONS[network.functions[layer.name]]
              for layer in graph.layers if layer.operator is Operator.LOOKUP}
    fixed = {groups[name]: scale for name, scale in network.fixed_scales.items()}
    chosen: dict[str, float] = {}
    for group in set(groups.values()):
        members = [name for name in graph.tensors if groups[name] == group]
        if graph.tensors[members[0]].bits != 8:
            chosen[group] = graph.tensors[members[0]].scale
        elif group in fixed:
            chosen[group] = fixed[group]
        else:
            function = judged.get(members[0]) if len(members) == 1 else None
            chosen[group] = best_scale(
                np.concatenate([samples[name] for name in members]), recipe, function)
    return {name: chosen[group] for name, group in groups.items()}


def _equalized(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe
) -> tuple[FloatNetwork, Observed]:
    """Even out channels, then bring the parts of concatenations to the scale they share."""
    graph = network.graph
    observed = observe(network, calibration)
    if recipe.balance and not network.weight_steps:
        network = balance(network, observed.greatest, recipe.balance)
        observed = observe(network, calibration)
    concats = [layer for layer in graph.layers if layer.operator is Operator.CONCAT]
    parts = frozenset(name for layer in concats for name in layer.inputs if movable(graph, name))
    if not parts or network.weight_steps:
        return network, observed
    alone = choose_scales(network, observed.samples, recipe, cut=parts)
    factors: dict[str, float] = {}
    for layer in concats:
        still = [name for name in layer.inputs if name not in parts]
        target = alone[still[0]] if still else alone[layer.inputs[0]]
        for name in layer.inputs:
            producer = root(graph, name)
            if name in parts and producer is not None and producer.name not in factors:
                factors[producer.name] = 2.0 ** round(float(np.log2(alone[name] / target)))
    network = rescale(network, factors)
    return network, observe(network, calibration)


def _scaled_column(ratios: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    pairs = [arithmetic.multiplier_and_shift(float(ratio), recipe.power_of_two)
             for ratio in ratios]
    return (np.array([pair[0] for pair in pairs], np.int32),
            np.array([pair[1] for pair in pairs], np.int32))


def _weight_scales(weights: np.ndarray, least: np.ndarray, recipe: Recipe) -> np.ndarray:
    """A step for each output channel, not below `least`."""
    flat = weights.reshape(len(weights), -1)
    greatest = np.maximum(np.abs(flat).max(axis=1), 1e-12)
    tops = greatest / 127
    if recipe.power_of_two:
        tops = 2.0 ** np.ceil(np.log2(tops))
    best, least_error = tops, np.full(len(flat), np.inf)
    shrink = (1.0, 0.5) if recipe.power_of_two else tuple(np.arange(1.0, 0.6, -0.04))
    for factor in shrink if recipe.search else (1.0,):
        step = (tops * factor)[:, None]
        error = ((np.clip(np.rint(flat / step), -127, 127) * step - flat) ** 2).sum(axis=1)
        best = np.where(error < least_error, tops * factor, best)
        least_error = np.minimum(error, least_error)
    if recipe.power_of_two:
        least = 2.0 ** np.ceil(np.log2(least))
    return np.maximum(best, least)


def _convolution(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    weights = network.weights[f"{layer.name}.weights"].astype(np.float64)
    bias = network.weights[f"{layer.name}.bias"].astype(np.float64)
    in_scale = graph.tensors[layer.inputs[0]].scale
    out_scale = graph.tensors[layer.output].scale
    # The bias must fit, and the shift must not pass its limit even for a dead channel.
    least = np.maximum(np.abs(bias) / (in_scale * BIAS_LIMIT), 2.0**-30 * out_scale / in_scale)
    steps = network.weight_steps.get(layer.name)
    if steps is None:
        steps = _weight_scales(weights, least, recipe)
    quantized = np.clip(np.rint(weights / steps.reshape(-1, 1, 1, 1)), -127, 127)
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
    shift = np.clip(14 - np.ceil(np.log2(room)), 0, 30).astype(np.int32)
    return (np.rint(scaled * 2.0**shift).astype(np.int32),
            np.rint(offsets * 2.0**shift).astype(np.int32), shift)


def _affine(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    in_scale = graph.tensors[layer.inputs[0]].scale
    out_scale = graph.tensors[layer.output].scale
    offsets = network.weights[f"{layer.name}.offset"].astype(np.float64) / out_scale
    multiplier, offset, shift = _signed_fixed_point(
        network.weights[f"{layer.name}.scale"], in_scale / out_scale, offsets)
    return {"multiplier": multiplier, "offset": offset, "shift": shift}


def _add(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    out_scale = graph.tensors[layer.output].scale
    ratios = np.array([graph.tensors[name].scale / out_scale for name in layer.inputs])
    digits = -np.floor(np.log2(ratios.min())) if recipe.power_of_two else (
        13 - np.floor(np.log2(ratios.max())))
    shift = int(np.clip(digits, 0, 24))
    return {"multiplier": np.clip(np.rint(ratios * 2.0**shift), 0, 32767).astype(np.int32),
            "shift": np.array([shift], np.int32)}


def _product(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    first, second = (graph.tensors[name].scale for name in layer.inputs)
    ratio = np.array([first * second / graph.tensors[layer.output].scale])
    multiplier, shift = _scaled_column(ratio, recipe)
    return {"multiplier": multiplier, "shift": shift}


def _lookup(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    function = FUNCTIONS[network.functions[layer.name]]
    return {"table": arithmetic.lookup_table(
        function, graph.tensors[layer.inputs[0]].scale, graph.tensors[layer.output].scale)}


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
    ratio = graph.tensors[layer.inputs[0]].scale / graph.tensors[layer.output].scale / area
    multiplier, shift = arithmetic.multiplier_and_shift(ratio, power_of_two=False)
    return {"multiplier": np.array([multiplier], np.int32), "shift": np.array([shift], np.int32)}


def _matmul(
    network: FloatNetwork, graph: Graph, layer: Layer, recipe: Recipe
) -> dict[str, np.ndarray]:
    first, second = (graph.tensors[name].scale for name in layer.inputs)
    factor = float(network.weights.get(f"{layer.name}.factor", np.float32(1)))
    ratio = np.array([factor * first * second / graph.tensors[layer.output].scale])
    # A factor such as 1 / sqrt(32) is no power of two: this one scale always has a multiplier.
    multiplier, shift = _scaled_column(ratio, replace(recipe, power_of_two=factor == 1.0))
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
        found["film"] = np.rint([gain * one, moved / out_scale * one]).astype(np.int32)
    return found


_CONSTANTS: Mapping[
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


def _correct_bias(
    graph: Graph, constants: dict[str, np.ndarray], calibration: Sequence[Values],
    means: Mapping[str, np.ndarray],
) -> None:
    """Move each bias by the channel's mean error, layer after layer, on quantized inputs.

    Nagel et al. 2019, section 4.2, with measured means.
    """
    runs = [quantized_inputs(graph, inputs) for inputs in calibration]
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            _correct_layer(graph, layer, constants, runs, means[layer.name])
        for run in runs:
            run[layer.output] = execute_layer(graph, layer, [run[name] for name in layer.inputs])


def _correct_layer(
    graph: Graph, layer: Layer, constants: dict[str, np.ndarray],
    runs: Sequence[Values], wanted: np.ndarray,
) -> None:
    window, out_scale = layer.window, graph.tensors[layer.output].scale
    weights, bias, multiplier, shift = (
        constants[layer.constants[role]] for role in ("weights", "bias", "multiplier", "shift"))
    found = np.zeros(len(bias))
    for run in runs:
        total = convolve(run[layer.inputs[0]], weights, window.stride, window.padding,
                         window.groups)
        found += total.mean(axis=(1, 2), dtype=np.float64) / len(runs)
    # One accumulator step in real units is the requantization ratio times the output's step.
    step = multiplier * 2.0 ** -shift.astype(np.float64) * out_scale
    corrected = np.rint(wanted / step - found)
    constants[layer.constants["bias"]] = np.clip(
        corrected, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)

"""Turns a float network into an integer graph: calibrates scales, rounds weights, corrects bias.

It trains nothing and needs no torch. Everything is symmetric: weights by output channel,
activations by tensor, zero points are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from workloads import arithmetic
from workloads.graph import Graph, Layer, Operator
from workloads.quantization.balance import balance
from workloads.quantization.equalize import factors_of, movable, rescale, root
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.layer_constants import BIAS_LIMIT, CONSTANTS, Recipe
from workloads.quantization.observe import Observed, Values, observe, tied
from workloads.quantization.reads import elements_read, mean_by_channel
from workloads.reference import execute_layer, products, scaled_products
from workloads.verify import verify


def quantize(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe | None = None,
    partial: Sequence[Values] = (),
) -> Graph:
    """The integer graph of a network; `calibration` holds real inputs, at least one set.

    `partial`: sets of some of the inputs; what follows from them widens the observed ranges.
    """
    return quantized(network, calibration, recipe, partial)[0]


def quantized(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe | None = None,
    partial: Sequence[Values] = (),
) -> tuple[Graph, FloatNetwork]:
    """The integer graph, and the float network with the channels that its integers stand for."""
    if not calibration:
        raise ValueError("calibration is empty, must hold at least one set of inputs")
    recipe = recipe or Recipe()
    network = _widened(network, recipe)
    network, observed = equalized(network, calibration, recipe, partial)
    scales = choose_scales(network, observed.samples, recipe)
    tensors = {name: replace(spec, scale=scales[name])
               for name, spec in network.graph.tensors.items()}
    constants: dict[str, np.ndarray] = dict(network.graph.constants)
    graph = replace(network.graph, tensors=tensors, constants=constants)
    for layer in graph.layers:
        rule = CONSTANTS.get(layer.operator)
        if rule is not None:
            for role, array in rule(network, graph, layer, recipe).items():
                constants[layer.constants[role]] = array
    if recipe.correct_bias:
        _correct_bias(graph, constants, calibration, observed.means)
    verify(graph)
    return graph, network


def _widened(network: FloatNetwork, recipe: Recipe) -> FloatNetwork:
    """The network with 16-bit activations, if the recipe asks for them."""
    if recipe.activation_bits == 8:
        return network
    graph = network.graph
    narrow = {layer.inputs[0] for layer in graph.layers if layer.operator is Operator.SOFTMAX}
    narrow.update(graph.inputs)
    stated = {name: spec.scale for name, spec in graph.tensors.items()
              if spec.bits != 8 and name not in network.wide}
    fixed = {**network.fixed_scales, **stated}
    groups = tied(graph)
    held = {groups[name] for name in (*fixed, *narrow)}
    tensors = {name: spec if groups[name] in held else replace(spec, bits=16)
               for name, spec in graph.tensors.items()}
    return replace(network, graph=replace(graph, tensors=tensors), fixed_scales=fixed)


def wide_scale(samples: np.ndarray, recipe: Recipe) -> float:
    """The step of an int16 tensor: twice the greatest value fits."""
    step = max(2 * float(np.abs(samples).max()), 1e-9) / 32767
    return float(2.0 ** arithmetic.ceil_log2(step)) if recipe.power_of_two else settled(step)


def settled(step: float) -> float:
    """A step to nine digits: what a processor's vector units change lies behind them."""
    return float(f"{step:.9g}")


def quantized_inputs(graph: Graph, inputs: Values) -> dict[str, np.ndarray]:
    """Real inputs as integers: saturate(rint(value / scale))."""
    found = {}
    for name in graph.inputs:
        spec = graph.tensors[name]
        found[name] = arithmetic.saturate(np.rint(inputs[name] / spec.scale), spec.bits)
    return found


def best_scale(
    samples: np.ndarray, recipe: Recipe,
    function: Callable[[np.ndarray], np.ndarray] | None = None,
) -> float:
    """The step of an int8 tensor that holds the samples best.

    With `recipe.search` the least mean squared error, measured behind `function` if given.
    """
    greatest = float(np.abs(samples).max())
    if greatest < 1e-9:  # nothing but zeros: any scale holds them, one that others have is safe
        greatest = 1.0
    if recipe.power_of_two:
        candidates = 2.0 ** (arithmetic.ceil_log2(greatest / 127)
                             - np.arange(5.0 if recipe.search else 1.0))
    else:
        shrink = 2.0 ** -np.arange(0, 4, 0.125 if recipe.search else 4)
        candidates = np.array([settled(greatest / 127 * factor) for factor in shrink.tolist()])
    judged = function or (lambda value: value)
    wanted = judged(samples)
    errors = [
        float(np.mean((judged(np.clip(np.rint(samples / step), -128, 127) * step) - wanted) ** 2))
        for step in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


def choose_scales(
    network: FloatNetwork, samples: Mapping[str, np.ndarray], recipe: Recipe,
    cut: frozenset[str] = frozenset(),
) -> dict[str, float]:
    """The scale of every tensor; those of wider integers stay as the graph says, unless they are
    to be calibrated."""
    graph = network.graph
    groups = tied(graph, cut)
    judged = {layer.inputs[0]: network.function(layer)
              for layer in graph.layers if layer.operator is Operator.LOOKUP
              and f"{layer.name}.in_factor" not in network.weights}
    fixed = {groups[name]: scale for name, scale in network.fixed_scales.items()}
    shares = {groups[layer.output] for layer in graph.layers
              if layer.operator is Operator.SOFTMAX}
    chosen: dict[str, float] = {}
    for group in set(groups.values()):
        members = [name for name in graph.tensors if groups[name] == group]
        if group in fixed:
            chosen[group] = fixed[group]
        elif graph.tensors[members[0]].bits != 8:
            free = recipe.activation_bits != 8 or not network.wide.isdisjoint(members)
            chosen[group] = wide_scale(np.concatenate(
                [samples[name] for name in members]), recipe) if free else (
                graph.tensors[members[0]].scale)
        else:
            function = judged.get(members[0]) if len(members) == 1 else None
            # A softmax counts in fraction bits, whatever the form of the other scales.
            form = replace(recipe, power_of_two=True) if group in shares else recipe
            chosen[group] = best_scale(
                np.concatenate([samples[name] for name in members]), form, function)
    return {name: chosen[group] for name, group in groups.items()}


def equalized(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe,
    partial: Sequence[Values] = (),
) -> tuple[FloatNetwork, Observed]:
    """Even out channels, then bring the parts of concatenations to the scale they share."""
    graph = network.graph
    observed = observe(network, calibration, partial)
    if recipe.balance and not network.weight_steps:
        network, shares = balance(network, observed, recipe.balance, recipe.channel_tables)
        observed = observed.divided(graph, shares)
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
    return rescale(network, factors), observed.divided(graph, factors_of(graph, factors))


def _correct_bias(
    graph: Graph, constants: dict[str, np.ndarray], calibration: Sequence[Values],
    means: Mapping[str, np.ndarray],
) -> None:
    """Move each bias by the channel's mean error, layer after layer, on quantized inputs.

    Nagel et al. 2019, section 4.2, with measured means.
    """
    runs, read = [quantized_inputs(graph, inputs) for inputs in calibration], elements_read(graph)
    for layer in graph.layers:
        if layer.operator is not Operator.CONVOLUTION:
            for run in runs:
                run[layer.output] = execute_layer(
                    graph, layer, [run[name] for name in layer.inputs])
            continue
        totals = [products(graph, layer, run[layer.inputs[0]]) for run in runs]
        found = sum((mean_by_channel(total, read.get(layer.output)) / len(runs)
                     for total in totals), np.zeros(1))
        constants[layer.constants["bias"]] = _corrected(
            graph, layer, means[layer.name], found)
        for run, total in zip(runs, totals, strict=True):
            run[layer.output] = scaled_products(graph, layer, total)


def _corrected(graph: Graph, layer: Layer, wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The bias that makes the means wanted of those found without any."""
    multiplier, shift = (graph.constant(layer, role) for role in ("multiplier", "shift"))
    # One accumulator step in real units is the requantization ratio times the output's step.
    step = multiplier * 2.0 ** -shift.astype(np.float64) * graph.tensors[layer.output].scale
    corrected = np.rint(wanted / step - found)
    return np.clip(corrected, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)

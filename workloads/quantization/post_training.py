"""Turns a float network into an integer graph: calibrates scales, rounds weights, corrects bias.

It trains nothing and needs no torch. Everything is symmetric: weights by output channel,
activations by tensor, zero points are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from workloads import arithmetic
from workloads.convolution import accumulate
from workloads.graph import Graph, Layer, Operator
from workloads.quantization.balance import balance
from workloads.quantization.equalize import movable, rescale, root
from workloads.quantization.float_network import (
    FloatNetwork,
    execute_reachable,
    execute_real,
)
from workloads.quantization.layer_constants import BIAS_LIMIT, CONSTANTS, Recipe
from workloads.quantization.reads import elements_read, mean_by_channel
from workloads.reference import execute_layer
from workloads.verify import keeps_scale, verify

Values = Mapping[str, np.ndarray]
#: Values kept of one tensor of one calibration input; the largest one is kept besides.
SAMPLES = 1 << 14
#: What lies so far below the greatest score has no share in a softmax: exp(-20) is 2e-9.
MASKED = 20.0


@dataclass(frozen=True)
class Observed:
    """Samples of each tensor, the greatest magnitude of each of its channels, and the mean of
    each convolution channel before ReLU."""

    samples: Mapping[str, np.ndarray]
    greatest: Mapping[str, np.ndarray]
    means: Mapping[str, np.ndarray]


def quantize(
    network: FloatNetwork, calibration: Sequence[Values], recipe: Recipe | None = None,
    partial: Sequence[Values] = (),
) -> Graph:
    """The integer graph of a network; `calibration` holds real inputs, at least one set.

    `partial`: sets of some of the inputs; what follows from them widens the observed ranges.
    """
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
    return graph


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


def observe(
    network: FloatNetwork, calibration: Sequence[Values], partial: Sequence[Values] = ()
) -> Observed:
    """Run the float network on the calibration inputs; what nobody reads does not count.

    What a softmax alone reads is counted from `MASKED` below the least of its greatest scores:
    a mask of -1e4 or less must not set the scale; int8 saturates it instead.
    """
    groups = tied(network.graph)
    random = np.random.default_rng(0)
    samples: dict[str, list[np.ndarray]] = {}
    greatest: dict[str, np.ndarray] = {}
    means: dict[str, np.ndarray] = {}

    scored, read = _scores(network.graph), elements_read(network.graph)

    def note(values: Values) -> None:
        floors = {group: float(np.min(values[name].max(axis=0))) - MASKED
                  for group, name in scored.items() if name in values}
        for name, whole in values.items():
            given = np.where(read[name], whole, 0) if name in read else whole
            floor = floors.get(groups[name], -np.inf)
            value = np.maximum(given, floor) if np.isfinite(floor) else given
            flat = value.reshape(-1)
            peak = np.abs(value).max(axis=(1, 2))
            greatest[name] = np.maximum(greatest.get(name, 0.0), peak)
            kept = flat if flat.size <= SAMPLES else random.choice(flat, SAMPLES)
            samples.setdefault(name, []).extend((kept, flat[[np.argmax(np.abs(flat))]]))

    def average(layer: Layer, before: np.ndarray) -> None:
        if layer.operator is Operator.CONVOLUTION:
            mean = mean_by_channel(before, read.get(layer.output)) / len(calibration)
            means[layer.name] = means.get(layer.name, 0) + mean

    for inputs in partial:
        note(execute_reachable(network, inputs))
    for inputs in calibration:
        note(execute_real(network, inputs, average))
    joined = {name: np.concatenate(parts) for name, parts in samples.items()}
    return Observed(joined, greatest, means)


def _scores(graph: Graph) -> dict[str, str]:
    """The input of a softmax by its group of tensors, where nothing else reads the group."""
    groups, found, elsewhere = tied(graph), {}, set(graph.outputs)
    for layer in graph.layers:
        if layer.operator is Operator.SOFTMAX:
            found[groups[layer.inputs[0]]] = layer.inputs[0]
        else:
            elsewhere.update(name for name in layer.inputs
                             if groups[name] != groups[layer.output])
    kept = {groups[name] for name in elsewhere}
    return {group: name for group, name in found.items() if group not in kept}


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
        network = balance(
            network, observed.greatest, recipe.balance, recipe.channel_tables)
        observed = observe(network, calibration, partial)
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
    return network, observe(network, calibration, partial)


def _correct_bias(
    graph: Graph, constants: dict[str, np.ndarray], calibration: Sequence[Values],
    means: Mapping[str, np.ndarray],
) -> None:
    """Move each bias by the channel's mean error, layer after layer, on quantized inputs.

    Nagel et al. 2019, section 4.2, with measured means.
    """
    runs, read = [quantized_inputs(graph, inputs) for inputs in calibration], elements_read(graph)
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            _correct_layer(graph, layer, constants, runs, means[layer.name],
                           read.get(layer.output))
        for run in runs:
            run[layer.output] = execute_layer(graph, layer, [run[name] for name in layer.inputs])


def _correct_layer(
    graph: Graph, layer: Layer, constants: dict[str, np.ndarray],
    runs: Sequence[Values], wanted: np.ndarray, read: np.ndarray | None,
) -> None:
    window, out_scale = layer.window, graph.tensors[layer.output].scale
    weights, bias, multiplier, shift = (
        constants[layer.constants[role]] for role in ("weights", "bias", "multiplier", "shift"))
    found = np.zeros(len(bias))
    for run in runs:
        total = accumulate(run[layer.inputs[0]], weights, window.stride, window.padding,
                           window.groups)
        found += mean_by_channel(total, read) / len(runs)
    # One accumulator step in real units is the requantization ratio times the output's step.
    step = multiplier * 2.0 ** -shift.astype(np.float64) * out_scale
    corrected = np.rint(wanted / step - found)
    constants[layer.constants["bias"]] = np.clip(
        corrected, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)

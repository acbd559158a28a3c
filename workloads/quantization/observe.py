"""What calibration inputs show of a float network's tensors: samples, greatest values, means.

It chooses no scale. Channels that are divided by powers of two (`balance`, `equalize`) are not
computed anew: what was observed is divided too, which is exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork, execute_reachable, execute_real
from workloads.quantization.reads import elements_read, mean_by_channel
from workloads.verify import keeps_scale

Values = Mapping[str, np.ndarray]
#: Values kept of one tensor of one calibration input; the largest one is kept besides.
SAMPLES = 1 << 14
#: What lies so far below the greatest score has no share in a softmax: exp(-20) is 2e-9.
MASKED = 20.0


@dataclass(frozen=True)
class Seen:
    """One tensor under one input: values drawn from it, the channel of each, the value of the
    greatest magnitude of each channel, and how many a channel had."""

    drawn: np.ndarray
    channels: np.ndarray
    peaks: np.ndarray
    values: int

    def divided(self, factors: np.ndarray) -> Seen:
        """The same with each channel divided."""
        return replace(
            self, drawn=self.drawn / factors[self.channels], peaks=self.peaks / factors)


@dataclass(frozen=True)
class Observed:
    """`seen`: each tensor under each input. `means`: of each channel of a convolution before ReLU,
    by layer."""

    seen: Mapping[str, Sequence[Seen]]
    means: Mapping[str, np.ndarray]

    @cached_property
    def samples(self) -> dict[str, np.ndarray]:
        """Samples of each tensor, the greatest value of each input among them."""
        return {name: np.concatenate([
            part for item in seen
            for part in (item.drawn, item.peaks[[np.argmax(np.abs(item.peaks))]])])
            for name, seen in self.seen.items()}

    @cached_property
    def greatest(self) -> dict[str, np.ndarray]:
        """The greatest magnitude of each channel of each tensor."""
        return {name: np.max([np.abs(item.peaks) for item in seen], axis=0)
                for name, seen in self.seen.items()}

    def values(self, name: str) -> int:
        """How many values of each channel of a tensor were seen."""
        return sum(item.values for item in self.seen[name])

    def divided(self, graph: Graph, factors: Mapping[str, np.ndarray]) -> Observed:
        """What the network shows whose tensors' channels are divided by powers of two."""
        changed = {name for name, item in factors.items() if (item != 1).any()}
        seen = {name: [item.divided(factors[name]) for item in parts] if name in changed else parts
                for name, parts in self.seen.items()}
        outputs = {layer.name: layer.output for layer in graph.layers}
        means = {name: mean / factors[outputs[name]] if outputs[name] in changed else mean
                 for name, mean in self.means.items()}
        return Observed(seen, means)


def observe(
    network: FloatNetwork, calibration: Sequence[Values], partial: Sequence[Values] = ()
) -> Observed:
    """Run the float network on the calibration inputs; what nobody reads does not count.

    What a softmax alone reads is counted from `MASKED` below the least of its greatest scores:
    a mask of -1e4 or less must not set the scale; int8 saturates it instead.
    """
    groups = tied(network.graph)
    random = np.random.default_rng(0)
    seen: dict[str, list[Seen]] = {}
    means: dict[str, np.ndarray] = {}

    scored, read = _scores(network.graph), elements_read(network.graph)

    def note(values: Values) -> None:
        floors = {group: float(np.min(values[name].max(axis=0))) - MASKED
                  for group, name in scored.items() if name in values}
        for name, whole in values.items():
            given = np.where(read[name], whole, 0) if name in read else whole
            floor = floors.get(groups[name], -np.inf)
            value = np.maximum(given, floor) if np.isfinite(floor) else given
            seen.setdefault(name, []).append(_seen(value, random))

    def average(layer: Layer, before: np.ndarray) -> None:
        if layer.operator is Operator.CONVOLUTION:
            mean = mean_by_channel(before, read.get(layer.output)) / len(calibration)
            means[layer.name] = means.get(layer.name, 0) + mean

    for inputs in partial:
        note(execute_reachable(network, inputs))
    for inputs in calibration:
        note(execute_real(network, inputs, average))
    return Observed(seen, means)


def _seen(value: np.ndarray, random: np.random.Generator) -> Seen:
    flat = value.reshape(len(value), -1)
    places = np.arange(flat.size) if flat.size <= SAMPLES else random.integers(
        0, flat.size, SAMPLES)
    peaks = np.abs(flat).argmax(axis=1)
    return Seen(flat.reshape(-1)[places], (places // flat.shape[1]).astype(np.int32),
                flat[np.arange(len(flat)), peaks], flat.shape[1])


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

"""Rescales channels of a float network so that tensors which share a scale have like ranges.

It changes no output: what a convolution divides, its readers multiply back into their weights.

Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721) by powers of two, so it is exact in
float32. It rests on ReLU, average pool, nearest upsample and concatenation commuting with a
positive factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork

_PASSES = (Operator.UPSAMPLE, Operator.AVERAGE_POOL, Operator.MAX_POOL)


@dataclass(frozen=True, slots=True)
class Reader:
    """A convolution that reads a producer's channels from `first_channel` of its input on."""

    layer: Layer
    first_channel: int


def root(graph: Graph, tensor: str) -> Layer | None:
    """The convolution behind a tensor, through pools and upsamples only; None if other."""
    for layer in graph.layers:
        if layer.output == tensor:
            if layer.operator is Operator.CONVOLUTION:
                return layer
            return root(graph, layer.inputs[0]) if layer.operator in _PASSES else None
    return None


def readers(graph: Graph, tensor: str, first_channel: int = 0) -> list[Reader] | None:
    """The convolutions that read a tensor through positive operators; None if others do."""
    found: list[Reader] = []
    if tensor in graph.outputs:
        return None
    for layer in graph.layers:
        if tensor not in layer.inputs:
            continue
        if layer.operator is Operator.CONVOLUTION and layer.window.groups == 1:
            found.append(Reader(layer, first_channel))
            continue
        offset = first_channel
        if layer.operator is Operator.CONCAT:
            before = layer.inputs[: layer.inputs.index(tensor)]
            offset += sum(graph.tensors[name].channels for name in before)
        elif layer.operator not in _PASSES:
            return None
        further = readers(graph, layer.output, offset)
        if further is None:
            return None
        found += further
    return found


def movable(graph: Graph, tensor: str) -> bool:
    """Whether a concatenation's part can be rescaled."""
    layer = root(graph, tensor)
    return layer is not None and layer.relu and readers(graph, layer.output) is not None


def rescale(network: FloatNetwork, factors: Mapping[str, float]) -> FloatNetwork:
    """Divide the outputs of the named convolutions by a factor; their readers multiply it."""
    weights = dict(network.weights)
    for name, factor in factors.items():
        if factor == 1.0:
            continue
        layer = network.graph.layer(name)
        for role in ("weights", "bias"):
            weights[f"{name}.{role}"] = weights[f"{name}.{role}"] / np.float32(factor)
        channels = network.graph.tensors[layer.output].channels
        for reader in readers(network.graph, layer.output) or ():
            key = f"{reader.layer.name}.weights"
            changed = weights[key].copy()
            first = reader.first_channel
            changed[:, first : first + channels] *= np.float32(factor)
            weights[key] = changed
    return replace(network, weights=weights)


def factors_of(graph: Graph, factors: Mapping[str, float]) -> dict[str, np.ndarray]:
    """What `rescale` divides the channels of each tensor by, where it is not 1 throughout."""
    found: dict[str, np.ndarray] = {}
    for layer in graph.layers:
        if layer.name in factors:
            channels = graph.tensors[layer.output].channels
            found[layer.output] = np.full(channels, factors[layer.name], np.float32)
        elif layer.operator in (*_PASSES, Operator.CONCAT) and found.keys() & set(layer.inputs):
            found[layer.output] = np.concatenate([
                found.get(name, np.ones(graph.tensors[name].channels, np.float32))
                for name in layer.inputs])
    return found

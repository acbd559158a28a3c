"""Evens out channel ranges of a float network, so that one step fits all channels of a tensor.

It changes no output and looks at no integers; `equalize` aligns whole tensors of concatenations.

Cross-layer equalization (Nagel et al. 2019, arXiv 1906.04721) by powers of two over whole streams:
a channel that passes adds, pools, samplings and concatenations keeps one factor from the layers
that make it to the layers that read it. Exact in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from workloads import arithmetic
from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork
from workloads.quantization.observe import Observed

#: A channel is enlarged by at most 2 ** LIMIT.
LIMIT = 5
_SAME = (Operator.UPSAMPLE, Operator.AVERAGE_POOL, Operator.MAX_POOL)


@dataclass(frozen=True)
class ChannelGroups:
    """`ids`: for each tensor the group of each channel. `free`: may the group be rescaled.
    `families`: tensors that share channels have the same number."""

    ids: Mapping[str, np.ndarray]
    free: np.ndarray
    families: Mapping[str, int]


def channel_groups(graph: Graph, channel_tables: bool = False) -> ChannelGroups:
    """Which channels of which tensors must keep the same factor.

    With `channel_tables` a lookup may have a table for each channel, so its input and its output
    are rescaled independently.
    """
    first, count = {}, 0
    for name, spec in graph.tensors.items():
        first[name] = count
        count += spec.channels
    links = _Links(count)
    families = _Links(len(graph.tensors))
    index = {name: number for number, name in enumerate(graph.tensors)}
    bound = np.zeros(count, bool)

    def bind(name: str) -> None:
        bound[first[name] : first[name] + graph.tensors[name].channels] = True

    for name in (*graph.inputs, *graph.outputs):
        bind(name)
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            if layer.window.groups > 1:
                bind(layer.inputs[0])
        elif layer.operator is Operator.GROUP_NORM:
            # Its sums mix the channels of the input; its output steps are free by channel.
            for name in layer.inputs[:2]:
                bind(name)
            for name in layer.inputs[2:]:
                for channel in range(graph.tensors[name].channels):
                    links.join(first[name] + channel, first[layer.output] + channel)
                families.join(index[name], index[layer.output])
        elif layer.operator is not Operator.AFFINE and not (
                channel_tables and layer.operator is Operator.LOOKUP):
            offset = first[layer.output]
            for name in _followed(graph, layer):
                for channel in range(graph.tensors[name].channels):
                    links.join(first[name] + channel, offset + channel)
                families.join(index[name], index[layer.output])
                if layer.operator is Operator.CONCAT:
                    offset += graph.tensors[name].channels
            for name in (*layer.inputs, layer.output):
                if not _followed(graph, layer) or name not in (
                        *_followed(graph, layer), layer.output):
                    bind(name)
    roots = np.array([links.find(node) for node in range(count)])
    free = np.ones(count, bool)
    free[roots[bound]] = False
    ids = {name: roots[first[name] : first[name] + spec.channels]
           for name, spec in graph.tensors.items()}
    return ChannelGroups(ids, free, {name: families.find(index[name]) for name in graph.tensors})


def _followed(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """The inputs whose channels go through a layer one to one."""
    if layer.operator in _SAME or layer.operator in (Operator.ADD, Operator.CONCAT):
        return layer.inputs
    single = (layer.operator is Operator.GRID_SAMPLE
              and graph.tensors[layer.inputs[1]].channels == 2)
    if single or layer.operator is Operator.MULTIPLY:
        return layer.inputs[:1]
    return ()


class _Links:
    """Union-find."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, node: int) -> int:
        while self.parent[node] != node:
            self.parent[node] = self.parent[self.parent[node]]
            node = self.parent[node]
        return node

    def join(self, first: int, second: int) -> None:
        self.parent[self.find(first)] = self.find(second)


def balance(
    network: FloatNetwork, observed: Observed, strength: float, channel_tables: bool = False,
) -> tuple[FloatNetwork, dict[str, np.ndarray]]:
    """Divide each free channel by 2 ** round(strength * log2(its range / its family's range)).

    `strength` 0 changes nothing; at 1 all channels have the same range. A channel of which n values
    were seen is enlarged by at most sqrt(n): the greatest of few says little of those to come.
    Returns what divides the channels of each tensor, too.
    """
    graph, greatest = network.graph, observed.greatest
    groups = channel_groups(graph, channel_tables)
    family_range: dict[int, float] = {}
    group_range, group_values = np.zeros(len(groups.free)), np.ones(len(groups.free))
    for name, ids in groups.ids.items():
        family = groups.families[name]
        family_range[family] = max(family_range.get(family, 0.0), float(greatest[name].max()))
        np.maximum.at(group_range, ids, greatest[name])
        np.maximum.at(group_values, ids, observed.values(name))
    limits = np.minimum(arithmetic.floor_log2(group_values) // 2, LIMIT)
    factors = {}
    for name, ids in groups.ids.items():
        whole = max(family_range[groups.families[name]], 1e-9)
        share = np.maximum(group_range[ids] / whole, 2.0**-20)
        exponent = np.clip(np.rint(strength * np.log2(share)), -limits[ids], 0)
        factors[name] = np.where(groups.free[ids], 2.0**exponent, 1.0).astype(np.float32)
    return replace(network, weights=_rescaled(network, factors)), factors


def _rescaled(
    network: FloatNetwork, factors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    weights = dict(network.weights)
    for layer in network.graph.layers:
        into, out = factors[layer.inputs[0]], factors[layer.output]
        if layer.operator is Operator.CONVOLUTION:
            own = f"{layer.name}.weights"
            weights[own] = weights[own] / out.reshape(-1, 1, 1, 1)
            if layer.window.groups == 1:
                weights[own] = weights[own] * into.reshape(1, -1, 1, 1)
            weights[f"{layer.name}.bias"] = weights[f"{layer.name}.bias"] / out
        elif layer.operator is Operator.GROUP_NORM:
            for role in ("scale", "offset"):
                key = f"{layer.name}.{role}"
                weights[key] = weights[key] / out
        elif layer.operator is Operator.LOOKUP and ((into != 1).any() or (out != 1).any()):
            for role, factor in (("in_factor", into), ("out_factor", out)):
                key = f"{layer.name}.{role}"
                weights[key] = weights.get(key, np.float32(1)) * factor
        elif layer.operator is Operator.AFFINE:
            weights[f"{layer.name}.scale"] = weights[f"{layer.name}.scale"] * into / out
            weights[f"{layer.name}.offset"] = weights[f"{layer.name}.offset"] / out
    return weights

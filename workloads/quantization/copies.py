"""Gives every part of a concatenation a tensor of its own, and leaves out what nobody reads.

It changes no output. A concatenation is an address, so a tensor can be a part of one alone; where a
network puts it into several (dense blocks do), each further one gets a copy.
"""

from __future__ import annotations

from dataclasses import replace

from workloads.graph import Layer, Operator
from workloads.quantization.float_network import FloatNetwork


def with_copies(network: FloatNetwork) -> FloatNetwork:
    """The network with a copy for each further place of a tensor in concatenations."""
    graph = network.graph
    tensors, fixed, least = dict(graph.tensors), dict(network.fixed_scales), dict(network.least)
    layers: list[Layer] = []
    placed: set[str] = set()
    for layer in graph.layers:
        inputs = []
        for name in layer.inputs:
            if layer.operator is Operator.CONCAT and name in placed:
                copy = f"{name}.copy{len(tensors)}"
                tensors[copy] = replace(graph.tensors[name], name=copy)
                if layer.output in fixed:
                    fixed[copy] = fixed[layer.output]
                if name in least:
                    least[copy] = least[name]
                layers.append(Layer(copy, Operator.REQUANTIZE, (name,), copy, constants={
                    role: f"{copy}.{role}" for role in ("multiplier", "shift")}))
                name = copy
            if layer.operator is Operator.CONCAT:
                placed.add(name)
            inputs.append(name)
        layers.append(replace(layer, inputs=tuple(inputs)))
    return replace(network, fixed_scales=fixed, least=least,
                   graph=replace(graph, tensors=tensors, layers=tuple(layers)))


def without_unread(network: FloatNetwork) -> FloatNetwork:
    """The network without layers from which no output follows."""
    graph = network.graph
    read, kept = set(graph.outputs), list[Layer]()
    for layer in reversed(graph.layers):
        if layer.output in read:
            read.update(layer.inputs)
            kept.append(layer)
    made = {*graph.inputs, *(layer.output for layer in kept)}
    fixed, least = ({name: value for name, value in item.items() if name in made}
                    for item in (network.fixed_scales, network.least))
    return replace(network, fixed_scales=fixed, least=least, graph=replace(
        graph, layers=tuple(kept[::-1]), tensors={
            name: spec for name, spec in graph.tensors.items() if name in made}))

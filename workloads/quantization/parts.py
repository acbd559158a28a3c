"""Splits convolutions of very many output channels, so that any design's parameters hold a part.

It changes no value: each part makes some of the channels, and a concatenation of channels is an
address. A convolution in groups stays whole, since its parts would read parts of the input.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from workloads.graph import Layer, Operator
from workloads.quantization.float_network import FloatNetwork

#: Output channels of a part: half the parameter entries that designs ship with.
MOST_CHANNELS = 1024
#: Parts begin at multiples of this, whole words of any array.
_ALIGNED = 64


def in_parts(network: FloatNetwork) -> FloatNetwork:
    """The network with wide convolutions split by output channel, each part as wide as the
    others but the last."""
    graph = network.graph
    wide = [layer for layer in graph.layers if layer.operator is Operator.CONVOLUTION
            and layer.window.groups == 1
            and graph.tensors[layer.output].channels > MOST_CHANNELS]
    if not wide:
        return network
    tensors, weights = dict(graph.tensors), dict(network.weights)
    steps, fixed = dict(network.weight_steps), dict(network.fixed_scales)
    layers: list[Layer] = []
    for layer in graph.layers:
        if layer not in wide:
            layers.append(layer)
            continue
        spec = tensors[layer.output]
        count = -(-spec.channels // MOST_CHANNELS)
        width = -(-spec.channels // (count * _ALIGNED)) * _ALIGNED
        own = {role: weights.pop(f"{layer.name}.{role}") for role in ("weights", "bias")}
        stated, parts = steps.pop(layer.name, None), list[str]()
        for start in range(0, spec.channels, width):
            name = f"{layer.name}.part{len(parts)}"
            part = slice(start, min(start + width, spec.channels))
            tensors[name] = replace(spec, name=name, channels=part.stop - part.start)
            for role, array in own.items():
                weights[f"{name}.{role}"] = np.ascontiguousarray(array[part])
            if stated is not None:
                steps[name] = stated[part]
            if layer.output in fixed:
                fixed[name] = fixed[layer.output]
            parts.append(name)
            layers.append(replace(layer, name=name, output=name, constants={
                role: f"{name}.{role}" for role in layer.constants}))
        layers.append(Layer(layer.name, Operator.CONCAT, tuple(parts), layer.output))
    return replace(network, graph=replace(graph, tensors=tensors, layers=tuple(layers)),
                   weights=weights, weight_steps=steps, fixed_scales=fixed)

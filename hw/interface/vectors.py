"""Test vectors of a lowered graph: what goes in from outside, and what the reference says.

It runs no hardware and fills no memory (`cosim.analysis.image` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cosim.lowering.lower import START, Lowered
from cosim.lowering.placement import TensorPlace
from hw.interface.host_table import host_table
from workloads.arithmetic import integer_type
from workloads.graph import Graph, Layer
from workloads.reference import execute


@dataclass(frozen=True)
class Vectors:
    """`inputs`: tensors that come from outside the mapped phases. `expected`: every tensor."""

    inputs: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]


def outside_inputs(graph: Graph, lowered: Lowered) -> tuple[str, ...]:
    """Tensors that the mapped phases read and no layer of theirs makes, in the graph's order."""
    layers = graph.phase(*lowered.mapping.phases)
    made = {layer.output for layer in layers}
    read = {name for layer in layers for name in layer.inputs} - made
    return tuple(name for name in graph.tensors if name in read)


def outputs(graph: Graph, lowered: Lowered) -> tuple[str, ...]:
    """The graph's outputs that the mapped phases make; the last layer's output if none is."""
    layers = graph.phase(*lowered.mapping.phases)
    made = [layer.output for layer in layers]
    return tuple(name for name in graph.outputs if name in made) or (made[-1],)


def make_vectors(graph: Graph, lowered: Lowered, seed: int = 0,
                 inputs: Mapping[str, np.ndarray] | None = None) -> Vectors:
    """Vectors from given inputs, or from random ones: 8 bits over the whole range, 16 bits
    within a quarter of it (keypoints that stay near the picture). The seed repeats them."""
    phases = lowered.mapping.phases
    given = {}
    for index, name in enumerate(outside_inputs(graph, lowered)):
        spec = graph.tensors[name]
        if inputs is not None and name in inputs:
            given[name] = inputs[name]
            continue
        reach = 1 << (spec.bits - 1 if spec.bits == 8 else spec.bits - 3)
        random = np.random.default_rng([seed, index])
        given[name] = random.integers(-reach, reach, spec.shape, integer_type(spec.bits))
    return Vectors(given, execute(graph, given, phases))


def host_layers(graph: Graph, lowered: Lowered) -> bytes:
    """The table of the layers that this lowering leaves on the host."""
    layers: dict[int, Layer | None] = {}
    places: dict[str, TensorPlace] = {}
    for index, name in enumerate(lowered.program.layers):
        if name == START:
            layers[index] = None
            continue
        item = lowered.mapping.layer(name)
        if item is None or item.engine is not None:
            continue
        layer = graph.layer(name)
        layers[index] = layer
        for tensor in (*layer.inputs, layer.output):
            places[tensor] = lowered.placement.place(tensor)
    return host_table(graph, layers, places)

"""Gives some convolutions of an integer graph 4-bit weights, without training.

It packs no bits and chooses no activation scale: a weight stays an int8 that has one of 15 values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from workloads.graph import Graph, Operator
from workloads.reference import execute_layer

#: Greatest 4-bit weight, and greatest step at which it still is an int8.
LIMIT, STEPS = 7, 18


def four_bits(weights: np.ndarray) -> np.ndarray:
    """int8 weights [out, in, rows, columns] as -7 .. 7 times a whole step of each output channel.

    The step is the one of least squared error. Hardware would fold it into the multiplier, so
    bias and scales stay as they are.
    """
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    best, least = np.zeros_like(flat), np.full(len(flat), np.inf)
    for step in range(1, STEPS + 1):
        tried = np.clip(np.rint(flat / step), -LIMIT, LIMIT) * step
        error = ((tried - flat) ** 2).sum(axis=1)
        best = np.where((error < least)[:, None], tried, best)
        least = np.minimum(error, least)
    return best.astype(np.int8).reshape(weights.shape)


def narrowed(graph: Graph, layers: Iterable[str]) -> Graph:
    """The graph with 4-bit weights in the named convolutions."""
    chosen = set(layers)
    constants = dict(graph.constants)
    for layer in graph.layers:
        if layer.name in chosen:
            constants[layer.constants["weights"]] = four_bits(graph.constant(layer, "weights"))
    return replace(graph, constants=constants)


def least_sensitive(
    graph: Graph, values: Mapping[str, np.ndarray], share: float
) -> tuple[str, ...]:
    """Convolutions that lose least by 4 bits, until they hold that share of all weights.

    `values`: every tensor of one run. The loss of a layer is the squared error of its own output
    over the output's square, for each weight: errors are not followed through the network.
    """
    sizes, losses = {}, {}
    for layer in graph.layers:
        if layer.operator is Operator.CONVOLUTION:
            exact = values[layer.output].astype(np.float64)
            found = execute_layer(narrowed(graph, [layer.name]), layer,
                                  [values[name] for name in layer.inputs])
            sizes[layer.name] = graph.constant(layer, "weights").size
            lost = ((found - exact) ** 2).sum() / max((exact**2).sum(), 1.0)
            losses[layer.name] = lost / sizes[layer.name]
    chosen: list[str] = []
    held = 0
    for name in sorted(losses, key=losses.__getitem__):
        if held >= share * sum(sizes.values()):
            break
        chosen.append(name)
        held += sizes[name]
    return tuple(chosen)

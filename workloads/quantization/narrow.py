"""Gives some convolutions of an integer graph 4-bit weights, without training.

It chooses no activation scale: what a step of the weights is worth goes into bias and multiplier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from workloads.graph import Graph, Layer, Operator
from workloads.reference import execute_layer

#: Greatest 4-bit weight, and greatest step of which it still is an int8.
LIMIT, STEPS = 7, 18
#: Greatest multiplier that hardware takes (docs/design.md, CONVOLUTION_PARAMETERS).
MOST_MULTIPLIER = (1 << 15) - 1


def four_bits(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights [out, in, rows, columns] as (int8 from -7 to 7, int32 step of each output
    channel); their product is nearest to the weights by least squares."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    codes, steps = np.zeros_like(flat), np.ones(len(flat), np.int32)
    least = np.full(len(flat), np.inf)
    for step in range(1, STEPS + 1):
        tried = np.clip(np.rint(flat / step), -LIMIT, LIMIT)
        error = ((tried * step - flat) ** 2).sum(axis=1)
        better = error < least
        codes, steps = np.where(better[:, None], tried, codes), np.where(better, step, steps)
        least = np.minimum(error, least)
    return codes.astype(np.int8).reshape(weights.shape), steps.astype(np.int32)


def narrowed(graph: Graph, layers: Iterable[str]) -> Graph:
    """The graph with 4-bit weights in the named convolutions.

    Their sums count in steps: the bias is divided by the step and rounded, the multiplier times the
    step, with a smaller shift where it would not fit hardware.
    """
    chosen = set(layers)
    constants = dict(graph.constants)
    for layer in graph.layers:
        if layer.name in chosen:
            for role, array in _counted_in_steps(graph, layer).items():
                constants[layer.constants[role]] = array
    return replace(graph, constants=constants)


def _counted_in_steps(graph: Graph, layer: Layer) -> dict[str, np.ndarray]:
    codes, steps = four_bits(graph.constant(layer, "weights"))
    bias, multiplier, shift = (graph.constant(layer, role).astype(np.int64)
                               for role in ("bias", "multiplier", "shift"))
    factor, drop = multiplier * steps, np.zeros_like(shift)
    while (over := np.rint(factor / (1 << drop)) > np.maximum(MOST_MULTIPLIER, multiplier)).any():
        drop += over
    return {"weights": codes, "bias": np.rint(bias / steps).astype(np.int32),
            "multiplier": np.rint(factor / (1 << drop)).astype(np.int32),
            "shift": (shift - drop).astype(np.int32)}


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

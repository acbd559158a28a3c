"""Holds a rounded network in torch against the integers, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch

from workloads import arithmetic
from workloads.graph import Graph, Layer, Operator
from workloads.reference import execute_layer


def assert_rounds_as_integers(
    graph: Graph, layers: Iterable[Layer], values: Mapping[str, torch.Tensor]
) -> None:
    """Each layer alone, on the same inputs: equal but for ties and the 15 bits of a multiplier.

    Whole pictures drift apart, since one tie moves what follows by a step.
    """
    for layer in layers:
        whole = {name: np.rint(values[name][0].numpy() / graph.tensors[name].scale).astype(
            arithmetic.integer_type(graph.tensors[name].bits))
            for name in (*layer.inputs, layer.output)}
        found = execute_layer(graph, layer, [whole[name] for name in layer.inputs])
        off = np.abs(found.astype(int) - whole[layer.output])
        # A quarter of what 2 x 2 pools add up are ties.
        most = 0.125 if layer.operator is Operator.AVERAGE_POOL else 0.02
        assert off.max() <= 1 and (off > 0).mean() < most, (layer.name, off.max(), off.mean())

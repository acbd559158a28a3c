"""Which elements of a tensor anybody reads: ranges and means are taken over those alone.

It moves nothing. Several pictures of a batch lie in one tall picture, and what a window makes
across two of them is left out by the gather behind it; such values must set no scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workloads.graph import Graph, Operator

#: Layers whose output element depends on the input elements of the same place alone.
_BY_ELEMENT = frozenset({Operator.LOOKUP, Operator.AFFINE, Operator.REQUANTIZE, Operator.ADD})


def elements_read(graph: Graph) -> Mapping[str, np.ndarray]:
    """Bool arrays of the tensors' shapes, for those of which something is never read."""
    found: dict[str, np.ndarray] = {}
    whole = set(graph.outputs)
    for layer in reversed(graph.layers):
        for name in layer.inputs:
            spec = graph.tensors[name]
            if layer.operator is Operator.GATHER:
                read = np.zeros(spec.elements, bool)
                places = graph.constant(layer, "places").reshape(-1)
                read[places[places >= 0]] = True
            elif (layer.operator in _BY_ELEMENT and layer.output in found.keys() - whole
                  and graph.tensors[layer.output].shape == spec.shape):
                read = found[layer.output].reshape(-1)
            else:
                whole.add(name)
                continue
            known = found.get(name, np.zeros(spec.shape, bool))
            found[name] = known | read.reshape(spec.shape)
    return {name: read for name, read in found.items()
            if name not in whole and read.any() and not read.all()}


def mean_by_channel(value: np.ndarray, read: np.ndarray | None) -> np.ndarray:
    """The mean of each channel over what is read, float64 (channels); 0 where nothing is."""
    if read is None:
        return value.mean(axis=(1, 2), dtype=np.float64)
    counts = np.maximum(read.sum(axis=(1, 2)), 1)
    return np.asarray(value.sum(axis=(1, 2), dtype=np.float64, where=read) / counts)

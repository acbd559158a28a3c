"""Says which layers of an imported network run once a group of pictures.

A face animation reads a source picture once and keypoints or a motion every frame. It computes
nothing: what follows from the cached inputs alone is marked, to be made once and kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from workloads.graph import Graph, GraphError, Phase
from workloads.verify import nearest


def tensors_of(cached: Collection[str], names: Sequence[str], entrances: Sequence[str],
               file: str) -> frozenset[str]:
    """The graph's tensors of cached inputs; `GraphError` for a name that the file does not have,
    and where nothing is left for each frame."""
    for name in cached:
        if name not in names:
            raise GraphError(f"{file} has no input {name!r} to cache; {nearest(name, names)}; it "
                             f"has {', '.join(names)}")
    if names and set(cached) >= set(names):
        raise GraphError(f"{file}: every input is cached, so no frame differs from another; leave "
                         "out --cached for what changes with each frame")
    return frozenset(tensor for name, tensor in zip(names, entrances, strict=True)
                     if name in cached)


def phased(graph: Graph, cached: Collection[str]) -> Graph:
    """The graph with all layers once a group that follow from these tensors alone."""
    known, layers = set(cached), []
    for layer in graph.layers:
        if known.issuperset(layer.inputs):
            known.add(layer.output)
            layers.append(replace(layer, phase=Phase.GROUP))
        else:
            layers.append(layer)
    return replace(graph, layers=tuple(layers))

"""Keeps the coordinates that a grid sampling reads at 16 bits, back to where they are computed.

It chooses no scale; `post_training` calibrates what is named here. An int8 coordinate is a pixel
or more of a large picture: a picture that is moved by nothing would come out jagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork
from workloads.verify import keeps_scale

#: Layers whose inputs and outputs may have 16 bits. A convolution's stay at 8.
_WIDE = frozenset({
    Operator.AFFINE, Operator.ADD, Operator.MULTIPLY, Operator.CONCAT, Operator.RESHAPE,
    Operator.TRANSPOSE, Operator.GATHER, Operator.AVERAGE_POOL})


def with_wide_coordinates(network: FloatNetwork) -> FloatNetwork:
    """The network with 16 bits for what only grid samplings read, through sums and moves."""
    graph = network.graph
    makers = {layer.output: layer for layer in graph.layers}
    found = _candidates(graph, makers) - set(network.fixed_scales)
    found -= set(graph.outputs)
    while True:
        kept = {name for name in found if _all_agree(graph, makers, name, found)}
        if kept == found:
            break
        found = kept
    if not found:
        return network
    tensors = {name: replace(spec, bits=16) if name in found else spec
               for name, spec in graph.tensors.items()}
    return replace(network, graph=replace(graph, tensors=tensors), wide=frozenset(found))


def _candidates(graph: Graph, makers: Mapping[str, Layer]) -> set[str]:
    """What lies behind the coordinates of any sampling, as far as layers may be wide."""
    found: set[str] = set()
    left = [layer.inputs[1] for layer in graph.layers if layer.operator is Operator.GRID_SAMPLE]
    while left:
        layer = makers.get(left.pop())
        # A table of 16-bit values is wide already; one of int8 values stays as it is.
        table = layer is not None and layer.operator is Operator.LOOKUP and (
            graph.tensors[layer.inputs[0]].bits == 16)
        if layer is None or not (table or layer.operator in _WIDE):
            continue
        for name in layer.inputs:
            wide = name not in makers or graph.tensors[name].bits == 16 or (
                makers[name].operator in _WIDE)
            if wide and name not in found:
                found.add(name)
                left.append(name)
    return found


def _all_agree(graph: Graph, makers: Mapping[str, Layer], name: str, found: set[str]) -> bool:
    """Do all layers that read a tensor, and the one that makes it, take it with 16 bits?"""
    for layer in graph.layers:
        if name in layer.inputs:
            coordinates = graph.tensors[layer.output].bits == 16 or layer.output in found
            if layer.operator not in _WIDE or not coordinates:
                return False
    maker = makers.get(name)
    if maker is None:
        return True
    return not keeps_scale(maker) or all(other in found for other in maker.inputs[
        : None if maker.operator is Operator.CONCAT else 1])

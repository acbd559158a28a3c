"""Keeps what a recurrence hands from step to step at 16 bits, its gates and its states.

It chooses no scale; `post_training` calibrates what is named here. A state of 8 bits is rounded
anew at every step. The host computes such layers; what others read of them is rounded to 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from workloads.graph import Graph, Layer, Operator
from workloads.quantization.float_network import FloatNetwork
from workloads.verify import keeps_scale

#: Layers that read and make 16 bits wherever they stand.
_ELEMENTS = frozenset({Operator.LOOKUP, Operator.ADD, Operator.MULTIPLY, Operator.AFFINE})
#: Layers that only move elements.
_MOVES = frozenset({Operator.CONCAT, Operator.RESHAPE, Operator.TRANSPOSE, Operator.GATHER})


def with_wide_recurrences(
    network: FloatNetwork, made: Collection[str], states: Collection[str]
) -> FloatNetwork:
    """The network with 16 bits for the tensors of its recurrences.

    `made`: tensors of their steps. `states`: what they begin with.
    """
    graph = network.graph
    wide = _wide(network, made, states)
    if not wide:
        return network
    tensors = {name: replace(spec, bits=16) if name in wide else spec
               for name, spec in graph.tensors.items()}
    layers: list[Layer] = []
    narrow: dict[str, str] = {}
    for layer in graph.layers:
        inputs = []
        for name in layer.inputs:
            if name in wide and not _takes(layer, wide):
                if name not in narrow:
                    copy = narrow[name] = f"{name}.narrow"
                    tensors[copy] = replace(graph.tensors[name], name=copy)
                    layers.append(Layer(copy, Operator.REQUANTIZE, (name,), copy, constants={
                        role: f"{copy}.{role}" for role in ("multiplier", "shift")}))
                name = narrow[name]
            inputs.append(name)
        layers.append(replace(layer, inputs=tuple(inputs)))
    return replace(network, wide=network.wide | wide, graph=replace(
        graph, tensors=tensors, layers=tuple(layers)))


def _wide(network: FloatNetwork, made: Collection[str], states: Collection[str]) -> frozenset[str]:
    graph = network.graph
    makers = {layer.output: layer for layer in graph.layers}
    free = {name for name, spec in graph.tensors.items()
            if spec.bits == 8 and name not in network.fixed_scales}
    found = {name for name in made if name in free and name in makers and makers[name].operator in (
        *_ELEMENTS, *_MOVES, Operator.CONVOLUTION)}
    left = [name for name in states if name in free]
    while left:
        name = left.pop()
        layer = makers.get(name)
        if name not in found and (layer is None or layer.operator in (*_MOVES, Operator.AFFINE)):
            found.add(name)
            if layer is not None and layer.operator in _MOVES:
                left += [other for other in layer.inputs if other in free]
    for layer in graph.layers:
        if layer.output in free and layer.operator in (*_MOVES, Operator.LOOKUP) and (
                found.issuperset(layer.inputs)):
            found.add(layer.output)
    return _agreeing(graph, makers, found)


def _agreeing(graph: Graph, makers: Mapping[str, Layer], found: set[str]) -> frozenset[str]:
    """Without those that count in the steps of a tensor that stays at 8 bits."""
    while True:
        kept = {name for name in found if name not in makers or not keeps_scale(makers[name])
                or found.issuperset(makers[name].inputs)}
        if kept == found:
            return frozenset(kept)
        found = kept


def _takes(layer: Layer, wide: Collection[str]) -> bool:
    """Does a layer take 16 bits as they are?"""
    return layer.operator in _ELEMENTS or (
        layer.output in wide and layer.operator in (*_MOVES, Operator.CONVOLUTION))

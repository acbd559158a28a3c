"""The processor's steps that a frame must wait for, one behind the other with the layers in fabric.

It times no layer of the fabric. In a phase that repeats, what the processor does before the first
layer in fabric may run while the repeat before is still going on; all the rest waits for a layer
and is waited for. So the first counts only once, in the first phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from arch_models.board import Board
from arch_models.engines.host import start_ns
from arch_models.overlay import Overlay, Start
from cosim.lowering.lower import host_ns
from cosim.mapping.tiles import Mapping
from workloads.graph import Graph, Phase


def host_steps(graph: Graph, overlay: Overlay, board: Board,
               mapping: Mapping) -> Iterator[tuple[float, int]]:
    """(nanoseconds, how often) of each step."""
    begin = start_ns(board, overlay.control)
    for number, (phase, group) in enumerate(groupby(mapping.layers, lambda item: item.phase)):
        layers = list(group)
        repeats = graph.steps if phase is Phase.STEP else 1
        begun = False
        if number == 0 and layers[0].engine is not None:
            yield begin, 1
        for place, item in enumerate(layers):
            after = layers[place + 1] if place + 1 < len(layers) else None
            if item.engine is None:
                to_fabric = after is not None and after.engine is not None
                time_ns = host_ns(graph, overlay, board, mapping.layouts,
                                  graph.layer(item.name), item, to_fabric)
                if begun:
                    yield time_ns, repeats
                elif number == 0:
                    yield time_ns, 1
                continue
            if begun and overlay.control.start is Start.LAYER and layers[place - 1].engine:
                yield begin, repeats
            begun = True

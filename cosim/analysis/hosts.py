"""The processor's steps of a mapped frame, and how many of them nothing else runs beside.

It times no layer of the fabric. What the processor does before the first layer in fabric of a phase
may run while the repeat or the phase before is still going on, unless that ends with a step of the
processor, which works in order; all the rest waits for a layer and is waited for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from arch_models.board import Board
from arch_models.engines.host import start_ns
from arch_models.overlay import Overlay, Start
from cosim.lowering.host_times import host_ns
from cosim.mapping.tiles import Mapping
from workloads.graph import Graph, Phase


class HostStep(NamedTuple):
    """A step: its nanoseconds, how often a frame has it, how often at least the fabric stands
    still meanwhile, and behind how many layers in fabric it lies."""

    time_ns: float
    times: int
    alone: int
    behind: int = 0


def host_steps(graph: Graph, overlay: Overlay, board: Board,
               mapping: Mapping) -> Iterator[HostStep]:
    """The steps in order, as `lower` writes them: a phase that begins in fabric is started, as is
    what follows an operator, or each layer."""
    begin, behind, waited = start_ns(board, overlay), 0, True
    for phase, group in groupby(mapping.layers, lambda item: item.phase):
        layers = list(group)
        repeats = graph.steps if phase is Phase.STEP else 1
        ahead, waited = int(waited), layers[-1].engine is None
        ahead += (repeats - 1) * waited
        begun = False
        if layers[0].engine is not None:
            yield HostStep(begin, repeats, ahead, behind)
        for place, item in enumerate(layers):
            after = layers[place + 1] if place + 1 < len(layers) else None
            if item.engine is None:
                to_fabric = after is not None and after.engine is not None
                yield HostStep(host_ns(graph, overlay, board, mapping.layouts,
                                       graph.layer(item.name), item, to_fabric),
                               repeats, repeats if begun else ahead, behind)
                continue
            if begun and overlay.control.start is Start.LAYER and layers[place - 1].engine:
                yield HostStep(begin, repeats, repeats, behind)
            begun, behind = True, behind + 1

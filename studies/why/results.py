"""Says where a convolution waits for its results to leave, and not for its products.

It measures nothing; it counts trips of the array from the mapping.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.board import Board
from arch_models.clock import clocked
from arch_models.engines.convolution import tap_trips
from arch_models.overlay import Engine, Infeasible, Overlay
from arch_models.units import ceil_div
from cosim.build import Builder
from cosim.mapping.tiles import ConvolutionTile, Mapping
from cosim.mapping.words import convolution_words
from workloads.graph import Graph

#: Told from this share of the array's trips on.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Waiting:
    """Layers whose positions wait for `result_cycles`; trips of the array, all and those waited.

    `shortest`: the fewest trips that the products of a position take in them.
    """

    layers: tuple[str, ...]
    result_cycles: int
    shortest: int
    trips: int
    waited: int

    def __str__(self) -> str:
        """One sentence; empty where it costs little."""
        if self.waited < LEAST_SHARE * self.trips:
            return ""
        return (f"requantize_cycles: results leave the array in {self.result_cycles} cycles a "
                f"position, and the products of {len(self.layers)} layers need fewer "
                f"({self.layers[0]}: {self.shortest}), which waits "
                f"{100 * self.waited / self.trips:.0f} % of the array's cycles; hardware whose "
                "results leave as they are made has requantize_cycles = 1")


def waits(graph: Graph, overlay: Overlay, board: Board) -> str:
    """What a person should know of it, one sentence; empty where it costs little."""
    mapping = Builder(graph, board).mapping(clocked(overlay, board))
    return "" if isinstance(mapping, Infeasible) else str(waiting(graph, overlay, mapping))


def waiting(graph: Graph, overlay: Overlay, mapping: Mapping) -> Waiting:
    """What the results of a design's convolutions cost a mapped network."""
    found: dict[str, int] = {}
    trips = waited = 0
    for item in mapping.layers:
        tile = item.tile
        if item.engine is not Engine.CONVOLUTION or not isinstance(tile, ConvolutionTile):
            continue
        layer = graph.layer(item.name)
        in_words, out_words, taps = convolution_words(layer, graph, overlay, mapping.layouts,
                                                      item.inputs[0])
        out, each = graph.tensors[layer.output], tap_trips(taps, overlay)
        groups = out_words * out.rows * ceil_div(out.columns, overlay.columns)
        parts = ceil_div(in_words, tile.in_words)
        last = (in_words - (parts - 1) * tile.in_words) * each
        needs = [tile.in_words * each] * (parts - 1) + [last]
        took = sum(max(need, overlay.result_cycles) for need in needs)
        trips += groups * took
        waited += groups * (took - sum(needs))
        if took > sum(needs):
            found[item.name] = min(needs)
    first = sorted(found, key=lambda name: found[name])
    return Waiting(tuple(first), overlay.result_cycles, min(found.values(), default=0), trips,
                   waited)

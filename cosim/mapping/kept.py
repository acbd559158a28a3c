"""Chooses the tensors that stay in the tensor memory, and where in it.

It chooses no tile. What stays costs no layer anything: a beat of the tensor memory comes no later
than one of DRAM, and every transfer is the same but for the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cosim.mapping.lifetimes import Region, regions
from cosim.mapping.tiles import LayerMapping
from cosim.mapping.tiles import Mapping as Mapped
from workloads.graph import Graph

#: Tensors begin at multiples of the longest burst of a 128-bit port.
ALIGNMENT_BYTES = 256


def kept(graph: Graph, mapping: Mapped, size_bytes: int,
         by_weight_master: Callable[[LayerMapping], tuple[str, ...]]) -> Mapping[str, int]:
    """First byte, in a tensor memory of `size_bytes`, of each tensor that stays there; parts of a
    concatenation lie inside it.

    A tensor may stay if engines in fabric make and read it within one phase, all reading through
    the input master (`by_weight_master`: what the other one loads for a layer). Of those, the ones
    that move most often for the layers that they lie there are placed first, each where there is
    room for as long as it is needed. That is no optimum: the best choice is a packing problem.
    """
    layouts = mapping.layouts
    elsewhere = {leaf for item in mapping.layers if item.engine is not None
                 for name in by_weight_master(item) for leaf in layouts.leaves(name)}
    fabric = [item.engine is not None for item in mapping.layers]

    def may_stay(region: Region) -> bool:
        return (region.size <= size_bytes and region.first >= 0
                and region.last < len(mapping.layers) and all(fabric[use] for use in region.uses)
                and not elsewhere.intersection(name for name, _ in region.members))

    free = [region for region in regions(graph, mapping) if may_stay(region)]
    free.sort(key=lambda item: (-len(item.uses) / (item.last - item.first + 1), item.first,
                                item.root))
    found: dict[str, int] = {}
    there: list[tuple[Region, int]] = []
    for region in free:
        start = 0
        for other, low in sorted(there, key=lambda item: item[1]):
            if other.last < region.first or other.first > region.last:
                continue
            if start + region.size <= low:
                break
            start = max(start, -(-(low + other.size) // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        if start + region.size <= size_bytes:
            found |= {name: start + offset for name, offset in region.members}
            there.append((region, start))
    return found

"""Chooses the tensors that stay in the tensor memory, and where in it.

It chooses no tile. What stays costs no layer anything: a beat of the tensor memory comes no later
than one of DRAM, and every transfer is the same but for the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from arch_models.memory import tensor_bytes
from arch_models.overlay import Overlay
from cosim.mapping.bands import turns
from cosim.mapping.lifetimes import Region, regions
from cosim.mapping.tiles import LayerMapping
from cosim.mapping.tiles import Mapping as Mapped
from workloads.graph import Graph

#: Tensors begin at multiples of the longest burst of a 128-bit port.
ALIGNMENT_BYTES = 256


def with_kept(graph: Graph, overlay: Overlay, mapping: Mapped,
              by_weight_master: Callable[[LayerMapping], tuple[str, ...]]) -> Mapped:
    """The mapping with the first byte, in the tensor memory, of each tensor that stays there; parts
    of a concatenation lie inside it.

    A tensor may stay if engines in fabric make and read it within one phase, all reading through
    the input master (`by_weight_master`: what the other one loads for a layer). Of those, the ones
    that save most bytes of DRAM for the bytes and layers that they take there are placed first,
    each where there is room for as long as it is needed. What is larger than the memory may pass
    it by bands (`bands`), for which it takes all of it. That is no optimum: the best choice is a
    packing problem.
    """
    size_bytes = tensor_bytes(overlay)
    layouts = mapping.layouts
    elsewhere = {leaf for item in mapping.layers if item.engine is not None
                 for name in by_weight_master(item) for leaf in layouts.leaves(name)}
    fabric = [item.engine is not None for item in mapping.layers]

    def may_stay(region: Region) -> bool:
        return (region.first >= 0 and region.last < len(mapping.layers)
                and all(fabric[use] for use in region.uses)
                and not elsewhere.intersection(name for name, _ in region.members))

    def saves(region: Region) -> float:
        taken = min(region.size, size_bytes) * (region.last - region.first + 1)
        return len(region.uses) * region.size / taken

    free = [region for region in regions(graph, mapping) if may_stay(region)]
    passing = {region.root: turns(graph, overlay, mapping, region, size_bytes)
               for region in free if region.size > size_bytes}
    free = [region for region in free if passing.get(region.root, True)]
    free.sort(key=lambda item: (-saves(item), item.first, item.root))
    found: dict[str, int] = {}
    there: list[tuple[Region, int]] = []
    for region in free:
        room = min(region.size, size_bytes)
        start = 0
        for other, low in sorted(there, key=lambda item: item[1]):
            if other.last < region.first or other.first > region.last:
                continue
            if start + room <= low:
                break
            high = low + min(other.size, size_bytes)
            start = max(start, -(-high // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        if start + room <= size_bytes:
            found |= {name: start + offset for name, offset in region.members}
            there.append((region, start))
    return replace(mapping, kept=found, bands={
        name: order for name, order in passing.items() if name in found})

"""Which tensors lie together in memory, and from which layer to which they are needed.

It gives no addresses: `cosim.lowering.placement` does, and `kept` of those that stay on chip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import Mapping
from workloads.graph import Graph


class PlacementError(ValueError):
    """A graph's tensors or constants cannot be placed. The message names the thing and the
    rule."""


@dataclass
class Region:
    """One stretch of memory: a tensor, or a concatenation with its parts inside.

    `first`, `last`: numbers of the first and the last mapped layer that uses it; beyond all layers
    if somebody outside does. `uses`: the numbers of all of them.
    """

    root: str
    size: int
    first: int
    last: int
    members: list[tuple[str, int]]  # tensor, bytes from the start
    uses: list[int] = field(default_factory=list)


def regions(graph: Graph, mapping: Mapping) -> list[Region]:
    """All that the mapped layers read or write, in the order of first use.

    Raises `PlacementError` if two concatenations claim one tensor.
    """
    layouts = mapping.layouts
    outputs = {item.output for item in mapping.layers}
    parent: dict[str, str] = {made: given for given, made in graph.carried if made in outputs}
    heirs: dict[str, list[tuple[str, int]]] = {}  # what a step carries lies where it is read
    for made, given in parent.items():
        heirs.setdefault(given, []).append((made, 0))
    for whole, parts in layouts.concats.items():
        for part in parts:
            if part in parent:
                raise PlacementError(f"tensor {part!r} is a part of {parent[part]!r} and of "
                                     f"{whole!r}; a tensor lies in one place")
            parent[part] = whole
    forever = len(mapping.layers)
    uses: dict[str, list[int]] = {}
    prologue = True
    segment = None
    for index, item in enumerate(mapping.layers):
        if item.phase is not segment:
            segment, prologue = item.phase, True
        if item.engine is not None:
            prologue = False
        for name in (*item.inputs, item.output):
            uses.setdefault(name, []).extend(_beside(mapping, index))
        if prologue or item.output in graph.outputs:
            # The host may write these for the next frame while this one still runs.
            uses[item.output] += [-1, forever]
    written = {item.output: item.phase for item in mapping.layers}
    for item in mapping.layers:
        for name in item.inputs:
            for leaf in layouts.leaves(name):
                if written.get(leaf) is not item.phase:
                    uses.setdefault(leaf, []).extend([-1, forever])
    found: dict[str, Region] = {}
    for name, seen in uses.items():
        root = name
        while root in parent:
            root = parent[root]
        if root not in found:
            members: list[tuple[str, int]] = []
            size = _members(layouts, root, 0, members)
            members += heirs.get(root, ())
            found[root] = Region(root, size, seen[0], seen[0], members)
        region = found[root]
        region.first, region.last = min(region.first, *seen), max(region.last, *seen)
        region.uses += seen
    return sorted(found.values(), key=lambda item: (item.first, -item.size))


def _beside(mapping: Mapping, index: int) -> list[int]:
    """A layer's number, and that of the one that it hands a tensor to, or takes one from, by bands:
    both run at once."""
    item, found = mapping.layers[index], [index]
    if item.output in mapping.bands:
        found.append(index + 1)
    if item.inputs and item.inputs[0] in mapping.bands:
        found.insert(0, index - 1)
    return found


def _members(layouts: Layouts, name: str, offset: int, found: list[tuple[str, int]]) -> int:
    """List a tensor and its parts with their offsets; return its size in bytes."""
    found.append((name, offset))
    spec = layouts.graph.tensors[name]
    step = 8 if layouts.is_grid(name) else layouts.position_bytes
    inside = offset
    for part in layouts.concats.get(name, ()):
        inside += _members(layouts, part, inside, found)
    return layouts.planes(name) * spec.positions * step

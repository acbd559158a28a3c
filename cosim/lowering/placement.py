"""Where every tensor and every block of constants lies in memory.

It decides no tiles and makes no bytes (see `packing`).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from arch_models.board import Board
from arch_models.memory import WINDOW
from arch_models.overlay import Layout, Overlay
from arch_models.units import ceil_div
from cosim.engines import SLICES
from cosim.engines.base import Mapped
from cosim.mapping.lifetimes import PlacementError, Region, regions
from cosim.mapping.tiles import LayerMapping, Mapping
from workloads.graph import Graph

#: Tensors and blobs start at multiples of the longest 64-bit AXI3 burst.
ALIGNMENT_BYTES = 128

@dataclass(frozen=True)
class TensorPlace:
    """A tensor in memory: first byte, logical shape, and for each channel its place.

    8-bit tensors: place = plane * channel_block + lane. Grids (16 bits): plane * 4 + lane. Planes
    follow one another, rows x columns positions each.
    """

    address: int
    channels: int
    rows: int
    columns: int
    bits: int
    planes: int
    position_bytes: int
    places: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """From the first plane to the end of the last."""
        return self.planes * self.rows * self.columns * self.position_bytes


@dataclass(frozen=True, slots=True)
class Blob:
    """Constant bytes of one layer: what they are, where, how many."""

    layer: str
    role: str  # weights, parameters, table, norm
    address: int
    size_bytes: int


@dataclass(frozen=True)
class Placement:
    """Addresses count bytes from the start of one buffer of `size_bytes`, aligned to a DRAM row.

    `addresses`: of every tensor that is in memory (parts of a concatenation inside it); from
    `WINDOW` on of what stays in the tensor memory.
    """

    mapping: Mapping
    addresses: dict[str, int]
    blobs: dict[tuple[str, str], Blob]
    size_bytes: int
    tensor_bytes: int

    def place(self, name: str) -> TensorPlace:
        """Where a tensor lies; `PlacementError` if fusion left it out of memory."""
        if name not in self.addresses:
            raise PlacementError(f"tensor {name!r} is not in memory: a fused layer keeps it on "
                                 "chip, or its phase is not mapped")
        layouts = self.mapping.layouts
        spec = layouts.graph.tensors[name]
        step = 8 if layouts.is_grid(name) else layouts.position_bytes
        return TensorPlace(self.addresses[name], spec.channels, spec.rows, spec.columns, spec.bits,
                           layouts.planes(name), step,
                           tuple(int(item) for item in layouts.places(name)))

    @cached_property
    def roles(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Address and bytes of each block of a layer's constants by role, of layers that have
        any."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for item in self.blobs.values():
            found.setdefault(item.layer, {})[item.role] = item.address, item.size_bytes
        return found

    def blob(self, layer: str, role: str) -> Blob:
        """The constants of a layer in a role."""
        return self.blobs[layer, role]


#: Places of tensors that were found: what they depend on, to addresses and the end.
KnownPlaces = dict[tuple, tuple[dict[str, int], int]]


def place(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
          known: KnownPlaces | None = None) -> Placement:
    """Addresses of everything the mapped layers read or write.

    Tensors whose lifetimes do not overlap share memory; what the host writes before the first
    layer in fabric, and what comes from or goes outside, keeps its place. What a step carries to
    the next lies where the next one reads it. Raises `PlacementError` if two concatenations claim
    one tensor. `known` keeps the tensors' places for other overlays on this graph and board: tiles
    and arrays do not change them.
    """
    key = (overlay.layout, overlay.channel_block, overlay.data_bits, mapping.phases,
           *((item.engine, item.inputs, item.output) for item in mapping.layers),
           *sorted(mapping.kept.items()), *sorted(mapping.bands))
    found = None if known is None else known.get(key)
    if found is None:
        step = ALIGNMENT_BYTES if overlay.layout is Layout.DENSE else board.ddr.row_bytes
        found = _allocate([region for region in regions(graph, mapping)
                           if region.root not in mapping.kept], step, overlay.layout, board)
        found[0].update({name: WINDOW + start for name, start in mapping.kept.items()})
        if known is not None:
            known[key] = found
    addresses, tensor_bytes = found
    end = tensor_bytes
    blobs: dict[tuple[str, str], Blob] = {}
    for item in mapping.layers:
        for role, size in _constants(graph, overlay, mapping, item):
            blobs[item.name, role] = Blob(item.name, role, end, size)
            end = ceil_div(end + size, ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return Placement(mapping, addresses, blobs, end, tensor_bytes)


def _allocate(found: list[Region], step: int, layout: Layout, board: Board
              ) -> tuple[dict[str, int], int]:
    live: list[tuple[int, int, int]] = []  # start, end, last use; ascending
    addresses: dict[str, int] = {}
    end = 0
    for index, region in enumerate(found):
        live = [item for item in live if item[2] >= region.first]
        start = 0
        if layout is Layout.BANK_SPREAD:
            # Neighbours begin in different banks, so two streams seldom close each other's rows.
            start = index % board.ddr.banks * board.ddr.row_bytes
        for low, high, _ in live:
            if start + region.size <= low:
                break
            start = max(start, ceil_div(high, step) * step)
        insort(live, (start, start + region.size, region.last))
        end = max(end, start + region.size)
        for name, offset in region.members:
            addresses[name] = start + offset
    return addresses, ceil_div(end, step) * step


def _constants(graph: Graph, overlay: Overlay, mapping: Mapping,
               item: LayerMapping) -> Sequence[tuple[str, int]]:
    """Roles and sizes of the constants that the weight master loads for a layer."""
    if item.engine is None:
        return ()
    return SLICES[item.engine].constants(
        Mapped(graph, overlay, mapping.layouts, graph.layer(item.name), item))

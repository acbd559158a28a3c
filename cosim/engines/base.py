"""The seam of an engine on the mapping and lowering side: tile, constants, rows, lower bound.

It lowers nothing itself. What an engine costs and needs is in its model (`arch_models.engines`);
`cosim.engines.SLICES` lists the slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from arch_models.engines import Tile, Work
from arch_models.literature import Copies
from arch_models.overlay import Engine, Infeasible, Overlay
from cosim.engines import rows
from cosim.engines.buffers import BEAT, Accesses, Buffers
from cosim.engines.rows import Area, Common, Wires
from cosim.mapping.choose import Chooser
from cosim.mapping.layout import Layouts
from cosim.mapping.tiles import LayerMapping
from cosim.program.table import Opcode
from workloads.graph import Graph, Layer


@dataclass(frozen=True)
class Mapped:
    """One mapped layer in fabric, with all that its engine may ask."""

    graph: Graph
    overlay: Overlay
    layouts: Layouts
    layer: Layer
    item: LayerMapping

    def planes(self, name: str) -> int:
        """Channel planes of a tensor."""
        return self.layouts.planes(name)

    def bytes_of(self, name: str) -> int:
        """Bytes of a tensor in memory."""
        return self.layouts.bytes_of(name)

    def constant(self, role: str) -> int:
        """A constant of one element."""
        return int(self.graph.constant(self.layer, role)[0])


@dataclass(frozen=True)
class Site:
    """Where a layer's rows go: its number in the program, its engine's wires, addresses of tensors,
    address and bytes of constants by role, and which of the two sets of parameters on chip it
    takes."""

    index: int
    wires: Wires
    addresses: Mapping[str, int]
    blobs: Mapping[str, tuple[int, int]]
    parity: int

    def area(self, mapped: Mapped, name: str) -> Area:
        """A tensor in memory."""
        spec = mapped.graph.tensors[name]
        step = 8 if mapped.layouts.is_grid(name) else mapped.layouts.position_bytes
        return Area(self.addresses[name], mapped.planes(name), spec.rows, spec.columns, step,
                    int(mapped.overlay.loops.copies is Copies.ROWS))

    def line(self, mapped: Mapped, name: str) -> Area:
        """The tensor as a list of positions: one column, so that any range is one run."""
        area = self.area(mapped, name)
        return area._replace(rows=area.rows * area.columns, columns=1, apart=0)

    def common(self, overlay: Overlay, input_share: int = rows.BY_ONE,
               output_share: int = rows.BY_ONE) -> Common:
        """What the layer's operations share."""
        return Common(self.index, self.wires.unit, overlay.tn // overlay.channel_block,
                      overlay.tm // overlay.channel_block, overlay.input_words,
                      overlay.input_banks, overlay.output_words, overlay.output_banks,
                      input_share, output_share)

    @property
    def masters(self) -> int:
        """Masters that work for the layer, the weight master and the host among them."""
        return len(self.wires.inputs) + len(self.wires.outputs) + 2


class Job(NamedTuple):
    """One layer in fabric: its kernel, called with a table, a row and what follows here.

    `most_rows`: at least as many rows as it writes.
    """

    kernel: Callable[..., int]
    common: Common
    plan: Any
    areas: tuple[Area, ...]
    wires: Wires
    most_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a layer takes at the very least: cycles of its engine, bytes, trips of the array.

    `ahead_bytes`: weights that may be loaded before the layer begins. `untiled_cycles`: of the
    engine, whatever the tile. `results`, `partials`: words of `tm` channels that the array hands
    on, and that it keeps or reads back on the way there.
    """

    compute_cycles: int = 0
    untiled_cycles: int = 0
    load_bytes: int = 0
    weight_bytes: int = 0
    ahead_bytes: int = 0
    store_bytes: int = 0
    trips: int = 0
    results: int = 0
    partials: int = 0


class EngineSlice(Protocol):
    """What mapping, lowering and bounds ask of an engine. Implementations hold no state."""

    @property
    def engine(self) -> Engine:
        """Which engine this is."""

    @property
    def cost_arguments(self) -> Mapping[Opcode, tuple[str, ...]]:
        """Each opcode of the engine, and the arguments that its cost depends on."""

    def tile(self, chooser: Chooser, layer: Layer) -> LayerMapping | Infeasible:
        """The best tile of a layer, or the host; what it absorbs it tells the chooser."""

    def constants(self, mapped: Mapped) -> Sequence[tuple[str, int]]:
        """Role and bytes of each block of constants that the weight master loads."""

    def pack(self, mapped: Mapped, role: str) -> bytes:
        """The bytes of one of them."""

    def activations(self, mapped: Mapped) -> tuple[str, ...]:
        """Tensors that the weight master loads, behind the first block of constants."""

    def job(self, mapped: Mapped, site: Site) -> Job:
        """Plan and kernel of the layer's rows."""

    def operation(self, mapped: Mapped, opcode: Opcode,
                  values: Mapping[str, int]) -> tuple[Work, Tile]:
        """What the model is asked for an operation with these `cost_arguments`."""

    def accesses(self, opcode: Opcode, values: Mapping[str, np.ndarray], trips: np.ndarray,
                 overlay: Overlay) -> Accesses:
        """How often operations with these arguments (int64) and trips reach each on-chip memory,
        an access taking its whole width; memories as in `arch_models.resources`."""

    def least(self, mapped: Mapped) -> Demand:
        """A lower bound of the layer's work, from its tile alone."""

    def compute(self, memories: Buffers, opcode: Opcode, values: Mapping[str, int]) -> None:
        """What an operation with these arguments does to the bytes of the on-chip memories."""


def share(masters: np.ndarray, least_words: int, least_positions: int) -> int:
    """How the masters split every tile of a layer; each must have a part of each tile."""
    count = len(masters)
    if count == 1:
        return rows.BY_ONE
    if least_words >= count:
        return rows.BY_WORDS
    return rows.BY_POSITIONS if least_positions >= count else rows.BY_ONE


def edge(length: int, tile: int) -> int:
    """The size of the last tile of an axis."""
    return length - (-(-length // tile) - 1) * tile


def least_read(count: int, stride: int, taps: int, padding: int, upsample: int,
               limit: int) -> int:
    """Real rows that `count` output rows read at least; the windows touch if `stride` <= `taps`."""
    if stride > taps:
        return 0
    high = min(limit << upsample, (count - 1) * stride - padding + taps)
    return max(0, high + (1 << upsample) - 1 >> upsample)


def input_bytes(mapped: Mapped) -> int:
    """Bytes of its first input that a layer with a window reads, each counted once."""
    item, window = mapped.item, mapped.layer.window
    source, out = (mapped.graph.tensors[name] for name in (item.inputs[0], mapped.layer.output))
    rows, columns = (
        least_read(count, window.stride, size, window.padding, int(bool(item.upsample)), limit)
        for count, size, limit in ((out.rows, window.rows, source.rows),
                                   (out.columns, window.columns, source.columns)))
    return mapped.bytes_of(item.inputs[0]) // source.positions * rows * columns


def byte_misfit(chooser: Chooser, names: Iterable[str]) -> str:
    """Why tensors are not beats of eight int8 values; empty if they are."""
    overlay = chooser.overlay
    if overlay.position_bytes != BEAT:
        return (f"data_bits and channel_block are {overlay.data_bits} and "
                f"{overlay.channel_block}, must be 8 and 8")
    for name in names:
        if chooser.graph.tensors[name].bits != 8:
            return f"{name!r} has {chooser.graph.tensors[name].bits} bits, must have 8"
    return ""

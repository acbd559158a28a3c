"""What a mapped graph costs at the very least: cycles, products and bytes, without lowering it.

It simulates nothing and needs no addresses; `cosim.analysis.bounds` bounds a program, which costs a
simulation. Used to leave out designs that a search need not simulate.

Why the cycles are a bound. The first loads of a layer wait for the last stores of the layer before
it, and every result of a layer needs one of its loads. So all loads, products and stores of a layer
lie between the end of the layer before and its own end, and a layer takes at least as long as its
engine, as its loads and as its stores at the full width of their masters. Weights run ahead of that
barrier, but only as far as the banks of the weight buffer reach, so what does not fit there is
loaded within the layer; and all weights together pass one master. Host steps lie between layers.
Set-up, latency, arbitration and DRAM only add.
"""

from __future__ import annotations

from collections.abc import Mapping as Weighting
from dataclasses import dataclass, replace
from types import MappingProxyType

from arch_models.board import Board
from arch_models.engines.host import start_ns
from arch_models.overlay import Overlay, Role, Start
from cosim.engines import SLICES
from cosim.engines.base import Mapped
from cosim.lowering.lower import host_cycles, host_ns
from cosim.mapping.tiles import LayerMapping, Mapping
from workloads.graph import Graph

Weights = Weighting[str, float]


@dataclass(frozen=True, slots=True)
class Least:
    """Lower bounds on one frame: fabric cycles, trips of the array, bytes read and written.

    `weighted_trips`: each layer's trips times its weight. `host_ns`: what the processor works on
    starts, operators and cache upkeep; exact, not a bound.
    """

    cycles: int = 0
    trips: int = 0
    weighted_trips: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    host_ns: float = 0.0


def least(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
          weights: Weights = MappingProxyType({})) -> Least:
    """Bounds of one frame of the mapped phases, sampler steps included.

    `weights`: of the trips, by layer; 1 for one that is not there.

    The host's steps count only where nothing repeats: before a repeat they overlap.
    """
    rates = {role: sum(item.width_bits for item in overlay.masters_of(role)) / 8
             for role in (Role.INPUT, Role.WEIGHT, Role.OUTPUT)}
    layers = {layer.name: layer for layer in graph.layers}
    total, cycles, weight_bytes = Least(), 0.0, 0
    begin = host_cycles(start_ns(board, overlay.control), overlay.clock_hz)
    before: LayerMapping | None = None
    for index, item in enumerate(mapping.layers):
        repeats = graph.steps if item.phase.value == "step" else 1
        if item.engine is None:
            after = mapping.layers[index + 1] if index + 1 < len(mapping.layers) else None
            to_fabric = after is not None and after.engine is not None
            if graph.steps == 1:
                cycles += host_cycles(host_ns(graph, overlay, board, mapping.layouts,
                                              layers[item.name], item, to_fabric),
                                      overlay.clock_hz)
        else:
            work = SLICES[item.engine].least(Mapped(graph, overlay, mapping.layouts,
                                                    layers[item.name], item))
            within = max(0, work.weight_bytes - work.ahead_bytes)
            cycles += repeats * max(
                work.compute_cycles, work.load_bytes / rates[Role.INPUT],
                within / rates[Role.WEIGHT], work.store_bytes / rates[Role.OUTPUT])
            if (before is not None and before.engine is not None and graph.steps == 1
                    and overlay.control.start is Start.LAYER):
                cycles += begin
            weight_bytes += repeats * work.weight_bytes
            total = replace(
                total, trips=total.trips + repeats * work.trips,
                weighted_trips=(total.weighted_trips
                                + repeats * work.trips * weights.get(item.name, 1.0)),
                bytes_read=total.bytes_read + repeats * (work.load_bytes + work.weight_bytes),
                bytes_written=total.bytes_written + repeats * work.store_bytes)
        before = item
    return replace(total, cycles=int(max(cycles, weight_bytes / rates[Role.WEIGHT])),
                   host_ns=_host_ns(graph, overlay, board, mapping))


def _host_ns(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping) -> float:
    """The processor's time in all host steps, as `lower` writes them: a phase that begins in
    fabric is started, as is what follows an operator, or each layer."""
    layers = {layer.name: layer for layer in graph.layers}
    begin, total = start_ns(board, overlay.control), 0.0
    before: LayerMapping | None = None
    following = [*mapping.layers[1:], None]
    for item, after in zip(mapping.layers, following, strict=True):
        first = before is None or before.phase is not item.phase
        repeats = graph.steps if item.phase.value == "step" else 1
        if item.engine is None:
            to_fabric = (after is not None and after.phase is item.phase
                         and after.engine is not None)
            total += repeats * host_ns(graph, overlay, board, mapping.layouts, layers[item.name],
                                       item, to_fabric)
        elif first or (overlay.control.start is Start.LAYER and before is not None
                       and before.engine is not None):
            total += repeats * begin
        before = item
    return total

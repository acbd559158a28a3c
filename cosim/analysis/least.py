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
from typing import Any

from arch_models.board import Board
from arch_models.overlay import Overlay, Role
from cosim.analysis.hosts import host_steps
from cosim.engines import SLICES
from cosim.engines.base import Demand, Mapped
from cosim.lowering.host_times import host_cycles
from cosim.mapping.tiles import LayerMapping, Mapping
from workloads.graph import Graph, Phase

Weights = Weighting[str, float]


@dataclass(frozen=True, slots=True)
class Least:
    """Lower bounds on one frame: fabric cycles, trips of the array, bytes read and written.

    `weighted_trips`: each layer's trips times its weight. `results`, `partials`: words of the
    convolutions (`Demand`). `host_ns`: what the processor works on starts, operators and cache
    upkeep; exact, not a bound. Numbers, or arrays of equal shape.
    """

    cycles: Any = 0
    trips: Any = 0
    weighted_trips: Any = 0.0
    bytes_read: Any = 0
    bytes_written: Any = 0
    results: Any = 0
    partials: Any = 0
    host_ns: Any = 0.0

    def with_layer(self, work: Demand, times: int, weight: float) -> Least:
        """And so often a layer; its cycles are not added, since units of a layer overlap."""
        return replace(
            self, trips=self.trips + times * work.trips,
            weighted_trips=self.weighted_trips + times * work.trips * weight,
            bytes_read=self.bytes_read + times * (work.load_bytes + work.weight_bytes),
            bytes_written=self.bytes_written + times * work.store_bytes,
            results=self.results + times * work.results,
            partials=self.partials + times * work.partials)


def unmoved(work: Demand) -> Demand:
    """The demand of a layer all of whose tensors may stay on chip: no more of DRAM than weights."""
    return replace(work, load_bytes=0, store_bytes=0)


def from_dram(mapping: Mapping, item: LayerMapping, work: Demand) -> Demand:
    """The demand of a layer without what the tensor memory answers: nothing that is stored there,
    and, as if it were all, nothing that is loaded beside what lies there."""
    if item.output in mapping.kept:
        work = replace(work, store_bytes=0)
    return replace(work, load_bytes=0) if any(
        name in mapping.kept for name in item.inputs) else work


def _in_pair(mapping: Mapping, item: LayerMapping) -> bool:
    """Does a layer give or take a tensor by bands of rows?"""
    return item.output in mapping.bands or (bool(item.inputs) and item.inputs[0] in mapping.bands)


def least(graph: Graph, overlay: Overlay, board: Board, mapping: Mapping,
          weights: Weights = MappingProxyType({})) -> Least:
    """Bounds of one frame of the mapped phases, sampler steps included.

    `weights`: of the trips, by layer; 1 for one that is not there.

    The host's steps count where nothing runs beside them.
    """
    rates = {role: sum(item.width_bits for item in overlay.masters_of(role)) / 8
             for role in (Role.INPUT, Role.WEIGHT, Role.OUTPUT)}
    layers = {layer.name: layer for layer in graph.layers}
    steps = list(host_steps(graph, overlay, board, mapping))
    cycles = float(sum(step.alone * host_cycles(step.time_ns, overlay.clock_hz)
                       for step in steps))
    total, weight_bytes = Least(host_ns=sum(step.times * step.time_ns for step in steps)), 0
    for item in mapping.layers:
        if item.engine is None:
            continue
        repeats = graph.steps if item.phase is Phase.STEP else 1
        work = SLICES[item.engine].least(Mapped(graph, overlay, mapping.layouts,
                                                layers[item.name], item))
        within = max(0, work.weight_bytes - work.ahead_bytes)
        # What a pair moves lies beside its products; these do not lie beside each other.
        timed = unmoved(work) if _in_pair(mapping, item) else work
        cycles += repeats * max(
            timed.compute_cycles, timed.load_bytes / rates[Role.INPUT],
            within / rates[Role.WEIGHT], timed.store_bytes / rates[Role.OUTPUT])
        weight_bytes += repeats * work.weight_bytes
        total = total.with_layer(from_dram(mapping, item, work), repeats,
                                 weights.get(item.name, 1.0))
    return replace(total, cycles=int(max(cycles, weight_bytes / rates[Role.WEIGHT])))

"""Evaluates many designs of one graph with `flat`, and does what equal designs share only once.

It predicts nothing of its own: latency, energy and resources equal those of `evaluate`, to the
last bit. What it leaves out are the units' times and the traffic by layer.

Shared, from the outside in: sites by everything but clock, ports and limits; tile searches by
(layer, buffers and rates); a lowered program by everything but clock, ports, limits and packing;
the last cycle by program, clock and masters; energy as one sum over arrays of times.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines import Resources
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, Overlay
from arch_models.resources import check, estimate
from cosim import fast, recurrence
from cosim.lower import Lowered, host_cycles, lower, retimed
from cosim.mapping import Known, budget_of, choose_mapping
from cosim.program import layer_bytes
from cosim.wiring import wire
from studies.activity import Counts, count
from studies.evaluate import estimated_resources, phases, pixels, work_energy
from studies.evaluation import MICROJOULES, MILLISECONDS, Resource
from workloads.graph import Graph

MEMORY = "flat"
#: Tile searches remembered at most; each holds about a kilobyte.
MOST_TILES = 100_000
#: Fields that no row of a program depends on, and those that no site depends on.
_UNTIMED = frozenset({"name", "clock_hz", "dsp_packing", "masters"})
_UNSITED = frozenset({"name", "clock_hz", "masters", "control", "layout", "backend", "pipelines"})
_rows_of = attrgetter(*(item.name for item in fields(Overlay) if item.name not in _UNTIMED))
_sites_of = attrgetter(*(item.name for item in fields(Overlay) if item.name not in _UNSITED))


class Figures(NamedTuple):
    """What a search wants of one design; the same numbers as in its `Evaluation`."""

    latency_cycles: int
    latency_ms: float
    energy_uj_per_pixel: float
    resources: tuple[Resource, ...]


@dataclass
class _Shared:
    """One lowered program and what is known of it."""

    lowered: Lowered
    counts: Counts
    moved: np.ndarray
    prepared: recurrence.Prepared | None
    cycles: dict[Hashable, int] = field(default_factory=dict)


class Batch:
    """The evaluator of one graph on one board; it keeps the last `keep` lowered programs."""

    def __init__(self, graph: Graph, board: Board, keep: int = 32) -> None:
        self.graph, self.board, self.keep = graph, board, keep
        self.pixels = pixels(graph)
        self.tiles: Known = {}
        self.sites: dict[Hashable, Resources] = {}
        self.programs: dict[Hashable, _Shared | Infeasible] = {}
        self.tables: dict[Hashable, np.ndarray] = {}
        self.host: dict[tuple[float, int], int] = {}

    def evaluate(self, overlays: Sequence[Overlay]) -> list[Figures | Infeasible]:
        """Figures of each design, in order. Fast when designs that share a program are together."""
        found: list[Figures | Infeasible | None] = [None] * len(overlays)
        groups: dict[Hashable, tuple[_Shared, list[tuple[int, int]]]] = {}
        for place, overlay in enumerate(overlays):
            misfit = check(overlay, self.board, self._sites(overlay))
            if misfit is not None:
                found[place] = misfit
                continue
            key = self._program_key(overlay)
            shared = self._program(key, overlay)
            if isinstance(shared, Infeasible):
                found[place] = shared
                continue
            _, members = groups.setdefault((key, overlay.dsp_packing), (shared, []))
            members.append((place, self._cycles(shared, overlay)))
        for shared, members in groups.values():
            self._figures(shared, overlays, members, found)
        return found  # type: ignore[return-value]

    def _sites(self, overlay: Overlay) -> Resources:
        key = (_sites_of(overlay), _masters(overlay))
        known = self.sites.get(key)
        if known is None:
            known = self.sites[key] = estimate(overlay).total
        return known

    def _program_key(self, overlay: Overlay) -> Hashable:
        # The DDR's peak rate, in bytes a cycle, is all that a mapping sees of the clock.
        return (_rows_of(overlay), _masters(overlay), budget_of(overlay, self.board).memory_rate)

    def _program(self, key: Hashable, overlay: Overlay) -> _Shared | Infeasible:
        known = self.programs.get(key)
        if known is None:
            if len(self.programs) >= self.keep:
                self.programs.pop(next(iter(self.programs)))
            known = self.programs[key] = self._lower(overlay)
        return known

    def _lower(self, overlay: Overlay) -> _Shared | Infeasible:
        graph, board = self.graph, self.board
        mapping = choose_mapping(graph, overlay, phases(graph), board, self.tiles)
        if len(self.tiles) > MOST_TILES:
            self.tiles.clear()
        if isinstance(mapping, Infeasible):
            return mapping
        lowered = lower(graph, overlay, board, mapping, steps=graph.steps)
        moved = layer_bytes(lowered.program)
        return _Shared(lowered, count(lowered.program, moved, overlay), moved,
                       recurrence.prepare(lowered.program))

    def _cycles(self, shared: _Shared, overlay: Overlay) -> int:
        key = (overlay.clock_hz, overlay.masters)
        known = shared.cycles.get(key)
        if known is None:
            known = shared.cycles[key] = self._time(shared, overlay)
        return known

    def _time(self, shared: _Shared, overlay: Overlay) -> int:
        if shared.prepared is not None:
            host = [self._host_cycles(item, overlay.clock_hz) for item in shared.lowered.host_ns]
            total = recurrence.total_cycles(shared.prepared, self._table(overlay), host)
            if total is not None:
                return total
        program = retimed(shared.lowered, overlay, self.board).program
        return fast.simulate(program, memory_for(self.board, overlay, MEMORY)).total_cycles

    def _host_cycles(self, time_ns: float, clock_hz: int) -> int:
        key = (time_ns, clock_hz)
        known = self.host.get(key)
        if known is None:
            known = self.host[key] = host_cycles(time_ns, clock_hz)
        return known

    def _table(self, overlay: Overlay) -> np.ndarray:
        key = (overlay.clock_hz, overlay.masters, overlay.engines, overlay.fetch)
        known = self.tables.get(key)
        if known is None:
            units = wire(overlay, self.board).units
            memory = memory_for(self.board, overlay, MEMORY)
            known = self.tables[key] = fast.unit_table(units, memory)[0]
        return known

    def _figures(self, shared: _Shared, overlays: Sequence[Overlay],
                 members: Sequence[tuple[int, int]],
                 found: list[Figures | Infeasible | None]) -> None:
        """Energy of designs that share program and packing: one sum over arrays of times."""
        places = [place for place, _ in members]
        first = overlays[places[0]]
        cycles = np.array([each for _, each in members], np.int64)
        clocks = np.array([overlays[place].clock_hz for place in places], np.int64)
        seconds = cycles / clocks
        spent = work_energy(shared.lowered.program, shared.moved, shared.counts, first,
                            self.board, cycles, seconds)
        latency = (seconds * MILLISECONDS).tolist()
        energy = np.broadcast_to(spent.total_j / self.pixels * MICROJOULES, len(places)).tolist()
        resources = estimated_resources(first, self.board, self._sites(first))
        for index, place in enumerate(places):
            found[place] = Figures(int(cycles[index]), latency[index], energy[index], resources)


def _masters(overlay: Overlay) -> tuple[tuple, ...]:
    """What rows and sites depend on of the masters."""
    return tuple((item.name, item.role, item.width_bits) for item in overlay.masters)


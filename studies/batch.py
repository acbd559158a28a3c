"""Evaluates many designs of one graph with `flat`, and does what equal designs share only once.

It predicts nothing of its own: latency, energy and resources equal those of `evaluate`, to the
last bit. What it leaves out are the units' times and the traffic by layer.

Shared, from the outside in: sites by everything but clock, ports and limits; tile searches by
(layer, buffers and rates); places of tensors by fusions, engines and layout; a lowered program by
everything but clock, ports, limits and packing; the last cycle by program, clock and masters;
energy as one sum over arrays of times.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines import Resources
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, Master, Overlay
from arch_models.resources import check_clock, check_masters, check_sites, estimate
from cosim import fast
from cosim.lower import Lowered, host_cycles, lower, retimed
from cosim.mapping import Known, choose_mapping, memory_rate
from cosim.placement import KnownPlaces
from cosim.program import layer_bytes
from cosim.recurrence import Prepared, Timer, prepare
from cosim.wiring import units_of
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


@dataclass(frozen=True)
class Grid:
    """Figures of designs that differ in packing P, clock C and masters M only.

    `latency_cycles`: int64 (C, M), -1 where infeasible; `energy_j`: (P, C, M), NaN there.
    `reasons[p, c, m]`: why a design is infeasible.
    """

    latency_cycles: np.ndarray
    energy_j: np.ndarray
    reasons: dict[tuple[int, int, int], Infeasible]


@dataclass
class _Shared:
    """One lowered program and what is known of it."""

    lowered: Lowered
    counts: Counts
    moved: np.ndarray
    prepared: Prepared | None
    cycles: dict[Hashable, int] = field(default_factory=dict)


class Batch:
    """The evaluator of one graph on one board; it keeps the last `keep` lowered programs."""

    def __init__(self, graph: Graph, board: Board, keep: int = 32) -> None:
        self.graph, self.board, self.keep = graph, board, keep
        self.pixels = pixels(graph)
        self.timer = Timer()
        self.tiles: Known = {}
        self.places: KnownPlaces = {}
        self.sites: dict[Hashable, Resources] = {}
        self.programs: dict[Hashable, _Shared | Infeasible] = {}
        self.tables: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}
        self.host: dict[tuple[float, int], int] = {}

    def evaluate(self, overlays: Iterable[Overlay]) -> list[Figures | Infeasible]:
        """Figures of each design, in order. Fast when designs that share a program are together."""
        return [self._one(overlay) for overlay in overlays]

    def _one(self, overlay: Overlay) -> Figures | Infeasible:
        found = self.grid(overlay, (overlay.dsp_packing,), (overlay.clock_hz,),
                          (overlay.masters,))
        if found.reasons:
            return found.reasons[0, 0, 0]
        cycles, joules = int(found.latency_cycles[0, 0]), float(found.energy_j[0, 0, 0])
        return Figures(cycles, cycles / overlay.clock_hz * MILLISECONDS,
                       joules / self.pixels * MICROJOULES,
                       estimated_resources(overlay, self.board, self._sites(overlay)))

    def grid(self, overlay: Overlay, packings: Sequence[bool], clocks_hz: Sequence[int],
             masters: Sequence[tuple[Master, ...]]) -> Grid:
        """Figures of the overlay with each packing, clock and set of masters.

        The sets may differ in ports and limits, not in roles. Raises `FieldError` for a port that
        the board does not have.
        """
        shape = (len(clocks_hz), len(masters))
        cycles = np.full(shape, -1, np.int64)
        energy = np.full((len(packings), *shape), np.nan)
        reasons: dict[tuple[int, int, int], Infeasible] = {}
        ports = [check_masters(item, self.board) for item in masters]
        rates = [check_clock(item, self.board) for item in clocks_hz]
        designs = [replace(overlay, dsp_packing=item, masters=masters[0]) for item in packings]
        sites = [check_sites(self._sites(item), self.board) for item in designs]
        rows = _rows_of(overlay)
        programs: dict[int, tuple[_Shared, np.ndarray]] = {}
        for place in np.ndindex(shape):
            clock, master = place
            misfit = ports[master] or rates[clock]
            failed: list[Infeasible | None] = [misfit or item for item in sites]
            if not all(failed):
                shared = self._program(rows, overlay, clocks_hz[clock], masters[master])
                if isinstance(shared, Infeasible):
                    failed = [item or shared for item in failed]
                else:
                    cycles[place] = self._cycles(shared, overlay, clocks_hz[clock],
                                                 masters[master])
                    _, chosen = programs.setdefault(id(shared), (shared, np.zeros(shape, bool)))
                    chosen[place] = True
            reasons |= {(index, *place): item for index, item in enumerate(failed) if item}
        seconds = cycles / np.array(clocks_hz, np.int64)[:, None]
        for shared, chosen in programs.values():
            for index, design in enumerate(designs):
                if sites[index] is None:
                    energy[index, chosen] = work_energy(
                        shared.lowered.program, shared.moved, shared.counts, design, self.board,
                        cycles[chosen], seconds[chosen]).total_j
        return Grid(cycles, energy, reasons)

    def _sites(self, overlay: Overlay) -> Resources:
        key = (_sites_of(overlay), _roles(overlay.masters))
        known = self.sites.get(key)
        if known is None:
            known = self.sites[key] = estimate(overlay).total
        return known

    def _program(self, rows: Hashable, overlay: Overlay, clock_hz: int,
                 masters: tuple[Master, ...]) -> _Shared | Infeasible:
        key = (rows, _roles(masters), memory_rate(masters, clock_hz, self.board))
        known = self.programs.get(key)
        if known is None:
            known = self._lower(rows, replace(overlay, clock_hz=clock_hz, masters=masters))
            self._remember(key, known)
        return known

    def _remember(self, key: Hashable, shared: _Shared | Infeasible) -> None:
        if len(self.programs) >= self.keep:
            self.programs.pop(next(iter(self.programs)))
        self.programs[key] = shared

    def _lower(self, rows: Hashable, overlay: Overlay) -> _Shared | Infeasible:
        graph, board = self.graph, self.board
        if len(self.tiles) > MOST_TILES:
            self.tiles.clear()
        mapping = choose_mapping(graph, overlay, phases(graph), board, self.tiles)
        if isinstance(mapping, Infeasible):
            return mapping
        # Where the DDR's peak rate binds, most clocks still lead to the same tiles.
        key = (rows, _roles(overlay.masters),
               *((item.engine, item.tile) for item in mapping.layers))
        known = self.programs.get(key)
        if known is None:
            lowered = lower(graph, overlay, board, mapping, steps=graph.steps, places=self.places)
            moved = layer_bytes(lowered.program)
            known = _Shared(lowered, count(lowered.program, moved, overlay), moved,
                            prepare(lowered.program))
            self._remember(key, known)
        return known

    def _cycles(self, shared: _Shared, overlay: Overlay, clock_hz: int,
                masters: tuple[Master, ...]) -> int:
        key = (clock_hz, masters)
        known = shared.cycles.get(key)
        if known is None:
            known = shared.cycles[key] = self._time(
                shared, overlay, clock_hz, masters)
        return known

    def _time(self, shared: _Shared, overlay: Overlay, clock_hz: int,
              masters: tuple[Master, ...]) -> int:
        if shared.prepared is not None:
            key = (clock_hz, masters, overlay.engines, overlay.fetch)
            table = self.tables.get(key)
            if table is None:
                table = self.tables[key] = self._table(
                    replace(overlay, clock_hz=clock_hz, masters=masters))
            total = self.timer.total_cycles(
                shared.prepared, *table,
                [self._host_cycles(item, clock_hz) for item in shared.lowered.host_ns])
            if total is not None:
                return total
        design = replace(overlay, clock_hz=clock_hz, masters=masters)
        program = retimed(shared.lowered, design, self.board).program
        return fast.simulate(program, memory_for(self.board, design, MEMORY)).total_cycles

    def _host_cycles(self, time_ns: float, clock_hz: int) -> int:
        known = self.host.get((time_ns, clock_hz))
        if known is None:
            known = self.host[time_ns, clock_hz] = host_cycles(time_ns, clock_hz)
        return known

    def _table(self, overlay: Overlay) -> tuple[np.ndarray, np.ndarray]:
        """The unit table and the numbers of its settings."""
        units = fast.unit_table(units_of(overlay, self.board),
                                memory_for(self.board, overlay, MEMORY))[0]
        return units, self.timer.settings(units)


def _roles(masters: tuple[Master, ...]) -> tuple[tuple, ...]:
    """What rows and sites depend on of the masters."""
    return tuple((item.name, item.role, item.width_bits) for item in masters)

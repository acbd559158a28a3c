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
from arch_models.clock import clocked
from arch_models.engines import Resources
from arch_models.literature import Origin
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, Master, Overlay
from arch_models.power.energy import total_joules
from arch_models.resources import check_clock, check_masters, check_sites, needed
from cosim.build import Builder
from cosim.executors import fast
from cosim.lowering.host_times import host_cycles
from cosim.lowering.lower import Lowered, retimed
from cosim.lowering.wiring import units_of
from cosim.mapping.choose import memory_rate
from cosim.program.table import layer_bytes
from cosim.recurrence.cpu import Prepared, Timer, prepare
from cosim.recurrence.cuda import CudaTimer, Job
from cosim.recurrence.lanes import Lanes, Steps, lanes_of, linearize
from studies.evaluation.activity import Counts, count
from studies.evaluation.evaluate import estimated_resources, pixels
from studies.evaluation.values import MICROJOULES, MILLISECONDS, Resource
from workloads.graph import Graph

MEMORY = "flat"
#: Fields that no row of a program depends on, and those that no site depends on.
_UNTIMED = frozenset({"name", "clock_hz", "rate", "build", "dsp_packing", "masters",
                      "headroom"})
_UNSITED = frozenset({"name", "clock_hz", "rate", "masters", "control", "layout", "backend",
                      "pipelines", "headroom"})
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
    `sites`, `rates`, `ports`: what does not fit by packing, clock and masters; `roles`: of the
    masters; `unmapped`: why there is no program, by clock and roles.
    """

    latency_cycles: np.ndarray
    energy_j: np.ndarray
    sites: list[Infeasible | None]
    rates: list[Infeasible | None]
    ports: list[Infeasible | None]
    roles: list[Hashable]
    unmapped: dict[tuple[int, Hashable], Infeasible]

    def reason(self, packing: int, clock: int, masters: int) -> Infeasible | None:
        """Why a design is infeasible, None if it is not."""
        return (self.ports[masters] or self.rates[clock] or self.sites[packing]
                or self.unmapped.get((clock, self.roles[masters])))


@dataclass
class _Shared:
    """One lowered program and what is known of it."""

    lowered: Lowered
    counts: Counts
    prepared: Prepared | None
    steps: Steps | None
    cycles: dict[Hashable, int] = field(default_factory=dict)


class Batch:
    """The evaluator of one graph on one board; it keeps the last `keep` lowered programs.

    With `gpu` a grid's designs are timed there, all at once; the figures are the same.
    """

    def __init__(self, graph: Graph, board: Board, keep: int = 32,
                 gpu: CudaTimer | None = None) -> None:
        self.graph, self.board, self.keep, self.gpu = graph, board, keep, gpu
        self.lanes: dict[Hashable, Lanes] = {}
        self.units: dict[Hashable, np.ndarray] = {}
        self.pixels = pixels(graph)
        self.timer = Timer()
        self.builder = Builder(graph, board)
        self.sites: dict[Hashable, Resources] = {}
        self.programs: dict[Hashable, _Shared | Infeasible] = {}
        self.tables: dict[Hashable, tuple[np.ndarray, np.ndarray]] = {}
        self.host: dict[tuple[float, int], int] = {}

    def evaluate(self, overlays: Iterable[Overlay]) -> list[Figures | Infeasible]:
        """Figures of each design, in order. Fast when designs that share a program are together."""
        return [self._one(overlay) for overlay in overlays]

    def _one(self, overlay: Overlay) -> Figures | Infeasible:
        overlay = clocked(overlay, self.board)
        found = self.grid(overlay, (overlay.dsp_packing,), (overlay.clock_hz,),
                          (overlay.masters,))
        reason = found.reason(0, 0, 0)
        if reason is not None:
            return reason
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
        ports = [check_masters(item, self.board) for item in masters]
        rates = [check_clock(item, self.board) for item in clocks_hz]
        designs = [replace(overlay, dsp_packing=item, masters=masters[0]) for item in packings]
        sites = [check_sites(self._sites(item), self.board, item.headroom)
                 if item.origin is Origin.OWN else None for item in designs]
        roles: list[Hashable] = [_roles(item) for item in masters]
        members: dict[Hashable, list[int]] = {}
        for index, role in enumerate(roles):
            if ports[index] is None:
                members.setdefault(role, []).append(index)
        unmapped: dict[tuple[int, Hashable], Infeasible] = {}
        rows = _rows_of(overlay)
        programs: dict[int, tuple[_Shared, np.ndarray]] = {}
        for clock in [] if all(sites) else range(len(clocks_hz)):
            for role, places in members.items() if rates[clock] is None else ():
                shared = self._program(rows, overlay, clocks_hz[clock], masters[places[0]])
                if isinstance(shared, Infeasible):
                    unmapped[clock, role] = shared
                else:
                    _, chosen = programs.setdefault(id(shared), (shared, np.zeros(shape, bool)))
                    chosen[clock, places] = True
        self._fill(cycles, list(programs.values()), overlay, clocks_hz, masters)
        hertz = np.broadcast_to(np.array(clocks_hz, np.int64)[:, None], cycles.shape)
        for shared, chosen in programs.values():
            for index, design in enumerate(designs):
                if sites[index] is None:
                    energy[index, chosen] = total_joules(
                        shared.counts.activity(cycles[chosen], hertz[chosen]), design, self.board)
        return Grid(cycles, energy, sites, rates, ports, roles, unmapped)

    def _sites(self, overlay: Overlay) -> Resources:
        key = (_sites_of(overlay), _roles(overlay.masters))
        known = self.sites.get(key)
        if known is None:
            known = self.sites[key] = needed(overlay)
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
        mapping = self.builder.mapping(overlay)
        if isinstance(mapping, Infeasible):
            return mapping
        # Where the DDR's peak rate binds, most clocks still lead to the same tiles.
        key = (rows, _roles(overlay.masters),
               *((item.engine, item.tile) for item in mapping.layers))
        known = self.programs.get(key)
        if known is None:
            lowered = self.builder.lower(overlay, mapping)
            if isinstance(lowered, Infeasible):
                self._remember(key, lowered)
                return lowered
            moved = layer_bytes(lowered.program)
            prepared = prepare(lowered.program)
            steps = None
            if prepared is not None and self.gpu is not None:
                steps = linearize(prepared, len(lowered.program.units))
            known = _Shared(lowered, count(lowered, moved, overlay), prepared,
                            steps)
            self._remember(key, known)
        return known

    def _fill(self, cycles: np.ndarray, programs: list[tuple[_Shared, np.ndarray]],
              overlay: Overlay, clocks_hz: Sequence[int],
              masters: Sequence[tuple[Master, ...]]) -> None:
        """Write the cycles of every program's chosen designs; a GPU takes what it can."""
        jobs: list[Job] = []
        places: list[np.ndarray] = []
        rest = [(shared, chosen.ravel()) for shared, chosen in programs]
        if self.gpu is not None and programs:
            lanes = self._lanes(overlay, clocks_hz, masters,
                                np.any([chosen for _, chosen in programs], axis=0))
            for index, (shared, chosen) in enumerate(rest):
                if shared.steps is not None:
                    places.append(np.flatnonzero(chosen & lanes.alone))
                    jobs.append(Job(shared.steps, np.array(
                        [[self._host_cycles(item, clock) for item in shared.lowered.host_ns]
                         for clock in clocks_hz], np.int64), places[-1]))
                    rest[index] = shared, chosen & ~lanes.alone
            for place, found in zip(places, self.gpu.total_cycles(lanes, jobs), strict=True):
                cycles.reshape(-1)[place] = found
        for shared, chosen in rest:
            for clock, master in np.argwhere(chosen.reshape(cycles.shape)).tolist():
                cycles[clock, master] = self._cycles(shared, overlay, clocks_hz[clock],
                                                     masters[master])

    def _lanes(self, overlay: Overlay, clocks_hz: Sequence[int],
               masters: Sequence[tuple[Master, ...]], chosen: np.ndarray) -> Lanes:
        """The lanes of a grid, clock by clock. A unit's row follows from its master and the clock,
        so a table is made only for sets of masters that hold one not seen before."""
        usable: list[int] = np.flatnonzero(chosen.any(axis=0)).tolist()
        key = (tuple(clocks_hz), tuple(masters), tuple(usable), overlay.engines, overlay.fetch)
        known = self.lanes.get(key)
        if known is not None:
            return known
        names = {unit.name: place for place, unit in enumerate(
            units_of(replace(overlay, masters=masters[usable[0]]), self.board))}
        blank = self._units(replace(overlay, masters=masters[usable[0]]))
        units = np.tile(blank, (len(clocks_hz), len(masters), 1))
        for index in usable:
            mine = [item for item in masters[index] if item.name in names]
            keys = [(tuple(clocks_hz), item) for item in mine]
            if not all(item in self.units for item in keys):
                table = np.stack([self._units(replace(overlay, clock_hz=clock,
                                                      masters=masters[index]))
                                  for clock in clocks_hz])
                self.units |= {item: table[:, names[item[1].name]] for item in keys}
            for item in keys:
                units[:, index, names[item[1].name]] = self.units[item]
        clocks = np.repeat(np.arange(len(clocks_hz)), len(masters))
        if len(self.lanes) >= self.keep:
            self.lanes.pop(next(iter(self.lanes)))
        known = self.lanes[key] = lanes_of(units.reshape(-1, units.shape[2]), clocks)
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
        units = self._units(overlay)
        return units, self.timer.settings(units)

    def _units(self, overlay: Overlay) -> np.ndarray:
        return fast.unit_table(units_of(overlay, self.board),
                               memory_for(self.board, overlay, MEMORY))[0]


def _roles(masters: tuple[Master, ...]) -> tuple[tuple, ...]:
    """What rows and sites depend on of the masters."""
    return tuple((item.name, item.role, item.width_bits) for item in masters)

"""Designs that share a program: those that differ in ports, limits, starts and layouts.

It chooses no buffers. The bound is the program on private ports, each as quick as the quickest of
the board, with the highest limits: on these the end of every operation follows from others by `max`
and `+` alone, so that a port that is shared, a lower limit and a slower memory come no earlier.
docs/proof.md has the reasons.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import fields, replace
from typing import NamedTuple

from arch_models.board import Board
from arch_models.memory import Memory, Port, memory_for
from arch_models.overlay import Infeasible, Overlay
from arch_models.power.energy import Sites
from cosim.build import Builder
from cosim.executors import fast
from cosim.mapping.tiles import Mapping
from cosim.program.table import Program, UnitKind
from studies.certify.boxes import Box, fewest_starts
from studies.certify.goals import Point
from studies.certify.joules import Joules
from studies.certify.parts import PORTS
from studies.search.space import Choice, Value
from studies.search.space_overlays import overlay_of

LIMITS = ("read_outstanding", "write_outstanding")
READERS = ("input_port", "input_port_2", "weight_port", "fetch_port")
#: Axes that no row of a program depends on, but for the addresses of `layout`.
LATE = (*PORTS, *LIMITS, "start", "layout")


class Timed(NamedTuple):
    """A bound for all designs of a box, and a design of the box that comes near it."""

    cycles: int
    point: Point
    choice: Choice
    box: Box


class Programs:
    """Bounds of boxes in which only ports, limits, starts and layouts are open."""

    def __init__(self, builder: Builder, base: Overlay, joules: Joules | None) -> None:
        self.builder, self.base, self.joules = builder, base, joules
        self._cycles: dict[Hashable, int] = {}

    @property
    def board(self) -> Board:
        """The board of the designs."""
        return self.builder.board

    def bounds(self, box: Box, sites: Sites, share: float) -> list[Timed]:
        """One for each layout, and for energy each way to start; none where nothing can be built.

        `sites`, `share`: what all designs need at least.
        """
        starts: tuple[Value | None, ...] = box.values("start")
        if self.joules is None:
            starts = tuple(fewest_starts(box).values())
        found = []
        for layout, start in itertools.product(box.values("layout") or (None,), starts or (None,)):
            sides = {name: (value,) for name, value in (("layout", layout), ("start", start))
                     if value is not None}
            timed = self._bound(box.narrowed(**sides), sites, share)
            if timed is not None:
                found.append(timed)
        return found

    def _bound(self, box: Box, sites: Sites, share: float) -> Timed | None:
        """Of a box with one layout."""
        choice = box.design(quickest_way(box))
        overlay = overlay_of(choice, self.base, self.board)
        mapping = self.builder.mapping(overlay)
        if isinstance(mapping, Infeasible):
            return None
        key = made_of(overlay, mapping)
        if self.joules is None and key in self._cycles:
            cycles, uj = self._cycles[key], 0.0
        else:
            lowered = self.builder.lower(overlay, mapping)
            if isinstance(lowered, Infeasible):
                return None
            cycles = int(fast.simulate(*private(lowered.program, memory_for(
                self.board, overlay, "flat"))).total_cycles)
            uj = self.joules.of_program(lowered, cycles, overlay, sites) if self.joules else 0.0
            self._cycles[key] = cycles
        return Timed(cycles, Point(cycles / overlay.clock_hz * 1e3, uj, share), choice, box)


def highest(box: Box) -> dict[str, Value]:
    """The highest limits of the box."""
    return {name: max(box.values(name)) for name in LIMITS if box.values(name)}


def quickest_way(box: Box) -> dict[str, Value]:
    """The highest limits, and ports that no two readers share if there are."""
    names = [name for name in PORTS if box.values(name) and box.may_have(box.root.axis(name))]
    readers = [index for index, name in enumerate(names) if name in READERS]
    ways = itertools.product(*(box.values(name) for name in names))
    best = min(ways, key=lambda way: -len({way[index] for index in readers}), default=())
    return {**highest(box), **dict(zip(names, best, strict=True))}


def made_of(overlay: Overlay, mapping: Mapping) -> Hashable:
    """What the cycles of a program on private ports follow from. Fusions and engines that no layer
    has make no row, and a unit without rows keeps nobody waiting; where masters are at does not
    count, but their width does."""
    engines = frozenset(item.engine for item in mapping.layers if item.engine)
    return (mapping.layers, *(tuple(item.items()) for item in (
                mapping.kept, mapping.bands, mapping.layouts.channels)), engines,
            tuple(replace(item, port="") for item in overlay.masters),
            *(getattr(overlay, item.name) for item in fields(overlay)
              if item.name not in ("name", "fusions", "engines", "masters")))


def private(program: Program, memory: Memory) -> tuple[Program, Memory]:
    """The program with a port for each master, as wide as its own and as quick as the quickest."""
    ports: list[Port] = []
    units = []
    for unit in program.units:
        if unit.kind == UnitKind.COMPUTE:
            units.append(unit)
            continue
        units.append(replace(unit, port=len(ports)))
        ports.append(replace(
            memory.ports[unit.port],
            read_latency_cycles=min(item.read_latency_cycles for item in memory.ports),
            write_latency_cycles=min(item.write_latency_cycles for item in memory.ports),
            write_lead_cycles=min(item.write_lead_cycles for item in memory.ports)))
    return replace(program, units=tuple(units)), Memory("flat", tuple(ports))

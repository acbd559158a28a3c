"""Ways of a program: each choice of ports and limits that differs, run until it is surely late.

Under the DDR3 memory a port that is shared or a lower limit may come earlier, so that no way bounds
another: what tables do not exclude is run, each way once. docs/proof.md has the reasons.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil, inf
from typing import NamedTuple

import numpy as np

from arch_models.board import BoardPort
from arch_models.memory import MemoryParameterError, memory_for
from arch_models.overlay import Infeasible, Master, Overlay, Role
from cosim.analysis.behind import Chains
from cosim.build import Builder
from cosim.executors import fast
from cosim.executors.alike import alike, program_alike
from cosim.executors.fast import unit_table
from cosim.lowering.lower import Lowered
from cosim.lowering.wiring import units_of
from cosim.memory.bursts import FAR
from cosim.recurrence.cpu import Timer
from studies.certify.boxes import Box
from studies.certify.parts import PORTS
from studies.certify.runs.programs import LIMITS, highest, private
from studies.search.space import Choice, Value
from studies.search.space_overlays import overlay_of

#: The axis of the limit of writes.
WRITTEN = LIMITS[1]
#: Names and values of some axes.
Chosen = tuple[tuple[str, Value], ...]


class Early(NamedTuple):
    """A way that takes less than is allowed."""

    choice: Choice
    ms: float


class Way(NamedTuple):
    """What is alike for some ports and limits, and one of these choices."""

    chosen: Chosen
    wired: fast.Wired


@dataclass
class Ways:
    """Ways of programs on one board; what they share is kept. `_late`: of programs all of whose
    ways take so long or longer."""

    builder: Builder
    base: Overlay
    model: str
    timer: Timer = field(default_factory=Timer)
    _kinds: dict[Hashable, list[Chosen]] = field(default_factory=dict)
    _ways: dict[Hashable, list[Way]] = field(default_factory=dict)
    _late: dict[Hashable, float] = field(default_factory=dict)

    def early(self, box: Box, most_ms: Callable[[], float], best_ms: Callable[[], float]
              ) -> Iterator[Early]:
        """Of designs that differ in ports, limits, layouts and starts: one of each way that takes
        less than `most_ms`, which may fall meanwhile. The first of all, and what follows one that
        was early, may take `best_ms`."""
        asked = best_ms
        for program in self.programs(box):
            if most_ms() <= self._late.get(program.alike, 0.0):
                continue
            found = list[Early]()
            for way in self._early(program, most_ms, best_ms, asked):
                found.append(way)
                yield way
            if not found:
                self._late[program.alike] = most_ms()
            asked = most_ms

    def programs(self, box: Box) -> Iterator[WaysOf]:
        """Those of each layout and each way to start, without ports and limits, that can be built.
        """
        for start in box.parts("start") or [box]:
            mapping = self.builder.mapping(self._overlay(start))  # whatever the layout
            if isinstance(mapping, Infeasible):
                continue
            for part in start.parts("layout") or [start]:
                overlay = self._overlay(part)
                lowered = self.builder.lower(overlay, mapping)
                if not isinstance(lowered, Infeasible):
                    yield WaysOf(self, part, overlay, lowered)

    def _overlay(self, box: Box) -> Overlay:
        return overlay_of(box.design(highest(box)), self.base, self.builder.board)

    def _early(self, timed: WaysOf, most_ms: Callable[[], float], best_ms: Callable[[], float],
               asked: Callable[[], float]) -> Iterator[Early]:
        """`asked`: of the first way."""
        clock_hz = timed.overlay.clock_hz
        needed: dict[Chosen, int] = {}  # by ports and the limit of reads, of writes
        for limits in timed.limits():
            if timed.late(limits, first_late(most_ms(), clock_hz)):
                continue
            for way in self.ways(timed.box, timed.overlay, limits):
                written = int(dict(way.chosen).get(WRITTEN, 0))
                same = tuple(item for item in way.chosen if item[0] != WRITTEN)
                if needed.get(same, inf) <= written:
                    continue
                found, needed[same] = timed.run(way, limits, first_late(asked(), clock_hz))
                if found is not None:
                    yield Early(timed.box.design(dict(way.chosen)), found / clock_hz * 1e3)
                asked = most_ms if found is None else best_ms

    def ways(self, box: Box, overlay: Overlay, limits: Chosen) -> list[Way]:
        """One of all ports that are alike, with some limits. `overlay`: any design of the box."""
        names = tuple(name for name in PORTS
                      if box.values(name) and box.may_have(box.root.axis(name)))
        sides = tuple((name, box.values(name)) for name in names)
        key = (sides, limits, _without_ways(overlay), overlay.engines, overlay.clock_hz)
        if key not in self._ways:
            found: dict[Hashable, Way] = {}
            for ports in self._different(sides):
                way = self._way(overlay, (*ports, *limits))
                if way is not None:
                    found.setdefault(*way)
            self._ways[key] = list(found.values())
        return self._ways[key]

    def _different(self, sides: tuple[tuple[str, tuple[Value, ...]], ...]) -> list[Chosen]:
        """One of all choices of ports of equal kinds, shared alike."""
        if sides not in self._kinds:
            found: dict[Hashable, Chosen] = {}
            for values in itertools.product(*(each for _, each in sides)):
                ports = [self.builder.board.port(str(value)) for value in values]
                found.setdefault(_kind(ports), tuple(
                    (name, value) for (name, _), value in zip(sides, values, strict=True)))
            self._kinds[sides] = list(found.values())
        return self._kinds[sides]

    def _way(self, overlay: Overlay, chosen: Chosen) -> tuple[Hashable, Way] | None:
        """A way, and what ways that are alike have in common; None where two masters of one port
        have other widths: there is no such design."""
        design = with_ways(overlay, dict(chosen))
        try:
            memory = memory_for(self.builder.board, design, self.model)
        except MemoryParameterError:
            return None
        units = units_of(design, self.builder.board)
        return alike(units, memory), Way(chosen, fast.wire(units, memory))


@dataclass
class WaysOf:
    """A program without its ways, and what is known of all of them."""

    owner: Ways
    box: Box
    overlay: Overlay
    lowered: Lowered

    def __post_init__(self) -> None:
        memory = memory_for(self.owner.builder.board, self.overlay, "flat")
        self.program, self.memory = private(self.lowered.program, memory)
        self._alone: dict[Chosen, tuple[int, np.ndarray | None]] = {}

    @cached_property
    def loaded(self) -> fast.Loaded:
        """As it is run."""
        return fast.load(self.lowered.program)

    @cached_property
    def chains(self) -> Chains | None:
        """Of operations on private ports; none where `alike` tells that no way is to be run."""
        return Chains.of(self.program)

    @cached_property
    def alike(self) -> Hashable:
        """Equal for programs that take the same times, way by way."""
        return (program_alike(self.program), self.overlay.clock_hz, _without_ways(self.overlay),
                *map(self.box.values, (*PORTS, *LIMITS)))

    def limits(self) -> list[Chosen]:
        """All limits of the box, the highest first."""
        names = [name for name in LIMITS if self.box.values(name)]
        return [tuple(zip(names, values, strict=True)) for values in itertools.product(
            *(sorted(self.box.values(name), reverse=True) for name in names))]

    def alone(self, limits: Chosen) -> tuple[int, np.ndarray | None]:
        """With these limits on private ports: (cycles of the frame, behind each operation), at
        least; 0 and None if nothing is known."""
        if limits not in self._alone:
            units = units_of(with_ways(self.overlay, dict(limits)), self.owner.builder.board)
            table = unit_table([replace(new, port=old.port) for new, old in zip(
                units, self.program.units, strict=True)], self.memory)[0]
            self._alone[limits] = ((0, None) if self.chains is None
                                   else self.chains.behind(table, self.owner.timer))
        return self._alone[limits]

    def late(self, limits: Chosen, first: int) -> bool:
        """Do these limits alone take `first` or more, as some higher ones may that were asked?"""
        return any(cycles >= first and all(
            int(mine) <= int(theirs) for (_, mine), (_, theirs) in zip(limits, known, strict=True))
            for known, (cycles, _) in self._alone.items()) or self.alone(limits)[0] >= first

    def run(self, way: Way, limits: Chosen, first: int) -> fast.Ended:
        """Its cycles, None if it takes `first` or more."""
        behind = self.alone(limits)[1]
        latest = (np.full(self.program.operation_count, FAR) if behind is None or first >= FAR
                  else first - 1 - behind)
        found = fast.simulate_until(self.loaded, way.wired, latest)
        late = found.cycles is None or found.cycles >= first
        return fast.Ended(None, found.needed) if late else found


def with_ways(overlay: Overlay, chosen: dict[str, Value]) -> Overlay:
    """The design with other ports and limits of its masters, where they are given."""
    return replace(overlay, masters=tuple(replace(
        item, port=str(chosen.get(_axis(item.name), item.port)),
        outstanding=int(chosen.get(LIMITS[item.role is Role.OUTPUT], item.outstanding)))
        for item in overlay.masters))


def _without_ways(overlay: Overlay) -> tuple[Master, ...]:
    return tuple(replace(item, port="", outstanding=0) for item in overlay.masters)


def _axis(master: str) -> str:
    """The axis of a master's port."""
    return "input_port_2" if master == "input_2" else f"{master}_port"


def _kind(ports: Sequence[BoardPort]) -> Hashable:
    """Equal for ports of equal figures, of which the same share a port, or one of the controller's.
    """
    names = [port.name for port in ports]
    numbers = [port.ddr_port for port in ports]
    return tuple((replace(port, name="", ddr_port=0), names.index(port.name),
                  numbers.index(port.ddr_port)) for port in ports)


def first_late(most_ms: float, clock_hz: int) -> int:
    """The least cycles that take so long or longer."""
    if most_ms == inf:
        return int(FAR)
    found = ceil(most_ms * clock_hz / 1e3)
    while found / clock_hz * 1e3 >= most_ms:
        found -= 1
    while found / clock_hz * 1e3 < most_ms:
        found += 1
    return found

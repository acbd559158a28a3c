"""Lower bounds of latency for every box of a space, and how a box is cut into smaller ones.

It searches nothing: `branch` looks for the best design with these bounds, `certificate` checks them
again. Each bound comes with the rule that gave it; docs/proof.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines import engines_that_run
from arch_models.literature import Origin
from arch_models.overlay import Engine, Overlay
from cosim.build import Builder
from cosim.mapping.choose import work_of
from studies.certify.boxes import Box
from studies.certify.floors import Floors
from studies.certify.parts import PORTS, Parts
from studies.certify.programs import LATE, Programs, Timed
from studies.certify.sizes import BANKS, WORDS, Sizes
from studies.certify.tables import NEVER, Tables
from studies.plain.errors import UserError
from studies.search.space import WORKLOAD, Space
from workloads.graph import Graph

#: Axes in the order in which boxes are cut; those that are not named come behind the last.
FIRST = ("tm", "tn", "columns", "dsp_packing", "requantize_cycles",
         "fabric_elementwise", "fabric_norm", "fabric_grid_sample", "fabric_softmax",
         "fabric_lookup", "fuse_add", "fuse_pool", "fuse_upsample")
LAST = ("input_masters", "port_width_bits", "fetch")
#: Axes that a table leaves open.
OPEN = (*WORDS, *BANKS, *LATE)
SITES = ("dsp", "bram36", "lut", "ff")


class Rule(StrEnum):
    """What excludes a box."""

    SITES = "sites"  # every design needs more sites than the part has
    LAYERS = "layers"  # the layers' floor, at the fastest clock
    MAPPED = "mapped"  # the same with the layouts of the mapping
    TABLE = "table"  # each size of the buffers by itself


class Bound(NamedTuple):
    """No design of a box is faster, by this rule; infinite if none can be built."""

    ms: float
    rule: Rule


def gap(best_ms: float, bound_ms: float) -> float:
    """How much slower a design is than a bound, as a part of its latency."""
    return max(0.0, 1 - bound_ms / best_ms)


class Open(NamedTuple):
    """Designs that a table does not exclude: one layout, all ports and limits."""

    bound_ms: float
    timed: Timed


@dataclass(frozen=True)
class Question:
    """Whose latency is bounded: a network, a board, and designs around a base.

    `workload`, `board_name`: how network and board were named. `UserError` for what no bound is
    known of.
    """

    graph: Graph
    board: Board
    base: Overlay
    space: Space
    workload: str = ""
    board_name: str = ""

    def __post_init__(self) -> None:
        names = {axis.name for axis in self.space.axes}
        if WORKLOAD in names:
            raise UserError("--prove takes one network; leave the axis 'workload' out of the space")
        if self.base.origin is not Origin.OWN:
            raise UserError("--prove knows our own hardware only, not a design of the literature")
        if self.base.build:
            raise UserError(f"--prove predicts clocks; the design names the build "
                            f"{self.base.build!r}, leave it out")
        for layer in self.graph.layers:
            engines = [model.engine for model in engines_that_run(work_of(self.graph, layer))
                       if model.engine is Engine.CONVOLUTION
                       or True in Box(self.space).values(f"fabric_{model.engine.value}")]
            if len(engines) > 1:
                raise UserError(
                    f"--prove has no bound for layer {layer.name!r}, which may run on "
                    f"{' or '.join(engines)}; put fabric_{engines[-1]} = false into --space FILE")


class Bounds:
    """The bounds of one question; what boxes share is worked out once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.parts = Parts(question.board, question.base)
        self.floors = Floors(question.graph, question.board, question.base)
        self.tables = Tables(question.graph, question.board, self.parts, self.floors)
        self.programs = Programs(Builder(question.graph, question.board), question.base)
        names = [axis.name for axis in question.space.axes]
        middle = [name for name in names if name not in (*FIRST, *LAST, *OPEN)]
        self.order = tuple(name for name in (*FIRST, *middle, *LAST) if name in names)
        self._known: dict[object, tuple[list[Bound], Iterator[Bound]]] = {}
        #: Boxes that were bounded one by one, and sizes that were bounded in tables.
        self.count = self.in_tables = 0

    def cut(self, box: Box) -> list[Box]:
        """Smaller boxes that together are the box; none if a table is made of it."""
        for name in self.order:
            if name in box.open:
                return box.parts(name)
        for name in PORTS:
            if name in box.open:
                widths: dict[int | None, list] = {}
                for port in box.values(name):
                    wide = self.parts.width(box.design({name: port}), name)
                    widths.setdefault(wide, []).append(port)
                if len(widths) > 1:
                    return [box.narrowed(**{name: tuple(ports)}) for ports in widths.values()]
        return []

    def bound(self, box: Box, enough_ms: float = inf) -> Bound:
        """The first bound that is at least `enough_ms`, else the tightest without a table.

        What was asked before does not change the answer.
        """
        if box.sides not in self._known:
            self.count += 1
            self._known[box.sides] = [], self._bounds(box)
        found, rest = self._known[box.sides]
        for item in found:
            if item.ms >= enough_ms:
                return item
        try:
            for item in rest:
                found.append(item)
                if item.ms >= enough_ms:
                    return item
        except BaseException:
            del self._known[box.sides]  # a signal ends the generator: begin anew
            raise
        return max(found)

    def _bounds(self, box: Box) -> Iterator[Bound]:
        """Bounds of a box, the quickest to work out first."""
        least, part = self.parts.least(box), self.question.board.part
        free = 1 - self.question.base.headroom
        if any(getattr(least, kind) > getattr(part, kind) * free for kind in SITES):
            yield Bound(inf, Rule.SITES)
            return
        clock = self.parts.ceiling_hz(box, least)
        yield Bound(self.floors.floor(box).ms(clock), Rule.LAYERS)
        if any(name in box.open for name in self.order if name not in LAST):
            return
        yield Bound(self.tables.floor_ms(box, clock), Rule.MAPPED)
        if not self.cut(box):
            clock = self.tables.clock_hz(box)
            yield (Bound(self.tables.floor_ms(box, clock), Rule.MAPPED) if clock
                   else Bound(inf, Rule.SITES))

    def opened(self, box: Box, enough_ms: float) -> list[tuple[float, Box]]:
        """Of a box that is not cut: boxes of equal programs that its table does not exclude."""
        table, sizes = self.tables.table(box, enough_ms), Sizes.of(box, self.question.base)
        self.in_tables += table.cycles.size
        ms = np.where(table.cycles == NEVER, inf,
                      table.cycles / np.maximum(1, table.rates_hz) * 1e3 * (1 - 1e-12))
        places = np.argwhere(ms < enough_ms)
        found: dict[int, tuple[float, Box]] = {}
        for place in map(tuple, places.tolist()):
            kind = int(table.kinds[place])
            if kind not in found:
                sides = {name: (value,) for name, value in sizes.fields(place).items()
                         if box.values(name)}
                found[kind] = float(ms[place]), box.narrowed(**sides)
        return sorted(found.values(), key=lambda item: (item[0], item[1].sides))

    def programs_of(self, box: Box) -> list[Open]:
        """The bounds of a box of equal programs, one for each layout."""
        return [Open(timed.cycles / timed.clock_hz * 1e3, timed)
                for timed in self.programs.bounds(box)]

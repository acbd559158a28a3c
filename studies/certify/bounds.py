"""Lower bounds of the figures of every box of a space, and how a box is cut into smaller ones.

It searches nothing: `branch` looks for the best design with these bounds, `certificate` checks them
again. Each bound comes with the rule that gave it; docs/proof.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.engines import Resources
from arch_models.literature import Origin
from arch_models.overlay import Engine, Overlay
from arch_models.power.energy import Sites
from arch_models.units import ROUNDING
from cosim.build import Builder
from cosim.lowering.host_times import host_cycles
from cosim.mapping.tiles import LayerMapping
from studies.certify.boxes import PACE, Box
from studies.certify.floors import MOVERS, Floors
from studies.certify.goals import NEVER, POWERED, Aim, Bar, Point
from studies.certify.joules import Joules
from studies.certify.layers import TIMED, Layers, engines_of, idle_fusions
from studies.certify.parts import PORTS, Parts
from studies.certify.runs.programs import LATE, Programs, Timed
from studies.certify.runs.ways import Early, Ways
from studies.certify.sizes import BANKS, WORDS, Sizes
from studies.certify.tables import Table, Tables
from studies.certify.times import banked
from studies.certify.times.ordered import all_in_turn, turn
from studies.certify.untiled import Whole, widest
from studies.plain.errors import UserError
from studies.search.space import WORKLOAD, Space
from workloads.graph import Graph

#: Axes in the order in which boxes are cut (`PACE` last if nobody asks for energy); those that are
#: not named come behind the last.
FIRST = ("tm", "tn", "columns", "dsp_packing", PACE,
         "fabric_elementwise", "fabric_norm", "fabric_grid_sample", "fabric_softmax",
         "fabric_lookup", "fuse_add", "fuse_pool", "fuse_upsample")
LAST = ("input_masters", "port_width_bits", "fetch")
#: Axes that a table leaves open.
OPEN = (*WORDS, *BANKS, *LATE)
#: Axes that change no layer but sites and clocks; where nobody asks for energy, several of their
#: values share a table.
FETCHED = ("fetch", "fetch_port")
SITES = ("dsp", "bram36", "lut", "ff")


class Rule(StrEnum):
    """What excludes a box."""

    SITES = "sites"  # every design needs more sites than the part has
    LAYERS = "layers"  # the layers' floor, at the fastest clock
    MAPPED = "mapped"  # the same with the layouts of the mapping
    BANKED = "banked"  # each size of the buffers by itself, whatever the tiles and masters
    TABLE = "table"  # each size of the buffers by itself
    WAYS = "ways"  # the same, and what is left way by way: each is simulated


class Bound(NamedTuple):
    """No design of a box has less, by this rule; infinite if none can be built."""

    point: Point
    rule: Rule


class Opened(NamedTuple):
    """Designs of equal programs that a table does not exclude: their least figures and sites, and
    the box of those among them that have the least."""

    point: Point
    box: Box
    sites: Sites


@dataclass(frozen=True)
class Question:
    """What is bounded, and of whom: a network, a board, and designs around a base.

    `aims`: what is to be small. `memory`: the memory model of latency and energy, `flat` or
    `ddr3`. `workload`, `board_name`: how network and board were named. `UserError` for what no
    bound is known of.
    """

    graph: Graph
    board: Board
    base: Overlay
    space: Space
    aims: tuple[Aim, ...] = (Aim.LATENCY,)
    memory: str = "flat"
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

    @property
    def by_ways(self) -> bool:
        """Are programs that no bound excludes simulated way by way? Where latency alone counts, on
        a memory on which sharing and limits do not just add."""
        return self.aims == (Aim.LATENCY,) and self.memory != "flat"


class Bounds:
    """The bounds of one question; what boxes share is worked out once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        graph, board = question.graph, question.board
        self.joules = (Joules(graph, board, question.memory) if POWERED & set(question.aims)
                       else None)
        self.parts = Parts(board, question.base)
        self.floors = Floors(graph, self.parts)
        self.tables = Tables(graph, self.floors, self.joules)
        self.rough = Rough(self.tables)
        self.programs = Programs(Builder(graph, board), question.base, self.joules)
        self._ways = (Ways(self.programs.builder, question.base, question.memory)
                      if question.by_ways else None)
        names = [axis.name for axis in question.space.axes]
        middle = [name for name in names if name not in (*FIRST, *LAST, *OPEN)]
        self._shared = () if self.joules else FETCHED
        idle = () if self.joules else idle_fusions(graph, question.space)
        self.order = tuple(name for name in (*FIRST, *middle, *LAST)
                           if name in names and name not in (*self._shared, *idle)
                           and (self.joules or name != PACE))
        self._known: dict[object, tuple[list[Bound], Iterator[Bound]]] = {}
        #: Boxes that were bounded one by one, and sizes that were bounded in tables.
        self.count = self.in_tables = 0

    def cut(self, box: Box) -> list[Box]:
        """Smaller boxes that together are the box; none if a table is made of it."""
        for name in self.order:
            if name in box.open:
                return box.parts(name)
        for name in PORTS:
            if name in box.open and name not in self._shared:
                parts = self.parts.by_width(box, name)
                if len(parts) > 1:
                    return parts
        return box.parts(PACE) if PACE in box.open and self.parts.keeps(box) else []

    def built(self, box: Box) -> list[Box]:
        """Of a box that is not cut any more, or by `PACE` alone: parts each of which has one set of
        sites for each size; those of one pace lie together."""
        found = box.parts(PACE) if PACE in box.open else [box]
        for name in self._shared:
            found = [part for whole in found for part in (
                [whole] if name not in whole.open else whole.parts(name) if name not in PORTS
                else self.parts.by_width(whole, name))]
        return found

    def bound(self, box: Box, bar: Bar) -> Bound:
        """The first bound that clears the bar, else the tightest without a table.

        What was asked before does not change the answer.
        """
        if box.sides not in self._known:
            self.count += 1
            self._known[box.sides] = [], self._bounds(box)
        found, rest = self._known[box.sides]
        for item in found:
            if bar.cleared(item.point):
                return item
        try:
            for item in rest:
                if found:  # every bound holds, so the greater of each figure does
                    item = Bound(item.point.raised(found[-1].point), item.rule)
                found.append(item)
                if bar.cleared(item.point):
                    return item
        except BaseException:
            del self._known[box.sides]  # a signal ends the generator: begin anew
            raise
        return found[-1]

    def _bounds(self, box: Box) -> Iterator[Bound]:
        """Bounds of a box, the quickest to work out first."""
        least, part = self.parts.least(box), self.question.board.part
        free = 1 - self.question.base.headroom
        share = max(getattr(least, kind) / getattr(part, kind) for kind in SITES)
        if any(getattr(least, kind) > getattr(part, kind) * free for kind in SITES):
            yield Bound(NEVER, Rule.SITES)
            return
        clock = self.parts.ceiling_hz(box, least)
        ms = float(self.floors.floor(box).ms(clock))
        yield Bound(Point(ms, 0.0, share), Rule.LAYERS)
        if self.joules is not None:
            yield Bound(Point(ms, self.floors.joules(self.joules, box, clock), share), Rule.LAYERS)
        if not any(name in box.open for name in self.order if name not in LAST):
            yield from self._closer(box, clock)

    def _closer(self, box: Box, ceiling_hz: int, rule: Rule = Rule.MAPPED) -> Iterator[Bound]:
        """Bounds that know how layers are mapped, from this rule on: at the fastest clock of all,
        then, once nothing but the pace is left to cut, at those of each size."""
        if rule is Rule.MAPPED:
            yield Bound(self.tables.floor(box, ceiling_hz), Rule.MAPPED)
        if self.joules is None:
            yield Bound(Point(self.rough.ms_up_to(box, ceiling_hz)), Rule.BANKED)
        if any(part.values(PACE) == box.values(PACE) for part in self.cut(box)):
            return
        parts = self.built(box)
        clock = max(map(self.tables.clock_hz, parts))
        yield (Bound(self.tables.floor(box, clock), Rule.MAPPED) if clock
               else Bound(NEVER, Rule.SITES))
        if clock and self.joules is None:
            yield Bound(Point(self.rough.ms(box, parts)), Rule.BANKED)

    def again(self, box: Box, rule: Rule | None, bar: Bar) -> Bound:
        """As `bound`, but first what a rule says: which one is named changes only the time."""
        if (rule in (Rule.MAPPED, Rule.BANKED) and self.question.aims == (Aim.LATENCY,)
                and not any(name in box.open for name in self.order if name not in LAST)):
            ceiling_hz = self.parts.ceiling_hz(box, self.parts.least(box))
            for item in self._closer(box, ceiling_hz, rule):
                if bar.cleared(item.point):
                    return item
        return self.bound(box, bar)

    def opened(self, box: Box, bar: Bar) -> list[Opened]:
        """Of a box that is not cut: designs of equal programs that its table does not exclude."""
        found = list[Opened]()
        for _, parts, known in self._by_pace(box, bar):
            tables = self.tables.tables(parts, bar, self.rough.cycles, None, known)
            found += [item for part, table in zip(parts, tables, strict=True)
                      for item in self._left(part, table, bar)]
        return sorted(found, key=lambda item: (item.point, item.box.sides))

    def paces(self, box: Box, bar: Bar) -> list[tuple[Point, Box]]:
        """The paces of a box that one table of all does not exclude, with their least."""
        found = []
        for own, _, tables in self._by_pace(box, bar):
            least = Point(min(float(table.points.ms.min()) for table in tables))
            if bar.cleared(least):
                self.in_tables += sum(table.cycles.size for table in tables)
            else:
                found.append((least, own))
        return found

    def _by_pace(self, box: Box, bar: Bar) -> Iterator[tuple[Box, list[Box], list[Table]]]:
        """Each pace of a box, its parts, and what one table says of them if there are several."""
        known = (self.tables.tables(self.built(box), bar, self.rough.cycles, box)
                 if PACE in box.open else [])
        for own in box.parts(PACE) if known else [box]:
            parts = self.built(own)
            yield own, parts, known[:len(parts)]
            known = known[len(parts):]

    def _left(self, box: Box, table: Table, bar: Bar) -> Iterator[Opened]:
        points, sizes = table.points, Sizes.of(box, self.question.base)
        self.in_tables += points.ms.size
        left = np.flatnonzero(~bar.cleared(points))
        ms, uj, share, kinds = (np.broadcast_to(values, sizes.shape).reshape(-1)[left]
                                for values in (*points, table.kinds))
        order = np.lexsort((left, share, uj, kinds))
        for mine in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1) if len(left) else ():
            place = tuple(map(int, np.unravel_index(left[mine[0]], sizes.shape)))
            sides = {name: (value,) for name, value in sizes.fields(place).items()
                     if box.values(name)}
            least = Point(*(float(values[mine].min()) for values in (ms, uj, share)))
            sites = (tuple((name, _least_sites(part, sizes.shape, left[mine]))
                           for name, part in table.built.sites) if self.joules else ())
            yield Opened(least, box.narrowed(**sides), sites)

    def programs_of(self, item: Opened) -> list[Timed]:
        """The bounds of designs of equal programs (`Programs.bounds`)."""
        return self.programs.bounds(item.box, item.sites, item.point.share)

    @property
    def last(self) -> Rule:
        """What excludes boxes that are not cut."""
        return Rule.TABLE if self._ways is None else Rule.WAYS

    def early(self, box: Box, bar: Callable[[], Bar], best: Callable[[], Bar] | None = None
              ) -> Iterator[Early]:
        """Of designs of one program, where they are simulated way by way: one of each way that does
        not clear the bar, which may fall meanwhile. `best`: a bar above it, that some may reach
        for."""
        assert self._ways is not None
        return self._ways.early(box, *(partial(_least_ms, each) for each in (bar, best or bar)))


def _least_ms(bar: Callable[[], Bar]) -> float:
    """Of the only aim."""
    return min((row[0] for row in bar().rows), default=inf)


def _least_sites(part: Resources, shape: tuple[int, ...], places: np.ndarray) -> Resources:
    """Of a part whose sites are arrays, at some places."""
    return Resources(*(np.broadcast_to(getattr(part, kind), shape).reshape(-1)[places].min()
                       for kind in SITES))


class Rough:
    """Bounds every size whatever the tiles, by one walk over the layers with the widest masters and
    the quickest pace: a program whose transfers take longer ends no sooner."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.parts, self.floors = tables, tables.parts, tables.floors
        self._fits: dict[Hashable, np.ndarray] = {}

    def ms(self, box: Box, parts: Sequence[Box]) -> float:
        """No design of the box has less; 0 where nothing is known, infinite where nothing can be
        built. `parts`: together the box, each with one set of sites for each size.

        What decides how layers are mapped must not be open: array, engines and fusions.
        """
        sizes = Sizes.of(box, self.parts.base)
        every = [self.tables.builds.of(part, sizes) for part in parts]
        rates = np.unique(np.concatenate([built.rates_hz[built.feasible] for built in every]))
        return self._least_ms(box, rates.tolist(), lambda rate_hz: np.logical_or.reduce([
            built.feasible & (built.rates_hz == rate_hz) for built in every]))

    def ms_up_to(self, box: Box, clock_hz: int) -> float:
        """The same where any size that may fit may have any clock up to this one."""
        fits = self.tables.builds.may_fit(box, Sizes.of(box, self.parts.base))
        rates = [rate for rate in self.parts.board.clocks.rates_hz if rate < clock_hz]
        return self._least_ms(box, [*rates, clock_hz], lambda _: fits)

    def _least_ms(self, box: Box, rates_hz: list[int], at: Callable[[int], np.ndarray]) -> float:
        """`rates_hz`: ascending; `at`: the sizes that may have one."""
        least = inf
        for rate_hz in reversed(rates_hz):
            if self.tables.floor(box, rate_hz).ms >= least:  # nor is any slower one below
                break
            cycles = self.cycles(box, rate_hz)
            if cycles is None:
                return 0.0
            ms = float(cycles[at(rate_hz)].min(initial=inf)) / rate_hz * 1e3
            least = min(least, ms * (1 - ROUNDING))
        return least

    def cycles(self, box: Box, clock_hz: int) -> np.ndarray | None:
        """Of every size at one clock; None where nothing is known."""
        sizes, found = Sizes.of(box, self.parts.base), self.tables.untiled(box)
        widest = self._widest(box, sizes)
        if found is None or widest is None or self.parts.keeps(box):
            return None
        layers = self.tables.layers(found, replace(widest, clock_hz=clock_hz), sizes)
        whole, turns = found.whole, []
        total: Any = sum(host_cycles(step.time_ns, clock_hz) * step.alone for step in whole.steps)
        for item, cycles in zip(whole.items, found.least, strict=True):
            least, times = banked.least(layers, item, cycles), self.tables.repeats(item)
            total = total + times * least
            turns.append((times, *turn(layers, item, least)))
        total = np.maximum(total, all_in_turn(layers, turns, whole.steps))
        return self._moved(box, layers, whole, np.broadcast_to(total, sizes.shape))

    def _moved(self, box: Box, layers: Layers, whole: Whole, cycles: np.ndarray) -> np.ndarray:
        """The same where layers move for want of room: there the floor of the box holds."""
        lost, maybe = np.zeros(cycles.shape), inf
        for item in whole.items:
            if item.name in whole.movable:
                away = self.floors.away(box, item.name, layers.overlay.clock_hz)
                fits = self._where(layers, item)
                if fits is None:
                    maybe = min(maybe, away)
                else:
                    lost = np.maximum(lost, np.where(fits, 0, away))
        return np.minimum(np.where(lost > 0, lost, cycles), maybe)

    def _where(self, layers: Layers, item: LayerMapping) -> np.ndarray | None:
        """The sizes at which a layer has a tile on its engine, whatever masters and clock; None
        where another engine may run it, or the array does."""
        overlay, layouts = layers.overlay, layers.chooser.layouts
        if item.engine is Engine.CONVOLUTION or len(engines_of(
                layers.graph, layers.graph.layer(item.name), overlay)) > 1:
            return None
        key = (item.name, item.inputs, layers.sizes,
               tuple(getattr(overlay, name) for name in TIMED if name != "clock_hz"),
               tuple((layouts.channels.get(name), layouts.counts.get(name))
                     for name in (*item.inputs, item.output)))
        if key not in self._fits:
            self._fits[key] = layers.chosen(item) == layers.place_of(item)
        return self._fits[key]

    def _widest(self, box: Box, sizes: Sizes) -> Overlay | None:
        """The design with the most, the widest and the largest; None where none has all."""
        overlay = widest(self.parts, box, dict(sizes.largest))
        rates = tuple(sum(item.width_bits for item in overlay.masters_of(role)) / 8
                      for role in MOVERS)
        return overlay if rates == tuple(self.floors.rates(box)) else None

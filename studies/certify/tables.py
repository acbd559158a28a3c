"""The least latency of a network for every size of the buffers at once, tiles and all.

It looks at boxes in which only buffers, ports, limits, starts and layouts are left open. The tiles
are those that the mapping would choose; each layer takes what it takes alone
(`cosim.analysis.alone`), and layers and steps of the processor lie one behind the other.

Sizes and banks of a box span a table: axes (banks, input, weight, output, accumulator words).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from math import inf
from typing import NamedTuple

import numpy as np

from arch_models.board import Board
from arch_models.clock import rate_hz, rows_of
from arch_models.overlay import NOMINAL_CLOCK_HZ, Engine, Infeasible, Overlay, Rate
from arch_models.resources import block_design, estimate
from arch_models.units import ROUNDING
from cosim.analysis.hosts import host_steps
from cosim.build import phases
from cosim.engines import SLICES
from cosim.engines.base import Mapped
from cosim.engines.convolution_search import search
from cosim.lowering.lower import host_cycles
from cosim.mapping.choose import Chooser, Known
from cosim.mapping.tiles import LayerMapping
from studies.certify.boxes import Box
from studies.certify.floors import Floors
from studies.certify.layers import Layers, sized
from studies.certify.parts import Parts
from studies.certify.sizes import BANKS, WORDS, Sizes, resized
from studies.search.space import CLOCK, Choice
from studies.search.space_overlays import rate_hz as named_hz
from workloads.graph import Graph, Phase

#: Buffers by the axes of their words and banks, and their memory in `clock.Rows`.
GROUPS = (("input_words", "input_banks", 0), ("weight_words", "weight_banks", 2),
          ("output_words", "output_banks", 1), ("accumulator_words", "", 3))
KINDS = ("dsp", "bram36", "lut", "ff")
#: Axes that decide how layers are mapped, besides those of engines.
MAPPED = ("tm", "tn", "columns", "requantize_cycles", "fuse_pool", "fuse_upsample", "fuse_add",
          "parameter_entries", "vector_entries", "table_bytes", *WORDS, *BANKS)
#: Of designs that cannot be built or mapped.
NEVER = np.iinfo(np.int64).max


class Table(NamedTuple):
    """Bounds by banks and words. `cycles`: of the frame, `NEVER` where nothing can be built;
    `rates_hz`: the clock of each design. Designs of one of the `kinds` have one clock, equal banks
    and equal tiles, so that their programs are equal; -1: tiles were not looked at."""

    cycles: np.ndarray
    rates_hz: np.ndarray
    kinds: np.ndarray


class Tables:
    """Makes tables of one network on one board, and keeps what layers of equal shape take."""

    def __init__(self, graph: Graph, board: Board, parts: Parts, floors: Floors) -> None:
        self.graph, self.board, self.parts, self.floors = graph, board, parts, floors
        self.known: dict[Hashable, int] = {}
        self._tiles: Known = {}
        self._floors: dict[Hashable, tuple[int, float, tuple[str, ...]]] = {}

    def table(self, box: Box, enough_ms: float) -> Table:
        """The table of a box; where even its floor takes `enough_ms`, tiles are not looked at."""
        sizes = Sizes.of(box, self.parts.base)
        feasible, rates = self._built(box, sizes)
        cycles, kinds = np.full(sizes.shape, NEVER), np.full(sizes.shape, -1)
        floor = self.floors.floor(box)
        for clock in np.unique(rates[feasible]).tolist():
            there = feasible & (rates == clock)
            if floor.ms(clock) >= enough_ms:
                cycles[there] = floor.at(clock)
            else:
                found, alike = self._mapped(box, sizes, clock, there, enough_ms)
                cycles[there] = found[there]
                kinds[there] = alike[there] + (1 + kinds.max())
        return Table(cycles, rates, kinds)

    def floor_ms(self, box: Box, clock_hz: int) -> float:
        """No design of the box takes less at up to this clock: its layers in order, each as long
        as its engine takes whatever the tile. Where a layer moves to the processor for want of
        room, the floor of the box holds, with that layer there.

        What decides how layers are mapped must not be open: array, engines and fusions.
        """
        cycles, host_ns, movable = self._untiled(box)
        floor = self.floors.floor(box)
        moved = min((floor.at(clock_hz) + self.floors.moved(box, name, clock_hz)
                     for name in movable), default=NEVER)
        least = min(cycles + host_ns * clock_hz / 1e9, moved)
        return least / clock_hz * 1e3 * (1 - ROUNDING)

    def clock_hz(self, box: Box) -> int:
        """The fastest clock of the designs that the board holds; 0 if it holds none."""
        feasible, rates = self._built(box, Sizes.of(box, self.parts.base))
        return int(rates[feasible].max()) if feasible.any() else 0

    def _untiled(self, box: Box) -> tuple[int, float, tuple[str, ...]]:
        """Cycles of all engines and time of the processor, and the layers that move there where
        buffers are smallest. What fits the smallest fits all."""
        key = tuple(side for side in box.sides if side[0] in MAPPED or "fabric_" in side[0])
        known = self._floors.get(key)
        if known is None:
            sizes = Sizes.of(box, self.parts.base)
            overlay = self.overlay(box.design({**sizes.largest}), NOMINAL_CLOCK_HZ)
            chooser = self.chooser(overlay)
            mapping = chooser.run()
            if isinstance(mapping, Infeasible):
                known = NEVER, inf, ()
            else:
                fabric = [item for item in mapping.layers if item.engine is not None]
                work = [SLICES[item.engine].least(Mapped(
                    self.graph, overlay, chooser.layouts, self.graph.layer(item.name), item))
                    for item in fabric if item.engine is not None]
                known = (sum(self._repeats(item) * one.untiled_cycles
                             for item, one in zip(fabric, work, strict=True)),
                         sum(step.time_ns * step.alone for step in
                             host_steps(self.graph, overlay, self.board, mapping)),
                         tuple(item.name for item in fabric if not self._must_map(item)
                               and self._moves(item, chooser, sizes)))
            self._floors[key] = known
        return known

    def _moves(self, item: LayerMapping, chooser: Chooser, sizes: Sizes) -> bool:
        """Has a layer no tile in the smallest buffers?"""
        small = sized(chooser, self.board, resized(chooser.overlay, {
            name: values[0] for name, values in zip(WORDS, sizes.words, strict=True)}))
        assert item.engine is not None
        if item.engine is Engine.CONVOLUTION:
            return bool(search(chooser.shapes[item.name], small.budget)[0] < 0)
        found = SLICES[item.engine].tile(small, self.graph.layer(item.name))
        return isinstance(found, Infeasible) or found.engine is None

    def _repeats(self, item: LayerMapping) -> int:
        return self.graph.steps if item.phase is Phase.STEP else 1

    def overlay(self, choice: Choice, clock_hz: int) -> Overlay:
        """The overlay of a choice at a clock."""
        return replace(self.parts.overlay(choice), clock_hz=clock_hz, rate=Rate.FIXED)

    # --- sites and clocks ------------------------------------------------------------------

    def _built(self, box: Box, sizes: Sizes) -> tuple[np.ndarray, np.ndarray]:
        """Which designs the part holds, and the clock of each."""
        plain = self.parts.overlay(box.design(sizes.fields((0,) * 5)))
        needed = estimate(plain).total + block_design(plain)
        sites = {kind: np.full(sizes.shape, float(getattr(needed, kind))) for kind in KINDS}
        rows = np.zeros(sizes.shape, np.int64)
        numbers: dict[Hashable, int] = {}
        for axis, (words, banks, memory) in enumerate(GROUPS):
            for word, size in enumerate(sizes.words[axis]):
                for count in sorted({item[axis] for item in sizes.banks}) if banks else (0,):
                    one = resized(plain, {words: size} | ({banks: count} if banks else {}))
                    more = estimate(one).total
                    there = np.array([not banks or item[axis] == count for item in sizes.banks])
                    place = (there, *(word if index == axis else slice(None)
                                      for index in range(4)))
                    for kind in KINDS:
                        sites[kind][place] += (getattr(more, kind)
                                               - getattr(needed, kind)
                                               + getattr(block_design(plain), kind))
                    row = numbers.setdefault(rows_of(one).memories[memory], len(numbers))
                    rows[place] = rows[place] * 64 + row
        free = 1 - self.parts.base.headroom
        feasible = np.all([sites[kind] <= getattr(self.board.part, kind) * free
                           for kind in KINDS], axis=0)
        return feasible, self._rates(box, sizes, feasible, rows, sites["lut"])

    def _rates(self, box: Box, sizes: Sizes, feasible: np.ndarray, rows: np.ndarray,
               lut: np.ndarray) -> np.ndarray:
        """Clocks; designs with equal rows of memories and equally many LUTs have one."""
        rates = np.zeros(sizes.shape, np.int64)
        known: dict[tuple[int, float], int] = {}
        fixed = self._fixed_hz(box)
        for place in np.argwhere(feasible).tolist():
            key = (int(rows[tuple(place)]), float(lut[tuple(place)]))
            if key not in known:
                choice = box.design(sizes.fields(tuple(place)))
                known[key] = fixed or rate_hz(self.parts.overlay(choice), self.board)
            rates[tuple(place)] = known[key]
        return rates

    def _fixed_hz(self, box: Box) -> int:
        """The clock that all designs of the box have; 0 if it is predicted."""
        if box.values(CLOCK):
            return named_hz(int(box.values(CLOCK)[0]), self.board)
        return self.parts.base.clock_hz if self.parts.base.rate is Rate.FIXED else 0

    # --- cycles ----------------------------------------------------------------------------

    def _mapped(self, box: Box, sizes: Sizes, clock_hz: int, there: np.ndarray,
                enough_ms: float) -> tuple[np.ndarray, np.ndarray]:
        """Cycles of the designs of one clock, and which of them have equal tiles."""
        overlay = self.overlay(box.design({**sizes.largest}), clock_hz)
        chooser = self.chooser(overlay)
        mapping = chooser.run()
        cycles = np.full(sizes.shape, NEVER)
        kinds = np.broadcast_to(np.arange(len(sizes.banks))[:, None, None, None, None],
                                sizes.shape)
        if isinstance(mapping, Infeasible):
            return cycles, kinds  # nor does it map with less
        layers = Layers(chooser, self.board, sizes, self.known)
        cycles[there] = sum(host_cycles(step.time_ns, clock_hz) * step.alone for step in
                            host_steps(self.graph, overlay, self.board, mapping))
        enough = enough_ms * clock_hz / 1e3 * (1 + ROUNDING)
        fabric = [item for item in mapping.layers if item.engine is not None]
        repeats = [self._repeats(item) for item in fabric]
        found = []
        moved = np.zeros(sizes.shape, np.int64)
        for item, times in zip(fabric, repeats, strict=True):
            least = layers.least(item, there)
            kinds = _both(kinds, least.kinds)
            lost = there & (least.cycles < 0)
            if self._must_map(item):
                there = there & ~lost
                cycles[lost] = NEVER
            moved[lost] += 1 + self.floors.moved(box, item.name, clock_hz)
            cycles[there] += times * np.maximum(0, least.cycles[there])
            found.append(least)
        # Where a layer moves to the processor others change too: only the floor is known.
        away = there & (moved > 0)
        kinds = np.where(away, kinds.max() + 1 + np.arange(kinds.size).reshape(kinds.shape), kinds)
        cycles[away] = self.floors.floor(box).at(clock_hz) + moved[away] - 1
        for item, times, least in zip(fabric, repeats, found, strict=True):
            open_ = there & ~away & (cycles < enough)
            alone = layers.alone(item, least, open_)
            cycles[open_] += times * (alone[open_] - least.cycles[open_])
        return cycles, kinds

    def _must_map(self, item: LayerMapping) -> bool:
        layer = self.graph.layer(item.name)
        return layer.operator.value == "convolution" and layer.window.groups == 1

    def chooser(self, overlay: Overlay) -> Chooser:
        """Chooses tiles; searches are kept."""
        return Chooser(self.graph, overlay, self.board, phases(self.graph), SLICES, self._tiles)


def _both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers of the pairs that two arrays of numbers make."""
    pairs = first * (int(second.max()) + 2) + second + 1
    return np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)

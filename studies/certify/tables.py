"""The least latency of a network for every size of the buffers at once, tiles and all.

It looks at boxes in which only buffers, ports, limits, starts and layouts are left open. The tiles
are those that the mapping would choose; each layer takes what it takes alone
(`cosim.analysis.alone`), and layers and steps of the processor lie one behind the other.

Sizes and banks of a box span a table: axes (banks, input, weight, output, accumulator words).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import numpy as np

from arch_models.engines import timing
from arch_models.overlay import NOMINAL_CLOCK_HZ, Engine, Infeasible, Overlay, Rate
from arch_models.units import ROUNDING
from cosim.analysis.hosts import HostStep, host_steps
from cosim.analysis.least import Least, unmoved
from cosim.build import phases
from cosim.engines import SLICES
from cosim.engines.base import Demand, Mapped
from cosim.engines.convolution_search import ConvolutionShape, search
from cosim.mapping.choose import Chooser, Known, work_of
from cosim.mapping.tiles import ConvolutionTile, LayerMapping
from studies.certify.boxes import PACE, Box, Sides, quickest
from studies.certify.floors import IMAGES, Floors
from studies.certify.goals import Bar, Point
from studies.certify.joules import Joules, span_of
from studies.certify.layers import Alike, Layers, alike, engines_of, must_map, sized
from studies.certify.parts import BROUGHT
from studies.certify.sizes import BANKS, KEPT, WORDS, Builds, Built, Sizes, resized
from studies.certify.times.banked import least
from studies.certify.times.kept import Kept
from studies.certify.times.turns import brings
from studies.certify.untiled import Each, Untiled, Whole, first_bytes
from studies.evaluation.activity import layer_weights
from workloads.graph import Graph, Phase

#: Axes that decide how layers are mapped, and when the processor works, besides those of engines.
MAPPED = frozenset({
    "tm", "tn", "columns", "requantize_cycles", "narrow_weights", "zero_points", "fuse_pool",
    "fuse_upsample", "fuse_add", "parameter_entries", "vector_entries", "table_bytes",
    "tensor_memory_kib", "start", *BROUGHT, *WORDS, *BANKS})
#: Of designs that cannot be built or mapped.
NEVER = np.iinfo(np.int64).max
Rougher = Callable[[Box, int], np.ndarray | None]  # of a box at a clock: cycles by size


class Table(NamedTuple):
    """Bounds by banks and words. `cycles`: of the frame, `NEVER` where nothing can be built; `uj`:
    energy, 0 where nobody asks. Designs of one of the `kinds` have one clock, equal banks and
    equal tiles, so that their programs are equal; -1: they clear the bar."""

    cycles: np.ndarray
    uj: np.ndarray
    kinds: np.ndarray
    built: Built

    def at(self, clock_hz: int) -> np.ndarray:
        """Where designs that the part holds have a clock."""
        return self.built.feasible & (self.built.rates_hz == clock_hz)

    @property
    def points(self) -> Point:
        """Figures at the least."""
        never = self.cycles == NEVER
        ms = np.where(never, inf, self.cycles) / np.maximum(1, self.built.rates_hz) * 1e3
        return Point(ms * (1 - 1e-12), np.where(never, inf, self.uj), self.built.share)


def _open(tables: Sequence[Table], clock_hz: int, bar: Bar) -> np.ndarray:
    """The sizes at which some design of a clock does not clear the bar."""
    return np.logical_or.reduce([table.at(clock_hz) & ~bar.cleared(table.points)
                                 for table in tables])


class Tables:
    """Tables of one network on one board; keeps what layers take. `joules` None: not of energy."""

    def __init__(self, graph: Graph, floors: Floors, joules: Joules | None) -> None:
        self.graph, self.board, self.parts = graph, floors.board, floors.parts
        self.floors, self.joules, self.builds = floors, joules, Builds(floors.parts)
        self.known: dict[Hashable, Any] = {}
        self._tiles: Known = {}
        self._floors: dict[Hashable, Untiled | None] = {}
        self._wholes: dict[Sides, Whole | None] = {}
        self._kept: dict[Hashable, Kept] = {}
        self.weights = layer_weights(graph.name)

    def tables(self, boxes: Sequence[Box], bar: Bar, rough: Rougher = lambda _, __: None,
               whole: Box | None = None, known: Sequence[Table] = ()) -> list[Table]:
        """Those of boxes whose designs differ in sites and clocks alone: in each clock their layers
        take the same time. `rough`: cycles at the least of the sizes of a box at a clock, if any
        are known without tiles. `whole`: what is said of each of the boxes holds of all of this
        one, of which `PACE` may be open. `known`: tables of the boxes that hold already."""
        whole = whole or boxes[0]
        sizes, floor = Sizes.of(whole, self.parts.base), self.floors.floor(whole)
        every = [self.builds.of(box, sizes) for box in boxes]
        found = list(known) or [Table(np.where(built.feasible, 0, NEVER), np.zeros(sizes.shape),
                                      np.full(sizes.shape, -1), built) for built in every]
        for clock in np.unique(np.concatenate([
                built.rates_hz[built.feasible] for built in every])).tolist():
            for box, table in zip(boxes, found, strict=True):
                there = table.at(clock)
                table.cycles[there] = np.maximum(table.cycles[there], floor.at(clock))
                table.uj[there] = (self.floors.joules(self.joules, box, clock) if self.joules
                                   else 0.0)
            asked = _open(found, clock, bar)
            least = rough(whole, clock) if asked.any() and not self.joules else None
            if least is not None:
                for table in found:
                    np.maximum(table.cycles, least, out=table.cycles, where=table.at(clock),
                               casting="unsafe")
                asked = _open(found, clock, bar)
            if asked.any():
                first = Table(np.minimum.reduce([
                    np.where(table.at(clock), table.cycles, NEVER) for table in found]),
                    found[0].uj, np.full(sizes.shape, -1), every[0]._replace(
                        rates_hz=np.full(sizes.shape, clock),
                        share=np.minimum.reduce([built.share for built in every])))
                closer = self._mapped(whole, sizes, clock, asked, bar, first)
                for table in found:
                    there = table.at(clock) & asked
                    table.cycles[there], table.uj[there] = closer.cycles[there], closer.uj[there]
                    new = there & (closer.kinds >= 0)
                    table.kinds[new] = closer.kinds[new] + (1 + table.kinds.max())
        return found

    def floor(self, box: Box, clock_hz: int) -> Point:
        """No design of the box has less at up to this clock: its layers in order, each as long
        as its engine takes whatever the tile. Where a layer moves to the processor for want of
        room, the floor of the box holds, with that layer there.

        What decides how layers are mapped must not be open: array, engines and fusions.
        """
        found = self.untiled(box)
        if found is None:
            return Point(inf, inf)
        whole = found.whole
        moved = min((self.floors.away(box, name, clock_hz) for name in whole.movable),
                    default=NEVER)
        alone_ns = sum(step.time_ns * step.alone for step in whole.steps)
        least = min(max(found.cycles + alone_ns * clock_hz / 1e9,
                        float(found.turns.least(clock_hz))), moved)
        ms = least / clock_hz * 1e3 * (1 - ROUNDING)
        if self.joules is None:
            return Point(ms)
        uj = self.joules.of_box(
            box, self.parts, whole.work,
            lambda clocks_hz: span_of(whole.steps, found.cycles / clocks_hz), clock_hz, True)
        if whole.movable:
            uj = min(uj, self.floors.joules(self.joules, box, clock_hz))
        return Point(ms, uj)

    def clock_hz(self, box: Box) -> int:
        """The fastest clock of the designs that the board holds; 0 if it holds none."""
        built = self.builds.of(box, Sizes.of(box, self.parts.base))
        return int(built.rates_hz[built.feasible].max()) if built.feasible.any() else 0

    def untiled(self, box: Box) -> Untiled | None:
        """What fits the smallest buffers fits all; None if not even the largest fit."""
        sides = tuple(side for side in box.sides
                      if side[0] in MAPPED or side[0].startswith("fabric_"))
        rates, bram36 = self.floors.rates(box), self.floors.bram36_of_weights(box)
        key = (rates, bram36, sides)
        if key not in self._floors:
            if sides not in self._wholes:  # who runs a layer follows from no master
                self._wholes[sides] = self._whole(Box(box.root, sides))
            whole = self._wholes[sides]
            self._floors[key] = None if whole is None else whole.at(rates, bram36)
        return self._floors[key]

    def _whole(self, box: Box) -> Whole | None:
        """Of the mapping with the largest buffers; None if there is none."""
        sizes, total = Sizes.of(box, self.parts.base), Least()
        chooser = self.chooser(self.overlay(box, sizes, NOMINAL_CLOCK_HZ))
        overlay, mapping = chooser.overlay, chooser.run()
        if isinstance(mapping, Infeasible):
            return None
        items, rows, brought = [], [], []
        cost = timing(overlay, Engine.CONVOLUTION, "convolution")
        for item in (each for each in mapping.layers if each.engine is not None):
            engine, layer = item.engine, self.graph.layer(item.name)
            assert engine is not None
            array = engine is Engine.CONVOLUTION
            if array:
                shape = chooser.shapes[item.name]
                assert isinstance(shape, ConvolutionShape)
                item = replace(item, tile=ConvolutionTile(
                    shape.out_words, shape.in_words, shape.conv_rows, shape.conv_columns, True,
                    False))
            mapped = Mapped(self.graph, overlay, chooser.layouts, layer, item)
            work, repeats = SLICES[engine].least(mapped), self.repeats(item)
            if engine in IMAGES:  # another tile may leave out what no window reads
                work = replace(work, load_bytes=0)
            # Loads and stores of a pair lie beside products.
            work, alone = _moved(work, overlay), not overlay.tensor_memory_kib
            cut = alone and self.must_map(item)
            items.append(item)
            rows.append((
                repeats, work.trips * cost.interval if cut else work.untiled_cycles,
                (cost.fill + cost.drain) * cut, work.load_bytes, work.store_bytes,
                first_bytes(mapped) if cut else 0.0, work.weight_bytes * (array and alone)))
            brought.append(brings(
                mapped if array else replace(mapped, item=replace(item, tile=None)), 1.0, 0))
            total = total.with_layer(work, repeats, self.weights.get(item.name, 1.0))
        return Whole(
            chooser, mapping, frozenset(banks[1] for banks in sizes.banks), tuple(items),
            Each(*np.array(rows, float).reshape(-1, len(Each._fields)).T), tuple(brought),
            not overlay.tensor_memory_kib, total,
            tuple(host_steps(self.graph, overlay, self.board, mapping)),
            tuple(item.name for item in items if not self.must_map(item)
                  and self._moves(item, chooser, sizes)))

    def _moves(self, item: LayerMapping, chooser: Chooser, sizes: Sizes) -> bool:
        """Has a layer no tile in the smallest buffers, or another engine that may cost less?"""
        if len(engines_of(self.graph, self.graph.layer(item.name), chooser.overlay)) > 1:
            return True
        small = sized(chooser, self.board, resized(chooser.overlay, {
            name: values[0] for name, values in zip(WORDS, sizes.words, strict=True)}))
        assert item.engine is not None
        if item.engine is Engine.CONVOLUTION:
            return bool(search(chooser.shapes[item.name], small.budget)[0] < 0)
        found = SLICES[item.engine].tile(small, self.graph.layer(item.name))
        return isinstance(found, Infeasible) or found.engine is None

    def repeats(self, item: LayerMapping) -> int:
        """How often a frame has a layer."""
        return self.graph.steps if item.phase is Phase.STEP else 1

    def overlay(self, box: Box, sizes: Sizes, clock_hz: int) -> Overlay:
        """The design of a box with the largest buffers and the fewest starts, at a clock."""
        choice = box.design({**sizes.largest, **quickest(box)})
        return replace(self.parts.overlay(choice), clock_hz=clock_hz, rate=Rate.FIXED)

    # --- cycles ----------------------------------------------------------------------------

    def _mapped(self, box: Box, sizes: Sizes, clock_hz: int, there: np.ndarray, bar: Bar,
                floor: Table) -> Table:
        """The designs of one clock. `floor`: what is known of them without tiles. Where `PACE` is
        open, tiles of the array are not looked at: each pace has its own."""
        untiled, paced = self.untiled(box), len(box.values(PACE)) > 1
        found = floor._replace(cycles=np.full(sizes.shape, NEVER))
        if untiled is None:
            return floor if paced else found  # nor does it map with less
        layers, mapping = self.layers(
            untiled, self.overlay(box, sizes, clock_hz), sizes), untiled.whole.mapping
        if paced and any(self.paced(item, layers.overlay) for item in mapping.layers):
            return floor
        for part in alike(layers, mapping, there.copy()):
            found = _both(found, _Frame(self, part, floor, not paced).table(bar))
        known = np.where(found.cycles == NEVER, floor.cycles, found.cycles)
        return floor._replace(cycles=known) if paced else found

    def layers(self, untiled: Untiled, overlay: Overlay, sizes: Sizes) -> Layers:
        """The layers of a mapping on a design with other masters or another clock."""
        like = untiled.whole.chooser
        chooser = sized(like, self.board, overlay)
        chooser.shapes = dict(like.shapes)
        return Layers(chooser, self.board, sizes, self.known)

    def paced(self, item: LayerMapping, overlay: Overlay) -> bool:
        """May a layer that others than the array can run take another time at another pace?"""
        layer, slowest = self.graph.layer(item.name), overlay.tm * overlay.columns
        slow, operator = resized(overlay, {PACE: slowest}), work_of(self.graph, layer).operator
        return not must_map(layer) and any(
            engine is Engine.CONVOLUTION or timing(overlay, engine, operator) != timing(
                slow, engine, operator) for engine in engines_of(self.graph, layer, overlay))

    def kept(self, layers: Layers, fabric: Sequence[LayerMapping], steps: tuple[HostStep, ...],
             arrays: bool) -> Kept:
        """What is known of layers in order, with their own tiles or whatever those of the array.
        Where energy is asked for, it is known of one box alone."""
        layers_in = [(item, self.repeats(item)) for item in fabric]
        found = Kept(layers, layers_in, steps, not layers.overlay.tensor_memory_kib)
        if self.joules is not None:
            return found
        key = (layers.array, steps, arrays, *(layers.like(item) for item in fabric))
        if key not in self._kept and len(self._kept) >= KEPT:
            del self._kept[next(iter(self._kept))]
        return self._kept.setdefault(key, found)

    def must_map(self, item: LayerMapping) -> bool:
        """As `layers.must_map`."""
        return must_map(self.graph.layer(item.name))

    def chooser(self, overlay: Overlay) -> Chooser:
        """Chooses tiles; searches are kept."""
        return Chooser(self.graph, overlay, self.board, phases(self.graph), SLICES, self._tiles)


def _moved(work: Demand, overlay: Overlay) -> Demand:
    """What a layer asks of DRAM at the least."""
    return unmoved(work) if overlay.tensor_memory_kib else work


class _Frame:
    """The designs of one clock by banks and words, looked at ever more closely where they do not
    clear the bar: convolutions whatever their tile, then with the tile that each size has; other
    layers with their tile; at last each layer alone."""

    def __init__(self, tables: Tables, part: Alike, floor: Table, arrays: bool) -> None:
        """`arrays`: are tiles of convolutions looked at, too?"""
        layers, mapping, there = part
        self.tables, self.layers, self.there = tables, layers, there
        self.floor, self.uj, self.arrays = floor, floor.uj, arrays
        self.fabric = [item for item in mapping.layers if item.engine is not None]
        self.kept = tables.kept(layers, self.fabric, tuple(host_steps(
            tables.graph, layers.overlay, tables.board, mapping)), arrays)

    def table(self, bar: Bar) -> Table:
        """What is known of them at the end."""
        pairs, kept = bool(self.layers.overlay.tensor_memory_kib), self.kept
        late = [number for number, item in enumerate(self.fabric) if self.tables.must_map(item)
                and not pairs and self.tables.joules is None]
        early = [number for number in range(len(self.fabric)) if number not in late]
        for number in late:
            if number not in kept.tiled:
                kept.lift(number, least(self.layers, self.fabric[number], 0))
        self._tile(early, bar)
        if not pairs:  # of which a layer need not take what it takes alone
            self._alone(early, bar)
        if self.arrays:
            self._tile(late, bar)
            self._alone(late, bar)
        kept.take_turns(self._open(bar))
        self._weigh()
        done = self._known()
        if self.arrays:
            left = self.there & ~bar.cleared(done.points)
            done.kinds[left] = self._kinds(left)
        return done

    def _tile(self, numbers: Sequence[int], bar: Bar) -> None:
        """Layers have their tiles at the sizes that do not clear the bar; for energy, at all."""
        for number in numbers:
            asked = self._open(bar) if self.tables.joules is None else self.there
            if asked.any():
                self.there = self.there & self.kept.tile(number, asked)
        self.kept.take_turns(self._open(bar))
        self._weigh()

    def _alone(self, numbers: Sequence[int], bar: Bar) -> None:
        for number in numbers:
            open_ = self._open(bar)
            if not open_.any():
                return
            self.kept.alone(number, open_)

    def _open(self, bar: Bar) -> np.ndarray:
        """Designs that do not clear the bar."""
        return self.there & ~bar.cleared(self._known().points)

    def _known(self) -> Table:
        return Table(np.where(self.there, self.kept.cycles, NEVER), self.uj,
                     np.full(self.there.shape, -1), self.floor.built)

    def _weigh(self) -> None:
        """The energy of the designs."""
        if self.tables.joules is None:
            return
        work, overlay = Least(), self.layers.overlay
        for number, item in enumerate(self.fabric):
            work = work.with_layer(_moved(self.kept.tiled[number].work, overlay),
                                   self.tables.repeats(item),
                                   self.tables.weights.get(item.name, 1.0))
        fabric_s = np.where(self.there, self.kept.total - self.kept.host, 0) / overlay.clock_hz
        self.uj = np.where(self.there, self.tables.joules.least(
            work, span_of(self.kept.steps, fabric_s), overlay.clock_hz, overlay,
            self.floor.built.sites), self.floor.uj)

    def _kinds(self, left: np.ndarray) -> np.ndarray:
        """Equal numbers for designs of equal programs."""
        banks = np.arange(len(left))[:, None, None, None, None]
        every = [np.broadcast_to(banks, left.shape),
                 *(found.kinds for found in self.kept.tiled.values())]
        return np.unique(np.stack([each[left] for each in every]), axis=1,
                         return_inverse=True)[1].reshape(-1)


def _both(one: Table, other: Table) -> Table:
    """Two tables of different sizes, each of which says `NEVER` where the other knows."""
    mine = other.cycles != NEVER
    kinds = np.where(other.kinds >= 0, other.kinds + (1 + one.kinds.max()), one.kinds)
    return Table(np.where(mine, other.cycles, one.cycles), np.where(mine, other.uj, one.uj), kinds,
                 one.built)

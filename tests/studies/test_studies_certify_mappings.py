"""Which sizes of the buffers share a mapping: held against one mapping a size."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from arch_models.fields import FieldError
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible
from cosim.build import Builder
from cosim.executors.alike import program_alike
from cosim.executors.fast import simulate
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import Box
from studies.certify.layers import Layers, alike
from studies.certify.runs.programs import made_of, private
from studies.certify.sizes import Sizes, resized
from studies.search.space import default_space
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.small_proof import BASE, BOARD, SMALL, grouped
from tests.support.tiny_graphs import TinyGraph
from workloads.graph import Graph
from workloads.library import load


def pooled() -> Graph:
    """A pool whose windows overlap: its rows are not cut, so that it may move to the processor;
    what lies behind one another there is then packed otherwise."""
    tiny = TinyGraph(0, 8, 40, 40)
    wide = tiny.convolution("wide", "in", 12, 3, 1, 1)
    value = tiny.concat("both", tiny.max_pool("pool", wide, 3, 2, 1),
                        tiny.convolution("half", wide, 20, 3, 2, 1))
    return tiny.graph(tiny.convolution("after", tiny.affine("scaled", value), 16, 3, 1, 1))


@pytest.mark.parametrize(("graph", "count", "parts"), [
    (SMALL, 6, 1), (grouped(), 8, 2), (pooled(), 8, 2), (load("unicorn-n256"), 2, 1)],
    ids=["small", "grouped", "pooled", "unicorn-n256"])
def test_sizes_that_are_alike_have_the_mapping_of_each_but_for_tiles(graph, count, parts):
    generator, space = random.Random(3), default_space(BOARD, graph)
    bounds, most = Bounds(Question(graph, BOARD, BASE, space)), 0
    for _ in range(count):
        box = Box(space)
        while cut := bounds.cut(box):
            box = generator.choice(cut)
        sizes = Sizes.of(box, BASE)
        overlay = bounds.tables.overlay(box, sizes, 200_000_000)
        chooser = bounds.tables.chooser(overlay)
        mapping = chooser.run()
        if isinstance(mapping, Infeasible):
            continue
        found = list(alike(Layers(chooser, BOARD, sizes, {}), mapping,
                           np.ones(sizes.shape, bool)))
        most = max(most, len(found))
        assert np.all(sum(part.there.astype(int) for part in found) <= 1)
        for _ in range(60):
            place = tuple(generator.randrange(size) for size in sizes.shape)
            one = bounds.tables.chooser(resized(overlay, sizes.fields(place))).run()
            mine = [part for part in found if part.there[place]]
            if isinstance(one, Infeasible):
                assert not mine or any(
                    part.layers.least(item).kinds[place] < 0 for part in mine
                    for item in part.mapping.layers if item.engine is not None)
                continue
            assert len(mine) == 1
            assert mine[0].mapping.layouts.channels == one.layouts.channels
            assert len(mine[0].mapping.layers) == len(one.layers)
            for item, real in zip(mine[0].mapping.layers, one.layers, strict=True):
                if item.engine is not None:
                    least = mine[0].layers.least(item)
                    item = replace(item, tile=least.tiles[least.kinds[place]])
                assert replace(item, cost_cycles=0, why_host="") == replace(
                    real, cost_cycles=0, why_host="")
    assert most >= parts


@pytest.mark.parametrize("graph", [grouped(), pooled()], ids=["grouped", "pooled"])
def test_designs_that_a_program_is_taken_from_have_its_cycles(graph):
    """Those that differ in ports, in fusions and engines without a layer."""
    generator, space = random.Random(5), default_space(BOARD, graph)
    builder, start = Builder(graph, BOARD), choice_of(BASE, space)
    found: dict[object, set[int]] = {}
    names = [name for name in start if "fuse_" in name or "fabric_" in name or "port" in name]
    asked = 0
    for _ in range(60):
        design = space.canonical({
            **{axis.name: axis.values[-1] for axis in space.axes}, **start,
            **{name: generator.choice(space.axis(name).values) for name in names}})
        try:
            overlay = overlay_of(design, BASE, BOARD)
        except FieldError:
            continue
        mapping = builder.mapping(overlay)
        if isinstance(mapping, Infeasible):
            continue
        lowered = builder.lower(overlay, mapping)
        assert not isinstance(lowered, Infeasible)
        asked += 1
        found.setdefault(made_of(overlay, mapping), set()).add(int(simulate(*private(
            lowered.program, memory_for(BOARD, overlay, "flat"))).total_cycles))
    assert all(len(cycles) == 1 for cycles in found.values())
    assert len(found) < asked / 2


@pytest.mark.parametrize("graph", [grouped(), pooled()], ids=["grouped", "pooled"])
def test_designs_of_one_program_take_equal_time_with_equal_ways(graph):
    """On the DDR3 memory, at equal ports."""
    generator, space = random.Random(6), default_space(BOARD, graph)
    builder, start = Builder(graph, BOARD), choice_of(BASE, space)
    found: dict[object, set[int]] = {}
    asked = 0
    for _ in range(8):
        ports = {name: generator.choice(space.axis(name).values) for name in start
                 if "port" in name and "width" not in name}
        for _ in range(6):
            design = space.canonical({
                **{axis.name: axis.values[-1] for axis in space.axes}, **start, **ports,
                **{name: generator.choice(space.axis(name).values) for name in start
                   if "fuse_" in name or "fabric_" in name}})
            overlay = overlay_of(design, BASE, BOARD)
            mapping = builder.mapping(overlay)
            assert not isinstance(mapping, Infeasible)
            lowered = builder.lower(overlay, mapping)
            assert not isinstance(lowered, Infeasible)
            asked += 1
            found.setdefault((program_alike(lowered.program), *ports.values()), set()).add(int(
                simulate(lowered.program, memory_for(BOARD, overlay, "ddr3")).total_cycles))
    assert all(len(cycles) == 1 for cycles in found.values())
    assert len(found) < asked

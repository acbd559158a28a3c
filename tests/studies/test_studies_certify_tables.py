"""Do tables of all sizes say what each size would?

Tiles, what is kept of layers, and parts of a box that share a table; `certify_bounds` simulates.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from arch_models.overlay import Infeasible
from arch_models.resources import needed
from cosim.build import Builder
from cosim.engines.convolution_search import ConvolutionShape, Rooms, search, search_rooms
from cosim.executors.alike import program_alike
from cosim.mapping.tile_search import Budget
from cosim.mapping.tiles import LayerMapping
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import PACE, Box
from studies.certify.goals import Aim, Bar
from studies.certify.layers import Layers, idle_fusions
from studies.certify.sizes import WORDS, Sizes
from studies.certify.times.banked import least
from studies.certify.times.ordered import turn
from studies.evaluation.evaluate import evaluate
from studies.search.space import default_space
from studies.search.space_overlays import overlay_of
from tests.support.small_proof import (
    BASE,
    BOARD,
    SMALL,
    clipped,
    grouped,
    narrow_space,
    stepped,
    weighty,
)
from workloads.library import load

OPEN = Bar((Aim.LATENCY, Aim.ENERGY, Aim.RESOURCES))


@pytest.mark.parametrize(("graph", "count"), [(SMALL, 40), (grouped(), 60), (clipped(), 30),
                                              (load("agc-w16"), 4), (load("unicorn-n256"), 2)],
                         ids=["small", "grouped", "clipped", "agc-w16", "unicorn-n256"])
def test_no_layer_takes_less_than_its_banks_and_words_say(graph, count):
    """Nor does the master of weights work less for it than whatever its tile."""
    generator, space = random.Random(7), default_space(BOARD, graph)
    bounds, asked = Bounds(Question(graph, BOARD, BASE, space)), 0
    for _ in range(count):
        box = Box(space)
        while parts := bounds.cut(box):
            box = generator.choice(parts)
        layers, items = layers_of(bounds, box)
        for item in items:
            tiled, some = layers.least(item), np.zeros(layers.sizes.shape, bool)
            for _ in range(20):
                some[tuple(generator.randrange(size) for size in some.shape)] = True
            some &= tiled.kinds >= 0
            alone = layers.alone(item, tiled, some)
            bound = np.broadcast_to(least(layers, item, 0), some.shape)
            assert np.all(bound[some] <= alone[some]), item
            (any_turn, any_tile), (own_turn, own) = (turn(layers, item, 0, by)
                                                     for by in (None, tiled))
            for low, high in ((any_tile.cycles, own.cycles), (any_tile.blocks, own.blocks),
                              (own.block, any_tile.block), (any_tile.first, own.first),
                              (any_turn.computed, own_turn.computed)):
                assert np.all((low - 1e-6 <= high + np.zeros(some.shape))[some]), item
            asked += int(some.sum())
    assert asked > 100 * count


def layers_of(bounds: Bounds, box: Box) -> tuple[Layers, list[LayerMapping]]:
    """The layers of a box that is not cut, at a clock, and those in fabric."""
    sizes = Sizes.of(box, BASE)
    chooser = bounds.tables.chooser(bounds.tables.overlay(box, sizes, 200_000_000))
    mapping = chooser.run()
    layers = Layers(chooser, BOARD, sizes, bounds.tables.known)
    return layers, [] if isinstance(mapping, Infeasible) else [
        item for item in mapping.layers if item.engine is not None]


def test_what_is_kept_of_layers_is_of_one_design_alone():
    """Taps of the depthwise engine change what its layers take, and no name of theirs."""
    graph = grouped()
    space = narrow_space(graph, fabric_depthwise=(True,), depthwise_taps=(1, 3, 5))
    shared = Bounds(Question(graph, BOARD, BASE, space))
    found = []
    for taps in (1, 3, 5):
        box = Box(space).narrowed(depthwise_taps=(taps,))
        while parts := shared.cut(box):
            box = parts[-1]
        asked = [box], Bar((Aim.LATENCY,))
        own = Bounds(Question(graph, BOARD, BASE, space)).tables.tables(*asked)[0]
        kept = shared.tables.tables(*asked)[0]
        assert np.array_equal(own.cycles, kept.cycles)
        found.append(int(own.cycles.min()))
    assert len(set(found)) > 1


def test_a_table_of_several_fetches_is_that_of_each():
    bounds = Bounds(Question(SMALL, BOARD, BASE, narrow_space(
        fetch=("on_chip", "dram"), fetch_port=("HP0", "ACP"), port_width_bits=(32, 64))))
    box = Box(bounds.question.space)
    while parts := bounds.cut(box):
        box = parts[0]
    assert "fetch" in box.open
    every = bounds.opened(box, OPEN)
    one = [item for part in (box.narrowed(fetch=("on_chip",)), *(
        box.narrowed(fetch=("dram",), fetch_port=(port,)) for port in ("HP0", "ACP")))
        for item in bounds.opened(part, OPEN)]
    assert len(one) > 3
    assert sorted((item.point, item.box.sides) for item in every) == sorted(
        (item.point, item.box.sides) for item in one)


@pytest.mark.parametrize("graph", [SMALL, grouped(), stepped()],
                         ids=["small", "grouped", "stepped"])
def test_designs_of_one_kind_have_equal_programs(graph):
    generator, space = random.Random(3), default_space(BOARD, graph)
    bounds, builder, pairs = Bounds(Question(graph, BOARD, BASE, space)), Builder(graph, BOARD), 0
    while pairs < 12:
        box = Box(space).narrowed(tm=(8, 16), tn=(8, 16), columns=(1, 2))
        while parts := bounds.cut(box):
            box = generator.choice(parts)
        box = box.narrowed(**{name: box.values(name)[1:4:2] for name in WORDS})
        part = generator.choice(bounds.built(generator.choice(box.parts(PACE))))
        table, = bounds.tables.tables([part], OPEN)
        for kind in np.unique(table.kinds[table.kinds >= 0]):
            same = np.argwhere(table.kinds == kind)
            if len(same) < 2 or pairs >= 12:
                continue
            found = set()
            for place in generator.sample(same.tolist(), 2):
                overlay = overlay_of(part.design(Sizes.of(part, BASE).fields(tuple(place))), BASE,
                                     BOARD)
                mapping = builder.mapping(overlay)
                assert not isinstance(mapping, Infeasible)
                lowered = builder.lower(overlay, mapping)
                assert not isinstance(lowered, Infeasible)
                found.add((program_alike(lowered.program), overlay.clock_hz))
            assert len(found) == 1, part
            pairs += 1


def test_fusions_that_no_layer_could_use_are_left_open():
    """Nothing of a design follows from them."""
    graph = weighty()
    space = narrow_space(graph, fuse_pool=(False, True), fuse_upsample=(False, True))
    assert set(idle_fusions(graph, space)) == {"fuse_pool", "fuse_upsample"}
    assert not idle_fusions(SMALL, space)
    bounds = Bounds(Question(graph, BOARD, BASE, space))
    assert not {"fuse_pool", "fuse_upsample"} & set(bounds.order)
    designs = [overlay_of(Box(space).design({"fuse_pool": one, "fuse_upsample": other}), BASE,
                          BOARD) for one in (False, True) for other in (False, True)]
    found = [(evaluate(graph, design, BOARD, "flat", 1), needed(design), design.clock_hz)
             for design in designs]
    assert len({(item.latency_cycles, str(sites), rate) for item, sites, rate in found}) == 1


def test_boxes_that_share_what_is_kept_of_layers_have_tables_of_their_own():
    """What an earlier box left is of the same layers."""
    graph, generator = clipped(), random.Random(3)
    space = default_space(BOARD, graph)
    shared = Bounds(Question(graph, BOARD, BASE, space))
    for _ in range(6):
        box = Box(space)
        while parts := shared.cut(box):
            box = generator.choice(parts)
        box = box.narrowed(**{PACE: (generator.choice(box.values(PACE)),)}, **{
            name: tuple(generator.sample(box.values(name), 2)) for name in (
                "input_words", "weight_words", "output_words", "accumulator_words")})
        for part in shared.built(box):
            own = Bounds(Question(graph, BOARD, BASE, space)).tables.tables([part], OPEN)[0]
            kept = shared.tables.tables([part], OPEN)[0]
            assert np.array_equal(own.cycles, kept.cycles)


def test_many_sizes_at_once_have_the_tiles_of_each():
    generator = random.Random(4)
    rooms = Rooms(*(np.array(sizes) for sizes in (
        (256, 1024, 4096), (32, 128, 512), (128, 512, 2048), (64, 1024))),
        np.array([[1, 2, 2], [2, 1, 1]]))
    for _ in range(40):
        rows, planes = generator.choice((4, 7, 16)), generator.randint(1, 9)
        kernel, pool = generator.choice((1, 3)), generator.random() < 0.3
        rows += rows % 2 if pool else 0
        shape = ConvolutionShape(
            rows, rows, planes, rows, rows, planes, -(-planes // 2), generator.randint(1, 4),
            kernel, kernel, 1, kernel // 2, 0, int(pool), int(not pool), generator.randint(1, 4),
            8, 128, 20, 1, planes, 4, 0, 0, 0)
        budget = Budget(0, 0, 0, 0, 0, 0, 0, 2, 1, 8, 8.0, 8.0, 8.0, 21.0)
        best = search_rooms(shape, budget, rooms)
        for place in np.ndindex(best.cost.shape):
            words = [int(rooms[axis][index]) for axis, index in enumerate(place[1:])]
            one = search(shape, budget._replace(**dict(zip(
                ("input_words", "weight_words", "output_words", "accumulator_words"), words,
                strict=True)), **dict(zip(("input_banks", "weight_banks", "output_banks"),
                                          map(int, rooms.banks[place[0]]), strict=True))))
            assert one[0] == best.cost[place]
            assert one[0] < 0 or one[1:] == tuple(best.tile[place].tolist())


@pytest.mark.parametrize("graph", [SMALL, grouped(), load("unicorn-n256")],
                         ids=["small", "grouped", "unicorn-n256"])
def test_the_pace_of_results_changes_nothing_of_layers_that_the_array_does_not_run(graph):
    generator, space = random.Random(2), default_space(BOARD, graph)
    bounds, asked = Bounds(Question(graph, BOARD, BASE, space)), 0
    for _ in range(12):
        box = Box(space)
        while parts := bounds.cut(box):
            box = generator.choice(parts)
        some = np.zeros(Sizes.of(box, BASE).shape, bool)
        for _ in range(6):
            some[tuple(generator.randrange(size) for size in some.shape)] = True
        found = []
        for own in box.parts(PACE):
            layers, _ = layers_of(bounds, own)
            mapping = bounds.tables.chooser(layers.overlay).run()
            found.append([(item.name, item.engine, item.tile, layers.alone(
                item, least, some & (least.kinds >= 0)).tolist())
                for item in ([] if isinstance(mapping, Infeasible) else mapping.layers)
                if item.engine is not None
                and not bounds.tables.paced(item, layers.overlay)
                and not bounds.tables.must_map(item)
                for least in [layers.least(item, some)]])
        assert found[0] == found[1] == found[2]
        asked += len(found[0])
    assert asked > 2

"""Weights one behind the other: between them all layers, and no more ahead than WEIGHT can hold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from arch_models.overlay import Infeasible
from arch_models.resources import check, estimate
from cosim.analysis.hosts import host_steps
from cosim.build import Builder
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import Box
from studies.certify.times.turns import Brought, Stretch, Turn, Turns, ahead, in_turn, most_ahead
from studies.certify.untiled import Floor
from studies.search.space import default_space
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.small_proof import BASE, BOARD, grouped, stepped, weighty


def test_what_the_processor_may_do_instead_counts_at_the_clock():
    """The second layer takes 50 cycles, or 100 ns: at 100 MHz 10 cycles, at 1 GHz 100."""
    turns = Turns.of([Stretch([
        (np.inf, Turn(40.0, 5)), (100, Turn(50)), (np.inf, Turn(10, 60))])])
    assert turns.least(1e8) == 50 + 60
    assert turns.least(1e9) == 90 + 60
    assert list(turns.least(np.array([1e8, 1e9]))) == [110, 150]
    floor = Floor(0, 0.0, np.zeros((2, 0)), turns)
    assert floor.ms(1e9) == pytest.approx(150e-6)


def test_weights_may_hide_what_a_layer_takes_longer_on_the_processor():
    def floor(weights, ahead):
        return Floor(50, 0.0, np.array([[50.0], [300.0]]), Turns.of([Stretch([
            (np.inf, Turn(40.0, weights)), (300, Turn(50, ahead=ahead)), (
                np.inf, Turn(10, 200, ahead=ahead))])]),
            ("", "pool", ""))

    assert floor(10, 200).ms(1e9) == pytest.approx(210e-6)
    assert floor(10, 200).ms(1e9, "pool", 250) == pytest.approx(350e-6)
    assert floor(10, 20).ms(1e9) == pytest.approx((40 + 50 + 180) * 1e-6)
    assert floor(10, 20).ms(1e9, "pool", 250) == pytest.approx((40 + 300 + 180) * 1e-6)
    assert floor(900, 200).ms(1e9, "pool", 250) == pytest.approx((900 + 300 + 10) * 1e-6)


def simple(layers, held):
    """Layers of so many cycles, for which the master works so long; as much is held of all."""
    return in_turn(Turn(cycles, weights, ahead=held) for cycles, weights in layers)


def test_layers_whose_weights_come_one_behind_the_other():
    """Three layers take 40, 10 and 10 cycles; the master works 5, 60 and 5 for them."""
    layers = [(40, 5), (10, 60), (10, 5)]
    assert simple(layers, 100) == 75  # from the start on, 5 + 60 for the second; then 10
    assert simple(layers, 20) == 90  # when the second begins, at 40, 60 - 20 are left
    assert simple(layers, 0) == 110  # each waits for all of its own
    assert simple([(10, 0)] * 3, 0) == 30


def test_what_may_be_ahead_of_a_repeat_is_no_more_than_the_banks_hold():
    """Of the 60 cycles for the second layer, 20 may be there when it begins."""
    layers = [Turn(40, 5, ahead=20), Turn(10, 60, ahead=20), Turn(10, 5, ahead=5)]
    assert in_turn(layers, before=-np.inf) == 40 + 40 + 10
    assert in_turn(layers) == 40 + 40 + 10
    assert in_turn([Turn(5, 60, ahead=20)], before=-np.inf) == 40
    assert in_turn([Turn(5, 60, ahead=20)]) == 60


def test_the_processor_is_waited_for_in_each_repeat_that_it_ends():
    """The sampler of one step comes before the time code of the next, and before the picture."""
    mapping = Builder(stepped(), BOARD).mapping(BASE)
    assert not isinstance(mapping, Infeasible)
    steps = list(host_steps(stepped(), BASE, BOARD, mapping))
    assert {step.times for step in steps} == {1, 3}
    assert all(step.alone == step.times for step in steps)


def test_layers_between_weights_are_waited_for():
    assert simple([(10, 10), (100, 0), (10, 10)], 0.0) == 120
    assert simple([(10, 10), (100, 0), (10, 10)], 5.0) == 120
    assert simple([(10, 10), (0, 0), (10, 10)], 5.0) == 20


def test_what_comes_behind_weights_is_waited_for():
    """20 cycles for the weights of the second layer, 8 of them before it computes."""
    assert in_turn([Turn(10, 5), Turn(5, 20, first=8, computed=30)]) == 10 + 8 + 30
    assert in_turn([Turn(10, 5), Turn(5, 20, first=8, computed=3, after=7)]) == 10 + 20 + 7
    assert in_turn([Turn(10, 5), Turn(5, 20, ahead=20, after=7)]) == 5 + 20 + 7


def test_no_more_is_ahead_than_the_banks_hold():
    """Blocks of at most 10 cycles, 3 of parameters before them, a table between two layers."""
    layers = [Brought(28.0, 3.0, 3.0, 3, 10.0), Brought(4.0, 4.0, 4.0),
              Brought(13.0, 3.0, 3.0, 1, 10.0), Brought(23.0, 3.0, 3.0, 2, 10.0)]
    assert ahead(layers, 1) == [13, 4 + 13, 13, 13]
    assert ahead(layers, 2) == [23, 4 + 13 + 13, 13 + 13, 23]
    assert ahead(layers, 3) == [28 + 4, 4 + 13 + 23, 13 + 23, 23]
    arrays = [item._replace(blocks=np.array([item.blocks, 1 if item.blocks else 0]))
              for item in layers]
    assert [float(np.broadcast_to(item, 2)[0]) for item in ahead(arrays, 2)] == ahead(layers, 2)
    assert most_ahead(layers, {1: 10.0, 2: 5.0}) == [13, 17, 13 + 0, 13]


@pytest.mark.parametrize("graph", [weighty(), grouped()], ids=["weighty", "grouped"])
def test_weight_gets_no_more_block_ram_than_a_box_says(graph):
    generator, space, asked = random.Random(2), default_space(BOARD, graph), 0
    bounds, start = Bounds(Question(graph, BOARD, BASE, space)), choice_of(BASE, space)
    while asked < 40:
        last = {axis.name: axis.values[-1] for axis in space.axes}
        changed = {name: generator.choice(space.axis(name).values)
                   for name in generator.sample(sorted(start), generator.randint(1, 10))}
        design = space.canonical({**last, **start, **changed})
        overlay = overlay_of(design, BASE, BOARD)
        if check(overlay, BOARD) is not None:
            continue
        asked, box = asked + 1, Box(space)
        own = dict(estimate(overlay).parts)["buffer weight"].bram36
        while True:
            assert own <= bounds.floors.bram36_of_weights(box)
            parts = bounds.cut(box)
            if not parts:
                break
            box = next(part for part in parts if all(
                name not in design or design[name] in part.values(name)
                for name in (axis.name for axis in space.axes)))

"""Weights one behind the other: between them all layers, and no more ahead than WEIGHT can hold."""

from __future__ import annotations

import random

import numpy as np
import pytest

from arch_models.resources import check, estimate
from studies.certify.bounds import Bounds, Question
from studies.certify.boxes import Box
from studies.certify.untiled import Floor, Turns, in_turn
from studies.search.space import default_space
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.small_proof import BASE, BOARD, grouped, weighty


def test_what_the_processor_may_do_instead_counts_at_the_clock():
    """The second layer takes 50 cycles, or 100 ns: at 100 MHz 10 cycles, at 1 GHz 100."""
    turns = Turns(np.array([40.0, 50, 10]), np.array([np.inf, 100, np.inf]),
                  np.array([5.0, 0, 60]), 0.0)
    assert turns.least(1e8) == 50 + 60
    assert turns.least(1e9) == 90 + 60
    assert list(turns.least(np.array([1e8, 1e9]))) == [110, 150]
    floor = Floor(0, 0.0, np.zeros((2, 0)), turns)
    assert floor.ms(1e9) == pytest.approx(150e-6)


def test_layers_between_weights_are_waited_for():
    assert in_turn([(10, 10), (100, 0), (10, 10)], 0.0) == 120
    assert in_turn([(10, 10), (100, 0), (10, 10)], 5.0) == 120
    assert in_turn([(10, 10), (0, 0), (10, 10)], 5.0) == 20


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

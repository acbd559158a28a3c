"""Are the bounds of a mapping bounds? And is the front the same when a search relies on them?"""

from __future__ import annotations

import random

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import Infeasible, default_overlay
from cosim.build import Builder
from studies.evaluation.bounds import bounds_of
from studies.evaluation.evaluate import evaluate
from studies.search.exploration import outcome
from studies.search.outcomes import Failure, Objective, Sampler, Settings
from studies.search.screening import bounder
from studies.search.search import search
from studies.search.space import Axis, Space, default_space
from studies.search.space_overlays import choice_of, overlay_of
from tests.support.small_proof import grouped
from tests.support.toy_search import SPACE as TOY
from tests.support.toy_search import evaluate as toy
from workloads.library import load

BOARD, BASE = load_board("pynq-z1"), default_overlay()
SPACE = default_space(BOARD)


def check_bounds(workload, memory, count, seed):
    """Bounds of designs near the hand-made one against their simulations: the tightest shares."""
    graph = grouped() if workload == "grouped" else load(workload)
    generator, shares = random.Random(seed), []
    start, builder = choice_of(BASE, SPACE), Builder(graph, BOARD)
    for _ in range(count):
        choice = dict(start)
        for name in generator.sample(sorted(start), generator.randint(1, 10)):
            choice[name] = generator.choice(SPACE.axis(name).values)
        for axis in SPACE.axes:
            choice.setdefault(axis.name, generator.choice(axis.values))
        overlay = overlay_of(SPACE.canonical(choice), BASE, BOARD)
        bound = bounds_of(builder, overlay)
        single = evaluate(graph, overlay, BOARD, memory, frames=1)
        if isinstance(single, Infeasible):
            assert bound is None
            continue
        assert bound.latency_cycles <= single.latency_cycles, overlay
        assert bound.latency_ms <= single.latency_ms
        assert bound.energy_uj_per_pixel <= single.energy_uj_per_pixel
        assert bound.resources == single.resources
        shares.append((bound.latency_cycles / single.latency_cycles,
                       bound.energy_uj_per_pixel / single.energy_uj_per_pixel))
    return np.array(shares)


def test_bounds_are_below_the_simulation_and_near_it():
    shares = check_bounds("agc-w16", "flat", 60, seed=5)
    assert len(shares) > 20
    assert np.median(shares, axis=0).min() > 0.9


def test_bounds_hold_where_an_output_word_reads_only_the_inputs_of_its_groups():
    assert len(check_bounds("grouped", "flat", 40, seed=8)) > 10


def test_bounds_hold_for_another_memory_and_for_sampler_steps():
    check_bounds("agc-w16", "ddr3", 6, seed=6)
    check_bounds("unicorn-n256", "flat", 4, seed=1)


@pytest.mark.long
@pytest.mark.parametrize(("workload", "memory", "count"), [
    ("agc-w16", "flat", 3000), ("agc-w64", "flat", 500), ("agc-w16", "ddr3", 100)])
def test_bounds_are_below_thousands_of_simulations(workload, memory, count):
    assert len(check_bounds(workload, memory, count, seed=7)) > count // 4


def exhausted(evaluate, space, settings, bound):
    """A search that is given every design of a small space to start with."""
    return search(evaluate, space, settings, list(every(space)), bound=bound)


def every(space):
    choices = [{}]
    for axis in space.axes:
        choices = [{**choice, axis.name: value} for choice in choices for value in axis.values]
    return choices


def front(found):
    return [found.records[index].choice for index in found.front]


@pytest.mark.parametrize("objectives", [
    (Objective.LATENCY,), (Objective.LATENCY, Objective.ENERGY),
    (Objective.LATENCY, Objective.ENERGY, Objective.RESOURCES)])
def test_the_front_of_a_whole_space_is_the_same_with_and_without_bounds(objectives):
    settings = Settings(designs=10_000, attempts=TOY.size(), sampler=Sampler.RANDOM, local=0.0,
                        rounds=0, batch=16, objectives=objectives)

    def bound(choice):
        found, = toy([choice])
        return None if isinstance(found, Failure) else found

    plain, pruned = (exhausted(toy, TOY, settings, item) for item in (None, bound))
    assert front(plain) == front(pruned)
    assert plain.evaluated == pruned.evaluated + pruned.pruned and pruned.pruned > 0
    assert plain.infeasible == pruned.infeasible


def test_a_front_of_simulated_designs_is_the_same_with_and_without_bounds():
    wanted = {"tm": (8, 16, 32), "columns": (1, 2), "dsp_packing": (False, True),
              "clock_mhz": (100, 200), "fuse_add": (False, True)}
    start = choice_of(BASE, SPACE)
    space = Space(tuple(
        Axis(axis.name, wanted.get(axis.name, (start[axis.name],)))
        for axis in SPACE.axes if axis.name in start))
    graph = load("agc-w16")

    def simulate(choices):
        return [outcome(graph, BOARD, BASE, choice) for choice in choices]

    settings = Settings(designs=1000, attempts=space.size(), sampler=Sampler.RANDOM, local=0.0,
                        rounds=0, batch=8, objectives=(Objective.LATENCY, Objective.ENERGY))
    plain, pruned = (exhausted(simulate, space, settings, item)
                     for item in (None, bounder(graph, BOARD, BASE)))
    assert len(plain.records) == space.size()
    assert front(plain) == front(pruned)
    assert plain.evaluated == pruned.evaluated + pruned.pruned
    assert pruned.pruned > plain.evaluated // 4

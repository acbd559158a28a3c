"""Are the shared evaluations the single ones, to the last bit? And the short cuts, the programs?"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, default_overlay, load_overlay
from cosim.build import build
from cosim.executors import fast
from cosim.lowering.host_times import host_cycles
from cosim.lowering.lower import retimed
from cosim.program.table import layer_bytes
from cosim.recurrence.cpu import Timer, prepare
from studies.evaluation.batch import Batch
from studies.evaluation.evaluate import evaluate
from studies.proof.enumeration import UNTIMED
from studies.search.space import default_space
from studies.search.space_overlays import choice_of, overlay_of
from workloads.library import load

BOARD, BASE = load_board("pynq-z1"), default_overlay()
SPACE = default_space(BOARD)


def groups(count, seed, size=4):
    """Designs near the hand-made one; those of a group differ in clock, ports and limits only."""
    generator, start = random.Random(seed), choice_of(BASE, SPACE)
    for _ in range(count):
        choice = dict(start)
        for name in generator.sample(sorted(start), generator.randint(1, 8)):
            choice[name] = generator.choice(SPACE.axis(name).values)
        for axis in SPACE.axes:
            choice.setdefault(axis.name, generator.choice(axis.values))
        group = []
        for _ in range(size):
            for axis in SPACE.axes:
                if axis.name in UNTIMED:
                    choice[axis.name] = generator.choice(axis.values)
            group.append(overlay_of(SPACE.canonical(choice), BASE, BOARD))
        yield group


def compare(workload, count, seed):
    graph = load(workload)
    batch, feasible = Batch(graph, BOARD, keep=2), 0
    for group in groups(count, seed):
        for overlay, found in zip(group, batch.evaluate(group), strict=True):
            single = evaluate(graph, overlay, BOARD, "flat", frames=1)
            if isinstance(single, Infeasible):
                assert found == single
                continue
            feasible += 1
            assert found == (single.latency_cycles, single.latency_ms,
                             single.energy_uj_per_pixel, single.resources)
    return feasible


def test_a_batch_gives_what_each_evaluation_gives():
    assert compare("agc-w16", 50, seed=3) > 60


@pytest.mark.long
@pytest.mark.parametrize("workload", ["agc-w16", "agc-w64"])
def test_a_batch_gives_what_each_of_thousands_of_evaluations_gives(workload):
    assert compare(workload, 1000, seed=4) > 1000


@pytest.mark.parametrize("design", ["default", "diffusion"])
def test_sampler_steps_are_repeated_in_a_batch(design):
    graph, overlay = load("unicorn-n256"), load_overlay(design)
    found, = Batch(graph, BOARD).evaluate([overlay])
    single = evaluate(graph, overlay, BOARD, "flat", frames=1)
    assert (found.latency_cycles, found.energy_uj_per_pixel) == (
        single.latency_cycles, single.energy_uj_per_pixel)


@pytest.mark.parametrize("seed", range(6))
def test_a_retimed_program_is_the_lowered_one(seed):
    graph = load("agc-w16")
    first, *others = next(iter(groups(1, seed, size=3)))
    lowered = build(graph, first, BOARD)
    for other in others:
        whole = build(graph, other, BOARD)
        if whole.mapping.layers != lowered.mapping.layers:
            continue  # the DDR's peak rate binds at one of the clocks
        again = retimed(lowered, other, BOARD)
        assert again.program.content_hash() == whole.program.content_hash()
        assert again.host_ns == whole.host_ns


def test_the_recurrence_needs_a_channel_for_each_master():
    graph = load("agc-w16")
    inputs, weight, output = BASE.masters
    shared = replace(BASE, masters=(inputs, replace(weight, port=inputs.port), output))
    for overlay, applies in ((BASE, True), (shared, False)):
        lowered = build(graph, overlay, BOARD)
        program, memory = lowered.program, memory_for(BOARD, overlay, "flat")
        timer, units = Timer(), fast.unit_table(program.units, memory)[0]
        total = timer.total_cycles(
            prepare(program), units, timer.settings(units),
            [host_cycles(item, overlay.clock_hz) for item in lowered.host_ns])
        result = fast.simulate(program, memory)
        assert total == (result.total_cycles if applies else None)
        assert np.array_equal(layer_bytes(program), result.layer_bytes)

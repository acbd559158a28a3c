"""Is the frame of any design that can be mapped bit-exact in C?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from arch_models.overlay import (
    Control,
    Engine,
    Fetch,
    Fusion,
    Infeasible,
    Layout,
    Master,
    Overlay,
    Role,
    Start,
    default_overlay,
)
from cosim.build import build
from hw.csim.simulate import run_frame, run_frame_by_layer
from tests.support.small_frames import QUICK, board, small_graph

PORTS = ("HP0", "HP1", "HP2", "HP3", "ACP")


def random_overlay(generator: np.random.Generator) -> Overlay:
    def one(*choices):
        return choices[int(generator.integers(len(choices)))]

    counts = {Role.INPUT: one(1, 1, 2), Role.WEIGHT: 1, Role.OUTPUT: one(1, 1, 2)}
    fetch = one(Fetch.ON_CHIP, Fetch.DRAM)
    if fetch is Fetch.DRAM:
        counts[Role.FETCH] = 1
    masters = tuple(Master(f"{role.value}{index}", role, one(*PORTS))
                    for role, count in counts.items() for index in range(count))
    engines = {engine for engine in Engine if generator.random() < 0.7}
    return dataclasses.replace(
        default_overlay(), tm=one(8, 16, 24, 32), tn=one(8, 16, 24), masters=masters,
        engines=frozenset(engines | {Engine.CONVOLUTION}), fetch=fetch, columns=one(1, 2, 3, 4),
        dsp_packing=one(True, False), input_words=one(512, 1024, 4096),
        weight_words=one(64, 128, 512), output_words=one(128, 512, 2048),
        input_banks=one(1, 2), weight_banks=one(1, 2), output_banks=one(1, 2),
        accumulator_words=one(64, 256, 1024), layout=one(*Layout),
        control=Control(start=one(*Start)),
        fusions=frozenset(item for item in Fusion if generator.random() < 0.6))


def check(seed: int) -> bool:
    """Whether the design of a seed could be mapped; if so its frame is checked."""
    overlay = random_overlay(np.random.default_rng(seed))
    lowered = build(small_graph(), overlay, board())
    if isinstance(lowered, Infeasible):
        return False
    report = run_frame_by_layer(lowered, small_graph(), overlay, seed, flags=QUICK)
    assert (report.values_differing, report.where) == (0, ""), overlay
    if seed % 4 == 0:
        mixed = run_frame(lowered, small_graph(), overlay, seed, order=seed + 1, flags=QUICK)
        assert mixed.values_differing == 0, overlay
    return True


@pytest.mark.parametrize("first", [0])
def test_a_few_random_designs(first):
    assert sum(check(seed) for seed in range(first, first + 4)) >= 2


@pytest.mark.long
def test_many_random_designs():
    assert sum(check(seed) for seed in range(100, 170)) >= 40

"""Is the RTL of designs that nobody chose cycle-exact and bit-exact?"""

from __future__ import annotations

import dataclasses
import random

import pytest

from arch_models.overlay import Engine, Overlay, default_overlay
from studies.search.space import default_space
from studies.search.space_overlays import overlay_of
from studies.validate.rtl import compare_tiles
from tests.support.small_frames import board

#: Larger arrays compile for many minutes; nothing in them is another kind of hardware.
MOST_MACS = 400


def random_design(seed: int) -> Overlay:
    """A design drawn from the whole search space, but for the size of its array."""
    space = default_space(board())
    draw = random.Random(seed)
    while True:
        found = overlay_of(space.sample(draw), default_overlay(), board())
        if found.macs_per_cycle <= MOST_MACS:
            return dataclasses.replace(found, clock_gating=bool(draw.getrandbits(1)),
                                       narrow_weights=bool(draw.getrandbits(1)))


def test_odd_words_two_columns_packed_products_and_clocks_that_stop():
    design = dataclasses.replace(
        default_overlay(), tm=8, tn=24, columns=2, dsp_packing=True, weight_words=128,
        accumulator_words=256, engines=frozenset({Engine.CONVOLUTION, Engine.POOL}),
        clock_gating=True)
    found = compare_tiles(60, 0, design, board())
    assert found.equal and found.operations_compared > 200


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_random_designs(seed):
    design = random_design(seed)
    for memory in ("flat", "ddr3"):
        assert compare_tiles(90, seed, design, board(), memory).equal, design

"""Do predicted toggles follow the bits, and is the shipped table that of the shipped networks?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.energy.toggles import BITS, NETWORKS, factors, of_network, walk
from studies.evaluation.evaluate import evaluate, feasible
from workloads.library import load


def draw() -> np.random.Generator:
    return np.random.default_rng(3)


def test_noise_toggles_half_the_bits_of_its_operands() -> None:
    pixels = draw().integers(-128, 128, (64, 16, 16), np.int8)
    weights = draw().integers(-128, 128, (16, 64, 3, 3), np.int8)
    found = walk(pixels, weights, 1, 1, draw())
    # The zeros of the border are quieter.
    assert found["pixels"] == pytest.approx(4.0, rel=0.1)
    assert found["weights"] == pytest.approx(4.0, rel=0.05)
    assert all(0 < found[name] < bits for name, bits in BITS.items())


def test_zeros_toggle_nothing_behind_the_weights() -> None:
    weights = draw().integers(-128, 128, (16, 64, 3, 3), np.int8)
    found = walk(np.zeros((64, 16, 16), np.int8), weights, 1, 1, draw())
    assert found["weights"] > 3
    assert not any(value for name, value in found.items() if name != "weights")


def test_a_single_trip_that_alternates_flips_the_bits_it_alternates_in() -> None:
    # Columns of 0 and 85 (01010101) in turn, a 1x1 weight of 1: four bits a trip.
    pixels = np.zeros((8, 4, 8), np.int8)
    pixels[:, :, ::2] = 85
    found = walk(pixels, np.ones((1, 8, 1, 1), np.int8), 1, 0, draw())
    assert found["pixels"] == found["products"] == 4.0 and found["weights"] == 0.0


def test_pictures_behind_relu_toggle_less_than_noise() -> None:
    found = np.array(list(factors("agc-w16").values()))
    assert len(found) == 30 and np.median(found) < 0.8 and found.max() < 1.0


@pytest.mark.parametrize("network", ["agc-w64", "agc"])
def test_a_width_without_a_real_frame_takes_its_familys_factors(network: str) -> None:
    assert factors(network) == factors("agc-w32")
    assert {layer.name for layer in load(network).layers} >= set(factors(network))


def test_an_unknown_network_is_taken_as_noise() -> None:
    assert factors("somebody's") == {}


def test_an_evaluation_multiplies_the_array_by_its_layers_factors() -> None:
    graph, board = load("agc-w16"), load_board("pynq-z1")
    known, noise = (feasible(evaluate(item, default_overlay(), board, frames=1)).energy.parts
                    for item in (graph, replace(graph, name="somebody's")))
    assert 0.5 < known["PL convolution"] / noise["PL convolution"] < 0.9
    assert all(known[name] == noise[name] for name in known if name != "PL convolution")


def test_the_table_is_that_of_the_shipped_network() -> None:
    found = {row.layer: row.factor for row in of_network(NETWORKS[0])}
    # Samples are drawn by seed, sums are of integers: only the last digit may round otherwise.
    assert found.keys() == factors("agc-w16").keys()
    for layer, factor in factors("agc-w16").items():
        assert found[layer] == pytest.approx(factor, abs=0.002)

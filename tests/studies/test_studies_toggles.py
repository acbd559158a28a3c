"""Do predicted toggles follow the bits, and is the shipped table that of the shipped networks?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import default_overlay
from studies.energy.rtl_toggles import factor, run_array
from studies.energy.toggles import BITS, NETWORKS, factors, of_network, walk
from studies.evaluation.evaluate import evaluate, feasible
from workloads.frames import whole_frame
from workloads.graph import Graph, Phase
from workloads.library import load
from workloads.reference import execute


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
    for layer, shipped in factors("agc-w16").items():
        assert found[layer] == pytest.approx(shipped, abs=0.002)


@pytest.fixture(scope="module")
def frame() -> tuple[Graph, dict[str, np.ndarray]]:
    """The real frame of the narrow network: every tensor."""
    whole, given = whole_frame(load("agc-w16"))
    inputs = {name: value for name, value in given.inputs.items() if name in whole.tensors}
    return whole, execute(whole, inputs, [Phase.FRAME])


@pytest.mark.parametrize("name", ["first", "down0", "final"])
def test_our_own_rtl_toggles_as_predicted(
        name: str, frame: tuple[Graph, dict[str, np.ndarray]]) -> None:
    graph, values = frame
    layer = graph.layer(name)
    given = values[layer.inputs[0]]
    counted = factor(given, graph.constant(layer, "weights"), layer.window.stride,
                     layer.window.padding, seed=1)
    # A short stretch of one row, every register and wire: 3 to 19 % more than the walk says.
    assert counted == pytest.approx(factors("agc-w16")[name], rel=0.2)
    assert counted < 1.0


def test_the_arrays_sums_are_those_of_its_operands() -> None:
    pixels, weights = (draw().integers(-128, 128, shape) for shape in ((36, 8), (36, 8, 8)))
    ends, bits = run_array(pixels, weights, 9)
    assert np.array_equal(ends, np.einsum("tn,tnm->tm", pixels, weights).reshape(4, 9, 8).sum(1))
    still = run_array(np.zeros_like(pixels), np.zeros_like(weights), 9)[1]
    assert still < bits / 100

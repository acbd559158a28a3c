"""Is there a design that takes surely less energy and a little longer, for both networks?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import Control, Overlay, Rate, Wait, load_overlay
from arch_models.power.energy import ratio
from studies.evaluation.evaluate import evaluate, feasible
from workloads.library import load

BOARD = load_board("pynq-z1")


def at_100_mhz(name: str) -> Overlay:
    """A shipped design at one clock, whatever is predicted of it."""
    return replace(load_overlay(name), clock_hz=100_000_000, rate=Rate.FIXED)


@pytest.mark.parametrize(("network", "design"), [("agc-w16", "default"),
                                                 ("unicorn", "diffusion")])
def test_a_sleeping_host_and_gated_clocks_take_less_energy_and_longer(
        network: str, design: str) -> None:
    graph, plain = load(network), at_100_mhz(design)
    saving = replace(plain, clock_gating=True, control=Control(wait=Wait.SLEEP))
    fast, frugal = (feasible(evaluate(graph, item, BOARD, "flat", frames=1))
                    for item in (plain, saving))
    assert frugal.latency_cycles > fast.latency_cycles
    assert frugal.latency_cycles < 1.001 * fast.latency_cycles
    found = ratio(frugal.energy, fast.energy, BOARD)
    assert found.value < 0.95 and found.high < 1.0


def test_a_smaller_buffer_takes_less_energy() -> None:
    graph, plain = load("agc-w16"), at_100_mhz("default")
    small = replace(plain, input_words=2048)
    big, less = (feasible(evaluate(graph, item, BOARD, "flat", frames=1)).energy
                 for item in (plain, small))
    assert less.parts["PL buffer input"] < 0.7 * big.parts["PL buffer input"]


@pytest.mark.parametrize("network", ["agc-w16", "unicorn-n256"])
def test_a_faster_clock_of_one_design_takes_less_energy(network: str) -> None:
    slow = at_100_mhz("default")
    fast = replace(slow, clock_hz=125_000_000)
    one, other = (feasible(evaluate(load(network), item, BOARD, "ddr3", frames=1))
                  for item in (slow, fast))
    assert other.latency_s < one.latency_s
    assert other.energy.total_j < one.energy.total_j

"""Is energy the sum of its parts, from coefficients that say what they are worth?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.energy import Activity, energy, energy_coefficients
from arch_models.fields import Status
from arch_models.overlay import default_overlay

BOARD = load_board("pynq-z1")
BASE = default_overlay()
WORK = Activity(2.0, 200_000_000, 1000, {"lookup": 10}, 50, {"input": 100}, {"output": 30}, 7)


def test_powers_times_time_and_the_parts_add_up() -> None:
    found = energy(WORK, BASE, BOARD)
    assert found.ps_j == pytest.approx(2 * BOARD.power.ps_w)
    assert found.pl_static_j == pytest.approx(2 * BOARD.power.pl_static_w)
    parts = found.ps_j + found.pl_static_j + sum(found.engines_j.values())
    assert found.total_j == pytest.approx(parts + found.bram_j + found.ddr_j)


@pytest.mark.parametrize(("change", "part"), [
    ({"dsp_macs": 10**12}, "convolution"), ({"beats": {"lookup": 10**12}}, "lookup"),
    ({"bytes_read": {"input": 10**12}}, "input"),
])
def test_more_work_costs_more_in_its_own_part(change: dict, part: str) -> None:
    less, more = (energy(item, BASE, BOARD) for item in (WORK, replace(WORK, **change)))
    assert more.engines_j[part] > less.engines_j[part]
    others = set(less.engines_j) - {part}
    assert all(more.engines_j[name] == less.engines_j[name] for name in others)


def test_ddr_energy_of_one_byte_read_is_core_plus_io() -> None:
    idle = energy(replace(WORK, bytes_read={}, bytes_written={}, row_misses=0), BASE, BOARD)
    read = energy(replace(WORK, bytes_read={"input": 10**9}, bytes_written={}, row_misses=0),
                  BASE, BOARD)
    # 9.91 pJ/bit at 1.35 V, 1.111 for the 1.5 V rail, 7.5 pJ/bit of I/O.
    assert read.ddr_j - idle.ddr_j == pytest.approx((9.91 * 8 * 1.111 + 60) * 1e-3, rel=1e-3)


def test_guesses_are_named_as_guesses() -> None:
    found = {item.name: item for item in energy_coefficients()}
    assert found["dsp_mac_pj"].status is Status.GUESS
    assert all(item.source for item in found.values())

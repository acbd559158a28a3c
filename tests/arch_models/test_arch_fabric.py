"""Does the fabric's law follow its coefficients, and the voltage what was measured of it?"""

from __future__ import annotations

import pytest

from arch_models.engines import Resources
from arch_models.engines.base import values
from arch_models.power.dram import Dram
from arch_models.power.fabric import (
    BLOCK,
    CLOCK,
    FILE,
    LOGIC,
    clock_pj,
    cycle_pj,
    dynamic_ratio,
    fabric_errors,
    fitted_coefficients,
    leakage_ratio,
    power_w,
    speed_ratio,
)
from arch_models.power.intervals import spread

pytestmark = pytest.mark.fitted

DESIGN = Resources(dsp=212, bram36=132, lut=26000, ff=12000)
MICRON = Dram(4, 8, 1066, 1.5, 80, 55, 60, 160, 200, 245, 160)


def test_a_cycle_is_the_sum_of_its_sites() -> None:
    parts = cycle_pj(DESIGN)
    table = values(FILE)
    assert parts[CLOCK] == pytest.approx(12000 * table[CLOCK])
    assert parts[LOGIC] == pytest.approx(26000 * table[LOGIC])
    assert parts[BLOCK] == pytest.approx(344 * table[BLOCK])
    assert clock_pj(DESIGN) == pytest.approx(parts[CLOCK] + table["fabric.spine_pj"])


def test_a_design_of_the_demos_size_takes_what_rails_of_such_designs_took() -> None:
    # Measured accelerators of this size: 5.9 to 9.1 nJ a cycle.
    assert 5.9 < sum(cycle_pj(DESIGN).values()) * 1e-3 < 9.1


def test_power_is_leakage_and_energy_times_clock() -> None:
    still, slow, fast = (power_w(DESIGN, clock) for clock in (0.0, 100e6, 200e6))
    assert still == pytest.approx(values(FILE)["static.vccint_w"])
    assert fast - slow == pytest.approx(slow - still)


def test_a_lower_voltage_costs_less_of_everything() -> None:
    # Measured at 0.8 V: an energy a cycle of 0.54 to 0.76.
    assert 0.54 < dynamic_ratio(0.8) < 0.76
    for ratio in (dynamic_ratio, leakage_ratio, speed_ratio):
        assert ratio(1.0) == pytest.approx(1.0)
        assert 0 < ratio(0.8) < ratio(0.9) < 1


def test_limits_are_those_of_one_coefficient_where_there_is_one() -> None:
    errors = {item.name: item.error for item in fitted_coefficients()}
    alone = spread({LOGIC: 5.0}, fabric_errors())
    assert alone == pytest.approx((errors[LOGIC] ** 2 + errors["fabric.design"] ** 2) ** 0.5)
    # Logic and blocks hang together: both are known better than either.
    assert spread({LOGIC: 1.0, BLOCK: 1.0}, fabric_errors()) < alone


def test_every_coefficient_says_where_it_is_from_and_what_it_is_off() -> None:
    for item in fitted_coefficients():
        assert item.source and item.unit and item.error >= 0
        if item.name.startswith(("fabric", "ddr", "ps", "static")):
            exact = item.name in ("fabric.ff_per_lut", "fabric.logic_with_block")
            assert exact or item.error > 0, item.name


def test_dram_energies_follow_the_currents() -> None:
    # 100 mA above standby at 1.5 V over 1066 MB/s.
    assert MICRON.read_pj_per_byte == pytest.approx(140.7, rel=1e-3)
    assert MICRON.write_pj_per_byte == pytest.approx(MICRON.read_pj_per_byte * 1.4)
    assert MICRON.standby_w == pytest.approx(0.36)
    assert MICRON.refresh_pj == pytest.approx(4 * 1.5 * 185 * 160)
    # 80 mA over the cycle, less 60 mA with the row open and 55 mA with it closed.
    assert MICRON.activate_pj(37.5, 13.1) == pytest.approx(6 * (20 * 37.5 + 25 * 13.1))

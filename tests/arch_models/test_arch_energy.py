"""Is every joule booked once, under a part and a coefficient, from what happened?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.boards.rules import problems
from arch_models.clock import predict, rate_hz
from arch_models.engines.base import values
from arch_models.overlay import Control, Wait, default_overlay
from arch_models.power.energy import (
    Activity,
    energy,
    energy_coefficients,
    ratio,
    shares,
    total_joules,
    widest,
)
from arch_models.power.fabric import FILE, clock_pj, dynamic_ratio, leakage_ratio, speed_ratio
from arch_models.resources import estimate

BOARD = load_board("pynq-z1")
BASE = default_overlay()
WORK = Activity(200_000_000, 100_000_000, 0.5,
                {"convolution": 1e8, "lookup": 1e6, "master input": 3e7, "buffer input": 1e8},
                bytes_read=10**8, bytes_written=10**7, row_misses=7)
TABLE = values(FILE)


def test_parts_and_coefficients_each_add_up_to_the_whole() -> None:
    found = energy(WORK, BASE, BOARD)
    assert sum(found.parts.values()) == pytest.approx(found.total_j)
    assert sum(found.coefficients.values()) == pytest.approx(found.total_j)
    assert found.ps_j + found.pl_static_j + found.pl_dynamic_j + found.ddr_j == pytest.approx(
        found.total_j)
    assert found.low < found.total_j < found.high


def test_the_processor_takes_what_it_does() -> None:
    power = BOARD.power
    found = energy(WORK, BASE, BOARD)
    assert found.parts["PS"] == pytest.approx(0.5 * power.ps_work_w + 1.5 * power.ps_poll_w)
    sleeping = replace(BASE, control=Control(wait=Wait.SLEEP))
    assert energy(WORK, sleeping, BOARD).parts["PS"] == pytest.approx(
        0.5 * power.ps_work_w + 1.5 * power.ps_sleep_w)


def test_the_clock_tree_runs_whether_or_not_anything_works() -> None:
    still = Activity(10**9, 100_000_000, host_s=10.0)  # the processor works all the time
    found = energy(still, BASE, BOARD)
    tree = clock_pj(estimate(BASE).total)
    assert found.pl_dynamic_j == pytest.approx(1e9 * tree * 1e-12)


@pytest.mark.parametrize("part", ["convolution", "lookup", "master input", "buffer input"])
def test_more_work_costs_more_in_its_own_part_only(part: str) -> None:
    more = energy(replace(WORK, working={**WORK.working, part: 1.5e8}), BASE, BOARD)
    less = energy(WORK, BASE, BOARD)
    assert more.parts[f"PL {part}"] > less.parts[f"PL {part}"]
    assert all(more.parts[name] == less.parts[name] for name in less.parts
               if name != f"PL {part}")


def test_an_engine_that_works_takes_its_sites_and_one_that_waits_a_share() -> None:
    sites = estimate(BASE).part("convolution")
    active = (TABLE["fabric.logic_pj"] * sites.lut
              + TABLE["fabric.block_pj"] * (sites.dsp + sites.bram36))
    tree = TABLE["fabric.clock_pj"] * sites.ff
    for works in (0.0, 4e6, 1e7):
        found = energy(Activity(10**7, 10**8, working={"convolution": works}), BASE, BOARD)
        waits = TABLE["fabric.stalled_share"] * (1e7 - works)
        assert found.parts["PL convolution"] == pytest.approx(
            (1e7 * tree + active * (works + waits)) * 1e-12)


def test_quiet_data_cost_less_activity_and_the_same_clock() -> None:
    noise = Activity(10**7, 10**8, working={"convolution": 1e7})
    loud, quiet = (energy(item, BASE, BOARD).coefficients for item in (
        noise, replace(noise, toggling={"convolution": 6e6})))
    for name in ("fabric.clock_pj", "fabric.stalled_share"):
        assert quiet[name] == loud[name]
    sites = estimate(BASE).part("convolution")
    assert loud["fabric.block_pj"] - quiet["fabric.block_pj"] == pytest.approx(
        4e6 * TABLE["fabric.block_pj"] * (sites.dsp + sites.bram36) * 1e-12)


def test_a_gated_engine_takes_nothing_while_no_operation_is_with_it() -> None:
    gated = replace(BASE, clock_gating=True)
    work = Activity(10**7, 10**8, working={"convolution": 4e6}, clocked={"convolution": 6e6})
    found, open_ = energy(work, gated, BOARD), energy(work, BASE, BOARD)
    assert found.parts["PL softmax"] == 0.0 < open_.parts["PL softmax"]
    for part in ("PL control", "PL buffer input", "PL master input"):
        assert found.parts[part] == open_.parts[part]
    # While it fills and drains its clock goes on, and what it holds is seen: a third of its work.
    sites = estimate(BASE).part("convolution")
    busy = TABLE["fabric.logic_pj"] * sites.lut + TABLE["fabric.block_pj"] * (
        sites.dsp + sites.bram36)
    assert found.parts["PL convolution"] == pytest.approx(1e-12 * (
        TABLE["fabric.clock_pj"] * sites.ff * 6e6 + busy * (
            4e6 + TABLE["fabric.stalled_share"] * 2e6)))


def test_a_master_named_like_a_part_keeps_its_own_energy() -> None:
    first, *others = BASE.masters
    named = replace(BASE, masters=(replace(first, name="control"), *others))
    work = {**WORK.working, "master control": WORK.working["master input"]}
    del work["master input"]
    found, plain = energy(replace(WORK, working=work), named, BOARD), energy(WORK, BASE, BOARD)
    assert found.total_j == pytest.approx(plain.total_j)
    assert found.parts["PL control"] == plain.parts["PL control"]
    assert found.parts["PL master control"] == plain.parts["PL master input"]


def test_reads_and_writes_have_each_their_price() -> None:
    dram = BOARD.power.dram
    none = replace(WORK, bytes_read=0, bytes_written=0, row_misses=0)
    idle = energy(none, BASE, BOARD).ddr_j
    read = energy(replace(none, bytes_read=10**9), BASE, BOARD).ddr_j - idle
    written = energy(replace(none, bytes_written=10**9), BASE, BOARD).ddr_j - idle
    pads = TABLE["ddr.pads_pj_per_byte"]
    # 188 mA and 124 mA above standby at 1.5 V over 3200 MB/s.
    assert read == pytest.approx((188 * 1.5 / 3.2 + pads) * 1e-3)
    assert written == pytest.approx((124 * 1.5 / 3.2 + pads) * 1e-3)
    assert read - written == pytest.approx(
        (dram.read_pj_per_byte - dram.write_pj_per_byte) * 1e-3)
    opened = energy(replace(none, row_misses=10**6), BASE, BOARD).ddr_j - idle
    ddr = BOARD.ddr
    assert opened == pytest.approx(1e-6 * dram.activate_pj(
        ddr.t_ras_min / ddr.clock_hz * 1e9, ddr.t_rp / ddr.clock_hz * 1e9))


def test_packed_products_cost_the_slices_that_they_share() -> None:
    packed = replace(BASE, dsp_packing=True)
    work = Activity(10**7, 10**8, working={"convolution": 1e7})
    saved = (estimate(BASE).part("convolution").dsp - estimate(packed).part("convolution").dsp)
    luts, files = (getattr(estimate(packed).part("convolution"), site)
                   - getattr(estimate(BASE).part("convolution"), site) for site in ("lut", "ff"))
    assert saved == BASE.macs_per_cycle // 2
    assert (energy(work, BASE, BOARD).parts["PL convolution"]
            - energy(work, packed, BOARD).parts["PL convolution"]) == pytest.approx(
        1e7 * (saved * TABLE["fabric.block_pj"] - luts * TABLE["fabric.logic_pj"]
               - files * TABLE["fabric.clock_pj"]) * 1e-12)


def test_a_lower_core_supply_costs_less_of_the_fabric_alone() -> None:
    low = replace(BOARD, power=replace(BOARD.power, vccint_v=0.85))
    found, plain = energy(WORK, BASE, low), energy(WORK, BASE, BOARD)
    assert found.pl_dynamic_j == pytest.approx(plain.pl_dynamic_j * dynamic_ratio(0.85))
    assert (found.coefficients["power.vccint_static_w"]
            == pytest.approx(plain.coefficients["power.vccint_static_w"] * leakage_ratio(0.85)))
    assert (found.ps_j, found.ddr_j) == (plain.ps_j, plain.ddr_j)


def test_arrays_of_cycles_give_the_single_figures_to_the_last_bit() -> None:
    cycles, clocks = np.array([10**7, 3 * 10**7]), np.array([10**8, 142_857_142])
    found = total_joules(replace(WORK, cycles=cycles, clock_hz=clocks, row_misses=None), BASE,
                         BOARD)
    for index in range(2):
        single = replace(WORK, cycles=int(cycles[index]), clock_hz=int(clocks[index]),
                         row_misses=None)
        assert found[index] == energy(single, BASE, BOARD).total_j


def test_every_share_has_a_coefficient_with_an_error() -> None:
    known = {item.name for item in energy_coefficients()}
    known |= {item.name for item in BOARD.coefficients}
    assert {item.coefficient for item in shares(WORK, BASE, BOARD)} <= known


def test_the_width_is_told_by_coefficient_and_a_ratio_is_narrower() -> None:
    one = energy(WORK, BASE, BOARD)
    other = energy(replace(WORK, cycles=100_000_000), BASE, BOARD)
    parts = widest(one, BOARD)
    assert sum(share for _, share in parts) == pytest.approx(1.0)
    assert parts == sorted(parts, key=lambda item: -item[1])
    both = ratio(one, other, BOARD)
    assert both.value == pytest.approx(one.total_j / other.total_j)
    assert both.low < both.value < both.high
    assert both.high / both.low < one.high / one.low


def test_a_lower_core_supply_slows_the_clock_and_the_board_says_how_low() -> None:
    board = load_board("zc702")
    low = replace(board, power=replace(board.power, vccint_v=0.8))
    assert not problems(low)
    assert predict(BASE, low).mhz == pytest.approx(predict(BASE, board).mhz * speed_ratio(0.8))
    assert predict(BASE, low).period_ns == pytest.approx(
        predict(BASE, board).period_ns / speed_ratio(0.8))
    assert rate_hz(BASE, low) < rate_hz(BASE, board)
    far = replace(board, power=replace(board.power, vccint_v=0.6))
    assert [(item.field, item.nearest) for item in problems(far)] == [("power.vccint_v", "0.7")]

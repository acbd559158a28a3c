"""Does the headline study add up: limits hold, the ablation ends at the best design?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arch_models.board import load_board
from studies.ablation import Device, ablate, strip
from studies.errors import UserError
from studies.evaluate import Infeasible, evaluate
from studies.headline import (
    PAPER_UJ_PER_PIXEL,
    Point,
    at_clock,
    default_settings,
    headline,
    starts,
    study,
)
from studies.headline_report import document, page, rich_tables
from studies.inputs import design
from studies.space import default_space, overlay_of
from workloads.library import load

BOARD = load_board("pynq-z1")


@pytest.fixture(scope="module")
def point() -> Point:
    from dataclasses import replace

    settings = replace(default_settings(4), rounds=0, batch=4)
    return headline(["agc-w16"], [100], settings)[0]


def test_no_limit_is_beaten(point: Point) -> None:
    for item in (*point.front, *point.reached.values()):
        latency_ms, at = item.evaluation.latency_ms, item.limits
        assert max(at.dsp_ms, at.array_ms, at.ddr_ms, at.program_ms) <= latency_ms
        assert 0 < at.dsp_share <= at.array_share <= at.convolution_share <= 1
        assert 0 < at.static_share < 1


def test_a_slower_arm_makes_no_design_faster(point: Point) -> None:
    assert point.slow_arm_ms >= point.latency_best.evaluation.latency_ms


def test_the_ends_of_the_front_are_the_best(point: Point) -> None:
    latencies = [item.evaluation.latency_ms for item in point.front]
    energies = [item.evaluation.energy_uj_per_pixel for item in point.front]
    assert latencies == sorted(latencies) and energies == sorted(energies, reverse=True)
    assert point.latency_best is point.front[0] and point.energy_best is point.front[-1]


def test_the_ablation_ends_at_the_best_design(point: Point) -> None:
    best = point.latency_best
    again = evaluate(load("agc-w16"), best.overlay, BOARD, "ddr3", frames=1)
    assert not isinstance(again, Infeasible)
    last = point.ablation.cumulative[-1]
    assert last.evaluation == again and last.overlay == best.overlay
    assert len(point.ablation.cumulative) == len(Device) + 1
    for row in point.ablation.without:
        if not row.used and row.evaluation:
            assert row.evaluation == again
    none = point.ablation.cumulative[0].evaluation
    assert none is not None and none.latency_cycles > 2 * again.latency_cycles


def test_devices_are_taken_away_independently() -> None:
    base = design("default")
    assert strip(base, BOARD, frozenset()) == base
    small = strip(base, BOARD, frozenset(Device))
    assert (small.tm, small.tn, small.columns, small.input_banks) == (8, 8, 1, 1)
    assert len(small.engines) == 1 and not small.fusions
    one = strip(base, BOARD, frozenset({Device.UNROLLING}))
    assert one.tn * one.input_words == base.tn * base.input_words
    assert one.tm * one.tn * one.weight_words == base.tm * base.tn * base.weight_words
    assert strip(base, BOARD, frozenset({Device.DSP_PACKING})) == base


def test_a_device_that_a_design_lacks_is_said_to_be_unused() -> None:
    rows = ablate(load("agc-w16"), BOARD, design("default")).without
    assert [row.device for row in rows if not row.used] == [Device.DSP_PACKING.value]


def test_more_counted_power_is_more_energy(point: Point) -> None:
    for item in point.front:
        values = list(item.counted.values())
        assert values == sorted(values, reverse=True)
        assert item.counted["PS + PL + DDR"] == pytest.approx(
            item.evaluation.energy_uj_per_pixel)
    for name, item in point.reached.items():
        assert item.counted[name] <= min(other.counted[name] for other in point.front)


def test_the_same_seed_gives_the_same_point(point: Point) -> None:
    from dataclasses import replace

    again = study(load("agc-w16"), BOARD, design("default"), 100,
                  replace(default_settings(4), rounds=0, batch=4))
    assert replace(again, workload=point.workload) == point


def test_starts_fit_and_include_an_array_larger_than_the_base() -> None:
    base, space = design("default"), at_clock(default_space(BOARD), 150)
    overlays = [overlay_of(item, base, BOARD) for item in starts(space, base, BOARD, 150)]
    assert all(item.clock_hz == 150_000_000 for item in overlays)
    assert max(item.macs_per_cycle for item in overlays) >= 2 * base.macs_per_cycle


def test_the_document_and_the_page_say_what_they_are(point: Point) -> None:
    made = json.loads(json.dumps(document([point], 4, 0)))
    assert made["predicted"] is True and made["paper_uj_per_pixel"]["value"] == PAPER_UJ_PER_PIXEL
    assert set(made["points"][0]) == {
        "workload", "clock_mhz", "designs_evaluated", "designs_infeasible", "latency_best",
        "latency_ms_with_slow_arm", "energy_best", "front", "power", "ablation",
        "ablation_hand_made"}
    for name, row in made["points"][0]["power"].items():
        assert row["reached"] == (row["uj_per_pixel"] <= PAPER_UJ_PER_PIXEL), name
    text = page([point], 4, 0)
    assert "predicted" in text and "python -m studies.headline" in text
    assert all(device.value in text for device in Device)
    assert len(rich_tables([point])) == 2


def test_a_clock_that_the_space_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="123 MHz"):
        at_clock(default_space(BOARD), 123)


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    for words, said in ((["--workloads", "agc-w17"], "agc-w16"), (["--clocks", "fast"], "MHz"),
                        (["--designs", "0"], "at least 1")):
        found = subprocess.run([sys.executable, "-m", "studies.headline", *words],
                               capture_output=True, text=True, check=False)
        assert found.returncode == 2 and said in found.stderr, found.stderr
        assert "Traceback" not in found.stderr

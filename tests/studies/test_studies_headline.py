"""Does the headline study add up: limits hold, the ablation ends at the best design?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.resources import check
from studies.evaluation.evaluate import Infeasible, evaluate, feasible, simulate_design
from studies.evaluation.inputs import design
from studies.headline.report import document, page, rich_tables
from studies.headline.study import (
    PAPER_UJ_PER_PIXEL,
    Point,
    base_for,
    default_settings,
    headline,
    largest_arrays,
    study,
)
from studies.search.exploration import explore
from studies.search.space import default_space
from studies.search.space_overlays import overlay_of
from studies.why.ablation import Device, ablate, devices, strip, unfolded
from studies.why.array_use import LOST, array_use, total
from studies.why.phase_sums import phase_sums, phase_weights
from workloads.agc.config import AgcConfig
from workloads.agc.graph import agc_graph
from workloads.graph import Operator
from workloads.library import load
from workloads.reference import execute

BOARD = load_board("pynq-z1")


@pytest.fixture(scope="module")
def point() -> Point:
    from dataclasses import replace

    settings = replace(default_settings(4), rounds=0, batch=4)
    return headline(["agc-w16"], settings)[0]


def test_no_limit_is_beaten(point: Point) -> None:
    for item in (*point.front, *point.reached.values()):
        latency_ms, at = item.evaluation.latency_ms, item.limits
        assert max(at.dsp_ms, at.array_ms, at.ddr_ms, at.program_ms) <= latency_ms
        assert 0 < at.dsp_share <= at.array_share <= at.convolution_share <= 1
        assert 0 < at.static_share < 1


def test_the_critical_path_is_the_latency_of_the_fastest_design(point: Point) -> None:
    assert sum(point.path.values()) == point.latency_best.evaluation.latency_cycles


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
    known = devices(load("agc-w16"))
    assert set(known) == set(Device) - {Device.NORM}
    assert [row.device for row in point.ablation.cumulative[1:]] == list(known)
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
    assert (small.data_bits, small.weight_bits) == (16, 16)
    one = strip(base, BOARD, frozenset({Device.UNROLLING}))
    assert one.tn * one.input_words == base.tn * base.input_words
    assert one.tm * one.tn * one.weight_words == base.tm * base.tn * base.weight_words
    assert strip(base, BOARD, frozenset({Device.DSP_PACKING})) == base


def test_a_device_that_a_design_lacks_is_said_to_be_unused() -> None:
    rows = ablate(load("agc-w16"), BOARD, design("default")).without
    assert [row.device for row in rows if not row.used] == [Device.DSP_PACKING.value]
    assert [row.bits for row in rows] == [16] + [8] * (len(rows) - 1)


def test_more_counted_power_is_more_energy(point: Point) -> None:
    for item in point.front:
        values = list(item.counted.values())
        assert values == sorted(values, reverse=True)
        assert item.counted["PS + PL + DDR"] == pytest.approx(
            item.evaluation.energy_uj_per_pixel)
        assert item.between["PS + PL + DDR"] == pytest.approx(
            item.evaluation.energy_limits_uj_per_pixel)
        for name, (low, high) in item.between.items():
            assert low < item.counted[name] < high
    for name, item in point.reached.items():
        assert item.counted[name] <= min(other.counted[name] for other in point.front)


def test_the_same_seed_gives_the_same_point(point: Point) -> None:
    from dataclasses import replace

    graph = load("agc-w16")
    again = study(graph, BOARD, base_for(graph), replace(default_settings(4), rounds=0, batch=4))
    assert replace(again, workload=point.workload) == point


def test_it_searches_the_space_that_explore_searches(point: Point) -> None:
    from dataclasses import replace

    graph = load("agc-w16")
    space, base = default_space(BOARD, graph), base_for(graph)
    found = explore(graph, BOARD, base, replace(default_settings(4), rounds=0, batch=4), space,
                    earlier=largest_arrays(space, base, BOARD))
    fastest = min(item.evaluation.latency_ms for item in found.candidates)
    assert fastest == point.latency_best.evaluation.latency_ms
    assert space.couplings


def test_the_largest_arrays_fit_and_one_is_larger_than_the_base() -> None:
    base, space = design("default"), default_space(BOARD)
    overlays = [overlay_of(item, base, BOARD) for item in largest_arrays(space, base, BOARD)]
    assert all(check(item, BOARD) is None for item in overlays)
    assert max(item.macs_per_cycle for item in overlays) >= 2 * base.macs_per_cycle


def test_the_document_and_the_page_say_what_they_are(point: Point) -> None:
    made = json.loads(json.dumps(document([point], 4, 0)))
    assert made["predicted"] is True and made["paper_uj_per_pixel"]["value"] == PAPER_UJ_PER_PIXEL
    assert set(made["points"][0]) == {
        "workload", "designs_evaluated", "designs_infeasible", "latency_best",
        "latency_ms_with_slow_arm", "energy_best", "array_use",
        "critical_path_cycles", "front", "power", "ablation",
        "ablation_hand_made"}
    for name, row in made["points"][0]["power"].items():
        assert row["reached"] == (row["uj_per_pixel"] <= PAPER_UJ_PER_PIXEL), name
    text = page([point], 4, 0)
    assert "predicted" in text and "cosim study headline" in text
    assert all(device.value in text for device in devices(load("agc-w16")))
    assert len(rich_tables([point])) == 2


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    for words, said in ((["--workloads", "agc-w17"], "agc-w16"),
                        (["--designs", "0"], "designs")):
        found = subprocess.run([sys.executable, "-m", "cosim", "study", "headline", *words],
                               capture_output=True, text=True, check=False)
        assert found.returncode == 2 and said in found.stderr, found.stderr
        assert "Traceback" not in found.stderr


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_products_of_the_array_have_one_use_each(columns: int) -> None:
    from dataclasses import replace

    graph = load("agc-w16")
    overlay = replace(design("default"), tm=24 if columns == 1 else 8, columns=columns,
                      dsp_packing=True)
    run = feasible(simulate_design(graph, overlay, BOARD, "ddr3", trace=True))
    uses = array_use(graph, overlay, run)
    assert len(uses) == sum(layer.operator is Operator.CONVOLUTION and layer.phase == "frame"
                            for layer in graph.layers)
    for use in uses:
        assert use.slots == use.cycles * overlay.macs_per_cycle
        assert min(getattr(use, part) for part in ("useful", *LOST)) >= 0
    assert total(uses).useful == int(run.result.layer_macs.sum())
    final = next(use for use in uses if use.name == "final")
    words = -(-3 // overlay.tm)
    assert final.output_channels * 3 == final.useful * (words * overlay.tm - 3)


def test_an_unfolded_network_computes_the_same_and_has_a_step_for_each_relu() -> None:
    graph = agc_graph(AgcConfig(width=8, rows=32, cols=64, motion_width=8, motion_blocks=2,
                                blocks=2, keypoints=5), seed=3)
    plain = unfolded(graph)
    added = len(plain.layers) - len(graph.layers)
    assert added == sum(layer.operator is Operator.CONVOLUTION and layer.relu
                        for layer in graph.layers) > 0
    draw = np.random.default_rng(0)
    given = {name: draw.integers(-100, 100, graph.tensors[name].shape).astype(
        np.int8 if graph.tensors[name].bits == 8 else np.int16) for name in graph.inputs}
    want, got = execute(graph, given), execute(plain, given)
    assert all(np.array_equal(want[name], got[name]) for name in graph.tensors)
    groups = load("unicorn")
    assert unfolded(groups) is groups


def test_four_small_convolutions_are_the_one_behind_a_nearest_upsample() -> None:
    draw = np.random.default_rng(1)
    weights, image = draw.integers(-127, 128, (3, 2, 3, 3)), draw.integers(-128, 128, (2, 4, 5))
    wide = np.pad(image.repeat(2, 1).repeat(2, 2), ((0, 0), (1, 1), (1, 1)))
    near = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    for row in range(8):
        for column in range(10):
            want = np.einsum("oikl,ikl->o", weights, wide[:, row:row + 3, column:column + 3])
            small = phase_weights(weights)[2 * (row & 1) + (column & 1)]
            top, left = (row + 1) // 2, (column + 1) // 2
            got = np.einsum("oikl,ikl->o", small, near[:, top:top + 2, left:left + 2])
            assert np.array_equal(want, got)


@pytest.mark.parametrize("name", ["agc-w16", "agc-w32"])
def test_no_trained_layer_behind_an_upsample_has_int8_phase_sums(name: str) -> None:
    found = phase_sums(load(name))
    assert len(found) == 7
    assert all(item.largest > 127 and item.sums_beyond > 0 for item in found)

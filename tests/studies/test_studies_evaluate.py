"""Evaluations of the narrow decoder: what is counted is conserved, split and bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import Engine, Infeasible, default_overlay, load_overlay
from studies.evaluation.emission import emit_for
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.quality_table import quality_db
from studies.plain.records import decode, encode
from studies.report.search import nearest_miss
from studies.search.exploration import Means, Question, explore
from studies.search.outcomes import Objective, Settings
from studies.search.space import default_space
from studies.search.space_file import load_space
from studies.search.space_overlays import choice_of
from studies.why.critical import by_layer, by_unit, shares
from workloads.graph import Phase, multiply_accumulates
from workloads.library import load

GRAPH, BOARD, OVERLAY = load("agc-w16"), load_board("pynq-z1"), default_overlay()


@pytest.fixture(scope="module", params=["flat", "ddr3"])
def item(request) -> Evaluation:
    return feasible(evaluate(GRAPH, OVERLAY, BOARD, request.param, detail=True))


def test_macs_are_those_of_the_graph(item):
    wanted = sum(multiply_accumulates(GRAPH, layer) for layer in GRAPH.phase(Phase.FRAME))
    assert item.macs == sum(layer.macs for layer in item.layers) == wanted


def test_bytes_of_the_layers_sum_to_the_frame(item):
    assert sum(layer.bytes_read for layer in item.layers) == item.bytes_read
    assert sum(layer.bytes_written for layer in item.layers) == item.bytes_written


def test_cycles_of_the_layers_sum_to_the_latency(item):
    assert sum(layer.cycles for layer in item.layers) == item.latency_cycles


def test_every_unit_is_busy_stalled_or_idle_all_the_time(item):
    for unit in item.units:
        assert unit.total_cycles == item.latency_cycles
        assert min(unit.busy_cycles, unit.idle_cycles, *unit.stalls.values(), 0) == 0


def test_stalls_of_the_layers_sum_to_those_of_the_units(item):
    for unit in item.units:
        parts = [part for layer in item.layers for part in layer.units if part.name == unit.name]
        assert sum(part.busy_cycles for part in parts) == unit.busy_cycles
        for cause, cycles in unit.stalls.items():
            assert sum(part.stalls.get(cause, 0) for part in parts) == cycles


def test_the_energy_parts_sum_and_so_do_the_layers(item):
    assert sum(item.energy.parts.values()) == pytest.approx(item.energy.total_j)
    assert sum(layer.energy_j for layer in item.layers) == pytest.approx(item.energy.total_j,
                                                                         rel=1e-3)


def test_bounds_hold(item):
    assert item.lower_bound_cycles <= item.latency_cycles
    assert item.macs <= item.latency_cycles * item.peak_macs_per_cycle
    assert item.period_cycles is not None and 0 < item.period_cycles <= item.latency_cycles * 1.01
    assert all(layer.utilization <= 1 + 1e-9 for layer in item.layers if layer.cycles > 0)


def test_an_evaluation_comes_back_from_json(item):
    assert decode(Evaluation, encode(item)) == item


def test_the_critical_path_is_the_latency():
    run = feasible(simulate_design(GRAPH, OVERLAY, BOARD, "ddr3", trace=True))
    found = shares(run.lowered.program, run.result)
    assert sum(by_unit(found).values()) == sum(by_layer(found).values()) == run.result.total_cycles
    assert "gap" not in by_unit(found)


def test_executors_agree_on_a_frame():
    runs = [feasible(simulate_design(GRAPH, OVERLAY, BOARD, "ddr3", executor=name, trace=True))
            for name in ("fast", "des")]
    assert runs[0].result.differences(runs[1].result) == []


def test_a_design_that_does_not_fit_is_a_value_with_its_gap():
    found = evaluate(GRAPH, replace(OVERLAY, tm=64, tn=32), BOARD)
    assert isinstance(found, Infeasible) and found.field == "dsp" and found.gap > 0
    with pytest.raises(UserError, match="dsp"):
        feasible(found)


def test_an_unknown_executor_is_refused():
    with pytest.raises(UserError, match="'fast'"):
        simulate_design(GRAPH, OVERLAY, BOARD, executor="fats")


def test_a_faster_clock_shortens_the_frame_and_moving_work_to_the_arm_lengthens_it():
    base = feasible(evaluate(GRAPH, OVERLAY, BOARD, frames=1))
    fast = feasible(evaluate(GRAPH, replace(OVERLAY, clock_hz=125_000_000), BOARD, frames=1))
    host = feasible(evaluate(GRAPH, replace(
        OVERLAY, engines=OVERLAY.engines - {Engine.ELEMENTWISE}), BOARD, frames=1))
    assert fast.latency_s < base.latency_s < host.latency_s


def test_two_processes_answer_as_one_does():
    space = default_space(BOARD)
    first = choice_of(OVERLAY, space)
    assert first is not None
    choices = [choice for _, choice in space.neighbours(first)][:12]
    answers = []
    for workers in (1, 2):
        with Question(GRAPH, BOARD, OVERLAY).on_cores(workers) as using:
            answers.append(list(using.search(choices)))
    assert answers[0] == answers[1]


def test_the_same_seed_explores_the_same_front():
    settings = Settings(designs=30, seed=7, rounds=1)
    first, second = (explore(GRAPH, BOARD, OVERLAY, settings, means=Means(depth=1))
                     for _ in range(2))
    assert first.found.front == second.found.front
    assert first.chosen == second.chosen
    assert first.default is not None and first.chosen is not None
    assert first.chosen.evaluation.latency_ms < first.default.latency_ms


def test_a_sampled_network_counts_every_step_and_lists_a_step_once():
    graph = load("unicorn")
    item = feasible(evaluate(graph, load_overlay("diffusion"), BOARD, "flat", detail=True))
    a_step, a_picture = (sum(multiply_accumulates(graph, layer) for layer in graph.phase(phase))
                         for phase in (Phase.STEP, Phase.FRAME))
    assert graph.steps == 8
    assert item.macs == 8 * a_step + a_picture
    assert sum(layer.macs for layer in item.layers) == a_step + a_picture
    assert item.pixels == 256 * 256 and item.period_cycles is None
    assert item.step_cycles is not None
    assert 7 * item.step_cycles < item.latency_cycles < 12 * item.step_cycles
    assert item.latency_cycles > 7 * sum(
        layer.cycles for layer in item.layers if not layer.name.startswith("picture"))


def test_steps_that_nobody_tied_are_not_emitted_in_part(tmp_path):
    graph = replace(load("agc-w16"), steps=8)
    with pytest.raises(UserError, match="8 sampler steps"):
        emit_for(graph, OVERLAY, BOARD, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_infeasible_set_ends_with_the_nearest_miss_and_a_lever(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\ntm = [64]\ntn = [32]\ncolumns = [2, 4]\ndsp_packing = [false]\n")
    found = explore(GRAPH, BOARD, OVERLAY, Settings(designs=1, batch=4, attempts=12, rounds=0),
                    load_space(path, BOARD))
    assert found.chosen is None and found.found.infeasible == len(found.found.records) > 0
    nearest = min(record.failure.excess for record in found.found.records)
    message = nearest_miss(found)
    assert "Nearest miss: " in message and "try: " in message
    assert any(record.failure.excess == nearest and record.failure.reason in message
               for record in found.found.records)


def test_the_workload_is_an_axis_and_quality_and_period_are_objectives(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\nworkload = ['agc-w16', 'agc-w16-multiplier']\ntm = [16]\ntn = [8]\n")
    wanted = (Objective.PERIOD, Objective.QUALITY)
    found = explore(GRAPH, BOARD, OVERLAY,
                    Settings(designs=6, batch=6, rounds=0, objectives=wanted),
                    load_space(path, BOARD), Means(depth=1))
    done = [record for record in found.found.records if record.evaluation]
    assert {record.choice["workload"] for record in done} \
        == {record.evaluation.workload for record in done}
    for record, row in zip(found.found.records, found.found.objectives(), strict=True):
        if record.evaluation:
            assert record.evaluation.frames > 1
            assert list(row) == [record.evaluation.period_ms,
                                 -quality_db(record.choice["workload"])]


def test_quality_that_was_never_measured_is_refused_before_the_search():
    with pytest.raises(UserError, match="'agc-w64-seed0' was never measured"):
        explore(load("agc-w64"), BOARD, OVERLAY, Settings(objectives=(Objective.QUALITY,)))


def test_qualities_on_different_pictures_are_refused_before_the_search(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\nworkload = ['agc-w16', 'unicorn-n256-int8']\ntm = [16]\n")
    with pytest.raises(UserError, match="'agc-w16' and 'unicorn-n256-int8'.*different pictures"):
        explore(GRAPH, BOARD, OVERLAY, Settings(objectives=(Objective.QUALITY,)),
                load_space(path, BOARD))

"""Does every cycle have one place? Do differences, chains and named changes hold to the cycle?"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction

import pytest

from arch_models.board import load_board
from arch_models.overlay import Infeasible, default_overlay
from cosim.executors import fast
from cosim.program.random import random_memory, random_program
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.inputs import Subject, pair, subject
from studies.plain.errors import UserError
from studies.plain.records import save
from studies.search.space import default_space
from studies.search.space_overlays import overlay_of
from studies.why.account import BUSY, account
from studies.why.compare import Refused, compare
from studies.why.critical import chain, shares_of
from studies.why.explain import explain
from workloads.library import load

GRAPH, BOARD, OVERLAY = load("agc-w16"), load_board("pynq-z1"), default_overlay()


def side(overlay, memory="flat") -> Subject:
    return Subject(overlay.name, GRAPH, overlay, BOARD, memory)


@pytest.mark.parametrize("model", ["flat", "ddr3"])
def test_every_cycle_of_a_random_program_is_accounted_once_and_the_chain_has_no_gap(model):
    for seed in range(40):
        memory = random_memory(seed, model)
        program = random_program(seed, len(memory.ports))
        result = fast.simulate(program, memory, trace=True)
        cells = account(program, result)
        assert sum(cell.cycles for cell in cells) == result.total_cycles
        assert all(cell.cycles > 0 for cell in cells)
        links = chain(program, result)
        assert links[0].start_cycles == 0 and links[-1].end_cycles == result.total_cycles
        for one, after in zip(links, links[1:], strict=False):
            assert one.end_cycles == after.start_cycles and one.cycles > 0
        assert sum(share.cycles for share in shares_of(links)) == result.total_cycles


def test_a_layer_is_not_busier_than_its_engine_was():
    run = feasible(simulate_design(GRAPH, OVERLAY, BOARD, "ddr3", trace=True))
    program, result = run.lowered.program, run.result
    units = [unit.name for unit in program.units]
    for cell in account(program, result):
        if cell.state == BUSY:
            place = program.layers.index(cell.layer), units.index(cell.unit)
            assert cell.cycles <= result.layer_busy[place] + result.layer_memory_stall[place]


def test_differences_of_random_pairs_of_designs_add_up_exactly():
    draw, space, found = random.Random(3), default_space(BOARD), []
    while len(found) < 8:
        overlay = overlay_of(space.sample(draw), OVERLAY, BOARD, f"design-{len(found)}")
        if not isinstance(evaluate(GRAPH, overlay, BOARD, "flat", frames=1), Infeasible):
            found.append(overlay)
    for index in range(0, len(found), 2):
        both = compare(side(found[index], "ddr3"), side(found[index + 1]))
        latency = (Fraction(both.b.latency_cycles, both.b.clock_hz)
                   - Fraction(both.a.latency_cycles, both.a.clock_hz))
        for rows in (both.layers, both.states, both.cells, both.units):
            assert sum(row.delta_s for row in rows) == latency
            assert sum(row.a_cycles for row in rows) == both.a.latency_cycles
            assert sum(row.b_cycles for row in rows) == both.b.latency_cycles
            assert len({row.name for row in rows}) == len(rows)
        assert sum(part.b_j - part.a_j for part in both.energy) == pytest.approx(
            both.b.energy.total_j - both.a.energy.total_j, abs=1e-12)
        between, a, b = both.energy_ratio, both.a.energy, both.b.energy
        assert between.value == pytest.approx(b.total_j / a.total_j)
        apart = math.log(b.high / b.low) ** 2 + math.log(a.high / a.low) ** 2
        assert math.log(between.high / between.low) ** 2 < apart


def test_a_design_compared_with_itself_differs_nowhere():
    both = compare(side(OVERLAY), side(OVERLAY))
    assert both.energy_ratio.value == pytest.approx(1.0)
    assert not any(row.delta_s for rows in (both.layers, both.cells, both.units) for row in rows)


def test_a_result_file_brings_its_settings_to_the_design_beside_it(tmp_path):
    found = feasible(evaluate(GRAPH, OVERLAY, BOARD, "flat", frames=1, detail=True))
    path = tmp_path / "result.json"
    save(path, "evaluation", found)
    with pytest.raises(UserError, match="does not say how its network .* --workload"):
        subject(str(path))
    item = replace(found, network=GRAPH.name)
    save(path, "evaluation", item)
    first, second = pair(str(path), "default")
    assert first.stored == item and second.stored is None
    assert first.graph.name == second.graph.name == GRAPH.name
    assert (first.memory, second.memory) == ("flat", "flat") and first.overlay == OVERLAY
    both = compare(first, second)
    assert both.a.latency_cycles == item.latency_cycles
    assert subject(str(path), memory="ddr3").memory == "ddr3"


def test_designs_for_different_networks_are_not_compared():
    with pytest.raises(UserError, match="one network"):
        compare(side(OVERLAY), replace(side(OVERLAY), graph=load("unicorn")))


def test_the_reason_names_the_side_that_does_not_work_out():
    huge = side(replace(OVERLAY, name="huge", tm=64))
    for found in (compare(side(OVERLAY), huge), compare(huge, side(OVERLAY))):
        assert isinstance(found, Refused) and found.side is huge
        assert found.reason.where == "huge" and found.reason.field == "dsp"


@pytest.mark.parametrize("memory", ["flat", "ddr3"])
def test_changes_that_are_named_do_shorten_the_frame(memory):
    found = feasible(explain(GRAPH, OVERLAY, BOARD, memory))
    assert sum(link.cycles for link in found.chain) == found.evaluation.latency_cycles
    assert sum(part for _, part in found.widths) == pytest.approx(1.0)
    assert found.changes and len({change.axis for change in found.changes}) == len(found.changes)
    saved = [change.saved_ms for change in found.changes]
    assert saved == sorted(saved, reverse=True)
    for change in found.changes:
        assert change.latency_ms < found.evaluation.latency_ms
        assert change.saved_ms == pytest.approx(
            found.evaluation.latency_ms - change.latency_ms)

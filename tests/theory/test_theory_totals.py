"""Do times and totals stay exact where 64 bits would run over, or are they refused beforehand?"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from test_theory_closed_forms import EXECUTORS, MEMORY, compute, engine, program, row

from arch_models.board import load_board
from arch_models.memory import memory_for
from arch_models.overlay import Infeasible, default_overlay
from cosim.executors import des, fast
from cosim.memory.controller import timing
from cosim.memory.crossing import decided_in, to_ddr, to_fabric
from cosim.program.table import Channel, ProgramError, Unit, UnitKind
from cosim.program.totals import MOST_WORK
from cosim.recurrence.cpu import prepare
from studies.evaluation.emission import emit_for
from studies.evaluation.evaluate import evaluate
from studies.plain.errors import UserError
from workloads.library import load

BOARD = load_board("pynq-z1")
#: Clocks whose ratio does not shorten: a product with a time of 3.5e10 cycles needs 65 bits.
ODD_HZ = 99_999_999


def odd_memory():
    return memory_for(BOARD, replace(default_overlay(), clock_hz=ODD_HZ), "ddr3")


def test_clocks_are_crossed_exactly_at_times_whose_products_need_more_than_63_bits():
    generator = random.Random(5)
    clock, cycle = BOARD.ddr.clock_hz, ODD_HZ
    record = timing(odd_memory().ddr)
    for bits in (10, 30, 31, 32, 35, 40, 55):
        for _ in range(50):
            time = generator.getrandbits(bits)
            assert to_ddr(time, record) == -(-time * clock // cycle)
            assert to_fabric(time, record) == -(-time * cycle // clock)
            assert decided_in(time, record) == time * cycle // clock


def test_a_run_of_minutes_is_the_same_in_both_executors_to_the_cycle():
    wait = 40_000_000_000  # cycles: 400 s
    channel = Channel("c", 0, 1)
    units = [engine("e"), Unit("r", UnitKind.READ, port=0)]
    rows = [compute(0, wait, signal=1), row(UNIT=1, ROW_BYTES=4096, ROWS=3, ROW_STRIDE=8192,
                                            PLANES=1, WAIT=1)]
    built = program(units, rows, (channel,))
    results = [executor.simulate(built, odd_memory()) for executor in (fast, des)]
    assert not results[0].differences(results[1])
    assert wait < results[0].total_cycles < wait + 10_000


@EXECUTORS
@pytest.mark.parametrize("values", [
    {"FILL": MOST_WORK + 1}, {"INTERVAL": 1 << 33, "TRIPS": 1 << 33}, {"FILL": 1, "MACS": 1 << 62}])
def test_what_cannot_be_counted_is_refused_before_it_is(executor, values):
    built = program([engine("e")], [row(UNIT=0, FILL=1)])
    table = np.array([row(UNIT=0, **values)], np.int64)
    with pytest.raises(ProgramError, match="in all, at most"):
        executor.simulate(replace(built, operations=table), MEMORY)


def test_repeats_count():
    built = program([engine("e")], [row(UNIT=0, FILL=1 << 30)], repeat=1 << 15)
    with pytest.raises(ProgramError, match="computing"):
        fast.simulate(built, MEMORY)


@pytest.mark.parametrize("initial", [64, 65, 1000])
def test_the_recurrence_leaves_channels_that_start_with_many_tokens_to_the_executors(initial):
    """Its token queues hold 64: more would be read from times of others."""
    channel = Channel("c", 0, 1, initial)
    built = program([engine("a"), engine("b")], [compute(0, 3, signal=1), compute(1, 2, wait=1)],
                    (channel,))
    assert (prepare(built) is None) == (initial > 64)


def test_tensors_that_the_dram_does_not_hold_make_a_design_infeasible():
    graph, overlay = load("agc-w16"), default_overlay()
    small = replace(BOARD, ddr=replace(BOARD.ddr, size_bytes=1 << 20))
    found = evaluate(graph, overlay, small, "flat", frames=1)
    assert isinstance(found, Infeasible) and found.field == "ddr.size_bytes"
    assert found.demand > found.bound == 1 << 20
    assert not isinstance(evaluate(graph, overlay, BOARD, "flat", frames=1), Infeasible)


def test_a_network_that_the_dram_does_not_hold_is_not_emitted(tmp_path):
    small = replace(BOARD, ddr=replace(BOARD.ddr, size_bytes=1 << 20))
    with pytest.raises(UserError, match=r"ddr.size_bytes needs"):
        emit_for(load("agc-w16"), default_overlay(), small, tmp_path / "out")
    assert not (tmp_path / "out").exists()

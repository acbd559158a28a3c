"""Does the register-transfer control start and end every operation in the executors' cycle?"""

from __future__ import annotations

import dataclasses

import pytest

from arch_models.memory import flat_memory
from cosim.executors import fast
from cosim.program.random import random_memory, random_program
from cosim.program.result import Trace
from hw.rtl_sim.timed import TimedBench, buildable
from studies.validate.rtl import compare_programs, differing_counters, differing_operations


@pytest.fixture(scope="module")
def bench() -> TimedBench:
    return TimedBench()


def test_random_programs_agree_in_every_operation_and_counter(bench):
    found = compare_programs(250, 0, bench)
    assert found.programs > 200
    assert found.operations_differing == 0
    assert found.counters_differing == 0
    assert found.operations_compared > 5000 and found.cycles_compared > 500_000


def test_random_programs_agree_on_the_ddr3_memory(bench):
    found = compare_programs(40, 500, bench, model="ddr3")
    assert found.equal and found.programs > 30


@pytest.mark.long
def test_thousands_of_random_programs_agree(bench):
    found = compare_programs(3000, 10_000, bench)
    assert found.equal and found.programs > 2500


def test_the_comparison_sees_one_shifted_cycle(bench):
    memory = random_memory(3)
    program = buildable(random_program(3, len(memory.ports)))
    run = bench.run(program, memory)
    result = fast.simulate(program, memory, trace=True)
    end = result.trace.end.copy()
    end[-1] += 1
    shifted = dataclasses.replace(result, trace=Trace(result.trace.start, end),
                                  busy=result.busy + 1)
    assert differing_operations(run, result).size == 0
    assert differing_operations(run, shifted).tolist() == [len(end) - 1]
    assert differing_counters(run, shifted)[1] == len(result.busy)


def test_another_memory_is_noticed(bench):
    """The hardware's cycles come from its memory, not from the executor's."""
    memory = flat_memory(4, read_latency_cycles=20)
    slower = flat_memory(4, read_latency_cycles=21)
    program = buildable(random_program(2, 4))
    assert any(unit.kind == 1 for unit in program.units)
    result = fast.simulate(program, memory, trace=True)
    assert differing_operations(bench.run(program, memory), result).size == 0
    assert differing_operations(bench.run(program, slower), result).size > 0

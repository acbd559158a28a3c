"""Do an emitted table's commands reach their queues in time, and does its order change nothing?"""

from __future__ import annotations

import numpy as np
import pytest
from test_hw_simulate import DESIGNS

from arch_models.memory import memory_for
from arch_models.overlay import Fetch, Overlay, default_overlay
from cosim.executors import fast
from cosim.program.table import Column, Program
from hw.interface.configuration import configure
from hw.interface.plan import in_order_of_start, late_commands, steps
from tests.support.small_frames import board, lowered_frame
from workloads.library import load


def rows_of_units(program: Program) -> list[tuple]:
    """The rows of each unit in their order, with their arguments."""
    unit = program.operations[:, Column.UNIT]
    return [(program.operations[mine].tolist(), program.arguments[mine].tolist())
            for mine in (unit == number for number in range(len(program.units)))]


def sorted_program(program: Program, overlay: Overlay, model: str = "ddr3") -> Program:
    return in_order_of_start(program, configure(program, overlay),
                             memory_for(board(), overlay, model))


@pytest.mark.parametrize("name", DESIGNS)
def test_the_order_of_start_changes_no_unit_and_no_cycle(name: str) -> None:
    overlay = DESIGNS[name]
    program = lowered_frame(overlay).program
    found = sorted_program(program, overlay)
    assert rows_of_units(found) == rows_of_units(program)
    for model in ("flat", "ddr3"):
        memory = memory_for(board(), overlay, model)
        one, other = (fast.simulate(item, memory) for item in (program, found))
        assert one.total_cycles == other.total_cycles
        assert np.array_equal(one.busy, other.busy) and np.array_equal(one.idle, other.idle)
    assert len(steps(found, configure(found, overlay))) \
        == len(steps(program, configure(program, overlay)))


def test_no_command_of_a_whole_frame_comes_late_in_the_order_of_start() -> None:
    """In the order of lowering some do: weights are loaded far ahead of many commands."""
    overlay, graph = default_overlay(), load("agc-w16")
    program = lowered_frame(overlay, graph=graph).program
    memory, configuration = memory_for(board(), overlay), configure(program, overlay)
    assert late_commands(program, configuration, memory) > 0
    found = sorted_program(program, overlay)
    assert late_commands(found, configuration, memory) == 0
    assert late_commands(found, configuration, memory_for(board(), overlay, "flat")) == 0


def test_a_program_that_fetches_its_descriptors_keeps_its_table() -> None:
    overlay = next(item for item in DESIGNS.values() if item.fetch is Fetch.DRAM)
    program = lowered_frame(overlay).program
    assert sorted_program(program, overlay) is program

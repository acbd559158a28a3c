"""Does every memory model honour the contract of the seam, in both executors?

AXI limits, whole beats, no faster than the wires, accounting that adds up.
"""

from __future__ import annotations

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.memory import MODELS, board_memory, cpu_traffic
from cosim.analysis.trace import slices
from cosim.executors import des, fast
from cosim.memory.bursts import burst_beats, burst_bytes
from cosim.program.random import random_memory, random_program
from cosim.program.table import Column, UnitKind
from studies.validate.memory import Stream, traffic_program

EXECUTORS = pytest.mark.parametrize("executor", [des, fast], ids=["des", "fast"])


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("max_beats", [1, 4, 16])
def test_bursts_keep_to_the_axi_limits_and_cover_the_run(width: int, max_beats: int) -> None:
    draw = np.random.default_rng(width * max_beats)
    for _ in range(200):
        address = start = int(draw.integers(1 << 16))
        left = size = int(draw.integers(1, 5000))
        while left:
            count = burst_bytes(address, left, width, max_beats)
            beats = burst_beats(address, count, width)
            assert count >= 1 and beats * width >= count
            assert beats <= max_beats
            assert address // 4096 == (address + count - 1) // 4096
            address, left = address + count, left - count
        assert address == start + size


@EXECUTORS
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(25))
def test_a_run_conserves_bytes_and_cycles(executor, model: str, seed: int) -> None:
    memory = random_memory(seed, model)
    program = random_program(seed, len(memory.ports))
    result = executor.simulate(program, memory)
    assert result.broken_invariants() == []
    moved = np.zeros(len(program.units), np.int64)
    for part in program.segments:
        rows = program.operations[part.first : part.last]
        size = rows[:, Column.ROW_BYTES] * rows[:, Column.ROWS] * rows[:, Column.PLANES]
        np.add.at(moved, rows[:, Column.UNIT], size * part.repeat)
    assert result.layer_bytes.sum(axis=0).tolist() == moved.tolist()
    for index, unit in enumerate(program.units):
        if unit.kind == UnitKind.COMPUTE:
            continue
        width = memory.ports[unit.port].width_bytes
        longest = width * unit.max_burst_beats
        assert result.busy[index] * width >= moved[index]
        assert result.layer_bursts[:, index].sum() * longest >= moved[index]


@pytest.mark.parametrize("seed", range(25))
def test_a_channel_is_never_faster_than_its_wires(seed: int) -> None:
    memory = random_memory(seed, "ddr3")
    program = random_program(seed, len(memory.ports))
    result = fast.simulate(program, memory)
    channels: dict[tuple[int, UnitKind], int] = {}
    for index, unit in enumerate(program.units):
        if unit.kind != UnitKind.COMPUTE:
            beats = int(result.busy[index] - result.operations[index]
                        * (unit.setup_cycles + unit.tail_cycles))
            key = (unit.port, unit.kind)
            channels[key] = channels.get(key, 0) + beats
    assert all(beats <= result.total_cycles for beats in channels.values())


def test_rows_are_counted_once_a_burst_and_refreshes_follow_the_clock() -> None:
    memory = random_memory(4, "ddr3")
    program = random_program(4, len(memory.ports))
    result = fast.simulate(program, memory)
    # A burst touches one row, or two where it crosses an edge.
    bursts = int(result.layer_bursts.sum())
    assert bursts <= result.row_hits + result.row_misses <= 2 * bursts
    assert result.row_misses > 0


def test_a_trace_says_which_operations_opened_rows() -> None:
    memory = random_memory(4, "ddr3")
    program = random_program(4, len(memory.ports))
    result = fast.simulate(program, memory, trace=True)
    assert result.trace is not None and result.trace.row_hits is not None
    assert result.trace.row_misses is not None
    assert int(result.trace.row_hits.sum()) == result.row_hits
    assert int(result.trace.row_misses.sum()) == result.row_misses
    shown = [item.row_misses for item in slices(program, result) if item.row_misses >= 0]
    assert sum(shown) == result.row_misses


def test_background_traffic_slows_a_reader_down_and_is_not_counted_as_its_own() -> None:
    board = load_board("pynq-z1")
    quiet = board_memory(board, 100_000_000)
    busy = board_memory(board, 100_000_000, background=(cpu_traffic(),))
    program = traffic_program((Stream(0, False, 128, 1, 1 << 16),), quiet)
    alone, disturbed = fast.simulate(program, quiet), fast.simulate(program, busy)
    assert disturbed.total_cycles > alone.total_cycles
    assert disturbed.layer_bytes.sum() == alone.layer_bytes.sum()
    assert (disturbed.row_hits + disturbed.row_misses) == (alone.row_hits + alone.row_misses)

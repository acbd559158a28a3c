"""Does the host cost what its numbers say, and does it never overwrite what a frame still reads?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.engines.host import cache_ns, start_ns
from arch_models.memory import memory_for
from arch_models.overlay import Control, Driver, Engine, Wait, default_overlay
from cosim.build import build
from cosim.executors import fast
from cosim.lowering.host_times import host_cycles
from cosim.lowering.lower import Lowered
from cosim.program.table import Column, Opcode
from tests.support.small_frames import lowered_frame, small_graph, without

BOARD = load_board("pynq-z1")
HOST = BOARD.host
C = Control(driver=Driver.C, register_writes=12, cache_maintenance=True)


def start(control: Control) -> float:
    return start_ns(BOARD, replace(default_overlay(), control=control))


@pytest.mark.parametrize("writes", [0, 1, 12])
def test_a_start_pays_every_register_write(writes: int) -> None:
    control = replace(C, register_writes=writes)
    assert start(control) == pytest.approx(
        HOST.start_c_ns + writes * HOST.register_write_c_ns)
    python = replace(control, driver=Driver.PYTHON)
    assert start(python) == pytest.approx(
        HOST.start_python_ns + writes * HOST.register_write_python_ns)
    assert start(replace(control, wait=Wait.SLEEP)) == pytest.approx(
        start(control) + HOST.wake_c_ns)


@pytest.mark.parametrize(("nanoseconds", "cycles"), [(0.0, 1), (10.0, 1), (1000.0, 100),
                                                     (1001.0, 101)])
def test_a_step_of_the_host_takes_whole_cycles_and_never_none(nanoseconds: float,
                                                              cycles: int) -> None:
    assert host_cycles(nanoseconds, 100_000_000) == cycles


def test_cache_upkeep_is_paid_by_the_byte_from_a_floor_on() -> None:
    large = 100_000
    assert cache_ns(BOARD, C, large) == pytest.approx(large * HOST.cache_ns_per_byte)
    assert cache_ns(BOARD, C, 1) == pytest.approx(HOST.cache_floor_ns)
    assert cache_ns(BOARD, C, 0) == 0.0
    assert cache_ns(BOARD, replace(C, cache_maintenance=False), large) == 0.0


def lowered(control: Control) -> Lowered:
    overlay = replace(without(Engine.SOFTMAX), control=control)
    found = build(small_graph(), overlay, BOARD)
    assert isinstance(found, Lowered)
    return found


def test_a_program_holds_the_host_time_of_every_step_and_each_cost_in_it() -> None:
    """Starts and operators of a frame whose softmax is the host's, term by term."""
    clock = default_overlay().clock_hz
    plain = lowered(replace(C, register_writes=0, cache_maintenance=False))
    rows = plain.program.operations
    hosts = rows[rows[:, Column.KIND] == Opcode.HOST]
    assert hosts[:, Column.FILL].tolist() == [host_cycles(item, clock) for item in plain.host_ns]
    with_writes = lowered(replace(C, cache_maintenance=False))
    starts = sum(later > before for before, later in zip(plain.host_ns, with_writes.host_ns,
                                                         strict=True))
    assert starts > 0
    assert sum(with_writes.host_ns) - sum(plain.host_ns) == pytest.approx(
        starts * 12 * HOST.register_write_c_ns)
    with_upkeep = lowered(C)
    layouts = with_upkeep.mapping.layouts
    upkeep = sum(cache_ns(BOARD, C, layouts.bytes_of(name))
                 for item in with_upkeep.mapping.layers if item.engine is None
                 for name in (*item.inputs, item.output))
    assert upkeep > 0
    assert sum(with_upkeep.host_ns) - sum(with_writes.host_ns) == pytest.approx(upkeep)


def test_the_host_prepares_the_next_frame_only_when_this_one_has_read_its_inputs() -> None:
    """Two frames: what the host writes first, in the second frame, waits for its last reader."""
    frames = lowered_frame(without(Engine.GRID_SAMPLE), frames=2)
    program = frames.program
    release = [bit for bit, channel in enumerate(program.channels)
               if channel.name.startswith("release")]
    rows = program.operations
    host = program.units.index(next(unit for unit in program.units if unit.name == "host"))
    first = next(index for index in range(len(rows)) if rows[index, Column.UNIT] == host)
    if program.layers[rows[first, Column.LAYER]] == "start":
        pytest.fail("the frame must begin with an operator of the host")
    waits = [bit for bit in release if rows[first, Column.WAIT] >> bit & 1]
    assert waits and all(program.channels[bit].initial == 1 for bit in waits)
    trace = fast.simulate(program, memory_for(BOARD, default_overlay(), "flat"), trace=True).trace
    assert trace is not None
    readers = [index for index in range(len(rows))
               if any(rows[index, Column.SIGNAL] >> bit & 1 for bit in waits)]
    again = first + len(rows)  # the same row in the second frame
    assert trace.start[again] >= max(trace.end[index] for index in readers)

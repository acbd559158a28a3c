"""Do tiny programs take exactly the cycles that paper and pencil say, on both executors?"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from arch_models.memory import Memory, Port
from cosim.executors import des, fast
from cosim.memory.bursts import flat_accept
from cosim.program.table import (
    ARGUMENT_COUNT,
    Channel,
    Column,
    Program,
    ProgramError,
    Segment,
    Unit,
    UnitKind,
)
from cosim.program.verify import verify

EXECUTORS = pytest.mark.parametrize("executor", [des, fast], ids=["des", "fast"])
LATENCY, WRITE_LATENCY, LEAD = 20, 7, 2
MEMORY = Memory("flat", (Port("p", 8, LATENCY, WRITE_LATENCY, LEAD),))


def row(**values: int) -> list[int]:
    filled = [0] * len(Column)
    for name, value in values.items():
        filled[Column[name]] = value
    return filled


def compute(unit: int, cycles: int, wait: int = 0, signal: int = 0, flags: int = 0) -> list[int]:
    return row(UNIT=unit, INTERVAL=1, TRIPS=cycles, WAIT=wait, SIGNAL=signal, FLAGS=flags)


def move(unit: int, size: int, rows: int = 1, stride: int = 0, address: int = 0) -> list[int]:
    return row(UNIT=unit, ADDRESS=address, ROW_BYTES=size, ROWS=rows, ROW_STRIDE=stride, PLANES=1)


def program(units: list[Unit], rows: list[list[int]], channels: tuple[Channel, ...] = (),
            repeat: int = 1) -> Program:
    built = Program("tiny", tuple(units), channels, ("layer",), np.array(rows, np.int64),
                    np.zeros((len(rows), ARGUMENT_COUNT), np.int32),
                    (Segment(0, len(rows), repeat),))
    verify(built)
    return built


def engine(name: str) -> Unit:
    return Unit(name, UnitKind.COMPUTE)


@EXECUTORS
def test_one_operation_is_fill_plus_trips_plus_drain(executor: ModuleType) -> None:
    built = program([engine("e")], [row(UNIT=0, FILL=3, INTERVAL=2, TRIPS=5, DRAIN=4, MACS=9)])
    result = executor.simulate(built, MEMORY)
    assert result.total_cycles == 3 + 2 * 5 + 4
    assert result.layer_macs.tolist() == [9]


@EXECUTORS
@pytest.mark.parametrize(("first", "second"), [(10, 10), (10, 3), (3, 10)])
@pytest.mark.parametrize("buffers", [1, 2])
def test_ping_pong_of_two_stages(executor: ModuleType, first: int, second: int,
                                 buffers: int) -> None:
    tiles = 6
    channels = (Channel("filled", 0, 1), Channel("free", 1, 0, buffers))
    built = program([engine("a"), engine("b")],
                    [compute(0, first, wait=2, signal=1), compute(1, second, wait=1, signal=2)],
                    channels, tiles)
    expected = (tiles * (first + second) if buffers == 1
                else first + second + (tiles - 1) * max(first, second))
    assert executor.simulate(built, MEMORY).total_cycles == expected


@EXECUTORS
@pytest.mark.parametrize("cycles", [(5, 9, 4), (9, 5, 4), (4, 5, 9)])
def test_ping_pong_of_three_stages(executor: ModuleType, cycles: tuple[int, int, int]) -> None:
    tiles = 8
    channels = (Channel("ab", 0, 1), Channel("ba", 1, 0, 2), Channel("bc", 1, 2),
                Channel("cb", 2, 1, 2))
    built = program(
        [engine("a"), engine("b"), engine("c")],
        [compute(0, cycles[0], wait=0b10, signal=0b1),
         compute(1, cycles[1], wait=0b1001, signal=0b110),
         compute(2, cycles[2], wait=0b100, signal=0b1000)], channels, tiles)
    expected = sum(cycles) + (tiles - 1) * max(cycles)
    assert executor.simulate(built, MEMORY).total_cycles == expected


@EXECUTORS
def test_a_wait_is_a_stall_unless_it_is_the_first_of_a_layer(executor: ModuleType) -> None:
    channels = (Channel("late", 0, 2), Channel("later", 1, 2))
    rows = [compute(0, 10, signal=1), compute(1, 30, signal=2),
            compute(2, 1, wait=1, flags=1), compute(2, 1, wait=2)]
    result = executor.simulate(program([engine("a"), engine("b"), engine("c")], rows, channels),
                               MEMORY)
    assert result.idle.tolist() == [31 - 10, 31 - 30, 10]
    assert result.token_stall.tolist() == [[0, 0], [0, 0], [0, 30 - 11]]
    assert result.total_cycles == 31


@EXECUTORS
def test_a_wait_for_two_tokens_is_booked_on_the_last(executor: ModuleType) -> None:
    channels = (Channel("early", 0, 2), Channel("last", 1, 2), Channel("same", 1, 2))
    rows = [compute(0, 4, signal=1), compute(1, 9, signal=0b110), compute(2, 1, wait=0b111)]
    result = executor.simulate(program([engine("a"), engine("b"), engine("c")], rows, channels),
                               MEMORY)
    assert result.token_stall[2].tolist() == [0, 9, 0]


@EXECUTORS
@pytest.mark.parametrize(("size", "address", "beats"),
                         [(128, 0, 16), (8, 0, 1), (1, 7, 1), (2, 7, 2), (121, 7, 16)])
def test_one_read_burst_is_setup_latency_beats_tail(executor: ModuleType, size: int,
                                                    address: int, beats: int) -> None:
    unit = Unit("r", UnitKind.READ, 0, setup_cycles=3, tail_cycles=2)
    result = executor.simulate(program([unit], [move(0, size, address=address)]), MEMORY)
    assert result.layer_bursts.tolist() == [[1]]
    assert result.total_cycles == 3 + LATENCY + beats + 2
    assert result.busy.tolist() == [3 + beats + 2]
    assert result.memory_stall.tolist() == [LATENCY]


@EXECUTORS
def test_one_write_burst_is_lead_beats_response(executor: ModuleType) -> None:
    unit = Unit("w", UnitKind.WRITE, 0, setup_cycles=3, tail_cycles=2)
    result = executor.simulate(program([unit], [move(0, 128)]), MEMORY)
    assert result.total_cycles == 3 + LEAD + 16 + WRITE_LATENCY + 2


@EXECUTORS
@pytest.mark.parametrize(("outstanding", "expected"), [
    (1, 8 * (LATENCY + 16)), (2, 4 * (LATENCY + 16) + 16), (8, LATENCY + 8 * 16)])
def test_outstanding_bursts_hide_latency(executor: ModuleType, outstanding: int,
                                         expected: int) -> None:
    unit = Unit("r", UnitKind.READ, 0, outstanding, setup_cycles=0, tail_cycles=0)
    result = executor.simulate(program([unit], [move(0, 1024)]), MEMORY)
    assert result.total_cycles == expected


@EXECUTORS
def test_runs_that_do_not_overlap_pay_the_latency_each(executor: ModuleType) -> None:
    unit = Unit("r", UnitKind.READ, 0, 8, setup_cycles=1, tail_cycles=1, overlap_runs=False,
                run_setup_cycles=5)
    result = executor.simulate(program([unit], [move(0, 256, rows=4, stride=4096)]), MEMORY)
    assert result.total_cycles == 1 + 4 * (LATENCY + 32) + 3 * 5 + 1


@EXECUTORS
def test_a_burst_stops_at_4_kib_and_at_its_longest(executor: ModuleType) -> None:
    unit = Unit("r", UnitKind.READ, 0, 8, setup_cycles=0, tail_cycles=0)
    result = executor.simulate(program([unit], [move(0, 256, address=4096 - 40)]), MEMORY)
    assert result.layer_bursts.tolist() == [[3]]  # 40, 128, 88 bytes
    assert result.total_cycles == LATENCY + 32


@EXECUTORS
def test_two_units_share_a_channel_in_order_of_request_then_unit(executor: ModuleType) -> None:
    units = [Unit(name, UnitKind.READ, 0, setup_cycles=0, tail_cycles=0) for name in "ab"]
    result = executor.simulate(program(units, [move(0, 128), move(1, 128)]), MEMORY, trace=True)
    assert result.trace.end.tolist() == [LATENCY + 16, LATENCY + 32]


@EXECUTORS
def test_reads_and_writes_of_a_port_do_not_disturb_one_another(executor: ModuleType) -> None:
    units = [Unit("r", UnitKind.READ, 0, setup_cycles=0, tail_cycles=0),
             Unit("w", UnitKind.WRITE, 0, setup_cycles=0, tail_cycles=0)]
    result = executor.simulate(program(units, [move(0, 128), move(1, 128)]), MEMORY, trace=True)
    assert result.trace.end.tolist() == [LATENCY + 16, LEAD + 16 + WRITE_LATENCY]


@EXECUTORS
def test_a_token_that_never_comes_is_named(executor: ModuleType) -> None:
    built = Program("stuck", (engine("a"), engine("b")), (Channel("c", 0, 1),), ("l",),
                    np.array([compute(1, 1, wait=1)], np.int64),
                    np.zeros((1, ARGUMENT_COUNT), np.int32), (Segment(0, 1),))
    with pytest.raises(ProgramError, match="unit 'b' waits for a token that never comes"):
        executor.simulate(built, MEMORY)
    with pytest.raises(ProgramError, match="operation 0 of unit 'b' never starts.*on c"):
        verify(built)


@EXECUTORS
def test_repeats_report_the_end_of_each(executor: ModuleType) -> None:
    built = program([engine("a")], [compute(0, 7), compute(0, 4)], repeat=5)
    assert executor.simulate(built, MEMORY).segment_end.tolist() == [11, 22, 33, 44, 55]


def test_ten_million_repeats_need_no_room_of_their_own() -> None:
    unit = Unit("r", UnitKind.READ, 0, 4, setup_cycles=0, tail_cycles=0)
    units = [unit, engine("a")]
    channels = (Channel("filled", 0, 1), Channel("free", 1, 0, 2))
    rows = [row(UNIT=0, ROW_BYTES=1024, ROWS=1, PLANES=1, ADVANCE=1024, WAIT=2, SIGNAL=1),
            compute(1, 200, wait=1, signal=2)]
    built = Program("long", tuple(units), channels, ("l",), np.array(rows, np.int64),
                    np.zeros((2, ARGUMENT_COUNT), np.int32),
                    (Segment(0, 2, 1_000_000), Segment(2, 2)))
    result = fast.simulate(built, MEMORY)
    assert result.total_cycles == LATENCY + 128 + 1_000_000 * 200
    assert result.layer_bursts.tolist() == [[8_000_000, 0]]


@pytest.mark.parametrize(("request_cycle", "last", "free", "found"), [
    (5, -1, 0, (5, 8)), (5, 5, 0, (6, 9)), (5, 9, 0, (10, 13)), (5, 4, 40, (5, 40))])
def test_a_flat_channel_accepts_one_burst_a_cycle(request_cycle: int, last: int, free: int,
                                                  found: tuple[int, int]) -> None:
    """Lead of three cycles: (acceptance, first beat)."""
    assert flat_accept(request_cycle, last, 3, free) == found

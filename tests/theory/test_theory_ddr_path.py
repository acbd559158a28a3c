"""Does a burst through the whole DDR3 path take the cycles that paper and pencil say?

Ports, clock crossing, controller port, DRAM and back, on both executors. One burst, or a few, so
every cycle has a name; the DRAM's own gates are asked by `test_theory_ddr_gates`.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from arch_models.memory import Ddr3Timing, Memory, Port
from cosim.executors import des, fast
from cosim.memory.controller import timing
from cosim.memory.crossing import (
    controller_port,
    ddr_read_data,
    ddr_write_data,
    decided_in,
    to_ddr,
    to_fabric,
)
from cosim.program.table import (
    ARGUMENT_COUNT,
    Column,
    Program,
    Segment,
    Unit,
    UnitKind,
)

EXECUTORS = pytest.mark.parametrize("executor", [des, fast], ids=["des", "fast"])
REQUEST, RESPONSE, WRITE_RESPONSE, LEAD = 3, 4, 9, 2
PORT = Port("p", 8, write_lead_cycles=LEAD, request_cycles=REQUEST, response_cycles=RESPONSE,
            write_response_cycles=WRITE_RESPONSE)
RCD, CL, CCD, PIPELINE = 7, 8, 4, 5
#: One DDR clock a fabric cycle, bursts of 16 bytes, no refresh in sight.
DDR = Ddr3Timing(
    clock_hz=1, fabric_hz=1, t_rcd=RCD, t_rp=6, t_ras=20, t_rc=26, t_rrd=1, t_faw=1, t_ccd=CCD,
    read_latency=CL, rd2wr=1, wr2rd=1, rd2pre=1, wr2pre=1, t_refi=10**9, t_rfc=1,
    read_starve=10**6, write_starve=10**6, read_run=1, write_run=1, idle_gap=0, read_entries=32,
    write_entries=32, bypass_transactions=0, write_gap_eighths=0, transaction_bytes=16,
    row_bytes=2048, banks=8, pipeline_clocks=PIPELINE, word_clocks_numerator=0,
    word_clocks_denominator=1)
READ, WRITE = UnitKind.READ, UnitKind.WRITE


def cycles(executor: ModuleType, kind: UnitKind, size: int = 128, outstanding: int = 1,
           port: Port = PORT, setup: int = 0, **changes: int) -> int:
    """Cycles of one transfer of `size` bytes from address 0, alone."""
    row = np.zeros((1, len(Column)), np.int64)
    for name, value in {"ROW_BYTES": size, "ROWS": 1, "PLANES": 1}.items():
        row[0, Column[name]] = value
    unit = Unit("u", kind, 0, outstanding, setup_cycles=setup, tail_cycles=0)
    program = Program("one", (unit,), (), ("layer",), row,
                      np.zeros((1, ARGUMENT_COUNT), np.int32), (Segment(0, 1),))
    memory = Memory("ddr3", (port,), replace(DDR, **changes))
    return int(executor.simulate(program, memory).total_cycles)


#: A read of eight DRAM bursts: to the controller, row, last column, data, back.
ALONE = REQUEST + RCD + 7 * CCD + CL + CCD + PIPELINE + RESPONSE


@EXECUTORS
def test_a_long_read_ends_with_its_last_data(executor: ModuleType) -> None:
    """Eight DRAM bursts take 28 clocks, the 16 beats 16 cycles: the last data decide."""
    assert cycles(executor, READ) == ALONE


@EXECUTORS
def test_a_read_of_one_dram_burst_ends_with_its_beats(executor: ModuleType) -> None:
    assert cycles(executor, READ, 16) == ALONE - 7 * CCD + 2
    narrow = replace(PORT, width_bytes=4)
    assert cycles(executor, READ, 16, port=narrow) == ALONE - 7 * CCD + 4


@EXECUTORS
@pytest.mark.parametrize(("name", "more"), [
    ("request_cycles", 1), ("response_cycles", 1), ("write_response_cycles", 0),
    ("write_lead_cycles", 0)])
def test_each_part_of_a_read_path_counts_once(executor: ModuleType, name: str,
                                              more: int) -> None:
    slower = replace(PORT, **{name: getattr(PORT, name) + 5})
    assert cycles(executor, READ, port=slower) == ALONE + 5 * more


@EXECUTORS
def test_a_write_is_answered_when_the_controller_has_taken_it(executor: ModuleType) -> None:
    done = LEAD + 16 + REQUEST + WRITE_RESPONSE
    assert cycles(executor, WRITE) == done
    for name in ("write_response_cycles", "write_lead_cycles", "request_cycles"):
        slower = replace(PORT, **{name: getattr(PORT, name) + 5})
        assert cycles(executor, WRITE, port=slower) == done + 5, name
    # What the DRAM does with it afterwards is nobody's wait.
    assert cycles(executor, WRITE, t_rcd=70) == done


@EXECUTORS
def test_one_write_waits_for_the_response_of_the_one_before(executor: ModuleType) -> None:
    done = LEAD + 16 + REQUEST + WRITE_RESPONSE
    # The next request is presented in the cycle in which the one before it is done.
    assert cycles(executor, WRITE, 256) == 2 * done


@EXECUTORS
@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_a_port_takes_exactly_as_many_reads_ahead_as_it_says(executor: ModuleType,
                                                             depth: int) -> None:
    """A refresh holds the controller from clock 10,000 to 19,000 while reads come in.

    The controller's window has room for one of them, the port for `depth`: so many are there when
    the refresh ends, and are served one after the other. One more has the whole way before it.
    """
    way = 500
    port = replace(PORT, read_accept=depth, request_cycles=way)
    held = {"t_refi": 10_000, "t_rfc": 9_000, "read_entries": 8}
    back = 7 * CCD + CL + CCD + PIPELINE + RESPONSE
    for more, served in ((0, RCD + 8 * CCD * depth), (1, 1 + way)):
        found = cycles(executor, READ, 128 * (depth + 1 + more), 16, port, setup=10_000, **held)
        assert found == 19_000 + served + back
    # Without a refresh the first read leaves the port after its way: only then is there room.
    found = cycles(executor, READ, 128 * (depth + 1), 16, port)
    assert found == way + 1 + way + back


#: 525 MHz beside 100 MHz: 21 clocks take as long as 4 cycles.
RATES = timing(replace(DDR, clock_hz=525_000_000, fabric_hz=100_000_000))


@pytest.mark.parametrize(("cycle", "clock"), [(0, 0), (1, 6), (2, 11), (3, 16), (4, 21), (5, 27)])
def test_a_cycle_begins_before_its_first_clock(cycle: int, clock: int) -> None:
    """5.25 clocks a cycle, rounded up."""
    assert to_ddr(cycle, RATES) == clock


@pytest.mark.parametrize(("clock", "first", "during"), [
    (0, 0, 0), (1, 1, 0), (5, 1, 0), (6, 2, 1), (10, 2, 1), (11, 3, 2), (21, 4, 4), (22, 5, 4)])
def test_a_clock_is_seen_in_the_next_cycle_and_decided_in_its_own(clock: int, first: int,
                                                                  during: int) -> None:
    assert (to_fabric(clock, RATES), decided_in(clock, RATES)) == (first, during)


@pytest.mark.parametrize(("size", "clocks"), [(1, 2), (8, 2), (9, 3), (17, 5), (128, 24)])
def test_a_controller_port_passes_words_of_eight_bytes(size: int, clocks: int) -> None:
    """3 clocks for 2 words, rounded up, one burst after the other."""
    slow = timing(replace(DDR, word_clocks_numerator=3, word_clocks_denominator=2))
    assert controller_port(slow, 10, 0, size) == (10, 10 + clocks)
    assert controller_port(slow, 10, 15, size) == (15, 15 + clocks)
    assert controller_port(timing(DDR), 10, 15, size) == (15, 15)


def test_beats_follow_the_earlier_beats_and_the_last_data() -> None:
    same = timing(DDR)
    assert ddr_read_data(same, 10, 10, RESPONSE, 0, 16) == 10 + RESPONSE + 16
    assert ddr_read_data(same, 10, 60, RESPONSE, 0, 16) == 60 + RESPONSE
    assert ddr_read_data(same, 10, 10, RESPONSE, 30, 16) == 30 + 16
    assert ddr_write_data(10, LEAD, 0, 16) == 10 + LEAD + 16
    assert ddr_write_data(10, LEAD, 40, 16) == 40 + 16


@pytest.mark.parametrize("rates", [(525, 100), (533, 143), (1, 1), (1, 3)])
def test_short_cuts_around_divisions_equal_the_rule(rates: tuple[int, int]) -> None:
    """Every order of DRAM and port, ends that fall together among them, small times and huge."""
    t = timing(replace(DDR, clock_hz=rates[0], fabric_hz=rates[1]))
    for base in (0, 1000, 2**31 - 20, 2**40):
        for first in range(base, base + 24):
            for free in range(int(to_fabric(base, t)), int(to_fabric(base, t)) + 24):
                last, response, beats = first + first % 7, 1 + free % 5, 1 + first % 4
                begin = max(to_fabric(first, t) + response, free)
                assert ddr_read_data(t, first, last, response, free, beats) == max(
                    begin + beats, to_fabric(last, t) + response)
    for word in (1, 3):
        for part in (1, 2, 3):
            slow = timing(replace(DDR, word_clocks_numerator=word, word_clocks_denominator=part))
            for size in range(1, 200):
                clocks = -(-(-(-size // 8) * word) // part)
                assert controller_port(slow, 10, 3, size) == (10, 10 + clocks)


@EXECUTORS
def test_a_slow_controller_port_delays_the_last_word(executor: ModuleType) -> None:
    """Sixteen words of four clocks from the first data on: later than the DRAM's last."""
    slow = {"word_clocks_numerator": 4, "word_clocks_denominator": 1}
    assert cycles(executor, READ, **slow) == (
        REQUEST + RCD + CL + CCD + PIPELINE + 16 * 4 + RESPONSE)
    assert cycles(executor, WRITE, **slow) == LEAD + 16 + REQUEST + 16 * 4 + WRITE_RESPONSE

"""Is every DRAM timing gate tight: a command is placed at cycle n, and at n + 1 if the gate grows?

The controller is driven directly; every other gate is loose.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.memory import Ddr3Timing, Memory, Port
from cosim.memory import ddr3 as rules
from cosim.memory.bursts import FAR
from cosim.memory.controller import controller

LOOSE = Ddr3Timing(
    clock_hz=1, fabric_hz=1, t_rcd=1, t_rp=1, t_ras=1, t_rc=1, t_rrd=1, t_faw=1, t_ccd=4,
    read_latency=1, rd2wr=1, wr2rd=1, rd2pre=1, wr2pre=1, t_refi=10**9, t_rfc=1,
    read_starve=10**6, write_starve=10**6, read_run=1, write_run=1, idle_gap=0, read_entries=32,
    write_entries=32, bypass_transactions=0, write_gap_eighths=0, transaction_bytes=16,
    row_bytes=2048, banks=8, pipeline_clocks=0, word_clocks_numerator=0,
    word_clocks_denominator=1)
BANK, ROW = 2048, 2048 * 8
Burst = tuple[int, int, int]  # arrival clock, address, write


def columns(timing: Ddr3Timing, *bursts: Burst, size: int = 16) -> list[int]:
    """First column command of each burst of `size` bytes, in the order given."""
    dram = controller(Memory("ddr3", (Port("p"),), timing), len(bursts))
    for index, (arrival, address, write) in enumerate(bursts):
        rules.ddr_insert(dram, arrival, 0, index, address, size, write)
        dram.s[0].inside += 1
    found = {}
    while rules.ddr_next(dram, 1) != FAR:
        what, entry, _, first, _ = rules.ddr_step(dram, 1)
        if what == rules.SERVED:
            found[int(dram.pool[entry].number)] = int(first)
    return [found[index] for index in range(len(bursts))]


READ, WRITE = 0, 1
CONFLICT = ((0, 0, READ), (0, ROW, READ))
GATES = {  # gate -> bursts, clocks of the last column command besides the gate
    "t_rcd": (((0, 0, READ),), 0),
    "t_rp": (CONFLICT, 1 + 1 + 1),  # column 1, rd2pre, then t_rcd
    "t_ras": (CONFLICT, 0 + 1 + 1),  # ACTIVATE at 0; t_rp, t_rcd
    "t_rc": (CONFLICT, 0 + 1),
    "rd2pre": (CONFLICT, 1 + 1 + 1),  # column 1; t_rp, t_rcd
    "wr2pre": (((0, 0, WRITE), (0, ROW, WRITE)), 1 + 1 + 1),
    "t_rrd": (((0, 0, READ), (0, BANK, READ)), 0 + 1),
    "t_faw": (tuple((0, BANK * index, READ) for index in range(5)), 0 + 1),
    "t_ccd": (((0, 0, READ), (0, 16, READ)), 1),
    "rd2wr": (((0, 0, READ), (0, 16, WRITE)), 1),
    "wr2rd": (((0, 0, WRITE), (1, 16, READ)), 1),
}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("clocks", [40, 41])
def test_gate_is_tight(gate: str, clocks: int) -> None:
    bursts, others = GATES[gate]
    assert columns(replace(LOOSE, **{gate: clocks}), *bursts)[-1] == clocks + others


def test_an_open_row_needs_no_activate() -> None:
    timing = replace(LOOSE, t_rcd=10, t_rp=10, t_ras=30, t_rc=40)
    first, second = columns(timing, (0, 0, READ), (0, 64, READ))
    assert (first, second) == (10, 14)


def test_a_bank_is_prepared_while_another_is_used() -> None:
    timing = replace(LOOSE, t_rcd=7, t_rp=7)
    first, second = columns(timing, (0, 0, READ), (0, BANK, READ))
    assert (first, second) == (7, 11)  # as if the second row had been open


@pytest.mark.parametrize("clocks", [30, 31])
def test_refresh_keeps_the_memory_closed(clocks: int) -> None:
    timing = replace(LOOSE, t_refi=100, t_rfc=clocks, t_rp=5)
    assert columns(timing, (100, 0, READ)) == [100 + clocks + 1]
    # An open row is closed first.
    assert columns(timing, (90, 0, READ), (100, 0, READ))[-1] == 100 + 5 + clocks + 1


@pytest.mark.parametrize("gate,write", [("rd2pre", READ), ("wr2pre", WRITE)])
def test_a_row_closes_after_the_last_column_of_a_long_burst(gate: str, write: int) -> None:
    """Eight DRAM bursts: the last column is at 1 + 28, the precharge 40 later, then t_rp, t_rcd."""
    bursts = ((0, 0, write), (0, ROW, write))
    assert columns(replace(LOOSE, **{gate: 40}), *bursts, size=128) == [1, 1 + 28 + 40 + 1 + 1]


@pytest.mark.parametrize("name,clocks", [("t_ras", 60), ("rd2pre", 59)])
def test_refresh_waits_until_the_row_may_close(name: str, clocks: int) -> None:
    """Opened at 90 and read at 91, the row may not close at 100, when the refresh is due."""
    timing = replace(LOOSE, t_refi=100, t_rfc=30, t_rp=5, **{name: clocks})
    assert columns(timing, (90, 0, READ), (100, 0, READ))[-1] == 150 + 5 + 30 + 1


def test_refresh_waits_for_the_data_bus() -> None:
    """Eight DRAM bursts that begin at 91 keep the bus until 91 + 32, and their row until then."""
    timing = replace(LOOSE, t_refi=100, t_rfc=30, t_rp=5)
    assert columns(timing, (90, 0, READ), (100, 0, READ), size=128)[-1] == 123 + 5 + 30 + 1


@pytest.mark.parametrize(("arrival", "due"), [(99, False), (100, True)])
def test_refresh_is_due_at_its_clock_and_not_before(arrival: int, due: bool) -> None:
    timing = replace(LOOSE, t_refi=100, t_rfc=50)
    assert columns(timing, (arrival, 0, READ)) == [arrival + 1 + (50 if due else 0)]


@pytest.mark.parametrize("limit", [8, 12])
def test_direction_changes_when_the_other_has_starved(limit: int) -> None:
    # Reads arrive without end; the write waits since clock 0 and is due after `limit` clocks.
    timing = replace(LOOSE, write_starve=limit, t_rcd=4)
    reads = tuple((0, 16 * index, READ) for index in range(8))
    found = columns(timing, *reads, (0, 4096, WRITE))
    before = [clock for clock in found[:-1] if clock < found[-1]]
    # The bus is first free at 0, then at 8, 12, ...: the decision at `limit` turns around.
    assert len(before) == 1 + (limit - 8) // 4


def test_a_run_of_transactions_is_finished_before_the_direction_changes() -> None:
    timing = replace(LOOSE, write_starve=1, read_run=4)
    reads = tuple((0, 16 * index, READ) for index in range(8))
    found = columns(timing, *reads, (0, 4096, WRITE))
    assert sum(clock < found[-1] for clock in found[:-1]) == 4


@pytest.mark.parametrize(("limit", "overtaken"), [(0, 0), (1, 1), (3, 3)])
def test_the_oldest_burst_is_overtaken_only_so_often(limit: int, overtaken: int) -> None:
    # Row 1 of bank 0 must wait long for its precharge; hits in bank 1 are ready at once.
    timing = replace(LOOSE, bypass_transactions=limit, rd2pre=200, t_rcd=4)
    hits = tuple((8, BANK + 16 * index, READ) for index in range(1, 6))
    found = columns(timing, (0, 0, READ), (0, BANK, READ), (7, ROW, READ), *hits)
    assert sum(clock < found[2] for clock in found[3:]) == overtaken


def test_a_written_transaction_costs_the_fitted_gap() -> None:
    timing = replace(LOOSE, write_gap_eighths=4)
    found = columns(timing, *((0, 16 * index, WRITE) for index in range(5)))
    assert [later - before for before, later in zip(found, found[1:], strict=False)] == [
        4, 5, 4, 5]


def test_an_opened_row_costs_the_fitted_gap() -> None:
    timing = replace(LOOSE, miss_gap_clocks=3)
    assert columns(timing, (0, 0, READ), (0, 16, READ), (0, 32, READ)) == [1, 8, 12]


def test_every_dram_burst_of_a_write_costs_the_fitted_gap() -> None:
    """Four DRAM bursts of half a clock each: two clocks a burst of 64 bytes."""
    timing = replace(LOOSE, write_gap_eighths=4)
    found = columns(timing, *((0, 64 * index, WRITE) for index in range(3)), size=64)
    assert found == [1, 1 + 16 + 2, 1 + 2 * (16 + 2)]


def test_a_burst_that_is_not_aligned_takes_every_dram_burst_it_touches() -> None:
    assert columns(LOOSE, (0, 8, READ), (0, 32, READ)) == [1, 1 + 2 * 4]
    assert columns(LOOSE, (0, 16, READ), (0, 32, READ)) == [1, 1 + 4]


def test_a_row_for_the_other_direction_opens_after_its_last_command() -> None:
    """The write has waited since 0, but its row opens when the read's column is out at 7."""
    timing = replace(LOOSE, t_rcd=7)
    assert columns(timing, (0, 0, READ), (0, BANK, WRITE)) == [7, 7 + 7]


@pytest.mark.parametrize("gap", [0, 9])
def test_a_turn_that_an_empty_queue_allows_costs_the_idle_gap(gap: int) -> None:
    timing = replace(LOOSE, idle_gap=gap)
    assert columns(timing, (0, 0, READ), (50, 16, WRITE)) == [1, 50 + gap]


#: Two bank groups that take turns every DRAM burst of 16 bytes; eight banks each.
GROUPS = replace(LOOSE, bank_groups=2, group_bit=4, t_ccd_l=4, t_rrd_l=1, wr2rd_l=1)
GROUP = 16


@pytest.mark.parametrize("clocks", [7, 40])
@pytest.mark.parametrize(("gate", "first", "second", "others"), [
    ("t_ccd_l", READ, READ, 1), ("t_ccd_l", WRITE, WRITE, 1), ("wr2rd_l", WRITE, READ, 1)])
def test_columns_of_a_bank_group_keep_apart(
        gate: str, first: int, second: int, others: int, clocks: int) -> None:
    """The first column command is at 1; the bus alone would take the next at 1 + 4."""
    timing = replace(GROUPS, **{gate: clocks})
    same, other = (0, 0, first), (1, 2 * GROUP, second)
    assert columns(timing, same, other) == [1, clocks + others]
    assert columns(timing, same, (1, GROUP, second))[1] == 5  # the other group


@pytest.mark.parametrize("clocks", [9, 40])
def test_rows_of_a_bank_group_open_apart(clocks: int) -> None:
    timing = replace(GROUPS, t_rrd_l=clocks)
    assert columns(timing, (0, 0, READ), (0, BANK, READ)) == [1, clocks + 1]
    assert columns(timing, (0, 0, READ), (0, BANK + GROUP, READ)) == [1, 5]


def served_whole(timing: Ddr3Timing, address: int, size: int) -> tuple[int, int, int]:
    """(first column command, last, rows opened) of a read alone."""
    dram = controller(Memory("ddr3", (Port("p"),), timing), 1)
    rules.ddr_insert(dram, 0, 0, 0, address, size, READ)
    dram.s[0].inside += 1
    found = (-1, -1)
    while rules.ddr_next(dram, 1) != FAR:
        what, _, _, first, last = rules.ddr_step(dram, 1)
        if what == rules.SERVED:
            found = int(first), int(last)
    return *found, int(dram.s[0].misses)


@pytest.mark.parametrize(("bit", "apart", "rows"), [(4, 4, 2), (10, 6, 1)])
def test_a_long_burst_pays_for_its_bank_group_unless_groups_take_turns(
        bit: int, apart: int, rows: int) -> None:
    """The group among the columns' lowest bits, or their highest; eight DRAM bursts."""
    timing = replace(GROUPS, group_bit=bit, t_ccd_l=6)
    assert served_whole(timing, 0, 128) == (1, 1 + 7 * apart, rows)
    # 32 bytes from the middle of a DRAM burst on are three.
    assert served_whole(timing, 8, 32) == (1, 1 + 2 * apart, rows)


def test_the_other_bank_group_goes_first_where_it_is_ready_first() -> None:
    timing = replace(GROUPS, t_ccd_l=6, bypass_transactions=8)
    bursts = (0, 0, READ), (0, 2 * GROUP, READ), (0, GROUP, READ)
    assert columns(timing, *bursts) == [1, 9, 5]


def test_a_turn_between_bank_groups_need_not_wait_for_the_longer_time() -> None:
    """The write of one group holds its own reads up, also behind a write of the other."""
    timing = replace(GROUPS, wr2rd_l=30)
    bursts = (0, 0, WRITE), (0, GROUP, WRITE), (1, 2 * GROUP, READ)
    assert columns(timing, *bursts) == [1, 5, 31]

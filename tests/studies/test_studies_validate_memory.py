"""Do the public checks of the memory pass, and does the curve report its absence plainly?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from studies.validate import dram_commands
from studies.validate import memory as validate_memory
from studies.validate.dram_commands import KNOWN, board_timing, check_commands
from studies.validate.memory import checks, hp_read_cycles, vendor_efficiency
from tests.support.command import cosim

BOARD = load_board("pynq-z1")


def test_vendor_figures_and_latency_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate_memory, "truth_path", lambda name: None)
    found, absent = checks(BOARD, stream_bytes=1 << 18)
    assert absent == [validate_memory.CURVE]
    assert len([item for item in found if item.tolerance is not None]) == 7
    assert len(found) == 7 + 2 * 6 + 2
    assert [item.name for item in found if item.ok is False] == []


def test_column_commands_are_another_simulators_but_for_the_known_gaps() -> None:
    found = check_commands()
    assert len(found) == 19 + 25 + 25
    assert {(item.board, item.scenario) for item in found} >= set(KNOWN)
    assert [item for item in found if not item.as_known] == []
    # Refreshes, turnarounds, recovery, row, bank and bank group gates: to the clock.
    assert sum(item.equal for item in found) == len(found) - len(KNOWN) == 14 + 14 + 22


# Four times t_rrd is longer than the t_faw of the PYNQ-Z1, which so never holds anything up.
COMMON = ("t_rcd", "t_rp", "t_ras", "t_rrd", "rd2wr", "wr2rd", "rd2pre", "wr2pre", "t_rfc",
          "t_refi", "t_ccd")
GATES = [("pynq-z1", gate) for gate in COMMON] + [
    (board, gate) for board in ("kria-kv260", "zcu104")
    for gate in (*COMMON, "t_faw", "t_ccd_l", "t_rrd_l", "wr2rd_l")]


@pytest.mark.parametrize(("board", "gate"), GATES)
def test_every_gate_of_the_board_is_seen_by_the_other_simulator(
        monkeypatch: pytest.MonkeyPatch, board: str, gate: str) -> None:
    """One clock more or less and the scenarios differ."""
    timing = board_timing(board)
    seen = []
    for step in (1, -1):
        off = replace(timing, **{gate: getattr(timing, gate) + step})
        monkeypatch.setattr(dram_commands, "board_timing",
                            lambda name, off=off: off if name == board else board_timing(name))
        seen.append(not all(item.as_known for item in check_commands() if item.board == board))
    assert any(seen), gate


def test_known_gap_streams_over_bank_groups_are_far_from_the_other_simulators() -> None:
    """Reads and writes of a single stream agree where groups take turns; mixes do not, and where a
    row is one group's, DRAMsim3 finds another group's DRAM burst to put between. Whoever closes it
    must change the page."""
    errors = {name: sum(map(abs, found)) / len(found)
              for name, found in validate_memory.grouped_errors().items()}
    assert len(errors) == 12
    assert errors["kria-kv260", "seq_wr"] < 2 and errors["kria-kv260", "rand_rd"] < 4
    assert 10 < max(errors.values()) < 20


def test_the_best_throughput_of_zynqmp_boards_is_near_what_others_measured() -> None:
    """Within two points where there are no bank groups; below, by less than ten, where a row is one
    group's. Without groups a ZCU102 would be predicted as fast as its ports."""
    found = {item.name: item for item in validate_memory.measured_throughput()}
    lpddr4, ddr4 = found["ultra96_best_throughput"], found["zcu102_best_throughput"]
    assert abs(lpddr4.predicted - lpddr4.reference) < 2
    assert -10 < ddr4.predicted - ddr4.reference < -4
    plain = replace(validate_memory.zynqmp_board("zcu102").ddr, bank_group_bits=0)
    board = replace(validate_memory.zynqmp_board("zcu102"), ddr=plain)
    assert validate_memory.best_share(board) > ddr4.reference + 5


def test_two_thirds_of_the_peak_where_a_row_is_one_bank_groups() -> None:
    """Six clocks a DRAM burst of four: 66.7 %, but for what the change of group gains."""
    alone = (validate_memory.Stream(0, False, 64, 16, 1 << 18),)
    shares = {board: validate_memory.share_of_peak(
        alone, validate_memory.bare_memory(board_timing(board), 1, 64))
        for board in ("kria-kv260", "zcu104")}
    assert 95 < shares["kria-kv260"] < 100
    assert 64 < shares["zcu104"] < 70


def test_random_addresses_cost_more_than_sequential_ones() -> None:
    for read, write in ((True, False), (False, True), (True, True)):
        assert (vendor_efficiency(BOARD, True, read, write, 1 << 18)
                < vendor_efficiency(BOARD, False, read, write, 1 << 18))


def test_single_outstanding_read_latency() -> None:
    cycles = hp_read_cycles(BOARD, 1 << 17)
    assert abs(cycles - 37.378) <= 1.5


def test_main_writes_every_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(validate_memory, "truth_path", lambda name: None)
    assert cosim("validate", "memory", "--json", tmp_path / "checks.json") == 0
    written = json.loads((tmp_path / "checks.json").read_text())
    assert all({"name", "predicted", "reference", "tolerance", "ok"} <= set(item)
               for item in written["checks"])
    assert written["absent"] == [validate_memory.CURVE]


@pytest.mark.long
def test_dram_curve_reads_are_within_four_points() -> None:
    found, absent = checks(BOARD)
    if absent:
        pytest.skip(f"{absent} is not beside the project (../shared/truth)")
    assert [item.name for item in found if item.ok is False] == []

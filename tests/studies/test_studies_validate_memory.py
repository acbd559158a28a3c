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
    assert len(found) == 7
    assert [item.name for item in found if not item.ok] == []


def test_column_commands_are_another_simulators_but_for_the_known_gaps() -> None:
    found = check_commands()
    assert len(found) == 19 and {item.scenario for item in found} >= set(KNOWN)
    assert [item.scenario for item in found if not item.as_known] == []
    # Refreshes, turnarounds, recovery, row and bank gates: to the clock.
    assert sum(item.equal for item in found) == len(found) - len(KNOWN) == 14


# Four times t_rrd is longer than the board's t_faw, which so never holds anything up.
@pytest.mark.parametrize("gate", ["t_rcd", "t_rp", "t_ras", "t_rrd", "rd2wr", "wr2rd", "rd2pre",
                                  "wr2pre", "t_rfc", "t_refi", "t_ccd"])
def test_every_gate_of_the_board_is_seen_by_the_other_simulator(
        monkeypatch: pytest.MonkeyPatch, gate: str) -> None:
    """One clock more or less and the scenarios differ."""
    timing = board_timing()
    seen = []
    for step in (1, -1):
        off = replace(timing, **{gate: getattr(timing, gate) + step})
        monkeypatch.setattr(dram_commands, "board_timing", lambda off=off: off)
        seen.append(not all(item.as_known for item in check_commands()))
    assert any(seen), gate


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

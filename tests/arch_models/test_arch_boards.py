"""Does every shipped board load, hold its own arithmetic, and run a workload?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import BOARDS, Board, PortKind, board_names, load_board, read_board
from arch_models.boards.rules import problems
from arch_models.fields import FieldError, Status
from arch_models.memory import board_memory
from arch_models.overlay import load_overlay
from studies.evaluation.evaluate import Infeasible, evaluate
from studies.evaluation.values import Evaluation
from tests.support.command import cosim
from workloads.library import load


@pytest.fixture(params=board_names())
def board(request: pytest.FixtureRequest) -> Board:
    return load_board(request.param)


def test_the_boards_that_the_documents_name_ship() -> None:
    assert {"pynq-z1", "zedboard", "zcu104", "kria-kv260", "ultra96"} <= set(board_names())


def test_file_and_board_have_the_same_name(board: Board) -> None:
    assert (BOARDS / f"{board.name.replace('-', '_')}.toml").exists()


def test_the_address_map_covers_the_dram_without_holes(board: Board) -> None:
    ddr = board.ddr
    assert 1 << ddr.column_low_bit == ddr.data_bus_bits // 8
    assert ddr.bank_low_bit == ddr.column_high_bit + 1
    assert ddr.row_low_bit == ddr.bank_high_bit + 1
    assert 1 << (ddr.row_high_bit + 1) == ddr.size_bytes


def test_timings_obey_the_dram_standard(board: Board) -> None:
    ddr = board.ddr
    assert ddr.t_rc >= ddr.t_ras_min + ddr.t_rp - 1  # each is rounded up from nanoseconds
    assert ddr.t_ras_min > ddr.t_rcd
    assert ddr.t_faw >= ddr.t_rrd * 3
    assert ddr.t_refi > 10 * ddr.t_rfc_min
    assert ddr.wr2rd > ddr.write_latency + ddr.burst_length_beats // 2
    memory = board_memory(board, 100_000_000)
    assert memory.ddr is not None
    assert memory.ddr.peak_bytes_per_s == pytest.approx(ddr.peak_bytes_per_s)
    assert memory.ddr.transaction_bytes == ddr.data_bus_bits // 8 * ddr.burst_length_beats


def test_zedboard_is_pynq_z1_with_a_bus_twice_as_wide() -> None:
    zed, pynq = load_board("zedboard"), load_board("pynq-z1")
    assert replace(zed.part, name="") == replace(pynq.part, name="")
    assert zed.ports == pynq.ports
    assert zed.ddr.data_bus_bits == 2 * pynq.ddr.data_bus_bits
    assert zed.ddr.row_bytes == 2 * pynq.ddr.row_bytes and zed.ddr.banks == pynq.ddr.banks
    same = ("t_rcd", "t_rp", "t_rrd", "read_latency", "rd2wr", "wr2rd", "wr2pre", "lpr_entries")
    for name in same:
        assert getattr(zed.ddr, name) == getattr(pynq.ddr, name), name


def test_what_nobody_looked_up_is_not_called_stated(board: Board) -> None:
    for item in board.coefficients:
        loose = any(word in item.source for word in ("from memory", "not looked up", "taken over",
                                                     "no measurement", "taken as", "no report"))
        assert not (loose and item.status is Status.STATED), item.name


def test_the_default_design_runs_on_every_board(board: Board) -> None:
    graph, design = load("agc-w16"), load_overlay("default")
    results = {}
    for memory in ("flat", "ddr3"):
        found = evaluate(graph, design, board, memory, frames=1)
        assert isinstance(found, Evaluation)
        results[memory] = found
        busy_s = found.latency_s
        assert found.bytes_read + found.bytes_written < board.ddr.peak_bytes_per_s * busy_s
    assert results["flat"].bytes_read == results["ddr3"].bytes_read
    assert results["ddr3"].macs == results["flat"].macs


def test_a_wider_bus_is_not_slower_on_a_design_that_waits_for_memory() -> None:
    graph, base = load("agc-w16"), load_overlay("default")
    starved = replace(base, masters=tuple(replace(item, port="HP0", outstanding=1)
                                          for item in base.masters), clock_hz=200_000_000)
    pynq = evaluate(graph, starved, load_board("pynq-z1"), "ddr3", frames=1)
    zed = evaluate(graph, starved, load_board("zedboard"), "ddr3", frames=1)
    assert isinstance(pynq, Evaluation) and isinstance(zed, Evaluation)
    assert zed.latency_cycles < pynq.latency_cycles


@pytest.mark.parametrize("name", ["zcu104", "kria-kv260", "ultra96"])
def test_ports_of_128_bits_are_simulated(name: str) -> None:
    graph, base, board = load("agc-w16"), load_overlay("default"), load_board(name)
    assert [port.kind for port in board.ports].count(PortKind.HP) == 4
    wide = replace(base, masters=tuple(replace(item, width_bits=128) for item in base.masters))
    narrow, broad = (evaluate(graph, item, board, "flat", frames=1) for item in (base, wide))
    assert isinstance(narrow, Evaluation) and isinstance(broad, Evaluation)
    assert broad.latency_cycles <= narrow.latency_cycles


def test_a_port_that_a_board_lacks_is_refused_with_the_ports_it_has() -> None:
    graph, base = load("agc-w16"), load_overlay("default")
    moved = replace(base, masters=tuple(replace(item, port="ACP") for item in base.masters))
    assert not isinstance(evaluate(graph, moved, load_board("zedboard"), frames=1), Infeasible)
    with pytest.raises(FieldError, match="'zcu104' has no port 'ACP'.*(HPC0|HP0)"):
        evaluate(graph, moved, load_board("zcu104"), frames=1)


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = (BOARDS / "pynq_z1.toml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("old", "new", "problem"), [
    ("data_bus_bits = { value = 16", "data_bus_bits = { value = 24",
     "ddr.data_bus_bits is 24, must be one of 8, 16, 32, 64; nearest 16"),
    ("t_rcd = { value = 7", "t_rcd = { value = 700",
     "ddr.t_rcd is 700, must lie between 1 and 52 (100 ns at this clock); nearest 52"),
    ("widths_bits = [64]", "widths_bits = [48]", "ports.ACP.widths_bits is 48, must be one of"),
    ("column_low_bit = { value = 1", "column_low_bit = { value = 3",
     "ddr.column_low_bit is 3, must be 1"),
    ("row_high_bit = { value = 28", "row_high_bit = { value = 27",
     "ddr.row_high_bit is 27, must be 28: 536870912 bytes"),
    ("generator_hz = { value = 1000000000", "generator_hz = { value = 1000000",
     "clocks.generator_hz is 1000000, two dividers make no rate of it"),
    ("largest_divider = { value = 63", "largest_divider = { value = 0",
     "clocks.largest_divider is 0, must lie between 1 and 1024"),
    ("fabric_delay = { value = 1.0", "fabric_delay = { value = 0.0",
     "part.fabric_delay is 0, must lie between 0.05 and 20"),
    ("t_refi = { value = 4064", "t_refi = { value = 100", "ddr.t_refi is 100"),
    ('name = "HP1"', 'name = "HP0"', "ports is HP0 2 times, names must differ"),
    ("ps_work_w = { value = 0.51", "ps_work_w = { value = -0.51",
     "power.ps_work_w is -0.51, must not be negative"),
    ("dsp = { value = 220", "dsp = { value = 0", "part.dsp is 0, must be at least 1; nearest 1"),
])
def test_a_board_that_cannot_be_is_refused_with_field_value_rule_and_nearest(
        tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = edited(tmp_path, (old, new))
    assert problem in "\n".join(map(str, problems(read_board(path))))
    with pytest.raises(FieldError, match="mine.toml: "):
        load_board(path)


def test_a_legal_neighbour_is_legal(tmp_path: Path) -> None:
    for name in board_names():
        assert problems(load_board(name)) == ()
    wrong = edited(tmp_path, ("t_faw = { value = 21", "t_faw = { value = 9000"))
    (found,) = problems(read_board(wrong))
    right = edited(tmp_path, ("t_faw = { value = 21", f"t_faw = {{ value = {found.nearest}"))
    assert problems(load_board(right)) == ()


def test_everything_that_is_wrong_with_the_names_is_said_at_once(tmp_path: Path) -> None:
    path = edited(tmp_path, ("t_rcd =", "t_rdc ="), ('kind = "acp"', 'kind = "acb"'))
    with pytest.raises(FieldError) as error:
        read_board(path)
    lines = str(error.value).split("\n")
    assert len(lines) == 3 and all("mine.toml" in line for line in lines)
    assert "did you mean 'acp'?" in lines[0] and "did you mean 't_rcd'?" in lines[1]
    assert "'t_rcd' is missing" in lines[2]


@pytest.mark.parametrize("name,marked", [
    ("pynq-z1", False), ("zedboard", False), ("zc702", False), ("zcu104", True),
    ("kria-kv260", True), ("ultra96", True)])
def test_boards_priced_with_another_chips_controller_are_marked_in_every_output(
        name: str, marked: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = load_board(name)
    assert bool(board.unchecked) == marked == ("(unchecked)" in board.label)
    item = evaluate(load("agc-w16"), load_overlay("default"), board, "flat", frames=1)
    assert isinstance(item, Evaluation) and item.unchecked == board.unchecked
    out = tmp_path / "out.json"
    for command, lines in (("simulate", ("agc-w16", "--frames", "1", "--memory", "flat")),
                           ("explain", ("default", "--workload", "agc-w16", "--memory", "flat",
                                        "--top", "1"))):
        assert cosim(command, *lines, "--board", name, "--json", out) == 0
        assert ("unchecked on this board" in capsys.readouterr().out) == marked, command
        text = out.read_text()
        assert '"unchecked"' in text and ("DRAM controller" in text) == marked, command
    assert cosim("boards", "--json", out) == 0
    rows = {row["name"]: row["unchecked"] for row in json.loads(out.read_text())}
    assert bool(rows[name]) == marked


AGC = ("-w", "agc-w16")
OUTPUTS: dict[str, tuple[object, ...]] = {
    "compare": ("compare", "default", "face", *AGC, "-b", "BOARD", "--json", "o"),
    "what-if": ("what-if", "default", *AGC, "-b", "BOARD", "--set", "tm=8", "--json", "o"),
    "explore": ("explore", "agc-w16", "-b", "BOARD", "--designs", 3, "--workers", 1, "--out", "e",
                "--json", "o"),
    "clock": ("validate", "clock", "--grid-only", "-b", "BOARD", "--json", "o"),
    "csv": ("simulate", "agc-w16", "-b", "BOARD", "--frames", 1, "--csv", "o"),
    "decoders": ("study", "decoders", "--networks", "agc-w16", "-b", "BOARD", "--json", "o"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_is_said_and_written_of_an_unchecked_board_says_so(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for board, marked in (("ultra96", True), ("pynq-z1", False)):
        words = [board if word == "BOARD" else word for word in OUTPUTS[name]]
        assert cosim(*words) == 0
        assert ("unchecked" in capsys.readouterr().out) == marked
        found = Path("o").read_text()
        assert ("DRAM controller" in found or "(unchecked)" in found) == marked
        if name == "explore":
            assert cosim("design", "e/explore.json") == 0
            assert ("unchecked" in capsys.readouterr().out) == marked


@pytest.mark.parametrize(("name", "value", "nearest"), [
    ("bank_group_bits", 3, "2"), ("bank_group_low_bit", 5, "6"), ("bank_group_low_bit", 14, "13"),
    ("t_ccd_l", 3, "4"), ("t_rrd_l", 5, "6"), ("wr2rd_l", 21, "22")])
def test_bank_groups_that_cannot_be_are_named_with_the_nearest(
        name: str, value: int, nearest: str) -> None:
    """Between a DRAM burst of 64 bytes and the banks; inside a group no shorter than between."""
    board = load_board("zcu104")
    (found,) = problems(replace(board, ddr=replace(board.ddr, **{name: value})))
    assert (found.field, found.value, found.nearest) == (f"ddr.{name}", str(value), nearest)


@pytest.mark.parametrize(("changes", "said"), [
    ({"bank_groups": 3}, "power of two"), ({"bank_groups": 8}, "at most 4"),
    ({"group_bit": 5}, "between 6 and 13"), ({"t_ccd_l": 3}, "at least 4"),
    ({"t_rrd_l": 5}, "at least 6"), ({"wr2rd_l": 0}, "at least 22")])
def test_a_memory_refuses_bank_groups_that_cannot_be(changes: dict[str, int], said: str) -> None:
    ddr = board_memory(load_board("zcu104"), 100_000_000).ddr
    assert ddr is not None
    with pytest.raises(FieldError, match=said):
        replace(ddr, **changes)

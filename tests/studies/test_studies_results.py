"""Is it said that results set a design's pace where they do, and nothing where they do not?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.literature import Origin
from arch_models.overlay import Overlay, default_overlay, load_overlay, save_overlay
from cosim.build import build
from cosim.lowering.lower import Lowered
from cosim.program.table import Column, Opcode
from studies.why.lint import lint
from studies.why.results import waiting, waits
from tests.support.command import cosim
from tests.support.tiny_graphs import TinyGraph
from workloads.graph import Graph
from workloads.library import load

BOARD = load_board("pynq-z1")
OURS = default_overlay()


def narrow(kernel: int) -> Graph:
    net = TinyGraph(0, 8, 12, 12)
    net.convolution("c", "in", 16, kernel, padding=kernel // 2)
    return net.graph("c")


@pytest.mark.parametrize(("kernel", "requantize", "share"), [
    (1, 8, 7 / 8), (1, 4, 3 / 4), (1, 1, 0), (3, 8, 0)])
def test_a_position_waits_for_the_cycles_that_its_products_do_not_fill(
        kernel: int, requantize: int, share: float) -> None:
    overlay, graph = replace(OURS, requantize_cycles=requantize), narrow(kernel)
    found = build(graph, overlay, BOARD)
    assert isinstance(found, Lowered)
    said = waiting(graph, overlay, found.mapping)
    assert said.waited / said.trips == share
    table = found.program.operations
    assert said.trips == table[table[:, Column.KIND] == Opcode.CONVOLUTION][:, Column.TRIPS].sum()
    assert bool(str(said)) == (share > 0)


def test_a_described_design_does_not_wait_unless_its_file_says_so(tmp_path: Path) -> None:
    theirs: Overlay = replace(OURS, origin=Origin.LITERATURE)
    assert "requantize_cycles" in waits(narrow(1), theirs, BOARD)
    save_overlay(theirs, tmp_path / "d.toml")
    text = (tmp_path / "d.toml").read_text().replace("requantize_cycles = 8\n", "")
    (tmp_path / "d.toml").write_text(text)
    assert waits(narrow(1), load_overlay(tmp_path / "d.toml"), BOARD) == ""


def test_lint_and_simulate_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    face = load_overlay("face")
    found = lint(load("agc-t32b4"), face, BOARD)
    assert isinstance(found, tuple)
    said, = (item.said for item in found if item.field == "requantize_cycles")
    assert said in waits(load("agc-t32b4"), face, BOARD)
    assert cosim("simulate", "agc-t32b4", "--design", "face", "--memory", "flat") == 0
    assert "requantize_cycles: results leave the array" in " ".join(capsys.readouterr().out.split())

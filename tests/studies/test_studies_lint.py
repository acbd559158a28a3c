"""Does `cosim lint` find each thing that it looks for, and nothing where nothing is?"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.clock import predict
from arch_models.overlay import Engine, Infeasible, Overlay, Rate, load_overlay
from studies.evaluation.evaluate import feasible, simulate_design
from studies.why.lint import lint
from studies.why.what_if import changed
from tests.support.command import cosim
from workloads.library import load

GRAPH, BOARD = load("agc-w16"), load_board("pynq-z1")
DESIGN = load_overlay("default")


def fields(overlay: Overlay) -> dict[str, str]:
    found = lint(GRAPH, overlay, BOARD)
    assert not isinstance(found, Infeasible)
    return {item.field: item.said for item in found}


def test_an_engine_without_a_layer_is_found_and_gone_when_taken_out() -> None:
    said = lint(GRAPH, DESIGN, BOARD)
    assert not isinstance(said, Infeasible)
    assert [item.said.partition(" ")[0] for item in said if item.field == "engines"] == [
        "pool", "upsample"]
    lean = replace(DESIGN, engines=DESIGN.engines - {Engine.POOL, Engine.UPSAMPLE})
    assert "engines" not in fields(lean)


def test_a_buffer_that_no_layer_fills_costs_no_cycle_when_it_is_halved() -> None:
    assert "weight_words" in fields(DESIGN) and "input_words" not in fields(DESIGN)
    same = replace(DESIGN, rate=Rate.FIXED, clock_hz=83_333_333)
    half = replace(same, weight_words=DESIGN.weight_words // 2)
    runs = [feasible(simulate_design(GRAPH, item, BOARD)).result.total_cycles
            for item in (same, half)]
    assert runs[1] <= runs[0]


def test_masters_that_share_a_port_beside_a_free_one_are_found() -> None:
    shared = replace(DESIGN, masters=tuple(replace(master, port="HP0")
                                           for master in DESIGN.masters))
    assert fields(shared)["masters"].startswith("input and weight and output share HP0")
    assert "masters" not in fields(DESIGN)


@pytest.mark.parametrize(("hertz", "said"), (
    (123_456_789, "the board cannot make 123.457 MHz; nearest 125 MHz"),
    (250_000_000, "250 MHz is assumed; the fabric is predicted to reach "
     f"{predict(DESIGN, BOARD).mhz:.0f} MHz"),
))
def test_a_clock_beyond_the_board_or_the_fabric_is_found(hertz: int, said: str) -> None:
    assert fields(replace(DESIGN, rate=Rate.FIXED, clock_hz=hertz))["clock_hz"] == said


@pytest.mark.parametrize("overlay", (
    DESIGN, replace(DESIGN, rate=Rate.FIXED, clock_hz=200_000_000),
    replace(DESIGN, rate=Rate.FIXED, clock_hz=123_456_789),
    replace(DESIGN, masters=tuple(replace(master, port="HP0") for master in DESIGN.masters))))
def test_a_change_that_is_named_mends_what_was_found(overlay: Overlay) -> None:
    found = lint(GRAPH, overlay, BOARD)
    assert not isinstance(found, Infeasible) and found
    for item in found:
        assert item.change, item
        name, _, value = item.change.partition("=")
        again = lint(GRAPH, *changed(overlay, BOARD, name, value))
        assert not isinstance(again, Infeasible)
        assert item.said not in [other.said for other in again]


def test_a_design_too_large_is_no_finding_but_infeasible() -> None:
    assert isinstance(lint(GRAPH, replace(DESIGN, tm=64, tn=64), BOARD), Infeasible)


def test_the_command_names_what_it_found(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert cosim("lint", "default", "-w", "agc-w16", "--json", tmp_path / "found.json") == 0
    text = capsys.readouterr().out
    assert "pool runs no layer of agc-w16" in text and "findings: default for agc-w16" in text
    command = next(line for line in text.splitlines() if line.startswith("What a change brings: "))
    words = shlex.split(command.partition(": ")[2])
    assert cosim(*words[1:], "--out", tmp_path) == 0
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["workload"], written["design"], written["board"], written["unchecked"]) == (
        "agc-w16", "default", BOARD.name, [])
    assert any(item["field"] == "weight_words" for item in written["findings"])

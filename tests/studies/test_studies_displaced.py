"""Is it said when the fabric cannot take a layer whose engine it has?"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import Engine, default_overlay, overlay_toml
from studies.evaluation.evaluate import evaluate, feasible
from tests.support.command import cosim
from workloads.library import load

GRAPH, BOARD, OVERLAY = load("agc-w16"), load_board("pynq-z1"), default_overlay()
#: Too small for the tables of softmax and lookups, though both engines are there.
SMALL = replace(OVERLAY, table_bytes=256, name="small")


@pytest.fixture(scope="module")
def both():
    return [feasible(evaluate(GRAPH, design, BOARD, "flat", frames=1))
            for design in (OVERLAY, SMALL)]


def test_a_smaller_table_moves_layers_to_the_host_and_the_evaluation_says_which(both):
    base, small = both
    moved = small.newly_displaced(base)
    assert {item.engine for item in moved} >= {"softmax"}
    assert {item.why for item in moved} <= {
        f"needs table_bytes of {needed}, has 256" for needed in (512, 1024)}
    assert base.newly_displaced(small) == ()


def test_a_layer_without_its_engine_in_fabric_is_not_displaced(both):
    without = replace(SMALL, engines=SMALL.engines - {Engine.SOFTMAX})
    found = feasible(evaluate(GRAPH, without, BOARD, "flat", frames=1))
    assert "softmax" not in {item.engine for item in found.displaced}


def test_every_command_that_shows_a_design_says_so(capsys, tmp_path):
    path, result = tmp_path / "small.toml", tmp_path / "result.json"
    path.write_text(overlay_toml(SMALL))
    said = "on the host although their engines are in fabric"
    small = ("--design", path, "--memory", "flat")
    assert cosim("simulate", "agc-w16", *small, "--json", result) == 0
    assert said in capsys.readouterr().out
    assert json.loads(result.read_text())["content"]["displaced"]
    assert cosim("report", result, "--out", tmp_path / "page.html") == 0
    assert said in (tmp_path / "page.html").read_text()
    capsys.readouterr()
    rows = tmp_path / "rows.json"
    assert cosim("what-if", "default", "-w", "agc-w16", "--set", "table_bytes=256,1024", "--out",
                 tmp_path, "--json", rows) == 0
    assert f"256 puts more {said}" in capsys.readouterr().out
    displaced = [row["displaced"] for row in json.loads(rows.read_text())["rows"]]
    assert len(displaced[0]) > len(displaced[1])

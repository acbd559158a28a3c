"""Does a refusal name the nearest design that holds the network, and does that one hold it?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.overlay import load_overlay, save_overlay
from arch_models.resources import check
from cosim.build import build
from studies.evaluation.evaluate import evaluate
from studies.evaluation.remedy import held, nearest_design
from studies.plain.errors import UserError
from tests.support.command import cosim
from workloads.graph import Operator, Phase
from workloads.library import load

BOARD = load_board("pynq-z1")
GRAPH = load("agc-t32b4")
FACE = load_overlay("face")


@pytest.mark.parametrize("changes", [
    {"parameter_entries": 16}, {"weight_words": 2, "input_words": 4}, {"output_words": 1 << 17}])
def test_the_nearest_design_holds_the_network(changes: dict[str, int]) -> None:
    """A field too small grows, one too large for the part shrinks; the others stay."""
    design = replace(FACE, **changes)
    refused = evaluate(GRAPH, design, BOARD, frames=1)
    with pytest.raises(UserError) as told:
        held(refused, GRAPH, design, BOARD)
    found = nearest_design(GRAPH, design, BOARD)
    assert found is not None and replace(found, **changes) == design
    assert check(found, BOARD) is None and build(GRAPH, found, BOARD).program is not None
    for name in changes:
        assert f"{name} = {getattr(found, name)} (now {changes[name]})" in str(told.value)


def test_padding_that_is_no_zero_is_a_field_too() -> None:
    """A network that pads with a zero point of a file needs a design that can."""
    first = next(layer for layer in GRAPH.phase(Phase.FRAME) if layer.window.padding
                 and layer.operator is Operator.CONVOLUTION and layer.window.groups == 1)
    graph = replace(GRAPH, layers=tuple(
        replace(layer, window=replace(layer.window, pad_value=-31)) if layer is first else layer
        for layer in GRAPH.layers))
    assert nearest_design(graph, FACE, BOARD) == replace(FACE, zero_points=True)
    with pytest.raises(UserError, match=r"zero_points = true \(now false\)"):
        held(evaluate(graph, FACE, BOARD, frames=1), graph, FACE, BOARD)


def test_where_no_size_helps_none_is_named() -> None:
    """A port that the board does not have so wide is no size."""
    masters = tuple(replace(item, width_bits=128) for item in FACE.masters)
    design = replace(FACE, masters=masters)
    assert nearest_design(GRAPH, design, BOARD) is None
    with pytest.raises(UserError, match="width_bits needs 128 bits") as told:
        held(evaluate(GRAPH, design, BOARD, frames=1), GRAPH, design, BOARD)
    assert "Nearest" not in str(told.value)


@pytest.mark.parametrize("words", [
    ("simulate", "agc-t32b4", "--design", "small.toml"),
    ("explain", "small.toml", "--workload", "agc-t32b4"),
    ("compare", "face", "small.toml", "--workload", "agc-t32b4"),
    ("compare", "small.toml", "face", "--workload", "agc-t32b4"),
    ("what-if", "small.toml", "--workload", "agc-t32b4"),
    ("what-if", "face", "--workload", "agc-t32b4", "--set", "parameter_entries=16"),
    ("lint", "small.toml", "--workload", "agc-t32b4")], ids=" ".join)
def test_each_command_names_it(words: tuple[str, ...], tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture[str]) -> None:
    """Of the design that does not hold the network, where two are given."""
    monkeypatch.chdir(tmp_path)
    save_overlay(replace(FACE, parameter_entries=16), Path("small.toml"))
    assert cosim(*words) != 0
    said = "".join(capsys.readouterr().err.split())
    assert "Nearestdesignthatholdsthenetwork:parameter_entries=" in said
    assert "(now16)." in said


def test_a_sweep_names_it_for_the_combination_that_misses_by_least(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    """Beside combinations that hold the network, too."""
    monkeypatch.chdir(tmp_path)
    assert cosim("what-if", "face", "--workload", "agc-t32b4",
                 "--set", f"parameter_entries=8,16,{FACE.parameter_entries}") == 0
    said = "".join(capsys.readouterr().out.split())
    assert "parameter_entries16:Nearestdesignthatholdsthenetwork:parameter_entries=" in said

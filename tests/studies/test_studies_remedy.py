"""Does a refusal name the nearest design that holds the network, and does that one hold it?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from arch_models.resources import check
from cosim.build import build
from studies.evaluation.evaluate import evaluate
from studies.evaluation.remedy import held, nearest_design
from studies.plain.errors import UserError
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


def test_where_no_size_helps_none_is_named() -> None:
    """A port that the board does not have so wide is no size."""
    masters = tuple(replace(item, width_bits=128) for item in FACE.masters)
    design = replace(FACE, masters=masters)
    assert nearest_design(GRAPH, design, BOARD) is None
    with pytest.raises(UserError, match="width_bits needs 128 bits") as told:
        held(evaluate(GRAPH, design, BOARD, frames=1), GRAPH, design, BOARD)
    assert "Nearest" not in str(told.value)

"""The space: conditions, canonical choices, sizes, files, and the overlay a choice stands for."""

from __future__ import annotations

import itertools
import random

import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Fetch, Role, default_overlay
from arch_models.resources import check
from studies.errors import UserError
from studies.space import (
    Axis,
    Condition,
    Space,
    choice_of,
    default_space,
    load_space,
    overlay_of,
    starting_choices,
)

BOARD = load_board("pynq-z1")
SPACE = default_space(BOARD)
TOY = Space((Axis("a", (1, 2)), Axis("b", ("x", "y", "z"), Condition("a", (2,))),
             Axis("c", (False, True))))


def test_size_counts_what_enumeration_finds():
    seen = set()
    for a, b, c in itertools.product((1, 2), "xyz", (False, True)):
        seen.add(tuple(TOY.canonical({"a": a, "b": b, "c": c}).items()))
    assert TOY.size() == len(seen) == 8


def test_an_axis_that_does_not_exist_is_dropped():
    assert TOY.canonical({"a": 1, "b": "z", "c": True}) == {"a": 1, "c": True}


@pytest.mark.parametrize("choice", [{"a": 3, "c": True}, {"a": 2, "c": True}])
def test_a_missing_or_illegal_value_is_refused(choice):
    with pytest.raises(UserError, match="must be one of"):
        TOY.canonical(choice)


def test_a_condition_must_name_an_earlier_axis():
    with pytest.raises(UserError, match="stand before"):
        Space((Axis("b", (1,), Condition("a", (1,))), Axis("a", (1,))))


def test_every_sample_is_a_legal_overlay_that_comes_back():
    generator = random.Random(1)
    base = default_overlay()
    for _ in range(200):
        choice = SPACE.sample(generator)
        overlay = overlay_of(choice, base, BOARD)
        assert overlay_of(choice_of(overlay, SPACE), base, BOARD) == overlay
        assert Engine.CONVOLUTION in overlay.engines
        assert bool(overlay.masters_of(Role.FETCH)) == (overlay.fetch is Fetch.DRAM)


def test_the_hand_made_default_lies_in_the_space():
    choice = choice_of(default_overlay(), SPACE)
    assert choice is not None and choice["tm"] == default_overlay().tm


def test_a_file_narrows_the_space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\ntm = [16, 32]\ndsp_packing = true\n")
    narrowed = load_space(path, BOARD)
    assert narrowed.axis("tm").values == (16, 32)
    assert narrowed.axis("dsp_packing").values == (True,)
    assert narrowed.axis("tn") == SPACE.axis("tn")


@pytest.mark.parametrize(("text", "message"), [
    ("[axes]\ntmm = [16]\n", "'tm'"),
    ("[axes]\ntm = [17]\n", "must be one of"),
    ("[axes]\ndsp_packing = [1]\n", "must be one of"),
    ("[axis]\ntm = [16]\n", "'axes'"),
])
def test_a_wrong_space_file_is_refused(tmp_path, text, message):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(FieldError, match=message):
        load_space(path, BOARD)


def test_neighbours_differ_in_one_axis_and_those_that_hang_on_it():
    choice = SPACE.sample(random.Random(4))
    found = SPACE.neighbours(choice)
    assert len(found) == sum(len(SPACE.axis(name).values) - 1 for name in choice)
    for name, other in found:
        moved = {key for key in choice | other if choice.get(key) != other.get(key)}
        children = {axis.name for axis in SPACE.axes if axis.when and axis.when.axis == name}
        assert name in moved <= {name} | children


def test_designs_to_start_from_fit_the_board_and_differ():
    base = default_overlay()
    found = starting_choices(SPACE, base, BOARD)
    assert len(found) > 3
    assert len({tuple(choice.items()) for choice in found}) == len(found)
    for choice in found[1:]:
        assert check(overlay_of(choice, base, BOARD), BOARD) is None

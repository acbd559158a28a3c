"""The space: conditions, canonical choices, sizes, files, and the overlay a choice stands for."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Fetch, Role, default_overlay, load_overlay
from arch_models.resources import check
from studies.plain.errors import UserError
from studies.search.space import Axis, Condition, Space, default_space, designs
from studies.search.space_file import load_space
from studies.search.space_overlays import choice_of, nearest_choice, overlay_of, starting_choices
from tests.support.tiny_graphs import TinyGraph
from workloads.library import load

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


def test_a_coupled_move_gives_a_value_to_an_axis_that_it_switches_on():
    space = Space((Axis("a", (1, 2)), Axis("b", ("x", "y"), Condition("a", (2,))),
                   Axis("c", (1, 2))), couplings=(("a", "c"),))
    assert space.coupled({"a": 1, "c": 1}) == [{"a": 2, "b": "y", "c": 2}]
    assert space.coupled({"a": 2, "b": "x", "c": 1}) == [{"a": 1, "c": 2}]


def test_every_move_from_every_design_of_the_documents_example_is_a_design(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "space.md").read_text()
    path = tmp_path / "space.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0])
    space = load_space(path, BOARD, load("agc-w16"))
    generator = random.Random(3)
    for _ in range(20):
        choice = space.sample(generator)
        for moved in (*space.coupled(choice), *(item for _, item in space.neighbours(choice))):
            assert space.canonical(moved) == moved


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


def test_a_space_has_the_engines_that_its_network_has_work_for():
    unicorn = {axis.name for axis in default_space(BOARD, load("unicorn")).axes}
    agc = {axis.name for axis in default_space(BOARD, load("agc-w16")).axes}
    assert "fabric_norm" in unicorn - agc and "fabric_grid_sample" in agc - unicorn


def test_a_search_keeps_the_norm_engine_of_its_base():
    base, space = load_overlay("diffusion"), default_space(BOARD, load("unicorn"))
    choice = choice_of(base, space)
    assert choice is not None and choice["fabric_norm"]
    assert Engine.NORM in overlay_of(choice, base, BOARD).engines
    assert Engine.NORM not in overlay_of(choice | {"fabric_norm": False}, base, BOARD).engines


def test_taps_are_a_choice_where_a_network_has_depthwise_layers_and_an_engine_for_them():
    tiny = TinyGraph(0, 16, 9, 9)
    graph = tiny.graph(tiny.convolution("each", "in", 16, 3, 1, 1, groups=16))
    space = default_space(BOARD, graph)
    choice = space.nearest({"fabric_depthwise": True, "depthwise_taps": 4})
    design = overlay_of(choice, default_overlay(), BOARD)
    assert Engine.DEPTHWISE in design.engines and design.depthwise_taps == 3
    assert "depthwise_taps" not in space.nearest({"fabric_depthwise": False, "depthwise_taps": 3})
    agc = {axis.name for axis in default_space(BOARD, load("agc-w16")).axes}
    assert not {"fabric_depthwise", "depthwise_taps"} & agc


def test_a_file_may_add_the_engine_of_another_network(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\nfabric_norm = [true]\n")
    assert load_space(path, BOARD, load("agc-w16")).axis("fabric_norm").values == (True,)


def test_the_nearest_design_is_the_same_where_legal_and_the_next_number_where_not():
    choice = SPACE.sample(random.Random(5))
    assert SPACE.nearest(choice) == choice
    assert SPACE.nearest(choice | {"tm": 57, "fetch": "nowhere"}) \
        == SPACE.nearest(choice | {"tm": 64, "fetch": SPACE.axis("fetch").values[-1]})
    assert TOY.nearest({"a": 7}) == {"a": 2, "b": "z", "c": True}
    outside = replace(default_overlay(), tm=72)
    assert choice_of(outside, SPACE) is None
    assert nearest_choice(outside, SPACE) == {**choice_of(default_overlay(), SPACE), "tm": 64}


def test_a_file_narrows_the_space(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text("[axes]\ntm = [16, 32]\ndsp_packing = true\n")
    narrowed = load_space(path, BOARD)
    assert narrowed.axis("tm").values == (16, 32)
    assert narrowed.axis("dsp_packing").values == (True,)
    assert narrowed.axis("tn") == SPACE.axis("tn")


@pytest.mark.parametrize(("text", "message"), [
    ("[axes]\ntmm = [16]\n", "'tm'"),
    ("[axes]\ntm = [17]\n", "multiple of channel_block 8; nearest 16"),
    ("[axes]\ntm = [0]\n", "whole number of at least 1"),
    ("[axes]\ncolumns = [5]\n", "nearest 4"),
    ("[axes]\nworkload = ['agc-w15']\n", "agc-w16"),
    ("[axes]\ntn = { values = [8], when = { tmm = [8] } }\n", "must stand before"),
    ("[axes]\ntm = [8]\ntn = { when = { tm = [16] } }\n", "has only"),
    ("[axes]\ntn = { value = [8] }\n", "'values'"),
    ("[[constraints]]\nproduct = ['tm']\n", "no bound"),
    ("[[constraints]]\nproduct = ['tm', 'tnn']\nat_most = 9\n", "'tn'"),
    ("[[constraints]]\nproduct = ['fetch']\nat_most = 9\n", "whole numbers"),
    ("[[constraints]]\nat_most = 9\n", "product or sum"),
    ("[[constraints]]\nsum = ['tm']\nat_most = 9.5\n", "whole number"),
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
    for name in ("diffusion", "face", "mobile"):
        near = nearest_choice(load_overlay(name), SPACE)
        assert near in found or check(overlay_of(near, base, BOARD), BOARD) is not None
    assert nearest_choice(load_overlay("face"), SPACE) in found


FILE = """
[axes]
tm = [8, 56]
tn = { values = [8, 16], when = { tm = [56] } }
weight_words = [64, 128, 4096]
input_words = [3000]
max_burst_beats = [8, 16]
output_width_bits = [32]
output_port = ["HP2"]
parameter_entries = [1024]

[[constraints]]
product = ["weight_words", "tm", "tn"]
at_most = 60000
at_least = 1000
"""


def test_a_file_declares_values_conditions_and_constraints(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(FILE)
    space = load_space(path, BOARD)
    base, generator = default_overlay(), random.Random(2)
    kept = broken = 0
    for _ in range(200):
        choice = space.sample(generator)
        overlay = overlay_of(choice, base, BOARD)
        assert overlay.input_words == 3000 and overlay.parameter_entries == 1024
        assert {master.width_bits for master in overlay.masters_of(Role.OUTPUT)} == {32}
        assert {master.max_burst_beats for master in overlay.masters} \
            == {choice["max_burst_beats"]}
        assert ("tn" in choice) == (choice["tm"] == 56)
        assert overlay.tn == choice.get("tn", base.tn)
        product = choice["weight_words"] * choice["tm"] * choice.get("tn", 1)
        assert (space.broken(choice) is None) == (1000 <= product <= 60000)
        kept, broken = kept + (space.broken(choice) is None), broken + bool(space.broken(choice))
    assert kept and broken


def test_size_counts_conditions_that_hang_on_conditional_axes():
    space = Space((Axis("a", (1, 2)), Axis("b", (1, 2, 3), Condition("a", (2,))),
                   Axis("c", (1, 2), Condition("b", (1, 3))), Axis("d", (1, 2))))
    assert space.size() == len(list(designs(space))) == 2 * (1 + 2 + 1 + 2)


@pytest.mark.parametrize("text", ["", "# nothing", "[axes]"])
def test_a_space_file_that_changes_nothing_is_refused(tmp_path, text):
    path = tmp_path / "space.toml"
    path.write_text(text)
    with pytest.raises(FieldError, match=r"space.toml: changes nothing"):
        load_space(path, BOARD)

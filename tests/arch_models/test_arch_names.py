"""Is a name from a file one that needs no escape wherever it goes, and the rest refused?"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arch_models.board import board_names, load_board
from arch_models.boards.rules import problems
from arch_models.fields import FieldError, identifier, label, made_label, prose, with_value
from arch_models.overlay import UNIT_NAMES, default_overlay, load_overlay, overlay_toml

BASE = default_overlay()
#: What C++, Tcl, a shell, a Makefile, a path, HTML, TOML, a picture or a terminal would obey.
HOSTILE = ('x");system("id', "[exec id]", "$(id)", "`id`", "../x", "a/b", "<b>", 'a"\nb = 1',
           "$x_2$", "[/x]", "a b", "", ".", "..", "-rf", "\x1b[2J", "a\0b", "é", "x" * 1000)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("rule", (identifier, label))
def test_a_name_that_means_something_elsewhere_is_refused(rule, text: str) -> None:
    with pytest.raises(FieldError, match=r"place: .* must be .*; nearest '") as caught:
        rule(text, "place")
    near = re.findall("nearest '([^']+)'$", str(caught.value))[0]
    assert rule(near, "place") == near and str(caught.value).isprintable()


@given(st.text(max_size=300), st.integers(0, 3))
def test_a_made_label_is_a_label_that_is_not_taken(text: str, count: int) -> None:
    taken: set[str] = set()
    for _ in range(count + 1):
        name = made_label(text, taken)
        assert label(name, "made") == name not in taken
        taken.add(name)
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,90}", text, re.ASCII):
        assert made_label(text) == text


@pytest.mark.parametrize("text", ("two\nlines", "\x1b[31m", "x" * 1001, 3), ids=ascii)
def test_prose_is_one_printable_line(text: object) -> None:
    with pytest.raises(FieldError, match="one line of printable characters"):
        prose(text, "title")


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_master_or_design_with_such_a_name_is_refused(text: str) -> None:
    with pytest.raises(FieldError, match=r"masters\[0\]\.name: "):
        with_value(BASE, "masters.input.name", text)
    with pytest.raises(FieldError, match="^name: "):
        replace(BASE, name=text)


@pytest.mark.parametrize("name", sorted(UNIT_NAMES))
def test_a_master_may_not_share_an_engines_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "design.toml"
    path.write_text(overlay_toml(BASE).replace('name = "input"', f'name = "{name}"'))
    with pytest.raises(FieldError, match=f"masters: name '{name}' is an engine's or the host's"):
        load_overlay(path)


def test_the_names_of_shipped_boards_are_legal_and_hostile_ones_are_listed() -> None:
    for name in board_names():
        assert not problems(load_board(name))
    board = load_board("pynq-z1")
    bad = replace(board, name="a b", title="a\nb", part=replace(board.part, name="x; exec id"),
                  ports=(replace(board.ports[0], name="HP 0"),))
    found = {item.field: item for item in problems(bad)}
    assert {"name", "title", "part.name", "ports[0].name"} <= set(found)
    assert found["part.name"].nearest == "'x_exec_id'"

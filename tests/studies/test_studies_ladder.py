"""Is every tier's reference carried with its source, and every stated deviation still one?"""

from __future__ import annotations

import re

import pytest

from studies.cli import GROUPS
from studies.validate.ladder import DEVIATIONS, TIERS, Deviation, deviation_lines, tier_lines
from studies.validate.page import HEAD
from tests.support.source import ROOT

PAGE = (ROOT / "docs" / "validation.md").read_text("utf-8")


@pytest.mark.parametrize("item", DEVIATIONS, ids=lambda item: item.name)
def test_a_deviation_is_one_of_the_size_stated(item: Deviation) -> None:
    """Whoever makes it smaller changes the table in `studies.validate.ladder` and the page."""
    found = item.size()
    assert found >= item.least, f"{item.name} is closed, or smaller: {found:g} {item.unit}"
    assert found < 1.5 * item.least + 1, f"{item.name} has grown: {found:g} {item.unit}"


def test_every_table_that_is_carried_says_where_it_comes_from() -> None:
    listed = (ROOT / "studies" / "data" / "README.md").read_text("utf-8")
    for path in (ROOT / "studies" / "data").glob("*.[cj]s*"):
        assert f"| `{path.name}`" in listed, path.name


def test_the_page_has_the_ladder_and_its_deviations() -> None:
    for part in (*tier_lines(), *deviation_lines()):
        assert part.strip() in PAGE, "write the page anew: cosim validate page"
    assert PAGE.startswith(HEAD.strip())
    assert PAGE.index("## The ladder") < PAGE.index("## Blind, by others") < PAGE.index(
        "## Deviations") < PAGE.index("## VTA on PYNQ")


def test_numbers_are_given_once_and_in_order() -> None:
    assert [item.number for item in TIERS] == list(range(1, len(TIERS) + 1))
    assert [item.number for item in DEVIATIONS] == list(range(1, len(DEVIATIONS) + 1))
    tiers = {item.number: item for item in TIERS}
    assert all(item.command in tiers[item.tier].commands for item in DEVIATIONS)
    named = set(re.findall(r"\bD\d+\b", PAGE))
    assert named == {item.name for item in DEVIATIONS}


def test_every_check_stands_on_a_tier() -> None:
    on_tiers = {name for item in TIERS for name in item.commands}
    others = {"page", "board", "onnx"}  # the page itself; files of the user's own
    assert on_tiers | others == set(GROUPS["validate"][1])


@pytest.mark.parametrize("name", sorted({name for item in TIERS for name in item.oracles}))
def test_a_carried_reference_says_where_it_comes_from(name: str) -> None:
    path = ROOT / name
    head = path.read_text("utf-8").partition("\n")[0]
    listed = (ROOT / "studies" / "data" / "README.md").read_text("utf-8")
    assert "source" in head.split(",") or f"| `{path.name}`" in listed

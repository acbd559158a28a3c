"""What is there, and how a member of a front becomes a file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from arch_models.board import board_names, load_board
from arch_models.overlay import load_overlay
from studies.evaluation.inputs import design_names
from studies.report.documents import load_search
from tests.support.command import cosim
from workloads.library import names


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    assert cosim("explore", "agc-w16", "--designs", 8, "--workers", 1, "--out", folder) == 0
    return folder / "explore.json"


def test_the_list_names_everything_that_ships(capsys: pytest.CaptureFixture) -> None:
    assert cosim("list") == 0
    text = capsys.readouterr().out
    assert not {name for name in (*names(), *design_names(), *board_names()) if name not in text}
    assert "face" in text and "diffusion" in text


def test_the_front_is_listed_and_a_member_becomes_a_file(
        search: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = load_search(search)
    assert cosim("design", search) == 0
    text = capsys.readouterr().out
    assert all(f"#{number} " in text for number in found.front)
    for member in ("chosen", str(found.front[0])):
        out = tmp_path / f"{member}.toml"
        assert cosim("design", f"{search}#{member}", "--out", out) == 0
        number = found.chosen_number if member == "chosen" else found.front[0]
        assert number is not None and load_overlay(out) == found.design(
            number, load_board("pynq-z1"))
    assert load_overlay(tmp_path / "chosen.toml") == load_overlay(search.parent / "best.toml")


@pytest.mark.parametrize(("mark", "said"), (
    ("#999999", "there is no design 999999"), ("#x", "must be the number of a design"),
    ("#-1", "must be the number of a design"),
))
def test_a_member_that_is_none_is_refused(search: Path, capsys: pytest.CaptureFixture, mark: str,
                                          said: str) -> None:
    assert cosim("design", f"{search}{mark}") == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_shipped_design_shows_its_parameters(capsys: pytest.CaptureFixture) -> None:
    assert cosim("design", "default") == 0
    assert "masters.weight.port" in capsys.readouterr().out
    assert cosim("design", "default#3") == 2


def test_the_project_says_how_to_cite_it_and_as_which_version() -> None:
    root = Path(__file__).parents[2]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    cited = (root / "CITATION.cff").read_text()
    assert f"\nversion: {version}\n" in cited and cited.startswith("cff-version: 1.2.0\n")


def test_the_map_for_contributors_names_folders_that_are_there() -> None:
    root = Path(__file__).parents[2]
    named = set(re.findall(r"`([\w/.]+/[\w/.]*)`", (root / "CONTRIBUTING.md").read_text()))
    assert named and not {name for name in named if not (root / name).exists()}

"""Is a damaged journal or database named and refused, or read past, and never a traceback?"""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from studies.plain.errors import UserError
from studies.search.search import search
from tests.support.damage import damaged
from tests.support.toy_search import SETTINGS, SPACE, evaluate, open_toy

FEW, MANY = 25, 400
KINDS = ("journal", "sqlite")


def address(kind: str, path: Path) -> str:
    return str(path) if kind == "journal" else f"sqlite:///{path}"


def searched(place: str) -> str:
    """What a search on the study ends in: an error, or nothing."""
    try:
        study = replace(open_toy(place), patience_s=0.1)
        search(study.remembering(evaluate), SPACE, SETTINGS)
    except UserError as error:
        assert str(error) and len(str(error).splitlines()) < 10
        return str(error)
    return ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for kind in KINDS:
        path = folder / kind
        assert searched(address(kind, path)) == ""
        if kind == "sqlite":
            with sqlite3.connect(path) as base:
                base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found[kind] = path.read_bytes()
    return found


def fuzzed(kind: str, whole: dict[str, bytes], folder: Path, seed: int, count: int) -> None:
    refused = 0
    for number in range(count):
        draw = random.Random(f"{kind} {seed} {number}")
        (folder / "case").mkdir()
        path = folder / "case" / "study"
        path.write_bytes(damaged(whole[kind], draw))
        try:
            refused += bool(searched(address(kind, path)))
        except Exception as error:
            error.add_note(f"{kind}, seed {seed}, number {number}")
            raise
        shutil.rmtree(folder / "case")
    assert refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_study_is_refused_or_read_past(whole: dict[str, bytes], tmp_path: Path,
                                                 kind: str) -> None:
    fuzzed(kind, whole, tmp_path, 0, FEW)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_studies_are_refused_or_read_past(whole: dict[str, bytes], tmp_path: Path,
                                                       kind: str) -> None:
    fuzzed(kind, whole, tmp_path, 1, MANY)


def test_a_damaged_line_is_named_and_nothing_is_written(whole: dict[str, bytes],
                                                        tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    lines = whole["journal"].split(b"\n")
    for damage in (b'{"op_code": 4, "tri', b"[1, 2]", b"{}", b'{"op_code": "x"}', b"\xff", b""):
        text = b"\n".join([*lines[:6], damage, *lines[7:]])
        path.write_bytes(text)
        assert "line 7 is damaged" in searched(str(path))
        assert path.read_bytes() == text
    path.write_bytes(whole["journal"][:-5])  # a last line that a kill cut short
    assert searched(str(path)) == ""


def test_a_trial_without_a_design_is_named(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/study.db"
    assert searched(place) == ""
    with sqlite3.connect(tmp_path / "study.db") as base:
        base.execute("DELETE FROM trial_user_attributes WHERE key = 'design' AND trial_id = 3")
    assert "trial 2 is damaged: it names no design" in searched(place)

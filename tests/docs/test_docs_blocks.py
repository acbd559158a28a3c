"""Every code block of every document: the tutorial's are run, what others name is there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arch_models.board import board_names, load_board
from arch_models.files import read_toml
from hw.board.measurement import measurement_text, parse_measurement
from studies.cli import COMMANDS, GROUPS
from studies.report.schemas import FILES, schema
from studies.search.space_file import load_space
from tests.support.command import cosim

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs" / "tutorial.md"
ANYTHING = "..."


@dataclass(frozen=True)
class Block:
    """A fenced block: document, line, the word behind the fence, text."""

    document: str
    line: int
    kind: str
    text: str


def blocks(path: Path) -> list[Block]:
    text = path.read_text("utf-8")
    return [Block(path.name, text.count("\n", 0, found.start()) + 1, found[1], found[2])
            for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]


ALL = [block for path in DOCUMENTS for block in blocks(path)]
COMMAND_LINES = sorted({(block.document, line.removeprefix("$ ")) for block in ALL
                        for line in block.text.replace("\\\n", " ").splitlines()
                        if line.removeprefix("$ ").startswith("cosim ")})


def test_every_document_has_whole_blocks() -> None:
    for path in DOCUMENTS:
        assert path.read_text("utf-8").count("\n```") % 2 == 0, path.name
    assert len(ALL) > 40 and len(COMMAND_LINES) > 40


@pytest.mark.parametrize(("document", "line"), COMMAND_LINES, ids=lambda value: value[:60])
def test_every_command_and_option_that_a_document_names_is_there(
        capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, document: str,
        line: str) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    words = shlex.split(line, comments=True)[1:]
    name = words[:2] if words[0] in GROUPS else words[:1]
    assert words[0] in COMMANDS or words[0] in GROUPS or words[0].startswith("-"), line
    assert cosim(*(name if not words[0].startswith("-") else []), "--help") == 0
    shown = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown), f"{document}: {line}: {option}"


@pytest.mark.parametrize("block", [item for item in ALL if item.kind == "python"],
                         ids=lambda block: f"{block.document}:{block.line}")
def test_python_in_documents_compiles(block: Block) -> None:
    compile(block.text, f"{block.document}:{block.line}", "exec")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """The tutorial in order, in one folder: command, expected text, what it printed."""
    folder = tmp_path_factory.mktemp("tutorial")
    found = []
    for block in blocks(TUTORIAL):
        if block.kind == "python":
            found.append((block.text, ANYTHING, run(folder, [sys.executable, "-c", block.text])))
        if block.kind == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                command, _, wanted = part.partition("\n")
                words = [sys.executable, "-m", "cosim", *shlex.split(command)[1:]]
                found.append((command, wanted, run(folder, words)))
    return found


def run(folder: Path, words: list[str]) -> str:
    ended = subprocess.run(words, cwd=folder, text=True, capture_output=True, timeout=300,
                           check=False, env={**os.environ, "PYTHONPATH": str(ROOT),
                                             "COLUMNS": "80", "TERM": "dumb"})
    assert ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout


def test_the_tutorial_says_what_its_commands_print(done: list[tuple[str, str, str]]) -> None:
    assert len(done) >= 10
    for command, wanted, printed in done:
        lines = [line.rstrip() for line in printed.splitlines()]
        pattern = "\n".join(re.escape(line.rstrip()) for line in wanted.splitlines())
        pattern = re.sub(r"^\\\.\\\.\\\.$", r"(?:.*)", pattern, flags=re.M)
        pattern = pattern.replace(r"\.\.\.", r"[^\n]*")
        assert re.fullmatch(pattern, "\n".join(lines).strip("\n"), re.S), (
            f"{command} printed\n" + "\n".join(lines))


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_one(kind: str, capsys: pytest.CaptureFixture) -> None:
    assert cosim("schema", kind) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema(kind)
    jsonschema.Draft202012Validator.check_schema(printed)


def test_files_that_ship_and_files_that_are_written_keep_to_their_schemas(tmp_path: Path) -> None:
    def holds(kind: str, value: object) -> None:
        jsonschema.Draft202012Validator(schema(kind)).validate(value)

    for path in sorted((ROOT / "arch_models" / "designs").glob("*.toml")):
        holds("design", read_toml(path))
    boards = ROOT / "arch_models" / "boards"
    for name in board_names():
        holds("board", read_toml(boards / f"{name.replace('-', '_')}.toml"))
    out = tmp_path / "out"
    assert cosim("explore", "agc-w16", "--designs", 4, "--workers", 1, "--out", out) == 0
    assert cosim("simulate", "agc-w16", "--json", out / "a.json") == 0
    assert cosim("compare", "default", "default", "-w", "agc-w16", "--json", out / "b.json") == 0
    assert cosim("what-if", "-w", "agc-w16", "--set", "tm=8", "--out", out,
                 "--json", out / "c.json") == 0
    for kind, name in (("search", "explore"), ("evaluation", "best"), ("evaluation", "a"),
                       ("comparison", "b"), ("what-if", "c")):
        holds(kind, json.loads((out / f"{name}.json").read_text()))
    with pytest.raises(jsonschema.ValidationError):
        holds("design", {"name": "x", "tm": "8"})


SPACE = """[axes]
tm = [8, 16]
clock_mhz = { values = [100, 125], when = { tm = [8] } }
[[constraints]]
product = ["tm", "tn"]
at_most = 256
"""
MEASURED = {"format": 1, "source": "board", "board": "pynq-z1", "design": "default",
            "manifest_sha256": "0", "program_sha256": "1", "bitstream_sha256": "2",
            "clock_hz": 100_000_000, "taken_utc": "2026-01-01T00:00:00Z", "repeats": 1,
            "warm_up": True, "frame_seconds": [0.1], "values_compared": 3, "values_differing": 0,
            "steps": [{"kind": "fabric", "seconds": [0.05], "first": 0, "count": 3}],
            "counters": [{"unit": "input", "busy_cycles": 1, "idle_cycles": 2,
                          "stall_cycles": {"memory": 3}}], "power_w": None,
            "rails_w": {"vccint_w": 0.2}}


@pytest.mark.parametrize(("kind", "whole", "wrong"), (
    ("space", SPACE, {"axes": {"tn": 8}}), ("space", SPACE, {"axes": {"tz": [8]}}),
    ("space", SPACE, {}),
    ("space", SPACE, {"constraints": [{"product": ["tm"]}]}),
    ("measurement", MEASURED, {**MEASURED, "format": 2}),
    ("measurement", MEASURED, {**MEASURED, "steps": [{"kind": "fabric"}]}),
    ("measurement", MEASURED, {**MEASURED, "clock_hz": "fast"})))
def test_a_file_that_its_reader_takes_keeps_to_its_schema(tmp_path: Path, kind: str, whole: Any,
                                                          wrong: dict[str, Any]) -> None:
    checker = jsonschema.Draft202012Validator(schema(kind))
    if kind == "space":
        (tmp_path / "a.toml").write_text(whole)
        load_space(tmp_path / "a.toml", load_board("pynq-z1"))
        whole = read_toml(tmp_path / "a.toml")
    else:
        parsed = parse_measurement(json.dumps(whole))
        checker.validate(json.loads(measurement_text(parsed)))
    checker.validate(whole)
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(wrong)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, text=True, capture_output=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"})
    assert ended.returncode == 0, ended.stderr
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text()
    assert all(f"cosim {name}" in commands for name in COMMANDS)
    assert (tmp_path / "tutorial" / "index.html").exists()

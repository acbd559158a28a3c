"""Every code block of every document: the tutorial's are run, what others name is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from studies.cli import COMMANDS, GROUPS
from tests.support.command import cosim
from tests.support.waiting import PATIENCE_SECONDS

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
    ended = subprocess.run(words, cwd=folder, text=True, capture_output=True,
                           timeout=PATIENCE_SECONDS, check=False,
                           env={**os.environ, "PYTHONPATH": str(ROOT),
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


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, text=True, capture_output=True, timeout=PATIENCE_SECONDS, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"})
    assert ended.returncode == 0, ended.stderr
    commands = (tmp_path / "reference" / "commands" / "index.html").read_text()
    assert all(f"cosim {name}" in commands for name in COMMANDS)
    assert (tmp_path / "tutorial" / "index.html").exists()

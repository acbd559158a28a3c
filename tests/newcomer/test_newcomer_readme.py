"""The commands of README.md in order: they exist, and read what an earlier one wrote."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.support.command import cosim

ROOT = Path(__file__).parents[2]
#: A word that stands for a file of the reader's own.
OWN = ("FILE", "model.onnx", "inputs.npz")
FILES = ("best.toml", "best.json", "explore.json", "front.png")


def commands() -> list[list[str]]:
    block = (ROOT / "README.md").read_text().partition("## Use\n```\n")[2].partition("```")[0]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [line[1:] for line in lines if line[0] == "cosim"]


def value(command: list[str], option: str) -> str | None:
    return command[command.index(option) + 1] if option in command else None


def written(command: list[str]) -> list[str]:
    """The files that a command leaves behind and another may read."""
    found = [value(command, "--json"), value(command, "--trace")]
    if command[0] == "explore":
        folder = value(command, "--out") or f"out/explore/{command[1]}-pynq-z1"
        found += [f"{folder}/{name}" for name in FILES]
    return [item for item in found if item]


def test_every_file_that_a_command_reads_was_written_by_one_before():
    known: list[str] = list(OWN)
    for command in commands():
        read = [value(command, option) for option in ("--design", "--start", "--calibration")]
        read += [word for word in command[1:2] if word.startswith("out/") or "." in word]
        for path in read:
            assert path is None or path in known, command
        known += written(command)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_and_option_is_there(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    words = command[:2] if command[0] == "validate" else command[:1]
    assert cosim(*words, "--help") == 0
    text = capsys.readouterr().out
    for option in (word for word in command if word.startswith("--")):
        assert option in text


def test_the_demo_ends_by_saying_how_to_call_the_command():
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo:\n")[2].partition("\n\n")[0]
    assert ".venv/bin/activate" in recipe.splitlines()[-1]

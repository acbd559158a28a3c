"""Without an extra: does every help work, and does every command name the one that it needs?"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from studies.cli import COMMANDS, GROUPS
from studies.plain.errors import EXTRAS
from studies.plain.made_by import DISTRIBUTION
from tests.support.command import cosim
from tests.support.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(EXTRAS.keys() - {"google"})!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from studies.cli import main

for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as end:
        print("ended", end.code or 0)
"""
ALL = [*COMMANDS, *(f"{group} {name}" for group, (_, names) in GROUPS.items() for name in names)]


def without_extras(folder: Path, *commands: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *commands], cwd=folder, text=True,
                          capture_output=True, timeout=PATIENCE_SECONDS, check=False,
                          env={"PYTHONPATH": str(ROOT), "COLUMNS": "300", "HOME": str(folder)})


def test_every_help_works_without_any_extra(tmp_path: Path) -> None:
    done = without_extras(tmp_path, *(f"{command} --help" for command in ALL))
    assert done.stderr == ""
    assert re.findall(r"(?m)^ended (\d+)$", done.stdout) == ["0"] * len(ALL)


def test_a_help_that_names_an_extra_installs_it(capsys: pytest.CaptureFixture,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    named = set()
    for command in ALL:
        assert cosim(*command.split(), "--help") == 0
        shown = capsys.readouterr().out
        named |= set(re.findall(r"pip install -e '\.\[(\w+)\]'", shown))
        assert shown.count("pip install -e '.") == len(re.findall(r"pip install -e '\.\[\w", shown))
    assert named == set(re.findall(r"'\.\[(\w+)\]'", "".join(
        path.read_text("utf-8") for path in (ROOT / "studies" / "commands").glob("*.py"))))


def test_a_command_without_its_extra_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    wanted = {"validate rtl": "rtl", "validate onnx a.onnx": "onnx", "simulate a.onnx": "onnx",
              "study quality": "torch", "study efficiency": "torch", "study resources": "rtl",
              "study paths norm": "rtl", "study timing": "rtl", "board serve out": "scale",
              "emit agc-w16 --rtl --out out": "rtl", "validate page --out page.md": "rtl",
              "decode agc-w16 --out clip": "torch", "train agc w16 --out out": "torch",
              "train quantize-agc w16 --out out": "torch", "report a.json": "page",
              "train fine-tune n256 --seconds 9": "torch"}
    done = without_extras(tmp_path, *wanted)
    lines = done.stderr.splitlines()
    assert len(lines) == len(wanted)
    for line, extra in zip(lines, wanted.values(), strict=True):
        assert line.startswith("error: this command needs the package")
        assert line.endswith(f".venv/bin/python -m pip install -e '.[{extra}]'")
    assert re.findall(r"(?m)^ended (\d+)$", done.stdout) == ["2"] * len(wanted)
    assert [item.name for item in tmp_path.iterdir() if item.suffix or item.is_file()] == ["a.onnx"]


def test_the_extras_are_those_of_the_project() -> None:
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])
    assert PROJECT["name"] == DISTRIBUTION != "cosim"


@pytest.mark.parametrize("path", [ROOT / "README.md", *(ROOT / "docs").glob("*.md"),
                                  *(ROOT / "studies").rglob("*.py")], ids=lambda path: path.name)
def test_no_text_installs_a_package_of_this_name_from_the_index(path: Path) -> None:
    assert not re.search(r"pip install ['\"]?cosim", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", (
    ("validate", "rtl", "--programs", "10" + "0" * 22), ("validate", "rtl", "--tiles", "-1"),
    ("validate", "rtl", "--seed", "-1"), ("validate", "rtl", "--steps", "0"),
    ("validate", "onnx", "a.onnx", "--seed", "1" + "0" * 23),
    ("explore", "agc-w16", "--seed", "-1"), ("explore", "agc-w16", "--seed", "1" + "0" * 23),
    ("explore", "agc-w16", "--designs", "1" + "0" * 23), ("study", "demo", "--seed", "-1"),
    ("explore", "agc-w16", "--workers", "100000"), ("simulate", "agc-w16", "--frames", "100000000"),
    ("what-if", "default", "-w", "agc-w16", "--set", "clock_hz=nan"),
    ("what-if", "default", "-w", "agc-w16", "--set", "clock_hz=inf"),
    ("what-if", "default", "-w", "agc-w16", "--set", "tm=1" + "0" * 23),
), ids=lambda words: " ".join(words)[:60])
def test_a_number_out_of_bounds_is_refused_at_once(capsys: pytest.CaptureFixture,
                                                    words: tuple[str, ...]) -> None:
    assert cosim(*words) == 2
    assert "Traceback" not in capsys.readouterr().err

"""Does every file that is read or written have a schema, and does what is written keep to it?"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arch_models.board import board_names, load_board
from arch_models.files import read_toml
from hw.board.measurement import measurement_text, parse_measurement
from hw.board.seal import build_report, seal
from studies.report.documents import Asked
from studies.report.live import NEWEST, LiveSearch
from studies.schemas import FILES, schema
from studies.search.outcomes import Objective
from studies.search.space_file import load_space
from tests.support.command import cosim
from tests.support.small_proof import BASE, BOARD, SMALL
from tests.support.written import NO_FILE, WRITERS, check, checker
from workloads.library import DATA

ROOT = Path(__file__).parents[2]
ROOMS = ("arch_models", "cosim", "hw", "studies", "workloads")
#: Read, and written by people or by the vendor's tools' script.
READ = {"design", "board", "space", "build-report"}


def writing() -> Iterator[str]:
    """`file:function` of every call that makes JSON."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        text = path.read_text("utf-8")
        if "json" in text:
            yield from _calls(ast.parse(text), path.relative_to(ROOT).as_posix(), "")


def _calls(node: ast.AST, file: str, function: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef) else function
        if isinstance(child, ast.Call):
            name = ast.unparse(child.func)
            if name in ("write_json", "dump") or name.endswith((".dumps", "json.dump")):
                yield f"{file}:{function}"
        yield from _calls(child, file, inner)


def test_every_function_that_makes_json_is_known_with_its_kinds_of_files() -> None:
    found, known = set(writing()), set(WRITERS) | set(NO_FILE)
    assert found == known, f"new: {sorted(found - known)}; gone: {sorted(known - found)}"
    assert {kind for kinds in WRITERS.values() for kind in kinds} | READ == set(FILES)


@pytest.mark.parametrize("kind", FILES)
def test_a_schema_is_one_and_refuses_what_is_no_such_file(
        kind: str, capsys: pytest.CaptureFixture) -> None:
    assert cosim("schema", kind) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == schema(kind)
    jsonschema.Draft202012Validator.check_schema(printed)
    for wrong in (1, "text", [1], {"no such field": []}):
        assert not checker(kind).is_valid(wrong), f"{kind}: {wrong!r}"


def test_files_that_ship_keep_to_their_schemas() -> None:
    for path in sorted((ROOT / "arch_models" / "designs").glob("*.toml")):
        checker("design").validate(read_toml(path))
    for name in board_names():
        checker("board").validate(read_toml(
            ROOT / "arch_models" / "boards" / f"{name.replace('-', '_')}.toml"))
    networks = sorted(path for path in DATA.glob("*.json")
                      if path.with_suffix(".safetensors").exists())
    assert networks
    for path in networks:
        checker("network").validate(json.loads(path.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        checker("design").validate({"name": "x", "tm": "8"})


COMMANDS: dict[str, tuple[object, ...]] = {
    "evaluation": ("simulate", "agc-w16"),
    "comparison": ("compare", "default", "default", "-w", "agc-w16"),
    "what-if": ("what-if", "-w", "agc-w16", "--set", "tm=8"),
    "explanation": ("explain", "default", "-w", "agc-w16"),
    "findings": ("lint", "default", "-w", "agc-w16"),
    "boards": ("boards",),
    "memory-check": ("validate", "memory"),
    "streams-check": ("validate", "streams"),
    "fpga2015-check": ("validate", "fpga2015"),
    "pipecnn-check": ("validate", "pipecnn"),
    "nvdla-check": ("validate", "nvdla"),
    "nvdla-small-check": ("validate", "nvdla-small"),
    "energy-check": ("validate", "energy"),
    "clock-check": ("validate", "clock", "--grid-only"),
    "calibration": ("calibrate", "--reports", ROOT / "tests" / "studies" / "data",
                    "--out", "build.toml"),
    "emission": ("emit", "agc-w16", "--out", "project"),
    "search": ("explore", "agc-w16", "--designs", 4, "--workers", 1, "--out", "out"),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_what_a_command_writes_keeps_to_its_schema(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert cosim(*COMMANDS[kind], "--json", "a.json") == 0
    check((tmp_path / "a.json").read_text(), (kind,))
    if kind == "emission":
        holds_as_project(tmp_path / "project")
    if kind == "search":
        check((tmp_path / "out" / "best.json").read_text(), ("evaluation",))


def holds_as_project(folder: Path) -> None:
    """The files of an emitted project, those that come with its build included."""
    for kind, name in (("manifest", "manifest.json"), ("prediction", "data/prediction.json"),
                       ("program", "data/program.json")):
        check((folder / name).read_text(), (kind,))
    (folder / "build").mkdir()
    bitstream = folder / "build" / "overlay.bit"
    bitstream.write_bytes(b"bits")
    report = {"clock_mhz": 100.0, "wns_ns": 0.1, "tns_ns": 0.0, "whs_ns": 0.02, "ths_ns": 0.0,
              "failed_nets": 0}
    (folder / "build" / "report.json").write_text(json.dumps(report))
    check(json.dumps(report), ("build-report",))
    seal(str(folder), str(bitstream), build_report(str(bitstream)))
    check((folder / "bitstream.json").read_text(), ("seal",))


def test_a_search_that_is_watched_keeps_to_its_schema(tmp_path: Path) -> None:
    asked = Asked("agc", SMALL.name, BOARD.name, BOARD, BASE)
    LiveSearch(tmp_path, asked, (Objective.LATENCY,), 4, tmp_path / "explore.json").end("over")
    check((tmp_path / NEWEST).read_text(), ("live",))


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
    if kind == "space":
        (tmp_path / "a.toml").write_text(whole)
        load_space(tmp_path / "a.toml", load_board("pynq-z1"))
        whole = read_toml(tmp_path / "a.toml")
    else:
        parsed = parse_measurement(json.dumps(whole))
        checker(kind).validate(json.loads(measurement_text(parsed)))
    checker(kind).validate(whole)
    with pytest.raises(jsonschema.ValidationError):
        checker(kind).validate(wrong)

"""A newcomer's path through the command line, with the mistakes a newcomer makes on the way."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from arch_models.overlay import default_overlay, overlay_toml
from tests.support.command import cosim


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and everything printed; a traceback would be an exception here."""
    code = cosim(*arguments)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


COMMANDS = ("simulate", "explore", "emit", "report", "boards", "what-if", "compare", "explain",
            "benchmark", "board", "validate")


def test_the_help_names_every_command(capsys):
    code, text = run(capsys, "--help")
    assert code == 0
    for command in COMMANDS:
        assert command in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_a_sentence(capsys, command):
    code, text = run(capsys, command, "--help")
    assert code == 0 and "Usage" in text and "." in text


def test_boards_are_listed_and_written(capsys, tmp_path):
    code, text = run(capsys, "boards", "--json", str(tmp_path / "boards.json"))
    assert code == 0 and "pynq-z1" in text
    rows = json.loads((tmp_path / "boards.json").read_text())
    assert next(row for row in rows if row["name"] == "pynq-z1")["dsp"] == 220


def test_simulate_report_and_explain_go_together(capsys, tmp_path):
    result = tmp_path / "result.json"
    code, text = run(capsys, "simulate", "agc-w16", "--memory", "flat", "--json", str(result),
                     "--trace", str(tmp_path / "t.pftrace"))
    assert code == 0 and "predicted" in text
    assert json.loads(result.read_text())["content"]["latency_cycles"] > 0
    assert (tmp_path / "t.pftrace").stat().st_size > 1000
    page = tmp_path / "report.html"
    code, text = run(capsys, "report", str(result), "--out", str(page))
    assert code == 0 and str(page) in text.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("arguments", "said"), [
    (("simulate", "agc-w65"), "'agc-w64'"),
    (("simulate", "agc-w16", "--board", "pynq-z2"), "'pynq-z1'"),
    (("simulate", "agc-w16", "--design", "defualt"), "'default'"),
    (("simulate", "agc-w16", "--memory", "ddr4"), "'ddr3'"),
    (("simulate", "agc-w16", "--design", "missing.toml"), "no design file"),
    (("explore", "agc-w16", "--objectives", "latensy"), "'latency'"),
    (("explore", "agc-w16", "--sampler", "nsga"), "mean 'nsga"),
    (("what-if", "default", "--workload", "agc-w16", "--set", "tmm=16"), "'tm'"),
    (("what-if", "default", "--workload", "agc-w16", "--set", "tm"), "FIELD=VALUE"),
    (("board", "check", "nowhere.toml"), "nowhere.toml"),
    (("report", "nowhere.json"), "nowhere.json"),
    (("explore", "agc-w16", "--workers", "100000"), "512"),
    (("explore", "agc-w16", "--designs", "1000000000"), "1000000"),
    (("explore", "agc-w16", "--seed", "-1"), "equal to 0"),
    (("what-if", "default", "--workload", "agc-w16", "--set", "clock=100"), "nearest 100M"),
])
def test_a_mistake_ends_with_one_message_and_code_2(capsys, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, text = run(capsys, *arguments)
    assert code == 2
    assert said in " ".join(text.split())
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "out"])


@pytest.mark.parametrize(("change", "said"), [
    (lambda text: text.replace("tm = 16", "tm = 17"), "nearest 16"),
    (lambda text: text.replace("clock_hz", "clok_hz"), "'clock_hz'"),
    (lambda text: text.replace('port = "HP0"', 'port = "HP9"'), "HP"),
    (lambda text: text.replace("width_bits = 64", "width_bits = 128"), "64"),
    (lambda text: text.replace("input_words = 8192", "input_words = 8"), "input_words"),
    (lambda text: text[:200], "not TOML"),
    (lambda text: text.partition("[[masters]]")[0], "'masters' is missing"),
])
def test_a_wrong_design_file_is_refused_before_anything_is_written(capsys, tmp_path, change, said):
    design = tmp_path / "mine.toml"
    design.write_text(change(overlay_toml(default_overlay())))
    code, text = run(capsys, "simulate", "agc-w16", "--design", str(design), "--memory", "flat",
                     "--json", str(tmp_path / "result.json"))
    assert code == 2
    assert said in " ".join(text.split())
    assert not (tmp_path / "result.json").exists()


def test_a_corrupt_result_is_refused(capsys, tmp_path):
    result = tmp_path / "result.json"
    result.write_text('{"format": "cosim", "version": 1, "kind": "eval')
    code, text = run(capsys, "report", str(result), "--out", str(tmp_path / "report.html"))
    assert code == 2 and "not JSON" in text
    assert not (tmp_path / "report").exists()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, text = run(capsys, "explore", "agc-w64", "--out", str(tmp_path / "file" / "out"))
    assert code == 2 and "cannot write" in text


def test_a_small_exploration_writes_a_design_that_simulates(capsys, tmp_path):
    out = tmp_path / "explore"
    code, _ = run(capsys, "explore", "agc-w16", "--designs", "12", "--workers", "1", "--out",
                  str(out))
    assert code == 0
    document = json.loads((out / "explore.json").read_text())
    assert document["designs_evaluated"] >= 12 and document["predicted"] is True
    code, text = run(capsys, "simulate", "agc-w16", "--design", str(out / "best.toml"),
                     "--memory", "flat")
    assert code == 0 and "latency" in text


def test_what_if_shows_the_effect_of_a_clock(capsys, tmp_path):
    path = tmp_path / "rows.json"
    code, _ = run(capsys, "what-if", "default", "--workload", "agc-w16", "--set",
                  "clock_mhz=100,125", "--json", str(path), "--out", str(tmp_path))
    assert code == 0
    slow, fast = json.loads(path.read_text())["rows"]
    assert fast["latency_ms"] < slow["latency_ms"]


def test_compare_adds_up(capsys, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text(overlay_toml(replace(default_overlay(), clock_hz=125_000_000, name="faster")))
    path = tmp_path / "c.json"
    code, _ = run(capsys, "compare", "default", str(other), "--workload", "agc-w16", "--memory",
                  "flat", "--json", str(path))
    assert code == 0
    found = json.loads(path.read_text())
    for rows in (found["units"], found["layers"], found["states"], found["cells"]):
        delta = sum(row["b_ms"] - row["a_ms"] for row in rows)
        a, b = found["a"], found["b"]
        expected = (b["latency_cycles"] / b["clock_hz"] - a["latency_cycles"] / a["clock_hz"]) * 1e3
        assert delta == pytest.approx(expected, abs=1e-9)

"""Do coefficients from a vendor's report say what its loops say, and are bad reports refused?

The report is hand-made after the vendor's documented format; no vendor tool was run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from arch_models.engines import timing
from arch_models.engines.base import coefficients as read_coefficients
from arch_models.fields import FieldError, Status
from arch_models.overlay import Engine, default_overlay
from studies.cli import main
from studies.plain.errors import UserError
from studies.resources.calibrate import Loop, backend_file, choose_loops, coefficients, read_report

REPORT = Path(__file__).parent / "data" / "csynth.xml"
CHOSEN = {"convolution": "convolution/VITIS_LOOP_77_1_VITIS_LOOP_79_2_VITIS_LOOP_81_3",
          "affine": "affine/VITIS_LOOP_66_3"}
LOOPS = [word for name, label in CHOSEN.items() for word in ("--loop", f"{name}={label}")]


@pytest.mark.parametrize("trips", [1, 7, 1000])
def test_an_operation_takes_as_long_as_its_pipelined_loop(trips):
    """Latency of a pipelined loop: depth + II * (trips - 1), the vendor's guide UG1399."""
    loop = Loop("add", "loop", 3, 11, 0)
    found = coefficients("add", [loop])
    cycles = found["fill"] + found["interval"] * trips + found["drain"]
    assert cycles == loop.depth + loop.interval * (trips - 1)


def test_a_design_takes_its_timing_from_the_file(tmp_path):
    out = tmp_path / "vitis.toml"
    figures = tmp_path / "synthesis.json"
    main_ok(["calibrate", "--csynth", str(REPORT), "--out", str(out), *LOOPS,
             "--json", str(figures)])
    overlay = dataclasses.replace(default_overlay(), backend=str(out))
    assert timing(overlay, Engine.ELEMENTWISE, "add").interval == 2
    written, report = json.loads(figures.read_text())["synthesis"], read_report(REPORT)
    assert written["sha256"] == report.sha256
    assert [(loop["name"], loop["interval"], loop["depth"]) for loop in written["loops"]] == [
        (loop.name, loop.interval, loop.depth) for loop in report.loops]
    assert timing(overlay, Engine.ELEMENTWISE, "add").drain == 7
    softmax = timing(overlay, Engine.SOFTMAX, "softmax")
    assert (softmax.interval_per_channel, softmax.interval) == (3, 4 + 8 + 11)
    rows = read_coefficients(str(out))
    assert {item.status for item in rows} == {Status.VENDOR}
    assert all(read_report(REPORT).sha256[:16] in item.source for item in rows)


def main_ok(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in (0, None)


def test_a_missing_operator_is_named(tmp_path):
    report = read_report(REPORT)
    loops = choose_loops(report, CHOSEN)
    del loops["lookup"]
    out = tmp_path / "vitis.toml"
    out.write_text(backend_file(report, loops))
    overlay = dataclasses.replace(default_overlay(), backend=str(out))
    with pytest.raises(FieldError, match=r"has no lookup\.fill"):
        timing(overlay, Engine.LOOKUP, "lookup")


def test_a_missing_or_broken_backend_file_is_named(tmp_path):
    for text, words in ((None, "no file"), ("[vitis.add]\nfill = 1\n", "must be a table")):
        out = tmp_path / f"{words[:2]}.toml"
        if text is not None:
            out.write_text(text)
        overlay = dataclasses.replace(default_overlay(), backend=str(out))
        with pytest.raises(FieldError, match=words):
            timing(overlay, Engine.ELEMENTWISE, "add")


@pytest.mark.parametrize(("old", "new", "words"), [
    ("<PipelineDepth>9</PipelineDepth>", "", "PipelineDepth is missing"),
    ("<PipelineII>2</PipelineII>", "<PipelineII>undef</PipelineII>", "PipelineII is undef"),
    ("<PipelineDepth>9</PipelineDepth>", "<PipelineDepth>1</PipelineDepth>",
     "must be at least PipelineII 2"),
    ("TopModelName>", "Top>", "no TopModelName"),
    ("PipelineII>", "Interval>", "no loop has a PipelineII"),
    ("</profile>", "", "not XML"),
])
def test_a_bad_report_is_refused(tmp_path, old, new, words):
    bad = tmp_path / "csynth.xml"
    bad.write_text(REPORT.read_text().replace(old, new))
    with pytest.raises(UserError, match=words):
        read_report(bad)


def test_several_loops_ask_which_one():
    with pytest.raises(UserError, match="convolution: 2 pipelined loops"):
        choose_loops(read_report(REPORT), {})
    with pytest.raises(UserError, match="is not in csynth.xml"):
        choose_loops(read_report(REPORT), {**CHOSEN, "add": "add/nothing"})
    with pytest.raises(UserError, match="operator 'adds'"):
        choose_loops(read_report(REPORT), {"adds": "add/nothing"})


def test_a_refused_report_leaves_no_file(tmp_path, capsys):
    out = tmp_path / "vitis.toml"
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--csynth", str(tmp_path / "no.xml"), "--out", str(out)])
    assert ended.value.code == 2 and not out.exists()
    assert "there is no file" in capsys.readouterr().err

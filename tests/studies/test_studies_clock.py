"""Do a vendor's reports replace our clock for their own design, and does the check say so?

The reports are hand-made after the vendor's documented format; no vendor tool was run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from shutil import copy

import pytest

from arch_models.board import load_board
from arch_models.clock import ClockBasis, basis, clocked, predict
from arch_models.fields import FieldError
from arch_models.overlay import Rate, default_overlay, load_overlay, save_overlay
from arch_models.resources import estimate, parts_of, whole_design
from studies.evaluation.batch import Batch
from studies.evaluation.evaluate import at_clock, evaluate, feasible
from studies.plain.errors import UserError
from studies.resources.build_check import build_toml, compare
from studies.resources.vendor_reports import find_reports, read_timing, read_utilization
from studies.validate.clock import clock_lines, public_rows, routed_classes, run, summarized
from tests.support.command import cosim
from workloads.library import load

DATA = Path(__file__).parent / "data"
BOARD, BASE = load_board("pynq-z1"), replace(default_overlay(), rate=Rate.PREDICTED)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    for name in ("timing.rpt", "utilization.rpt"):
        copy(DATA / name, folder)
    return folder


def test_a_timing_summary_gives_the_clock_that_its_slack_stands_for() -> None:
    found = read_timing(DATA / "timing.rpt")
    assert (found.device, found.grade, found.clock) == ("7z020-clg400", "-1", "clk_fpga_0")
    assert found.met and found.reached_mhz == pytest.approx(1000 / (7 - 0.25))
    assert [path.slack_ns for path in found.paths] == [0.25, 1.0]
    assert found.paths[0].logic_ns + found.paths[0].route_ns == pytest.approx(6.5)


def test_a_path_between_two_kinds_of_edges_has_half_a_period(reports: Path) -> None:
    text = (reports / "timing.rpt").read_text()
    (reports / "timing.rpt").write_text(text.replace("7.000ns  (clk", "3.500ns  (clk"))
    found = read_timing(reports / "timing.rpt")
    assert found.reached_mhz == pytest.approx(1000 / (2 * (3.5 - 0.25)))


def test_sites_of_a_build_are_read() -> None:
    found = read_utilization(DATA / "utilization.rpt")
    assert (found.dsp, found.bram36, found.lut, found.ff) == (160, 101.5, 24100, 31050)


@pytest.mark.parametrize(("name", "old", "new", "said"), [
    ("timing.rpt", "WNS(ns)", "XNS(ns)", "no Design Timing Summary"),
    ("timing.rpt", "{0.000 3.500}", "", "no Clock Summary"),
    ("utilization.rpt", "| DSPs", "| XSPs", "no row DSPs"),
    ("timing.rpt", "report_timing_summary", "report_clocks", "0 files of report_timing_summary")])
def test_a_report_that_lacks_something_is_refused_by_name(reports: Path, name: str, old: str,
                                                          new: str, said: str) -> None:
    text = (reports / name).read_text()
    assert old in text
    (reports / name).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        find_reports(reports)


def test_differences_are_listed_by_site_and_part(reports: Path) -> None:
    found = compare(BASE, BOARD, *find_reports(reports))
    assert {row.site: row.used for row in found.sites} == {
        "dsp": 160, "bram36": 101.5, "lut": 24100, "ff": 31050}
    parts = {row.part: row for row in found.parts}
    assert parts["convolution"].reported_ns == pytest.approx(6.75)
    assert parts["control"].reported_ns == pytest.approx(6.0)
    assert parts["convolution"].predicted_ns == pytest.approx(
        dict(predict(BASE, BOARD).parts)["convolution"])
    with pytest.raises(UserError, match="a build for 7z020"):
        compare(BASE, load_board("ultra96"), *find_reports(reports))


def test_a_design_that_names_its_build_runs_at_the_measured_clock(reports: Path,
                                                                  tmp_path: Path) -> None:
    built = tmp_path / "build.toml"
    built.write_text(build_toml(BASE, *find_reports(reports)))
    overlay = replace(BASE, build=str(built))
    found = predict(overlay, BOARD)
    assert found.mhz == pytest.approx(1000 / 6.75, rel=1e-5)
    assert found.low_mhz == pytest.approx(1000 / 7, rel=1e-5) and found.high_mhz >= found.mhz
    at = clocked(overlay, BOARD)
    assert at.clock_hz == 142_857_142 and basis(at, BOARD) is ClockBasis.MEASURED
    item = feasible(evaluate(load("agc-w16"), overlay, BOARD, frames=1))
    assert item.clock.basis == "measured" and item.clock_hz == 142_857_142
    with pytest.raises(FieldError, match="of another design"):
        predict(replace(overlay, tm=8), BOARD)


def test_a_design_that_names_its_build_has_the_sites_of_it(reports: Path, tmp_path: Path) -> None:
    built = tmp_path / "build.toml"
    built.write_text(build_toml(BASE, *find_reports(reports)))
    overlay = replace(BASE, build=str(built))
    graph = load("agc-w16")
    item = feasible(evaluate(graph, overlay, BOARD, frames=1))
    assert [part.used for part in item.resources] == [160, 101.5, 24100, 31050]
    assert item.sites_basis == "measured by a vendor's build"
    [batched] = Batch(graph, BOARD).evaluate([clocked(overlay, BOARD)])
    assert feasible(batched).resources == item.resources
    # What the build took beside what the model says of the whole, the block design included, is
    # how each part, and with it the energy, shrinks or grows.
    model, accelerator = whole_design(BASE), estimate(BASE).total
    parts = dict(parts_of(overlay))
    assert sum(part.lut for part in parts.values()) == pytest.approx(
        24100 / model.lut * accelerator.lut, rel=1e-3)
    assert parts["convolution"].dsp == round(dict(estimate(BASE).parts)["convolution"].dsp
                                             * 160 / model.dsp)
    same = feasible(evaluate(graph, at_clock(BASE, item.clock_hz), BOARD, frames=1))
    assert same.sites_basis == "estimated"
    assert item.energy.parts["PL convolution"] < same.energy.parts["PL convolution"]


def test_a_build_that_missed_its_clock_is_known_without_an_interval(reports: Path,
                                                                    tmp_path: Path) -> None:
    text = (reports / "timing.rpt").read_text()
    (reports / "timing.rpt").write_text(text.replace(
        "      0.250        0.000                      0", "     -1.000      -20.000     30"
        ).replace("(MET) :             0.250ns", "(VIOLATED) :       -1.000ns"))
    built = tmp_path / "build.toml"
    built.write_text(build_toml(BASE, *find_reports(reports)))
    found = predict(replace(BASE, build=str(built)), BOARD)
    assert found.low_mhz == found.mhz == found.high_mhz == pytest.approx(125.0)


def test_calibrate_writes_a_file_that_the_design_may_name(
        reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, design = tmp_path / "build.toml", tmp_path / "mine.toml"
    assert cosim("calibrate", "--reports", reports, "--out", out) == 0
    text = capsys.readouterr().out
    assert "148.1 MHz" in text and "difference" in text
    save_overlay(replace(BASE, build=str(out)), design)
    design.write_text("\n".join(line for line in design.read_text().split("\n")
                                if not line.startswith("clock_hz")))
    assert cosim("simulate", "agc-w16", "--design", design, "--memory", "flat") == 0
    assert "142.9 MHz (measured)" in " ".join(capsys.readouterr().out.split())
    # A search is of other designs, of which the build says nothing.
    assert cosim("explore", "agc-w16", "--design", design, "--out", tmp_path / "found") == 2
    assert "names the build" in capsys.readouterr().err


def test_the_check_writes_what_it_predicts_without_yosys(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    assert run("default", "pynq-z1", path, whole=False) == 0
    made = json.loads(path.read_text())
    found = predict(BASE, BOARD)
    assert made["predicted_mhz"] == pytest.approx(found.mhz)
    assert made["low_mhz"] < made["predicted_mhz"] < made["high_mhz"]
    assert made["logic_ns"] == pytest.approx(found.logic_ns) and made["path"] == found.path
    assert made["parts"][0]["period_ns"] == pytest.approx(1000 / found.mhz)
    assert made["paths"] == [] and "Yosys" in made["note"]
    assert made["rate_mhz"] <= made["predicted_mhz"]


def test_the_summary_of_routed_builds_is_that_of_its_table(tmp_path: Path) -> None:
    table = tmp_path / "routed.csv"
    table.write_text("device,LUT,Fmax_implied_MHz,result\n" + "".join(
        f"7z020,{item.lut_from},{item.median_mhz},met\n" for item in routed_classes())
        + "xczu3eg,100,300.0,met\n7z020,,90.0,met\n")
    for item, made in zip(routed_classes(), summarized(table), strict=True):
        assert (made.builds, made.met) == (1, 1)
        assert made.median_mhz == made.fastest_mhz == item.median_mhz


def test_the_page_has_every_public_design_and_ours() -> None:
    text = "\n".join(clock_lines())
    assert all(f"| {row.design} |" in text for row in public_rows())
    assert f"| {predict(load_overlay('diffusion'), BOARD).mhz:.0f} |" in text

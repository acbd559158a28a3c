"""Is a vendor's power report read part by part, and what is none refused by name?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arch_models.engines.base import values
from arch_models.power.fabric import FILE, cycle_pj
from studies.commands.calibrate import calibrate
from studies.energy.power_report import differences, power_reports, read_power_report
from studies.plain.errors import UserError

REPORT = (Path(__file__).parent / "data" / "power.rpt").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "top_power_routed.rpt").write_text(REPORT)
    (tmp_path / "top_drc.rpt").write_text("| Command : report_drc -file top_drc.rpt\n")
    return tmp_path


def test_parts_sites_and_clock_are_those_printed(folder: Path) -> None:
    report, = power_reports(folder)
    assert report.watts == {"clocks": 0.083, "logic": 0.087, "signals": 0.274, "bram": 0.086,
                            "dsp": 0.124, "ps": 1.533, "static": 0.168, "total": 2.355}
    assert (report.sites.dsp, report.sites.bram36, report.sites.lut, report.sites.ff) == (
        142, 47, 24545, 37722)
    assert report.clock_mhz == pytest.approx(100.0)
    assert (report.design, report.device, report.confidence, report.activity) == (
        "top", "xc7z020clg400-1", "Medium", "")


def test_each_part_stands_beside_ours_for_the_same_sites(folder: Path) -> None:
    report, = power_reports(folder)
    found = {item.part: item for item in differences(report)}
    assert found["dsp"].reported_mw == pytest.approx(124)
    assert found["dsp"].predicted_mw == pytest.approx(142 * values(FILE)["report.dsp_pj"] * 0.1)
    assert found["fabric"].reported_mw == pytest.approx(83 + 87 + 274 + 86 + 124)
    assert found["fabric"].predicted_mw == pytest.approx(
        sum(cycle_pj(report.sites).values()) * 0.1)
    assert all(item.low_mw < item.predicted_mw < item.high_mw for item in found.values())


def test_an_activity_file_is_told(folder: Path) -> None:
    path = folder / "top_power_routed.rpt"
    path.write_text(REPORT.replace("Activity File | ---  ", "Activity File | a.saif"))
    assert read_power_report(path).activity == "a.saif"


@pytest.mark.parametrize(("old", "new", "said"), [
    ("Design State     : routed", "Design State     : Synthesized", "state is 'Synthesized'"),
    ("| Signals                  |     0.274 |    51234 |       --- |             --- |\n", "",
     "lacks 'signals'"),
    ("1.1 On-Chip Components\n----------------------\n", "", "table of on-chip components"),
    ("|     0.083 |", "|     lots |", "power of 'Clocks' is 'lots'"),
    ("|     0.083 |", "|     83000 |", "which no such part takes"),
    ("|            10.0 |", "|             NA  |", "lacks the clock constraints"),
    ("report_power -file", "report_timing -file", None),
])
def test_what_is_not_whole_is_refused_by_name(folder: Path, old: str, new: str,
                                              said: str | None) -> None:
    path = folder / "top_power_routed.rpt"
    text = REPORT.replace(old, new)
    assert text != REPORT
    path.write_text(text if said else text.replace("Power Report", "Timing Report"))
    with pytest.raises(UserError, match=said or "is no report of `report_power`"):
        power_reports(folder)


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no report of report_power"):
        power_reports(tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        power_reports(tmp_path / "none")


def test_the_command_writes_the_differences(folder: Path) -> None:
    calibrate(reports=folder, json=folder / "out.json")
    found = json.loads((folder / "out.json").read_text())["reports"]
    assert [item["part"] for item in found[0]["parts"]] == [
        "clocks", "signals", "logic", "bram", "dsp", "fabric"]
    with pytest.raises(UserError, match="give one of"):
        calibrate()

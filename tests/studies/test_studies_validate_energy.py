"""Does the energy model hold its bars on designs it has not seen, and refuse what is no table?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arch_models.engines.base import values
from arch_models.power.fabric import CLOCK, FILE, SPINE
from studies.energy import fit, rails
from studies.energy.reports import PartReport, fit_part
from studies.plain import truth
from studies.plain.errors import UserError
from studies.validate import energy
from studies.validate.energy import energy_lines

pytestmark = pytest.mark.fitted

CLOCKS = {name: values(FILE)[name] for name in (SPINE, CLOCK)}
HEAD = "design,dsp48_used,bram36_used,lut_used,f_min_MHz,f_max_MHz,vccint_nJ_per_cycle,"


def table(path: Path, rows: str, head: str = HEAD + "vccint_intercept_mW,ddr_nJ_per_byte_fit"
          ) -> Path:
    path.write_text(f"{head}\n{rows}\n")
    return path


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clone that lies where there are no shared tables."""
    monkeypatch.setattr(truth, "SHARED", tmp_path)


@pytest.mark.usefixtures("alone")
def test_the_bars_hold_on_the_carried_lines_and_absent_tables_are_named() -> None:
    report = energy.validate()
    assert report.median_abs_error <= 0.15 and report.worst_abs_error <= 0.35
    assert report.ddr_error is not None and report.ddr_error <= 0.15
    assert abs(report.loaded_idle_share - 0.13) <= 0.05
    assert report.absent == ("zc702_rails_sweep.csv", "vivado_power_reports.csv")
    # 80 % of nine are seven.
    assert 6 <= sum(row.inside for row in report.rows) <= 8


def test_a_design_that_is_left_out_does_not_move_its_own_prediction() -> None:
    designs = rails.read_carried()
    first = designs[0]
    line = first.lines[-1]
    dearer = rails.Line(1.0, 10 * line.nj_per_cycle, line.intercept_mw, line.lowest_mhz,
                        line.highest_mhz)
    changed = [rails.Design(first.name, first.dsp, first.bram36, first.lut, None, (dearer,)),
               *designs[1:]]
    assert (fit.left_out(designs, CLOCKS)[first.name]
            == fit.left_out(changed, CLOCKS)[first.name])
    assert fit.fit_fabric(changed, CLOCKS) != fit.fit_fabric(designs, CLOCKS)


def test_shipped_coefficients_are_those_of_the_fit() -> None:
    shipped = values(FILE)
    for name, value in fit.fit_fabric(rails.read_carried(), CLOCKS).items():
        assert shipped[name] == pytest.approx(value, rel=2e-3), name
    for item in fit.traffic_values(rails.read_carried()):
        assert shipped[item.name] == pytest.approx(item.value, rel=2e-3)


def test_rows_of_a_file_are_predicted_with_the_shipped_coefficients(tmp_path: Path) -> None:
    known = values(FILE)
    sites = 20000 * known["fabric.logic_pj"] + 50 * known["fabric.block_pj"]
    tree = known[SPINE] + known[CLOCK] * round(20000 * known["fabric.ff_per_lut"])
    nanojoules = (sites + tree) * 1e-3
    path = table(tmp_path / "mine.csv",
                 f"new,40,10,20000,20.4,125,{nanojoules},{known['static.vccint_w'] * 1e3},0.37")
    report = energy.validate(path)
    (row,) = report.rows
    assert not row.left_out
    assert np.allclose(row.errors, 0.0, atol=1e-9)
    assert row.predicted_nj == pytest.approx(nanojoules)
    # The generator's 1000 MHz over 8 to 49.
    assert len(row.errors) == 42
    assert row.ddr_predicted_nj == pytest.approx(
        (2 * 140.71 + 196.998) / 3e3 + known["ddr.pads_pj_per_byte"] * 1e-3, rel=1e-3)


@pytest.mark.parametrize(("rows", "head", "said"), [
    ("a,1,2,3,20,100,1,60,", "design,dsp48,bram36_used,lut_used", "no column 'dsp48_used'"),
    ("a,1,2,x,20,100,1,60,", None, "line 2: lut_used is 'x'"),
    ("a,1,2,-3,20,100,1,60,", None, "lut_used is -3"),
    ("a,1,2,3,20,100,nan,60,", None, "vccint_nJ_per_cycle is nan"),
    ("", None, "holds no row"),
])
def test_what_is_no_table_is_refused_by_name(tmp_path: Path, rows: str, head: str | None,
                                             said: str) -> None:
    path = table(tmp_path / "bad.csv", rows, *([head] if head else []))
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        energy.validate(path)


def test_the_json_holds_the_figures_and_each_row(tmp_path: Path) -> None:
    out = tmp_path / "energy.json"
    assert energy.run(json_path=out) == 0
    found = json.loads(out.read_text())
    assert {"designs", "median_abs_error", "worst_abs_error", "ddr_nj_per_byte_error",
            "loaded_idle_share", "by_part"} <= found.keys()
    assert found["designs"] == len(found["rows"]) == 9


def test_a_part_is_fitted_by_the_others() -> None:
    def report(milliwatts: float) -> PartReport:
        return PartReport("x", 100.0, {"lut": 1000.0}, {"logic": milliwatts})

    found = fit_part([report(10.0), report(10.0), report(20.0)], "logic")
    assert found.pj == pytest.approx(0.1 * 2 ** (1 / 3))
    assert found.errors[2] == pytest.approx(-0.5)
    with pytest.raises(ValueError, match="needs three"):
        fit_part([report(10.0), report(1.0)], "logic")


def test_the_page_says_each_design_each_part_and_what_is_absent() -> None:
    report = energy.validate()
    text = "\n".join(energy_lines(report))
    assert all(f"| {row.design} |" in text for row in report.rows)
    assert all(f"| {part} |" in text for part in report.parts)
    assert all(f"`{name}` is absent here" in text for name in report.absent)

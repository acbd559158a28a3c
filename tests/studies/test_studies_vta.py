"""Do the VTA predictions hold on the public rows, and are bad tables refused by line?"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from arch_models.vta import load_vta
from studies.plain import truth
from studies.plain.errors import UserError
from studies.validate import page as validate_page
from studies.validate import vta as validate_vta
from studies.validate import vta_report
from tests.support.command import cosim

pytestmark = pytest.mark.fitted

HEADER = "ic,ih,iw,oc,kh,sh,tile_h,tile_w,tile_ci,tile_co,oc_nthread,h_nthread"
GOOD = "64,14,14,64,3,1,14,14,1,2,2,1"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_carried_rows_are_predicted_within_the_stated_error() -> None:
    report = validate_vta.validate(truth.CARRIED / "vta_pynq_board_ms_2019.csv")
    found = validate_vta.summary(report.errors())
    assert found["rows"] == 10 and not report.refused
    assert found["median_abs_error"] <= 0.01
    assert found["p95_abs_error"] <= 0.02


def test_public_rows_hold_what_is_promised() -> None:
    """Load bytes exactly, legality in 99 %, time in 0.6 % and 1.5 %; alone only carried rows."""
    report = validate_vta.validate()
    errors = np.abs(report.errors())
    assert len(errors) == (10 if validate_vta.TIMED_TABLES[1] in report.absent else 48)
    assert np.median(errors) <= 0.006 and np.quantile(errors, 0.95) <= 0.015
    exact = [item for item in report.predictions if item.row.exact]
    assert len(exact) == (0 if validate_vta.BYTES_TABLE in report.absent else 203)
    assert all(item.row.counted["load"] == item.bytes["load"] for item in exact
               if item.row.counted)
    known = [item for item in report.predictions if item.row.accepted is not None]
    assert len(known) == (0 if validate_vta.LEGALITY_TABLE in report.absent else 2933)
    agreed = [(item.illegal is None) == item.row.accepted for item in known]
    assert not known or np.mean(agreed) >= 0.99
    assert all(item.line for _, item in report.refused)


def test_public_rows_are_buildable() -> None:
    assert not [item.row.label for item in validate_vta.validate().timed if item.illegal]


def test_bad_rows_are_refused_with_their_line_and_the_others_go_on(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ",time_ms,config,groups,oh,note", GOOD + ",,,,,x",
                 GOOD.replace("64", "sixty", 1), GOOD.replace("14,14,1,2", "5,14,1,2"),
                 GOOD + ",-1", GOOD + ",1.0,5x5", GOOD + ",,,2", GOOD + ",,,,15",
                 GOOD + ",1.0,pynq_4x8_i8w8a32_15_16_16_18")
    report = validate_vta.validate(path)
    assert [item.row.line for item in report.predictions] == [2, 9]
    assert [item.line for _, item in report.refused] == [3, 4, 5, 6, 7, 8]
    for (_, item), part in zip(report.refused, ("ic", "tile_h", "time_ms", "5x5", "groups", "oh"),
                               strict=True):
        assert part in item.reason
    assert report.predictions[1].row.array.name == "4x8"
    assert report.predictions[0].error is None


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER.replace("tile_co", "tileco"), GOOD)
    with pytest.raises(UserError, match=r"tile_co \(is it 'tileco'\?\)"):
        validate_vta.validate(path)
    with pytest.raises(UserError, match="there is no file"):
        validate_vta.validate(tmp_path / "none.csv")
    assert cosim("validate", "vta-pynq", "--rows", tmp_path / "none.csv") == 2
    rows = write(tmp_path, HEADER, GOOD)
    assert cosim("validate", "vta-pynq", "--rows", rows, "--config", "2x2") == 2


def test_config_names_the_array_of_every_row(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + ",batch", GOOD + ",4")
    times = [validate_vta.validate(path, config).predictions[0] for config in (None, "4x8")]
    assert [item.row.array.name for item in times] == ["1x16", "4x8"]
    assert times[0].predicted_ms != times[1].predicted_ms


def test_json_and_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, HEADER + ",time_ms", GOOD + ",0.5", GOOD + ",")
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    assert cosim("validate", "vta-pynq", "--rows", path, "--json", out, "--plot", plot) == 0
    found = json.loads(out.read_text())
    assert found["rows"] == 2 and found["refused"] == []
    first, second = found["predictions"]
    assert first["error"] == pytest.approx(first["predicted_ms"] / 0.5 - 1)
    assert second["error"] is None and second["predicted_ms"] == first["predicted_ms"]
    assert found["median_abs_error"] == found["max_abs_error"] == pytest.approx(
        abs(first["error"]))
    assert sum(item["rows"] for item in found["by_regime"].values()) == 1
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "Largest errors" in capsys.readouterr().out


def test_absent_tables_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(truth, "SHARED", tmp_path)
    report = validate_vta.validate()
    assert validate_vta.BYTES_TABLE in report.absent and len(report.timed) == 10
    vta_report.show(report)
    assert f"table {validate_vta.BYTES_TABLE} is absent" in capsys.readouterr().out


@pytest.mark.parametrize("tile", ["1,1,1,1,1,1", "1,14,1,1,1,2", "14,1,1,2,2,1", "2,2,1,4,1,1"])
def test_poor_schedules_are_slower_than_the_best(tmp_path: Path, tile: str) -> None:
    path = write(tmp_path, HEADER, GOOD, "64,14,14,64,3,1," + tile)
    best, poor = validate_vta.validate(path).predictions
    assert poor.predicted_ms > best.predicted_ms
    assert poor.predicted_ms < 1000 * best.predicted_ms
    peak = poor.row.layer.macs / poor.row.array.macs_per_cycle / poor.row.array.clock_hz * 1e3
    assert best.predicted_ms > peak


def test_coefficients_are_few_and_within_their_ranges() -> None:
    model = load_vta()
    assert len(model.fitted) <= 9
    for item in model.fitted:
        assert item.low <= item.value <= item.high and item.samples > 0
    assert model.cross_validated_error_percent <= 2.0
    names = {item.name for item in model.fitted}
    assert all({item.first, item.second} <= names and 0.5 <= abs(item.value) <= 1
               for item in model.correlations)


def test_the_time_of_a_row_is_divided_whole_among_causes() -> None:
    report = validate_vta.validate(truth.CARRIED / "vta_pynq_board_ms_2019.csv")
    for item in report.timed:
        assert tuple(item.causes) == validate_vta.CAUSES
        assert sum(item.causes.values()) == pytest.approx(1)
        assert min(item.causes.values()) >= 0
    shown = vta_report.wait_rows(report)
    assert sum(int(row[1]) for row in shown) == 10
    # 512 channels in and out on 7 x 7 pixels: weights stream past an array that waits for them.
    assert report.timed[1].largest_wait == "load wait"


def test_golden_times() -> None:
    """Predictions of the carried rows; see tests/golden/vta.md for when and why they move."""
    path = Path(__file__).parent.parent / "golden" / "vta_2019_predictions.csv"
    with path.open() as file:
        golden = [float(row["predicted_ms"]) for row in csv.DictReader(file)]
    report = validate_vta.validate(truth.CARRIED / "vta_pynq_board_ms_2019.csv")
    assert [item.predicted_ms for item in report.predictions] == pytest.approx(golden, abs=1e-9)


@pytest.mark.long
def test_the_page_names_every_check_and_its_sources(tmp_path: Path) -> None:
    page = tmp_path / "validation.md"
    assert cosim("validate", "page", "--out", page) == 0
    text = page.read_text()
    for part in ("## Blind, by others", "## VTA on PYNQ", "## VTA 2018", "## FPGA 2015",
                 "## The DDR3 memory", "arXiv 1807.04188", "`cache_bytes`"):
        assert part in text
    assert (tmp_path / "pictures" / "validation_vta.png").is_file()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A clone that lies where there are no shared tables."""
    monkeypatch.setattr(truth, "SHARED", tmp_path / "shared")


@pytest.mark.usefixtures("alone")
def test_a_clone_alone_says_how_many_rows_it_checked(capsys: pytest.CaptureFixture) -> None:
    assert cosim("validate", "vta-pynq") == 0
    said = capsys.readouterr().out
    assert re.search(r"checked 1\d of the 48 public timed rows", said), said[:500]


@pytest.mark.usefixtures("alone")
def test_a_page_is_not_overwritten_with_one_of_fewer_rows(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    page = tmp_path / "validation.md"
    page.write_text("old")
    assert cosim("validate", "page", "--out", page) == 2
    assert "--fewer" in capsys.readouterr().err and page.read_text() == "old"


def test_blind_figures_stand_apart_from_public_ones() -> None:
    """On the page and in the README, in a part of their own, from the carried table."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "validation.md").read_text(encoding="utf-8")
    blind, public = page.index("## Blind, by others"), page.index("## VTA on PYNQ")
    with validate_page.BLIND.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert all(blind < page.index(row["found"]) < public for row in rows)
    readme = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    assert "Blind, tested by others" in readme

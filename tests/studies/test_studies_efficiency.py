"""Are the recorded GPU figures whole, possible, and kept apart from predictions?"""

from __future__ import annotations

import json

import pytest

from studies.headline.efficiency import RECORDED, Row, recorded_rows, table

#: Board power of the recorded GPU in watts: more than idle, at most its limit (nvidia-smi).
IDLE_W, LIMIT_W = 50, 700


def test_recorded_rows_say_where_they_come_from():
    made_by = json.loads(RECORDED.read_text())["provenance"]
    assert {"device", "driver", "software", "date", "commit", "command"} <= set(made_by)
    assert all(row.kind == f"measured {made_by['date']}" for row in recorded_rows(64))


def test_recorded_energy_is_a_power_the_board_can_draw():
    rows = [row for row in recorded_rows(64) if row.uj_per_pixel is not None]
    assert {row.form for row in rows} == {f"{form}, batch {batch}" for form in ("fp16", "fp32")
                                          for batch in (1, 8)}
    for row in rows:
        watts = row.uj_per_pixel * 1e-6 * 256 * 256 / row.seconds_per_frame
        assert IDLE_W < watts <= LIMIT_W, row


def test_another_width_has_no_recorded_rows():
    assert recorded_rows(16) == []


def test_ratios_are_to_the_first_prediction_and_unknown_energy_has_none():
    rows = [Row("gpu", "measured", "fp16", 1e-3, 6.0, "board"),
            Row("cpu", "measured", "fp32", 1e-1, None, "unavailable"),
            Row("board", "predicted", "int8", 1.0, 4.0, "all"),
            Row("board", "predicted", "int8", 1.0, 1.0, "fabric")]
    lines = table(rows).splitlines()[2:]
    assert [line.split("|")[-2].strip() for line in lines] == ["1.50", "", "1.00", "0.25"]
    assert "not readable" in lines[1]


def test_a_damaged_record_is_not_read(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("{")
    with pytest.raises(ValueError):
        recorded_rows(64, path)

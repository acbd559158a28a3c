"""Do names reach the fields they mean, and does a changed field do what it says?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError
from arch_models.overlay import default_overlay
from studies.evaluation.evaluate import evaluate, feasible
from studies.plain.errors import UserError
from studies.report.what_if_pictures import short_value
from studies.report.what_if_pictures import sweep as draw_sweep
from studies.report.what_if_pictures import tornado as draw_tornado
from studies.why.field_names import names, resolve
from studies.why.what_if import (
    ARM,
    changed,
    nearest_miss,
    parse_setting,
    sweep,
    tornado,
    with_arm,
)
from workloads.library import load

GRAPH, BOARD, OVERLAY = load("agc-w16"), load_board("pynq-z1"), default_overlay()


@pytest.mark.parametrize(("name", "text", "same", "value"), [
    ("engine.conv.tm", "24", "tm", "24"),
    ("engine.convolution.columns", "2", "columns", "2"),
    ("buffer.weight.words", "64", "weight_words", "64"),
    ("clock_mhz", "150", "clock_hz", "150000000"),
    ("design.tn", "16", "tn", "16"),
    ("master.input.outstanding", "3", "masters.0.outstanding", "3"),
    ("board.ddr.bits", "32", "board.ddr.data_bus_bits", "32"),
    ("board.ddr.clock_mhz", "400", "board.ddr.clock_hz", "400000000"),
    ("engines", "convolution+lookup", "engines", "lookup+convolution"),
])
def test_short_names_mean_the_field_itself(name, text, same, value):
    one = changed(OVERLAY, BOARD, name, text)
    assert one == changed(OVERLAY, BOARD, same, value)
    assert one != (OVERLAY, BOARD)


def test_every_name_leads_to_a_field_that_can_be_set_to_what_it_is():
    known = names(OVERLAY, BOARD)
    assert {"tm", "board.ddr.t_rcd", "control.driver", "board.ports.HP0.fifo_bytes"} <= set(known)
    for name, field in known.items():
        assert resolve(name, OVERLAY, BOARD) == field
        assert known[field.path].path == field.path


@pytest.mark.parametrize(("name", "hint"), [
    ("engine.cnov.tm", "'engine.conv.tm'"), ("tmm", "'tm'"), ("board.ddr.bitz", "'board.ddr.bits'"),
    ("board.coefficients", "unknown"), ("zzz", "begin with"), ("masters.inptu.port", "input.port")])
def test_a_wrong_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(FieldError, match=hint):
        sweep(GRAPH, OVERLAY, BOARD, [parse_setting(f"{name}=1")])


def test_a_field_set_twice_is_refused():
    with pytest.raises(UserError, match="'tm' is set twice"):
        sweep(GRAPH, OVERLAY, BOARD, [parse_setting("tm=8"), parse_setting("engine.conv.tm=16")])


def test_rows_are_the_evaluations_of_the_changed_design_and_name_where_the_path_is():
    rows = sweep(GRAPH, OVERLAY, BOARD, [parse_setting("tm=8,64"),
                                         parse_setting("board.ddr.t_rcd=7,-1")], "ddr3")
    assert [row.evaluation is None for row in rows] == [False, True, True, True]
    assert rows[0].evaluation == feasible(
        evaluate(GRAPH, replace(OVERLAY, tm=8), BOARD, "ddr3", frames=1))
    assert rows[0].path_shares is not None
    assert sum(rows[0].path_shares.values()) == pytest.approx(1, abs=1e-12)
    assert rows[0].bottleneck == max(rows[0].path_shares, key=rows[0].path_shares.__getitem__)
    assert "t_rcd is -1, must not be negative" in rows[1].reason and "dsp" in rows[2].reason
    draw_sweep(rows, "grid")
    draw_sweep(rows[:1], "bars")


def test_the_nearest_miss_is_the_one_that_lacks_the_least():
    rows = sweep(GRAPH, OVERLAY, BOARD, [parse_setting("tm=20,64,24,32")])
    assert not any(row.evaluation for row in rows)
    assert nearest_miss(rows).values == {"tm": "24"} and nearest_miss(rows[:1]) is rows[0]
    assert nearest_miss(sweep(GRAPH, OVERLAY, BOARD, [parse_setting("tm=16")])) is None


def test_the_tornado_is_sorted_and_each_side_is_the_evaluation_of_that_value():
    base, rows = feasible(tornado(GRAPH, OVERLAY, BOARD))
    reach = [row.reach(base) for row in rows]
    assert reach == sorted(reach, reverse=True) and reach[0] > 0
    by_path = {row.path: row for row in rows}
    slower = by_path["tm"].down
    assert slower.evaluation == feasible(
        evaluate(GRAPH, replace(OVERLAY, tm=8), BOARD, frames=1))
    assert by_path["tn"].down.reason == "no further legal value"
    assert "dsp" in by_path["columns"].up.reason
    arm = by_path[ARM].up.evaluation
    assert arm is not None and arm.latency_ms > base.latency_ms
    assert arm == feasible(evaluate(GRAPH, OVERLAY, with_arm(BOARD, 1.25), frames=1))
    draw_tornado(base, rows)


def test_hertz_are_short():
    assert [short_value(text) for text in ("656250000", "8192", "HP0")] == [
        "656.2M", "8192", "HP0"]

"""Can every change that a study names be asked for, and does it change nothing else?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from arch_models.board import load_board
from arch_models.clock import clocked
from arch_models.fields import FieldError
from arch_models.overlay import Engine, Fusion, default_overlay
from studies.search.space import default_space
from studies.search.space_overlays import moved, values_of
from studies.why.explain import moves
from studies.why.what_if import changed

BOARD, OVERLAY = load_board("pynq-z1"), default_overlay()


def test_a_move_changes_one_axis_and_nothing_else():
    space = default_space(BOARD)
    odd = replace(OVERLAY, clock_hz=142_857_142, engines=OVERLAY.engines - {Engine.SOFTMAX})
    for overlay in (OVERLAY, odd, replace(OVERLAY, tm=56)):
        now = values_of(overlay)
        for axis, value in moves(space, now):
            found = values_of(moved(overlay, BOARD, axis, value))
            assert found[axis] == value
            gone = {name for name in found if found[name] != now.get(name, found[name])} - {axis}
            assert not gone or axis in ("port_width_bits", "fetch"), (axis, value, gone)


def test_whatever_explain_may_propose_can_be_asked_for():
    for axis, value in moves(default_space(BOARD), values_of(OVERLAY)):
        design, board = changed(OVERLAY, BOARD, axis, str(value))
        assert board is BOARD
        assert clocked(design, BOARD) == clocked(moved(OVERLAY, BOARD, axis, value), BOARD)


@pytest.mark.parametrize(("name", "text", "there"), [
    ("engine.softmax", "host", False), ("engine.softmax", "fabric", True),
    ("fabric_softmax", "false", False), ("engines", "convolution+pool", False),
    ("engines", "convolution", False), ("engines", "convolution+softmax", True)])
def test_an_engine_can_be_put_on_the_host(name, text, there):
    design, _ = changed(OVERLAY, BOARD, name, text)
    assert (Engine.SOFTMAX in design.engines) is there
    assert Engine.CONVOLUTION in design.engines


def test_fusions_can_be_set():
    assert changed(OVERLAY, BOARD, "fusions", "none")[0].fusions == frozenset()
    assert changed(OVERLAY, BOARD, "fusions", "add")[0].fusions == {Fusion.ADD}
    assert changed(OVERLAY, BOARD, "fusion.pool", "off")[0].fusions == {Fusion.ADD, Fusion.UPSAMPLE}


@pytest.mark.parametrize("text", ["150M", "150 MHz", "0.15G", "150e6", "150000000",
                                  "150000 kHz"])
def test_a_clock_is_written_in_one_way(text):
    assert changed(OVERLAY, BOARD, "clock", text)[0].clock_hz == 150_000_000
    faster = changed(OVERLAY, BOARD, "board.ddr.clock", text.replace("15", "40"))[1]
    assert faster.ddr.clock_hz == 400_000_000


@pytest.mark.parametrize("name", ["clock", "clock_hz", "board.ddr.clock_hz"])
def test_a_clock_without_a_unit_is_refused_with_the_nearest(name):
    with pytest.raises(FieldError, match="100 Hz, slower than any clock; nearest 100M"):
        changed(OVERLAY, BOARD, name, "100")

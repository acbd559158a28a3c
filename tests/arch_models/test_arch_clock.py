"""Does the clock model keep to its grid, its board's generator and its intervals?

Netlists are looked at in `tests/studies/test_studies_timing_paths.py`; nothing here needs Yosys.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import exp, log
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from arch_models.board import board_names, load_board
from arch_models.clock import (
    ClockBasis,
    basis,
    clocked,
    memory_grid,
    predict,
    rate_hz,
    rates_of_rows,
    rows_of,
)
from arch_models.fields import FieldError
from arch_models.nets import Way, read_clock_data, read_grid
from arch_models.overlay import (
    NOMINAL_CLOCK_HZ,
    Engine,
    Overlay,
    Rate,
    default_overlay,
    load_overlay,
    overlay_toml,
)
from arch_models.resources import check, estimate
from studies.validate.clock import left_out, public_rows

BOARD, BASE = load_board("pynq-z1"), default_overlay()


def test_rates_are_the_generator_over_two_dividers_of_six_bits() -> None:
    rates = BOARD.clocks.rates_hz
    assert {100_000_000, 111_111_111, 125_000_000, 142_857_142, 166_666_666,
            200_000_000, 250_000_000} <= set(rates)
    assert not {150_000_000, 187_500_000} & set(rates)
    assert rates == tuple(sorted(set(rates)))
    for rate in rates:
        assert any(abs(1e9 / (first * second) - rate) < 1
                   for first in range(1, 64) for second in range(1, 64))


@pytest.mark.parametrize("name", board_names())
def test_every_board_makes_the_nominal_clock_and_bounds_hold(name: str) -> None:
    clocks = load_board(name).clocks
    assert clocks.makes(NOMINAL_CLOCK_HZ)
    assert clocks.minimum_hz <= clocks.rates_hz[0] <= clocks.rates_hz[-1] <= clocks.maximum_hz
    for slow, fast in pairwise(clocks.rates_hz):
        assert clocks.fastest_hz(fast - 1) == slow and clocks.fastest_hz(fast) == fast
        assert clocks.nearest_hz((slow + fast) // 2) == (slow, fast)
    assert clocks.fastest_hz(1) == clocks.rates_hz[0]


@pytest.mark.parametrize(("wanted", "near"), [
    (150_000_000, "142857142 and 166666666"), (187_000_000, "166666666 and 200000000"),
    (400_000_000, "250000000"), (1_000_000, "10000000")])
def test_a_rate_that_the_board_cannot_make_is_refused_with_the_nearest(wanted: int,
                                                                       near: str) -> None:
    asked = replace(BASE, clock_hz=wanted)
    with pytest.raises(FieldError, match=f"{wanted}, which pynq-z1 cannot make; nearest {near}"):
        clocked(asked, BOARD)
    found = check(asked, BOARD)
    assert found is not None and found.field == "clock_hz" and str(int(found.bound)) in near


def test_a_design_file_without_a_rate_takes_the_predicted_one(tmp_path: Path) -> None:
    text = overlay_toml(BASE)
    assert "clock_hz = 100000000" in text and 'rate = "fixed"' in text
    free = tmp_path / "free.toml"
    free.write_text("\n".join(line for line in text.split("\n")
                              if not line.startswith(("clock", "rate"))))
    fixed = tmp_path / "fixed.toml"
    fixed.write_text(text.replace('rate = "fixed"\n', ""))
    assert load_overlay(fixed) == BASE
    overlay = load_overlay(free)
    assert overlay.rate is Rate.PREDICTED
    at = clocked(overlay, BOARD)
    assert at.clock_hz == rate_hz(BASE, BOARD) <= predict(BASE, BOARD).mhz * 1e6
    assert clocked(at, BOARD) == at
    assert basis(at, BOARD) is ClockBasis.PREDICTED
    # A rounded rate is the same rate.
    assert basis(replace(at, clock_hz=at.clock_hz // 1000 * 1000), BOARD) is ClockBasis.PREDICTED
    slower = next(rate for rate in BOARD.clocks.rates_hz if rate < at.clock_hz - 1000)
    assert basis(replace(at, clock_hz=slower), BOARD) is ClockBasis.ASSUMED


def test_the_prediction_is_its_pieces_and_knows_no_clock() -> None:
    found = predict(BASE, BOARD)
    assert found == predict(replace(BASE, clock_hz=200_000_000, rate=Rate.PREDICTED), BOARD)
    model = read_clock_data().net
    assert found.period_ns == pytest.approx(
        sum(item.ns(model, found.share) for item in found.pieces) + model.uncertainty_ns)
    assert found.logic_ns + found.nets_ns + model.uncertainty_ns == pytest.approx(found.period_ns)
    assert found.parts[0][1] == pytest.approx(found.period_ns)
    assert found.low_mhz < found.mhz < found.high_mhz
    assert all(item.start in found.path and item.end in found.path for item in found.pieces)


def test_a_faster_fabric_reaches_more_in_proportion() -> None:
    fast = replace(BOARD, part=replace(BOARD.part, fabric_delay=0.5))
    assert predict(BASE, fast).mhz == pytest.approx(2 * predict(BASE, BOARD).mhz)


@pytest.mark.parametrize("volts", [1.0, 0.95])
def test_a_rate_follows_from_rows_and_luts_alone(volts: float) -> None:
    board = replace(BOARD, power=replace(BOARD.power, vccint_v=volts))
    grid = memory_grid()
    for tm in (8, 16, 32):
        overlays = [replace(BASE, tm=tm, input_words=words, weight_words=weights)
                    for words in (512, 2048, 4096, 16384) for weights in (128, 2048)]
        every = [rows_of(overlay) for overlay in overlays]
        memories = np.array([[grid[row] for row in rows.memories] for rows in every]).T
        luts = np.array([estimate(overlay).total.lut for overlay in overlays])
        assert rates_of_rows(every[0], memories, luts, board).tolist() == [
            rate_hz(overlay, board) for overlay in overlays]


@pytest.mark.parametrize("overlay", [
    BASE, *(load_overlay(name) for name in ("diffusion", "face", "mobile")),
    replace(BASE, tm=8, tn=8, engines=frozenset(Engine))],
    ids=["default", "diffusion", "face", "mobile", "8 x 8 with every engine"])
def test_the_designs_of_ours_run_at_200_mhz(overlay: Overlay) -> None:
    assert rate_hz(overlay, BOARD) == 200_000_000


def test_an_engine_or_a_fuller_fabric_never_makes_a_design_faster() -> None:
    few = replace(BASE, engines=frozenset({Engine.CONVOLUTION}))
    more = replace(few, engines=few.engines | {Engine.SOFTMAX})
    assert predict(more, BOARD).mhz <= predict(few, BOARD).mhz
    small = replace(BOARD, part=replace(BOARD.part, lut=BOARD.part.lut // 2))
    assert predict(BASE, small).mhz < predict(BASE, BOARD).mhz


def test_the_grid_has_every_part_and_its_ways() -> None:
    found = {row.part for row in read_grid()}
    assert {engine.value for engine in Engine} <= found
    assert {"read_master", "write_master", "control", "places", "buffer"} <= found
    for row in read_grid():
        assert row.paths and len({item.way for item in row.paths}) == len(row.paths)
        for item in row.paths:
            assert item.logic_ns >= 0 and item.hops >= 0 and item.doublings >= 0
        if row.part in {engine.value for engine in Engine}:
            assert row.path(Way.INSIDE) and row.path(Way.READ_ADDRESS) and row.path(Way.WRITE)


def test_the_interval_is_that_of_the_public_designs() -> None:
    rows, errors = public_rows(), read_clock_data().errors
    logs = [log(row.theirs_mhz / row.ours_mhz) for row in rows]
    assert [row.ratio for row in rows] == pytest.approx([exp(item) for item in logs], rel=0.01)
    assert errors.public_mean == pytest.approx(mean(logs), abs=0.002)
    assert errors.public_spread == pytest.approx(stdev(logs), abs=0.002)
    assert sum(left_out(rows)) >= round(0.8 * len(rows))

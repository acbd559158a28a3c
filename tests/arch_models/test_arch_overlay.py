"""Is an overlay its design file, and are wrong and infeasible designs told apart?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arch_models.board import load_board
from arch_models.fields import FieldError, with_value
from arch_models.overlay import (
    DESIGNS,
    Fetch,
    Infeasible,
    Overlay,
    Pipeline,
    Role,
    default_overlay,
    load_overlay,
    save_overlay,
)
from arch_models.overlay import Engine as E
from arch_models.resources import block_design, bram36, check, estimate, needed

BOARD = load_board("pynq-z1")
BASE = default_overlay()


@pytest.mark.parametrize("overlay", (
    BASE, load_overlay("fpga2015"),
    replace(BASE, pipelines=(Pipeline(E.POOL, 3),), engines=frozenset({E.CONVOLUTION}))),
    ids=("default", "fpga2015", "odd"))
def test_a_design_file_reads_back_equal(tmp_path: Path, overlay: Overlay) -> None:
    path = tmp_path / "design.toml"
    save_overlay(overlay, path)
    assert load_overlay(path) == overlay


def test_the_default_fits_the_board() -> None:
    assert check(BASE, BOARD) is None
    total = estimate(BASE).total
    assert 0 < total.dsp <= 220 and 0 < total.bram36 <= 140


@pytest.mark.parametrize(("old", "new", "message"), [
    ("tm = 16", "tmm = 16", "unknown field 'tmm'; did you mean 'tm'"),
    ("tm = 16", "tm = 12", "tm is 12, must be a multiple of channel_block 8; nearest"),
    ("tm = 16", 'tm = "16"', "tm: '16' must be a number"),
    ("columns = 1", "columns = 5", "columns is 5, must be one of"),
    ("input_banks = 2", "input_banks = 3", "nearest 2"),
    ('"lookup"', '"lookups"', "did you mean 'lookup'"),
    ('role = "weight"', 'role = "wight"', "did you mean 'weight'"),
    ('role = "weight"', 'role = "input"', "none has role 'weight'"),
    ('fetch = "on_chip"', 'fetch = "dram"', "no master has role 'fetch'"),
    ("width_bits = 64", "width_bits = 48", "width_bits is 48, must be one of"),
    ('name = "weight"', 'name = "input"', "must differ"),
])
def test_a_wrong_design_is_refused_by_name(tmp_path: Path, old: str, new: str,
                                           message: str) -> None:
    text = (DESIGNS / "default.toml").read_text()
    assert old in text
    path = tmp_path / "design.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FieldError, match=message):
        load_overlay(path)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(FieldError, match=r"no file 'nowhere\.toml'"):
        load_overlay("nowhere.toml")


@pytest.mark.parametrize(("overlay", "field", "lever"), [
    (replace(BASE, tm=32, tn=16), "dsp", "dsp_packing"),
    (replace(BASE, input_words=65536), "bram36", "input_words"),
    (replace(BASE, clock_hz=400_000_000), "clock_hz", "clock_hz"),
    (with_value(BASE, "masters.input.width_bits", 128), "width_bits", "masters.input.width_bits"),
    (with_value(with_value(BASE, "masters.input.port", "HP1"), "masters.input.width_bits", 32),
     "width_bits", "masters.weight.port"),
    (with_value(BASE, "masters.output.max_burst_beats", 32), "max_burst_beats",
     "masters.output.max_burst_beats"),
])
def test_what_does_not_fit_names_demand_bound_and_lever(overlay: Overlay, field: str,
                                                        lever: str) -> None:
    found = check(overlay, BOARD)
    assert isinstance(found, Infeasible)
    assert found.field == field and lever in found.levers
    assert found.gap == abs(found.demand - found.bound) > 0
    assert str(found.levers[0]) in str(found)


def test_a_port_that_the_board_lacks_is_refused() -> None:
    with pytest.raises(FieldError, match="no port 'HP9'; did you mean 'HP"):
        check(with_value(BASE, "masters.input.port", "HP9"), BOARD)


@pytest.mark.parametrize(("width", "depth", "count"), [
    (36, 1024, 1.0), (72, 512, 1.0), (36, 512, 0.5), (18, 1024, 0.5), (64, 4096, 8.0),
    (1, 32768, 1.0), (1024, 1024, 28.5), (64, 512, 1.0), (9, 2048, 0.5), (37, 1024, 1.5),
])
def test_block_ram_of_known_shapes(width: int, depth: int, count: float) -> None:
    assert bram36(width, depth) == count


def test_parts_add_up_and_fetch_costs() -> None:
    found = estimate(BASE)
    assert sum(part.lut for _, part in found.parts) == found.total.lut
    fetching = replace(BASE, fetch=Fetch.DRAM, masters=(
        *BASE.masters, replace(BASE.masters[1], name="fetch", role=Role.FETCH)))
    assert estimate(fetching).total.lut > found.total.lut


def test_packing_halves_the_slices_of_the_array() -> None:
    packed = replace(BASE, dsp_packing=True)
    assert (estimate(BASE).part("convolution").dsp - estimate(packed).part("convolution").dsp
            == BASE.macs_per_cycle // 2)


def test_the_block_design_counts_against_the_part_and_not_as_the_accelerators():
    around = needed(BASE).lut - estimate(BASE).total.lut
    assert around == block_design(BASE).lut > 0
    more = replace(BASE, masters=(*BASE.masters, replace(BASE.masters[0], name="input_2")))
    assert block_design(more).lut > block_design(BASE).lut
    part = replace(BOARD.part, lut=estimate(BASE).total.lut)
    found = check(BASE, replace(BOARD, part=part))
    assert isinstance(found, Infeasible) and found.field == "lut"


@pytest.mark.parametrize("name", ["dsp", "bram36"])
def test_headroom_keeps_a_share_of_every_kind_of_site_free(name):
    full = replace(BOARD, part=replace(BOARD.part, **{name: round(getattr(needed(BASE), name))}))
    assert check(BASE, full) is None
    found = check(replace(BASE, headroom=0.004), full)
    assert isinstance(found, Infeasible) and found.field == name and "headroom" in found.levers


@pytest.mark.parametrize("headroom", [-0.1, 0.95, float("nan")])
def test_headroom_is_a_share(headroom):
    with pytest.raises(FieldError, match="headroom is"):
        replace(BASE, headroom=headroom)

"""Does the shipped synthesis grid say what the fits and the memory formula say?"""

from __future__ import annotations

import pytest

from arch_models.engines import MODELS
from arch_models.engines.base import DATA
from arch_models.overlay import Engine
from arch_models.resources import memory
from hw.rtl.buffers import Buffer
from studies.fit_resources import (
    BUFFER_DEPTHS,
    CONVOLUTIONS,
    array_dsp,
    count_sites,
    fit,
    read_grid,
    sites_toml,
    synthesize,
)

ROWS = read_grid()


def test_memories_of_every_depth_are_exact():
    rows = [row for row in ROWS if row.engine == "buffer"]
    assert [row.depth for row in rows] == list(BUFFER_DEPTHS)
    for row in rows:
        found = memory(64, row.depth)
        assert (row.dsp, row.bram36, row.lut, row.ff) == (0, found.bram36, found.lut, found.ff)


def test_dsp_of_the_convolution_is_exact():
    rows = [row for row in ROWS if row.engine == "convolution"]
    assert [(row.tm, row.tn, row.columns, row.dsp_packing, row.requantize_cycles)
            for row in rows] == list(CONVOLUTIONS)
    model = next(item for item in MODELS if item.engine is Engine.CONVOLUTION)
    for row in rows:
        assert row.dsp == array_dsp(row) == model.resources(row.overlay).dsp


def test_packing_halves_the_dsp_of_the_products():
    found = {(row.tm, row.tn, row.columns, row.dsp_packing): row.dsp for row in ROWS
             if row.engine == "convolution" and row.requantize_cycles == 8}
    assert found[8, 8, 1, 0] - found[8, 8, 1, 1] == 8 * 8 // 2


@pytest.mark.parametrize("engine", ["convolution", "elementwise", "lookup", "pool", "upsample",
                                    "softmax", "grid_sample"])
@pytest.mark.parametrize("site", ["lut", "ff"])
def test_left_out_rows_are_predicted_within_ten_per_cent(engine, site):
    assert fit(ROWS, engine, site).cross_validated_error < 0.10


def test_the_shipped_coefficients_are_those_of_the_grid():
    assert (DATA / "engine_sites.toml").read_text() == sites_toml(ROWS)


def test_a_fit_needs_two_rows():
    few = [row for row in ROWS if row.engine == "convolution"][:1]
    with pytest.raises(ValueError, match="needs two at least"):
        fit(few, "convolution", "lut")


@pytest.mark.long
def test_synthesis_repeats_a_row():
    row = next(row for row in ROWS if (row.engine, row.depth) == ("buffer", 512))
    assert count_sites(row, synthesize(Buffer("buffer", 512, 1))) == row

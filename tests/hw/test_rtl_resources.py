"""Does the shipped synthesis grid say what the fits and the block RAM formula say?"""

from __future__ import annotations

import pytest

from arch_models.resources import bram36
from hw.rtl.buffers import Buffer
from studies.fit_resources import BUFFER_DEPTHS, count_sites, fit, read_grid, synthesize

ROWS = read_grid()


def test_block_ram_of_every_depth_is_exact():
    rows = [row for row in ROWS if row.engine == "buffer"]
    assert [row.depth for row in rows] == list(BUFFER_DEPTHS)
    for row in rows:
        assert row.bram36 == bram36(64, row.depth)
        assert (row.dsp, row.lut, row.ff) == (0, 0, 0)


def test_dsp_of_the_convolution_is_exact():
    """One a product, four a channel of tm (requantize 2, skip addition 2), four for addresses."""
    rows = [row for row in ROWS if row.engine == "convolution"]
    assert len(rows) >= 6
    for row in rows:
        assert row.dsp == row.tm * row.tn + 4 * row.tm + 4
    assert fit(ROWS, "convolution", "dsp").cross_validated_error == 0


@pytest.mark.parametrize("engine", ["convolution", "elementwise", "lookup", "pool", "upsample",
                                    "softmax", "grid_sample"])
@pytest.mark.parametrize("site", ["lut", "ff"])
def test_left_out_rows_are_predicted_within_ten_per_cent(engine, site):
    assert fit(ROWS, engine, site).cross_validated_error < 0.10


def test_a_fit_needs_more_rows_than_coefficients():
    few = [row for row in ROWS if row.engine == "convolution"][:3]
    with pytest.raises(ValueError, match="needs more than 3"):
        fit(few, "convolution", "dsp")


@pytest.mark.long
def test_synthesis_repeats_a_row():
    cells = synthesize(Buffer("buffer", 512, 1))
    assert count_sites("buffer", 8, 8, 512, cells) == next(
        row for row in ROWS if (row.engine, row.depth) == ("buffer", 512))

"""Does the study of quality measure every shipped network, and do its integer pictures hold up?"""

from __future__ import annotations

from studies.quality import AGC_FORMATS, UNICORN_FORMATS, agc_integers, agc_rows
from workloads.library import load, names
from workloads.training.clips import test_clips as held_out_clips
from workloads.training.metrics import measure


def test_every_shipped_integer_network_is_measured():
    measured = {name for formats in (*AGC_FORMATS.values(), *UNICORN_FORMATS.values())
                for name in formats}
    assert measured <= set(names())
    assert {"agc-w16", "agc-w32", "unicorn-n256-w8a16"} <= measured


def test_int8_beats_repeating_the_source_and_is_near_float():
    rows = {(row["network"], row["format"]): row["psnr_db"] for row in agc_rows(1, 1)}
    float_db = rows["agc-w16", "float"]
    int8_db = rows["agc-w16", "int8, power-of-two scales"]
    assert int8_db > rows["agc-w16", "repeat_source"]
    assert float_db - int8_db < 1.0


def test_a_decoded_frame_has_the_form_of_the_driving_one():
    pair = held_out_clips(1, 1, 16)[0]
    found = agc_integers(load("agc-w16"), pair)
    assert found.shape == pair.driving.shape and found.dtype == pair.driving.dtype
    assert measure(found, pair.driving)["ssim"] > 0.5

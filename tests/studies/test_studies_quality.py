"""Does the study of quality measure every shipped network, and do its integer pictures hold up?"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from studies.headline.quality import (
    AGC_FORMATS,
    MIXED,
    TABLE,
    UNICORN_FORMATS,
    difference,
    drawn_numbers,
)
from studies.plain.quality_table import FILE, quality_db
from tests.support.command import cosim
from workloads import library

FORMATS = {**AGC_FORMATS, **UNICORN_FORMATS}


def test_every_shipped_integer_network_is_measured():
    measured = {name for formats in FORMATS.values() for name in formats}
    shipped = {path.stem.replace("_", "-") for path in library.DATA.glob("*.json")}
    assert measured == shipped
    assert all(quality_db(name) > 20 for name in shipped)
    lines = list(csv.DictReader(FILE.open()))
    assert tuple(lines[0]) == TABLE
    assert all(0.5 < float(line["ssim"]) < float(line["ms_ssim"]) < 1 for line in lines)


def test_the_fine_tuned_network_is_what_unicorn_means():
    graph = library.load("unicorn")
    wide = {name for name, spec in graph.tensors.items() if spec.bits != 8}
    assert wide == {"latent", "latent_next", "coefficients", "step", "step_next"}
    made_by = library.provenance("unicorn")
    assert "train fine-tune n256" in made_by["command"]
    assert made_by["float_psnr_db"] - made_by["fine_tuned_psnr_db"] < 0.5


def test_one_picture_of_each_kind_near_float(tmp_path):
    path, table = tmp_path / "quality.json", tmp_path / "quality.csv"
    assert cosim("study", "quality", "--quick", "--json", path, "--table", table) == 0
    lines = list(csv.DictReader(table.open()))
    names = [*AGC_FORMATS["w16"], *UNICORN_FORMATS["n256"]]
    assert [line["workload"] for line in lines] == names
    assert all(0.5 < float(line["ssim"]) < float(line["ms_ssim"]) < 1 for line in lines)
    rows = {(row["network"], row["format"]): row for row in json.loads(path.read_text())}
    assert all({"psnr_db", "ssim", "perceptual_distance"} <= set(row) for row in rows.values())
    psnr_db = {key: row["psnr_db"] for key, row in rows.items()}
    int8 = psnr_db["agc-w16", "int8, power-of-two scales"]
    assert psnr_db["agc-w16", "float"] - int8 < 0.6
    assert int8 > psnr_db["agc-w16", MIXED] > psnr_db["agc-w16", "repeat_source"]
    assert psnr_db["unicorn-n256", "float"] - psnr_db["unicorn-n256", "int8, fine-tuned"] < 1.0
    rate = rows["unicorn-n256", "float"]["bits_per_pixel"]
    assert rows["unicorn-n256", "JPEG at the nearest rate"]["bits_per_pixel"] == pytest.approx(
        rate, rel=0.2)


def test_pictures_are_drawn_once_each_and_by_the_seed():
    first = drawn_numbers(12, 256, 1)
    assert first == sorted(set(first)) and len(first) == 12 and 0 <= first[0] <= first[-1] < 256
    assert first == drawn_numbers(12, 256, 1) != drawn_numbers(12, 256, 2)


def test_a_difference_is_four_times_the_distance_and_saturates():
    found, wanted = np.array([0, 9, 200], np.uint8), np.array([0, 11, 3], np.uint8)
    assert difference(found, wanted).tolist() == [0, 8, 252]


def test_no_pictures_are_refused(capsys):
    assert cosim("study", "quality", "--count", "0") == 2
    assert "--count" in capsys.readouterr().err

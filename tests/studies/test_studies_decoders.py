"""Are the decoders on the front those that nothing of their kind beats, and do stills keep to the
bits of the stream that they stand beside?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from studies.evaluation.evaluate import evaluate, feasible
from studies.headline.decoders import Point, front, run
from studies.headline.perceptual import ms_ssim
from studies.headline.rates import GROUP, POINT_BITS, group_rate, stills
from studies.plain.quality_table import measured_on, quality_db
from tests.support.command import cosim
from workloads.library import load
from workloads.training.metrics import psnr_db
from workloads.training.pictures.photos import load_photo
from workloads.training.unicorn.evaluate import compress


def point(network: str, quality: float, latency: float, energy: float) -> Point:
    return Point(network, "some", quality, latency, latency, energy)


def test_the_front_is_of_one_set_of_pictures_at_a_time() -> None:
    """Worse in one thing alone is not beaten; what is equal in all is not either."""
    points = [point("agc-a", 26, 10, 1), point("agc-b", 27, 20, 2), point("agc-c", 26, 20, 2),
              point("agc-d", 25, 30, 0.5), point("unicorn-n8", 21, 90, 8),
              point("unicorn-n9-a", 20, 100, 9)]
    assert [item.network for item in front(points)] == ["agc-a", "agc-b", "agc-d", "unicorn-n8",
                                                     "unicorn-n9-a"]
    assert measured_on(points[-1].network) == "unicorn-n9"


def test_each_decoder_stands_on_its_fastest_design(tmp_path: Path) -> None:
    picture, table = tmp_path / "front.png", tmp_path / "front.json"
    assert cosim("study", "decoders", "--networks", "agc-t32b4", "--picture", picture,
                 "--json", table) == 0
    [row] = json.loads(table.read_text())
    board, graph = load_board("pynq-z1"), load("agc-t32b4")
    latencies = {name: feasible(evaluate(graph, load_overlay(name), board, "ddr3")).latency_ms
                 for name in ("default", "face")}
    assert row["latency_ms"] == latencies["face"] < latencies["default"]
    assert row["design"] == "face" and row["psnr_db"] == quality_db("agc-t32b4")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_network_is_refused(capsys) -> None:
    assert cosim("study", "decoders", "--networks", "agc-w17") == 2
    assert "agc-w17" in capsys.readouterr().err
    assert run(load_board("pynq-z1"), ["agc-t32b4"])[0].network == "agc-t32b4"


@pytest.mark.parametrize("wanted", [0.12, 0.6, 2.0])
def test_stills_keep_to_a_rate_and_use_it(wanted: float) -> None:
    pictures = load_photo("chelsea")[None, :256, 100:356]
    found = {told.partition(",")[0]: (rate, made) for told, rate, made in stills(pictures, wanted)}
    assert set(found) == {"JPEG", "WEBP"}
    for rate, made in found.values():
        assert 0.7 * wanted < rate <= wanted and made.shape == pictures.shape
    fewer = {told.partition(",")[0]: made for told, _, made in stills(pictures, wanted / 3)}
    assert all(psnr_db(made, pictures) > psnr_db(fewer[kind], pictures)
               for kind, (_, made) in found.items())


def test_a_group_is_one_file_and_its_keypoints() -> None:
    source = load_photo("chelsea")[:256, 100:356]
    _, alone = compress(source, "WEBP", 90)
    assert group_rate(source, 90) == pytest.approx(alone / GROUP + POINT_BITS / 256**2)
    assert group_rate(source, 30) < group_rate(source, 90)


def test_one_frame_of_the_real_face(tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    assert cosim("study", "quality", "--real", "--quick", "--json", path) == 0
    rows = {row["format"].partition(",")[0]: row for row in json.loads(path.read_text())}
    assert set(rows) == {"agc-w16", "repeat the source", "JPEG", "WEBP"}
    limit = rows["agc-w16"]["bits_per_pixel"]
    assert all(row["bits_per_pixel"] <= limit and 0 < row["ms_ssim"] < 1 for row in rows.values())


def test_equal_pictures_are_alike_and_noise_is_less() -> None:
    photo = load_photo("chelsea")[:256, 100:356]
    noise = np.random.default_rng(0).integers(-20, 20, photo.shape)
    noisy = np.clip(photo + noise, 0, 255).astype(np.uint8)
    assert ms_ssim(photo, photo) == pytest.approx(1.0)
    assert 0.5 < ms_ssim(noisy, photo) < 0.99

"""Checks the seeded pictures, the metrics, the clips and that the shipped weights do their job.

It trains nothing and does not repeat the evaluation; one or two pictures stand for each network.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import cosim
from workloads.agc.config import TRAINED
from workloads.agc.torch import DATA, load_agc
from workloads.training.agc import evaluate
from workloads.training.agc.evaluate import decode
from workloads.training.losses import RandomWarp
from workloads.training.metrics import average, measure, perceptual_distance, psnr_db, ssim
from workloads.training.pictures import clips
from workloads.training.pictures.faces import render
from workloads.training.pictures.heads import MOTION_NAMES, draw_identities
from workloads.training.pictures.keypoints import KeypointDetector
from workloads.training.pictures.motion import draw_motion
from workloads.training.pictures.photos import FACES, NAMES, load_photo, moved_face, photo_tensor
from workloads.training.pictures.picture_set import picture_set
from workloads.training.unicorn.evaluate import decode as decode_numbers
from workloads.training.unicorn.evaluate import nearest_rate
from workloads.unicorn.config import UnicornConfig, bits_per_pixel, signal_and_noise
from workloads.unicorn.torch import build_unicorn, load_unicorn


def still(**changes: float) -> torch.Tensor:
    """Return one frame of motion values at rest but for the named ones."""
    rest = {"scale": 1.0, "light": 1.0} | changes
    return torch.tensor([[rest.get(name, 0.0) for name in MOTION_NAMES]])


def test_psnr_of_a_known_error() -> None:
    """An error of one tenth everywhere is 20 dB; equal pictures are 100 dB."""
    picture = np.full((8, 8, 3), 0.5)
    assert psnr_db(picture + 0.1, picture) == pytest.approx(20.0)
    assert psnr_db(picture, picture) == 100.0


def test_ssim_matches_the_formula_on_one_window() -> None:
    """On a single 7x7 window SSIM is the textbook expression."""
    generator = np.random.Generator(np.random.PCG64(1))
    first, second = generator.random((2, 7, 7, 1))
    shared = np.cov(first.ravel(), second.ravel())
    top = (2 * first.mean() * second.mean() + 1e-4) * (2 * shared[0, 1] + 9e-4)
    low = first.mean() ** 2 + second.mean() ** 2 + 1e-4
    expected = top / (low * (shared[0, 0] + shared[1, 1] + 9e-4))
    assert ssim(first, second) == pytest.approx(expected)


def test_perceptual_distance_orders_damage() -> None:
    """Blur is worse than nothing, more blur worse still, and a brightness shift harmless."""
    picture = load_photo("chelsea")[:256, :256].astype(float) / 255
    once = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1)) / 3
    much = sum(np.roll(once, step, 0) for step in range(6)) / 6
    assert perceptual_distance(picture, picture) == 0
    assert 0.005 < perceptual_distance(once, picture) < perceptual_distance(much, picture)
    assert perceptual_distance(0.9 * picture + 0.05, picture) < perceptual_distance(once, picture)
    with pytest.raises(ValueError, match="no picture"):
        average([])


def test_heads_are_seeded_and_move() -> None:
    """A seed gives the same head each time; another seed, a turn or a blink gives another frame."""
    person, again = (draw_identities([7], 64, 64) for _ in range(2))
    rest = render(person, still())
    assert rest.shape == (1, 3, 64, 64)
    assert rest.min() >= 0 and rest.max() <= 1
    assert torch.equal(rest, render(again, still()))
    assert (rest - render(draw_identities([8], 64, 64), still())).abs().mean() > 0.02
    turned = (rest - render(person, still(yaw=0.5))).abs().mean(1)[0]
    assert turned.mean() > 0.01
    assert turned[:4].max() < 1e-6, "the backdrop above the head stays"
    # A blink and an open mouth change the face only, and not the same part of it.
    blink = (rest - render(person, still(blink=1.0))).abs().sum((0, 1, 3)).argmax()
    mouth = (rest - render(person, still(mouth_open=1.0))).abs().sum((0, 1, 3)).argmax()
    assert blink + 6 < mouth


def test_motion_is_seeded_smooth_and_in_range() -> None:
    """Motion repeats with its seed, starts anew with another, and does not jump."""
    times = torch.linspace(0, 8, 201)[None]
    motion = draw_motion([3], times)
    assert torch.equal(motion, draw_motion([3], times))
    assert not torch.equal(motion, draw_motion([4], times))
    values = dict(zip(MOTION_NAMES, motion[0].T, strict=True))
    for name in ("yaw", "pitch", "roll", "move_x", "move_y"):
        assert values[name].abs().max() < 0.6
        assert values[name].diff().abs().max() < 0.1
    assert values["blink"].min() >= 0 and values["blink"].max() <= 1
    assert values["mouth_open"].min() >= 0 and values["mouth_open"].max() <= 1


def test_real_face_turns_inside_a_still_frame() -> None:
    """A turn moves the face and leaves the frame's corners alone."""
    photo, place = photo_tensor("hopper"), torch.tensor(FACES["hopper"])[None]
    rest = moved_face(photo, place, still(move_y=-0.08), 64, 64)
    turned = moved_face(photo, place, still(move_y=-0.08, yaw=0.4), 64, 64)
    change = (rest - turned).abs().mean(1)[0]
    assert change[24:40, 24:40].mean() > 0.02
    assert change[:6, :6].max() < 0.02
    assert {load_photo(name).shape[2] for name in NAMES} == {3}


def test_warped_frame_and_points_agree() -> None:
    """`RandomWarp.frame` shows at z what was at `points(z)`: the equivariance loss needs that."""
    torch.manual_seed(0)
    warp = RandomWarp(1, torch.device("cpu"))
    axis = torch.linspace(-1, 1, 65)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    picture = torch.stack([x, y, x * 0])[None]
    warped = warp.frame(picture)
    where = torch.tensor([[[axis[20], axis[40]], [axis[33], axis[28]]]])
    found = torch.stack([warped[0, :2, 40, 20], warped[0, :2, 28, 33]])
    torch.testing.assert_close(found, warp.points(where)[0], atol=1e-4, rtol=1e-3)


def test_keypoint_follows_a_spot() -> None:
    """The soft maximum of a heat map lies on its peak."""
    detector = KeypointDetector(2).eval()
    with torch.no_grad():
        for value in detector.parameters():
            value.zero_()
        # With all else zero, the heat is the frame's first colour seen through one tap.
        detector.heat.weight[:, -3, 3, 3] = 20.0
    frame = torch.zeros(1, 3, 128, 128)
    frame[:, 0, 60:69, 92:101] = 1.0
    points = detector(frame)
    expected = torch.tensor([24, 16]) / 15.5 - 1
    torch.testing.assert_close(points[0, 0], expected, atol=0.02, rtol=0)


def test_clip_pairs_are_seeded_and_apart() -> None:
    """Pairs repeat with their seed, carry half-precision points, and test heads are unseen."""
    one, again = (clips.test_clips(1, 5)[0] for _ in range(2))
    assert one.source.shape == one.driving.shape == (256, 256, 3)
    assert np.array_equal(one.driving, again.driving)
    assert np.array_equal(one.driving_points, again.driving_points)
    assert one.source_points.dtype == np.float16 and one.source_points.shape == (10, 2)
    assert np.abs(one.driving_points.astype(float)).max() <= 1
    trained = clips.calibration_clips(2, 5)
    assert all(int(pair.name.removeprefix("train")) < clips.TRAIN_IDENTITIES for pair in trained)
    assert int(one.name.removeprefix("test")) > clips.TRAIN_IDENTITIES


@pytest.mark.parametrize("network", TRAINED)
def test_trained_agc_beats_repeating_the_source(network: str) -> None:
    """On a held-out head the decoder is well above the source frame repeated."""
    _, decoder = load_agc(network)
    pair = clips.test_clips(1, 1, network)[0]
    found = measure(decode(decoder, pair), pair.driving)
    assert found["psnr_db"] > psnr_db(pair.source, pair.driving) + 3
    with pytest.raises(ValueError, match="choose from"):
        load_agc("t48b3")


def test_the_measure_reads_every_decoder_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all its defaults; what it measures is left out here."""
    shipped = {path.name.split("_")[1] for path in DATA.glob("agc_*_float.safetensors")}
    assert shipped == set(TRAINED)
    for name in ("test_clips", "real_clips"):
        monkeypatch.setattr(evaluate, name, lambda *given: [None] * given[0])
    monkeypatch.setattr(evaluate, "evaluate", lambda decoder, pairs: {"float": {"ssim": 1.0}})
    path = tmp_path / "measured.json"
    assert cosim("train", "measure-agc", "--json", path) == 0
    rows = json.loads(path.read_text())
    assert {row["network"] for row in rows} == {f"agc-{name}" for name in shipped}
    assert [row["count"] for row in rows] == [48, 12, 12] * len(shipped)


def test_trained_unicorn_rebuilds_its_pictures() -> None:
    """The number alone brings the picture back, and another number brings another."""
    config, decoder = load_unicorn("n256")
    pictures = picture_set(4)
    found = decode_numbers(decoder, [1, 3])
    for row, number in enumerate((1, 3)):
        assert psnr_db(found[row], pictures[number]) > 22
        assert psnr_db(found[row], pictures[4 - number]) < 18
    assert bits_per_pixel(config, decoder.parameter_count()) < 3
    with pytest.raises(ValueError, match="choose from"):
        load_unicorn("n7")


def test_sampler_returns_what_a_perfect_network_says() -> None:
    """With the exact velocity of a known latent, the sampler ends on that latent."""
    decoder = build_unicorn(UnicornConfig(images=2, width=8, head_channels=8))
    wanted = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    times = iter(decoder.config.times)

    def perfect(latent: torch.Tensor, _embedding: torch.Tensor) -> torch.Tensor:
        signal, noise = signal_and_noise(next(times))
        return (signal * latent - wanted) / noise

    decoder.unet.forward = perfect
    torch.testing.assert_close(decoder.sample(torch.tensor([0])), wanted, atol=1e-4, rtol=1e-4)


def test_rate_counts_weights_once_and_an_index_each() -> None:
    """Eight bits a weight and the seed are shared; ten bits of index come with each of 1024."""
    config = UnicornConfig(images=1024)
    expected = (8 * 1000 + 32 + 1024 * 10) / (1024 * 256 * 256)
    assert bits_per_pixel(config, 1000) == pytest.approx(expected)
    assert bits_per_pixel(UnicornConfig(images=256), 1000) > expected


def test_codec_baseline_comes_near_the_rate() -> None:
    """The quality chosen for WebP lands within a tenth of the wanted rate."""
    pictures = picture_set(1)
    assert nearest_rate(pictures, "WEBP", 1.0)["bits_per_pixel"] == pytest.approx(1.0, abs=0.1)


def test_weight_files_stay_small() -> None:
    """Every float weight file is under 12 MB."""
    files = list(DATA.glob("*_float*.safetensors"))
    assert len(files) >= 4
    assert max(file.stat().st_size for file in files) < 12_000_000

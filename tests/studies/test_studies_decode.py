"""Does `cosim decode` show what the references compute, whole files only, and refuse the rest?"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from studies.headline.decode import DecodedFrame, Request, check, run
from studies.headline.quality import agc_integers
from studies.plain.errors import UserError
from studies.report.video import encoded, frame_name, write
from tests.support.command import cosim
from workloads import library
from workloads.frames import AGC_TRAINED
from workloads.training.metrics import psnr_db
from workloads.training.pictures.clips import clip, test_clips


def test_a_clip_is_decoded_to_pictures_with_what_was_measured(tmp_path, capsys):
    folder, table = tmp_path / "frames", tmp_path / "psnr.json"
    assert cosim("decode", "agc-w16", "--out", folder, "--frames", 2, "--json", table) == 0
    assert "four times the difference" in " ".join(capsys.readouterr().out.split())
    assert sorted(item.name for item in folder.iterdir()) == [frame_name(0), frame_name(1)]
    rows = json.loads(table.read_text())["frames"]
    panel = np.asarray(Image.open(folder / frame_name(1)))
    assert panel.shape == (256, 4 * 256, 3)
    wanted, real, integer, apart = (panel[:, 256 * part: 256 * (part + 1)] for part in range(4))
    assert rows[1]["int8_psnr_db"] == pytest.approx(psnr_db(integer, wanted))
    assert rows[1]["float_psnr_db"] == pytest.approx(psnr_db(real, wanted))
    assert rows[1]["int8_against_float_psnr_db"] > 35
    assert np.array_equal(apart, 4 * np.abs(integer.astype(int) - real).clip(0, 63))
    # The source is decoded once a clip; that changes no bit of a frame.
    pair = clip("head", 0, [0.0, 0.04])[1]
    assert np.array_equal(integer, agc_integers(library.load("agc-w16"), pair))


def test_the_clip_is_of_the_held_out_head():
    first, held_out = clip("head", 3, [0.0])[0], test_clips(1, 0)[0]
    assert np.array_equal(first.source, first.driving)
    assert np.array_equal(clip("head", 0, [0.0])[0].source, held_out.source)


def test_a_picture_of_a_set_is_decoded():
    found = list(run(Request("unicorn", frames=1)))
    assert len(found) == 1 and found[0].row()["int8_psnr_db"] > 20


def test_every_trained_agc_network_can_be_decoded():
    shipped = {path.stem.replace("_", "-") for path in library.DATA.glob("agc_*.json")}
    assert shipped == set(AGC_TRAINED)
    assert all(check(Request(name)) == name for name in shipped)


def test_a_video_holds_the_pictures_in_order():
    av = pytest.importorskip("av", reason="the extra `video` is not installed")
    pictures = [np.full((32, 64, 3), value, np.uint8) for value in (20, 120, 220)]
    with av.open(io.BytesIO(encoded(pictures, 25, "mp4"))) as file:
        assert file.streams.video[0].average_rate == 25
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert [item.shape for item in shown] == [(32, 64, 3)] * 3
    assert np.allclose([item.mean() for item in shown], [20, 120, 220], atol=3)


def test_a_video_that_fails_leaves_the_older_one(tmp_path):
    pytest.importorskip("av", reason="the extra `video` is not installed")
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ValueError):
        write(path, [np.zeros((3, 3), np.uint8)], 25)
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("words", "said"), [
    (("agc-w64", "--out", "clip"), "'agc-w16'"),
    (("agc-w17", "--out", "clip"), "'agc-w16'"),
    (("agc-w16", "--out", "clip.gif"), "clip.mp4"),
    (("agc-w16", "--out", "clip", "--frames", "0"), "from 1 to 200"),
    (("unicorn", "--out", "clip", "--frames", "257"), "from 1 to 256"),
    (("agc-w16", "--out", "clip", "--clip", "cat"), "hopper"),
    (("unicorn", "--out", "clip", "--clip", "hopper"), "--clip is for AGC's clips"),
    (("unicorn", "--out", "clip", "--seed", "0"), "--seed is for AGC's clips"),
])
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys,
                                                              words, said):
    monkeypatch.chdir(tmp_path)
    assert cosim("decode", *words) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_frames_of_a_longer_clip_is_refused(tmp_path, capsys):
    (tmp_path / frame_name(9)).write_bytes(b"")
    assert cosim("decode", "agc-w16", "--out", tmp_path, "--frames", 2) == 2
    assert "frame_0009.png" in capsys.readouterr().err


def test_an_equal_picture_has_the_greatest_psnr():
    same = np.zeros((8, 8, 3), np.uint8)
    assert DecodedFrame(0, same, same, same).row()["int8_psnr_db"] == 100
    with pytest.raises(UserError):
        check(Request("agc-w16", frames=201))

"""Do the pieces of a training do what their names say, and can each job be run and read again?

Nothing here is trained to be good: whether a trained decoder is worth anything is measured in
docs/training.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.command import cosim
from tests.support.threads import one_thread
from workloads.agc.config import AgcConfig
from workloads.training.agc.train import Teacher, Trainer
from workloads.training.fitting import falling, shares, update
from workloads.training.losses import psnr
from workloads.training.metrics import psnr_db, rounding_losses
from workloads.training.pictures.batches import PairMaker, Replay
from workloads.training.pictures.clips import as_tensor, test_clips
from workloads.weights_torch import load_parts

TINY = AgcConfig(width=8, blocks=1, motion_width=8, motion_max=16, motion_blocks=3, keypoints=4,
                 rows=64, cols=64)


@pytest.fixture(scope="module", autouse=True)
def small_tensors() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def maker() -> PairMaker:
    return PairMaker(4, 64, 64, "cpu", real_share=0.25, photo_share=0.25)


class Numbered:
    """Stands in for a `PairMaker`: pair n is n steps of 1 / 255 bright, and darker when driven."""

    size, device = (2, 2), "cpu"

    def __init__(self) -> None:
        self.made = 0

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        first = torch.arange(self.made, self.made + count) + 1.0
        self.made += count
        frames = first[:, None, None, None].expand(-1, 3, 2, 2) / 255
        return frames, frames / 2


def test_pairs_are_eight_bit_frames_of_one_head_each(maker: PairMaker) -> None:
    """Both frames of a pair are nearer to one another than to those of other pairs."""
    torch.manual_seed(3)
    source, driving = maker.draw(8)
    assert source.shape == driving.shape == (8, 3, 64, 64)
    for frames in (source, driving):
        steps = frames * 255
        assert torch.equal(steps.round().clamp(0, 255) / 255, frames)
    apart = torch.cdist(source.flatten(1), driving.flatten(1))
    assert (apart.argmin(1) == torch.arange(8)).float().mean() >= 0.75
    assert (apart.diagonal() > 0).all()


def test_draws_follow_the_seed(maker: PairMaker) -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(maker.draw(4)[0])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_replay_renders_only_some_anew_and_forgets_the_oldest() -> None:
    pairs = Numbered()
    replay = Replay(pairs, fresh=2, most=40)  # type: ignore[arg-type]
    rendered, seen = [], []
    for _ in range(40):
        before = pairs.made
        source, driving = replay.draw(4)
        rendered.append(pairs.made - before)
        number = (source[:, 0, 0, 0] * 255).round()
        seen.append(number)
        # A pair stays a pair, to half a step of eight bits.
        assert ((driving[:, 0, 0, 0] * 255 - number / 2).abs() <= 0.5).all()
    assert rendered == [4] * 8 + [2] * 32
    # The last draw knows the newest 40 pairs and no older one.
    assert min(seen[-1]) > pairs.made - 40 and max(torch.cat(seen)) > 40


def test_a_teacher_follows_the_driving_frame_and_learns_nothing() -> None:
    pair = test_clips(1, 2, "t32b4")[0]
    source, driving = as_tensor(pair.source), as_tensor(pair.driving)
    frame = Teacher("t32b4", "cpu").frame(source, driving)
    assert not frame.requires_grad
    assert psnr(frame, driving).item() > psnr(source, driving).item() + 3
    # PSNR of tensors is that of arrays.
    assert psnr(source, driving).item() == pytest.approx(psnr_db(pair.source, pair.driving),
                                                         abs=1e-3)


def test_updates_lower_the_loss_of_a_batch_that_is_shown_again() -> None:
    torch.manual_seed(0)
    trainer = Trainer(TINY, "cpu", 2e-3)
    pair = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    losses = [trainer.step(*pair, 0.2) for _ in range(8)]
    assert set(losses[0]) == {"pyramid", "features", "structure", "equivariance"}
    assert losses[-1]["pyramid"] < 0.9 * losses[0]["pyramid"]


def test_the_rate_rises_and_falls_and_the_gradient_is_shortened() -> None:
    assert falling(0.0) == pytest.approx(0.02) and falling(0.02) > 0.99
    assert falling(0.5) == pytest.approx(0.5) and falling(1.0) == 0.003
    assert falling(1.0, 0.01) == 0.01
    value, slow = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [value]}, {"params": [slow], "factor": 0.5}], lr=1.0)
    update(optimizer, 30 * value[0] + 40 * slow[1], 0.1, [value, slow], most=5.0)
    assert torch.allclose(value.detach(), torch.tensor([-0.3, 0.0]), atol=1e-6)
    assert torch.allclose(slow.detach(), torch.tensor([0.0, -0.2]), atol=1e-6)


def test_shares_end_with_the_time() -> None:
    spent = list(shares(0.01))
    assert spent == sorted(spent) and spent[0] >= 0 and spent[-1] < 1
    assert list(shares(1.0, began=-1e9)) == [] == list(shares(0.0)) == list(shares(-1.0))


def test_rounding_losses_are_means() -> None:
    wanted = torch.full((4, 4), 0.5).numpy()
    found = rounding_losses([(wanted, wanted + 0.1, wanted + 0.2), (wanted, wanted + 0.1, wanted)])
    assert found == {"float_psnr_db": 20.0, "int8_psnr_db": round((-20 * math.log10(0.2) + 100) / 2,
                                                                  3),
                     "int8_against_float_psnr_db": 20.0}


def test_unicorn_is_trained_from_pictures_to_weights(tmp_path: Path,
                                                     capsys: pytest.CaptureFixture) -> None:
    """Both jobs for a second each: their files hold what the next one asks for."""
    code = tmp_path / "code.safetensors"
    assert cosim("train", "autoencoder", "--images", 2, "--seconds", 1, "--batch", 1,
                 "--out", code) == 0
    assert {name.partition(".")[0] for name in load_file(code)} == {"encoder", "picture"}
    assert cosim("train", "unicorn", "--images", 2, "--seconds", 1, "--batch", 1,
                 "--latent-batch", 1, "--autoencoder", code, "--out", tmp_path) == 0
    tensors = load_parts(tmp_path / "unicorn_n2_float.safetensors")
    assert tensors["decoder.unet.index_table.weight"].shape[0] == 2
    assert "psnr" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "said"), [
    (("agc", "w17", "--out", "out"), "'w16'"),
    (("agc", "w16", "--start", "w33", "--out", "out"), "'w32'"),
    (("agc", "w16", "--out", "out", "--resume", "none.safetensors"), "does not exist"),
    (("quantize-agc", "w16", "--scales", "power"), "'power-of-two'"),
    (("quantize-agc", "agc-w16"), "'w16'"),
    (("quantize-unicorn", "n256", "--activations", "9"), "8 or 16"),
    (("fine-tune", "n257", "--seconds", "9"), "'n256'"),
    (("fine-tune-agc", "t33b4", "--seconds", "9"), "'t32b4'"),
    (("measure-agc", "w16", "w61"), "'w16'"),
    (("measure-unicorn", "n2"), "n256"),
])
def test_a_name_that_is_none_is_refused_before_the_work(
        capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
        words: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    assert cosim("train", *words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_measured_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert cosim("train", "measure-unicorn", "n256", "--count", 1, "--json", path) == 0
    rows = json.loads(path.read_text())
    assert [row["answer"] for row in rows] == ["float", "jpeg", "webp"]
    assert all(row["psnr_db"] > 20 and row["count"] == 1 for row in rows)

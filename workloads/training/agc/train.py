"""Trains one AGC decoder with its keypoint detector on rendered heads, within a time budget.

It measures only its own loss; the figures that count come from `evaluate`. A small decoder starts
as a larger one with channels left out (`--start`, `prune`) and may also follow a larger one's
frames (`--teacher`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from workloads.agc.config import SIZES, TRAINED, AgcConfig
from workloads.agc.torch import AgcDecoder, load_agc
from workloads.training.agc.losses import (
    RandomFeatures,
    RandomWarp,
    feature_loss,
    pyramid_loss,
    structure_loss,
)
from workloads.training.agc.prune import pruned
from workloads.training.pictures.batches import TRAIN_IDENTITIES, PairMaker, Replay
from workloads.training.pictures.keypoints import KeypointDetector, coded, load_detector
from workloads.weights_torch import compact, fill, load_parts, save_parts

# Weights of the loss terms; equivariance is small because the pyramid is small too.
PYRAMID, FEATURES, STRUCTURE, EQUIVARIANCE, TEACHER = 10.0, 0.4, 0.5, 2.0, 3.0
#: Pairs that `--fresh` keeps: 1.6 GB of frames.
KEPT_PAIRS = 4096


class Teacher:
    """A trained decoder with its own detector, whose frames a smaller one follows."""

    def __init__(self, network: str, device: str) -> None:
        self.decoder = load_agc(network)[1].to(device)
        self.detector = load_detector(network).to(device)

    @torch.no_grad()
    def frame(self, source: Tensor, driving: Tensor) -> Tensor:
        """Its answer [N, 3, rows, cols] for a batch of pairs."""
        points = self.detector(torch.cat([source, driving])).float().chunk(2)
        return self.decoder(source, *points)


class Trainer:
    """Both networks, their optimizer and the loss of one batch.

    `start`: a trained decoder that is cut to `config`, with its detector; random weights without.
    """

    def __init__(self, config: AgcConfig, device: str, rate: float, start: str | None = None,
                 teacher: str | None = None) -> None:
        self.decoder = (pruned(load_agc(start)[1], config) if start
                        else AgcDecoder(config)).to(device)
        self.detector = (load_detector(start).train() if start
                         else KeypointDetector(config.keypoints)).to(device)
        self.teacher = Teacher(teacher, device) if teacher else None
        self.features = RandomFeatures().to(device)
        for module in (self.decoder, self.detector, self.features):
            for value in module.parameters():
                if value.ndim == 4:
                    value.data = value.data.contiguous(memory_format=torch.channels_last)
        self.device, self.rate = device, rate
        values = [*self.decoder.parameters(), *self.detector.parameters()]
        self.optimizer = torch.optim.AdamW(
            values, lr=rate, betas=(0.5, 0.99), weight_decay=1e-3, fused=device == "cuda"
        )
        self.values = values

    def modules(self) -> dict[str, nn.Module]:
        """Return what a weight file holds."""
        return {"decoder": self.decoder, "detector": self.detector}

    def loss(self, source: Tensor, driving: Tensor) -> dict[str, Tensor]:
        """Return the named loss terms of one batch, already weighted."""
        warp = RandomWarp(len(source), source.device)
        follow: dict[str, Tensor] = {}
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            every = self.detector(torch.cat([source, driving, warp.frame(driving)]))
            source_points, driving_points, warped_points = every.float().chunk(3)
            found = self.decoder(source, source_points, driving_points).float()
            features = feature_loss(self.features, found, driving).float()
            if self.teacher is not None:
                wanted = self.teacher.frame(source, driving).float()
                follow = {"teacher": TEACHER * pyramid_loss(found, wanted)}
        moved = (warp.points(warped_points) - driving_points).abs().mean()
        return {
            "pyramid": PYRAMID * pyramid_loss(found, driving),
            "features": FEATURES * features,
            "structure": STRUCTURE * structure_loss(found, driving),
            "equivariance": EQUIVARIANCE * moved,
            **follow,
        }

    def step(self, source: Tensor, driving: Tensor, share: float) -> dict[str, Tensor]:
        """Update once; `share` of the time budget is spent. The rate warms up, then falls."""
        warm = min(1.0, share / 0.02 + 0.02)
        fall = 0.5 * (1 + torch.cos(torch.tensor(3.14159 * share)).item())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * max(fall, 0.005)
        terms = self.loss(source, driving)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.values, 5.0, foreach=True)
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}


@torch.no_grad()
def check(trainer: Trainer, pairs: list[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return mean PSNR in dB over fixed pairs: of the decoder, and of repeating the source."""
    trainer.decoder.eval()
    trainer.detector.eval()
    ours: list[Tensor] = []
    repeat: list[Tensor] = []
    for source, driving in pairs:
        points = [coded(trainer.detector(frame)) for frame in (source, driving)]
        found = trainer.decoder(source, *points)
        for guess, into in ((found, ours), (source, repeat)):
            error = ((guess - driving) ** 2).mean(dim=(1, 2, 3))
            into.append((-10 * torch.log10(error)).mean())
    trainer.decoder.train()
    trainer.detector.train()
    return torch.stack(ours).mean().item(), torch.stack(repeat).mean().item()


def arguments() -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(SIZES), required=True)
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bank", type=int, default=TRAIN_IDENTITIES)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", choices=TRAINED, help="trained decoder that is cut")
    parser.add_argument("--teacher", choices=TRAINED, help="trained decoder to follow")
    parser.add_argument("--fresh", type=int, default=0,
                        help="pairs rendered a batch, the others are shown again (0: all)")
    parser.add_argument("--photos", type=float, default=0.0, help="share of warped photographs")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Train until the budget is spent and leave the weights in the output folder."""
    options = arguments()
    began, name = time.monotonic(), options.network
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    config = SIZES[name]
    trainer = Trainer(config, device, options.rate, options.start, options.teacher)
    if options.resume:
        tensors = load_parts(options.resume)
        for prefix, module in trainer.modules().items():
            fill(module, tensors, prefix)
    maker = PairMaker(options.bank, config.rows, config.cols, device, photo_share=options.photos)
    # Fixed pairs of training identities, to watch; they say nothing of unseen heads.
    watched = [maker.draw(8) for _ in range(3)]
    pairs = Replay(maker, options.fresh, KEPT_PAIRS) if options.fresh else maker
    path = options.out / f"agc_{name}_float.safetensors"
    print(f"{name} on {device}, bank ready {time.monotonic() - began:.0f} s", flush=True)
    steps, shown, saved = 0, 0.0, time.monotonic()
    while (share := (time.monotonic() - began) / options.seconds) < 1:
        terms = trainer.step(*pairs.draw(options.batch), share)
        steps += 1
        if share - shown > 0.04 or steps in (1, 20):
            shown = share
            ours, repeat = check(trainer, watched)
            text = " ".join(f"{term} {value.item():.3f}" for term, value in terms.items())
            print(f"{name} {share:5.0%} step {steps}: psnr {ours:.2f} "
                  f"(repeat {repeat:.2f}) {text}", flush=True)
        if time.monotonic() - saved > 150:
            saved = time.monotonic()
            save_parts(path, compact(trainer.modules()))
    save_parts(path, compact(trainer.modules()))
    final, _ = check(trainer, watched)
    print(f"{name} done: {steps} steps, psnr {final:.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Trains one AGC decoder with its keypoint detector on rendered heads, within a time budget.

It measures only its own loss; the figures that count come from `evaluate_agc`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from workloads.agc.config import AgcConfig
from workloads.agc.torch import TRAINED, AgcDecoder
from workloads.training.losses import (
    RandomFeatures,
    RandomWarp,
    feature_loss,
    pyramid_loss,
    structure_loss,
)
from workloads.training.pictures.batches import TRAIN_IDENTITIES, PairMaker
from workloads.training.pictures.keypoints import KeypointDetector, coded
from workloads.weights_torch import compact, fill, load_parts, save_parts

# Weights of the loss terms; equivariance is small because the pyramid is small too.
PYRAMID, FEATURES, STRUCTURE, EQUIVARIANCE = 10.0, 0.4, 0.5, 2.0


class Trainer:
    """Both networks, their optimizer and the loss of one batch."""

    def __init__(self, config: AgcConfig, device: str, rate: float) -> None:
        self.decoder = AgcDecoder(config).to(device)
        self.detector = KeypointDetector(config.keypoints).to(device)
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
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            every = self.detector(torch.cat([source, driving, warp.frame(driving)]))
            source_points, driving_points, warped_points = every.float().chunk(3)
            found = self.decoder(source, source_points, driving_points).float()
            features = feature_loss(self.features, found, driving).float()
        moved = (warp.points(warped_points) - driving_points).abs().mean()
        return {
            "pyramid": PYRAMID * pyramid_loss(found, driving),
            "features": FEATURES * features,
            "structure": STRUCTURE * structure_loss(found, driving),
            "equivariance": EQUIVARIANCE * moved,
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


def main() -> None:
    """Train until the budget is spent and leave the weights in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, choices=sorted(TRAINED), required=True)
    parser.add_argument("--seconds", type=float, default=500.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--bank", type=int, default=TRAIN_IDENTITIES)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    began = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    motion_width, motion_max = TRAINED[options.width]
    config = AgcConfig(
        width=options.width, motion_width=motion_width, motion_max=motion_max,
        rows=options.size, cols=options.size,
    )
    trainer = Trainer(config, device, options.rate)
    if options.resume:
        tensors = load_parts(options.resume)
        for name, module in trainer.modules().items():
            fill(module, tensors, name)
    pairs = PairMaker(options.bank, options.size, options.size, device)
    # Fixed pairs of training identities, to watch; they say nothing of unseen heads.
    watched = [pairs.draw(8) for _ in range(3)]
    path = options.out / f"agc_w{options.width}_float.safetensors"
    print(f"w{options.width} on {device}, bank ready {time.monotonic() - began:.0f} s", flush=True)
    steps, shown, saved = 0, 0.0, time.monotonic()
    while (share := (time.monotonic() - began) / options.seconds) < 1:
        terms = trainer.step(*pairs.draw(options.batch), share)
        steps += 1
        if share - shown > 0.04 or steps in (1, 20):
            shown = share
            ours, repeat = check(trainer, watched)
            text = " ".join(f"{name} {value.item():.3f}" for name, value in terms.items())
            print(f"w{options.width} {share:5.0%} step {steps}: psnr {ours:.2f} "
                  f"(repeat {repeat:.2f}) {text}", flush=True)
        if time.monotonic() - saved > 150:
            saved = time.monotonic()
            save_parts(path, compact(trainer.modules()))
    save_parts(path, compact(trainer.modules()))
    final, _ = check(trainer, watched)
    print(f"w{options.width} done: {steps} steps, psnr {final:.2f}", flush=True)


if __name__ == "__main__":
    main()

"""Trains one AGC decoder with its keypoint detector on rendered heads, within a time budget.

It measures only its own loss; the figures that count come from `evaluate`. A small decoder starts
as a larger one with channels left out (`start`, `prune`) and may also follow a larger one's
frames (`teacher`). `cosim train agc` runs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from workloads.agc.config import SIZES, AgcConfig
from workloads.agc.torch import AgcDecoder, load_agc
from workloads.training.agc.prune import pruned
from workloads.training.fitting import autocast, falling, shares, started, update
from workloads.training.losses import (
    RandomFeatures,
    RandomWarp,
    feature_loss,
    psnr,
    pyramid_loss,
    structure_loss,
)
from workloads.training.pictures.batches import TRAIN_IDENTITIES, PairMaker, Replay
from workloads.training.pictures.keypoints import KeypointDetector, coded, load_detector
from workloads.weights_torch import compact, fill, load_parts, save_parts

# Weights of the loss terms; equivariance is small because the pyramid is small too.
PYRAMID, FEATURES, STRUCTURE, EQUIVARIANCE, TEACHER = 10.0, 0.4, 0.5, 2.0, 3.0
#: Greatest norm of the gradient, and the least factor of the rate.
GRADIENT, LEAST_RATE = 5.0, 0.005
#: Pairs that `fresh` keeps: 1.6 GB of frames.
KEPT_PAIRS = 4096
#: Seconds from one writing of the weights to the next.
SAVED_EVERY = 150.0


@dataclass(frozen=True)
class Request:
    """What to train, from what, for how long.

    `network`: a name of `SIZES`. `out`: the folder of its weights. `seconds`: all in all. `batch`:
    pairs an update. `bank`: training heads that are drawn. `start`, `teacher`: names of trained
    decoders, one that is cut to the network and one whose frames it follows. `fresh`: pairs
    rendered a batch, the others are shown again (0: all are rendered). `photos`: share of warped
    photographs. `resume`: a weight file to go on from.
    """

    network: str
    out: Path
    seconds: float = 500.0
    batch: int = 32
    bank: int = TRAIN_IDENTITIES
    rate: float = 8e-4
    seed: int = 1
    start: str | None = None
    teacher: str | None = None
    fresh: int = 0
    photos: float = 0.0
    resume: Path | None = None


@dataclass(frozen=True)
class Trained:
    """What came out: weight files, updates made, PSNR in dB on pairs of training heads."""

    paths: Sequence[Path]
    updates: int
    psnr_db: float


class Teacher:
    """A trained decoder with its own detector, whose frames a smaller one follows."""

    def __init__(self, network: str, device: str) -> None:
        self.decoder = load_agc(network)[1].to(device)
        self.detector = load_detector(network).to(device)

    @torch.no_grad()
    def points(self, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor]:
        """Its keypoints [N, K, 2] of both frames of each pair."""
        first, second = self.detector(torch.cat([source, driving])).float().chunk(2)
        return first, second

    @torch.no_grad()
    def frame(self, source: Tensor, driving: Tensor) -> Tensor:
        """Its answer [N, 3, rows, cols] for a batch of pairs."""
        return self.decoder(source, *self.points(source, driving))


def frame_terms(features: RandomFeatures, found: Tensor, driving: Tensor,
                device: str) -> dict[str, Tensor]:
    """The weighted terms of the loss of decoded frames [N, 3, rows, cols] against the real ones."""
    with autocast(device):
        perceived = feature_loss(features, found, driving).float()
    return {"pyramid": PYRAMID * pyramid_loss(found, driving),
            "features": FEATURES * perceived,
            "structure": STRUCTURE * structure_loss(found, driving)}


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
        with autocast(self.device):
            every = self.detector(torch.cat([source, driving, warp.frame(driving)]))
            source_points, driving_points, warped_points = every.float().chunk(3)
            found = self.decoder(source, source_points, driving_points).float()
            if self.teacher is not None:
                wanted = self.teacher.frame(source, driving).float()
                follow = {"teacher": TEACHER * pyramid_loss(found, wanted)}
        moved = (warp.points(warped_points) - driving_points).abs().mean()
        return {**frame_terms(self.features, found, driving, self.device),
                "equivariance": EQUIVARIANCE * moved, **follow}

    def step(self, source: Tensor, driving: Tensor, share: float) -> dict[str, Tensor]:
        """Update once; `share` of the time budget is spent. Return the terms of the loss."""
        terms = self.loss(source, driving)
        update(self.optimizer, torch.stack(list(terms.values())).sum(),
               self.rate * falling(share, LEAST_RATE), self.values, GRADIENT)
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
            into.append(psnr(guess, driving).mean())
    trainer.decoder.train()
    trainer.detector.train()
    return torch.stack(ours).mean().item(), torch.stack(repeat).mean().item()


def run(request: Request, told: Callable[[str], None]) -> Trained:
    """Train until the budget is spent and leave the weights in the output folder, also meanwhile.

    `told` gets a line now and then.
    """
    began, name = time.monotonic(), request.network
    device, config = started(request.seed), SIZES[name]
    trainer = Trainer(config, device, request.rate, request.start, request.teacher)
    if request.resume:
        tensors = load_parts(request.resume)
        for prefix, module in trainer.modules().items():
            fill(module, tensors, prefix)
    maker = PairMaker(request.bank, config.rows, config.cols, device, photo_share=request.photos)
    # Fixed pairs of training identities, to watch; they say nothing of unseen heads.
    watched = [maker.draw(8) for _ in range(3)]
    pairs = Replay(maker, request.fresh, KEPT_PAIRS) if request.fresh else maker
    path = request.out / f"agc_{name}_float.safetensors"
    told(f"{name} on {device}, bank ready {time.monotonic() - began:.0f} s")
    steps, shown, saved = 0, 0.0, time.monotonic()
    for share in shares(request.seconds, began):
        terms = trainer.step(*pairs.draw(request.batch), share)
        steps += 1
        if share - shown > 0.04 or steps in (1, 20):
            shown = share
            ours, repeat = check(trainer, watched)
            text = " ".join(f"{term} {value.item():.3f}" for term, value in terms.items())
            told(f"{name} {share:5.0%} step {steps}: psnr {ours:.2f} (repeat {repeat:.2f}) {text}")
        if time.monotonic() - saved > SAVED_EVERY:
            saved = time.monotonic()
            save_parts(path, compact(trainer.modules()))
    paths = save_parts(path, compact(trainer.modules()))
    return Trained(paths, steps, check(trainer, watched)[0])

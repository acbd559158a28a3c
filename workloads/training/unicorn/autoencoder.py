"""Fits the autoencoder whose latents the Unicorn decoder learns to make; its encoder is not sent.

It fits no U-Net (`train` does) and reports its own progress only. `cosim train autoencoder` runs
it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads.training.fitting import autocast, falling, shares, started, update
from workloads.training.losses import RandomFeatures, feature_loss
from workloads.training.pictures.picture_set import picture_set
from workloads.unicorn.config import UnicornConfig
from workloads.unicorn.torch import PictureDecoder, ResidualUnit
from workloads.weights_torch import compact, fill, load_parts

#: Weight of the KL term and of the random-feature term.
KL, FEATURES = 1e-5, 0.02


@dataclass(frozen=True)
class Request:
    """How many pictures of the set to fit, for how many seconds all in all.

    `resume`: the weight file of a decoder whose picture part stays as it is; the encoder alone is
    fitted to it.
    """

    images: int
    seconds: float
    batch: int = 32
    seed: int = 3
    resume: Path | None = None


class PictureEncoder(nn.Module):
    """Picture to the mean and log variance of its latent; used in training only."""

    def __init__(self, config: UnicornConfig) -> None:
        super().__init__()
        widths = config.decoder_widths[::-1]
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.units = nn.ModuleList(ResidualUnit(width, width, config.groups) for width in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, 3, 8r, 8c] in 0..1 to two [N, 4, r, c]."""
        value = self.conv_in(picture - 0.5)
        for unit, down in zip(self.units, self.downs, strict=False):
            value = down(unit(value))
        mean, variance = self.conv_out(self.units[-1](value)).float().chunk(2, dim=1)
        return mean, variance.clamp(-20, 4)


def batch_of(pictures: Tensor, index: Tensor) -> Tensor:
    """Return uint8 pictures [N, r, c, 3] of that index as [B, 3, r, c] in 0..1."""
    return pictures[index].permute(0, 3, 1, 2).float() / 255


def picture_loss(net: RandomFeatures, found: Tensor, wanted: Tensor) -> Tensor:
    """Return squared error (in units of 0.1), plus a little of the random-feature loss."""
    return 100 * functional.mse_loss(found, wanted) + FEATURES * feature_loss(net, found, wanted)


def fit_autoencoder(pictures: Tensor, decoder: PictureDecoder, frozen: bool, request: Request,
                    spent: Iterable[float], told: Callable[[str], None]) -> PictureEncoder:
    """Train an encoder, and the picture decoder unless frozen, while `spent` gives shares."""
    device = pictures.device.type
    encoder = PictureEncoder(UnicornConfig()).to(device)
    decoder.requires_grad_(not frozen)
    net = RandomFeatures().to(device)
    values = [*encoder.parameters(), *([] if frozen else decoder.parameters())]
    optimizer = torch.optim.AdamW(values, lr=1e-3, weight_decay=1e-4, fused=device == "cuda")
    for steps, share in enumerate(spent):
        wanted = batch_of(pictures, torch.randint(len(pictures), (request.batch,), device=device))
        with autocast(device):
            mean, variance = encoder(wanted)
            latent = mean + torch.exp(0.5 * variance) * torch.randn_like(mean)
            found = decoder(latent).float()
            loss = picture_loss(net, found, wanted)
        kl = 0.5 * (mean**2 + variance.exp() - 1 - variance).mean()
        update(optimizer, loss + KL * kl, 1.5e-3 * falling(share), values)
        if steps % 400 == 0:
            error = functional.mse_loss(found.clamp(0, 1), wanted).item()
            told(f"autoencoder {share:4.0%} step {steps}: psnr {-10 * math.log10(error):.2f} "
                 f"kl {kl.item():.2f} std {mean.std().item():.2f}")
    return encoder


@torch.no_grad()
def encode(pictures: Tensor, encoder: PictureEncoder) -> Tensor:
    """Return the mean latents [N, 4, r, c] of all pictures."""
    found = []
    for start in range(0, len(pictures), 64):
        index = torch.arange(start, min(start + 64, len(pictures)), device=pictures.device)
        found.append(encoder(batch_of(pictures, index))[0])
    return torch.cat(found)


def run(request: Request, told: Callable[[str], None]) -> dict[str, Tensor]:
    """Encoder and picture decoder as named tensors, in float32; `told` gets a line now and then."""
    began, device = time.monotonic(), started(request.seed)
    pictures = torch.from_numpy(picture_set(request.images, device)).to(device)
    told(f"{request.images} pictures in {time.monotonic() - began:.0f} s")
    decoder = PictureDecoder(UnicornConfig(images=request.images)).to(device)
    if request.resume:
        fill(decoder, load_parts(request.resume), "decoder.picture")
    encoder = fit_autoencoder(pictures, decoder, request.resume is not None, request,
                              shares(request.seconds, began), told)
    parts = compact({"encoder": encoder, "picture": decoder})
    return {name: value.float() for name, value in parts.items()}

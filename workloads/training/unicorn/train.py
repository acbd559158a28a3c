"""Fits the Unicorn decoder to a numbered set: the U-Net, then the picture decoder again.

It fits no encoder (`autoencoder` does) and reports only its own progress; the figures that count
come from `evaluate`. `cosim train unicorn` runs it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from workloads.training.fitting import autocast, falling, shares, started, update
from workloads.training.losses import RandomFeatures, psnr
from workloads.training.pictures.picture_set import picture_set
from workloads.training.unicorn.autoencoder import (
    PictureEncoder,
    batch_of,
    encode,
    picture_loss,
)
from workloads.unicorn.config import UnicornConfig, signal_and_noise, time_code
from workloads.unicorn.torch import UnicornDecoder
from workloads.weights_torch import compact, fill, load_parts, save_parts

#: The index table learns this many times faster than the shared weights: each row is seen rarely.
TABLE_RATE = 4.0
#: Shares of the seconds that the U-Net and then the picture decoder take; the rest is sampling.
UNET_SHARE, PICTURE_SHARE = 0.8, 0.16


@dataclass(frozen=True)
class Request:
    """What to fit: the first `images` pictures of the set, for how many seconds all in all.

    `autoencoder`: the file that `cosim train autoencoder` wrote. `out`: the folder of the weights.
    `latent_batch`, `rate`: of the U-Net; `batch`: of the picture decoder. `resume`: a weight file
    whose U-Net and latents stay.
    """

    images: int
    seconds: float
    autoencoder: Path
    out: Path
    batch: int = 32
    latent_batch: int = 256
    rate: float = 1.5e-3
    seed: int = 3
    resume: Path | None = None


@dataclass(frozen=True)
class Trained:
    """What came out: weight files, mean squared error of sampled latents, PSNR in dB with the
    picture decoder as it was and as it is, weights that are sent."""

    paths: Sequence[Path]
    latent_error: float
    before_db: float
    after_db: float
    weights: int


def fit_unet(decoder: UnicornDecoder, latents: Tensor, seconds: float, request: Request,
             told: Callable[[str], None]) -> int:
    """Train the U-Net to rebuild each latent from the set's noise and its index.

    It leaves the running mean of the weights and returns how many steps it took. The decoder
    always starts from the same noise, so no other noise is trained.
    """
    config, unet = decoder.config, decoder.unet
    device, batch = latents.device.type, request.latent_batch
    average = copy.deepcopy(unet).requires_grad_(False)
    values: list[Tensor] = list(unet.parameters())
    averages: list[Tensor] = list(average.parameters())
    table = unet.index_table.weight
    groups: list[dict[str, Any]] = [
        {"params": [value for value in values if value is not table]},
        {"params": [table], "factor": TABLE_RATE},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=request.rate, betas=(0.9, 0.99), weight_decay=0.0, fused=device == "cuda"
    )
    times = torch.from_numpy(time_code(torch.tensor(config.times).numpy())).to(device)
    amplitudes = torch.tensor([signal_and_noise(t) for t in config.times], device=device).float()
    steps = 0
    for share in shares(seconds):
        index = torch.randint(len(latents), (batch,), device=device)
        step = torch.randint(config.steps, (batch,), device=device)
        clean = latents[index]
        signal, sigma = amplitudes[step][:, :, None, None, None].unbind(1)
        # The sampler feeds its own estimates back, so training sees latents that are a bit off.
        off = clean + 0.1 * torch.rand(batch, 1, 1, 1, device=device) * torch.randn_like(clean)
        noisy = signal * off + sigma * decoder.noise
        # The target leads from the latent as it is to the true one.
        target = (signal * noisy - clean) / sigma
        with autocast(device):
            found = unet(noisy, unet.embed(times[step], index)).float()
        loss = functional.mse_loss(found, target)
        update(optimizer, loss, request.rate * falling(share), values)
        keep = min(0.998, steps / (steps + 20))
        torch._foreach_lerp_(averages, values, 1 - keep)
        steps += 1
        if steps % 1000 == 1:
            told(f"n{config.images} unet {share:4.0%} step {steps}: loss {loss.item():.4f}")
    unet.load_state_dict(average.state_dict())
    return steps


@torch.no_grad()
def sample_all(decoder: UnicornDecoder) -> Tensor:
    """Return the sampled latents of every picture of the set."""
    numbers = torch.arange(decoder.config.images, device=decoder.noise.device)
    return torch.cat([decoder.sample(part) for part in numbers.split(128)])


def fit_picture(decoder: UnicornDecoder, sampled: Tensor, pictures: Tensor, seconds: float,
                batch: int) -> int:
    """Train the picture decoder on the latents that the sampler really gives; return the steps."""
    device = pictures.device.type
    values = list(decoder.picture.parameters())
    net = RandomFeatures().to(device)
    optimizer = torch.optim.AdamW(values, lr=6e-4, weight_decay=0.0, fused=device == "cuda")
    steps = 0
    for share in shares(seconds):
        index = torch.randint(len(pictures), (batch,), device=device)
        wanted = batch_of(pictures, index)
        with autocast(device):
            found = decoder.picture(sampled[index]).float()
            loss = picture_loss(net, found, wanted)
        update(optimizer, loss, 1e-3 * falling(share), values)
        steps += 1
    return steps


@torch.no_grad()
def mean_psnr(decoder: UnicornDecoder, latents: Tensor, pictures: Tensor) -> float:
    """Return the mean PSNR in dB of decoding those latents."""
    found = []
    for index in torch.arange(len(pictures), device=pictures.device).split(64):
        guess = decoder.picture(latents[index]).clamp(0, 1)
        found.append(psnr(guess, batch_of(pictures, index)))
    return torch.cat(found).mean().item()


@torch.no_grad()
def normalize(latents: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return latents of zero mean and unit spread per channel; fold the inverse into `conv`."""
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    assert conv.bias is not None
    conv.bias += (conv.weight * mean[:, None, None]).sum(dim=(1, 2, 3))
    conv.weight *= spread[:, None, None]
    return (latents - mean[:, None, None]) / spread[:, None, None]


def run(request: Request, told: Callable[[str], None]) -> Trained:
    """Fit one decoder and leave its weights in the folder; `told` gets a line now and then."""
    began, device = time.monotonic(), started(request.seed)
    config = UnicornConfig(images=request.images)
    pictures = torch.from_numpy(picture_set(request.images, device)).to(device)
    told(f"{request.images} pictures in {time.monotonic() - began:.0f} s")
    stored = load_parts(request.resume) if request.resume else {}
    decoder = UnicornDecoder(config).to(device)
    encoder = PictureEncoder(config).to(device)
    tensors = load_file(request.autoencoder, device=device)
    fill(encoder, tensors, "encoder")
    fill(decoder.picture, tensors, "picture")
    latents = encode(pictures, encoder)
    told(f"n{request.images} autoencoder alone: {mean_psnr(decoder, latents, pictures):.2f} dB")
    if stored:
        fill(decoder.unet, stored, "decoder.unet")
    else:
        latents = normalize(latents, decoder.picture.conv_in)
    left = request.seconds - (time.monotonic() - began)
    steps = fit_unet(decoder, latents, UNET_SHARE * left, request, told)
    told(f"n{request.images} unet done, {steps} steps")
    sampled = sample_all(decoder)
    before = mean_psnr(decoder, sampled, pictures)
    steps = fit_picture(decoder, sampled, pictures, PICTURE_SHARE * left, request.batch)
    told(f"n{request.images} picture decoder done, {steps} steps")
    path = request.out / f"unicorn_n{request.images}_float.safetensors"
    return Trained(save_parts(path, compact({"decoder": decoder})),
                   functional.mse_loss(sampled, latents).item(), before,
                   mean_psnr(decoder, sampled, pictures), decoder.parameter_count())

"""Fits Unicorn to a numbered set: autoencoder first, then U-Net, then the picture decoder again.

It reports only its own progress; the figures that count come from `evaluate`.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from workloads.training.agc.losses import RandomFeatures, feature_loss
from workloads.training.pictures.picture_set import picture_set
from workloads.unicorn.config import UnicornConfig, signal_and_noise, time_code
from workloads.unicorn.torch import PictureDecoder, ResidualUnit, UnicornDecoder
from workloads.weights_torch import compact, fill, load_parts, save_parts

#: The index table learns this many times faster than the shared weights: each row is seen rarely.
TABLE_RATE = 4.0
#: Weight of the autoencoder's KL term and of the random-feature term.
KL, FEATURES = 1e-5, 0.02


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


def autocast(device: str) -> torch.autocast:
    """Return the mixed-precision context: bfloat16 on a GPU, nothing on a CPU."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def batch_of(pictures: Tensor, index: Tensor) -> Tensor:
    """Return uint8 pictures [N, r, c, 3] of that index as [B, 3, r, c] in 0..1."""
    return pictures[index].permute(0, 3, 1, 2).float() / 255


def falling(share: float) -> float:
    """Return the learning-rate factor: a short rise, then a cosine to nearly zero."""
    return min(1.0, share / 0.02 + 0.02) * max(0.5 * (1 + math.cos(math.pi * share)), 0.003)


def update(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, values: list) -> None:
    """Take one clipped step at that rate, times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(values, 1.0, foreach=True)
    optimizer.step()


def picture_loss(net: RandomFeatures, found: Tensor, wanted: Tensor) -> Tensor:
    """Return squared error (in units of 0.1), plus a little of the random-feature loss."""
    return 100 * functional.mse_loss(found, wanted) + FEATURES * feature_loss(net, found, wanted)


def fit_autoencoder(pictures: Tensor, decoder: PictureDecoder, frozen: bool, seconds: float,
                    batch: int, device: str) -> dict[str, Tensor]:
    """Train an encoder, and the picture decoder unless frozen; return both as named tensors."""
    encoder = PictureEncoder(UnicornConfig()).to(device)
    decoder.requires_grad_(not frozen)
    net = RandomFeatures().to(device)
    values = [*encoder.parameters(), *([] if frozen else decoder.parameters())]
    optimizer = torch.optim.AdamW(values, lr=1e-3, weight_decay=1e-4, fused=device == "cuda")
    began, steps = time.monotonic(), 0
    while (share := (time.monotonic() - began) / seconds) < 1:
        wanted = batch_of(pictures, torch.randint(len(pictures), (batch,), device=device))
        with autocast(device):
            mean, variance = encoder(wanted)
            latent = mean + torch.exp(0.5 * variance) * torch.randn_like(mean)
            found = decoder(latent).float()
            loss = picture_loss(net, found, wanted)
        kl = 0.5 * (mean**2 + variance.exp() - 1 - variance).mean()
        update(optimizer, loss + KL * kl, 1.5e-3 * falling(share), values)
        if steps % 400 == 0:
            error = functional.mse_loss(found.clamp(0, 1), wanted).item()
            print(f"autoencoder {share:4.0%} step {steps}: psnr {-10 * math.log10(error):.2f} "
                  f"kl {kl.item():.2f} std {mean.std().item():.2f}", flush=True)
        steps += 1
    return compact({"encoder": encoder, "picture": decoder})


@torch.no_grad()
def encode(pictures: Tensor, encoder: PictureEncoder, device: str) -> Tensor:
    """Return the mean latents [N, 4, r, c] of all pictures."""
    found = []
    for start in range(0, len(pictures), 64):
        index = torch.arange(start, min(start + 64, len(pictures)), device=device)
        found.append(encoder(batch_of(pictures, index))[0])
    return torch.cat(found)


def fit_unet(decoder: UnicornDecoder, latents: Tensor, seconds: float, batch: int,
             rate: float, device: str) -> None:
    """Train the U-Net to rebuild each latent from the set's noise and its index.

    It leaves the running mean of the weights. The decoder always starts from the same noise, so
    no other noise is trained.
    """
    config, unet = decoder.config, decoder.unet
    average = copy.deepcopy(unet).requires_grad_(False)
    values: list[Tensor] = list(unet.parameters())
    averages: list[Tensor] = list(average.parameters())
    table = unet.index_table.weight
    groups: list[dict[str, Any]] = [
        {"params": [value for value in values if value is not table]},
        {"params": [table], "factor": TABLE_RATE},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=device == "cuda"
    )
    times = torch.from_numpy(time_code(torch.tensor(config.times).numpy())).to(device)
    amplitudes = torch.tensor([signal_and_noise(t) for t in config.times], device=device).float()
    began, steps = time.monotonic(), 0
    while (share := (time.monotonic() - began) / seconds) < 1:
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
        update(optimizer, loss, rate * falling(share), values)
        keep = min(0.998, steps / (steps + 20))
        torch._foreach_lerp_(averages, values, 1 - keep)
        steps += 1
        if steps % 1000 == 1:
            print(f"n{config.images} unet {share:4.0%} step {steps}: loss {loss.item():.4f}",
                  flush=True)
    unet.load_state_dict(average.state_dict())
    print(f"n{config.images} unet done, {steps} steps", flush=True)


@torch.no_grad()
def sample_all(decoder: UnicornDecoder, device: str) -> Tensor:
    """Return the sampled latents of every picture of the set."""
    numbers = torch.arange(decoder.config.images, device=device)
    return torch.cat([decoder.sample(part) for part in numbers.split(128)])


def fit_picture(decoder: UnicornDecoder, sampled: Tensor, pictures: Tensor, seconds: float,
                batch: int, device: str) -> None:
    """Train the picture decoder on the latents that the sampler really gives."""
    values = list(decoder.picture.parameters())
    net = RandomFeatures().to(device)
    optimizer = torch.optim.AdamW(values, lr=6e-4, weight_decay=0.0, fused=device == "cuda")
    began, steps = time.monotonic(), 0
    while (share := (time.monotonic() - began) / seconds) < 1:
        index = torch.randint(len(pictures), (batch,), device=device)
        wanted = batch_of(pictures, index)
        with autocast(device):
            found = decoder.picture(sampled[index]).float()
            loss = picture_loss(net, found, wanted)
        update(optimizer, loss, 1e-3 * falling(share), values)
        steps += 1
    print(f"n{decoder.config.images} picture decoder done, {steps} steps", flush=True)


@torch.no_grad()
def mean_psnr(decoder: UnicornDecoder, latents: Tensor, pictures: Tensor, device: str) -> float:
    """Return the mean PSNR in dB of decoding those latents."""
    found = []
    for index in torch.arange(len(pictures), device=device).split(64):
        guess = decoder.picture(latents[index]).clamp(0, 1)
        error = ((guess - batch_of(pictures, index)) ** 2).mean(dim=(1, 2, 3))
        found.append(-10 * torch.log10(error))
    return torch.cat(found).mean().item()


@torch.no_grad()
def normalize(latents: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return latents of zero mean and unit spread per channel; fold the inverse into `conv`."""
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    assert conv.bias is not None
    conv.bias += (conv.weight * mean[:, None, None]).sum(dim=(1, 2, 3))
    conv.weight *= spread[:, None, None]
    return (latents - mean[:, None, None]) / spread[:, None, None]


def main() -> None:
    """Run one stage: the autoencoder on the whole set, or one decoder on its first N pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("autoencoder", "decoder"), required=True)
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--latent-batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="weights to start from (its latents stay)")
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for the encoder")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    config = UnicornConfig(images=options.images)
    began = time.monotonic()
    pictures = torch.from_numpy(picture_set(options.images, device)).to(device)
    print(f"{options.images} pictures in {time.monotonic() - began:.0f} s", flush=True)
    left = options.seconds - (time.monotonic() - began)
    stored = load_parts(options.resume) if options.resume else {}
    if options.stage == "autoencoder":
        picture = PictureDecoder(config).to(device)
        if stored:
            fill(picture, stored, "decoder.picture")
        tensors = fit_autoencoder(pictures, picture, bool(stored), left, options.batch, device)
        save_file({name: value.float() for name, value in tensors.items()}, options.autoencoder)
        return
    while not options.autoencoder.exists() and time.monotonic() - began < options.wait:
        time.sleep(1)
    left = options.seconds - (time.monotonic() - began)
    decoder = UnicornDecoder(config).to(device)
    encoder = PictureEncoder(config).to(device)
    tensors = load_file(options.autoencoder, device=device)
    fill(encoder, tensors, "encoder")
    fill(decoder.picture, tensors, "picture")
    latents = encode(pictures, encoder, device)
    print(f"n{options.images} autoencoder alone: "
          f"{mean_psnr(decoder, latents, pictures, device):.2f} dB", flush=True)
    if stored:
        fill(decoder.unet, stored, "decoder.unet")
    else:
        latents = normalize(latents, decoder.picture.conv_in)
    fit_unet(decoder, latents, 0.8 * left, options.latent_batch, options.rate, device)
    sampled = sample_all(decoder, device)
    error = functional.mse_loss(sampled, latents).item()
    before = mean_psnr(decoder, sampled, pictures, device)
    fit_picture(decoder, sampled, pictures, 0.16 * left, options.batch, device)
    after = mean_psnr(decoder, sampled, pictures, device)
    path = options.out / f"unicorn_n{options.images}_float.safetensors"
    save_parts(path, compact({"decoder": decoder}))
    print(f"n{options.images}: latent error {error:.4f}, psnr {before:.2f} then {after:.2f} dB, "
          f"{decoder.parameter_count()} weights", flush=True)


if __name__ == "__main__":
    main()

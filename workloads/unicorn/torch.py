"""Builds the Unicorn decoder as a torch module: index in, picture out.

It trains nothing and quantizes nothing; the encoder that trains it lies with the training code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workloads.unicorn.config import (
    TIME_FREQUENCIES,
    UnicornConfig,
    position_code,
    signal_and_noise,
    starting_noise,
    time_code,
)
from workloads.weights_torch import fill, load_parts

DATA = Path(__file__).parents[1] / "data"
#: Pictures in the set behind each shipped name.
TRAINED = {"n256": 256, "n1024": 1024}


class ResidualUnit(nn.Module):
    """norm1, SiLU, conv1, norm2, optional scale and shift from the embedding, SiLU, conv2, add.

    `film` is a linear layer to 2 * leaving numbers, or None without an embedding. `skip` is a
    1x1 convolution, or None where the channels stay.
    """

    def __init__(self, entering: int, leaving: int, groups: int, embedding: int = 0) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, entering)
        self.silu1 = nn.SiLU()
        self.conv1 = nn.Conv2d(entering, leaving, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * leaving) if embedding else None
        self.norm2 = nn.GroupNorm(groups, leaving)
        self.silu2 = nn.SiLU()
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1)
        self.skip = nn.Conv2d(entering, leaving, 1) if entering != leaving else None

    def forward(self, value: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Map [N, entering, r, c] and an embedding [N, E] to [N, leaving, r, c]."""
        inner = self.norm2(self.conv1(self.silu1(self.norm1(value))))
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        inner = self.conv2(self.silu2(inner))
        return inner + (value if self.skip is None else self.skip(value))


class Attention(nn.Module):
    """norm, 1x1 to queries, keys, values, softmax(q k / sqrt(d)) v per head, 1x1, add."""

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads, self.head_channels = channels // head_channels, head_channels
        self.norm = nn.GroupNorm(groups, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.softmax = nn.Softmax(dim=-1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, value: Tensor) -> Tensor:
        """Keep the shape [N, channels, r, c]."""
        batch, channels, rows, cols = value.shape
        packed = self.query_key_value(self.norm(value))
        packed = packed.reshape(batch, 3, self.heads, self.head_channels, rows * cols)
        query, key, content = packed.unbind(1)
        score = query.transpose(-1, -2) @ key * self.head_channels**-0.5
        mixed = content @ self.softmax(score).transpose(-1, -2)
        return value + self.project(mixed.reshape(batch, channels, rows, cols))


class UnicornUNet(nn.Module):
    """The denoiser: latent, time and index in, velocity out."""

    position: Tensor

    def __init__(self, config: UnicornConfig) -> None:
        super().__init__()
        size, groups, length = config.width, config.groups, config.embedding
        self.config = config
        self.register_buffer("position", torch.from_numpy(position_code(config)), False)
        self.time_linear1 = nn.Linear(2 * TIME_FREQUENCIES, length)
        self.time_linear2 = nn.Linear(length, length)
        self.index_table = nn.Embedding(config.images, length)
        self.silu = nn.SiLU()
        entering = config.latent_channels + config.position_channels
        self.conv_in = nn.Conv2d(entering, size, 3, padding=1)

        def unit(before: int, after: int) -> ResidualUnit:
            return ResidualUnit(before, after, groups, length)

        def attention(factor: int, channels: int) -> Any:
            # A module list may hold None, though its type does not say so.
            if factor not in config.attention_factors:
                return None
            return Attention(channels, config.head_channels, groups)

        # Flat lists in running order; an absent attention is None.
        self.down_units, self.down_attention = nn.ModuleList(), nn.ModuleList()
        self.down_convs, self.up_convs = nn.ModuleList(), nn.ModuleList()
        self.up_units, self.up_attention = nn.ModuleList(), nn.ModuleList()
        skips, now, last = [size], size, len(config.multipliers) - 1
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                self.down_units.append(unit(now, size * multiplier))
                now = size * multiplier
                self.down_attention.append(attention(2**level, now))
                skips.append(now)
            if level < last:
                self.down_convs.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.middle1, self.middle2 = unit(now, now), unit(now, now)
        self.middle_attention = Attention(now, config.head_channels, groups)
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for _ in range(config.blocks + 1):
                self.up_units.append(unit(now + skips.pop(), size * multiplier))
                now = size * multiplier
                self.up_attention.append(attention(2**level, now))
            if level:
                self.up_convs.append(nn.Conv2d(now, now, 3, padding=1))
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.norm_out = nn.GroupNorm(groups, now)
        self.conv_out = nn.Conv2d(now, config.latent_channels, 3, padding=1)

    def embed(self, time: Tensor, index: Tensor) -> Tensor:
        """Return [N, embedding] from time codes [N, 64] and picture numbers [N]."""
        time = self.time_linear2(self.silu(self.time_linear1(time)))
        return self.silu(time + self.index_table(index))

    def forward(self, latent: Tensor, embedding: Tensor) -> Tensor:
        """Return the velocity of a latent [N, 4, r, c] under an embedding [N, E]."""
        blocks, levels = self.config.blocks, len(self.config.multipliers)
        place = self.position.expand(len(latent), -1, -1, -1)
        value = self.conv_in(torch.cat([latent, place.to(latent.dtype)], dim=1))
        skips = [value]
        for level in range(levels):
            for number in range(level * blocks, (level + 1) * blocks):
                value = self.down_units[number](value, embedding)
                if self.down_attention[number] is not None:
                    value = self.down_attention[number](value)
                skips.append(value)
            if level < levels - 1:
                value = self.down_convs[level](value)
                skips.append(value)
        value = self.middle1(value, embedding)
        value = self.middle2(self.middle_attention(value), embedding)
        for step in range(levels):
            for number in range(step * (blocks + 1), (step + 1) * (blocks + 1)):
                value = torch.cat([value, skips.pop()], dim=1)
                value = self.up_units[number](value, embedding)
                if self.up_attention[number] is not None:
                    value = self.up_attention[number](value)
            if step < levels - 1:
                value = self.up_convs[step](self.upsample(value))
        return self.conv_out(self.silu(self.norm_out(value)))


class PictureDecoder(nn.Module):
    """The slim half of the autoencoder that is sent: latent in, picture out."""

    def __init__(self, config: UnicornConfig) -> None:
        super().__init__()
        widths, groups = config.decoder_widths, config.groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.units = nn.ModuleList(ResidualUnit(width, width, groups) for width in widths)
        self.up_convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.norm_out = nn.GroupNorm(groups, widths[-1])
        self.silu = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """Map [N, 4, r, c] to pictures [N, 3, 8r, 8c], to be clipped to 0..1."""
        value = self.units[0](self.conv_in(latent))
        for conv, unit in zip(self.up_convs, list(self.units)[1:], strict=True):
            value = unit(conv(self.upsample(value)))
        return self.conv_out(self.silu(self.norm_out(value))) + 0.5


class UnicornDecoder(nn.Module):
    """U-Net, sampler and picture decoder: everything that is sent."""

    noise: Tensor

    def __init__(self, config: UnicornConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UnicornUNet(config)
        self.picture = PictureDecoder(config)
        self.register_buffer("noise", torch.from_numpy(starting_noise(config)), False)

    def embedding(self, time: float, index: Tensor) -> Tensor:
        """Return [N, E] for one time and picture numbers [N]."""
        device = self.noise.device
        times = torch.from_numpy(time_code(np.array([time]))).to(device)
        return self.unet.embed(times.expand(len(index), -1), index)

    def sample(self, index: Tensor) -> Tensor:
        """Return the latents [N, 4, r, c] of picture numbers [N]: deterministic DDIM."""
        latent = self.noise.expand(len(index), -1, -1, -1)
        times = (*self.config.times, 0.0)
        for now, then in zip(times, times[1:], strict=False):
            signal, noise = signal_and_noise(now)
            velocity = self.unet(latent, self.embedding(now, index))
            clean = signal * latent - noise * velocity
            residue = noise * latent + signal * velocity
            signal, noise = signal_and_noise(then)
            latent = signal * clean + noise * residue
        return latent

    def forward(self, index: Tensor) -> Tensor:
        """Return pictures [N, 3, rows, cols] in 0..1 for picture numbers [N]."""
        return self.picture(self.sample(index)).clamp(0, 1)

    def parameter_count(self) -> int:
        """Return how many weights are sent."""
        return sum(value.numel() for value in self.parameters())


def build_unicorn(config: UnicornConfig, seed: int = 0) -> UnicornDecoder:
    """Return an untrained eval-mode decoder with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UnicornDecoder(config).eval()


def load_unicorn(name: str) -> tuple[UnicornConfig, UnicornDecoder]:
    """Return the trained decoder of that name ("n256", ...), in eval mode and float32.

    Raises ValueError for an unknown name, FileNotFoundError without its file.
    """
    if name not in TRAINED:
        raise ValueError(f"no trained Unicorn decoder {name!r}; choose from {sorted(TRAINED)}")
    config = UnicornConfig(images=TRAINED[name])
    decoder = UnicornDecoder(config)
    fill(decoder, load_parts(DATA / f"unicorn_{name}_float.safetensors"), "decoder")
    return config, decoder.eval()

"""Says what the Unicorn decoder is made of: sizes, sampler times, starting noise, rate.

It holds no weights and runs no network; the torch module is built elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Sines (and as many cosines) that a time is written as.
TIME_FREQUENCIES = 32


@dataclass(frozen=True)
class UnicornConfig:
    """Sizes of one decoder, fitted to `images` pictures.

    `width`, `multipliers`, `blocks`, `attention_factors`, `head_channels`: the U-Net, in latent
    space. `groups`: of every group norm. `embedding`: length of the time vector and of
    each row of the index table.
    `decoder_widths`: channels of the picture decoder at 1, 2, 4 and 8 times the latent size.
    `steps`: sampler steps. `noise_seed`: seed of the starting noise, one for the whole set.
    """

    images: int = 1024
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 2
    attention_factors: tuple[int, ...] = (2, 4)
    head_channels: int = 32
    groups: int = 8
    embedding: int = 256
    position_octaves: int = 3
    latent_channels: int = 4
    latent_rows: int = 32
    latent_cols: int = 32
    decoder_widths: tuple[int, ...] = (128, 64, 32, 16)
    steps: int = 8
    noise_seed: int = 2024

    @property
    def rows(self) -> int:
        """Rows of the picture in pixels."""
        return self.latent_rows * 2 ** (len(self.decoder_widths) - 1)

    @property
    def cols(self) -> int:
        """Columns of the picture in pixels."""
        return self.latent_cols * 2 ** (len(self.decoder_widths) - 1)

    @property
    def position_channels(self) -> int:
        """Constant channels that tell the U-Net where it is: sine and cosine, both axes."""
        return 4 * self.position_octaves

    @property
    def times(self) -> tuple[float, ...]:
        """Times at which the U-Net runs, from 1 (noise) down; the sampler ends at 0."""
        return tuple(1 - step / self.steps for step in range(self.steps))


def signal_and_noise(time: float) -> tuple[float, float]:
    """Return the amplitudes of picture and noise at a time in 0..1 (cosine schedule)."""
    return math.cos(math.pi * time / 2), math.sin(math.pi * time / 2)


def starting_noise(config: UnicornConfig) -> np.ndarray:
    """Return the noise that every decode starts from, [channels, rows, cols] float32."""
    generator = np.random.Generator(np.random.PCG64(config.noise_seed))
    shape = (config.latent_channels, config.latent_rows, config.latent_cols)
    return generator.standard_normal(shape).astype(np.float32)


def time_code(time: np.ndarray) -> np.ndarray:
    """Return [N, 64] sines and cosines of times [N] in 0..1."""
    rates = 0.5 * np.pi * 2.0 ** (np.arange(TIME_FREQUENCIES) / 5)
    angle = np.asarray(time, dtype=np.float64)[:, None] * rates
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def position_code(config: UnicornConfig) -> np.ndarray:
    """Return the constant position channels [4 * octaves, rows, cols] float32."""
    y = np.linspace(-1, 1, config.latent_rows)[:, None] + np.zeros((1, config.latent_cols))
    x = np.linspace(-1, 1, config.latent_cols)[None, :] + np.zeros((config.latent_rows, 1))
    waves = [
        wave(np.pi * 2.0 ** (octave - 1) * axis)
        for octave in range(config.position_octaves)
        for axis in (x, y)
        for wave in (np.sin, np.cos)
    ]
    return np.stack(waves).astype(np.float32)


def bits_per_pixel(config: UnicornConfig, parameters: int, weight_bits: int = 8) -> float:
    """Return the rate as the paper counts it: shared weights, one index a picture, the seed.

    The weights, among them the index table, and the 32-bit seed are sent once for the whole set.
    """
    index_bits = max(1, math.ceil(math.log2(config.images)))
    total = weight_bits * parameters + 32 + config.images * index_bits
    return total / (config.images * config.rows * config.cols)

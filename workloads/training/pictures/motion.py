"""Draws seeded head motion: smooth pose, blinks, speech-like mouth and slow light.

It returns numbers for the renderer and draws no picture.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workloads.training.pictures.heads import MOTION_NAMES

#: Per value: centre, spread of the clip's mean, spread within the clip, slowest and fastest Hz.
RANGES = {
    "yaw": (0.0, 0.15, 0.4, 0.1, 0.5), "pitch": (0.0, 0.1, 0.22, 0.1, 0.5),
    "roll": (0.0, 0.06, 0.2, 0.1, 0.4), "move_x": (0.0, 0.08, 0.12, 0.08, 0.4),
    "move_y": (-0.08, 0.05, 0.07, 0.08, 0.4), "scale": (1.0, 0.05, 0.07, 0.05, 0.3),
    "blink": (0.0, 0.0, 1.0, 0.2, 0.5), "brow": (0.0, 0.3, 0.8, 0.1, 0.6),
    "mouth_open": (0.0, 0.0, 1.0, 1.0, 3.0), "mouth_wide": (0.0, 0.2, 0.6, 0.3, 1.5),
    "gaze_x": (0.0, 0.2, 0.9, 0.2, 0.8), "gaze_y": (0.0, 0.2, 0.6, 0.2, 0.8),
    "light_x": (0.0, 0.7, 0.08, 0.02, 0.1), "light_y": (-0.35, 0.3, 0.05, 0.02, 0.1),
    "light": (1.0, 0.1, 0.04, 0.02, 0.1),
}


def waves(draws: Tensor, times: Tensor) -> Tensor:
    """Turn uniform draws [N, 15, 5] into motion values [N, T, 15] at times [N, T] in seconds."""
    table = torch.tensor([RANGES[name] for name in MOTION_NAMES], device=draws.device)
    centre, between, within, slow, fast = table.unbind(1)
    mean = centre + between * (2 * draws[..., 0] - 1)
    rate = slow + (fast - slow) * draws[..., 1]
    phase = 6.2832 * (times[:, :, None] * rate[:, None] + draws[:, None, :, 2])
    second = 6.2832 * (times[:, :, None] * 0.61 * rate[:, None] + draws[:, None, :, 3])
    swing = 0.6 * torch.sin(phase) + 0.4 * torch.sin(second)
    value = mean[:, None] + (within * (0.5 + 0.5 * draws[..., 4]))[:, None] * swing
    blink, mouth = MOTION_NAMES.index("blink"), MOTION_NAMES.index("mouth_open")
    value[..., blink] = torch.sin(phase[..., blink]).clamp(min=0) ** 10
    talk = torch.sin(phase[..., mouth]).clamp(min=0) * (0.5 + 0.5 * torch.sin(second[..., mouth]))
    value[..., mouth] = talk * (0.4 + 0.6 * draws[:, None, mouth, 4])
    return value


def draw_motion(seeds: list[int], times: Tensor) -> Tensor:
    """Return motion values [N, T, 15] of seeded clips at times [N, T] in seconds (on the CPU)."""
    draws = [
        torch.rand(len(MOTION_NAMES), 5, generator=torch.Generator().manual_seed(0xACE_0000 + seed))
        for seed in seeds
    ]
    return waves(torch.stack(draws), times)

"""Finds K keypoints in a frame: the encoder's side of AGC, trained with the decoder.

The decoder never runs it; it is needed only to make the keypoints that a clip is coded with.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.agc.torch import DATA, AntiAlias, ConvUnit
from workloads.weights_torch import fill, load_parts

WIDTHS = (32, 64, 128, 128)
#: Softmax temperature of the heat maps (FOMM).
TEMPERATURE = 0.1


class KeypointDetector(nn.Module):
    """A small hourglass on the frame at a quarter size, then the mean position of each heat map."""

    def __init__(self, keypoints: int = 10) -> None:
        super().__init__()
        self.anti_alias = AntiAlias()
        self.encoder = nn.ModuleList(
            ConvUnit(before, after, pool=True)
            for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        entering = (WIDTHS[3], 2 * WIDTHS[2], 2 * WIDTHS[1], 2 * WIDTHS[0])
        leaving = (WIDTHS[2], WIDTHS[1], WIDTHS[0], WIDTHS[0])
        self.decoder = nn.ModuleList(
            ConvUnit(before, after, upsample=True)
            for before, after in zip(entering, leaving, strict=True)
        )
        self.heat = nn.Conv2d(WIDTHS[0] + 3, keypoints, 7, padding=3)

    def forward(self, frame: Tensor) -> Tensor:
        """Map frames [N, 3, rows, cols] in 0..1 to points [N, K, 2] as (x, y) in -1..1."""
        skips = [self.anti_alias(frame)]
        for unit in self.encoder:
            skips.append(unit(skips[-1]))
        value = skips.pop()
        for unit in self.decoder:
            value = torch.cat([unit(value), skips.pop()], dim=1)
        heat = self.heat(value).float()
        share = torch.softmax(heat.flatten(2) / TEMPERATURE, dim=2).reshape(heat.shape)
        rows, cols = heat.shape[-2:]
        x = (share.sum(2) * torch.linspace(-1, 1, cols, device=heat.device)).sum(-1)
        y = (share.sum(3) * torch.linspace(-1, 1, rows, device=heat.device)).sum(-1)
        return torch.stack([x, y], dim=-1)


def load_detector(network: str) -> KeypointDetector:
    """Return the keypoint detector that was trained with that decoder, in eval mode."""
    detector = KeypointDetector()
    fill(detector, load_parts(DATA / f"agc_{network}_float.safetensors"), "detector")
    return detector.eval()


def coded(points: Tensor) -> Tensor:
    """Return points as the bitstream carries them: rounded to half precision."""
    return points.half().float()

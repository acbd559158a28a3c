"""Draws random (source, driving) training pairs on the training device.

Only training identities come from here; test clips lie in `clips.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workloads.training.pictures.faces import render
from workloads.training.pictures.heads import MOTION_NAMES, Identities, draw_identities
from workloads.training.pictures.motion import waves
from workloads.training.pictures.photos import FACES, moved_face, photo_tensor

#: Seconds of motion that a pair is drawn from.
CLIP_SECONDS = 8.0
#: Training identities are seeds 0 .. this; test identities lie far beyond.
TRAIN_IDENTITIES = 3000


class PairMaker:
    """Holds a bank of training heads and renders batches of pairs.

    `real_share`: share of each batch that shows the astronaut's face, warped.
    """

    def __init__(
        self, bank: int, rows: int, cols: int, device: str, real_share: float = 0.125
    ) -> None:
        chunks = []
        for start in range(0, bank, 64):
            seeds = list(range(start, min(start + 64, bank)))
            chunk = draw_identities(seeds, rows, cols, device)
            chunks.append(Identities(chunk.values, chunk.noise, chunk.backdrop.half()))
        self.bank = Identities(
            *(torch.cat([getattr(chunk, name) for chunk in chunks])
              for name in ("values", "noise", "backdrop"))
        )
        self.photo = photo_tensor("astronaut", device)
        self.size, self.device, self.real_share = (rows, cols), device, real_share

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return source and driving frames, each [count, 3, rows, cols] in 0..1."""
        device, bank = self.device, len(self.bank.values)
        index = torch.randint(bank, (count,), device=device)
        behind = torch.randint(bank, (count,), device=device)
        draws = torch.rand(count, len(MOTION_NAMES), 5, device=device)
        motion = waves(draws, CLIP_SECONDS * torch.rand(count, 2, device=device))
        real = round(self.real_share * count)
        drawn = self.bank.select(index[real:], behind[real:])
        both = Identities(*(torch.cat([getattr(drawn, name)] * 2)
                            for name in ("values", "noise", "backdrop")))
        frames = render(both, motion[real:].transpose(0, 1).flatten(0, 1))
        first, second = frames.chunk(2)
        if real:
            shown = moved_face(
                self.photo, FACES["astronaut"], motion[:real].transpose(0, 1).flatten(0, 1),
                *self.size,
            )
            flip = (torch.rand(real, 1, 1, 1, device=device) < 0.5).repeat(2, 1, 1, 1)
            tint = 0.8 + 0.4 * torch.rand(real, 3, 1, 1, device=device)
            shown = torch.where(flip, shown.flip(3), shown) * tint.repeat(2, 1, 1, 1)
            one, other = shown.clamp(0, 1).chunk(2)
            first, second = torch.cat([one, first]), torch.cat([other, second])
        # Frames reach the codec as 8-bit pictures.
        return (first * 255).round() / 255, (second * 255).round() / 255

"""Draws random (source, driving) training pairs on the training device.

Only training identities come from here; test clips lie in `clips.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workloads.training.pictures.faces import render
from workloads.training.pictures.heads import MOTION_NAMES, Identities, draw_identities
from workloads.training.pictures.motion import waves
from workloads.training.pictures.photos import (
    FACES,
    TRAIN_PHOTOS,
    moved_face,
    photo_tensor,
    random_places,
)

#: Seconds of motion that a pair is drawn from.
CLIP_SECONDS = 8.0
#: Training identities are seeds 0 .. this; test identities lie far beyond.
TRAIN_IDENTITIES = 3000


class PairMaker:
    """Holds a bank of training heads and renders batches of pairs.

    `real_share`: share of each batch that shows the astronaut's face, warped. `photo_share`: share
    that shows a random part of any of `TRAIN_PHOTOS`, warped as a face would be.
    """

    def __init__(
        self, bank: int, rows: int, cols: int, device: str, real_share: float = 0.125,
        photo_share: float = 0.0,
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
        self.photos = [photo_tensor(name, device) for name in TRAIN_PHOTOS]
        self.size, self.device = (rows, cols), device
        self.real_share, self.photo_share = real_share, photo_share

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Return source and driving frames, each [count, 3, rows, cols] in 0..1."""
        device, bank = self.device, len(self.bank.values)
        index = torch.randint(bank, (count,), device=device)
        behind = torch.randint(bank, (count,), device=device)
        draws = torch.rand(count, len(MOTION_NAMES), 5, device=device)
        motion = waves(draws, CLIP_SECONDS * torch.rand(count, 2, device=device))
        real, other = round(self.real_share * count), round(self.photo_share * count)
        warped = real + other
        drawn = self.bank.select(index[warped:], behind[warped:])
        both = Identities(*(torch.cat([getattr(drawn, name)] * 2)
                            for name in ("values", "noise", "backdrop")))
        frames = render(both, motion[warped:].transpose(0, 1).flatten(0, 1))
        first, second = frames.chunk(2)
        if real:
            place = torch.tensor(FACES["astronaut"], device=device).expand(2 * real, 4)
            first, second = self._shown(self.photo, place, motion[:real], first, second)
        for number in range(other):
            photo = self.photos[int(torch.randint(len(self.photos), (1,)))]
            place = random_places(1, *photo.shape[-2:]).to(device).expand(2, 4)
            at = real + number
            first, second = self._shown(photo, place, motion[at: at + 1], first, second)
        # Frames reach the codec as 8-bit pictures.
        return (first * 255).round() / 255, (second * 255).round() / 255

    def _shown(self, photo: Tensor, place: Tensor, motion: Tensor, first: Tensor,
               second: Tensor) -> tuple[Tensor, Tensor]:
        """Both frames with pairs of a warped photograph in front, mirrored and tinted at random."""
        count, device = len(motion), self.device
        shown = moved_face(photo, place, motion.transpose(0, 1).flatten(0, 1), *self.size)
        flip = (torch.rand(count, 1, 1, 1, device=device) < 0.5).repeat(2, 1, 1, 1)
        tint = 0.8 + 0.4 * torch.rand(count, 3, 1, 1, device=device)
        shown = torch.where(flip, shown.flip(3), shown) * tint.repeat(2, 1, 1, 1)
        one, other = shown.clamp(0, 1).chunk(2)
        return torch.cat([one, first]), torch.cat([other, second])


class Replay:
    """Keeps rendered pairs as bytes and renders only some anew for each batch.

    Rendering takes longer than the update of a small decoder. `fresh`: pairs rendered a batch;
    `most`: pairs kept, the oldest go first.
    """

    def __init__(self, pairs: PairMaker, fresh: int, most: int) -> None:
        self.pairs, self.fresh, self.made = pairs, fresh, 0
        self.kept = torch.empty(most, 2, 3, *pairs.size, dtype=torch.uint8, device=pairs.device)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """As `PairMaker.draw`; the first draws render whole batches."""
        new = self.fresh if self.made >= 8 * count else max(count, self.fresh)
        both = torch.stack(self.pairs.draw(new), dim=1)
        places = torch.arange(self.made, self.made + new, device=both.device) % len(self.kept)
        self.kept[places] = (both * 255).round().to(torch.uint8)
        self.made += new
        index = torch.randint(min(self.made, len(self.kept)), (count,), device=both.device)
        first, second = (self.kept[index].float() / 255).unbind(1)
        return first, second

"""Makes the numbered pictures that Unicorn is fitted to: photo crops and rendered heads.

Picture i is the same in every set that holds it; nothing here trains or measures.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from workloads.training.pictures.faces import render
from workloads.training.pictures.heads import draw_identities
from workloads.training.pictures.motion import draw_motion
from workloads.training.pictures.photos import NAMES, load_photo

SIZE = 256
#: Identities and motion of the rendered half start here, apart from all AGC clips.
FIRST_SEED = 500_000


def photo_crop(number: int) -> np.ndarray:
    """Return crop `number` as uint8 [256, 256, 3]: a square of 45-100 % of the short side.

    The crops cycle through nine photographs, so in a large set they overlap much.
    """
    generator = np.random.Generator(np.random.PCG64(FIRST_SEED + number))
    photo = load_photo(NAMES[number % len(NAMES)])
    side = int(min(photo.shape[:2]) * generator.uniform(0.45, 1.0))
    top = int(generator.integers(photo.shape[0] - side + 1))
    left = int(generator.integers(photo.shape[1] - side + 1))
    crop = photo[top : top + side, left : left + side]
    if generator.random() < 0.5:
        crop = crop[:, ::-1]
    picture = Image.fromarray(np.ascontiguousarray(crop))
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def rendered_heads(numbers: list[int], device: str = "cpu") -> np.ndarray:
    """Return the heads of those numbers as uint8 [N, 256, 256, 3]."""
    seeds = [FIRST_SEED + number for number in numbers]
    people = draw_identities(seeds, SIZE, SIZE, device)
    frames = draw_motion(seeds, torch.zeros(len(seeds), 1))[:, 0].to(device)
    pictures = render(people, frames).permute(0, 2, 3, 1)
    return (pictures * 255).round().to(torch.uint8).cpu().numpy()


def picture_set(count: int, device: str = "cpu", first: int = 0) -> np.ndarray:
    """Return pictures first .. first + count - 1 as uint8 [count, 256, 256, 3].

    Even numbers are photo crops, odd numbers rendered heads.
    """
    numbers = range(first, first + count)
    pictures = np.zeros((count, SIZE, SIZE, 3), dtype=np.uint8)
    odd = [number for number in numbers if number % 2]
    for start in range(0, len(odd), 32):
        chunk = odd[start : start + 32]
        drawn = rendered_heads([number // 2 for number in chunk], device)
        for number, picture in zip(chunk, drawn, strict=True):
            pictures[number - first] = picture
    for number in numbers:
        if number % 2 == 0:
            pictures[number - first] = photo_crop(number // 2)
    return pictures

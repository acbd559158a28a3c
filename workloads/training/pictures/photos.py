"""Reads the nine free photographs that ship beside it and moves the real faces among them.

All are copies from the data folders of scikit-image and matplotlib, made smaller and stored as
JPEG: astronaut, hubble (NASA), rocket (SpaceX), hopper (US Navy): public domain; chelsea, coffee,
retina, brick, gravel: CC0. It trains nothing.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from workloads.training.pictures.heads import MOTION_NAMES

PHOTOS = Path(__file__).parent / "photos.npz"
#: Face centre (x, y), half width of the face and half side of the crop, in pixels of the photo.
FACES = {"astronaut": (225.0, 108.0, 52.0, 106.0), "hopper": (266.0, 215.0, 110.0, 205.0)}
NAMES = (
    "astronaut", "hopper", "chelsea", "coffee", "rocket", "hubble", "retina", "brick", "gravel",
)
#: Photographs that AGC may train on; Grace Hopper and the cat are kept out for measuring.
TRAIN_PHOTOS = tuple(name for name in NAMES if name not in ("hopper", "chelsea"))


@lru_cache(maxsize=16)
def load_photo(name: str) -> np.ndarray:
    """Return a photograph [rows, cols, 3] as uint8; KeyError for an unknown name."""
    with np.load(PHOTOS, allow_pickle=False) as stored:
        return np.asarray(Image.open(io.BytesIO(stored[name].tobytes())).convert("RGB"))


def photo_tensor(name: str, device: str = "cpu") -> Tensor:
    """Return a photograph as [1, 3, rows, cols] in 0..1."""
    picture = torch.from_numpy(load_photo(name).copy()).to(device)
    return picture.permute(2, 0, 1)[None].float() / 255


def random_places(count: int, rows: int, cols: int) -> Tensor:
    """[count, 4] places as `moved_face` takes them, anywhere in a photograph of that size."""
    draws = torch.rand(count, 4)
    half = min(rows, cols) * (0.25 + 0.25 * draws[:, 0])
    centre_x = half + (cols - 2 * half) * draws[:, 1]
    centre_y = half + (rows - 2 * half) * draws[:, 2]
    return torch.stack([centre_x, centre_y, half * (0.3 + 0.4 * draws[:, 3]), half], dim=1)


def moved_face(
    photo: Tensor, place: Tensor, frames: Tensor, rows: int, cols: int
) -> Tensor:
    """Warp a real face by head motion: [N, 15] motion values to [N, 3, rows, cols].

    `place`: [N, 4]: centre x, centre y, half width of the face, half side of the crop, in photo
    pixels.
    The head region turns, shifts and scales as one; yaw and pitch move it like a dome. The warp
    fades out around the head, so the background stays. Mouth, eyes and light stay as they are.
    """
    motion = {key: frames[:, index, None, None] for index, key in enumerate(MOTION_NAMES)}
    centre_x, centre_y, face, half = place[:, :, None, None].unbind(1)
    device = photo.device
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, rows, device=device), torch.linspace(-1, 1, cols, device=device),
        indexing="ij",
    )
    radius = face / half
    away_x = x - 0.6 * motion["move_x"]
    away_y = y - 0.6 * (motion["move_y"] + 0.08)
    reach = ((away_x / (2.0 * radius)) ** 2 + (away_y / (2.4 * radius)) ** 2)
    weight = torch.exp(-(reach**1.5))
    dome = (1 - (away_x / (1.6 * radius)) ** 2 - (away_y / (2 * radius)) ** 2).clamp(min=0).sqrt()
    cos, sin = torch.cos(motion["roll"]), torch.sin(motion["roll"])
    turned_x = (cos * away_x + sin * away_y) / motion["scale"]
    turned_y = (cos * away_y - sin * away_x) / motion["scale"]
    turned_x = turned_x - 0.45 * radius * motion["yaw"] * dome
    turned_y = turned_y + 0.45 * radius * motion["pitch"] * dome
    from_x = (x + weight * (turned_x - x)) * half + centre_x
    from_y = (y + weight * (turned_y - y)) * half + centre_y
    high, wide = photo.shape[-2:]
    where = torch.stack([2 * from_x / (wide - 1) - 1, 2 * from_y / (high - 1) - 1], dim=-1)
    return functional.grid_sample(
        photo.expand(len(frames), -1, -1, -1), where, mode="bicubic", padding_mode="border",
        align_corners=True,
    ).clamp(0, 1)

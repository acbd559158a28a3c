"""Renders seeded talking heads: textured ellipsoids with pose, blink, mouth and light.

It draws frames only; which frames make a clip or a batch is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: Numbers per identity (drawn uniformly) and per frame (see `motion.py` for their order).
IDENTITY_VALUES = 48
MOTION_NAMES = (
    "yaw", "pitch", "roll", "move_x", "move_y", "scale", "blink", "brow",
    "mouth_open", "mouth_wide", "gaze_x", "gaze_y", "light_x", "light_y", "light",
)
NOISE_SIZE = 64


@dataclass(frozen=True)
class Identities:
    """A batch of N heads.

    `values` [N, 48] in 0..1, `noise` [N, 2, 64, 64], `backdrop` [N, 3, r, c].
    """

    values: Tensor
    noise: Tensor
    backdrop: Tensor

    def select(self, index: Tensor, backdrop_index: Tensor | None = None) -> Identities:
        """Return the heads of that index, if asked in front of other heads' backdrops."""
        behind = index if backdrop_index is None else backdrop_index
        return Identities(self.values[index], self.noise[index], self.backdrop[behind].float())


def soft(distance: Tensor, width: float) -> Tensor:
    """Return 1 inside (negative distance), 0 outside, with a ramp that many units wide."""
    return (0.5 - distance / width).clamp(0, 1)


def grow(noise: Tensor, rows: int, cols: int) -> Tensor:
    """Enlarge [N, C, a, b] smoothly to [N, C, rows, cols]."""
    return functional.interpolate(noise, (rows, cols), mode="bicubic", align_corners=False)


def draw_identities(seeds: list[int], rows: int, cols: int, device: str = "cpu") -> Identities:
    """Draw one identity per seed; random numbers come from the CPU, so every device agrees."""
    values, fine, coarse, shapes = [], [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(0x5EED_0000 + seed)
        values.append(torch.rand(IDENTITY_VALUES, generator=generator))
        fine.append(torch.randn(3, NOISE_SIZE, NOISE_SIZE, generator=generator))
        coarse.append(torch.randn(3, 6, 6, generator=generator))
        shapes.append(torch.rand(6, 8, generator=generator))
    value, grain = torch.stack(values).to(device), torch.stack(fine).to(device)
    smooth = grow(functional.avg_pool2d(grain[:, :2], 4), NOISE_SIZE, NOISE_SIZE)
    backdrop = draw_backdrop(
        value[:, 40:], grain[:, 2:], torch.stack(coarse).to(device),
        torch.stack(shapes).to(device), rows, cols,
    )
    return Identities(value, 0.35 * grain[:, :2] + 1.5 * smooth, backdrop)


def draw_backdrop(
    value: Tensor, grain: Tensor, coarse: Tensor, shapes: Tensor, rows: int, cols: int
) -> Tensor:
    """Return [N, 3, rows, cols] backdrops: colour clouds, grain, boxes, discs and stripes."""
    # Rooms are mostly grey with a tint, so colour gets a smaller share than brightness.
    grey, vivid = coarse.mean(1, keepdim=True), 0.35 * value[:, 4, None, None, None] ** 2
    tint = 0.3 * (value[:, 5:8] - 0.5)[:, :, None, None]
    picture = 0.5 + tint + 0.2 * grow(grey + vivid * (coarse - grey), rows, cols)
    picture = picture + (0.05 * value[:, 0, None, None, None]) * grow(grain, rows, cols)
    y = torch.linspace(-1, 1, rows, device=value.device)[None, :, None]
    x = torch.linspace(-1, 1, cols, device=value.device)[None, None, :]
    for index in range(shapes.shape[1]):
        part = shapes[:, index, :, None, None]
        centre_x, centre_y = 2 * part[:, 0] - 1, 2 * part[:, 1] - 1
        wide, high = 0.08 + 0.4 * part[:, 2], 0.08 + 0.4 * part[:, 3]
        across, down = (x - centre_x).abs() / wide, (y - centre_y).abs() / high
        box, disc = torch.maximum(across, down) - 1, (across**2 + down**2).sqrt() - 1
        inside = soft(torch.where(part[:, 7] < 0.5, box, disc), 0.06)[:, None]
        grey = part[:, 4:7].mean(1, keepdim=True)
        colour = grey + (0.3 + 0.5 * value[:, 4, None, None, None]) * (part[:, 4:7] - grey)
        strength = 0.75 if index < 4 else 0.4
        picture = picture + strength * inside * (colour - picture)
    angle, pitch = 3.14 * value[:, 1, None, None], 6 + 30 * value[:, 2, None, None]
    stripes = torch.sin(pitch * (x * torch.cos(angle) + y * torch.sin(angle)))
    amount = 0.12 * (value[:, 3, None, None] - 0.5).clamp(min=0)
    return (picture + (amount * stripes)[:, None]).clamp(0, 1)


def rotation(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Return [N, 3, 3] matrices that turn head coordinates (x right, y down, z out) to camera."""
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*cells: Tensor) -> Tensor:
        return torch.stack(cells, dim=-1).reshape(-1, 3, 3)

    cos, sin = torch.cos, torch.sin
    about_y = matrix(cos(yaw), zero, sin(yaw), zero, one, zero, -sin(yaw), zero, cos(yaw))
    about_x = matrix(one, zero, zero, zero, cos(pitch), -sin(pitch), zero, sin(pitch), cos(pitch))
    about_z = matrix(cos(roll), -sin(roll), zero, sin(roll), cos(roll), zero, zero, zero, one)
    return about_z @ about_y @ about_x


@dataclass(frozen=True)
class Camera:
    """How one batch of frames looks at its heads, seen orthographically.

    `origin` [N, 3, r, c]: pixel in head coordinates on the plane z = 0. `turn`: head to camera.
    `light` [N, 3]: unit vector to the light. `pixel` [N]: head units per pixel.
    """

    origin: Tensor
    turn: Tensor
    light: Tensor
    pixel: Tensor

    def hit(self, centre: Tensor, radii: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Meet an ellipsoid: cover, unit point [N, 3, r, c], shade [N, r, c]."""
        ray = (self.turn[:, 2] / radii)[:, :, None, None]
        start = (self.origin - centre[:, :, None, None]) / radii[:, :, None, None]
        square, along = (ray**2).sum(1), (start * ray).sum(1)
        inside = along**2 - square * ((start**2).sum(1) - 1)
        depth = (inside.clamp(min=0).sqrt() - along) / square
        point = start + depth[:, None] * ray
        # The ramp is about one pixel of the silhouette, so edges are smooth.
        ramp = (2 * self.pixel / radii[:, :2].mean(1))[:, None, None]
        cover = (inside / square / ramp + 0.5).clamp(0, 1)
        normal = functional.normalize(point / radii[:, :, None, None], dim=1)
        towards = torch.einsum("nij,ni->nj", self.turn, self.light)
        return cover, point, (normal * towards[:, :, None, None]).sum(1)


def look(motion: dict[str, Tensor], size: Tensor, rows: int, cols: int, follow: float) -> Camera:
    """Return the camera of a part that follows the head's pose by that share (1 head, 0 body)."""
    turn = rotation(*(follow * motion[name] for name in ("yaw", "pitch", "roll")))
    scale = size * (1 + (motion["scale"] - 1) * (0.5 + 0.5 * follow))
    share = 0.45 + 0.55 * follow
    device = size.device
    y = torch.linspace(-1, 1, rows, device=device)[None, :, None]
    x = torch.linspace(-1, 1, cols, device=device)[None, None, :]
    x = (x - share * motion["move_x"][:, None, None]) / scale[:, None, None]
    y = (y - share * motion["move_y"][:, None, None]) / scale[:, None, None]
    origin = x[:, None] * turn[:, 0, :, None, None] + y[:, None] * turn[:, 1, :, None, None]
    light = torch.stack([motion["light_x"], motion["light_y"], torch.ones_like(scale)], dim=1)
    return Camera(origin, turn, functional.normalize(light, dim=1), 2 / cols / scale)


def over(picture: Tensor, cover: Tensor, colour: Tensor) -> Tensor:
    """Lay a colour [N, 3, r, c] or [N, 3] with cover [N, r, c] over a picture."""
    if colour.ndim == 2:
        colour = colour[:, :, None, None]
    return picture + cover[:, None] * (colour - picture)


def texture(noise: Tensor, point: Tensor, stretch: tuple[float, float]) -> Tensor:
    """Look noise [N, 1, s, s] up at the unit-sphere point's longitude and height; [N, r, c]."""
    longitude = torch.atan2(point[:, 0], point[:, 2].clamp(min=1e-3)) / 1.6
    place = torch.stack([longitude * stretch[0], point[:, 1] * stretch[1]], dim=-1)
    return functional.grid_sample(noise, place, padding_mode="reflection", align_corners=True)[:, 0]

"""Paints faces on rendered heads and composes the whole frame, back to front.

It decides what a head looks like at one instant; motion over time lies in `motion.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workloads.training.pictures.heads import (
    MOTION_NAMES,
    Camera,
    Identities,
    look,
    over,
    soft,
    texture,
)

# Skin, lip, hair and iris colours run between these ends (red, green, blue in 0..1).
SKIN = ((0.32, 0.19, 0.13), (0.96, 0.78, 0.67))
HAIR = ((0.08, 0.06, 0.05), (0.82, 0.62, 0.34))


def blend(ends: tuple[tuple[float, ...], ...], share: Tensor) -> Tensor:
    """Return colours [N, 3] between two ends by a share [N]."""
    low, high = (torch.tensor(end, device=share.device) for end in ends)
    return low + share[:, None] * (high - low)


def paint_face(
    colour: Tensor, point: Tensor, value: Tensor, motion: dict[str, Tensor], hair: Tensor
) -> Tensor:
    """Lay eyes, brows, mouth, cheeks and glasses on skin [N, 3, r, c] at unit points."""
    u, v, front = point[:, 0], point[:, 1], point[:, 2] > 0.05

    def spread(number: Tensor) -> Tensor:
        return number[:, None, None]

    def constant(red: float, green: float, blue: float) -> Tensor:
        return torch.tensor([red, green, blue], device=u.device).expand(len(u), 3)

    blush = torch.exp(-(((u.abs() - 0.5) / 0.18) ** 2) - ((v - 0.2) / 0.16) ** 2)
    colour = over(colour, 0.3 * spread(value[:, 20]) * blush * front, constant(0.85, 0.35, 0.32))
    eye_u, eye_v = spread(0.3 + 0.1 * value[:, 10]), spread(-0.16 + 0.1 * value[:, 11])
    wide, high = spread(0.14 + 0.05 * value[:, 12]), spread(0.075 + 0.04 * value[:, 13])
    opening = (high * (1 - spread(motion["blink"]))).clamp(min=0.008)
    iris_colour = torch.stack([0.1 + 0.3 * value[:, 14], 0.15 + 0.3 * value[:, 15],
                               0.1 + 0.5 * value[:, 16]], dim=1)
    tilt = spread(0.25 * (value[:, 17] - 0.5))
    brow_v = eye_v - spread(0.14 + 0.06 * value[:, 18] + 0.1 * motion["brow"])
    thick = spread(0.025 + 0.03 * value[:, 19])
    for side in (-1.0, 1.0):
        across, down = u - side * eye_u, v - eye_v
        lid = ((across / (wide * 1.25)) ** 2 + (down / (high * 1.5)) ** 2).sqrt() - 1
        colour = over(colour, 0.35 * soft(lid, 0.5) * front, 0.5 * hair)
        white = ((across / wide) ** 2 + (down / opening) ** 2).sqrt() - 1
        inside = soft(white, 0.2) * front
        colour = over(colour, inside, constant(0.93, 0.92, 0.9))
        seen_u = across - 0.07 * spread(motion["gaze_x"])
        seen_v = down - 0.04 * spread(motion["gaze_y"])
        radius = (seen_u**2 + (0.9 * seen_v) ** 2).sqrt()
        colour = over(colour, inside * soft(radius - 0.075, 0.02), iris_colour)
        colour = over(colour, inside * soft(radius - 0.034, 0.015), constant(0.02, 0.02, 0.02))
        glint = ((seen_u + 0.025) ** 2 + (seen_v + 0.025) ** 2).sqrt()
        colour = over(colour, inside * soft(glint - 0.014, 0.012), constant(1.0, 1.0, 1.0))
        line = soft(white.abs() - 0.05, 0.18) * (down < 0.2 * opening) * front
        colour = over(colour, 0.8 * line, constant(0.1, 0.06, 0.05))
        bend = v - brow_v - side * tilt * across + 1.2 * across**2
        brow = soft(bend.abs() - thick, 0.03) * soft(across.abs() - 1.15 * wide, 0.06) * front
        colour = over(colour, 0.9 * brow, 0.7 * hair)
        glasses = spread(value[:, 21] > 0.8)
        ring = ((across / 0.24) ** 2 + (down / 0.2) ** 2).sqrt() - 1
        frame = glasses * soft(ring.abs() - 0.06, 0.08) * front
        colour = over(colour, frame, constant(0.1, 0.1, 0.12))
    return paint_mouth(colour, u, v, front, value, motion)


def paint_mouth(
    colour: Tensor, u: Tensor, v: Tensor, front: Tensor, value: Tensor, motion: dict[str, Tensor]
) -> Tensor:
    """Lay lips, mouth hole, teeth and nostrils on the skin."""

    def spread(number: Tensor) -> Tensor:
        return number[:, None, None]

    gape = spread(motion["mouth_open"])
    wide = spread((0.24 + 0.08 * value[:, 22]) * (1 + 0.3 * motion["mouth_wide"]))
    wide = wide * (1 - 0.15 * gape)
    full = spread(0.035 + 0.03 * value[:, 23])
    smile = spread(0.5 * motion["mouth_wide"] + 0.3 * (value[:, 24] - 0.5))
    down = v - 0.46 - 0.05 * gape + smile * u**2 * 1.6
    lips = torch.stack([0.5 + 0.4 * value[:, 25], 0.15 + 0.25 * value[:, 26],
                        0.17 + 0.2 * value[:, 27]], dim=1)
    outer = ((u / wide) ** 2 + (down / (full + 0.13 * gape + 0.012)) ** 2).sqrt() - 1
    colour = over(colour, 0.85 * soft(outer, 0.2) * front, lips)
    inner = ((u / (0.85 * wide)) ** 2 + (down / (0.115 * gape + 0.006)) ** 2).sqrt() - 1
    hole = soft(inner, 0.25) * front
    colour = over(colour, hole, torch.zeros_like(lips) + 0.08)
    teeth = soft(down + 0.035 * gape, 0.03) * (gape > 0.2)
    colour = over(colour, 0.9 * hole * teeth, torch.zeros_like(lips) + 0.88)
    for side in (-0.07, 0.07):
        spot = (((u - side) / 0.04) ** 2 + ((v - 0.25) / 0.022) ** 2).sqrt() - 1
        colour = over(colour, 0.6 * soft(spot, 0.4) * front, 0.25 * lips)
    return colour


@dataclass(frozen=True)
class Painter:
    """Lays lit, grainy ellipsoids on a picture of N people; `glow`: light of each [N, 1, 1]."""

    people: Identities
    glow: Tensor

    def place(self, x: float, y: float, z: float) -> Tensor:
        """One point of the space of the heads, for everybody."""
        return self.scaled(x, y, z).expand(len(self.people.values), 3)

    def scaled(self, x: float, y: float, z: float) -> Tensor:
        """Three numbers beside the people's own."""
        return torch.tensor([x, y, z], device=self.people.values.device)

    def lit(self, colour: Tensor, shade: Tensor, gloss: float = 0.0) -> Tensor:
        """A colour in the light."""
        if colour.ndim == 2:
            colour = colour[:, :, None, None]
        bright = self.glow * (0.5 + 0.55 * shade.clamp(min=0))
        return (colour * bright[:, None]
                + gloss * (shade.clamp(min=0) ** 12 * self.glow)[:, None])

    def blob(self, camera: Camera, picture: Tensor, centre: Tensor, size: Tensor, colour: Tensor,
             grain: float, show: Tensor | float = 1.0) -> Tensor:
        """The picture with one ellipsoid more in front."""
        cover, point, shade = camera.hit(centre, size)
        marks = 1 + grain * texture(self.people.noise[:, 1:], point, (0.9, 0.5))
        painted = self.lit(colour, shade) * marks[:, None]
        return over(picture, cover * show, painted)


def paint_behind_face(painter: Painter, head: Camera, body: Camera, radii: Tensor, skin: Tensor,
                      hair: Tensor, mouth_open: Tensor) -> Tensor:
    """The backdrop with torso, long hair, neck, ears and jaw."""
    value, place, blob = painter.people.values, painter.place, painter.blob
    cloth = 0.08 + 0.8 * value[:, 31:34]
    long_hair = (value[:, 7] > 0.5).float()[:, None, None]
    picture = blob(body, painter.people.backdrop, place(0.0, 1.45, -0.1), place(0.95, 0.72, 0.4),
                   cloth, 0.18)
    stretch = painter.scaled(1.2, 1.15, 1.0)
    back = place(0.0, 0.1, -0.14)
    picture = blob(head, picture, back, radii * stretch, 0.8 * hair, 0.3, long_hair)
    picture = blob(body, picture, place(0.0, 0.7, -0.1), place(0.2, 0.36, 0.22), 0.8 * skin, 0.03)
    for side in (-1.0, 1.0):
        centre = radii * painter.scaled(side * 0.98, 0.02, -0.05)
        picture = blob(head, picture, centre, place(0.07, 0.13, 0.08), 0.9 * skin, 0.05)
    drop = mouth_open[:, None] * painter.scaled(0.0, 0.05, 0.0)
    chin = radii * painter.scaled(0.0, 0.42, 0.12) + drop
    shape = radii * painter.scaled(0.78, 0.62, 0.8)
    return blob(head, picture, chin, shape, skin, 0.04)


def render(people: Identities, frames: Tensor) -> Tensor:
    """Render one frame per head: [N, 15] motion values to [N, 3, rows, cols] in 0..1.

    Columns of `frames` are MOTION_NAMES; rows and columns are those of the backdrops.
    """
    value, rows, cols = people.values, *people.backdrop.shape[-2:]
    motion = {name: frames[:, index] for index, name in enumerate(MOTION_NAMES)}
    size = 0.9 + 0.25 * value[:, 0]
    head, body = look(motion, size, rows, cols, 1.0), look(motion, size, rows, cols, 0.0)
    radii = torch.stack([0.4 + 0.08 * value[:, 1], 0.54 + 0.08 * value[:, 2],
                         0.46 + 0.06 * value[:, 3]], dim=1)
    skin, hair = blend(SKIN, value[:, 4]), blend(HAIR, value[:, 5] * value[:, 6])
    skin = skin * (0.92 + 0.16 * value[:, 28:31])
    painter = Painter(people, motion["light"][:, None, None])
    picture = paint_behind_face(painter, head, body, radii, skin, hair, motion["mouth_open"])

    cover, point, shade = head.hit(painter.place(0.0, 0.0, 0.0), radii)
    pores = 1 + 0.07 * texture(people.noise[:, :1], point, (0.8, 0.8))
    colour = skin[:, :, None, None] * pores[:, None]
    beard = (value[:, 8] > 0.75).float() * 0.7
    stubble = soft(0.36 - point[:, 1] + 0.1 * texture(people.noise[:, 1:], point, (2.0, 2.0)), 0.12)
    colour = over(colour, stubble * beard[:, None, None], 0.6 * hair + 0.15 * skin)
    colour = paint_face(colour, point, value, motion, hair)
    strands = texture(people.noise[:, 1:], point, (1.6, 0.35))
    fringe = (-0.42 - 0.25 * value[:, 9])[:, None, None] + 0.35 * point[:, 0] ** 2
    line = point[:, 1] - fringe - 0.06 * strands - 0.5 * (0.35 - point[:, 2]).clamp(min=0)
    strand_colour = hair[:, :, None, None] * (1 + 0.4 * strands)[:, None]
    colour = over(colour, soft(line, 0.06) * (value[:, 34] > 0.08)[:, None, None], strand_colour)
    picture = over(picture, cover, painter.lit(colour, shade, 0.06))
    bridge = radii * painter.scaled(0.0, 0.14, 0.95)
    nose = torch.stack([0.045 + 0.03 * value[:, 35], 0.1 + 0.05 * value[:, 36],
                        0.08 + 0.06 * value[:, 37]], dim=1)
    cover, point, shade = head.hit(bridge, nose)
    fade = soft(-point[:, 1] - 0.3, 1.2)
    return over(picture, cover * fade, painter.lit(skin, shade, 0.1)).clamp(0, 1)

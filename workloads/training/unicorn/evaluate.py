"""Measures the shipped Unicorn decoders against JPEG and WebP at the nearest rate.

It measures the float decoders only, at the rate that 8-bit weights would have. `cosim train
measure-unicorn` runs it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from workloads.training.metrics import Judge, average, measure
from workloads.training.pictures.picture_set import picture_set
from workloads.unicorn.config import bits_per_pixel
from workloads.unicorn.torch import UnicornDecoder, load_unicorn


@torch.no_grad()
def decode(decoder: UnicornDecoder, numbers: list[int]) -> np.ndarray:
    """Return the pictures of those numbers as uint8 [N, rows, cols, 3]."""
    found = [decoder(torch.tensor([number])) for number in numbers]
    pictures = torch.cat(found).permute(0, 2, 3, 1)
    return (pictures * 255).round().to(torch.uint8).numpy()


def compress(picture: np.ndarray, kind: str, quality: int) -> tuple[np.ndarray, float]:
    """Return a uint8 picture as JPEG or WebP gives it back, and its bits per pixel (whole file)."""
    stream = io.BytesIO()
    extra = {"method": 6} if kind == "WEBP" else {"optimize": True}
    Image.fromarray(picture).save(stream, kind, quality=quality, **extra)
    found = np.asarray(Image.open(stream).convert("RGB"))
    return found, 8 * len(stream.getvalue()) / (picture.shape[0] * picture.shape[1])


def nearest_rate(pictures: np.ndarray, kind: str, wanted: float,
                 judge: Judge = measure) -> dict[str, float]:
    """Return the mean measures of one codec at the quality whose mean rate is nearest `wanted`."""

    def rate(quality: int) -> float:
        return float(np.mean([compress(picture, kind, quality)[1] for picture in pictures]))

    low, high = 1, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rate(middle) < wanted else (low, middle)
    quality = min((low, high), key=lambda tried: abs(rate(tried) - wanted))
    rows = [judge(compress(picture, kind, quality)[0], picture) for picture in pictures]
    return {"bits_per_pixel": rate(quality), "quality": quality, **average(rows)}


def run(networks: Sequence[str], count: int) -> Iterator[dict[str, object]]:
    """A row for each network and answer, with rate and mean measures, as it is made.

    `count`: pictures, from the first of the set on.
    """
    pictures = picture_set(count)
    for name in networks:
        config, decoder = load_unicorn(name)
        rate = bits_per_pixel(config, decoder.parameter_count())
        found = decode(decoder, list(range(count)))
        answers = {
            "float": {"bits_per_pixel": rate,
                      **average([measure(*pair) for pair in zip(found, pictures, strict=True)])},
            "jpeg": nearest_rate(pictures, "JPEG", rate),
            "webp": nearest_rate(pictures, "WEBP", rate),
        }
        for answer, measures in answers.items():
            yield {"network": f"unicorn-{name}", "pictures": f"first of {config.images}",
                   "count": count, "answer": answer, **measures}

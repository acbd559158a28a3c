"""Decodes a real face that no training saw, beside JPEG and WebP at the bits of the same stream.

It trains nothing. The face is Grace Hopper's photograph moved as heads are; no mouth opens. Needs
the extras `torch`, `quality` and `dev` (pillow). `cosim study quality --real` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from studies.headline.perceptual import judged
from studies.headline.quality import Row, agc_integers
from workloads.frames import AGC_TRAINED
from workloads.library import load
from workloads.training.metrics import average
from workloads.training.pictures.clips import ClipPair, clip
from workloads.training.unicorn.evaluate import compress

#: Frames of a group: one source picture, then keypoints; at 25 a second.
GROUP, RATE = 25, 25
#: How the source picture is sent: well, and as small as pictures still pass.
SOURCE_KIND, SOURCE_QUALITIES = "WEBP", (90, 30)
#: Bits of ten keypoints in half precision.
POINT_BITS = 10 * 2 * 16
#: A still codec may send a smaller picture: sides are divided by these.
SHRINKS = (1, 2, 4, 8)


def rows(networks: Iterable[str] = tuple(AGC_TRAINED), count: int = 6, seed: int = 1,
         qualities: Iterable[int] = SOURCE_QUALITIES) -> list[Row]:
    """Integer decoders, the repeated source, and both codecs at the mean rate of a group, for each
    quality of the source picture.

    `count` of the group's frames, evenly spaced, are measured. Bits are those of the whole group:
    the source's file and keypoints of every frame, over its pixels.
    """
    groups = {name: _group(AGC_TRAINED[name], count, seed) for name in networks}
    return [row for quality in qualities for row in _at(groups, quality)]


def _at(groups: Mapping[str, list[ClipPair]], quality: int) -> Iterator[Row]:
    pairs = next(iter(groups.values()))  # networks differ in their keypoints alone
    rate = group_rate(pairs[0].source, quality)
    source = compress(pairs[0].source, SOURCE_KIND, quality)[0]
    pictures = np.stack([pair.driving for pair in pairs])
    answers = [(f"{name}, int8", rate, [agc_integers(load(name), replace(pair, source=source))
                                        for pair in own]) for name, own in groups.items()]
    answers += [("repeat the source", rate - POINT_BITS / source[..., 0].size,
                 [source] * len(pairs))]
    answers += [(told, bits, list(made)) for told, bits, made in stills(pictures, rate)]
    for told, bits, made in answers:
        measured = average([judged(*pair) for pair in zip(made, pictures, strict=True)])
        yield {"network": f"Grace Hopper, source at {quality}", "format": told,
               "pictures": len(pairs), "bits_per_pixel": bits, **measured}


def _group(short: str, count: int, seed: int) -> list[ClipPair]:
    times = np.linspace(GROUP / count, GROUP - 1, count) / RATE
    return clip("hopper", seed, [float(time) for time in times], short)


def group_rate(source: np.ndarray, quality: int) -> float:
    """Mean bits a pixel of a group with this source picture, sent at a quality."""
    sent = compress(source, SOURCE_KIND, quality)[1]
    return sent / GROUP + POINT_BITS / source[..., 0].size


def stills(pictures: np.ndarray, wanted: float) -> Iterator[tuple[str, float, np.ndarray]]:
    """Each codec's best answer within a rate: name, bits a pixel, pictures (N, rows, columns, 3).

    Every picture is a file of its own; it may be sent smaller and made larger again. Where no
    file is so small, the smallest.
    """
    for kind in ("JPEG", "WEBP"):
        tried = [(shrink, *_within(pictures, kind, wanted, shrink)) for shrink in SHRINKS]
        inside = [item for item in tried if item[1] <= wanted]
        if inside:
            shrink, rate, made = min(inside, key=lambda item: _error(item[2], pictures))
        else:
            shrink, rate, made = min(tried, key=lambda item: item[1])
        size = "" if shrink == 1 else f", sent at 1/{shrink} of the size"
        yield f"{kind}{size}", rate, made


def _within(pictures: np.ndarray, kind: str, wanted: float,
            shrink: int) -> tuple[float, np.ndarray]:
    """The greatest quality whose mean rate is within the wanted one, or the least: its rate and
    pictures."""
    low, high = 1, 100
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _sent(pictures, kind, middle, shrink)[0] <= wanted else (
            low, middle)
    return _sent(pictures, kind, low, shrink)


def _sent(pictures: np.ndarray, kind: str, quality: int, shrink: int) -> tuple[float, np.ndarray]:
    made, bits = [], []
    for picture in pictures:
        rows, columns = picture.shape[:2]
        small = np.asarray(_resized(picture, (columns // shrink, rows // shrink)))
        back, rate = compress(small, kind, quality)
        made.append(_resized(back, (columns, rows)))
        bits.append(rate / shrink**2)
    return float(np.mean(bits)), np.stack(made)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _error(found: np.ndarray, wanted: Sequence[np.ndarray] | np.ndarray) -> float:
    return float(np.mean((found.astype(float) - wanted) ** 2))

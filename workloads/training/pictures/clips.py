"""Gives seeded AGC pairs as numpy arrays: for calibration, and for tests on unseen heads.

Calibration pairs show training identities; test identities and motions occur nowhere else. `cosim
train frame` writes the one pair that emitted projects ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arch_models.output import write_whole
from workloads.agc.config import TRAINED
from workloads.training.pictures.batches import CLIP_SECONDS, TRAIN_IDENTITIES
from workloads.training.pictures.faces import render
from workloads.training.pictures.heads import draw_identities
from workloads.training.pictures.keypoints import KeypointDetector, coded, load_detector
from workloads.training.pictures.motion import draw_motion
from workloads.training.pictures.photos import FACES, moved_face, photo_tensor

ROWS = COLS = 256
#: Clips that can be shown: a rendered head that is held out, and the two real faces.
CLIPS = ("head", *reversed(FACES))
#: Where the seeds of held-out identities and of each use's motions begin.
TEST_IDENTITY, TEST_MOTION, CALIBRATION_MOTION = 1_000_000, 2_000_000, 3_000_000


@dataclass(frozen=True)
class ClipPair:
    """One source and one driving frame with the keypoints that the bitstream carries.

    `source`, `driving`: uint8 [rows, cols, 3]. `source_points`, `driving_points`: float16
    [K, 2] as (x, y), -1..1 across the frame. `name` says which head it shows.
    """

    name: str
    source: np.ndarray
    driving: np.ndarray
    source_points: np.ndarray
    driving_points: np.ndarray


def as_bytes(frame: Tensor) -> np.ndarray:
    """Return a [3, rows, cols] frame in 0..1 as uint8 [rows, cols, 3]."""
    return (frame.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()


def as_tensor(frame: np.ndarray) -> Tensor:
    """Return a uint8 [rows, cols, 3] frame as [1, 3, rows, cols] in 0..1."""
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255


def head_frames(identity: int, motion: int, times: list[float]) -> list[np.ndarray]:
    """Return uint8 frames of one seeded head at times in seconds of one seeded motion."""
    person = draw_identities([identity], ROWS, COLS)
    values = draw_motion([motion], torch.tensor([times]))[0]
    return [as_bytes(render(person, value[None])[0]) for value in values]


def real_frames(name: str, motion: int, times: list[float]) -> list[np.ndarray]:
    """Return uint8 frames of a real face ("astronaut", "hopper") warped by a seeded motion."""
    values = draw_motion([motion], torch.tensor([times]))[0]
    place = torch.tensor(FACES[name]).expand(len(values), 4)
    frames = moved_face(photo_tensor(name), place, values, ROWS, COLS)
    return [as_bytes(frame) for frame in frames]


@torch.no_grad()
def make_pair(
    detector: KeypointDetector, name: str, source: np.ndarray, driving: np.ndarray
) -> ClipPair:
    """Return two frames with their coded keypoints."""
    points = [coded(detector(as_tensor(frame)))[0].half().numpy() for frame in (source, driving)]
    return ClipPair(name, source, driving, *points)


def two_times(seed: int) -> list[float]:
    """Return the source's time 0 and a driving time of 0.4 s or more, seeded."""
    share = torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()
    return [0.0, 0.4 + share * (CLIP_SECONDS - 0.4)]


def calibration_clips(count: int, seed: int, network: str = "w16") -> list[ClipPair]:
    """Return `count` pairs of training identities, one in eight the astronaut's real face."""
    detector, pairs = load_detector(network), []
    for number in range(count):
        motion = CALIBRATION_MOTION + 10_000 * seed + number
        if number % 8 == 7:
            name, frames = "astronaut", real_frames("astronaut", motion, two_times(motion))
        else:
            identity = (10_007 * seed + 37 * number) % TRAIN_IDENTITIES
            name, frames = f"train{identity}", head_frames(identity, motion, two_times(motion))
        pairs.append(make_pair(detector, name, *frames))
    return pairs


def test_clips(count: int, seed: int, network: str = "w16") -> list[ClipPair]:
    """Return `count` pairs of held-out identities under held-out motions, rendered heads only."""
    detector, pairs = load_detector(network), []
    for number in range(count):
        identity = TEST_IDENTITY + 10_000 * seed + number
        motion = TEST_MOTION + 10_000 * seed + number
        frames = head_frames(identity, motion, two_times(motion))
        pairs.append(make_pair(detector, f"test{identity}", *frames))
    return pairs


def real_clips(count: int, seed: int, network: str = "w16", name: str = "hopper") -> list[ClipPair]:
    """Return `count` pairs of a real face; "hopper" was never trained on, "astronaut" was."""
    detector, pairs = load_detector(network), []
    for number in range(count):
        motion = TEST_MOTION + 10_000 * seed + 5_000 + number
        pairs.append(make_pair(detector, name, *real_frames(name, motion, two_times(motion))))
    return pairs


def clip(kind: str, seed: int, times: list[float], network: str = "w16") -> list[ClipPair]:
    """Return a pair for each time in seconds of one motion, all from the same source at time 0.

    `kind`: one of `CLIPS`. Head and motion are those of the held-out pair of that number.
    """
    motion = TEST_MOTION + seed
    wanted = [0.0, *times]
    frames = (head_frames(TEST_IDENTITY + seed, motion, wanted) if kind == "head"
              else real_frames(kind, motion, wanted))
    detector = load_detector(network)
    return [make_pair(detector, kind, frames[0], frame) for frame in frames[1:]]


def quarter(frame: np.ndarray) -> np.ndarray:
    """Return a uint8 frame with a quarter of the rows and columns: means of 4 x 4 pixels."""
    rows, cols = frame.shape[0] // 4, frame.shape[1] // 4
    return np.rint(frame.reshape(rows, 4, cols, 4, 3).mean((1, 3))).astype(np.uint8)


def write_shipped_pair(path: Path) -> None:
    """Write `workloads.frames.AGC_FRAME`: a real face that was never trained on, and its motion.

    Of the first twelve real pairs it is the one that the shipped decoders follow best.
    """
    pairs = {name: real_clips(12, 0, name)[11] for name in TRAINED}
    first = pairs["w16"]
    points: dict[str, Any] = {name: np.stack([pair.source_points, pair.driving_points])
                              for name, pair in pairs.items()}
    write_whole(path, lambda file: np.savez_compressed(
        file, source=first.source, driving_quarter=quarter(first.driving), **points))


# The name begins with "test" for its meaning; pytest must not collect it where it is imported.
test_clips.__test__ = False  # type: ignore[attr-defined]

"""Decodes a clip with a shipped network: float beside the integer reference, and their difference.

It predicts no time and runs no hardware; the integers are those that the hardware makes. Needs
torch, which the float decoders and the heads are made of. `cosim decode` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from studies.headline.quality import difference
from studies.plain.errors import UserError, nearest
from studies.plain.terminal import grid
from workloads.agc.graph import frame_bytes, frame_inputs
from workloads.agc.torch import load_agc
from workloads.frames import AGC_TRAINED
from workloads.graph import Graph, Phase
from workloads.library import ALIASES, load
from workloads.reference import execute
from workloads.training.agc import evaluate as evaluate_agc
from workloads.training.metrics import psnr_db
from workloads.training.pictures.clips import CLIPS, ClipPair, clip
from workloads.training.pictures.picture_set import picture_set
from workloads.training.unicorn import evaluate as evaluate_unicorn
from workloads.unicorn.graph import INDEX_TABLE
from workloads.unicorn.run import picture
from workloads.unicorn.torch import load_unicorn

#: Shipped networks with trained weights whose float decoder ships too: their short names.
UNICORN_NAMES = dict.fromkeys(
    ("unicorn-n256-int8", "unicorn-n256-one-step", "unicorn-n256-one-step-4bit"), "n256") | {
        "unicorn-n1024-one-step": "n1024"}
#: Pictures a second of a clip.
RATE = 25
COLUMNS = ("wanted", "float", "int8", "four times the difference of int8 to float")


@dataclass(frozen=True)
class Request:
    """What to decode: `clip` one of `CLIPS` (AGC), `seed` of the head and its motion, `frames`."""

    network: str
    frames: int = 50
    clip: str = "head"
    seed: int = 0


@dataclass(frozen=True)
class DecodedFrame:
    """One picture three times, each uint8 (rows, columns, 3): wanted, float, integer."""

    number: int
    wanted: np.ndarray
    real: np.ndarray
    integer: np.ndarray

    def row(self) -> dict[str, float]:
        """PSNR in dB: both against the picture that was wanted, and one against the other."""
        return {"frame": self.number, "float_psnr_db": psnr_db(self.real, self.wanted),
                "int8_psnr_db": psnr_db(self.integer, self.wanted),
                "int8_against_float_psnr_db": psnr_db(self.integer, self.real)}

    def panel(self) -> np.ndarray:
        """The pictures beside one another, in the order of `COLUMNS`."""
        return np.hstack([self.wanted, self.real, self.integer,
                          difference(self.integer, self.real)])


def check(request: Request) -> str:
    """The network's full name; `UserError` where there is nothing to look at."""
    name = ALIASES.get(request.network, request.network)
    known = [*AGC_TRAINED, *UNICORN_NAMES]
    if name not in known:
        load(name)  # a name that no network has is another fault
        raise UserError(f"{request.network!r} has no trained weights, so its pictures show "
                        f"nothing; did you mean {nearest(name, known)!r}? "
                        f"Trained: {', '.join(known)}.")
    if name in AGC_TRAINED and request.clip not in CLIPS:
        raise UserError(f"there is no clip {request.clip!r}; known: {', '.join(CLIPS)}.")
    most = len(load(name).constants[INDEX_TABLE]) if name in UNICORN_NAMES else 8 * RATE
    if not 1 <= request.frames <= most:
        raise UserError(f"--frames is {request.frames}, must be from 1 to {most} for {name}.")
    return name


def run(request: Request) -> Iterator[DecodedFrame]:
    """Every picture, one after another; a picture takes seconds."""
    name = check(request)
    graph = load(name)
    if name in UNICORN_NAMES:
        yield from _pictures(graph, UNICORN_NAMES[name], request.frames)
        return
    short = AGC_TRAINED[name]
    _, decoder = load_agc(short)
    pairs = clip(request.clip, request.seed, [n / RATE for n in range(request.frames)], short)
    for number, (pair, integer) in enumerate(zip(pairs, _clip_integers(graph, pairs), strict=True)):
        yield DecodedFrame(number, pair.driving, evaluate_agc.decode(decoder, pair), integer)


def _clip_integers(graph: Graph, pairs: list[ClipPair]) -> Iterator[np.ndarray]:
    """The integer decoder's frames; what depends on the source alone is made once."""
    made: dict[str, np.ndarray] = {}
    for pair in pairs:
        given = frame_inputs(pair.source, pair.source_points, pair.driving_points)
        made = made or execute(graph, given, [Phase.GROUP])
        found = execute(graph, {**made, **given}, [Phase.FRAME])
        yield frame_bytes(found[graph.outputs[0]])


def _pictures(graph: Graph, short: str, count: int) -> Iterator[DecodedFrame]:
    _, decoder = load_unicorn(short)
    for number in range(count):
        yield DecodedFrame(number, picture_set(1, first=number)[0],
                           evaluate_unicorn.decode(decoder, [number])[0],
                           frame_bytes(picture(graph, number)))


def show(console: Console, rows: list[dict[str, float]]) -> None:
    """PSNR by frame, and the mean, as a table."""
    names = [name for name in rows[0] if name != "frame"]
    table = grid("PSNR in dB (measured)",
                 ("frame", "float to wanted", "int8 to wanted", "int8 to float"))
    for row in rows:
        table.add_row(str(row["frame"]), *(f"{row[name]:.2f}" for name in names))
    table.add_row("mean", *(f"{np.mean([row[name] for row in rows]):.2f}" for name in names))
    console.print(table)

"""Measures the shipped AGC decoders on held-out heads and motions.

It measures the float decoders only; `studies.headline.quality` measures the integer ones and draws
strips. `cosim train measure-agc` runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from workloads.agc.torch import AgcDecoder, load_agc
from workloads.training.metrics import Judge, average, measure
from workloads.training.pictures.clips import ClipPair, as_bytes, as_tensor, real_clips, test_clips


@torch.no_grad()
def decode(decoder: AgcDecoder, pair: ClipPair) -> np.ndarray:
    """Return the float decoder's frame as uint8 [rows, cols, 3]."""
    points = [
        torch.from_numpy(points.astype(np.float32))[None]
        for points in (pair.source_points, pair.driving_points)
    ]
    return as_bytes(decoder(as_tensor(pair.source), *points)[0])


def mean_frame(pair: ClipPair) -> np.ndarray:
    """Return the mean of source and driving frame: a trivial answer that sees the driving one."""
    return ((pair.source.astype(np.uint16) + pair.driving) // 2).astype(np.uint8)


def evaluate(decoder: AgcDecoder, pairs: list[ClipPair],
             judge: Judge = measure) -> dict[str, dict[str, float]]:
    """Return the mean measures of the decoder and of both trivial answers."""
    answers = {
        "float": lambda pair: decode(decoder, pair),
        "repeat_source": lambda pair: pair.source,
        "mean_of_both": mean_frame,
    }
    return {
        name: average([judge(answer(pair), pair.driving) for pair in pairs])
        for name, answer in answers.items()
    }


def run(networks: Sequence[str], count: int, seed: int) -> Iterator[dict[str, object]]:
    """A row for each network, set of pairs and answer, with the mean measures, as it is made.

    `count`: pairs of held-out heads; of either real face a quarter as many. Without pairs no row.
    """
    for network in networks:
        _, decoder = load_agc(network)
        sets = {
            "held-out heads": test_clips(count, seed, network),
            "held-out real face": real_clips(count // 4, seed, network),
            "seen real face": real_clips(count // 4, seed, network, "astronaut"),
        }
        for name, pairs in sets.items():
            for answer, measures in (evaluate(decoder, pairs) if pairs else {}).items():
                yield {"network": f"agc-{network}", "pictures": name, "count": len(pairs),
                       "answer": answer, **measures}

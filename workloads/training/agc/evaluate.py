"""Measures the shipped AGC decoders on held-out heads and motions.

It measures the float decoders only; `studies.headline.quality` measures the integer ones and draws
strips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from workloads.agc.config import TRAINED
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


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", choices=TRAINED, nargs="+", default=TRAINED)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {}
    for network in options.networks:
        _, decoder = load_agc(network)
        sets = {
            "held_out_heads": test_clips(options.count, options.seed, network),
            "held_out_real_face": real_clips(options.count // 4, options.seed, network),
            "seen_real_face": real_clips(options.count // 4, options.seed, network, "astronaut"),
        }
        for name, pairs in sets.items():
            found = evaluate(decoder, pairs)
            result[f"agc_{network}/{name}"] = {"pairs": len(pairs), **found}
            for answer, row in found.items():
                text = "  ".join(f"{key} {value:.4f}" for key, value in row.items())
                print(f"agc_{network} {name} {answer}: {text}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Measures the pictures of the shipped networks, float and integer, beside the trivial answers.

It trains and quantizes nothing. Needs torch and pillow (the extras `torch` and `dev`). Run:
python -m studies.quality --json out/quality.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console

from studies.files import check_writable, write_json
from studies.report import tables
from workloads.agc import frame_bytes, frame_inputs
from workloads.graph import Graph
from workloads.library import load
from workloads.reference import execute
from workloads.training import evaluate_agc, evaluate_unicorn
from workloads.training.clips import ClipPair, test_clips
from workloads.training.metrics import average, measure
from workloads.training.picture_set import picture_set
from workloads.unicorn_config import UnicornConfig, bits_per_pixel
from workloads.unicorn_run import decode as decode_integers

Row = dict[str, object]
#: Integer networks by the width of the float one, with the name of the number format.
AGC_FORMATS: dict[int, dict[str, str]] = {
    16: {"agc-w16": "int8, power-of-two scales", "agc-w16-multiplier": "int8, multipliers"},
    32: {"agc-w32": "int8, power-of-two scales"},
}
UNICORN_FORMATS = {"n256": {"unicorn-n256-w8a16": "int8 weights, int16 activations"}}


def agc_integers(graph: Graph, pair: ClipPair) -> np.ndarray:
    """The integer decoder's frame as uint8 (rows, columns, 3)."""
    values = execute(graph, frame_inputs(pair.source, pair.source_points, pair.driving_points))
    return frame_bytes(values[graph.outputs[0]])


def agc_rows(count: int, seed: int) -> Iterable[Row]:
    """Float, integer and trivial answers on held-out heads and motions."""
    for width, formats in AGC_FORMATS.items():
        _, decoder = evaluate_agc.load_agc(width)
        pairs = test_clips(count, seed, width)
        for answer, found in evaluate_agc.evaluate(decoder, pairs).items():
            yield {"network": f"agc-w{width}", "format": answer, "pictures": count, **found}
        for name, form in formats.items():
            graph = load(name)
            yield {"network": f"agc-w{width}", "format": form, "pictures": count,
                   **average([measure(agc_integers(graph, pair), pair.driving)
                              for pair in pairs])}


def _float(decoder: evaluate_unicorn.UnicornDecoder, number: int) -> np.ndarray:
    return evaluate_unicorn.decode(decoder, [number])[0]


def _integers(graph: Graph, config: UnicornConfig, number: int) -> np.ndarray:
    return frame_bytes(decode_integers(graph, config, number))


def unicorn_rows(count: int) -> Iterable[Row]:
    """Float and integer answers on the first pictures of the set; JPEG and WebP near the rate."""
    pictures = picture_set(count)
    for short in evaluate_unicorn.TRAINED:
        config, decoder = evaluate_unicorn.load_unicorn(short)
        rate = bits_per_pixel(config, decoder.parameter_count())
        answers: dict[str, Callable[[int], np.ndarray]] = {"float": partial(_float, decoder)}
        for name, form in UNICORN_FORMATS.get(short, {}).items():
            answers[form] = partial(_integers, load(name), config)
        for form, answer in answers.items():
            yield {"network": f"unicorn-{short}", "format": form, "pictures": count,
                   "bits_per_pixel": rate,
                   **average([measure(answer(number), pictures[number])
                              for number in range(count)])}
        for kind in ("JPEG", "WEBP"):
            found = evaluate_unicorn.nearest_rate(pictures, kind, rate)
            yield {"network": f"unicorn-{short}", "format": f"{kind} at the nearest rate",
                   "pictures": count, **found}


def show(console: Console, rows: list[Row]) -> None:
    """The rows as a table."""
    names = ("network", "format", "pictures", "psnr_db", "ssim", "perceptual_distance",
             "bits_per_pixel")
    table = tables.grid("Pictures (measured)", tuple(name.replace("_", " ") for name in names))
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value := row.get(name, "-"), float)
                        else str(value) for name in names))
    console.print(table)


def main() -> None:
    """The command line of the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12, help="pictures a network")
    parser.add_argument("--seed", type=int, default=1, help="seed of the held-out clips")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.json is not None:
        check_writable(options.json)
    rows = [*agc_rows(options.count, options.seed), *unicorn_rows(options.count)]
    show(Console(), rows)
    if options.json is not None:
        write_json(options.json, rows)


if __name__ == "__main__":
    main()

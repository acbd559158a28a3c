"""Measures the pictures of the shipped networks, float and integer, beside the trivial answers.

It trains nothing, and quantizes only the mixed AGC, from the shipped int8 graph. Needs torch and
pillow (the extras `torch`, `quality` and `dev`). `cosim study quality` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from studies.headline.document import Measures
from studies.headline.perceptual import judged
from studies.plain.terminal import grid
from workloads.agc.graph import frame_bytes, frame_inputs
from workloads.agc.torch import load_agc
from workloads.graph import Graph
from workloads.library import load, provenance
from workloads.quantization.narrow import least_sensitive, narrowed
from workloads.reference import execute
from workloads.training.agc import evaluate as evaluate_agc
from workloads.training.metrics import average
from workloads.training.pictures.clips import ClipPair, calibration_clips, test_clips
from workloads.training.pictures.picture_set import picture_set
from workloads.training.unicorn import evaluate as evaluate_unicorn
from workloads.unicorn.config import bits_per_pixel
from workloads.unicorn.run import picture as decoded
from workloads.unicorn.torch import TRAINED, load_unicorn

Row = Measures
#: Integer networks by the short name of the float one, with the name of the number format.
AGC_FORMATS: dict[str, dict[str, str]] = {
    "w16": {"agc-w16": "int8, power-of-two scales", "agc-w16-multiplier": "int8, multipliers"},
    "w32": {"agc-w32": "int8, power-of-two scales"},
    "t32b4": {"agc-t32b4": "int8, power-of-two scales",
              "agc-t32b4-4bit": "4-bit weights, fine-tuned"},
}
UNICORN_FORMATS = {"n256": {"unicorn-n256-int8": "int8, fine-tuned",
                            "unicorn-n256-one-step": "int8, fine-tuned for one step",
                            "unicorn-n256-one-step-4bit": "4-bit weights, fine-tuned for one step"
                            },
                   "n1024": {"unicorn-n1024-one-step": "int8, fine-tuned for one step"}}
#: Columns of the table that ships.
TABLE = ("workload", "format", "pictures", "psnr_db", "ssim", "ms_ssim", "source")
#: Share of the AGC's weights that get 4 bits in its mixed format, and that format's name.
NARROW_SHARE = 0.5
MIXED = "int8, 4-bit weights in half"


def agc_integers(graph: Graph, pair: ClipPair) -> np.ndarray:
    """The integer decoder's frame as uint8 (rows, columns, 3)."""
    return frame_bytes(_agc_values(graph, pair)[graph.outputs[0]])


def _agc_values(graph: Graph, pair: ClipPair) -> dict[str, np.ndarray]:
    return execute(graph, frame_inputs(pair.source, pair.source_points, pair.driving_points))


def mixed_agc(short: str) -> Graph:
    """The shipped int8 decoder with 4-bit weights where one calibration pair loses least."""
    graph = load(f"agc-{short}")
    values = _agc_values(graph, calibration_clips(1, 0, short)[0])
    return narrowed(graph, least_sensitive(graph, values, NARROW_SHARE))


def agc_rows(networks: Iterable[str], count: int, seed: int) -> Iterable[Row]:
    """Float, integer and trivial answers on held-out heads and motions."""
    for short in networks:
        _, decoder = load_agc(short)
        pairs = test_clips(count, seed, short)
        for answer, found in evaluate_agc.evaluate(decoder, pairs, judged).items():
            yield {"network": f"agc-{short}", "format": answer, "pictures": count, **found}
        graphs = {form: load(name) for name, form in AGC_FORMATS[short].items()}
        for form, graph in {**graphs, MIXED: mixed_agc(short)}.items():
            yield {"network": f"agc-{short}", "format": form, "pictures": count,
                   **average([judged(agc_integers(graph, pair), pair.driving)
                              for pair in pairs])}


def _float(decoder: evaluate_unicorn.UnicornDecoder, number: int) -> np.ndarray:
    return evaluate_unicorn.decode(decoder, [number])[0]


def _integers(graph: Graph, number: int) -> np.ndarray:
    return frame_bytes(decoded(graph, number))


def drawn_numbers(count: int, images: int, seed: int) -> list[int]:
    """Seeded picture numbers of a set, each once, in order."""
    drawn = np.random.default_rng(seed).choice(images, count, replace=False)
    return sorted(int(number) for number in drawn)


def pictures_of(numbers: Sequence[int]) -> np.ndarray:
    """Those pictures of the set as uint8 (N, rows, columns, 3)."""
    return np.concatenate([picture_set(1, first=number) for number in numbers])


def unicorn_rows(networks: Iterable[str], count: int, seed: int) -> Iterable[Row]:
    """Float and integer answers on seeded pictures of the set; JPEG and WebP near the rate."""
    for short in networks:
        config, decoder = load_unicorn(short)
        numbers = drawn_numbers(count, config.images, seed)
        pictures = pictures_of(numbers)
        weights = decoder.parameter_count()
        answers: dict[str, tuple[Callable[[int], np.ndarray], int]] = {
            "float": (partial(_float, decoder), 0)}
        for name, form in UNICORN_FORMATS.get(short, {}).items():
            narrow = int(provenance(name).get("four_bit_weights", 0))
            answers[form] = partial(_integers, load(name)), narrow
        for form, (answer, narrow) in answers.items():
            # Sent at 8 bits, also the float ones, as the paper counts; a 4-bit weight is half one.
            yield {"network": f"unicorn-{short}", "format": form, "pictures": count,
                   "bits_per_pixel": bits_per_pixel(config, weights - narrow // 2),
                   **average([judged(answer(number), picture)
                              for number, picture in zip(numbers, pictures, strict=True)])}
        for kind in ("JPEG", "WEBP"):
            found = evaluate_unicorn.nearest_rate(pictures, kind, bits_per_pixel(config, weights),
                                                  judged)
            yield {"network": f"unicorn-{short}", "format": f"{kind} at the nearest rate",
                   "pictures": count, **found}


def difference(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Four times the absolute difference of two uint8 pictures, saturated."""
    return (np.abs(found.astype(int) - wanted).clip(0, 63) * 4).astype(np.uint8)


def agc_strip(short: str, count: int, seed: int) -> np.ndarray:
    """A row a pair: source, driving, float, int8, four times the difference of int8 to driving."""
    _, decoder = load_agc(short)
    graph = load(f"agc-{short}")
    rows = []
    for pair in test_clips(count, seed, short):
        found = agc_integers(graph, pair)
        rows.append(np.hstack([pair.source, pair.driving, evaluate_agc.decode(decoder, pair),
                               found, difference(found, pair.driving)]))
    return np.vstack(rows)


def unicorn_strip(short: str, count: int, seed: int) -> np.ndarray:
    """A column a picture: picture, float, int8 if it ships, four times the last one's difference
    to the picture."""
    config, decoder = load_unicorn(short)
    graphs = [load(name) for name in list(UNICORN_FORMATS.get(short, {}))[:1]]
    columns = []
    numbers = drawn_numbers(count, config.images, seed)
    for number, picture in zip(numbers, pictures_of(numbers), strict=True):
        found = [_float(decoder, number), *(_integers(graph, number) for graph in graphs)]
        columns.append(np.vstack([picture, *found, difference(found[-1], picture)]))
    return np.hstack(columns)


def show(console: Console, rows: list[Row]) -> None:
    """The rows as a table."""
    names = ("network", "format", "pictures", "psnr_db", "ssim", "ms_ssim", "perceptual_distance",
             "bits_per_pixel")
    table = grid("Pictures (measured)", tuple(name.replace("_", " ") for name in names))
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value := row.get(name, "-"), float)
                        else str(value) for name in names))
    console.print(table)


def rows(count: int, seed: int, quick: bool = False) -> list[Row]:
    """Every network in every number format, measured on `count` held-out pictures of a seed.

    `quick`: one picture of the smallest network of each kind.
    """
    heads, networks, count = _asked(count, quick)
    return [*agc_rows(heads, count, seed), *unicorn_rows(networks, count, seed)]


def table(found: Iterable[Row], seed: int) -> str:
    """`studies/data/quality.csv`: the integer networks among some rows, a line each."""
    lines = [",".join(TABLE)]
    for row in found:
        kind, _, short = str(row["network"]).partition("-")
        known = (AGC_FORMATS if kind == "agc" else UNICORN_FORMATS).get(short, {})
        source = (f"cosim study quality --count {row['pictures']} --seed {seed}: "
                  + ("held-out heads and motions" if kind == "agc" else
                     "seeded pictures of the set that the network stands for"))
        for name, form in known.items():
            if form == row["format"]:
                figures = (f"{row[measure]:.3f}" for measure in TABLE[3:-1])
                lines.append(",".join((name, f'"{form}"', str(row["pictures"]), *figures,
                                       f'"{source}"')))
    return "\n".join(lines) + "\n"


def draw_strips(folder: Path, count: int, seed: int, quick: bool = False) -> None:
    """Draw the pictures beside one another, one PNG a network, into a folder that is there."""
    heads, networks, count = _asked(count, quick)
    drawn = {f"agc_strip_{short}": agc_strip(short, min(count, 3), seed) for short in heads}
    drawn |= {f"unicorn_strip_{name}": unicorn_strip(name, min(count, 6), seed)
              for name in networks}
    for name, pixels in drawn.items():
        picture = Image.fromarray(pixels)
        small = picture.resize((picture.width * 5 // 8, picture.height * 5 // 8),
                               Image.Resampling.LANCZOS)
        small.save(folder / f"{name}.png", optimize=True)


def _asked(count: int, quick: bool) -> tuple[list[str], list[str], int]:
    heads, networks = list(AGC_FORMATS), sorted(TRAINED, reverse=True)
    return (heads[:1], networks[:1], 1) if quick else (heads, networks, count)

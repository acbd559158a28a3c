"""Sets 4-bit weights beside 8-bit ones: quality, DRAM traffic, latency, energy and block RAM.

Quality is measured with the integer reference on held-out heads, or on seeded pictures of the set;
the rest is predicted. Networks of 8 bits are narrowed without training
(`workloads.quantization.narrow`); one that was trained with 4 bits is taken as it is.
Needs torch (the extras `torch` and `quality`), but for `count` 0, which measures no picture.
`cosim study precision` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console

from arch_models.overlay import Infeasible, Overlay
from arch_models.resources import sites_of
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate
from studies.evaluation.values import MICROJOULES
from studies.plain.markdown import markdown_table
from studies.plain.terminal import grid
from workloads.agc.graph import frame_bytes, frame_inputs
from workloads.frames import AGC_TRAINED
from workloads.graph import Graph, Operator
from workloads.library import load
from workloads.quantization.narrow import least_sensitive, narrowed
from workloads.reference import execute
from workloads.unicorn.graph import INDEX_TABLE
from workloads.unicorn.run import picture, starting_values

#: Networks and the shipped designs that they run on.
DESIGNS = {"agc-t32b4": "face", "agc-t32b4-4bit": "face", "agc-w16": "default",
           "agc-w32": "default", "unicorn-n256-int8": "diffusion",
           "unicorn-n256-one-step": "diffusion", "unicorn-n256-one-step-4bit": "diffusion"}
MEMORIES = ("flat", "ddr3")
#: Share of the weights that have 4 bits, at least; 0: the network as it ships.
SHARES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Request:
    """`count`: pictures of each network, drawn with `seed`."""

    networks: Sequence[str] = tuple(DESIGNS)
    board: str = "pynq-z1"
    count: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One network with a share of narrow weights, on one design with one memory model.

    `psnr_db`: measured; None without pictures. `weight_words`: of a bank of WEIGHT.
    `unchecked`: of the board.
    """

    network: str
    narrow_share: float
    psnr_db: float | None
    design: str
    weight_words: int
    memory: str
    clock_hz: int
    bram36: float
    traffic_bytes: int
    latency_ms: float
    energy_uj: float
    unchecked: tuple[str, ...] = ()


Rows = Sequence[Row]


def run(request: Request = Request()) -> list[Row]:
    """Every network in every precision; designs that do not hold it are left out."""
    return [row for name in request.networks for row in _rows(name, request)]


def _rows(name: str, request: Request) -> Iterator[Row]:
    graph, board = load(name), inputs.board(request.board)
    values, base = calibration(graph, name), inputs.design(DESIGNS[name])
    trained = narrow_share(graph) == 1
    for share in SHARES[-1:] if trained else SHARES:
        mine = graph if trained or not share else narrowed(
            graph, least_sensitive(graph, values, share))
        quality = measured(mine, name, request) if request.count else None
        for design in designs(base, share):
            for memory in MEMORIES:
                found = evaluate(mine, design, board, memory, 1)
                if not isinstance(found, Infeasible):
                    yield Row(name, narrow_share(mine), quality, base.name, design.weight_words,
                              memory, found.clock_hz, sites_of(design).bram36,
                              found.bytes_read + found.bytes_written, found.latency_ms,
                              found.energy.total_j * MICROJOULES, board.unchecked)


def designs(base: Overlay, share: float) -> list[Overlay]:
    """The design as it is; for narrow weights one that unpacks, and where all are narrow also one
    with half of WEIGHT, which holds as many."""
    if not share:
        return [base]
    able = replace(base, narrow_weights=True)
    return [able] if share < 1 else [able, replace(able, weight_words=able.weight_words // 2)]


def narrow_share(graph: Graph) -> float:
    """Share of the weights of convolutions that lie two a byte."""
    sizes = {layer.name: graph.constant(layer, "weights").size for layer in graph.layers
             if layer.operator is Operator.CONVOLUTION}
    return sum(sizes[name] for name in graph.narrow_layers) / sum(sizes.values())


def calibration(graph: Graph, name: str) -> Mapping[str, np.ndarray]:
    """Every tensor of one run: of a calibration pair, or of the first picture of the set."""
    if name.startswith("agc-"):
        from workloads.training.pictures.clips import calibration_clips

        pair = calibration_clips(1, 0, AGC_TRAINED[name])[0]
        return execute(graph, frame_inputs(pair.source, pair.source_points, pair.driving_points))
    given = starting_values(graph, 0)
    return {**given, **execute(graph, given)}


def measured(graph: Graph, name: str, request: Request) -> float:
    """Mean PSNR in dB of the integer reference."""
    from workloads.training.metrics import psnr_db

    found = []
    if name.startswith("agc-"):
        from workloads.training.pictures.clips import test_clips

        for pair in test_clips(request.count, request.seed, AGC_TRAINED[name]):
            values = execute(graph, frame_inputs(pair.source, pair.source_points,
                                                 pair.driving_points))
            found.append(psnr_db(frame_bytes(values[graph.outputs[0]]), pair.driving))
        return float(np.mean(found))
    from studies.headline.quality import drawn_numbers, pictures_of

    numbers = drawn_numbers(request.count, len(graph.constants[INDEX_TABLE]), request.seed)
    for number, wanted in zip(numbers, pictures_of(numbers), strict=True):
        found.append(psnr_db(frame_bytes(picture(graph, number)), wanted))
    return float(np.mean(found))


COLUMNS = ("network", "4-bit weights", "PSNR, dB", "design, WEIGHT words", "block RAM", "MHz",
           "memory", "DRAM, MB", "latency, ms", "energy, mJ")


def lines(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """Cells of a table."""
    return [(row.network, f"{100 * row.narrow_share:.0f} %",
             "-" if row.psnr_db is None else f"{row.psnr_db:.2f}",
             f"{row.design}, {row.weight_words}", f"{row.bram36:g}", f"{row.clock_hz / 1e6:.1f}",
             row.memory, f"{row.traffic_bytes / 1e6:.2f}", f"{row.latency_ms:.2f}",
             f"{row.energy_uj / 1e3:.1f}") for row in rows]


def page(rows: Iterable[Row]) -> str:
    """The table as Markdown."""
    return markdown_table(COLUMNS, lines(rows), right=(2, 4, 5, 7, 8, 9))


def show(console: Console, rows: Iterable[Row]) -> None:
    """The table on a terminal."""
    table = grid("Weights of 4 bits (quality measured, the rest predicted)", COLUMNS)
    for line in lines(rows):
        table.add_row(*line)
    console.print(table)

"""How much the array's bits toggle with real data: a small table by network and layer.

It knows no joules. Toggles are predicted by the integer reference: a real frame is executed bit by
bit, and sampled positions of each convolution are walked in the order of the engine's trips (output
column, input word, kernel row, kernel column). Counted are the bits that change from a trip to the
next at every multiplier: the pixel, the weight, the product, the sum down the cascade; and at the
accumulator. The same walk over seeded noise is what a factor is held against: 1 is noise.

`cosim study toggles --write` makes the table anew. Networks that are not in it, and
everything beside the array, are taken to toggle as noise does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np

from studies.plain.files import write_text
from workloads.frames import whole_frame
from workloads.graph import Graph, Layer, Operator
from workloads.library import load
from workloads.reference import execute

TABLE = Path(__file__).parents[1] / "data" / "toggles.csv"
#: Networks with a real frame. Others of their family have the same layers, and take their factors.
NETWORKS = ("agc-w16", "agc-w32", "unicorn")
STANDS_FOR: Mapping[str, str] = {
    "agc-w24": "agc-w32", "agc-w48": "agc-w32", "agc-w64": "agc-w32", "agc": "agc-w32",
    "agc-w16-multiplier": "agc-w16", "unicorn-n256": "unicorn-n256-int8",
    "unicorn-n1024": "unicorn-n256-int8"}
LANES = 8  # input channels of a trip in the walk
ROWS, COLUMNS, CHANNELS = 3, 6, 8  # of the output, sampled
SEED = 20
BITS = {"pixels": 8, "weights": 8, "products": 16, "sums": 24, "accumulators": 32}


@dataclass(frozen=True)
class Toggles:
    """One layer: bits that change a trip at a multiplier (`accumulators`: at one), with real data.

    `zeros`: share of the pixels that are zero. `factor`: all of them over those of noise.
    """

    network: str
    layer: str
    pixels: float
    weights: float
    products: float
    sums: float
    accumulators: float
    zeros: float
    factor: float


Rows = Sequence[Toggles]


def factors(network: str) -> Mapping[str, float]:
    """Factor by layer for a network of the table or its family; empty for any other."""
    return _table().get(STANDS_FOR.get(network, network), {})


@cache
def _table() -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["network"], {})[row["layer"]] = float(row["factor"])
    return found


def walk(pixels: np.ndarray, weights: np.ndarray, stride: int, padding: int,
         draw: np.random.Generator) -> dict[str, float]:
    """Mean bits that change a trip, by place, over sampled outputs of one convolution.

    `pixels`: int8 (in, rows, columns), `weights`: int8 (out, in, kernel rows, kernel columns).
    """
    out, inner, taps_r, taps_c = weights.shape
    padded = np.pad(pixels, ((0, -inner % LANES), (padding, padding), (padding, padding)))
    weights = np.pad(weights, ((0, 0), (0, -inner % LANES), (0, 0), (0, 0)))
    out_rows = (padded.shape[1] - taps_r) // stride + 1
    out_columns = (padded.shape[2] - taps_c) // stride + 1
    totals = dict.fromkeys(BITS, 0.0)
    samples = [(int(draw.integers(out_rows)), int(draw.integers(max(1, out_columns - COLUMNS))))
               for _ in range(ROWS)]
    channels = draw.choice(out, min(CHANNELS, out), replace=False)
    for row, first in samples:
        columns = range(first, min(first + COLUMNS, out_columns))
        trips = np.concatenate([trips_of(padded[:, row * stride : row * stride + taps_r,
                                              column * stride : column * stride + taps_c])
                                for column in columns])
        for channel in channels:
            mine = np.tile(trips_of(weights[channel]), (len(columns), 1))
            for name, value in _changes(trips, mine, len(columns)).items():
                totals[name] += value
    count = len(samples) * len(channels)
    return {name: value / count for name, value in totals.items()}


def trips_of(block: np.ndarray) -> np.ndarray:
    """(in, rows, columns) as (trips, lanes) in the order of the engine's loops."""
    words = block.reshape(-1, LANES, *block.shape[1:])
    return np.moveaxis(words, 1, -1).reshape(-1, LANES).astype(np.int32)


def _changes(pixels: np.ndarray, weights: np.ndarray, positions: int) -> dict[str, float]:
    products = pixels * weights
    sums = np.cumsum(products, axis=1)
    running = np.cumsum(sums[:, -1].reshape(positions, -1), axis=1).reshape(-1, 1)
    places = {"pixels": pixels, "weights": weights, "products": products, "sums": sums,
              "accumulators": running}
    return {name: _flips(value, BITS[name]) for name, value in places.items()}


def _flips(value: np.ndarray, bits: int) -> float:
    """Mean number of the low bits that differ from one row to the next."""
    if len(value) < 2:
        return 0.0
    changed = (value[1:] ^ value[:-1]) & ((1 << bits) - 1)
    return float(np.bitwise_count(changed).mean())


def _sum(found: Mapping[str, float]) -> float:
    """Bits a multiplier, with its part of an accumulator."""
    return (found["pixels"] + found["weights"] + found["products"] + found["sums"]
            + found["accumulators"] / LANES)


def of_layer(network: str, layer: Layer, pixels: np.ndarray, weights: np.ndarray) -> Toggles:
    """One convolution with its real operands, and the same walk over noise."""
    draw = np.random.default_rng(SEED)
    shape = layer.window
    real = walk(pixels, weights, shape.stride, shape.padding, np.random.default_rng(SEED))
    noise = walk(draw.integers(-128, 128, pixels.shape, np.int8),
                 draw.integers(-128, 128, weights.shape, np.int8), shape.stride, shape.padding,
                 np.random.default_rng(SEED))
    return Toggles(network, layer.name, **{name: round(real[name], 3) for name in BITS},
                   zeros=round(float((pixels == 0).mean()), 3),
                   factor=round(_sum(real) / _sum(noise), 3))


def of_network(name: str) -> Iterator[Toggles]:
    """Every convolution and matrix product of a network's real frame; of a sampler, its last
    step."""
    graph = load(name)
    whole, frame = whole_frame(graph)
    values = execute(whole, _frame_inputs(whole, frame.inputs), _phases(whole))
    for layer in whole.layers:
        given = [values.get(item) for item in layer.inputs]
        if layer.operator is Operator.CONVOLUTION and given[0] is not None:
            weights = whole.constant(layer, "weights")
            if given[0].dtype == np.int8 and weights.shape[1] == given[0].shape[0]:
                yield of_layer(graph.name, layer, given[0], weights)


def _phases(graph: Graph) -> list:
    return list(dict.fromkeys(layer.phase for layer in graph.layers
                              if str(layer.phase.value) != "group"))


def _frame_inputs(graph: Graph, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in given.items() if name in graph.tensors}


def table_text(rows: Sequence[Toggles]) -> str:
    """The table as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return file.getvalue()


def rows() -> list[Toggles]:
    """The whole table anew: every network with a real frame."""
    return [row for name in NETWORKS for row in of_network(name)]


def write_table(found: Sequence[Toggles]) -> None:
    """Write the table that the energy model reads."""
    write_text(TABLE, table_text(found))


def told(found: Sequence[Toggles]) -> str:
    """How far noise is off, a line a network."""
    lines = []
    for name in dict.fromkeys(row.network for row in found):
        mine = [row for row in found if row.network == name]
        factor = np.array([row.factor for row in mine])
        lines.append(f"{name}: {len(mine)} layers, factor median {np.median(factor):.2f}, "
                     f"{factor.min():.2f} to {factor.max():.2f}; zeros "
                     f"{np.mean([row.zeros for row in mine]):.0%}")
    return "\n".join(lines)

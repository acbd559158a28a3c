"""How much of each load of VTA misses the processor's cache, which the coherent port looks into.

It moves no data and knows no cycles; see `cosim.vta.lower`.

The rule is a reuse distance: the bytes touched since a load's data were last touched. Data touched
for the first time in a call were last touched in the call before, a whole layer ago. Two virtual
threads load what they share one right after the other.

Bytes that lie together fill the sets of the cache evenly, a line in every set each `WAY_BYTES`.
What comes round again and again leaves a set whole once it has one line more than the set keeps.
So all is near up to `cache_bytes`, all misses a way beyond, and between the two the share of sets
with a line too many misses.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.vta import VtaArray
from cosim.vta.schedule import Blocks, VtaConvolution, VtaSchedule

#: AMD UG585, 3.2.2: the second-level cache has 512 KiB in eight ways.
WAY_BYTES = 64 * 1024


@dataclass(frozen=True)
class Missing:
    """Shares of a load's bytes that miss, from 0 to 1, for the first thread and for the others."""

    input: tuple[float, float] = (0.0, 0.0)
    weight: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Distances:
    """Bytes between two uses of the same data.

    `layer`: a whole call; `column_tile`, `channel_tile`, `row_tile`: one step of that loop, with
    everything inside it. Halos and bias are left out.
    """

    layer: int
    column_tile: int
    channel_tile: int
    row_tile: int


def distances(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray,
              found: Blocks) -> Distances:
    """The unique bytes that each loop of the schedule touches in one of its steps."""
    images = layer.batch // found.batch * schedule.tile_batch_blocks
    rows = min(layer.out_rows, schedule.tile_rows * schedule.row_threads)
    out_blocks = schedule.tile_out_blocks * schedule.out_threads
    channels = out_blocks * array.block_out
    kernel = layer.kernel_rows * layer.kernel_columns
    weights = channels * layer.in_channels * kernel
    in_rows = min(layer.in_rows, rows * layer.stride_rows)
    band = images * in_rows * layer.in_columns * layer.in_channels
    results = images * rows * layer.out_columns
    column_tiles = layer.out_columns // schedule.tile_columns
    all_weights = layer.out_channels * layer.in_channels * kernel
    return Distances(
        layer.batch * (layer.in_rows * layer.in_columns * layer.in_channels
                       + layer.out_rows * layer.out_columns * layer.out_channels) + all_weights,
        weights + (band + results * channels) // column_tiles,
        weights + band + results * channels,
        all_weights + band + results * layer.out_channels)


def missing_share(touched: int, cache_bytes: int) -> float:
    """Share of data that is gone when `touched` bytes were used since."""
    return min(1.0, max(0, touched - cache_bytes) / WAY_BYTES)


def missing_loads(schedule: VtaSchedule, known: Distances, cache_bytes: int, *, first_row: bool,
                  first_channel: bool, first_column: bool) -> Missing:
    """What misses in a tile group that is the first of some of its loops, or not.

    The loops are rows (with images), output channels, columns, from the outside in.
    """
    touched_input = known.layer if first_channel else known.channel_tile
    if not first_column:
        touched_weight = known.column_tile
    else:
        touched_weight = known.layer if first_row else known.row_tile
    inputs = missing_share(touched_input, cache_bytes)
    weights = missing_share(touched_weight, cache_bytes)
    # Threads over channels share the input, threads over rows the weights.
    return Missing((inputs, inputs if schedule.out_threads == 1 else 0.0),
                   (weights, weights if schedule.row_threads == 1 else 0.0))

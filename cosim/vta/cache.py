"""Which loads of VTA find their data in the processor's cache, which the coherent port looks into.

It moves no data and knows no cycles; see `cosim.vta.lower`.

The rule is a reuse distance: a load is near if the bytes touched since its data were last touched
fit `cache_bytes`. Data touched for the first time in a call were last touched in the call before,
a whole layer ago. Two virtual threads load what they share one right after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.vta import VtaArray
from cosim.vta.schedule import Blocks, VtaConvolution, VtaSchedule


@dataclass(frozen=True)
class Far:
    """Loads that miss, for the first thread and for the others."""

    input: tuple[bool, bool] = (False, False)
    weight: tuple[bool, bool] = (False, False)


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


def far_loads(schedule: VtaSchedule, known: Distances, cache_bytes: int, *, first_row: bool,
              first_channel: bool, first_column: bool) -> Far:
    """What misses in a tile group that is the first of some of its loops, or not.

    The loops are rows (with images), output channels, columns, from the outside in.
    """
    touched_input = known.layer if first_channel else known.channel_tile
    if not first_column:
        touched_weight = known.column_tile
    else:
        touched_weight = known.layer if first_row else known.row_tile
    far_input, far_weight = touched_input > cache_bytes, touched_weight > cache_bytes
    # Threads over channels share the input, threads over rows the weights.
    return Far((far_input, far_input and schedule.out_threads == 1),
               (far_weight, far_weight and schedule.row_threads == 1))

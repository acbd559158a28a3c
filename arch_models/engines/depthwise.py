"""The depthwise engine: taps of a kernel row a cycle, for one beat of channels.

It does not choose tiles or load weights. A convolution whose groups have one channel in and one
out also runs on the convolution engine, which multiplies zeros between the groups.
"""

from __future__ import annotations

from arch_models.engines.base import (
    PARAMETER_BITS,
    VECTOR_LANES,
    Memory,
    Resources,
    Tile,
    TileCost,
    Work,
    logic,
    refuse,
    stream_terms,
    timing,
)
from arch_models.overlay import Engine, Overlay
from arch_models.units import ceil_div


class Depthwise:
    """trips = planes * rows * columns read in a row * kernel rows * ceil(kernel columns / taps).

    Taps: `depthwise_taps`. A pixel is read once for each kernel row and group of its columns;
    products of neighbouring columns wait in the multipliers' own registers. So a row of outputs
    takes `depthwise_taps` - 1 columns more than its width, and a stride saves no trip of a row.
    """

    engine = Engine.DEPTHWISE

    def supports(self, work: Work) -> bool:
        """Groups of one channel in and one out, any window and stride."""
        return work.operator == "convolution" and work.depthwise

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of `rows` x `columns` outputs of `planes` planes."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, self.engine.value)
        columns = (tile.columns - 1) * work.stride + overlay.depthwise_taps
        return TileCost(found.fill, found.interval, tile.planes * tile.rows * columns
                        * words_of_plane(work.kernel_rows, work.kernel_columns, overlay),
                        found.drain)

    def resources(self, overlay: Overlay) -> Resources:
        """Logic for one beat of channels, and a multiplier for each of its taps."""
        return logic(self.engine.value, depthwise_terms(overlay))

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """Entries of each channel, and weights: a word a trip."""
        return (Memory("depthwise parameters", ceil_div(overlay.vector_entries, VECTOR_LANES),
                       VECTOR_LANES, PARAMETER_BITS),
                Memory("depthwise weights", overlay.vector_entries, overlay.depthwise_taps))

    def grid_row(self, overlay: Overlay) -> dict[str, int]:
        """See `EngineModel`."""
        return {"lanes": overlay.depthwise_taps}


def words_of_plane(kernel_rows: int, kernel_columns: int, overlay: Overlay) -> int:
    """Words of weights of 8 channels, and trips of a column: `depthwise_taps` taps each."""
    return kernel_rows * ceil_div(kernel_columns, overlay.depthwise_taps)


def depthwise_terms(overlay: Overlay) -> dict[str, float]:
    """What the sites of the engine grow with, besides a constant."""
    return {"tap": float(overlay.depthwise_taps), **stream_terms(overlay, Engine.DEPTHWISE)}

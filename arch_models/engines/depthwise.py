"""The depthwise engine: taps of a kernel row a cycle, for one beat of channels.

It does not choose tiles or load weights. A convolution whose groups have one channel in and one
out also runs on the convolution engine, which multiplies zeros between the groups.
"""

from __future__ import annotations

from types import MappingProxyType

from arch_models.engines.base import (
    PARAMETER_BITS,
    VECTOR_LANES,
    EngineModel,
    Grid,
    Memory,
    Tile,
    TileCost,
    Work,
    refuse,
    stream_terms,
    timing,
)
from arch_models.overlay import Engine, Overlay
from arch_models.units import ceil_div


class Depthwise(EngineModel):
    """trips = planes * rows * columns read in a row * kernel rows * ceil(kernel columns / taps).

    Taps: `depthwise_taps`. A pixel is read once for each kernel row and group of its columns;
    products of neighbouring columns wait in the multipliers' own registers. So a row of outputs
    takes `depthwise_taps` - 1 columns more than its width, and a stride saves no trip of a row.
    """

    engine = Engine.DEPTHWISE
    grid = Grid(((8, 8, 4, 3), (16, 8, 2, 3), (8, 16, 6, 1), (16, 16, 4, 5), (8, 8, 6, 7),
                 (24, 8, 6, 3)),
                ((8, 8, 4, 3), (24, 16, 4, 5)), {"lanes": "depthwise_taps"})
    #: Products are DSPs alone.
    fitted = MappingProxyType({"dsp": ("tap",), "lut": ("wide", "channel"), "ff": ("channel",)})
    axes = MappingProxyType({"depthwise_taps": (1, 3, 5)})

    def supports(self, work: Work) -> bool:
        """Groups of one channel in and one out, any window and stride."""
        return work.operator == "convolution" and work.depthwise and not work.wide

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of `rows` x `columns` outputs of `planes` planes."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, self.engine.value)
        columns = (tile.columns - 1) * work.stride + overlay.depthwise_taps
        return TileCost(found.fill, found.interval, tile.planes * tile.rows * columns
                        * words_of_plane(work.kernel_rows, work.kernel_columns, overlay),
                        found.drain)

    def padded_bytes(self, overlay: Overlay) -> int:
        """One beat of channels."""
        return VECTOR_LANES

    def terms(self, overlay: Overlay) -> dict[str, float]:
        """Those of one beat of channels, and a multiplier for each of its taps."""
        return {"tap": float(overlay.depthwise_taps), **stream_terms(overlay, self.engine)}

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """Entries of each channel, and weights: a word a trip."""
        return (Memory("depthwise parameters", ceil_div(overlay.vector_entries, VECTOR_LANES),
                       VECTOR_LANES, PARAMETER_BITS),
                Memory("depthwise weights", overlay.vector_entries, overlay.depthwise_taps))

def words_of_plane(kernel_rows: int, kernel_columns: int, overlay: Overlay) -> int:
    """Words of weights of 8 channels, and trips of a column: `depthwise_taps` taps each."""
    return kernel_rows * ceil_div(kernel_columns, overlay.depthwise_taps)

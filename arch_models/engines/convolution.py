"""The convolution engine: output stationary, `tm` x `tn` multiply-accumulates a cycle.

It does not choose tiles or load weights.
"""

from __future__ import annotations

from arch_models.overlay import Engine, Overlay
from arch_models.units import ceil_div

from .base import Resources, Tile, TileCost, Work, logic, refuse, timing


class Convolution:
    """trips = out_words * ceil(columns / unroll) * rows * in_words * kernel taps."""

    engine = Engine.CONVOLUTION

    def supports(self, work: Work) -> bool:
        """Any window; a matmul is a 1x1 window over loaded weights. A convolution in groups is
        one operation a block of `tm` outputs over their own inputs, with zeros between groups."""
        return work.operator in ("convolution", "matmul")

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of one tile; a fused pool, addition or upsample adds none."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, "convolution")
        trips = (tile.out_words * ceil_div(tile.columns, overlay.columns) * tile.rows
                 * tile.in_words * work.kernel_rows * work.kernel_columns)
        return TileCost(found.fill, found.interval, trips, found.drain)

    def resources(self, overlay: Overlay) -> Resources:
        """MACs in DSP48 (two a slice if packed), requantizers for `tm` channels, control."""
        macs = overlay.macs_per_cycle
        slices = ceil_div(macs, 2) if overlay.dsp_packing else macs
        slices *= ceil_div(overlay.data_bits, 16) ** 2
        control = logic(self.engine, overlay, macs)
        return Resources(slices + control.dsp, 0.0, control.lut, control.ff)

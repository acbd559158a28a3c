"""The convolution engine: output stationary, `tm` x `tn` multiply-accumulates a cycle.

It does not choose tiles or load weights.
"""

from __future__ import annotations

from types import MappingProxyType

from arch_models.channels import engine_channels
from arch_models.engines.base import (
    PARAMETER_BITS,
    EngineModel,
    Grid,
    Memory,
    Resources,
    Tile,
    TileCost,
    Work,
    logic,
    refuse,
    timing,
)
from arch_models.overlay import Engine, Fusion, Overlay
from arch_models.units import ceil_div


class Convolution(EngineModel):
    """trips = out_words * ceil(columns / unroll) * rows * trips of a group of positions.

    A group takes in_words * `tap_trips` trips, and at least `result_cycles`: so long the results
    of the group before it need the requantizers. A described array may go through more rows and
    columns than the tile has (`loops.work_rows`, `work_columns`).
    """

    engine = Engine.CONVOLUTION
    grid = Grid((
        (8, 8, 4, 1, 0, 8), (8, 8, 4, 1, 1, 8), (8, 8, 4, 2, 0, 8), (16, 8, 4, 1, 0, 8),
        (8, 16, 4, 1, 0, 8), (8, 8, 4, 1, 0, 1), (8, 16, 4, 1, 1, 8), (24, 8, 4, 1, 0, 8),
        (8, 24, 4, 1, 0, 8), (8, 8, 4, 3, 0, 8), (8, 8, 4, 4, 0, 8), (16, 16, 4, 1, 0, 8),
        (16, 8, 4, 2, 1, 8), (8, 16, 4, 3, 1, 8), (16, 16, 4, 1, 0, 4), (16, 16, 4, 1, 0, 16),
        (16, 8, 6, 1, 0, 8), (8, 8, 6, 1, 0, 8)), (
        (8, 8, 4, 1, 0, 8), (16, 8, 4, 1, 0, 8), (8, 16, 4, 1, 0, 8), (16, 16, 4, 1, 0, 8),
        (24, 8, 4, 1, 0, 8), (8, 24, 4, 1, 0, 8), (8, 8, 4, 2, 0, 8), (8, 8, 4, 4, 0, 8),
        (8, 8, 4, 1, 1, 8), (16, 16, 4, 1, 1, 8), (8, 8, 4, 1, 0, 4), (16, 8, 4, 2, 1, 8)),
        {name: name for name in ("columns", "dsp_packing", "requantize_cycles")},
        {"narrow_weights": ((16, 8, 4, 1, 0, 8), (8, 16, 4, 1, 0, 8), (8, 8, 4, 1, 1, 8))})
    #: Every row has the fused addition, and DSPs are counted. Registers of whole products are
    #: inside the DSP48; those around packed ones are not, and columns share those of weights.
    fitted = MappingProxyType({
        "lut": ("requantizer", "sum", "lane", "packed_product", "channel"),
        "ff": ("requantizer", "sum", "lane", "packed_product", "packed_weight", "packed_sum",
               "channel")})

    def supports(self, work: Work) -> bool:
        """Any window; a matmul is a 1x1 window over loaded weights. A convolution in groups is
        one operation a block of `tm` outputs over their own inputs, with zeros between groups."""
        return work.operator in ("convolution", "matmul") and not work.wide

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of one tile; a fused pool, addition or upsample adds none."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, "convolution")
        loops = overlay.loops
        trips = (tile.out_words * ceil_div(tile.columns + loops.work_columns, overlay.columns)
                 * (tile.rows + loops.work_rows)
                 * max(tile.in_words * tap_trips(work.kernel_rows * work.kernel_columns, overlay),
                       overlay.result_cycles))
        return TileCost(found.fill, found.interval, trips, found.drain)

    def padded_bytes(self, overlay: Overlay) -> int:
        """The pixels of all columns."""
        return overlay.tn * overlay.columns

    def terms(self, overlay: Overlay) -> dict[str, float]:
        """What its sites grow with, besides a constant and the products' DSPs."""
        packed = overlay.dsp_packing
        return {
            "requantizer": overlay.requantizers,
            "adder": overlay.requantizers if Fusion.ADD in overlay.fusions else 0,
            "sum": overlay.tm * overlay.columns, "lane": overlay.tn * overlay.columns,
            "packed_product": overlay.macs_per_cycle if packed else 0,
            "packed_weight": overlay.tm * overlay.tn if packed else 0,
            "packed_sum": overlay.tm * overlay.columns if packed else 0,
            "channel": engine_channels(overlay, self.engine),
        }

    def resources(self, overlay: Overlay) -> Resources:
        """MACs in DSP48 (two a slice if packed), requantizers, address arithmetic, control."""
        macs = overlay.macs_per_cycle
        slices = ceil_div(macs, 2) if overlay.dsp_packing else macs
        slices *= ceil_div(overlay.data_bits, 16) ** 2
        rest = logic(self.engine.value, self.terms(overlay))
        return Resources(slices + rest.dsp, 0.0, rest.lut, rest.ff)

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """See `EngineModel`."""
        return (Memory("parameters", ceil_div(overlay.parameter_entries, overlay.requantizers),
                       overlay.requantizers, PARAMETER_BITS),)


def tap_trips(taps: int, overlay: Overlay) -> int:
    """Trips for the taps of a kernel and a word of channels: one each, unless the array is a
    described one that takes several."""
    return ceil_div(taps, overlay.loops.taps_per_cycle)

"""The norm engine: group norm in two passes, sums and then an affine step.

It holds the entries of one block of whole groups; how a tensor is cut is the mapping's question.
"""

from __future__ import annotations

from types import MappingProxyType

from arch_models.engines.base import (
    EngineModel,
    Grid,
    Memory,
    Tile,
    TileCost,
    Work,
    refuse,
    timing,
)
from arch_models.overlay import Engine, Overlay

#: Values of one group for which every product of `arithmetic.group_norm_entries` fits 64 bits.
MOST_VALUES = 1 << 18


class Norm(EngineModel):
    """A trip is one beat. The last sums of a block are followed by its entries.

    One sequential unit does a square root a group and two divisions a channel.
    """

    engine = Engine.NORM
    grid = Grid(((8, 8, 4, 512), (16, 8, 4, 512), (16, 16, 4, 512), (8, 8, 6, 512),
                 (8, 8, 2, 512), (8, 8, 4, 1024)),
                ((8, 8, 4, 512), (16, 16, 4, 512), (8, 8, 4, 1024)), {"depth": "vector_entries"})
    #: The words' width is little of an engine as large as this one.
    fitted = MappingProxyType(dict.fromkeys(("dsp", "lut", "ff"), ("channel",)))

    def supports(self, work: Work) -> bool:
        """The first pass (`group_sums`) and the second (`group_norm`)."""
        return work.operator in ("group_sums", "group_norm")

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of `planes` x `rows` x `columns` beats, and of the entries of `groups`."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, work.operator)
        entries = tile.groups * found.drain_per_group
        entries += tile.channels * found.drain_per_channel if tile.groups else 0
        return TileCost(found.fill, found.interval, tile.rows * tile.columns * tile.planes,
                        found.drain + entries)

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """See `EngineModel`."""
        return (Memory("norm parameters", overlay.vector_entries, 1),)

"""The grid sampler: bilinear, zeros outside; one address and weight set a position.

It holds whole source planes on chip; whether they fit is the mapping's question.
"""

from __future__ import annotations

from arch_models.engines.base import (
    EngineModel,
    Tile,
    TileCost,
    Work,
    interval_cycles,
    refuse,
    timing,
)
from arch_models.overlay import Engine, Overlay


class GridSample(EngineModel):
    """A trip is one position: one cycle for its coordinates, four a plane for the neighbours."""

    engine = Engine.GRID_SAMPLE

    def supports(self, work: Work) -> bool:
        """Only grid sampling."""
        return work.operator == "grid_sample"

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of `rows` x `columns` positions of `planes` planes."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, "grid_sample")
        interval = interval_cycles(found, work, tile.planes, tile.channels)
        return TileCost(found.fill, interval, tile.rows * tile.columns, found.drain)

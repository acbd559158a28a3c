"""The engines that stream a tile beat by beat: elementwise, lookup, pool, upsample, softmax.

They hold no weights beyond a small table; the convolution and the grid sampler are elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from arch_models.engines.base import (
    PARAMETER_BITS,
    VECTOR_LANES,
    EngineModel,
    Memory,
    Tile,
    TileCost,
    Work,
    interval_cycles,
    refuse,
    timing,
)
from arch_models.overlay import Engine, Overlay
from arch_models.units import ceil_div


@dataclass(frozen=True, slots=True)
class Stream(EngineModel):
    """A trip is one output beat, or one output position for the operators in `by_position`."""

    engine: Engine
    operators: frozenset[str]
    by_position: frozenset[str] = frozenset()

    def supports(self, work: Work) -> bool:
        """An operator of the engine, in the form that its operation has fields for."""
        if work.operator not in self.operators:
            return False
        if work.operator == "average_pool":
            return (not work.scaled_pool and work.padding == 0
                    and work.kernel_rows == work.kernel_columns == work.stride
                    and work.stride & (work.stride - 1) == 0)
        if work.operator == "max_pool":
            return work.kernel_rows == work.kernel_columns
        return not (work.operator == "add" and work.relu)

    def cost(self, work: Work, tile: Tile, overlay: Overlay) -> TileCost:
        """Cycles of one tile of `planes` x `rows` x `columns` output beats."""
        if not self.supports(work):
            raise refuse(self.engine, work)
        found = timing(overlay, self.engine, work.operator)
        positions = tile.rows * tile.columns
        trips = positions if work.operator in self.by_position else positions * tile.planes
        interval = interval_cycles(found, work, tile.planes, tile.channels)
        return TileCost(found.fill, interval, trips, found.drain)

    def memories(self, overlay: Overlay) -> tuple[Memory, ...]:
        """See `EngineModel`."""
        if self.engine is not Engine.ELEMENTWISE:
            return ()
        return (Memory("vector parameters", ceil_div(overlay.vector_entries, VECTOR_LANES),
                       VECTOR_LANES, PARAMETER_BITS),)

ELEMENTWISE = Stream(Engine.ELEMENTWISE, frozenset({"add", "multiply", "affine", "flow_sum"}),
                     frozenset({"flow_sum"}))
LOOKUP = Stream(Engine.LOOKUP, frozenset({"lookup"}))
POOL = Stream(Engine.POOL, frozenset({"average_pool", "max_pool"}))
UPSAMPLE = Stream(Engine.UPSAMPLE, frozenset({"upsample"}))
SOFTMAX = Stream(Engine.SOFTMAX, frozenset({"softmax"}), frozenset({"softmax"}))

"""The engine models, one a file.

They hold no state; `MODELS` lists them in the order of the units of a program.
"""

from __future__ import annotations

from functools import cache

from arch_models.engines import stream
from arch_models.engines.base import (
    EngineModel,
    Resources,
    Tile,
    TileCost,
    Timing,
    Work,
    backends,
    interval_cycles,
    timing,
)
from arch_models.engines.convolution import Convolution
from arch_models.engines.depthwise import Depthwise
from arch_models.engines.grid_sample import GridSample
from arch_models.engines.norm import Norm

#: The one table of engines on this floor: grids, fits and searches follow from it.
MODELS: tuple[EngineModel, ...] = (
    Convolution(), stream.ELEMENTWISE, stream.LOOKUP, stream.POOL, stream.UPSAMPLE,
    stream.SOFTMAX, GridSample(), Norm(), Depthwise(),
)


@cache
def engines_that_run(work: Work) -> tuple[EngineModel, ...]:
    """The engines that can run a layer, in the order of `MODELS`; none: only the host can."""
    return tuple(item for item in MODELS if item.supports(work))


__all__ = ["MODELS", "EngineModel", "Resources", "Tile", "TileCost", "Timing", "Work",
           "backends", "engines_that_run", "interval_cycles", "timing"]

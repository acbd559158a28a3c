"""The engines in mapping and lowering, one file each behind one seam (`base.EngineSlice`).

What they cost and need is in `arch_models.engines`, what they are in hardware in `hw`.
"""

from __future__ import annotations

from collections.abc import Mapping

from arch_models.overlay import Engine
from cosim.engines.base import EngineSlice
from cosim.engines.convolution import ConvolutionSlice
from cosim.engines.depthwise import DepthwiseSlice
from cosim.engines.grid_sample import GridSampleSlice
from cosim.engines.norm import NormSlice
from cosim.engines.stream import COST_ARGUMENTS, StreamSlice
from cosim.program.table import Opcode

_ALL: tuple[EngineSlice, ...] = (
    ConvolutionSlice(), *(StreamSlice(engine) for engine in COST_ARGUMENTS), GridSampleSlice(),
    NormSlice(), DepthwiseSlice())
SLICES: Mapping[Engine, EngineSlice] = {item.engine: item for item in _ALL}
#: Which engine runs an operation.
RUNS: Mapping[Opcode, EngineSlice] = {opcode: item for item in _ALL for opcode in
                                      item.cost_arguments}

__all__ = ["RUNS", "SLICES", "EngineSlice"]

"""The mapping of a graph as values: engine, absorbed layers and tile of every layer.

It chooses nothing; see `mapping`.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass, field
from typing import NamedTuple

from arch_models.overlay import Engine
from cosim.mapping.layout import Layouts
from cosim.program.table import WeightOrder
from workloads.graph import Phase


@dataclass(frozen=True, slots=True)
class ConvolutionTile:
    """Words of `tm` and `tn` channels, rows and columns of the convolution's own output.

    `resident`: all input channels of a spatial tile lie in one bank. `weights_outer`: a block of
    weights stays while all spatial tiles pass.
    """

    out_words: int
    in_words: int
    rows: int
    columns: int
    resident: bool
    weights_outer: bool


@dataclass(frozen=True, slots=True)
class StreamTile:
    """Channel planes, and groups of positions (`unit_in` read, `unit_out` written each)."""

    planes: int
    units: int
    unit_in: int
    unit_out: int


@dataclass(frozen=True, slots=True)
class GridTile:
    """Source planes and grids in a bank, positions loaded at once and in one operation."""

    planes: int
    grids: int
    chunk: int
    part: int


@dataclass(frozen=True, slots=True)
class NormTile:
    """Planes of a block of whole groups, positions loaded at once and normalized at once."""

    planes: int
    chunk: int
    part: int


@dataclass(frozen=True, slots=True)
class PlaneTile:
    """Channel planes, and rows and columns of outputs of each."""

    planes: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class LayerMapping:
    """One layer of a program: a graph layer with those it absorbs.

    `engine` None: the host. `inputs`: tensors read from DRAM; `output`: the tensor written.
    `upsample`, `pool`, `skip`: what a convolution absorbs (skip: the other operand of an add).
    `order`: how a matmul loads its second operand into WEIGHT. `why_host`: what the fabric lacks.
    `tile` is a value of its engine. `cost_cycles` is the search's closed-form cost, no prediction.
    """

    name: str
    phase: Phase
    engine: Engine | None
    inputs: tuple[str, ...]
    output: str
    absorbed: tuple[str, ...] = ()
    upsample: str = ""
    pool: str = ""
    add: str = ""
    skip: str = ""
    tile: object = None
    cost_cycles: float = 0.0
    order: WeightOrder = WeightOrder.STORED
    why_host: str = ""


class Turn(NamedTuple):
    """A stage of two layers that hand a tensor on by bands of rows: of the `reader` or the writer,
    its number; `after`: the writer's stage whose store a reader waits for, -1 if it need not."""

    reader: bool
    number: int
    after: int = -1


@dataclass(frozen=True)
class Mapping:
    """The mapping of a graph's layers in some phases, in the order they run.

    `kept`: tensors that stay in the tensor memory, with their first bytes in it; `bands`: those
    of them that pass it by bands of rows, with the order of their layers' stages.
    """

    phases: tuple[Phase, ...]
    layers: tuple[LayerMapping, ...]
    layouts: Layouts
    kept: Table[str, int] = field(default_factory=dict)
    bands: Table[str, tuple[Turn, ...]] = field(default_factory=dict)

    def layer(self, name: str) -> LayerMapping | None:
        """The mapping that runs or absorbs a graph layer; None if it costs nothing."""
        for item in self.layers:
            if item.name == name or name in item.absorbed:
                return item
        return None

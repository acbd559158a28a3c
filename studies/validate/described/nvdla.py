"""Predicts NVDLA's cycles and traffic on ResNet-50's 1x1 layers, as NVIDIA's own sheet has them.

It measures nothing: the reference is a published estimate, not a chip. Layers of 3x3 (Winograd),
the first one (its stride folded into channels) and those with a sum behind them are left out, since
the design file cannot say what the sheet does there.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from arch_models.board import load_board
from arch_models.overlay import load_overlay
from arch_models.units import ceil_div
from studies.plain.truth import CARRIED
from studies.validate.described.layers import (
    convolution_cycles,
    convolution_graph,
    lowered,
    moved_bytes,
)

TABLE = CARRIED / "nvdla_resnet50.csv"
#: The sheet's memory of 10 GB/s at 1 GHz moves a KiB in 100 cycles.
CYCLES_PER_KIB = 100


@dataclass(frozen=True)
class LayerCheck:
    """One layer. Cycles of the multipliers, KiB moved, and the longer of both in cycles."""

    DERIVED: ClassVar = ("cycles", "error")
    name: str
    stride: int
    multiply: int
    published_multiply: int
    moved_kib: float
    published_kib: float
    published_cycles: float

    @property
    def cycles(self) -> float:
        """The sheet's rule: the longer of multiplying and moving."""
        return max(self.multiply, self.moved_kib * CYCLES_PER_KIB)

    @property
    def error(self) -> float:
        """Predicted over published cycles, less one."""
        return self.cycles / self.published_cycles - 1


Checks = tuple[LayerCheck, ...]


def validate(path: Path = TABLE) -> tuple[LayerCheck, ...]:
    """Every layer of the carried table."""
    board, design = load_board("pynq-z1"), load_overlay("nvdla")
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            channels, out, size, kernel, stride = (int(row[name]) for name in (
                "in_channels", "out_channels", "in_size", "kernel", "stride"))
            run = lowered(convolution_graph(row["layer"], channels, out, ceil_div(size, stride),
                                            kernel, stride), design, board)
            found.append(LayerCheck(
                row["layer"], stride, convolution_cycles(run), int(row["mac_cycles"]),
                moved_bytes(run) / 1024, float(row["traffic_kib"]), float(row["cycles"])))
    return tuple(found)


TITLE = "## NVDLA: 1x1 layers of ResNet-50, by its makers' sheet\n"
HEAD = ("layer", "stride", "multiplying", "published", "KiB moved", "published", "cycles",
        "published", "error %")


def table_rows(checks: Sequence[LayerCheck]) -> Iterable[tuple[str, ...]]:
    """Rows of text under `HEAD`."""
    for item in checks:
        yield (item.name, str(item.stride), str(item.multiply), str(item.published_multiply),
               f"{item.moved_kib:.0f}", f"{item.published_kib:.0f}", f"{item.cycles:.0f}",
               f"{item.published_cycles:.0f}", f"{100 * item.error:+.1f}")



READING = """
NVDLA with 2048 int8 multipliers, by NVIDIA's performance sheet (github.com/nvdla/hw, branch
`nvdlav1`): *published* is an estimate of its makers at 10 GB/s, **not a measurement**. Carried are
the sheet's distinct 1x1 layers of ResNet-50 without on-chip SRAM. Its rule is the longer of
multiplying and moving. How the convolution buffer is shared between features and weights is not
stated; here a half each. Winograd (3x3 layers), the folded stride of the first layer and sums
behind a layer cannot be described, so those rows are not here. The sheet takes the weights of a
strided 1x1 layer stride * stride times and reads every position of its input.
"""

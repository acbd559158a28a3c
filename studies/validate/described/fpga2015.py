"""Predicts the 64x7 tiled accelerator of FPGA 2015 on AlexNet: published cycles and times.

It fits nothing. Cycles come from the shipped design `fpga2015`; for the times two things that
the cycle model of the paper leaves out are set here, see `timed_design`.

Source: Zhang et al., "Optimizing FPGA-based Accelerator Design for Deep Convolutional Neural
Networks" (FPGA 2015), cross-layer design, two sets of channels a layer.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from arch_models.board import load_board
from arch_models.memory import Memory, flat_memory
from arch_models.overlay import Overlay, load_overlay
from cosim.executors import fast
from studies.plain.truth import CARRIED
from studies.validate.described.layers import convolution_cycles, convolution_graph, lowered

TABLE = CARRIED / "fpga2015_alexnet.csv"
#: Four 32-bit AXI interfaces of 400 MB/s each, as the paper is remembered: 16 bytes a cycle.
#: Recalled, not checked against the text.
MASTER_BITS = 128
#: Rows of a tile, so that a layer's loads, work and stores can overlap. A guess: the last three
#: layers (13 rows) stay whole, 27 rows are two tiles and 55 are four, with hardly a short one.
TILE_ROWS = 14
#: Latencies of the board's memory in fabric cycles. A guess; 10 more move a time by 0.02 %.
READ_LATENCY_CYCLES, WRITE_LATENCY_CYCLES = 30, 10
#: The published cycles of the first layer leave out the pipeline depth of its one pass.
FILL_LEFT_OUT = {"conv1": 20}
SETS = 2


@dataclass(frozen=True)
class LayerCheck:
    """One layer, both sets. Cycles of the convolution engine; times in milliseconds."""

    DERIVED: ClassVar = ("error",)
    layer: str
    cycles: int
    published_cycles: int
    predicted_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured time, less one."""
        return self.predicted_ms / self.measured_ms - 1

    @property
    def model_error(self) -> float:
        """The same for the paper's own cycle model, at 100 MHz."""
        return self.published_cycles / 1e5 / self.measured_ms - 1


Checks = tuple[LayerCheck, ...]


def timed_design() -> Overlay:
    """The shipped design with masters of `MASTER_BITS` and tiles of `TILE_ROWS`."""
    design = load_overlay("fpga2015")
    return replace(design, tile_rows=TILE_ROWS,
                   masters=tuple(replace(master, width_bits=MASTER_BITS)
                                 for master in design.masters))


def timed_memory(design: Overlay) -> Memory:
    """A flat memory with a port for each master (the board's DRAM is not the bottleneck)."""
    return flat_memory(len(design.masters), MASTER_BITS // 8, READ_LATENCY_CYCLES,
                       WRITE_LATENCY_CYCLES)


def validate(path: Path = TABLE) -> tuple[LayerCheck, ...]:
    """Every layer of the carried table. The host's start at each layer is that of PYNQ-Z1."""
    board = load_board("pynq-z1")
    counted, timed = load_overlay("fpga2015"), timed_design()
    memory = timed_memory(timed)
    found = []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            channels, out, size, kernel, stride = (int(row[name]) for name in (
                "N_in", "M_out", "R", "K", "stride"))
            graph = convolution_graph(row["layer"], channels, out, size, kernel, stride, SETS)
            exact, run = (lowered(graph, design, board) for design in (counted, timed))
            cycles = fast.simulate(run.program, memory).total_cycles
            found.append(LayerCheck(row["layer"], convolution_cycles(exact),
                                    int(row["cycles_two_sets"]), cycles / timed.clock_hz * 1e3,
                                    float(row["measured_ms"])))
    return tuple(found)


TITLE = "## FPGA 2015: the 64x7 accelerator on AlexNet\n"
READING = """
Cycles are the shipped design `fpga2015`. {cycles} For the times two values are set that the
paper's cycle model leaves out: masters of {bits} bits (four 32-bit interfaces, recalled) and
tiles of {rows} rows (a guess); the host's start at each layer is that of PYNQ-Z1, and the board's
DRAM is a flat memory with latencies of {read} and {write} cycles (a guess; ten more change a time
by 0.02 %). Nothing was fitted. Source: Zhang et al., FPGA 2015, cross-layer design, VC707.
"""
HEAD = ("layer", "cycles", "published", "predicted ms", "measured ms", "error %",
        "error of the paper's model %")


def table_rows(checks: Sequence[LayerCheck]) -> Iterable[tuple[str, ...]]:
    """Rows of text under `HEAD`."""
    for item in checks:
        yield (item.layer, str(item.cycles), str(item.published_cycles),
               f"{item.predicted_ms:.3f}", f"{item.measured_ms:.2f}",
               f"{100 * item.error:+.2f}", f"{100 * item.model_error:+.2f}")


def reading(checks: Sequence[LayerCheck]) -> str:
    """What is stated, recalled and guessed, and which cycles are not the published ones."""
    off = [f"{item.layer} by {item.cycles - item.published_cycles}" for item in checks
           if item.cycles != item.published_cycles]
    told = (f"They equal the published ones but for {', '.join(off)}: the pipeline depth of its "
            "one pass, for two sets, which the published count leaves out."
            if off else "They equal the published ones.")
    return READING.format(cycles=told, bits=MASTER_BITS, rows=TILE_ROWS,
                          read=READ_LATENCY_CYCLES, write=WRITE_LATENCY_CYCLES)



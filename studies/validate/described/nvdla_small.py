"""Predicts NVDLA small on two systems, whose paths to DRAM differ, with three networks.

It fits nothing and compiles nothing: the operations are those of its makers' compiler, read from
the register traces of somebody else's runs, and each is timed by itself, as its driver runs them.
What nobody states is set here, see `READING`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from arch_models.board import Board, load_board
from arch_models.fields import with_value
from arch_models.memory import Memory, flat_memory, memory_for
from arch_models.overlay import Engine, Overlay, Pipeline, Wait, load_overlay
from arch_models.units import ceil_div
from cosim.executors import fast
from studies.plain.truth import CARRIED
from studies.validate.described.layers import lowered
from workloads.graph import Graph, Layer, Operator, TensorSpec, Window

OPERATIONS = CARRIED / "nvdla_small_operations.csv"
TIMES = CARRIED / "nvdla_small_times.csv"
#: Latencies of the memory behind a converter, in fabric cycles. A guess.
READ_LATENCY_CYCLES, WRITE_LATENCY_CYCLES = 30, 10
#: Of the path behind the converter, and of one that is chosen with the measured times in view.
PATH_BITS, SLOW_PATH_BITS = 32, 8
#: Values that a pool takes a cycle (PDP_THROUGHPUT_1), channels of a position.
POOLED_A_CYCLE, CHANNELS = 1, 8


@dataclass(frozen=True)
class Operation:
    """One start of the hardware. `rows`, `columns`: of the output; `times`: in a frame."""

    network: str
    kind: str
    channels: int
    out_channels: int
    rows: int
    columns: int
    kernel_rows: int
    kernel_columns: int
    stride: int
    padding: int
    times: int

    @property
    def least_cycles(self) -> int:
        """Cycles of the multipliers alone."""
        if self.kind != "convolution":
            return 0
        return (self.kernel_rows * self.kernel_columns * ceil_div(self.channels, 8)
                * ceil_div(self.out_channels, 8) * self.rows * self.columns)


@dataclass(frozen=True)
class TimeCheck:
    """One network on one system, in milliseconds. `multiply_ms`: of the multipliers alone;
    `narrow_ms`: predicted behind a narrower DRAM or path (`on_zynq`, `on_fabric`)."""

    DERIVED: ClassVar = ("error",)
    network: str
    system: str
    multiply_ms: float
    predicted_ms: float
    measured_ms: float
    narrow_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured time, less one."""
        return self.predicted_ms / self.measured_ms - 1


Checks = tuple[TimeCheck, ...]
#: A design as a system has it, and the memory behind it.
Parts = tuple[Overlay, Memory]


def narrowed(design: Overlay, bits: int) -> Overlay:
    """The design behind a converter to a path of `bits`: as many bytes a burst."""
    beats = 64 // bits
    return replace(design, masters=tuple(
        replace(master, width_bits=bits, max_burst_beats=beats) for master in design.masters))


def on_zynq(design: Overlay, board: Board, narrow: bool) -> Parts:
    """An HP port of 64 bits and the processor's DDR3 of 32 bits; `narrow`: of 16."""
    if narrow:
        board = with_value(board, "ddr.data_bus_bits", 16)
    return design, memory_for(board, design, "ddr3")


def on_fabric(design: Overlay, _: Board, narrow: bool) -> Parts:
    """A converter to a path of 32 bits; `narrow`: of 8. Bare-metal code polls."""
    bits = SLOW_PATH_BITS if narrow else PATH_BITS
    polled = replace(design, control=replace(design.control, wait=Wait.POLL))
    return narrowed(polled, bits), flat_memory(1, bits // 8, READ_LATENCY_CYCLES,
                                               WRITE_LATENCY_CYCLES)


SYSTEMS: dict[str, Callable[[Overlay, Board, bool], Parts]] = {
    "Zynq-7000, Linux": on_zynq, "ZCU102, bare metal": on_fabric}


def graph_of(work: Operation) -> Graph:
    """One operation as a graph of one layer; weights are zeros."""
    reach = 2 * work.padding
    rows = (work.rows - 1) * work.stride + work.kernel_rows - reach
    columns = (work.columns - 1) * work.stride + work.kernel_columns - reach
    window = Window(work.kernel_rows, work.kernel_columns, work.stride, work.padding)
    out = work.out_channels
    names: tuple[str, ...] = ("input",)
    arrays: dict[str, np.ndarray] = {}
    operator = Operator.MAX_POOL
    if work.kind == "add":
        operator, names, window = Operator.ADD, ("input", "other"), Window()
        arrays = {"multiplier": np.ones(2, np.int32), "shift": np.ones(1, np.int32)}
    elif work.kind == "convolution":
        operator = Operator.CONVOLUTION
        arrays = {"weights": np.zeros((out, work.channels, work.kernel_rows, work.kernel_columns),
                                      np.int8),
                  "bias": np.zeros(out, np.int32), "multiplier": np.ones(out, np.int32),
                  "shift": np.zeros(out, np.int32)}
    layer = Layer("work", operator, names, "output", window=window,
                  constants={role: f"work.{role}" for role in arrays})
    tensors = {name: TensorSpec(name, work.channels, rows, columns) for name in names}
    tensors["output"] = TensorSpec("output", out, work.rows, work.columns)
    return Graph("work", names, ("output",), tensors, (layer,),
                 {f"work.{role}": array for role, array in arrays.items()})


def with_pool(design: Overlay, work: Operation) -> Overlay:
    """The design with the pool's cycles a position: it takes each value of a window's step once."""
    step = min(work.stride, work.kernel_rows) ** 2 if work.rows > 1 else (
        work.kernel_rows * work.kernel_columns)
    return replace(design, pipelines=(*design.pipelines, Pipeline(
        Engine.POOL, 0, CHANNELS * step // POOLED_A_CYCLE)))


def frame_ms(works: Sequence[Operation], board: Board, parts: Parts) -> float:
    """Predicted milliseconds of a frame: one operation after another."""
    design, memory = parts
    total = 0
    for work in works:
        own = with_pool(design, work) if work.kind == "pool" else design
        program = lowered(graph_of(work), own, board).program
        total += work.times * fast.simulate(program, memory).total_cycles
    return total / design.clock_hz * 1e3


def operations(path: Path = OPERATIONS) -> dict[str, list[Operation]]:
    """The operations of each network of the carried table."""
    found: dict[str, list[Operation]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = (int(value) for name, value in row.items()
                       if name not in ("network", "kind"))
            found.setdefault(row["network"], []).append(
                Operation(row["network"], row["kind"], *numbers))
    return found


def validate(path: Path = TIMES) -> tuple[TimeCheck, ...]:
    """Every published time of the carried table. The host's starts are those of a Zedboard."""
    board, design = load_board("zedboard"), load_overlay("nvdla-small")
    works = operations()
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            mine = works[row["network"]]
            wide, narrow = (frame_ms(mine, board, SYSTEMS[row["system"]](design, board, given))
                            for given in (False, True))
            multiply = sum(work.times * work.least_cycles for work in mine)
            found.append(TimeCheck(row["network"], row["system"], multiply / design.clock_hz * 1e3,
                                   wide, float(row["measured_ms"]), narrow))
    return tuple(found)


TITLE = "## NVDLA small: two systems with different DRAMs\n"
HEAD = ("network", "system", "multiplying ms", "predicted ms", "measured ms", "error %",
        "narrower ms")


def table_rows(checks: Sequence[TimeCheck]) -> Iterable[tuple[str, ...]]:
    """Rows of text under `HEAD`."""
    for item in checks:
        yield (item.network, item.system, f"{item.multiply_ms:.2f}", f"{item.predicted_ms:.2f}",
               f"{item.measured_ms:.2f}", f"{100 * item.error:+.1f}", f"{item.narrow_ms:.2f}")


READING = """
NVDLA with 64 int8 multipliers, 100 MHz, read from its source
(`arch_models/designs/nvdla_small.toml`); operations as its compiler cut them, from published
register traces (carried). *Zynq-7000*: an XC7Z045 whose 32-bit DDR3 is taken as a Zedboard's;
*narrower* is a DRAM of 16 bits, which costs nothing: a read of 8 bytes takes a whole DRAM burst in
either. *ZCU102*: the 16-bit DDR4 of its fabric (recalled), behind a converter to 32 bits (inferred:
its paper names a converter, not the width) with guessed latencies of 30 and 10 cycles; *narrower*
is a path of a byte a cycle.

Nothing was fitted, and the errors are large. Under Linux the driver takes most of the time: 1.0 to
1.6 ms an operation beyond the prediction, which counts 43 us for it; nobody states what it does. So
these systems cannot tell what the width of the DRAM costs. On bare metal the measured times were
read before the description was written. What is missing there may lie on the way to DRAM: with a
byte a cycle, chosen with these times in view, the errors are {slow} %. How many reads its
interconnect lets through at once is not stated. Operations whose weights stay from the one before
read them again here (about 1 % of ResNet-50's bytes).
"""


def reading(checks: Sequence[TimeCheck]) -> str:
    """What is stated, recalled and guessed, and what a slower path would explain."""
    slow = [f"{100 * (item.narrow_ms / item.measured_ms - 1):+.0f}" for item in checks
            if SYSTEMS[item.system] is on_fabric]
    return READING.format(slow=", ".join(slow[:-1]) + " and " + slow[-1])

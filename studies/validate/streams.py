"""Predicts HLS kernels that stream vectors on a board with a 32-bit DRAM, and with 16 bits.

It fits no coefficient. What a kernel takes by itself is its measured time at its lowest clock, in
cycles; the memory's part is predicted: the time of a run is the longer of the two. Ports and bursts
in flight are inferred, see `LANES` and `OUTSTANDING`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from arch_models.board import Board, load_board
from arch_models.fields import with_value
from arch_models.memory import board_memory
from arch_models.units import MEBIBYTE
from cosim.executors import fast
from studies.plain.truth import CARRIED
from studies.validate.memory import Stream, traffic_program

TABLE = CARRIED / "zc702_streams.csv"
BOARD = "zc702"
#: A lane of floats is a port of 32 bits: the kernels are told to have four lanes, or two lanes of
#: two operands, and take 16 bytes a cycle. Inferred from their rate at low clocks.
LANES, LANE_BYTES = 4, 4
#: Bursts in flight, of 16 beats. Nobody says; chosen with the two highest clocks of `mxv` in view.
OUTSTANDING = 4
#: Streams that write, of kernels that do.
WRITERS = {"saxp": 4, "vector_add": 2}
STREAM_BYTES = MEBIBYTE // 2
NARROW_BITS = 16
#: Arrays begin this far apart: in the same bank. A guess; the addresses are not known.
APART = 64 * MEBIBYTE


@dataclass(frozen=True)
class StreamCheck:
    """One kernel at one clock. `narrow_ms`: predicted with half the DRAM's width, not measured."""

    DERIVED: ClassVar = ("error",)
    kernel: str
    mhz: float
    predicted_ms: float
    measured_ms: float
    narrow_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured time, less one."""
        return self.predicted_ms / self.measured_ms - 1


Checks = tuple[StreamCheck, ...]


def validate(path: Path = TABLE) -> tuple[StreamCheck, ...]:
    """Every clock of every kernel but its first row, the lowest one, which is given."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["kernel"], int(row["bytes"]), float(row["pl_mhz"]), float(row["measured_ms"]))
                for row in csv.DictReader(file)]
    wide = load_board(BOARD)
    narrow = with_value(wide, "ddr.data_bus_bits", NARROW_BITS)
    lowest: dict[str, float] = {}
    found = []
    for kernel, size, mhz, measured in rows:
        if kernel not in lowest:
            lowest[kernel] = measured * mhz
            continue
        own = lowest[kernel] / mhz
        predicted, halved = (max(own, size / memory_rate(kernel, mhz, board) * 1e3)
                             for board in (wide, narrow))
        found.append(StreamCheck(kernel, mhz, predicted, measured, halved))
    return tuple(found)


def memory_rate(kernel: str, mhz: float, board: Board) -> float:
    """Bytes a second that the memory moves for the streams of a kernel, at most."""
    hz = round(mhz * 1e6)
    memory = board_memory(board, hz)
    memory = replace(memory, ports=tuple(replace(port, width_bytes=LANE_BYTES)
                                         for port in memory.ports))
    ways = [(lane, False) for lane in range(LANES)]
    ways += [(lane, True) for lane in range(WRITERS.get(kernel, 0))]
    program = traffic_program(tuple(
        Stream(lane, write, 16 * LANE_BYTES, OUTSTANDING, STREAM_BYTES, index * APART)
        for index, (lane, write) in enumerate(ways)), memory)
    result = fast.simulate(program, memory)
    return int(result.layer_bytes.sum()) / (result.total_cycles / hz)


def lines(checks: Sequence[StreamCheck]) -> Iterable[str]:
    """The checks as lines of text."""
    for item in checks:
        yield (f"{item.kernel:14s} {item.mhz:7.1f} MHz  predicted {item.predicted_ms:8.3f} ms  "
               f"measured {item.measured_ms:8.3f} ms  error {100 * item.error:+6.2f} %  "
               f"with {NARROW_BITS} bits {item.narrow_ms:8.3f} ms")


READING = """
### Streams of HLS kernels on a 32-bit DRAM

`cosim validate streams`. *Measured*: run times of five kernels on a ZC702 (XC7Z020, 32 bits);
public, rows carried (`studies/data/zc702_streams.csv`). A kernel by itself takes, in cycles,
its time at its lowest clock; predicted is the memory: four ports of 32 bits (inferred from the
kernels' lanes) with four bursts of 16 beats in flight (chosen with the two highest clocks of `mxv`
in view), arrays in the same bank (a guess). The last column is the same with half the DRAM's width:
nobody measured it.

| kernel | MHz | predicted ms | measured ms | error % | predicted with 16 bits |
| --- | --- | --- | --- | --- | --- |
"""
VERDICT = """
**Deviation D1.** Kernels that read alone are within 8 %, and so are those that write as well while
their own cycles bind. Where these saturate the DRAM they stop at 2.4 GB/s, 57 % of its peak, and
the prediction is 8 to 15 % too fast. Their addresses are not known, nor how their masters order
reads and writes. `tests/studies/test_studies_ladder.py` holds it to be one.
"""


def page_lines() -> Iterable[str]:
    """The section of the page of checks."""
    rows = [f"| {item.kernel} | {item.mhz:.1f} | {item.predicted_ms:.3f} | "
            f"{item.measured_ms:.3f} | {100 * item.error:+.2f} | {item.narrow_ms:.3f} |"
            for item in validate()]
    yield READING + "\n".join(rows) + "\n" + VERDICT


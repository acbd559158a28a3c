"""Checks the ddr3 memory against public measurements and a DRAM simulator's curve.

It fits nothing; the coefficients are data in `arch_models/data/memory.toml`.

The six efficiencies are the
vendor's for a board whose bus width is not stated; here the board's own 16 bits are used.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from arch_models.board import Board, load_board
from arch_models.memory import board_memory, cpu_traffic
from cosim.executors import fast
from studies.plain.truth import truth_path
from studies.validate.memory_traffic import (
    MEBIBYTE,
    Stream,
    bare_memory,
    share_of_peak,
    traffic_program,
)

CHECKS = Path(__file__).resolve().parents[2] / "arch_models" / "data" / "memory_checks.csv"
CURVE = "dram_reference_dramsim3.csv"
READ_TOLERANCE_POINTS = 4.0
VENDOR_HZ = 150_000_000
LATENCY_HZ = 100_000_000
OUTSTANDING = 8  # of each HP master of the vendor's test; not stated there


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison. `tolerance` is None where the error is only stated; `ok` is then None."""

    name: str
    predicted: float
    reference: float
    tolerance: float | None
    unit: str
    source: str
    ok: bool | None


def checks(board: Board | None = None, curve_bytes: int = MEBIBYTE // 4,
           stream_bytes: int = MEBIBYTE) -> tuple[list[Check], list[str]]:
    """(every check, names of tables that are absent). Sizes are bytes a stream moves."""
    used = board or load_board("pynq-z1")
    found = [_check(row, used, stream_bytes) for row in _rows(CHECKS)]
    path = truth_path(CURVE)
    if path is None:
        return found, [CURVE]
    return found + _curve(used, _rows(path), curve_bytes), []


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _check(row: dict[str, str], board: Board, size: int) -> Check:
    name = row["name"]
    if name == "hp_read_cycles":
        predicted = hp_read_cycles(board, size)
    else:
        predicted = vendor_efficiency(board, name.startswith("random"), "read" in name,
                                      "write" in name, size)
    reference, tolerance = float(row["reference"]), float(row["tolerance"])
    return Check(name, round(predicted, 3), reference, tolerance, row["unit"], row["source"],
                 abs(predicted - reference) <= tolerance)


def vendor_efficiency(board: Board, random: bool, read: bool, write: bool, size: int) -> float:
    """Percent of peak, four HP masters, bursts of 16 x 64 bit; each reads, writes or both."""
    memory = board_memory(board, VENDOR_HZ)
    streams: list[Stream] = []
    directions = [direction for direction, wanted in ((False, read), (True, write)) if wanted]
    for port in range(4):
        for direction in directions:
            index = len(streams)
            streams.append(Stream(
                port, direction, 128, OUTSTANDING, size // len(directions),
                base=index * 64 * MEBIBYTE + index * memory_row_bytes(board),
                random_region_bytes=16 * MEBIBYTE if random else 0))
    return share_of_peak(tuple(streams), memory)


def memory_row_bytes(board: Board) -> int:
    """Bytes after which consecutive addresses change bank: regions start in different banks."""
    return board.ddr.row_bytes


def hp_read_cycles(board: Board, size: int) -> float:
    """Cycles a read of 16 x 64 bit with one outstanding while the processor reads uncached."""
    memory = board_memory(board, LATENCY_HZ, background=(cpu_traffic(),))
    program = traffic_program((Stream(0, False, 128, 1, size),), memory)
    result = fast.simulate(program, memory)
    return result.total_cycles / int(result.layer_bursts.sum())


def curve_error(board: Board, row: dict[str, str], size: int) -> float:
    """Predicted minus reference percent of peak for one row of the DRAM curve."""
    memory = board_memory(board, VENDOR_HZ)
    assert memory.ddr is not None
    count, burst = int(row["streams"]), int(row["burst_bytes"])
    bare = bare_memory(memory.ddr, 2 * count, burst)
    spread = row["layout"] == "spread"
    random = row["pattern"].startswith("rand")
    streams = []
    for index in range(count):
        base = index * 64 * MEBIBYTE
        if spread:
            base += index * (memory.ddr.banks // count) * memory.ddr.row_bytes
        shares = {"rd": ((False, size),), "wr": ((True, size),)}.get(
            row["pattern"][-2:], ((False, size * 2 // 3), (True, size // 3)))
        for write, part in shares:
            streams.append(Stream(
                index, write, burst, int(row["outstanding_per_stream"]), part // burst * burst,
                base + write * 32 * MEBIBYTE, 16 * MEBIBYTE if random else 0))
    return share_of_peak(tuple(streams), bare) - float(row["pct_of_peak"])


def _curve(board: Board, rows: list[dict[str, str]], size: int) -> list[Check]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        group = {"rd": "read", "wr": "write"}.get(row["pattern"][-2:], "mixed")
        groups.setdefault(group, []).append(abs(curve_error(board, row, size)))
    found = []
    for group in sorted(groups):
        mean = float(np.mean(groups[group]))
        limit = READ_TOLERANCE_POINTS if group == "read" else None
        found.append(Check(
            f"dram_curve_{group}_mean_absolute_error", round(mean, 3), 0.0, limit,
            "points of peak", f"DRAM simulator curve, {len(groups[group])} rows",
            None if limit is None else mean <= limit))
    return found


def report(found: Sequence[Check], absent: Sequence[str]) -> str:
    """The checks as text, and what did not run for want of a table."""
    lines = []
    for item in found:
        verdict = "stated only" if item.ok is None else "ok" if item.ok else "FAILS"
        limit = "" if item.tolerance is None else f" within {item.tolerance:g}"
        lines.append(f"{item.name:38s} predicted {item.predicted:8.3f}  reference "
                     f"{item.reference:8.3f}{limit}  {item.unit}  {verdict}")
    lines += [f"absent: {name}; the checks against the DRAM curve did not run" for name in absent]
    return "\n".join(lines)


def as_json(found: Sequence[Check], absent: Sequence[str]) -> dict[str, object]:
    """The same as JSON values."""
    return {"checks": [asdict(item) for item in found], "absent": list(absent)}

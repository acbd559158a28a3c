"""Checks the ddr3 memory against public measurements and a DRAM simulator's curve.

It fits nothing; the coefficients are data in `arch_models/data/memory.toml`. Loads are small
programs that run on the executors like any other; no second model of the memory is here.

The six efficiencies are the
vendor's for a board whose bus width is not stated; here the board's own 16 bits are used.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from arch_models.board import Board, load_board
from arch_models.fields import with_value
from arch_models.memory import Ddr3Timing, Memory, Port, board_memory, cpu_traffic
from arch_models.units import MEBIBYTE
from cosim.executors import fast
from cosim.program.table import ARGUMENT_COUNT, Column, Opcode, Program, Segment, Unit, UnitKind
from studies.plain.records import encode
from studies.plain.truth import CARRIED, truth_path
from studies.validate.dram_commands import CommandCheck, Scenario, board_timing
from studies.validate.dram_commands import as_json as commands_as_json

CHECKS = Path(__file__).resolve().parents[2] / "arch_models" / "data" / "memory_checks.csv"
CURVE = "dram_reference_dramsim3.csv"
#: The same simulator's curve of the DRAMs with bank groups, carried.
GROUPED_CURVE = CARRIED / "ddr4_curve.csv"
GROUPED_BYTES = MEBIBYTE // 4  # a stream, as the other simulator moved
#: What others measured on ZynqMP boards: the best of all patterns and ports that they tried.
MEASURED = CARRIED / "zynqmp_throughput.csv"
#: Clock and bursts in flight are not stated: guesses. Bursts of 128 and 192 bytes were best.
ZYNQMP_HZ, ZYNQMP_PORTS, ZYNQMP_BURSTS = 300_000_000, ("HP0", "HP1", "HP3"), (128, 192)
#: The ZCU102's DRAM where it is not the ZCU104's: four groups of x8 devices, by U-Boot's
#: psu_init_gpl.c for the board (DRAMTMG0, 2, 4, 9, RFSHTMG, ADDRMAP1, 5, 8; two DDR clocks each).
ZCU102 = {"bank_group_bits": 2, "column_high_bit": 14, "bank_low_bit": 15, "bank_high_bit": 16,
          "row_low_bit": 17, "row_high_bit": 31, "size_bytes": 1 << 32, "t_rrd": 4, "t_rrd_l": 6,
          "t_faw": 34, "wr2rd": 22, "wr2rd_l": 28, "t_rfc_min": 278, "t_refi": 8320}
READ_TOLERANCE_POINTS = 4.0
VENDOR_HZ = 150_000_000
LATENCY_HZ = 100_000_000
OUTSTANDING = 8  # of each HP master of the vendor's test; not stated there


@dataclass(frozen=True, slots=True)
class Stream:
    """One master: bursts of `burst_bytes` from `base` on, in order or at random in a region.

    `outstanding` bursts are in flight. A random stream is that many units on the port, each with
    one burst in flight, because a transfer has an address pattern and no list of addresses.
    """

    port: int
    write: bool
    burst_bytes: int
    outstanding: int
    bytes: int
    base: int = 0
    random_region_bytes: int = 0


def traffic_program(streams: tuple[Stream, ...], memory: Memory, seed: int = 0) -> Program:
    """A program of transfers alone, all of which start at cycle 0."""
    units: list[Unit] = []
    rows: list[np.ndarray] = []
    draw = np.random.default_rng(seed)
    for stream in streams:
        width = memory.ports[stream.port].width_bytes
        kind = UnitKind.WRITE if stream.write else UnitKind.READ
        beats = max(1, stream.burst_bytes // width)
        random = stream.random_region_bytes > 0
        for _ in range(stream.outstanding if random else 1):
            index = len(units)
            units.append(Unit(f"stream{index}", kind, stream.port,
                              1 if random else stream.outstanding, beats, setup_cycles=0,
                              tail_cycles=0))
            if not random:
                rows.append(_row(index, stream.base, stream.bytes))
                continue
            slots = stream.random_region_bytes // stream.burst_bytes
            count = stream.bytes // stream.burst_bytes // stream.outstanding
            for slot in draw.integers(slots, size=count).tolist():
                rows.append(_row(index, stream.base + slot * stream.burst_bytes,
                                 stream.burst_bytes))
    operations = np.array(rows, np.int64)
    return Program("traffic", tuple(units), (), ("traffic",), operations,
                   np.zeros((len(rows), ARGUMENT_COUNT), np.int32), (Segment(0, len(rows)),))


def _row(unit: int, address: int, size: int) -> np.ndarray:
    row = np.zeros(len(Column), np.int64)
    row[Column.UNIT] = unit
    row[Column.KIND] = Opcode.OTHER
    row[Column.ADDRESS] = address
    row[Column.ROW_BYTES] = size
    row[Column.ROWS] = row[Column.PLANES] = 1
    return row


def share_of_peak(streams: tuple[Stream, ...], memory: Memory) -> float:
    """Bytes moved over what the data bus could have moved, in percent."""
    if memory.ddr is None:
        raise ValueError("memory: model is 'flat', must be 'ddr3' to have a peak")
    result = fast.simulate(traffic_program(streams, memory), memory)
    seconds = result.total_cycles / memory.ddr.fabric_hz
    return 100 * int(result.layer_bytes.sum()) / seconds / memory.ddr.peak_bytes_per_s


def bare_memory(ddr: Ddr3Timing, ports: int, burst_bytes: int) -> Memory:
    """The DRAM without the ports of a processing system: one burst is one beat, no path."""
    bare = replace(ddr, fabric_hz=ddr.clock_hz, word_clocks_numerator=0)
    return Memory("ddr3", tuple(
        Port(f"stream{index}", burst_bytes, controller_port=index, write_lead_cycles=0,
             read_accept=64, write_accept=64) for index in range(ports)), bare)


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
    found += grouped_curve() + measured_throughput()
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
    count = int(row["streams"])
    gap = (memory.ddr.banks // count) * memory.ddr.row_bytes if row["layout"] == "spread" else 0
    return _share_of(memory.ddr, row, gap, size) - float(row["pct_of_peak"])


def _share_of(ddr: Ddr3Timing, row: dict[str, str], gap: int, size: int) -> float:
    """Predicted percent of peak for a row's streams, each of which begins `gap` bytes further."""
    count, burst = int(row["streams"]), int(row["burst_bytes"])
    bare = bare_memory(ddr, 2 * count, burst)
    random = row["pattern"].startswith("rand")
    streams = []
    for index in range(count):
        base = index * (64 * MEBIBYTE + gap)
        shares = {"rd": ((False, size),), "wr": ((True, size),)}.get(
            row["pattern"][-2:], ((False, size * 2 // 3), (True, size // 3)))
        for write, part in shares:
            streams.append(Stream(
                index, write, burst, int(row["outstanding_per_stream"]), part // burst * burst,
                base + write * 32 * MEBIBYTE, 16 * MEBIBYTE if random else 0))
    return share_of_peak(tuple(streams), bare)


def grouped_errors(path: Path = GROUPED_CURVE) -> dict[tuple[str, str], list[float]]:
    """Predicted minus reference percent of peak by board and pattern, with bank groups."""
    errors: dict[tuple[str, str], list[float]] = {}
    for row in _rows(path):
        share = _share_of(board_timing(row["board"]), row, int(row["gap_bytes"]), GROUPED_BYTES)
        errors.setdefault((row["board"], row["pattern"]), []).append(
            share - float(row["pct_of_peak"]))
    return errors


def grouped_curve() -> list[Check]:
    """Mean absolute error of each board and pattern with bank groups; stated, without a limit."""
    return [Check(f"ddr4_{board}_{pattern}_mean_absolute_error",
                  round(float(np.mean(np.abs(errors))), 3), 0.0, None, "points of peak",
                  f"DRAMsim3, {len(errors)} rows", None)
            for (board, pattern), errors in grouped_errors().items()]


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


def zynqmp_board(name: str) -> Board:
    """A shipped board, or the ZCU102, whose fabric does not matter here."""
    if name != "zcu102":
        return load_board(name)
    board = load_board("zcu104")
    for field, value in ZCU102.items():
        board = with_value(board, f"ddr.{field}", value)
    return board


def best_share(board: Board) -> float:
    """The most percent of peak that three HP ports reach in order: reads, writes or both."""
    memory = board_memory(board, ZYNQMP_HZ)
    ports = [index for index, port in enumerate(memory.ports) if port.name in ZYNQMP_PORTS]
    found = []
    for directions in ((False,), (True,), (False, True)):
        for burst in ZYNQMP_BURSTS:
            size = MEBIBYTE // len(directions) // burst * burst
            pairs = [(port, write) for port in ports for write in directions]
            found.append(share_of_peak(tuple(
                Stream(port, write, burst, OUTSTANDING, size,
                       base=index * (64 * MEBIBYTE + memory_row_bytes(board)))
                for index, (port, write) in enumerate(pairs)), memory))
    return max(found)


def measured_throughput() -> list[Check]:
    """The best share of peak on two ZynqMP boards against what others measured; stated only."""
    return [Check(f"{row['board']}_best_throughput",
                  round(best_share(zynqmp_board(row["board"])), 3), float(row["pct_of_peak"]), None,
                  "% of peak", row["source"], None) for row in _rows(MEASURED)]


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


class MemoryFile(TypedDict):
    """What `cosim validate memory --json` writes. `absent`: tables that are not here."""

    checks: Sequence[Check]
    absent: Sequence[str]
    commands: list[Scenario]


def as_json(found: Sequence[Check], absent: Sequence[str], commands: Sequence[CommandCheck]
            ) -> MemoryFile:
    """The same as JSON values."""
    return {"checks": encode(found), "absent": list(absent),
            "commands": commands_as_json(commands)}

"""Predicts eleven ResNet layers on VTA with and without load/compute overlap (2018).

It fits nothing. The published figure names no schedules, so two ways to choose them are shown:

- rule: among the schedules the compiler builds, the one that moves the fewest bytes, as the
  public scheduler of that year chose (`find_schedules`, tiles of at least 3 x 3; the first of
  equals), once among single threads and once among pairs of virtual threads;
- nearest: the schedule whose predicted time is nearest to the measured one. That is a choice with
  the answer in view: it only shows whether any schedule explains both times.

Source of the times: Moreau et al., arXiv 1807.04188, digitised to about 0.1 %.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import Console

from arch_models.vta import VtaArray, VtaTiming, load_vta
from cosim.executors import fast
from cosim.vta.lower import lower_vta, vta_memory
from cosim.vta.schedule import VtaConvolution, VtaSchedule, blocks, patch, reject_reason
from studies.plain.terminal import grid, terminal
from studies.plain.truth import CARRIED

TABLE = CARRIED / "vta_pynq_board_overlap_2018.csv"
LEAST_TILE = 3
TOLERANCE = 0.05


@dataclass(frozen=True)
class Pair:
    """Predicted milliseconds without and with overlap, and the schedules they are of."""

    serial: VtaSchedule
    overlapped: VtaSchedule
    serial_ms: float
    overlapped_ms: float

    @property
    def ratio(self) -> float:
        """Time without over time with overlap."""
        return self.serial_ms / self.overlapped_ms


@dataclass(frozen=True)
class OverlapCheck:
    """One layer: measured milliseconds, and predictions by each way to choose schedules."""

    name: str
    serial_ms: float
    overlapped_ms: float
    rule: Pair
    nearest: Pair

    @property
    def ratio(self) -> float:
        """Measured time without over time with overlap."""
        return self.serial_ms / self.overlapped_ms

    def error(self, pair: Pair) -> float:
        """Relative error of a predicted ratio."""
        return pair.ratio / self.ratio - 1


Checks = tuple[OverlapCheck, ...]


def schedules(layer: VtaConvolution, array: VtaArray, threads: int) -> list[VtaSchedule]:
    """What the compiler builds, with one or two virtual threads, small tiles first."""
    found = blocks(layer, array)
    axes = [(1, 1)] if threads == 1 else [(2, 1), (1, 2)]
    tiles = product(_divisors(layer.out_rows), _divisors(layer.out_columns),
                    _divisors(found.in_blocks), _divisors(found.out_blocks), axes)
    listed = [VtaSchedule(rows, columns, inside, outside, *pair)
              for rows, columns, inside, outside, pair in tiles
              if rows >= LEAST_TILE and columns >= LEAST_TILE]
    return [one for one in listed if reject_reason(layer, one, array) is None]


def moved_bytes(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray) -> int:
    """Bytes that the public scheduler counts: whole patches, weights at every step, outputs."""
    found = blocks(layer, array)
    rows, columns = patch(layer, schedule)
    tiles = (layer.out_rows // schedule.tile_rows * (layer.out_columns // schedule.tile_columns)
             * (found.out_blocks // schedule.tile_out_blocks))
    steps = found.in_blocks // schedule.tile_in_blocks
    kernel = layer.kernel_rows * layer.kernel_columns
    step = schedule.tile_in_blocks * (
        rows * columns * array.input_block_bytes
        + kernel * schedule.tile_out_blocks * array.weight_block_bytes)
    return tiles * steps * step + layer.out_rows * layer.out_columns * layer.out_channels


def validate(path: Path = TABLE, timing: VtaTiming | None = None) -> tuple[OverlapCheck, ...]:
    """Every layer of the carried table."""
    model = load_vta()
    array, used = model.array(), timing or model.timing
    found = []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            kernel, stride = int(row["k"]), int(row["stride"])
            pad = (kernel - 1) // 2
            layer = VtaConvolution(1, int(row["ic"]), int(row["ih"]), int(row["iw"]),
                                   int(row["oc"]), kernel, kernel, stride, stride, pad, pad, pad,
                                   pad)
            times = [{one: _milliseconds(layer, one, array, used)
                      for one in schedules(layer, array, threads)} for threads in (1, 2)]
            measured = (float(row["ms_no_vthread"]), float(row["ms_vthread"]))
            costs: list[dict[VtaSchedule, float]] = [
                {one: moved_bytes(layer, one, array) for one in known} for known in times]
            gaps = [{one: abs(time / target - 1) for one, time in known.items()}
                    for known, target in zip(times, measured, strict=True)]
            rule, nearest = _pair(times, costs), _pair(times, gaps)
            found.append(OverlapCheck(row["layer"], *measured, rule, nearest))
    return tuple(found)


def _pair(times: list[dict[VtaSchedule, float]], costs: list[dict[VtaSchedule, float]]) -> Pair:
    """The cheapest schedule of each kind, the first of equals."""
    serial, overlapped = (min(known, key=known.__getitem__) for known in costs)
    return Pair(serial, overlapped, times[0][serial], times[1][overlapped])


def _milliseconds(layer: VtaConvolution, schedule: VtaSchedule, array: VtaArray,
                  timing: VtaTiming) -> float:
    program = lower_vta(layer, schedule, array, timing)
    cycles = fast.simulate(program, vta_memory(array)).total_cycles
    return cycles / array.clock_hz * 1e3


def _divisors(whole: int) -> list[int]:
    return [size for size in range(1, whole + 1) if whole % size == 0]


def within(checks: Sequence[OverlapCheck], way: str) -> int:
    """How many layers have a ratio within the tolerance, for `rule` or `nearest`."""
    return sum(abs(item.error(getattr(item, way))) <= TOLERANCE for item in checks)


def show(checks: Sequence[OverlapCheck], console: Console | None = None) -> None:
    """Print the ratios of each layer and how many are within the tolerance."""
    out = console or terminal()
    table = grid("Time without over time with load/compute overlap, VTA 2018", (
        "layer", "measured", "rule", "error %", "nearest", "error %",
        "measured ms (without, with)", "rule ms", "nearest ms"))
    for item in checks:
        table.add_row(
            item.name, f"{item.ratio:.3f}", f"{item.rule.ratio:.3f}",
            f"{100 * item.error(item.rule):+.1f}", f"{item.nearest.ratio:.3f}",
            f"{100 * item.error(item.nearest):+.1f}",
            *(f"{part.serial_ms:.2f}, {part.overlapped_ms:.2f}"
              for part in (item, item.rule, item.nearest)))
    out.print(table)
    for way in ("rule", "nearest"):
        out.print(f"{way}: {within(checks, way)} of {len(checks)} ratios within "
                  f"{100 * TOLERANCE:.0f} %")

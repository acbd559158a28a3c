"""Coefficients of a user's own board from what his meter said: a board file with measured powers.

It measures nothing; `cosim measure --power` and a user's own table do. Rails give each number by
itself. A meter at the plug gives differences alone: of the processor's states, and of the fabric's
work, regulators included.

A table has a row a state: `state` (sleep, poll, work: the processor, the fabric loaded and quiet;
loaded: the fabric clocked and idle; running: frames of the design), `clock_mhz`, and watts:
`vccint_w`, `ps_w`, `ddr_w`, `total_w`, any of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from arch_models.board import BOARDS, Board
from arch_models.overlay import Overlay
from arch_models.power.energy import Activity, energy
from hw.board.measurement import MeasurementError, load_measurement
from studies.energy.rails import number, optional, table_rows
from studies.plain.errors import UserError, unknown

STATES = ("sleep", "poll", "work", "loaded", "running")
RAILS = ("vccint_w", "ps_w", "ddr_w", "total_w")
PROCESSOR = {"sleep": "ps_sleep_w", "poll": "ps_poll_w", "work": "ps_work_w"}


@dataclass(frozen=True)
class Reading:
    """One state with its mean watts by rail; rails that were not measured are left out."""

    state: str
    clock_mhz: float
    watts: dict[str, float]


@dataclass(frozen=True)
class Found:
    """One number of the board's power: measured, from how many readings, and how far they differ
    (standard deviation of the logarithm)."""

    name: str
    value: float
    samples: int
    error: float
    source: str


def read_readings(path: Path) -> list[Reading]:
    """Readings of a table, or the one of a measurement file (.json); `UserError` if it is none."""
    if path.suffix == ".json":
        return [_of_measurement(path)]
    found = []
    for index, row in enumerate(table_rows(path, ("state", "clock_mhz")), start=2):
        if row["state"] not in STATES:
            raise UserError(f"{path}, line {index}: {unknown('state', row['state'], STATES)}")
        watts = {name: value for name in RAILS
                 if (value := optional(path, index, row, name)) is not None}
        if not watts:
            raise UserError(f"{path}, line {index}: no watts; columns are {', '.join(RAILS)}.")
        found.append(Reading(row["state"], number(path, index, row, "clock_mhz"), watts))
    if not found:
        raise UserError(f"{path}: holds no row.")
    return found


def _of_measurement(path: Path) -> Reading:
    try:
        found = load_measurement(str(path))
    except MeasurementError as error:
        raise UserError(str(error)) from error
    if not found.rails_w:
        raise UserError(f"{path}: holds no power; run `cosim measure --power FILE`.")
    return Reading("running", found.clock_hz / 1e6, dict(found.rails_w))


def calibrated(readings: Sequence[Reading], overlay: Overlay, board: Board,
               frame: Activity) -> list[Found]:
    """What the readings say of the board's power; `UserError` if they say nothing.

    `frame`: what one frame of the running design does, as predicted.
    """
    found = [*_processor(readings), *_fabric(readings, overlay, board, frame),
             *_dram(readings, board)]
    if not found:
        raise UserError("the readings give no coefficient: rails need a state each; a meter at the "
                        "plug needs two states of the processor at one clock, or running beside "
                        "loaded.")
    return found


def _middle(name: str, numbers: Sequence[float], source: str) -> Found:
    known = np.array(numbers)
    spread = float(np.std(np.log(known), ddof=1)) if len(known) > 1 else 0.05
    return Found(name, float(known.mean()), len(known), max(spread, 1e-3), source)


def _processor(readings: Sequence[Reading]) -> list[Found]:
    found = []
    for state, name in PROCESSOR.items():
        watts = [item.watts["ps_w"] for item in readings
                 if item.state == state and item.watts.get("ps_w", 0.0) > 0]
        if watts:
            found.append(_middle(name, watts, f"{len(watts)} readings of ps_w, state {state}"))
    return found


def _fabric(readings: Sequence[Reading], overlay: Overlay, board: Board,
            frame: Activity) -> list[Found]:
    """Leakage and scale from the core supply; the scale alone from the plug."""
    at = [(item, _dynamic_w(item, overlay, board, frame)) for item in readings
          if item.state in ("loaded", "running")]
    rails = [(watts, item.watts["vccint_w"]) for item, watts in at if "vccint_w" in item.watts]
    if len(rails) >= 2 and len({watts for watts, _ in rails}) >= 2:
        predicted, measured = np.array(rails).T
        scale, static = np.polyfit(predicted, measured, 1)
        if scale <= 0 or static <= 0:
            raise UserError(f"vccint_w over what is predicted: {static:.3f} W + {scale:.3f} times; "
                            "both must be positive. Were states or rails swapped?")
        rest = measured / (static + scale * predicted)
        error = max(float(np.std(np.log(rest))), 0.02)
        source = f"line through {len(rails)} readings of vccint_w over the predicted activity"
        return [Found("vccint_static_w", float(static), len(rails), error, source),
                Found("fabric_scale", float(scale), len(rails), error, source)]
    pairs = [(run, run_w, idle, idle_w) for run, run_w in at if run.state == "running"
             for idle, idle_w in at if idle.state == "loaded"
             and abs(idle.clock_mhz - run.clock_mhz) < 0.5]
    scales = [(run.watts["total_w"] - idle.watts["total_w"]) / (run_w - idle_w)
              for run, run_w, idle, idle_w in pairs
              if "total_w" in run.watts and "total_w" in idle.watts and run_w > idle_w]
    if not scales or min(scales) <= 0:
        return []
    return [_middle("fabric_scale", scales, f"{len(scales)} pairs of running and loaded at the "
                    "plug, regulators and traffic included")]


def _dynamic_w(item: Reading, overlay: Overlay, board: Board, frame: Activity) -> float:
    """Predicted watts of the fabric beyond leakage, at the reading's clock."""
    clock_hz = item.clock_mhz * 1e6
    design = replace(overlay, clock_hz=round(clock_hz))
    if item.state == "loaded":
        cycles = 10 ** 6
        still = Activity(cycles, clock_hz, host_s=cycles / clock_hz)
        return energy(still, design, board).pl_dynamic_j / (cycles / clock_hz)
    work = replace(frame, clock_hz=clock_hz)
    return energy(work, design, board).pl_dynamic_j / (frame.cycles / clock_hz)


def _dram(readings: Sequence[Reading], board: Board) -> list[Found]:
    """Pads and termination: the quiet supply less standby and refresh."""
    dram, ddr = board.power.dram, board.ddr
    refresh_w = dram.refresh_pj * 1e-12 * ddr.clock_hz / ddr.t_refi
    quiet = [item.watts["ddr_w"] - dram.standby_w - refresh_w for item in readings
             if item.state != "running" and "ddr_w" in item.watts]
    if not quiet:
        return []
    if min(quiet) < 0:
        raise UserError(f"ddr_w without traffic is less than the {dram.standby_w:.3f} W of the "
                        "devices' standby; are power.dram's currents those of this board?")
    return [_middle("ddr_bus_w", [max(value, 1e-6) for value in quiet],
                    f"{len(quiet)} readings of ddr_w without traffic")]


def board_text(board: str, found: Sequence[Found]) -> str:
    """The board's file with the measured numbers in place of its own."""
    path = Path(board) if board.endswith(".toml") else BOARDS / f"{board.replace('-', '_')}.toml"
    text = path.read_text(encoding="utf-8")
    for item in found:
        line = (f'{item.name} = {{ value = {item.value:.6g}, unit = '
                f'"{"ratio" if item.name == "fabric_scale" else "W"}", error = {item.error:.3g}, '
                f'source = "{item.source}", status = "measured" }}')
        old = re.search(rf"(?m)^{item.name} = .*$", text)
        text = (text[: old.start()] + line + text[old.end():] if old
                else text.replace("[power]\n", f"[power]\n{line}\n", 1))
    return text

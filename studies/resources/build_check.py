"""Sets a vendor's build beside our predictions, and writes what it reached as a file for designs.

It runs no tool; `vendor_reports` reads the reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

from arch_models.board import Board
from arch_models.builds import digest
from arch_models.clock import predict
from arch_models.output import toml_string
from arch_models.overlay import Overlay
from arch_models.resources import whole_design
from cosim.lowering.wiring import units_of
from studies.energy.own_board import Found
from studies.energy.power_report import Difference
from studies.plain.errors import UserError
from studies.resources.calibrate import SynthesisReport
from studies.resources.vendor_reports import TimingSummary, Utilization


@dataclass(frozen=True)
class SiteRow:
    """Sites predicted, with the block design, and used."""

    site: str
    predicted: float
    used: float


@dataclass(frozen=True)
class PartRow:
    """The longest period of a part in ns: predicted, and of the worst reported path that begins
    there; None if no listed path does."""

    part: str
    predicted_ns: float | None
    reported_ns: float | None
    path: str


@dataclass(frozen=True)
class BuildCheck:
    """A build beside the prediction of its design."""

    predicted_mhz: float
    low_mhz: float
    high_mhz: float
    reached_mhz: float
    met: bool
    sites: tuple[SiteRow, ...]
    parts: tuple[PartRow, ...]


class Estimate(TypedDict):
    """A tool's power report beside ours: watts by its parts, sites by kind."""

    file: str
    design: str
    device: str
    clock_mhz: float
    confidence: str
    watts: Mapping[str, float]
    used: Mapping[str, float]
    parts: Sequence[Difference]


class Calibration(TypedDict):
    """What `cosim calibrate --json` writes: `synthesis` of --csynth, `build` and `reports` of
    --reports, `measured` of --power."""

    synthesis: NotRequired[SynthesisReport]
    build: NotRequired[BuildCheck]
    reports: NotRequired[list[Estimate]]
    measured: NotRequired[list[Found]]


def compare(overlay: Overlay, board: Board, timing: TimingSummary, used: Utilization
            ) -> BuildCheck:
    """The differences part by part. `UserError` if the build is for another part."""
    if timing.device.replace("-", "").removeprefix("xc") not in board.part.name.replace("-", ""):
        raise UserError(f"{timing.file}: a build for {timing.device}, {board.name} has "
                        f"{board.part.name}; give --board its board")
    found = predict(replace(overlay, build=""), board)
    total = whole_design(overlay)
    sites = tuple(SiteRow(name, getattr(total, name), getattr(used, name))
                  for name in ("dsp", "bram36", "lut", "ff"))
    predicted = dict(found.parts)
    worst: dict[str, tuple[float, str]] = {}
    for path in timing.paths:
        name = part_of(overlay, board, path.start)
        needs = path.required_ns - path.slack_ns
        if needs > worst.get(name, (0.0, ""))[0]:
            worst[name] = (needs, f"{path.start} -> {path.end}")
    names = dict.fromkeys([*predicted, *worst])
    return BuildCheck(
        found.mhz, found.low_mhz, found.high_mhz, timing.reached_mhz, timing.met, sites,
        tuple(PartRow(name, predicted.get(name), worst[name][0] if name in worst else None,
                      worst.get(name, (0.0, ""))[1]) for name in names))


def part_of(overlay: Overlay, board: Board, pin: str) -> str:
    """Which part a pin of the vendor's netlist lies in: an engine, masters, memories, control."""
    if met := re.search(r"/overlay/u(\d+)/", pin):
        units = units_of(overlay, board)
        unit = units[int(met[1])] if int(met[1]) < len(units) else None
        if unit is not None:
            kinds = {"read": "read_master", "write": "write_master"}
            return kinds.get(str(unit.kind.name).lower(), unit.name)
    if re.search(r"buffer|parameters|accumulators|/table_", pin):
        return "buffer"
    return "control" if "/overlay_0/" in pin else "outside the overlay"


def build_toml(overlay: Overlay, timing: TimingSummary, used: Utilization) -> str:
    """The file that a design names as its `build`."""
    return "\n".join([
        "# What a vendor's build of a design reached; written by `cosim calibrate --reports`.",
        f"design = {toml_string(overlay.name)}", f"digest = {toml_string(digest(overlay))}",
        f"tool = {toml_string(timing.tool)}", f"device = {toml_string(timing.device)}",
        f"asked_mhz = {1000 / timing.period_ns:.6g}", f"reached_mhz = {timing.reached_mhz:.6g}",
        f"met = {str(timing.met).lower()}",
        *(f"{name} = {getattr(used, name):g}" for name in ("dsp", "bram36", "lut", "ff"))]) + "\n"

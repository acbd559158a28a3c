"""Reads what Vivado's `report_power` prints, and sets it beside our predictions part by part.

It runs no vendor tool. A file that is no such report, is of a design that was not routed, or lacks
a part that every design has is refused by name. What the tool prints is its estimate, not a
measurement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from arch_models.engines import Resources
from arch_models.engines.base import values
from arch_models.power.fabric import (
    CLOCK,
    FILE,
    SPINE,
    cycle_pj,
    fabric_errors,
    fitted_coefficients,
)
from arch_models.power.intervals import error_of, limits, spread
from studies.plain.errors import UserError

MOST_BYTES = 20_000_000
TITLE = "report_power"
SUFFIXES = (".rpt", ".txt", ".pwr")
#: A part's row in the table of on-chip components, and our name for it.
ROWS = {"Clocks": "clocks", "Signals": "signals", "Block RAM": "bram", "DSPs": "dsp",
        "MMCM": "mmcm", "PLL": "pll", "I/O": "io", "PS7": "ps", "PS8": "ps",
        "Static Power": "static", "Total": "total"}
LOGIC_ROWS = ("Slice Logic", "CLB Logic")
USED = {"LUT as Logic": "lut", "Register": "ff", "Block RAM": "bram36", "DSPs": "dsp"}
#: A design has these whatever it does.
NEEDED = ("clocks", "logic", "signals", "static", "total")


@dataclass(frozen=True)
class PowerReport:
    """One report. `watts` by part, parts that the design has none of left out; `used` sites by
    kind; `clocks_mhz`: constraints by name; `activity`: the file that activities came from, empty
    if the tool assumed them."""

    file: str
    design: str
    device: str
    version: str
    confidence: str
    activity: str
    watts: Mapping[str, float]
    used: Mapping[str, float]
    clocks_mhz: Mapping[str, float]

    @property
    def sites(self) -> Resources:
        """The sites as the report counts them."""
        return Resources(round(self.used.get("dsp", 0.0)), self.used.get("bram36", 0.0),
                         round(self.used.get("lut", 0.0)), round(self.used.get("ff", 0.0)))

    @property
    def clock_mhz(self) -> float:
        """The fastest clock that is constrained: the fabric's, where there is one."""
        return max(self.clocks_mhz.values())


@dataclass(frozen=True)
class Difference:
    """One part: milliwatts as the tool reports it, ours for the same sites, with 80 % limits."""

    DERIVED: ClassVar = ("error",)
    part: str
    reported_mw: float
    predicted_mw: float
    low_mw: float
    high_mw: float

    @property
    def error(self) -> float | None:
        """Predicted over reported less one; None where the tool prints zero."""
        return self.predicted_mw / self.reported_mw - 1 if self.reported_mw else None


def is_power_report(text: str) -> bool:
    """Does a text claim to be a `report_power`?"""
    return bool(re.search(rf"^\s*\|?\s*Command\s*:.*\b{TITLE}\b", text[:10_000], re.MULTILINE)
                or re.search(r"^Power Report\s*$", text[:10_000], re.MULTILINE))


def power_reports(folder: Path) -> list[PowerReport]:
    """Every power report of a folder, by file name; `UserError` if there is none, or one is bad.

    Files that claim to be something else are left alone.
    """
    if not folder.is_dir():
        raise UserError(f"{str(folder)!r} is no folder.")
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            with path.open(encoding="utf-8", errors="replace") as file:
                claims = is_power_report(file.read(10_000))
            if claims or "power" in path.stem.lower():
                found.append(read_power_report(path))
    if not found:
        raise UserError(f"{folder}: holds no report of report_power ({', '.join(SUFFIXES)}).")
    return found


def read_power_report(path: Path) -> PowerReport:
    """The report in a file; `UserError` names what is wrong with it or which part it lacks."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES} bytes; no power report is.")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}.") from error
    if not is_power_report(text):
        raise UserError(f"{path}: is no report of `report_power`: its head names no such command.")
    head = dict(re.findall(r"^\|\s*([A-Za-z ]+?)\s*:\s*(.*?)\s*$", text, re.MULTILINE))
    state = head.get("Design State", "")
    if state.lower() != "routed":
        raise UserError(f"{path}: the design's state is {state or 'not said'!r}, must be 'routed'; "
                        "run report_power after route_design.")
    summary = _pairs(path, text, "Summary")
    watts, used = _on_chip(path, text)
    for part in NEEDED:
        if part not in watts:
            raise UserError(f"{path}: the table of on-chip components lacks {part!r}; print the "
                            "whole report, with report_power -file.")
    clocks = _clocks(text)
    if not clocks:
        raise UserError(f"{path}: lacks the clock constraints; the design has no clock, or the "
                        "report is cut short.")
    activity = summary.get("Simulation Activity File", "---")
    return PowerReport(path.name, head.get("Design", ""), head.get("Device", ""),
                       head.get("Tool Version", ""), summary.get("Confidence Level", ""),
                       "" if activity.strip("- ") == "" else activity, watts, used, clocks)


def _rows(text: str, title: str) -> list[list[str]]:
    """The cells of the first table behind a numbered heading."""
    found = re.search(rf"^[\d.]+\s+{re.escape(title)}\s*\n-+\s*$", text, re.MULTILINE)
    rows: list[list[str]] = []
    for line in text[found.end():].split("\n") if found else ():
        if line.startswith("|"):
            rows.append([cell.rstrip() for cell in line.strip().strip("|").split("|")])
        elif rows and not line.startswith("+"):
            break
    return rows


def _pairs(path: Path, text: str, title: str) -> dict[str, str]:
    rows = _rows(text, title)
    if not rows:
        raise UserError(f"{path}: lacks its summary; print the whole report.")
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


def _on_chip(path: Path, text: str) -> tuple[dict[str, float], dict[str, float]]:
    rows = _rows(text, "On-Chip Components")
    if not rows:
        raise UserError(f"{path}: lacks the table of on-chip components.")
    watts: dict[str, float] = {}
    used: dict[str, float] = {}
    for row in rows[1:]:
        if len(row) < 3:
            continue
        name, cell = row[0].strip(), row[1].strip()
        part = "logic" if name in LOGIC_ROWS else ROWS.get(name)
        if part is not None and not row[0].startswith("   "):
            watts[part] = _watts(path, name, cell)
        if name in USED:
            used[USED[name]] = _count(path, name, row[2].strip())
    return watts, used


def _watts(path: Path, name: str, cell: str) -> float:
    """`<0.001` is taken as half of it."""
    try:
        value = float(cell.lstrip("<"))
    except ValueError:
        raise UserError(f"{path}: the power of {name!r} is {cell!r}, must be a number.") from None
    if not 0 <= value < 1e4:
        raise UserError(f"{path}: the power of {name!r} is {cell} W, which no such part takes.")
    return value / 2 if cell.startswith("<") else value


def _count(path: Path, name: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise UserError(f"{path}: {name!r} uses {cell!r}, must be a number.") from None


def _clocks(text: str) -> dict[str, float]:
    found = {}
    for row in _rows(text, "Clock Constraints")[1:] or _rows(text, "Clock Constraint")[1:]:
        try:
            period = float(row[2])
        except (IndexError, ValueError):
            continue
        if period > 0:
            found[row[0].strip()] = 1e3 / period
    return found


def differences(report: PowerReport) -> list[Difference]:
    """Each part of the fabric as the tool reports it beside what we predict from its sites.

    Parts: by the numbers that were fitted to such reports. `fabric`: all of them together, by the
    law that was fitted to measured rails.
    """
    table, errors = values(FILE), {item.name: error_of(item) for item in fitted_coefficients()}
    megahertz, sites = report.clock_mhz, report.sites
    found = []

    def row(part: str, pj: float, error: float) -> Difference:
        milliwatts = pj * megahertz * 1e-3
        return Difference(part, 1e3 * report.watts.get(part, 0.0), milliwatts,
                          *limits(milliwatts, error))

    found.append(row("clocks", table[SPINE] + table[CLOCK] * sites.ff, errors[CLOCK]))
    for part, count in (("signals", sites.lut), ("logic", sites.lut), ("bram", sites.bram36),
                        ("dsp", sites.dsp)):
        name = f"report.{part}_pj"
        found.append(row(part, table[name] * count, errors[name]))
    parts = cycle_pj(sites)
    milliwatts = sum(parts.values()) * megahertz * 1e-3
    reported = sum(report.watts.get(part, 0.0)
                   for part in ("clocks", "signals", "logic", "bram", "dsp"))
    found.append(Difference("fabric", 1e3 * reported, milliwatts,
                            *limits(milliwatts, spread(parts, fabric_errors()))))
    return found

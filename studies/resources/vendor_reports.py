"""Reads `report_timing_summary` and `report_utilization` of a vendor's build.

It judges nothing and runs no tool; `build_check` sets what was read beside our predictions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from arch_models.files import read_text
from studies.plain.errors import UserError

#: Rows of the utilization tables, 7-series and later names.
SITES = {"lut": ("Slice LUTs", "CLB LUTs"), "ff": ("Slice Registers", "CLB Registers"),
         "bram36": ("Block RAM Tile",), "dsp": ("DSPs",)}
_NUMBER = r"(-?\d+(?:\.\d+)?)"


@dataclass(frozen=True)
class ReportedPath:
    """One path that the report lists. Pins are names in the vendor's netlist; times in ns.

    `required_ns`: the clock's period, or half of it between edges of two kinds.
    """

    group: str
    slack_ns: float
    required_ns: float
    start: str
    end: str
    logic_ns: float
    route_ns: float


@dataclass(frozen=True)
class TimingSummary:
    """The design's worst setup slack and what the report lists.

    `period_ns` is of the clock with the worst slack; `paths` are setup paths, worst first.
    """

    file: str
    tool: str
    device: str
    grade: str
    clock: str
    period_ns: float
    wns_ns: float
    failing: int
    paths: tuple[ReportedPath, ...]

    @property
    def reached_mhz(self) -> float:
        """The clock that the worst slack stands for."""
        required = self.paths[0].required_ns if self.paths else self.period_ns
        return 1000 / ((required - self.wns_ns) * self.period_ns / required)

    @property
    def met(self) -> bool:
        """Whether the asked clock was reached; the tool stops there, so more may be possible."""
        return self.wns_ns >= 0


@dataclass(frozen=True)
class Utilization:
    """Sites of the whole build; block RAM in RAMB36."""

    file: str
    dsp: float
    bram36: float
    lut: float
    ff: float


def read_timing(path: Path) -> TimingSummary:
    """A timing summary; `UserError` names the file and what it lacks."""
    text = read_text(path)
    summary = re.search(r"WNS\(ns\)\s+TNS\(ns\)[^\n]*\n[-\s]*\n\s*" + _NUMBER + r"\s+" + _NUMBER
                        + r"\s+(\d+)", text)
    if summary is None:
        raise UserError(f"{path}: no Design Timing Summary; give the text of "
                        "report_timing_summary")
    paths = tuple(sorted((item for block in re.split(r"\n(?=Slack )", text)[1:]
                          if (item := _path(block))), key=lambda item: item.slack_ns))
    clock, period = _clock(path, text, paths)
    return TimingSummary(
        path.name, _header(text, "Tool Version"), _header(text, "Device"),
        _header(text, "Speed File").split(" ")[0], clock, period, float(summary[1]),
        int(summary[3]), paths)


def read_utilization(path: Path) -> Utilization:
    """Sites of a build; `UserError` names the file and the table that it lacks."""
    text = read_text(path)
    found: dict[str, float] = {}
    for site, names in SITES.items():
        for name in names:
            row = re.search(rf"^\|\s*{re.escape(name)}\*?\s*\|\s*{_NUMBER}\s*\|", text, re.M)
            if row:
                found[site] = float(row[1])
        if site not in found:
            raise UserError(f"{path}: no row {' or '.join(names)}; give the text of "
                            "report_utilization")
    return Utilization(path.name, **found)


def has_timing(folder: Path) -> bool:
    """Whether a folder holds a timing summary."""
    return folder.is_dir() and any(
        _header(read_text(path), "Command").startswith("report_timing_summary")
        for path in folder.glob("*.rpt"))


def find_reports(folder: Path) -> tuple[TimingSummary, Utilization]:
    """The reports of a folder, by what they hold; `UserError` if there is none or two of a kind."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no folder; give the one with timing.rpt and utilization.rpt")
    found: dict[str, list[Path]] = {"report_timing_summary": [], "report_utilization": []}
    for path in sorted(folder.glob("*.rpt")):
        command = _header(read_text(path), "Command")
        for name, places in found.items():
            if command.startswith(name) or (name == "report_utilization"
                                            and "1. Slice Logic" in read_text(path)):
                places.append(path)
    for name, places in found.items():
        if len(places) != 1:
            raise UserError(f"{folder}: {len(places)} files of {name}, must be one")
    return (read_timing(found["report_timing_summary"][0]),
            read_utilization(found["report_utilization"][0]))


def _header(text: str, name: str) -> str:
    row = re.search(rf"^\|\s*{name}\s*:\s*(.*?)\s*$", text, re.M)
    return row[1] if row else ""


def _clock(path: Path, text: str, paths: tuple[ReportedPath, ...]) -> tuple[str, float]:
    """The clock of the worst path, or the only one, with its period."""
    rows = re.findall(r"^\s*(\S+)\s+\{[^}]*\}\s+" + _NUMBER + r"\s+" + _NUMBER + r"\s*$", text,
                      re.M)
    periods = {name: float(period) for name, period, _ in rows}
    if not periods:
        raise UserError(f"{path}: no Clock Summary")
    name = paths[0].group if paths and paths[0].group in periods else next(iter(periods))
    return name, periods[name]


def _path(block: str) -> ReportedPath | None:
    """A setup path of the report; None for hold, pulse-width and unconstrained ones."""
    slack = re.match(r"Slack \((?:MET|VIOLATED)\)\s*:\s*" + _NUMBER + "ns", block)
    delay = re.search(r"Data Path Delay:\s*" + _NUMBER + r"ns\s*\(logic " + _NUMBER
                      + r"ns \([^)]*\)\s*route " + _NUMBER + "ns", block)
    kind = re.search(r"Path Type:\s*Setup", block)
    if slack is None or delay is None or kind is None:
        return None
    required = re.search(r"Requirement:\s*" + _NUMBER + r"ns\s", block)
    if required is None or not float(required[1]) > 0:
        return None
    start, end, group = (
        found[1] if (found := re.search(rf"{name}:\s*(\S+)\s", block)) else ""
        for name in ("Source", "Destination", "Path Group"))
    return ReportedPath(group, float(slack[1]), float(required[1]), start, end, float(delay[2]),
                        float(delay[3]))

"""A vendor's power reports by part: reads a table of them and predicts each part from the sites.

It fits one number a part (a geometric mean) and never mixes an estimate of a tool with a
measurement. The reports are estimates without an activity file, so that these numbers say what the
tool would print, not what a meter would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.energy.rails import optional, table_rows

REPORTS_TABLE = "vivado_power_reports.csv"
#: The part that has the sites of the measured boards; other families have other supplies.
FAMILY = "xc7z0"
#: What a part is printed under, and the sites that it is predicted from. Clocks have a part that
#: every design pays, for the spine and its buffers.
PARTS = {"clocks": "ff", "signals": "lut", "logic": "lut", "bram": "bram36", "dsp": "dsp"}
#: Reports print whole milliwatts: below this a part's figure is mostly rounding.
LEAST_MW = 5.0


@dataclass(frozen=True)
class PartReport:
    """One design as a tool reported it: clock, sites, milliwatts by part (absent parts left out).

    `ff_per_lut` designs are those of a usual size; see `usual_flip_flops`.
    """

    name: str
    clock_mhz: float
    sites: dict[str, float]
    milliwatts: dict[str, float]


@dataclass(frozen=True)
class PartFit:
    """Picojoules a site and cycle that a tool prints for a part, and a cycle (`fixed_pj`).

    `error`: standard deviation of the logarithm over designs; `errors`: of each design when the
    others predict it, predicted over reported less one.
    """

    part: str
    site: str
    pj: float
    error: float
    errors: tuple[float, ...]
    fixed_pj: float = 0.0

    @property
    def median_abs_error(self) -> float:
        """The middle of the absolute errors."""
        return float(np.median(np.abs(self.errors)))


def read_reports(path: Path) -> list[PartReport]:
    """Routed designs of the family without an activity file; `UserError` for what is no table.

    A part printed as `<0.001` or left out is not read: its figure is rounding.
    """
    columns = ("device", "state", "activity", "clk_ns", "clocks_W", "logic_W", "signals_W",
               "bram_W", "bram_used", "dsp_W", "dsp_used", "lut_as_logic_used", "register_used")
    found = []
    for index, row in enumerate(table_rows(path, columns), start=2):
        if (not row["device"].startswith(FAMILY) or row["activity"] != "vectorless"
                or not row["clk_ns"] or not row["clocks_W"]):
            continue
        period = row["clk_ns"].split(";")[0]
        milliwatts = {}
        for part in PARTS:
            text = row[f"{part}_W"].strip()
            if text and not text.startswith("<"):
                milliwatts[part] = 1e3 * (optional(path, index, row, f"{part}_W") or 0.0)
        sites = {name: optional(path, index, row, column) or 0.0 for name, column in (
            ("ff", "register_used"), ("lut", "lut_as_logic_used"), ("bram36", "bram_used"),
            ("dsp", "dsp_used"))}
        found.append(PartReport(row.get("repo", f"line {index}"), 1e3 / float(period), sites,
                                milliwatts))
    return found


def fit_part(reports: Sequence[PartReport], part: str) -> PartFit:
    """Over designs whose figure is more than rounding: clocks as a fixed part and a part a
    flip-flop (least squares of relative errors), the others as a geometric mean.

    Raises ValueError with fewer than three such designs.
    """
    site = PARTS[part]
    mine = [item for item in reports
            if item.milliwatts.get(part, 0.0) >= LEAST_MW and item.sites[site] > 0]
    if len(mine) < 3:
        raise ValueError(f"{part}: {len(mine)} reports, needs three at least")
    # mW / MHz is nJ a cycle.
    said = np.array([1e3 * item.milliwatts[part] / item.clock_mhz for item in mine])
    sites = np.array([item.sites[site] for item in mine])
    solve = _with_constant if part == "clocks" else _proportional
    others = np.array([_at(solve(said[keep], sites[keep]), sites[index])
                       for index in range(len(mine))
                       for keep in [np.arange(len(mine)) != index]])
    fixed, each = solve(said, sites)
    return PartFit(part, site, each, float(np.sqrt(np.mean(np.log(others / said) ** 2))),
                   tuple(float(item) for item in others / said - 1), fixed)


def _with_constant(said: np.ndarray, sites: np.ndarray) -> tuple[float, float]:
    inputs = np.stack([1 / said, sites / said], 1)
    fixed, each = np.linalg.lstsq(inputs, np.ones(len(said)), rcond=None)[0]
    return float(fixed), float(each)


def _proportional(said: np.ndarray, sites: np.ndarray) -> tuple[float, float]:
    return 0.0, float(np.exp(np.mean(np.log(said / sites))))


def _at(line: tuple[float, float], sites: float) -> float:
    return line[0] + line[1] * sites


def usual_flip_flops(reports: Sequence[PartReport], least_lut: float = 5000) -> float:
    """Flip-flops a LUT of the larger designs, in the middle."""
    return float(np.median([item.sites["ff"] / item.sites["lut"] for item in reports
                            if item.sites["lut"] >= least_lut]))

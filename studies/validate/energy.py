"""Shows the checks of the energy model: in the terminal, as JSON, and for docs/validation.md.

It checks nothing itself; see `studies.energy.check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np
from rich.console import Console

from studies.energy.check import (
    DDR_BAR,
    IDLE_LEAST_DSP,
    IDLE_SHARE,
    MEDIAN_BAR,
    WORST_BAR,
    EnergyReport,
    validate,
)
from studies.plain.files import check_writable, write_json
from studies.plain.markdown import markdown_table
from studies.plain.terminal import grid, terminal

HEAD = """
## Energy: against rails, and against a vendor's tool

`cosim validate energy`. *Measured*: VCCINT of nine HLS kernels on a ZC702 over its power-management
bus, 20 to 167 MHz and 0.70 to 1.00 V (public; lines carried, `arch_models/data/zc702_rails.csv`).
Each is predicted from DSP48, RAMB36, LUT, clock and voltage alone, with coefficients fitted to the
other eight. *Error*: median over the design's points; *limits*: 80 %.
"""
READING = """
Designs: median {median:.1%} (bar {median_bar:.0%}), worst {worst:.1%} (bar {worst_bar:.0%}). Of
{points} points the median is {point_median:.1%}, the worst {point_worst:.1%}. Within the 80 %
limits: {inside} of {count}. Sites alone cannot say more: Black-Scholes (`bs`) and parabolic
regression (`pr`) have alike LUTs, 201 and 124 DSP48, and take energies 2.5 times apart, so that
what their data toggle is missing, which nobody published. The form of the law was chosen with these
designs in view. A coefficient each for DSP48 and RAMB36 missed the worst design by 39 %. A constant
of 0.8 nJ a design brought it to 26 %, but then the coefficient of a LUT is smaller than its own
error, so it was left out. Powers of the sites above one gained nothing. Flip-flops were not counted
in these designs and are taken as 1.33 a LUT.

The law was fitted to fp32 kernels of a compiler; our RTL is another family. That part of its error
is in the limits, and nobody has measured it.

### The DRAM's supply, a byte
Devices by their data sheet's currents, pads and termination from the other designs; median error
{ddr:.1%} (bar {ddr_bar:.0%}).
"""
IDLE = """
### Loaded and idle
The clock tree over all that running adds, of measured designs with {least} DSP48 and more:
predicted {share:.1%}, measured {measured:.0%} (a 216-DSP design).

### A vendor's reports, part by part
*Estimates* of a tool without activity files, not measurements: each part from its sites, from the
other designs.
"""

class PartErrors(TypedDict):
    """Errors of one part of a vendor's reports, as parts of one."""

    rows: int
    median_abs_error: float
    worst_abs_error: float


class RailFile(TypedDict):
    """A design's row, a `RailRow`; errors are parts of one."""

    design: str
    left_out: bool
    predicted_nj_per_cycle: float
    low_nj_per_cycle: float
    high_nj_per_cycle: float
    measured_nj_per_cycle: float
    nj_per_cycle_error: float
    predicted_vccint_mw_at_100mhz: float
    measured_vccint_mw_at_100mhz: float
    median_error: float
    median_abs_error: float
    worst_abs_error: float
    points: int
    ddr_nj_per_byte_predicted: float | None
    ddr_nj_per_byte_measured: float | None
    ddr_nj_per_byte_error: float | None


class EnergyFile(TypedDict):
    """What `cosim validate energy --json` writes."""

    designs: int
    median_abs_error: float
    worst_abs_error: float
    ddr_nj_per_byte_error: float | None
    loaded_idle_share: float
    by_part: dict[str, PartErrors]
    points: int
    point_median_abs_error: float
    point_worst_abs_error: float
    inside_80: int
    absent_tables: list[str]
    rows: list[RailFile]


def as_json(report: EnergyReport) -> EnergyFile:
    """The report as plain values; errors as parts of one."""
    return {
        "designs": len(report.rows), "median_abs_error": report.median_abs_error,
        "worst_abs_error": report.worst_abs_error,
        "ddr_nj_per_byte_error": report.ddr_error,
        "loaded_idle_share": report.loaded_idle_share,
        "by_part": {part: {"rows": len(errors),
                           "median_abs_error": float(np.median(np.abs(errors))),
                           "worst_abs_error": float(np.max(np.abs(errors)))}
                    for part, errors in report.parts.items()},
        "points": len(report.points),
        "point_median_abs_error": float(np.median(np.abs(report.points))),
        "point_worst_abs_error": float(np.max(np.abs(report.points))),
        "inside_80": sum(row.inside for row in report.rows),
        "absent_tables": list(report.absent),
        "rows": [{
            "design": row.design, "left_out": row.left_out,
            "predicted_nj_per_cycle": row.predicted_nj, "low_nj_per_cycle": row.low_nj,
            "high_nj_per_cycle": row.high_nj, "measured_nj_per_cycle": row.measured_nj,
            "nj_per_cycle_error": row.cycle_error,
            "predicted_vccint_mw_at_100mhz": row.predicted_mw,
            "measured_vccint_mw_at_100mhz": row.measured_mw,
            "median_error": row.signed, "median_abs_error": row.error,
            "worst_abs_error": float(np.max(np.abs(row.errors))), "points": len(row.errors),
            "ddr_nj_per_byte_predicted": row.ddr_predicted_nj,
            "ddr_nj_per_byte_measured": row.ddr_measured_nj,
            "ddr_nj_per_byte_error": row.ddr_error} for row in report.rows],
    }


def show(report: EnergyReport) -> None:
    """Print every check: predicted, measured, error."""
    console = terminal()
    table = grid("core supply of the fabric, from sites, clock and voltage alone", (
        "design", "nJ/cycle", "80 %", "measured", "mW*", "measured", "error", "worst"))
    for row in report.rows:
        table.add_row(
            row.design, f"{row.predicted_nj:.2f}", f"{row.low_nj:.1f}-{row.high_nj:.1f}",
            f"{row.measured_nj:.2f}", f"{row.predicted_mw:.0f}", f"{row.measured_mw:.0f}",
            f"{row.signed:+.1%}", f"{np.max(np.abs(row.errors)):.0%}")
    console.print(table)
    out = sum(row.left_out for row in report.rows)
    console.print(f"* at 100 MHz and 1 V. {out} designs predicted from the others, "
                  f"{len(report.rows) - out} with the shipped coefficients.")
    points = np.abs(report.points)
    console.print(
        f"designs: median {report.median_abs_error:.1%} (bar {MEDIAN_BAR:.0%}), worst "
        f"{report.worst_abs_error:.1%} (bar {WORST_BAR:.0%}); of {len(points)} points median "
        f"{np.median(points):.1%}, worst {points.max():.1%}; within the 80 % limits: "
        f"{sum(row.inside for row in report.rows)} of {len(report.rows)}")
    _show_ddr(console, report)
    console.print(
        f"loaded and idle over running, designs of {IDLE_LEAST_DSP} DSP48 and more: predicted "
        f"{report.loaded_idle_share:.1%}, measured {IDLE_SHARE:.0%} (216 DSP48)")
    for part, errors in report.parts.items():
        sizes = np.abs(errors)
        console.print(f"a vendor's reports, {part}: {len(errors)} designs, each predicted from "
                      f"the others: median {np.median(sizes):.0%}, worst {sizes.max():.0%}")
    for name in report.absent:
        console.print(f"absent here, not checked: {name}", style="bold")


def _show_ddr(console: Console, report: EnergyReport) -> None:
    for row in report.rows:
        if row.ddr_error is not None:
            console.print(f"DRAM supply, {row.design}: predicted {row.ddr_predicted_nj:.3f} nJ a "
                          f"byte, measured {row.ddr_measured_nj:.3f}, {row.ddr_error:+.1%}")
    if report.ddr_error is not None:
        console.print(f"DRAM supply: median {report.ddr_error:.1%} (bar {DDR_BAR:.0%})")


def run(rows: Path | None = None, sweep: Path | None = None,
        json_path: Path | None = None) -> int:
    """Validate, print, write JSON where asked; 1 if a public figure misses its bar, else 0."""
    if json_path is not None:
        check_writable(json_path)
    report = validate(rows, sweep)
    if json_path is not None:
        write_json(json_path, as_json(report))
    show(report)
    return 0 if report.ok or rows is not None else 1


def energy_lines(report: EnergyReport | None = None) -> Iterable[str]:
    """The section, line by line."""
    found = report or validate()
    sizes = np.abs(found.points)
    yield HEAD
    for name in found.absent:
        yield f"The table `{name}` is absent here, so its rows were not checked.\n"
    yield markdown_table(("design", "nJ a cycle", "limits", "measured", "mW at 100 MHz", "measured",
                  "error %", "worst point %"), [
        (row.design, f"{row.predicted_nj:.2f}", f"{row.low_nj:.2f} to {row.high_nj:.2f}",
         f"{row.measured_nj:.2f}", f"{row.predicted_mw:.0f}", f"{row.measured_mw:.0f}",
         f"{100 * row.signed:+.1f}", f"{100 * np.max(np.abs(row.errors)):.0f}")
        for row in found.rows])
    yield READING.format(
        median=found.median_abs_error, median_bar=MEDIAN_BAR, worst=found.worst_abs_error,
        worst_bar=WORST_BAR, points=len(sizes), point_median=float(np.median(sizes)),
        point_worst=float(sizes.max()), inside=sum(row.inside for row in found.rows),
        count=len(found.rows), ddr=found.ddr_error or 0.0, ddr_bar=DDR_BAR)
    yield markdown_table(("design", "nJ a byte", "measured", "error %"), [
        (row.design, f"{row.ddr_predicted_nj:.3f}", f"{row.ddr_measured_nj:.3f}",
         f"{100 * row.ddr_error:+.1f}") for row in found.rows if row.ddr_error is not None])
    yield IDLE.format(least=IDLE_LEAST_DSP, share=found.loaded_idle_share, measured=IDLE_SHARE)
    yield markdown_table(("part", "designs", "median error %", "worst %"), [
        (part, len(errors), f"{100 * np.median(np.abs(errors)):.0f}",
         f"{100 * np.max(np.abs(errors)):.0f}") for part, errors in found.parts.items()])

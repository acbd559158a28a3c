"""Checks the energy model against measured rails, DRAM supplies and a vendor's reports.

It fits nothing (see `studies.energy.fit`). Each measured design is predicted from its sites, its
clock and its voltage alone, with coefficients fitted to the *other* designs; a design that is in
no fit is predicted with the shipped ones. Measured figures and a tool's estimates are kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arch_models.engines.base import values
from arch_models.power.fabric import CLOCK, FILE, SPINE, clock_pj, cycle_pj, fabric_errors, power_w
from arch_models.power.intervals import limits, spread
from studies.energy.fit import (
    core_pj,
    left_out,
    pads_pj_per_byte,
    zc702_dram,
)
from studies.energy.rails import (
    SWEEP_TABLE,
    Design,
    Point,
    read_carried,
    read_designs,
    read_sweep,
)
from studies.energy.reports import PARTS, REPORTS_TABLE, fit_part, read_reports
from studies.plain.truth import truth_path

MEDIAN_BAR, WORST_BAR, DDR_BAR = 0.15, 0.35, 0.15
#: Measured: a 216-DSP design that is loaded and idle, over what running adds (public note).
IDLE_SHARE, IDLE_BAR = 0.13, 0.05
#: Designs of the class whose idle share was measured: many DSP48.
IDLE_LEAST_DSP = 100


@dataclass(frozen=True)
class RailRow:
    """One design. Powers are at 100 MHz and 1 V (by the measured line), errors are relative.

    `errors`: of every point, predicted over measured less one. `inside`: the measured energy a
    cycle lies within the 80 % limits. `left_out`: the design was in no fit of these coefficients.
    """

    design: str
    predicted_nj: float
    low_nj: float
    high_nj: float
    measured_nj: float
    predicted_mw: float
    measured_mw: float
    errors: tuple[float, ...]
    left_out: bool
    ddr_predicted_nj: float | None
    ddr_measured_nj: float | None

    @property
    def error(self) -> float:
        """Median absolute error over the design's points."""
        return float(np.median(np.abs(self.errors)))

    @property
    def signed(self) -> float:
        """Median signed error over the design's points."""
        return float(np.median(self.errors))

    @property
    def cycle_error(self) -> float:
        """Signed error of the energy a cycle at 1 V."""
        return self.predicted_nj / self.measured_nj - 1

    @property
    def inside(self) -> bool:
        """Does the measured energy a cycle lie within the limits?"""
        return self.low_nj <= self.measured_nj <= self.high_nj

    @property
    def ddr_error(self) -> float | None:
        """Signed error of the marginal energy a byte."""
        if self.ddr_measured_nj is None or self.ddr_predicted_nj is None:
            return None
        return self.ddr_predicted_nj / self.ddr_measured_nj - 1


@dataclass(frozen=True)
class EnergyReport:
    """All rows, the vendor's parts with the errors of designs left out, and absent tables."""

    rows: tuple[RailRow, ...]
    parts: Mapping[str, tuple[float, ...]]
    loaded_idle_share: float
    absent: tuple[str, ...]

    @property
    def median_abs_error(self) -> float:
        """The middle of the designs' errors."""
        return float(np.median([row.error for row in self.rows]))

    @property
    def worst_abs_error(self) -> float:
        """The worst design's error."""
        return max(row.error for row in self.rows)

    @property
    def ddr_errors(self) -> tuple[float, ...]:
        """Signed errors of the energy a byte, of the designs that have one."""
        return tuple(row.ddr_error for row in self.rows if row.ddr_error is not None)

    @property
    def ddr_error(self) -> float | None:
        """The middle of the absolute errors of the energy a byte; None without any."""
        return float(np.median(np.abs(self.ddr_errors))) if self.ddr_errors else None

    @property
    def points(self) -> np.ndarray:
        """Signed errors of all points of all designs."""
        return np.array([error for row in self.rows for error in row.errors])

    @property
    def ok(self) -> bool:
        """Do the figures hold their bars (those that are there)?"""
        ddr = self.ddr_error
        return (self.median_abs_error <= MEDIAN_BAR and self.worst_abs_error <= WORST_BAR
                and (ddr is None or ddr <= DDR_BAR)
                and abs(self.loaded_idle_share - IDLE_SHARE) <= IDLE_BAR)


def validate(rows: Path | None = None, sweep: Path | None = None) -> EnergyReport:
    """The public designs left out one at a time, or the designs of a file.

    `rows`: a table with the columns of `zc702_rail_energy.csv`; `sweep`: its points, with those of
    `zc702_rails_sweep.csv`. `UserError` for a file that is no such table.
    """
    known = read_carried()
    table = values(FILE)
    others = left_out(known, {name: table[name] for name in (SPINE, CLOCK)})
    absent: list[str] = []
    designs = known if rows is None else read_designs(rows)
    points: list[Point] = []
    path = sweep if sweep is not None or rows is not None else truth_path(SWEEP_TABLE)
    if path is not None:
        points = read_sweep(path)
    elif rows is None:
        absent.append(SWEEP_TABLE)
    found = [_rail_row(item, [point for point in points if point.design == item.name], table,
                       others.get(item.name), known) for item in designs]
    parts: dict[str, tuple[float, ...]] = {}
    reports = truth_path(REPORTS_TABLE)
    if reports is None:
        absent.append(REPORTS_TABLE)
    else:
        read = read_reports(reports)
        parts = {part: fit_part(read, part).errors for part in PARTS}
    return EnergyReport(tuple(found), parts, loaded_idle_share(known, others), tuple(absent))


def _rail_row(design: Design, points: Sequence[Point], shipped: Mapping[str, float],
              other: Mapping[str, float] | None, known: Sequence[Design]) -> RailRow:
    """One design by the coefficients that never saw it."""
    table = dict(shipped) | dict(other or {})
    parts = cycle_pj(design.sites, table)
    total = sum(parts.values())
    low, high = limits(total, spread(parts, fabric_errors()))
    line = design.line(1.0) or design.lines[-1]
    ddr = None
    if design.ddr_nj_per_byte is not None:
        ddr = _ddr_nj(design, known, shipped)
    return RailRow(
        design.name, total * 1e-3, low * 1e-3, high * 1e-3,
        line.nj_per_cycle, power_w(design.sites, 100e6, 1.0, table) * 1e3,
        line.intercept_mw + 100 * line.nj_per_cycle, _errors(design, points, table),
        other is not None, ddr, design.ddr_nj_per_byte)


def _errors(design: Design, points: Sequence[Point], table: Mapping[str, float]
            ) -> tuple[float, ...]:
    """Errors at the measured points, or along the measured lines where there are no points."""
    if points:
        return tuple(power_w(design.sites, item.clock_mhz * 1e6, item.vccint_v, table) * 1e3
                     / item.vccint_mw - 1 for item in points)
    return tuple(float(power_w(design.sites, clock * 1e6, line.vccint_v, table) * 1e3
                       / (line.intercept_mw + line.nj_per_cycle * clock) - 1)
                 for line in design.lines for clock in line.clocks_mhz())


def _ddr_nj(design: Design, known: Sequence[Design], shipped: Mapping[str, float]) -> float:
    """A byte at the DRAM's supply: the devices' currents and the pads of the other designs."""
    dram = zc702_dram()
    pads = pads_pj_per_byte(known, dram)
    if design.name in pads:
        rest = [value for name, value in pads.items() if name != design.name]
        return (core_pj(design.name, dram) + float(np.mean(rest))) * 1e-3
    # Nobody says what a new design reads and writes: two parts read, one part written.
    core = (2 * dram.read_pj_per_byte + dram.write_pj_per_byte) / 3
    return (core + shipped["ddr.pads_pj_per_byte"]) * 1e-3


def loaded_idle_share(designs: Sequence[Design],
                      others: Mapping[str, Mapping[str, float]]) -> float:
    """The clock tree over all that running adds, of measured designs with many DSP48."""
    shares = []
    for item in designs:
        if item.dsp >= IDLE_LEAST_DSP:
            table = others[item.name]
            shares.append(clock_pj(item.sites, table)
                          / sum(cycle_pj(item.sites, table).values()))
    return float(np.mean(shares))


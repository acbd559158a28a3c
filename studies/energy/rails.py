"""Reads tables of measured rails: designs with their sites, and the line of power over clock.

It predicts nothing. A missing column, a wrong number and a file that is no table are refused by
name.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arch_models.engines.base import DATA, Resources
from arch_models.fields import FieldError
from arch_models.files import read_text
from arch_models.power.fabric import with_flip_flops
from studies.plain.errors import UserError, nearest
from studies.plain.truth import truth_path

#: Carried: sites and lines of the nine designs, computed from the two public tables below.
LINES_FILE = DATA / "zc702_rails.csv"
DESIGNS_TABLE = "zc702_rail_energy.csv"
SWEEP_TABLE = "zc702_rails_sweep.csv"
#: Volts at which the sweep was made in earnest.
VOLTAGES = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 1.00)
MOST_ROWS = 100_000
#: Cycles a run over the fewest of the sweep, above which a design is taken to wait for memory.
MOST_WAITING = 1.03


@dataclass(frozen=True)
class Line:
    """Measured power of the core supply over the clock, at one voltage.

    power = intercept_mw + nj_per_cycle * clock in MHz. `highest_mhz`: the highest clock measured.
    """

    vccint_v: float
    nj_per_cycle: float
    intercept_mw: float
    lowest_mhz: float
    highest_mhz: float

    def clocks_mhz(self) -> np.ndarray:
        """The clocks of the sweep: a 1000 MHz generator divided by whole numbers."""
        divisors = np.arange(math.ceil(1000 / self.highest_mhz - 1e-6),
                             math.floor(1000 / self.lowest_mhz + 1e-3) + 1)
        return np.asarray(1000 / divisors)


@dataclass(frozen=True)
class Design:
    """One measured design. `ddr_nj_per_byte`, `ps_nj_per_byte`: marginal, None if not measured.

    `dsp`, `bram36`, `lut` were counted; `ff` is None where nobody counted it.
    """

    name: str
    dsp: float
    bram36: float
    lut: float
    ff: float | None
    lines: tuple[Line, ...]
    ddr_nj_per_byte: float | None = None
    ps_nj_per_byte: float | None = None

    @property
    def sites(self) -> Resources:
        """The sites, with a usual number of flip-flops where nobody counted them."""
        return with_flip_flops(self.dsp, self.bram36, self.lut, self.ff)

    def line(self, vccint_v: float) -> Line | None:
        """The line at a voltage, None if there is none."""
        return next((item for item in self.lines if abs(item.vccint_v - vccint_v) < 1e-6), None)


@dataclass(frozen=True)
class Point:
    """One measured point of a sweep."""

    design: str
    clock_mhz: float
    vccint_v: float
    vccint_mw: float
    run_ms: float | None = None
    processor_w: float | None = None
    pads_w: float | None = None
    ddr_w: float | None = None


def table_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file that has the columns; `UserError` names what is missing."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
        found: list[dict[str, str]] = []
        for row in reader:
            if len(found) >= MOST_ROWS:
                raise UserError(f"{path}: more than {MOST_ROWS} rows.")
            found.append(row)
    except FieldError as error:
        raise UserError(f"{error}.") from None
    except csv.Error as error:
        raise UserError(f"cannot read {str(path)!r} as a table: {error}.") from error
    names = reader.fieldnames or []
    for name in columns:
        if name not in names:
            close = nearest(name, names)
            hint = f"; did you mean {close!r}?" if close else ""
            raise UserError(f"{path}: no column {name!r}{hint} It has: {', '.join(names)}.")
    return found


def number(path: Path, line: int, row: Mapping[str, str], name: str, low: float = 0.0) -> float:
    """A finite number of at least `low` in a column; `UserError` names file, line and column."""
    text = (row.get(name) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{path}, line {line}: {name} is {text!r}, must be a number.") from None
    if not math.isfinite(value) or value < low:
        raise UserError(f"{path}, line {line}: {name} is {text}, must be finite and at least "
                        f"{low:g}.")
    return value


def optional(path: Path, line: int, row: Mapping[str, str], name: str) -> float | None:
    """As `number`, None where the column is missing or empty."""
    return number(path, line, row, name) if (row.get(name) or "").strip() else None


def read_designs(path: Path) -> list[Design]:
    """Designs of a table with the columns of `zc702_rail_energy.csv`, each with its line at 1 V.

    `ff_used` is read where there is such a column. `UserError` for what is no such table.
    """
    needed = ("design", "dsp48_used", "bram36_used", "lut_used", "f_min_MHz", "f_max_MHz",
              "vccint_nJ_per_cycle", "vccint_intercept_mW")
    found = []
    for index, row in enumerate(table_rows(path, needed), start=2):
        def value(name: str, low: float = 0.0, row: dict[str, str] = row,
                  index: int = index) -> float:
            return number(path, index, row, name, low)

        line = Line(1.0, value("vccint_nJ_per_cycle", 1e-6), value("vccint_intercept_mW"),
                    value("f_min_MHz", 1e-3), value("f_max_MHz", 1e-3))
        found.append(Design(
            row["design"], value("dsp48_used"), value("bram36_used"), value("lut_used"),
            optional(path, index, row, "ff_used"), (line,),
            optional(path, index, row, "ddr_nJ_per_byte_fit")))
    if not found:
        raise UserError(f"{path}: holds no row.")
    return found


def read_sweep(path: Path) -> list[Point]:
    """Points of a table with the columns of `zc702_rails_sweep.csv`."""
    needed = ("design", "pl_mhz", "vccint_set_V", "vccint_W")
    found = []
    for index, row in enumerate(table_rows(path, needed), start=2):
        found.append(Point(
            row["design"], number(path, index, row, "pl_mhz", 1e-3),
            number(path, index, row, "vccint_set_V", 0.1),
            number(path, index, row, "vccint_W") * 1e3,
            *(optional(path, index, row, name)
              for name in ("exec_ms", "vccpint_W", "vccpaux_W", "vcc1v5_ddr_W"))))
    return found


def read_carried(path: Path = LINES_FILE) -> list[Design]:
    """The nine designs with their lines at seven voltages, as carried with the project."""
    needed = ("design", "dsp", "bram36", "lut", "vccint_v", "nj_per_cycle", "intercept_mw",
              "lowest_mhz", "highest_mhz", "ddr_nj_per_byte", "ps_nj_per_byte")
    found: dict[str, Design] = {}
    for index, row in enumerate(table_rows(path, needed), start=2):
        def value(name: str, row: dict[str, str] = row, index: int = index) -> float:
            return number(path, index, row, name)

        line = Line(*(value(name) for name in needed[4:9]))
        before = found.get(row["design"])
        found[row["design"]] = Design(
            row["design"], value("dsp"), value("bram36"), value("lut"), None,
            (*(before.lines if before else ()), line),
            optional(path, index, row, "ddr_nj_per_byte"),
            optional(path, index, row, "ps_nj_per_byte"))
    return list(found.values())


def lines_of(points: Sequence[Point]) -> tuple[Line, ...]:
    """Least-squares lines of one design's sweep, a line a voltage that has enough clocks.

    Points where the design waits for memory are left out: there it takes more cycles a run.
    """
    found = []
    cycles = [item.clock_mhz * (item.run_ms or math.nan) for item in points]
    fewest = float(np.nanmin(cycles)) if points else 0.0
    for volts in VOLTAGES:
        mine = [item for item, count in zip(points, cycles, strict=True)
                if abs(item.vccint_v - volts) < 1e-6 and not count > MOST_WAITING * fewest]
        clocks = np.array([item.clock_mhz for item in mine])
        if len(mine) < 5:
            continue
        watts = np.array([item.vccint_mw for item in mine])
        slope, start = np.polyfit(clocks, watts, 1)
        found.append(Line(volts, round(float(slope), 3), round(float(start), 1),
                          float(clocks.min()), float(clocks.max())))
    return tuple(found)


def traffic_slopes(points: Sequence[Point], run_bytes: float) -> tuple[float, float]:
    """Marginal nJ a byte of the DRAM's supply, and of the processor's two, at 1 V."""
    mine = [item for item in points if abs(item.vccint_v - 1.0) < 1e-6
            and item.ddr_w is not None and item.run_ms]
    rate = np.array([run_bytes / (item.run_ms or 1.0) * 1e-6 for item in mine])
    ddr = np.array([item.ddr_w for item in mine], float)
    inside = np.array([(item.processor_w or 0.0) + (item.pads_w or 0.0) for item in mine])
    return float(np.polyfit(rate, ddr, 1)[0]), float(np.polyfit(rate, inside, 1)[0])


def carried_rows() -> list[dict[str, object]]:
    """The rows of the carried table, from the public tables; `UserError` if they are absent."""
    paths = [truth_path(name) for name in (DESIGNS_TABLE, SWEEP_TABLE)]
    if paths[0] is None or paths[1] is None:
        raise UserError(f"{DESIGNS_TABLE} and {SWEEP_TABLE} are absent here.")
    points = read_sweep(paths[1])
    sizes = {row["design"]: row["bytes_per_run"]
             for row in table_rows(paths[0], ("bytes_per_run",))}
    rows: list[dict[str, object]] = []
    for design in read_designs(paths[0]):
        mine = [item for item in points if item.design == design.name]
        slopes: tuple[object, object] = ("", "")
        if sizes[design.name]:
            slopes = tuple(round(item, 4) for item in traffic_slopes(
                mine, float(sizes[design.name])))  # type: ignore[assignment]
        rows += [{
            "design": design.name, "dsp": design.dsp, "bram36": design.bram36, "lut": design.lut,
            "vccint_v": line.vccint_v, "nj_per_cycle": line.nj_per_cycle,
            "intercept_mw": line.intercept_mw, "lowest_mhz": line.lowest_mhz,
            "highest_mhz": line.highest_mhz, "ddr_nj_per_byte": slopes[0],
            "ps_nj_per_byte": slopes[1]} for line in lines_of(mine)]
    return rows

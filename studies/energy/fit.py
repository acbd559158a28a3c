"""Fits the energy coefficients to measured rails and a vendor's reports, each with its error.

It measures nothing. Rails are carried as lines (`data/zc702_rails.csv`); the sweep behind them and
the reports are read from beside the repository where they are present. `cosim study fit-energy
--write` writes `data/fitted_energy.toml` anew; `--tables` writes the carried table.

The form (one coefficient for LUTs, one for DSP48 and RAMB36 together) was chosen with the nine
designs in view, so the cross-validation judges the numbers and not the form.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arch_models.board import load_board
from arch_models.engines.base import DATA
from arch_models.power.dram import Dram
from arch_models.power.fabric import (
    BLOCK,
    CLOCK,
    CORRELATION,
    DESIGN,
    LOGIC,
    SPINE,
    clock_pj,
    cycle_pj,
)
from studies.energy.rails import (
    LINES_FILE,
    SWEEP_TABLE,
    Design,
    Point,
    carried_rows,
    read_carried,
    read_sweep,
)
from studies.energy.reports import (
    PARTS,
    REPORTS_TABLE,
    PartFit,
    fit_part,
    read_reports,
    usual_flip_flops,
)
from studies.plain.errors import UserError
from studies.plain.files import write_text
from studies.plain.truth import truth_path

ENERGY_FILE = DATA / "fitted_energy.toml"
#: Designs that waited for memory in part of the sweep, so that waiting shows in their power.
WAITING = ("saxp", "vector_add")
#: Bytes written of all bytes, by what the designs do; Black-Scholes reads five and writes two.
WRITE_SHARE = {"column-2dmean": 0.0, "lr": 0.0, "mxv": 0.0, "pr": 0.0, "saxp": 0.5,
               "vector_add": 1 / 3, "bs": 2 / 7}
RAILS = "rails of nine designs on a ZC702 (zc702_rails.csv)"
REPORTS = "report_power of routed XC7Z0 designs without activity files (vivado_power_reports.csv)"


@dataclass(frozen=True)
class Value:
    """One coefficient to write: its number, unit, error (of the logarithm) and evidence."""

    name: str
    value: float
    unit: str
    error: float
    source: str
    status: str


Values = Sequence[Value]


def fit_fabric(designs: Sequence[Design], clock: Mapping[str, float]) -> dict[str, float]:
    """Activity of a LUT and of a block, the static power, and the three laws of the voltage.

    Activity: least squares of relative errors of the energy a cycle at 1 V, with nothing below
    zero. Voltage: the designs' median ratio at each voltage, then a straight line of logarithms.
    """
    from scipy.optimize import nnls

    at_1v = [(item, line) for item in designs if (line := item.line(1.0)) is not None]
    energy = np.array([line.nj_per_cycle * 1e3 for _, line in at_1v])
    rest = energy - [clock_pj(item.sites, clock) for item, _ in at_1v]
    inputs = np.array([[item.sites.lut, item.dsp + item.bram36] for item, _ in at_1v], float)
    logic, block = nnls(inputs / energy[:, None], rest / energy)[0]
    return {**clock, "fabric.logic_pj": float(logic),
            "fabric.block_pj": float(block), **_voltage(designs)}


def _voltage(designs: Sequence[Design]) -> dict[str, float]:
    volts, dynamic, static, speed = [], [], [], []
    for value in sorted({line.vccint_v for item in designs for line in item.lines}):
        both = [(line, one) for item in designs if (line := item.line(value)) is not None
                and (one := item.line(1.0)) is not None]
        volts.append(value)
        dynamic.append(float(np.median([a.nj_per_cycle / b.nj_per_cycle for a, b in both])))
        static.append(float(np.median([a.intercept_mw for a, _ in both])))
        speed.append(float(np.median([a.highest_mhz / b.highest_mhz for a, b in both])))
    v = np.array(volts)
    low = v < 1
    slope, start = np.polyfit(v - 1, np.log(np.array(static) / v), 1)
    drop = 1 - v[low]
    return {
        "voltage.dynamic_exponent": float(np.log(np.array(dynamic)[low]) @ np.log(v[low])
                                          / (np.log(v[low]) @ np.log(v[low]))),
        "voltage.leakage_per_v": float(slope),
        "voltage.speed_per_v": float(((1 - np.array(speed)[low]) @ drop) / (drop @ drop)),
        "static.vccint_w": float(np.exp(start)) * 1e-3}


def left_out(designs: Sequence[Design], clock: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The coefficients by design, each from the other designs."""
    return {item.name: fit_fabric([other for other in designs if other is not item], clock)
            for item in designs}


def spreads(designs: Sequence[Design], clock: Mapping[str, float]) -> dict[str, float]:
    """Errors of the fitted coefficients (jackknife), and what they leave unexplained of a design.

    `fabric.design`: the root mean square of the cross-validated logarithmic errors, less what the
    coefficients' own errors explain of it.
    """
    whole = fit_fabric(designs, clock)
    others = left_out(designs, clock)
    found = {}
    for name, value in whole.items():
        if name not in clock:
            logs = np.array([np.log(max(item[name], 1e-9) / value) for item in others.values()])
            found[name] = float(np.std(logs) * np.sqrt(len(logs) - 1))
    pair = np.array([[item[LOGIC], item[BLOCK]] for item in others.values()])
    found[CORRELATION] = float(np.corrcoef(np.log(np.maximum(pair, 1e-9)).T)[0, 1])
    missed, explained = [], []
    for item in designs:
        line = item.line(1.0)
        if line is None:
            continue
        parts = cycle_pj(item.sites, others[item.name])
        total = sum(parts.values())
        missed.append(np.log(total / (line.nj_per_cycle * 1e3)) ** 2)
        shares = {name: found.get(name, 0.0) * part / total for name, part in parts.items()}
        explained.append(sum(share * share for share in shares.values())
                         + 2 * found[CORRELATION] * shares[LOGIC] * shares[BLOCK])
    found[DESIGN] = float(np.sqrt(max(0.0, np.mean(missed) - np.mean(explained))))
    return found


def stalled_share(points: Sequence[Point], designs: Sequence[Design],
                  table: Mapping[str, float]) -> list[float]:
    """Share of the activity that a waiting cycle keeps, of each design that waited for memory.

    At one voltage, power = static + clock * (waiting + working * share of cycles that work). Cycles
    a run are the fewest of the sweep where nothing waits.
    """
    found = []
    for name in WAITING:
        mine = [item for item in points if item.design == name and item.run_ms
                and abs(item.vccint_v - 1.0) < 1e-6]
        clock = np.array([item.clock_mhz for item in mine])
        cycles = clock * [item.run_ms or 0.0 for item in mine]
        works = cycles.min() / cycles
        watts = np.array([item.vccint_mw for item in mine]) - table["static.vccint_w"] * 1e3
        waiting, working = np.linalg.lstsq(np.stack([clock, clock * works], 1), watts,
                                           rcond=None)[0]
        sites = next(item for item in designs if item.name == name).sites
        tree = clock_pj(sites, table) * 1e-3
        found.append(float(max(0.0, (waiting - tree) / (waiting + working - tree))))
    return found


def zc702_dram() -> Dram:
    """The DRAM devices of the measured board."""
    return load_board("zc702").power.dram


def pads_pj_per_byte(designs: Sequence[Design], dram: Dram) -> dict[str, float]:
    """What a byte took at the DRAM's supply beyond the devices' currents, by design."""
    return {item.name: item.ddr_nj_per_byte * 1e3 - core_pj(item.name, dram)
            for item in designs if item.ddr_nj_per_byte is not None}


def core_pj(design: str, dram: Dram) -> float:
    """A byte in the devices of the measured board, for a design's mix of reads and writes."""
    share = WRITE_SHARE[design]
    return (1 - share) * dram.read_pj_per_byte + share * dram.write_pj_per_byte


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the root mean square of the logarithmic errors of values left out."""
    known = np.array(values)
    others = (known.sum() - known) / (len(known) - 1)
    return float(known.mean()), float(np.sqrt(np.mean(np.log(others / known) ** 2)))


def fabric_values(designs: Sequence[Design], clock: PartFit, usual: float) -> list[Value]:
    """The coefficients of the fabric's law."""
    tree = {SPINE: clock.fixed_pj, CLOCK: clock.pj}
    table, errors = fit_fabric(designs, tree), spreads(designs, tree)
    units = {"fabric.logic_pj": "pJ/LUT/cycle", "fabric.block_pj": "pJ/site/cycle",
             "voltage.dynamic_exponent": "power of V", "voltage.leakage_per_v": "1/V",
             "voltage.speed_per_v": "1/V", "static.vccint_w": "W"}
    how = {"fabric": "least squares of relative errors at 1 V", "static": "median intercept",
           "voltage": "median ratio at seven voltages"}
    how_clock = (f"{REPORTS}: clocks, least squares of relative errors over {len(clock.errors)}; "
                 f"a design left out is missed by {clock.median_abs_error:.0%} in the middle")
    found = [
        Value(SPINE, clock.fixed_pj, "pJ/cycle", clock.error, how_clock, "vendor report"),
        Value(CLOCK, clock.pj, "pJ/FF/cycle", clock.error, how_clock, "vendor report"),
        Value("fabric.ff_per_lut", usual, "FF/LUT", 0.0,
              f"{REPORTS}: median of designs of 5000 LUT and more; for designs whose flip-flops "
              "nobody counted", "inferred"),
        Value(DESIGN, 1.0, "ratio", errors[DESIGN],
              f"{RAILS}: what the coefficients leave unexplained of a design", "inferred"),
        Value(CORRELATION, errors[CORRELATION], "correlation", 0.0,
              f"{RAILS}: of the two coefficients when a design is left out", "inferred")]
    return found + [
        Value(name, table[name], unit, errors[name],
              f"{RAILS}: {how[name.partition('.')[0]]}; error by leaving a design out",
              "inferred") for name, unit in units.items()]


def traffic_values(designs: Sequence[Design]) -> list[Value]:
    """What a byte to or from DRAM takes outside the devices, and in the processor."""
    pads, pads_error = mean_and_error(list(pads_pj_per_byte(designs, zc702_dram()).values()))
    inside, inside_error = mean_and_error(
        [1e3 * item.ps_nj_per_byte for item in designs if item.ps_nj_per_byte is not None])
    return [
        Value("ddr.pads_pj_per_byte", pads, "pJ/byte", pads_error,
              f"{RAILS}: slope of the DRAM's supply over bytes a second, seven designs, less the "
              "devices' currents (boards/zc702.toml): pads, termination, strobes, commands, and "
              "rows that the designs' masters closed for each other", "inferred"),
        Value("ps.traffic_pj_per_byte", inside, "pJ/byte", inside_error,
              f"{RAILS}: slope of VCCPINT and VCCPAUX over bytes a second, seven designs",
              "inferred"),
        Value("ddr.flat_bytes_per_activate", 1024, "bytes", 0.5,
              "row activations where the memory model has no rows", "guess")]


def report_values(parts: Sequence[PartFit]) -> list[Value]:
    """What the vendor's tool would print by part."""
    return [Value(f"report.{item.part}_pj", item.pj, f"pJ/{item.site}/cycle", item.error,
                  f"{REPORTS}: geometric mean of {len(item.errors)}; a design left out is missed "
                  f"by {item.median_abs_error:.0%} in the middle", "vendor report")
            for item in parts[1:]]  # clocks are those of the fabric's law


def stalled_value(shares: Sequence[float]) -> Value:
    """The share of its activity that a waiting part keeps."""
    middle = float(np.mean(shares))
    spread = float(np.std(np.log(np.maximum(shares, 1e-3)), ddof=1)) if len(shares) > 1 else 0.0
    return Value("fabric.stalled_share", middle, "ratio", spread,
                 f"{SWEEP_TABLE}: {len(shares)} designs that waited for memory at high clocks",
                 "inferred")


def fitted() -> list[Value]:
    """Every coefficient; `UserError` if a public table is absent."""
    paths = {name: truth_path(name) for name in (REPORTS_TABLE, SWEEP_TABLE)}
    for name, path in paths.items():
        if path is None:
            raise UserError(f"{name} is absent here; the coefficients are fitted to it.")
    designs = read_carried()
    reports = read_reports(paths[REPORTS_TABLE] or Path())
    parts = [fit_part(reports, part) for part in PARTS]
    fabric = fabric_values(designs, parts[0], usual_flip_flops(reports))
    table = {item.name: item.value for item in fabric}
    stalled = stalled_share(read_sweep(paths[SWEEP_TABLE] or Path()), designs, table)
    return [*fabric, stalled_value(stalled), *traffic_values(designs), *report_values(parts)]


def energy_toml(found: Sequence[Value]) -> str:
    """The file of coefficients that the energy model reads."""
    lines = ["# Written by `cosim study fit-energy --write`; do not edit. `error`: standard",
             "# deviation of the logarithm, cross-validated."]
    last = ""
    for item in sorted(found, key=lambda value: value.name.partition(".")[0]):
        room, _, name = item.name.partition(".")
        if room != last:
            lines += ["", f"[{room}]"]
            last = room
        lines.append(f'{name} = {{ value = {item.value:.4g}, unit = "{item.unit}", error = '
                     f'{item.error:.3g}, source = "{item.source}", status = "{item.status}" }}')
    return "\n".join(lines) + "\n"


def table_text(rows: Sequence[Mapping[str, object]]) -> str:
    """A CSV file of the rows."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def write_tables() -> None:
    """Write the carried table of rails anew."""
    write_text(LINES_FILE, table_text(carried_rows()))


def write_coefficients(found: Sequence[Value]) -> None:
    """Write the file of coefficients that the energy model reads."""
    write_text(ENERGY_FILE, energy_toml(found))


def told(found: Sequence[Value]) -> str:
    """The coefficients as text, one a line."""
    return "\n".join(f"{item.name:28}{item.value:10.4g} {item.unit:16} error {item.error:.2f}"
                     for item in found)

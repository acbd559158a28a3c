"""Synthesizes generated engines over a grid with Yosys and fits the resource coefficients to it.

It places and routes nothing and checks no clock; `synth_xilinx` counts are before optimization
by the vendor's tools.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from arch_models.engines.base import beat_terms
from arch_models.engines.convolution import array_terms
from arch_models.overlay import Overlay, default_overlay
from hw.rtl.buffers import Buffer
from hw.rtl.convolution import ConvolutionEngine
from hw.rtl.elementwise import ElementwiseEngine, LookupEngine
from hw.rtl.softmax import SoftmaxEngine
from hw.rtl.spatial import GridSampleEngine, PoolEngine, UpsampleEngine
from hw.rtl.verilog import verilog_text, yosys_path
from studies.files import write_text

DATA = Path(__file__).parent.parent / "arch_models" / "data"
GRID_FILE = DATA / "resource_grid.csv"
SITES_FILE = DATA / "engine_sites.toml"
COLUMNS = ("engine", "tm", "tn", "columns", "dsp_packing", "requantize_cycles", "depth", "dsp",
           "bram36", "lut", "ff")
WAITS = SIGNALS = 4  # token channels of an engine in a design with one master a role
STREAMS: dict[str, Callable[..., Any]] = {
    "elementwise": ElementwiseEngine, "lookup": LookupEngine, "pool": PoolEngine,
    "upsample": UpsampleEngine, "softmax": SoftmaxEngine, "grid_sample": GridSampleEngine}
#: tm, tn, columns, dsp_packing, requantize_cycles; all fusions.
CONVOLUTIONS = (
    (8, 8, 1, 0, 8), (8, 8, 1, 1, 8), (8, 8, 2, 0, 8), (16, 8, 1, 0, 8), (8, 16, 1, 0, 8),
    (8, 8, 1, 0, 1), (8, 8, 2, 1, 8), (8, 8, 1, 0, 4), (8, 16, 1, 1, 8))
STREAM_ARRAYS = ((8, 8), (16, 8), (8, 16), (16, 16), (32, 32), (24, 24))
BUFFER_DEPTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
#: LUTs that a distributed memory or shift register takes.
_LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1,
         "SRLC16E": 1, "SRLC32E": 1}


@dataclass(frozen=True)
class Sites:
    """What one synthesis took. `depth` is 0 for engines, words for a buffer of 64 bits."""

    engine: str
    tm: int
    tn: int
    columns: int
    dsp_packing: int
    requantize_cycles: int
    depth: int
    dsp: int
    bram36: float
    lut: int
    ff: int

    @property
    def overlay(self) -> Overlay:
        """The default overlay with this row's array."""
        return replace(default_overlay(), tm=self.tm, tn=self.tn, columns=self.columns,
                       dsp_packing=bool(self.dsp_packing),
                       requantize_cycles=self.requantize_cycles)


@dataclass(frozen=True)
class Fit:
    """Coefficients by term (`""`: the constant), and the worst relative error of rows that were
    left out one at a time; of a row without sites, the error itself."""

    engine: str
    site: str
    coefficients: dict[str, float]
    rows: int
    cross_validated_error: float


def synthesize(top: Any) -> dict[str, int]:
    """Cell counts of `synth_xilinx -family xc7` for a module; RuntimeError if Yosys fails."""
    ports = [value for name, value in vars(top).items()
             if name.startswith(("in_", "out_", "weight_", "parameter_", "partial_", "skip_",
                                 "table_", "write_", "read_"))]
    flat = [item for value in ports for item in (value if isinstance(value, list) else [value])
            if not isinstance(item, int)]
    shell = getattr(top, "shell", None)
    if shell is not None:
        flat += [shell.go, shell.command, shell.command_valid, shell.command_ready,
                 shell.available, shell.take, shell.give, *shell.counters]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "top.v").write_text(verilog_text(top, flat, "top"))
        script = ("read_verilog top.v; synth_xilinx -family xc7 -top top -flatten -noiopad; "
                  "tee -o stat.json stat -json")
        done = subprocess.run([yosys_path(), "-q", "-p", script], cwd=place, text=True,
                              capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"yosys failed: {done.stderr[-1000:]}")
        found = json.loads((Path(place) / "stat.json").read_text())
    return {name: int(count if not isinstance(count, dict) else count["count"])
            for name, count in found["design"]["num_cells_by_type"].items()}


def count_sites(point: Sites, cells: dict[str, int]) -> Sites:
    """A point with DSP48E1, RAMB36 (halves are RAMB18), LUTs with distributed memory, FFs."""
    lut = sum(count * (_LUTS.get(name, 1 if name.startswith("LUT") else 0))
              for name, count in cells.items())
    return replace(point, dsp=cells.get("DSP48E1", 0), lut=lut,
                   bram36=cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2,
                   ff=sum(count for name, count in cells.items() if name.startswith("FD")))


def points(engines: Iterable[str]) -> Iterable[Sites]:
    """The grid of the named engines (and `buffer`), without counts."""
    for engine in engines:
        if engine == "convolution":
            yield from (Sites(engine, *array, 0, 0, 0.0, 0, 0) for array in CONVOLUTIONS)
        elif engine == "buffer":
            yield from (Sites(engine, 8, 8, 1, 0, 8, depth, 0, 0.0, 0, 0)
                        for depth in BUFFER_DEPTHS)
        else:
            yield from (Sites(engine, tm, tn, 1, 0, 8, 0, 0, 0.0, 0, 0)
                        for tm, tn in STREAM_ARRAYS)


def top_of(point: Sites) -> Any:
    """The module that a point synthesizes."""
    if point.engine == "convolution":
        return ConvolutionEngine(point.overlay, WAITS, SIGNALS)
    if point.engine == "buffer":
        return Buffer("buffer", point.depth, 1)
    return STREAMS[point.engine](point.tn // 8, point.tm // 8, WAITS, SIGNALS)


def write_grid(rows: Iterable[Sites], path: Path = GRID_FILE) -> None:
    """Write rows as CSV, appending while the synthesis goes on."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([getattr(row, name) for name in COLUMNS])
            file.flush()


def read_grid(path: Path = GRID_FILE) -> list[Sites]:
    """The rows of the shipped grid."""
    with path.open(newline="") as file:
        return [Sites(row["engine"], *(float(row[name]) if name == "bram36" else int(row[name])
                                       for name in COLUMNS[1:]))  # type: ignore[arg-type]
                for row in csv.DictReader(file)]


def terms_of(row: Sites, site: str) -> dict[str, float]:
    """What the sites of a row may grow with: the terms of the resource model itself."""
    if row.engine != "convolution":
        return {"": 1.0, **beat_terms(row.overlay)}
    found = array_terms(row.overlay)
    del found["adder"]  # every row of the grid has the fused addition
    if site == "ff":  # registers of the products are inside the DSP48
        del found["product"], found["packed_product"]
    return {"": 1.0, **found}


def fit(rows: Sequence[Sites], engine: str, site: str) -> Fit:
    """Least squares of relative errors; every row is also predicted from the others.

    Terms that no row has are left out, and the last ones if there are fewer rows than that needs.
    Raises ValueError with fewer than two rows.
    """
    mine = [row for row in rows if row.engine == engine]
    found = [terms_of(row, site) for row in mine]
    names = [name for name in (found[0] if found else {}) if any(item[name] for item in found)]
    if len(mine) < 2:
        raise ValueError(f"{engine}: {len(mine)} rows, needs two at least")
    names = names[: len(mine) - 1]
    inputs = np.array([[item[name] for name in names] for item in found], np.float64)
    target = np.array([getattr(row, site) for row in mine], np.float64)
    weight = 1.0 / np.maximum(target, 1.0)

    def solve(keep: np.ndarray) -> np.ndarray:
        scaled = inputs[keep] * weight[keep, None]
        return np.linalg.lstsq(scaled, (target * weight)[keep], rcond=None)[0]

    every = np.arange(len(mine))
    worst = max(abs(float(inputs[index] @ solve(every != index)) - target[index]) * weight[index]
                for index in every)
    values = dict(zip(names, (round(float(item), 3) for item in solve(every == every)),
                      strict=True))
    return Fit(engine, site, values, len(mine), round(float(worst), 4))


def fits(rows: Sequence[Sites]) -> list[Fit]:
    """LUT and FF of every engine in the grid, and DSP of the engines that read beats."""
    engines = dict.fromkeys(row.engine for row in rows if row.engine != "buffer")
    return [fit(rows, engine, site) for engine in engines for site in ("dsp", "lut", "ff")
            if (engine, site) != ("convolution", "dsp")]


def array_dsp(row: Sites) -> int:
    """DSPs of the convolution: a product each or two, four a requantizer (two of them for the
    fused addition), four for addresses. Exact, so nothing is fitted."""
    products = row.overlay.macs_per_cycle
    return (-(-products // 2) if row.dsp_packing else products) + 4 * row.overlay.requantizers + 4


def sites_toml(rows: Sequence[Sites]) -> str:
    """The file of coefficients that the resource model reads."""
    lines = ["# Written by `python -m studies.fit_resources --write`; do not edit. Fitted to",
             "# resource_grid.csv: Yosys synth_xilinx of engines of hw/rtl, not placed or routed.",
             "", "[convolution]"]
    for name, value in (("dsp", 4), ("dsp_per_requantizer", 2), ("dsp_per_adder", 2)):
        lines.append(_line(name, value, "counted on every row of resource_grid.csv, exact",
                           "computed"))
    last = "convolution"
    for item in fits(rows):
        if item.engine != last:
            lines += ["", f"[{item.engine}]"]
            last = item.engine
        source = (f"least squares over {item.rows} rows of resource_grid.csv; a row left out is "
                  f"missed by at most {item.cross_validated_error:.1%}")
        lines += [_line(f"{item.site}_per_{term}" if term else item.site, value, source,
                        "computed") for term, value in item.coefficients.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, value: float, source: str, status: str) -> str:
    unit = f"sites/{name.split('_per_')[1]}" if "_per_" in name else "sites"
    return (f'{name} = {{ value = {value:g}, unit = "{unit}", source = "{source}", '
            f'status = "{status}" }}')


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the fits; with `--synthesize` make the grid first, with `--write` the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthesize", nargs="*", metavar="ENGINE")
    parser.add_argument("--grid", type=Path, default=GRID_FILE)
    parser.add_argument("--write", action="store_true", help="write engine_sites.toml")
    chosen = parser.parse_args(arguments)
    if chosen.synthesize is not None:
        known = ("convolution", *STREAMS, "buffer")
        wrong = [name for name in chosen.synthesize if name not in known]
        if wrong:
            print(f"error: no engine {wrong[0]!r}; known: {', '.join(known)}", file=sys.stderr)
            return 2
        write_grid((count_sites(point, synthesize(top_of(point)))
                    for point in points(chosen.synthesize or known)), chosen.grid)
    rows = read_grid(chosen.grid)
    for item in fits(rows):
        terms = " + ".join(f"{value:g} {name or 'constant'}"
                           for name, value in item.coefficients.items())
        print(f"{item.engine:12} {item.site:4} {terms:60} left out: "
              f"{item.cross_validated_error:.1%} of {item.rows} rows")
    if chosen.write:
        write_text(SITES_FILE, sites_toml(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.rtl.buffers import Buffer
from hw.rtl.convolution import ConvolutionEngine
from hw.rtl.elementwise import ElementwiseEngine, LookupEngine
from hw.rtl.softmax import SoftmaxEngine
from hw.rtl.spatial import GridSampleEngine, PoolEngine, UpsampleEngine
from hw.rtl.verilog import verilog_text, yosys_path

GRID_FILE = Path(__file__).parent.parent / "arch_models" / "data" / "resource_grid.csv"
COLUMNS = ("engine", "tm", "tn", "depth", "dsp", "bram36", "lut", "ff")
SITES = ("dsp", "bram36", "lut", "ff")
WAITS = SIGNALS = 4  # token channels of an engine in a design with one master a role
STREAMS: dict[str, Callable[..., Any]] = {
    "elementwise": ElementwiseEngine, "lookup": LookupEngine, "pool": PoolEngine,
    "upsample": UpsampleEngine, "softmax": SoftmaxEngine, "grid_sample": GridSampleEngine}
CONVOLUTIONS = ((8, 8), (16, 8), (8, 16), (16, 16), (32, 8), (8, 32), (32, 16))
STREAM_LANES = ((8, 8), (16, 8), (8, 16), (16, 16), (32, 32))
BUFFER_DEPTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
#: LUTs that a distributed memory or shift register takes.
_LUTS = {"RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "SRL16E": 1,
         "SRLC16E": 1, "SRLC32E": 1}


@dataclass(frozen=True)
class Sites:
    """What one synthesis took. `depth` is 0 for engines, words for a one-lane buffer."""

    engine: str
    tm: int
    tn: int
    depth: int
    dsp: int
    bram36: float
    lut: int
    ff: int


@dataclass(frozen=True)
class Fit:
    """Coefficients of `basis`, and the worst relative error of rows left out one at a time."""

    engine: str
    site: str
    basis: tuple[str, ...]
    coefficients: tuple[float, ...]
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


def count_sites(engine: str, tm: int, tn: int, depth: int, cells: dict[str, int]) -> Sites:
    """DSP48E1, RAMB36 (halves are RAMB18), LUTs with distributed memory, flip-flops."""
    lut = sum(count * (_LUTS.get(name, 1 if name.startswith("LUT") else 0))
              for name, count in cells.items())
    return Sites(engine, tm, tn, depth, cells.get("DSP48E1", 0),
                 cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2, lut,
                 sum(count for name, count in cells.items() if name.startswith("FD")))


def grid(engines: Iterable[str]) -> Iterable[Sites]:
    """Synthesize every point of the grid for the named engines (and `buffer`)."""
    for engine in engines:
        if engine == "convolution":
            for tm, tn in CONVOLUTIONS:
                made: Any = ConvolutionEngine(tm, tn, WAITS, SIGNALS)
                yield count_sites(engine, tm, tn, 0, synthesize(made))
        elif engine == "buffer":
            for depth in BUFFER_DEPTHS:
                cells = synthesize(Buffer("buffer", depth, 1))
                yield count_sites(engine, 8, 8, depth, cells)
        else:
            for tm, tn in STREAM_LANES:
                made = STREAMS[engine](tn // 8, tm // 8, WAITS, SIGNALS)
                yield count_sites(engine, tm, tn, 0, synthesize(made))


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
        return [Sites(row["engine"], int(row["tm"]), int(row["tn"]), int(row["depth"]),
                      int(row["dsp"]), float(row["bram36"]), int(row["lut"]), int(row["ff"]))
                for row in csv.DictReader(file)]


_BASES: dict[str, Callable[[Sites], float]] = {
    "1": lambda row: 1.0, "tm": lambda row: row.tm,
    "tm*tn": lambda row: row.tm * row.tn,
    "lanes>1": lambda row: float(row.tn > 8),  # INPUT words of several beats: one is selected
}


def basis_of(engine: str) -> tuple[str, ...]:
    """What an engine's sites grow with: the array; for the others only a selection of lanes."""
    return ("1", "tm", "tm*tn") if engine == "convolution" else ("1", "lanes>1")


def fit(rows: Sequence[Sites], engine: str, site: str) -> Fit:
    """Least squares over the grid; every row is also predicted from the others.

    Raises ValueError with fewer rows than coefficients plus one.
    """
    mine = [row for row in rows if row.engine == engine]
    basis = basis_of(engine)
    if len(mine) <= len(basis):
        raise ValueError(f"{engine}: {len(mine)} rows, needs more than {len(basis)}")
    inputs = np.array([[_BASES[name](row) for name in basis] for row in mine], np.float64)
    target = np.array([getattr(row, site) for row in mine], np.float64)
    worst = 0.0
    for index in range(len(mine)):
        others = np.arange(len(mine)) != index
        found = np.linalg.lstsq(inputs[others], target[others], rcond=None)[0]
        error = abs(float(inputs[index] @ found) - target[index])
        worst = max(worst, error / target[index] if target[index] else error)
    found = np.linalg.lstsq(inputs, target, rcond=None)[0]
    return Fit(engine, site, basis, tuple(round(float(item), 4) for item in found), len(mine),
               round(float(worst), 4))


def fits(rows: Sequence[Sites]) -> list[Fit]:
    """DSP, LUT and FF of every engine in the grid."""
    engines = dict.fromkeys(row.engine for row in rows if row.engine != "buffer")
    return [fit(rows, engine, site) for engine in engines for site in ("dsp", "lut", "ff")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the fits; with `--synthesize` make the grid first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthesize", nargs="*", metavar="ENGINE")
    parser.add_argument("--grid", type=Path, default=GRID_FILE)
    chosen = parser.parse_args(arguments)
    if chosen.synthesize is not None:
        known = ("convolution", *STREAMS, "buffer")
        wrong = [name for name in chosen.synthesize if name not in known]
        if wrong:
            print(f"error: no engine {wrong[0]!r}; known: {', '.join(known)}", file=sys.stderr)
            return 2
        write_grid(grid(chosen.synthesize or known), chosen.grid)
    rows = read_grid(chosen.grid)
    for item in fits(rows):
        terms = " + ".join(f"{value:g} {name}" for value, name in
                           zip(item.coefficients, item.basis, strict=True))
        print(f"{item.engine:12} {item.site:4} {terms:44} left out: "
              f"{item.cross_validated_error:.1%} of {item.rows} rows")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

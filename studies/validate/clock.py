"""Checks the clock model against public designs, and predicts the clock of one of ours.

It runs no vendor tool. The prediction comes from the grid of parts; where Yosys is installed, the
whole design is synthesized too, and its longest paths are listed.
"""

from __future__ import annotations

import csv
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import mean, median, stdev
from typing import TypedDict

from rich.table import Table

from arch_models.board import Board, load_board
from arch_models.clock import NINE_TENTHS, Prediction, predict, rate_hz
from arch_models.files import read_rows
from arch_models.nets import CLOCK_FILE, read_net_model
from arch_models.overlay import Overlay
from studies.evaluation.inputs import design as load_design
from studies.plain.errors import UserError, missing_extra
from studies.plain.files import check_writables, write_json
from studies.plain.records import encode
from studies.plain.terminal import grid, terminal
from studies.plain.truth import truth_path

PUBLIC_FILE = CLOCK_FILE.with_name("clock_checks.csv")
ROUTED_FILE = Path(__file__).parents[1] / "data" / "routed_clocks.csv"
ROUTED_TABLE = "routed_timing.csv"
ROUTED_COLUMNS = ("device", "LUT", "Fmax_implied_MHz", "result")
PATHS = 10
#: Designs of a page.
DESIGNS = ("default", "diffusion")


@dataclass(frozen=True)
class PublicRow:
    """A public design: its clock by our analysis of its netlist, and routed by a vendor's tool.

    `ours_mhz`, `theirs_mhz` are of the grade named; `source` says where theirs is stated.
    """

    design: str
    part: str
    grade: str
    tool: str
    ours_mhz: float
    theirs_mhz: float
    ratio: float
    source: str


@dataclass(frozen=True)
class RoutedClass:
    """Public builds of XC7Z020-1 that use so many LUTs. A clock that was met is a floor."""

    lut_from: int
    lut_to: int
    builds: int
    met: int
    median_mhz: float
    fastest_mhz: float


@dataclass(frozen=True)
class NetlistPath:
    """A path of the whole design. `lines`: registers, cells, nets and source lines, as text."""

    start: str
    end: str
    mhz: float
    logic_ns: float
    nets_ns: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Netlist:
    """What Yosys made of the whole design; `seconds` is what that took."""

    mhz: float
    cells: int
    seconds: float
    paths: tuple[NetlistPath, ...]


def public_rows() -> list[PublicRow]:
    """The carried table."""
    with PUBLIC_FILE.open(encoding="utf-8", newline="") as file:
        return [PublicRow(row["design"], row["part"], row["grade"], row["tool"],
                          float(row["ours_mhz"]), float(row["theirs_mhz"]), float(row["ratio"]),
                          row["source"]) for row in csv.DictReader(file)]


def left_out(rows: Sequence[PublicRow]) -> list[bool]:
    """For each design: does the interval of all others hold its clock?"""
    logs = [log(row.ratio) for row in rows]
    found = []
    for index, value in enumerate(logs):
        others = logs[:index] + logs[index + 1 :]
        middle, spread = mean(others), stdev(others)
        found.append(min(0.0, middle - NINE_TENTHS * spread) <= value
                     <= max(0.0, middle + NINE_TENTHS * spread))
    return found


def routed_classes() -> list[RoutedClass]:
    """The carried summary of public builds."""
    with ROUTED_FILE.open(encoding="utf-8", newline="") as file:
        return [RoutedClass(int(row["lut_from"]), int(row["lut_to"]), int(row["builds"]),
                            int(row["met"]), float(row["median_mhz"]), float(row["fastest_mhz"]))
                for row in csv.DictReader(file)]


def summarized(path: Path) -> list[RoutedClass]:
    """The same summary, made anew of the whole table."""
    rows = [row.cells for row in read_rows(path, ROUTED_COLUMNS)
            if "7z020" in row.cells["device"] and row.cells["LUT"]
            and row.cells["Fmax_implied_MHz"]]
    found = []
    for item in routed_classes():
        mine = [row for row in rows if item.lut_from <= int(row["LUT"]) < item.lut_to]
        clocks = [float(row["Fmax_implied_MHz"]) for row in mine]
        found.append(RoutedClass(
            item.lut_from, item.lut_to, len(mine), sum(row["result"] == "met" for row in mine),
            round(median(clocks), 1), max(clocks)))
    return found


def synthesize(overlay: Overlay, share: float) -> Netlist:
    """The whole design as a netlist, and its longest paths; UserError without Yosys."""
    try:
        from amaranth.hdl import UnusedElaboratable

        from studies.resources.netlist import synthesized
        from studies.resources.paths import Paths
        from studies.resources.resource_grid import whole
        from studies.resources.timing import path_lines
    except ModuleNotFoundError as error:
        raise (missing_extra("it", error.name or "") or error) from error
    warnings.simplefilter("ignore", UnusedElaboratable)
    began = time.monotonic()
    try:
        made = synthesized(*whole(overlay))
    except RuntimeError as error:
        raise UserError(str(error)) from error
    paths = Paths(made, read_net_model(), share).longest(PATHS)
    return Netlist(paths[0].mhz, len(made.cells), time.monotonic() - began, tuple(
        NetlistPath(path.start, path.end, path.mhz, path.logic_ns, path.nets_ns,
                    tuple(path_lines(path))) for path in paths))


def run(design: str, board: str, json: Path | None, whole: bool = True) -> int:
    """Show the checks and the prediction of a design; with `whole`, its netlist's paths too."""
    check_writables(json)
    overlay, on = load_design(design), load_board(board)
    console = terminal()
    rows = public_rows()
    console.print(_public_table(rows))
    inside = left_out(rows)
    console.print(f"{sum(inside)} of {len(rows)} designs lie in the interval that the others give; "
                  f"in the middle theirs is {exp(mean(log(row.ratio) for row in rows)):.2f} times "
                  "ours, which predictions are not raised by", highlight=False)
    console.print(_routed_table(routed_classes()))
    full = truth_path(ROUTED_TABLE)
    if full is None:
        console.print(f"{ROUTED_TABLE} is not here: the summary above was not made anew")
    elif summarized(full) != routed_classes():
        raise UserError(f"{ROUTED_FILE.name} is no summary of {full}")
    found = predict(overlay, on)
    console.print(_prediction(overlay, on, found), highlight=False)
    netlist, note = None, "Yosys was not asked (--grid-only)"
    if whole:
        console.print("synthesizing the whole design, which takes minutes ...")
        try:
            netlist, note = synthesize(overlay, found.share), ""
        except UserError as error:
            note = f"no list of paths: {error}"
    if json is not None:
        write_json(json, document(overlay, on, found, netlist, note, rows))
    if netlist is None:
        console.print(f"{note}; the prediction is the grid's", highlight=False)
    else:
        console.print(f"the whole netlist of {netlist.cells} cells: {netlist.mhz:.0f} MHz "
                      f"({netlist.seconds:.0f} s); its longest paths:", highlight=False)
        for path in netlist.paths:
            print("\n".join(path.lines))
    return 0


def clock_lines(board: str = "pynq-z1") -> Iterator[str]:
    """The check as lines of a page."""
    rows, on = public_rows(), load_board(board)
    inside = sum(left_out(rows))
    yield "\n## The clock\n"
    yield ("Nothing of ours was placed or routed. Public cores were synthesized with the flow of "
           "ours (Yosys), and timed by the same model (`docs/design.md`); *theirs* is routed by a "
           "vendor's tool, as the source states. Their code is not carried.\n")
    yield "| design | part | grade | tool | ours, MHz | theirs, MHz | theirs / ours | source |"
    yield "| --- | --- | --- | --- | ---: | ---: | ---: | --- |"
    yield from (f"| {row.design} | {row.part} | {row.grade} | {row.tool} | {row.ours_mhz:.0f} | "
                f"{row.theirs_mhz:.0f} | {row.ratio:.2f} | {row.source} |" for row in rows)
    yield (f"\nTheirs is {exp(mean(log(row.ratio) for row in rows)):.2f} times ours in the mean; "
           f"{inside} of {len(rows)} lie in the interval that the others give. Public builds of "
           "XC7Z020-1 (a clock that was met is a floor: tools stop there):\n")
    yield "| LUTs | builds | met | median, MHz | fastest, MHz |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    yield from (f"| {item.lut_from} to {item.lut_to} | {item.builds} | {item.met} | "
                f"{item.median_mhz:.0f} | {item.fastest_mhz:.0f} |" for item in routed_classes())
    yield f"\nOurs, predicted on {on.title}:\n"
    yield "| design | predicted, MHz | nine builds of ten | rate, MHz | longest path |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for name in DESIGNS:
        overlay = load_design(name)
        found = predict(overlay, on)
        yield (f"| `{name}` | {found.mhz:.0f} | {found.low_mhz:.0f} to {found.high_mhz:.0f} | "
               f"{rate_hz(overlay, on) / 1e6:.2f} | `{found.path}` |")


class PartPeriod(TypedDict):
    """The longest period of a part of the design."""

    part: str
    period_ns: float
    mhz: float


class ClockFile(TypedDict):
    """What `cosim validate clock --json` writes: a prediction, and the public designs."""

    design: str
    board: str
    unchecked: list[str]
    predicted_mhz: float
    low_mhz: float
    high_mhz: float
    rate_mhz: float
    logic_ns: float
    nets_ns: float
    share: float
    path: str
    parts: list[PartPeriod]
    netlist_mhz: float | None
    paths: Sequence[NetlistPath]
    note: str
    public: Sequence[PublicRow]


def document(overlay: Overlay, board: Board, found: Prediction, netlist: Netlist | None,
             note: str, rows: Sequence[PublicRow]) -> ClockFile:
    """What the JSON file holds."""
    return {
        "design": overlay.name, "board": board.name,
        "unchecked": list(board.unchecked), "predicted_mhz": found.mhz,
        "low_mhz": found.low_mhz, "high_mhz": found.high_mhz,
        "rate_mhz": rate_hz(overlay, board) / 1e6, "logic_ns": found.logic_ns,
        "nets_ns": found.nets_ns, "share": found.share, "path": found.path,
        "parts": [{"part": name, "period_ns": period, "mhz": 1000 / period}
                  for name, period in found.parts],
        "netlist_mhz": netlist.mhz if netlist else None,
        "paths": encode(netlist.paths) if netlist else [], "note": note,
        "public": encode(rows),
    }


def _prediction(overlay: Overlay, board: Board, found: Prediction) -> str:
    parts = "; ".join(f"{name} {period:.2f}" for name, period in found.parts)
    return (f"{overlay.name} on {board.label}: {found.mhz:.0f} MHz predicted, nine of ten builds "
            f"from {found.low_mhz:.0f} to {found.high_mhz:.0f} MHz; the board makes "
            f"{rate_hz(overlay, board) / 1e6:.2f} MHz of it\n"
            f"longest path {found.period_ns:.2f} ns, {found.logic_ns:.2f} of it logic and "
            f"{found.nets_ns:.2f} nets with {found.share:.0%} of the LUTs used: {found.path}\n"
            f"longest period of each part, ns: {parts}")


def _public_table(rows: Sequence[PublicRow]) -> Table:
    table = grid("Public designs (ours: netlist analysed; theirs: routed, as stated)",
                 ("design", "part", "grade", "ours, MHz", "theirs, MHz", "theirs / ours"),
                 left=("part", "grade"))
    for row in rows:
        table.add_row(row.design, row.part, row.grade, f"{row.ours_mhz:.0f}",
                      f"{row.theirs_mhz:.0f}", f"{row.ratio:.2f}")
    return table


def _routed_table(found: Sequence[RoutedClass]) -> Table:
    table = grid("Public builds of XC7Z020-1, routed (a met clock is a floor)",
                 ("LUTs", "builds", "met", "median, MHz", "fastest, MHz"))
    for item in found:
        table.add_row(f"{item.lut_from} to {item.lut_to}", str(item.builds), str(item.met),
                      f"{item.median_mhz:.0f}", f"{item.fastest_mhz:.0f}")
    return table

"""`cosim calibrate`: coefficients from a vendor's reports, or from a meter on a user's own board.

It runs no vendor tool; see `studies.resources.calibrate` for what a synthesis report's numbers
mean, `studies.energy` for those of power.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from studies.commands.options import BoardName, Design, Json
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_json, write_text
from studies.plain.records import encode
from studies.report import tables


def calibrate(
    csynth: Annotated[Path | None, typer.Option(
        help="csynth.xml of a Vitis HLS solution.", show_default=False)] = None,
    reports: Annotated[Path | None, typer.Option(
        help="A folder with what report_power printed of a routed build.",
        show_default=False)] = None,
    power: Annotated[list[Path] | None, typer.Option(
        help="Readings of a meter (CSV: state, clock_mhz, vccint_w, ps_w, ddr_w, total_w), or a "
             "measurement that `cosim measure --power` wrote (.json).",
        show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="The file to write: out/vitis.toml, or out/board.toml for --power.",
        show_default=False)] = None,
    loop: Annotated[list[str] | None, typer.Option(
        help="OPERATOR=FUNCTION/LOOP, where the function's name does not say it.",
        show_default=False)] = None,
    board: BoardName = "pynq-z1",
    design: Design = "default",
    workload: Annotated[str, typer.Option(
        help="The network whose frames the running readings are of.")] = "agc-w16",
    json: Json = None,
) -> None:
    """Read a synthesis report, power reports or a meter's readings into coefficients.

    With --csynth: II, depth and trip counts; name the file in a design (backend =
    "out/vitis.toml"). With --reports: each part of the tool's estimate beside ours, for the same
    sites. With --power: a board file with measured powers; predict with it (--board
    out/board.toml).

    Example: cosim calibrate --csynth build/solution/syn/report/csynth.xml --out vitis.toml
    """
    given = [item is not None and item != [] for item in (csynth, reports, power)]
    if sum(given) != 1:
        raise UserError("give one of --csynth FILE, --reports FOLDER and --power FILE.")
    if json is not None:
        check_writable(json)
    if csynth is not None:
        _csynth(csynth, out or Path("out/vitis.toml"), loop or [])
    elif reports is not None:
        _reports(reports, json)
    else:
        _power(power or [], out or Path("out/board.toml"), board, design, workload)


def _csynth(path: Path, out: Path, loops_by_hand: list[str]) -> None:
    from studies.resources.calibrate import backend_file, choose_loops, read_report

    check_writable(out)
    chosen = {}
    for item in loops_by_hand:
        operator, equals, label = item.partition("=")
        if not equals or not label:
            raise UserError(f"--loop is {item!r}, must be OPERATOR=FUNCTION/LOOP")
        chosen[operator] = label
    report = read_report(path)
    loops = choose_loops(report, chosen)
    write_text(out, backend_file(report, loops))
    Console().print(f"wrote {out}: {', '.join(loops)} from {len(report.loops)} pipelined loops of "
                    f"{report.top}", soft_wrap=True)


def _reports(folder: Path, json: Path | None) -> None:
    from studies.energy.power_report import differences, power_reports

    console, found = Console(), []
    for report in power_reports(folder):
        rows = differences(report)
        table = tables.grid(
            f"{report.file}: {report.design} on {report.device}, {report.clock_mhz:g} MHz "
            f"(the tool's estimate, confidence {report.confidence}, "
            f"{'activity from ' + report.activity if report.activity else 'activity assumed'})",
            ("part", "reported mW", "ours", "80 % limits", "error"))
        for row in rows:
            table.add_row(row.part, f"{row.reported_mw:.1f}", f"{row.predicted_mw:.1f}",
                          f"{row.low_mw:.0f} to {row.high_mw:.0f}",
                          "-" if row.error is None else f"{row.error:+.0%}")
        console.print(table)
        found.append({"file": report.file, "design": report.design, "device": report.device,
                      "clock_mhz": report.clock_mhz, "confidence": report.confidence,
                      "watts": dict(report.watts), "used": dict(report.used),
                      "parts": [{**encode(row), "error": row.error} for row in rows]})
    console.print("parts: by numbers fitted to such reports; fabric: their sum, against the law "
                  "that was fitted to measured rails", soft_wrap=True)
    if json is not None:
        write_json(json, {"reports": found})


def _power(paths: list[Path], out: Path, board: str, design: str, workload: str) -> None:
    from studies.energy.own_board import board_text, calibrated, read_readings
    from studies.evaluation import inputs
    from studies.evaluation.activity import count
    from studies.evaluation.evaluate import feasible, simulate_design

    check_writable(out)
    readings = [item for path in paths for item in read_readings(path)]
    graph, overlay, on = inputs.workload(workload), inputs.design(design), inputs.board(board)
    run = feasible(simulate_design(graph, overlay, on, "ddr3"))
    frame = count(run.lowered, run.result.layer_bytes, overlay).activity(
        int(run.result.total_cycles), overlay.clock_hz, int(run.result.row_misses))
    found = calibrated(readings, overlay, on, frame)
    write_text(out, board_text(board, found))
    table = tables.grid(f"Measured powers of {on.title}", ("number", "was", "is", "error",
                                                           "readings"))
    for item in found:
        table.add_row(item.name, f"{getattr(on.power, item.name):.4g}", f"{item.value:.4g}",
                      f"{item.error:.1%}", str(item.samples))
    console = Console()
    console.print(table)
    console.print(f"wrote {out}; predict with it: --board {out}", soft_wrap=True)

"""`cosim calibrate`: coefficients from a vendor's reports, or from a meter on a user's own board.

It runs no vendor tool; see `studies.resources.calibrate` for what a synthesis report's numbers
mean, `build_check` beside it for a build's clock and sites, `studies.energy` for power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studies.commands.options import BoardName, Design, Json, reads_onnx
from studies.evaluation.inputs import PLAIN, Reading, network
from studies.plain.errors import UserError
from studies.plain.files import check_writable, check_writables, write_json, write_text
from studies.plain.records import encode
from studies.plain.terminal import grid, terminal

if TYPE_CHECKING:
    from studies.energy.own_board import Found
    from studies.energy.power_report import PowerReport
    from studies.resources.build_check import BuildCheck, Calibration, Estimate
    from studies.resources.calibrate import SynthesisReport
    from workloads.graph import Graph


@reads_onnx
def calibrate(
    csynth: Annotated[Path | None, typer.Option(
        help="csynth.xml of a Vitis HLS solution.", show_default=False)] = None,
    reports: Annotated[Path | None, typer.Option(
        help="A folder with what report_timing_summary and report_utilization, or report_power, "
             "printed of a routed build of --design.",
        show_default=False)] = None,
    power: Annotated[list[Path] | None, typer.Option(
        help="Readings of a meter (CSV: state, clock_mhz, vccint_w, ps_w, ddr_w, total_w), or a "
             "measurement that `cosim measure --power` wrote (.json).",
        show_default=False)] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", "-o", help="The file to write: out/vitis.toml, out/build.toml for --reports, or "
        "out/board.toml for --power.",
        show_default=False)] = None,
    loop: Annotated[list[str] | None, typer.Option(
        help="OPERATOR=FUNCTION/LOOP, where the function's name does not say it.",
        show_default=False)] = None,
    board: BoardName = "pynq-z1",
    design: Design = "default",
    workload: Annotated[str, typer.Option(
        help="The network whose frames the running readings are of.")] = "agc-w16",
    json: Json = None,
    reading: Reading = PLAIN,
) -> None:
    """Read a synthesis report, power reports or a meter's readings into coefficients.

    With --csynth: II, depth and trip counts; name the file in a design (backend =
    "out/vitis.toml"). With --reports: clock and sites of a build beside ours, part by part, in a
    file that the design may name (build = "out/build.toml"); and each part of the tool's power
    estimate beside ours, for the same sites. With --power: a board file with measured powers;
    predict with it (--board out/board.toml).

    Example: cosim calibrate --csynth build/solution/syn/report/csynth.xml --out vitis.toml
    """
    given = [item is not None and item != [] for item in (csynth, reports, power)]
    if sum(given) != 1:
        raise UserError("give one of --csynth FILE, --reports FOLDER and --power FILE.")
    check_writables(json)
    document: Calibration
    if csynth is not None:
        document = {"synthesis": encode(
            _csynth(csynth, out or Path("out/vitis.toml"), loop or [], board))}
    elif reports is not None:
        document = _reports(reports, design, board, out or Path("out/build.toml"))
    else:
        document = {"measured": encode(_power(
            power or [], out or Path("out/board.toml"), board, design,
            network(workload, reading)[0]))}
    if json is not None:
        write_json(json, document)


def _csynth(path: Path, out: Path, loops_by_hand: list[str], board: str) -> SynthesisReport:
    """Show a synthesis report, and write its coefficients."""
    from studies.evaluation import inputs
    from studies.resources.calibrate import backend_file, choose_loops, read_report

    check_writable(out, ".toml")
    chosen = {}
    for item in loops_by_hand:
        operator, equals, label = item.partition("=")
        if not equals or not label:
            raise UserError(f"--loop is {item!r}, must be OPERATOR=FUNCTION/LOOP")
        chosen[operator] = label
    report = read_report(path)
    loops = choose_loops(report, chosen)
    write_text(out, backend_file(report, loops))
    console = terminal()
    console.print(f"wrote {out}: {', '.join(loops)} from {len(report.loops)} pipelined loops of "
                  f"{report.top}", soft_wrap=True)
    if report.clock_ns:
        rate = inputs.board(board).clocks.fastest_hz(1e9 / report.clock_ns)
        console.print(f"estimated clock period {report.clock_ns:g} ns, before placement: "
                      f"{1000 / report.clock_ns:.1f} MHz; the board makes clock_hz = {rate}",
                      soft_wrap=True, highlight=False)
    return report


def _reports(folder: Path, design: str, board: str, out: Path) -> Calibration:
    """What a build's reports say beside our predictions: clock and sites, power, or both."""
    from studies.energy.power_report import power_reports
    from studies.resources.vendor_reports import has_timing

    timed = has_timing(folder)
    document: Calibration = {}
    if timed:
        document["build"] = encode(_build(folder, design, board, out))
    try:
        powers = power_reports(folder)
    except UserError:
        if not timed:
            raise
        powers = []
    if powers:
        document["reports"] = _estimates(powers)
    return document


def _build(folder: Path, design: str, board: str, out: Path) -> BuildCheck:
    """Show a build beside the prediction of its design, and write its file."""
    from studies.evaluation import inputs
    from studies.resources.build_check import build_toml, compare
    from studies.resources.vendor_reports import find_reports

    check_writable(out, ".toml")
    overlay, on = replace(inputs.design(design), build=""), inputs.board(board)
    timing, used = find_reports(folder)
    found = compare(overlay, on, timing, used)
    console = terminal()
    console.print(
        f"{timing.tool or 'the tool'} on {timing.device}{timing.grade}: {timing.clock} asked for "
        f"{1000 / timing.period_ns:.2f} MHz, worst slack {timing.wns_ns:g} ns, so "
        f"{found.reached_mhz:.1f} MHz{'' if found.met else ', missed'}; predicted "
        f"{found.predicted_mhz:.1f} ({found.low_mhz:.0f} to {found.high_mhz:.0f})",
        highlight=False, soft_wrap=True)
    table = grid("Sites, with the block design", ("site", "predicted", "used", "difference, %"))
    for site in found.sites:
        table.add_row(site.site, f"{site.predicted:g}", f"{site.used:g}",
                      f"{100 * (site.predicted / site.used - 1):+.1f}" if site.used else "-")
    console.print(table)
    table = grid("Longest period of each part, ns",
                 ("part", "predicted", "reported", "path"), left=("path",))
    for part in found.parts:
        table.add_row(part.part, *("-" if value is None else f"{value:.2f}" for value in (
            part.predicted_ns, part.reported_ns)), part.path)
    console.print(table)
    write_text(out, build_toml(overlay, timing, used))
    console.print(f"wrote {out}; name it in the design: build = \"{out}\"", soft_wrap=True)
    return found


def _estimates(powers: Sequence[PowerReport]) -> list[Estimate]:
    """Show each part of a tool's power estimate beside ours."""
    from studies.energy.power_report import differences

    console = terminal()
    found: list[Estimate] = []
    for report in powers:
        rows = differences(report)
        table = grid(
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
                      "parts": encode(rows)})
    console.print("parts: by numbers fitted to such reports; fabric: their sum, against the law "
                  "that was fitted to measured rails", soft_wrap=True)
    return found


def _power(paths: list[Path], out: Path, board: str, design: str, graph: Graph) -> list[Found]:
    """Show the powers that readings give, and write the board with them."""
    from arch_models.clock import clocked
    from studies.energy.own_board import board_text, calibrated, read_readings
    from studies.evaluation import inputs
    from studies.evaluation.activity import count
    from studies.evaluation.evaluate import feasible, simulate_design

    check_writable(out, ".toml")
    readings = [item for path in paths for item in read_readings(path)]
    on = inputs.board(board)
    overlay = clocked(inputs.design(design), on)
    run = feasible(simulate_design(graph, overlay, on, "ddr3"))
    frame = count(run.lowered, run.result.layer_bytes, overlay).activity(
        int(run.result.total_cycles), overlay.clock_hz, int(run.result.row_misses))
    found = calibrated(readings, overlay, on, frame)
    write_text(out, board_text(board, found))
    table = grid(f"Measured powers of {on.title}", ("number", "was", "is", "error",
                                                    "readings"))
    for item in found:
        table.add_row(item.name, f"{getattr(on.power, item.name):.4g}", f"{item.value:.4g}",
                      f"{item.error:.1%}", str(item.samples))
    console = terminal()
    console.print(table)
    console.print(f"wrote {out}; predict with it: --board {out}", soft_wrap=True)
    return found

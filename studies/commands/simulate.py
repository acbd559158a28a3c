"""`cosim simulate` and `cosim report`: predict one design, show and store it; draw what was stored.

It does not search; see `explore`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cosim.analysis.trace import write_trace
from studies.commands.options import (
    BoardName,
    Calibration,
    Design,
    Json,
    MemoryModel,
    OutFolder,
    Symmetric,
    Workload,
)
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.stored import load_evaluation
from studies.plain.errors import UserError
from studies.plain.files import check_writable, write_json, write_whole
from studies.plain.records import save
from studies.plain.terminal import terminal
from studies.report import tables


class Executor(StrEnum):
    """Which executor runs the program."""

    FAST = "fast"
    DES = "des"
    BOTH = "both"


def simulate(
    workload: Workload,
    design: Design = "default",
    board: BoardName = "pynq-z1",
    memory: MemoryModel = "ddr3",
    frames: Annotated[int, typer.Option(
        min=1, max=64, help="Frames in a row; two or more also give the period.")] = 3,
    executor: Annotated[Executor, typer.Option(
        help="fast (numba), des (SimPy, the definition, slower), or both and compare them.",
    )] = Executor.FAST,
    top: Annotated[int, typer.Option(
        min=0, max=10000, help="Show this many of the longest layers (0: all of them).")] = 12,
    json: Json = None,
    trace: Annotated[Path | None, typer.Option(
        help="Write a Perfetto trace of one frame; open it at ui.perfetto.dev.",
        show_default=False)] = None,
    calibration: Calibration = None,
    symmetric: Symmetric = False,
) -> None:
    """Predict latency, energy and fabric use of a design, and show where the time goes.

    Example: cosim simulate agc-w64 --design default --json out/result.json
    """
    for path in (json, trace):
        if path is not None:
            check_writable(path)
    console = terminal()
    (graph, note), overlay = inputs.network(workload, calibration, symmetric), inputs.design(design)
    model, on = inputs.memory_model(memory), inputs.board(board)
    item = feasible(evaluate(graph, overlay, on, model, frames=frames, detail=True))
    if json is not None:
        save(json, "evaluation", item)
    console.print(tables.heading(item), style="bold")
    if note:
        console.print(note)
    for table in (tables.summary([item]), tables.energy(item), tables.resources(item),
                  tables.units(item), tables.layers(item, top or None)):
        console.print(table)
    if item.displaced:
        console.print(tables.displaced(item.displaced), markup=False, soft_wrap=True)
    if executor is not Executor.FAST:
        _show_both(console, graph, overlay, on, model, executor)
    if json is not None:
        console.print(f"wrote {json}")
    if trace is not None:
        run = feasible(simulate_design(graph, overlay, on, model, trace=True))
        write_whole(trace, lambda file: write_trace(
            run.lowered.program, run.result, overlay.clock_hz, file))
        console.print(f"wrote {trace}; open it at ui.perfetto.dev")


def _show_both(console: Console, graph, overlay, on, model: str, executor: Executor) -> None:  # type: ignore[no-untyped-def]
    slow = feasible(simulate_design(graph, overlay, on, model, executor="des"))
    console.print(f"SimPy executor: {slow.result.total_cycles} cycles for one frame")
    if executor is Executor.BOTH:
        fast = feasible(simulate_design(graph, overlay, on, model))
        names = fast.result.differences(slow.result)
        if names:
            raise UserError(f"the executors differ in {', '.join(names)}; this is a fault of the "
                            "program, please report it with the design file.")
        console.print("numba executor: the same, equal in every field")


def report(
    results: Annotated[list[Path], typer.Argument(
        help="Result files (.json) of `cosim simulate --json`; the last one is looked into, the "
        "others stand beside it.")],
    out: OutFolder = Path("out/report"),
) -> None:
    """Draw roofline, time and energy of each layer, and the energy split, with a page (HTML).

    Example: cosim report out/default.json out/best.json --out out/report
    """
    from studies.report.page import write_report

    loaded = [(path, load_evaluation(path)) for path in results]
    designs = [item.overlay for _, item in loaded]
    items = {item.overlay if designs.count(item.overlay) == 1 else f"{item.overlay} ({path.stem})":
             item for path, item in loaded}
    last = list(items.values())[-1]
    board = inputs.board(last.board)
    written = write_report(items, board.ddr.peak_bytes_per_s, out)
    console = terminal()
    console.print(tables.summary(list(items.values()), list(items)))
    console.print(f"wrote {written[0]} and {len(written) - 1} pictures beside it")


def decode(
    network: Annotated[str, typer.Argument(
        help="A shipped trained network, for example agc-w16 or unicorn.")],
    out: Annotated[Path, typer.Option(
        "--out", "-o", help="A video to write (.mp4, .mkv), or a folder for PNG files.")],
    frames: Annotated[int, typer.Option(
        help="Frames at 25 a second, or pictures of Unicorn's set; each takes seconds.")] = 50,
    clip: Annotated[str, typer.Option(
        help="head (rendered, held out), hopper (a real face never trained on) or astronaut (a "
             "real face that was).")] = "head",
    seed: Annotated[int, typer.Option(
        min=0, max=9999, help="Of the head and its motion.")] = 0,
    json: Json = None,
) -> None:
    """Decode a clip to a video or pictures: wanted, float, int8 and their difference, side by side.

    The int8 frames are those of the integer reference, to the bit what the hardware makes. PSNR of
    every frame is measured before the video is coded.

    Example: cosim decode agc-w16 --out clip.mp4
    """
    from studies.headline import decode as study
    from studies.report import video

    if json is not None:
        check_writable(json)
    request = study.Request(network, frames, clip, seed)
    study.check(request)
    video.check_target(out, frames)
    panels, rows = [], []
    for found in study.run(request):
        panels.append(found.panel())
        rows.append(found.row())
    video.write(out, panels, study.RATE)
    if json is not None:
        write_json(json, {"network": network, "clip": clip, "seed": seed, "frames": rows})
    console = terminal()
    study.show(console, rows)
    console.print(f"from left to right: {', '.join(study.COLUMNS)}")
    console.print(f"wrote {out}")

"""`cosim simulate`: one design, one workload, one board; everything predicted, shown and stored.

It does not search; see `explore`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cosim.analysis.trace import write_trace
from studies.commands.options import (
    BoardName,
    Design,
    Json,
    MemoryModel,
    Steps,
    Workload,
    reads_onnx,
)
from studies.evaluation import inputs
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.remedy import held
from studies.plain.errors import UserError
from studies.plain.files import check_writables, write_text, write_whole
from studies.plain.made_by import invocation
from studies.plain.records import save
from studies.plain.terminal import terminal
from studies.report import tables
from studies.why.results import waits


class Executor(StrEnum):
    """Which executor runs the program."""

    FAST = "fast"
    DES = "des"
    BOTH = "both"


@reads_onnx
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
    steps: Steps = None,
    top: Annotated[int, typer.Option(
        min=0, max=10000, help="Show this many of the longest layers (0: all of them).")] = 12,
    json: Json = None,
    trace: Annotated[Path | None, typer.Option(
        help="Write a Perfetto trace of one frame; open it at ui.perfetto.dev.",
        show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(
        help="Write the layers as a table (CSV).", show_default=False)] = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Predict latency, energy and fabric use of a design, and show where the time goes.

    Example: cosim simulate agc-w64 --design default --json out/result.json
    """
    check_writables(json, trace, csv)
    console, workload = terminal(), inputs.with_steps(workload, steps)
    (graph, note), overlay = inputs.network(workload, reading), inputs.design(design)
    model, on = inputs.memory_model(memory), inputs.board(board)
    item = held(evaluate(graph, overlay, on, model, frames=frames, detail=True), graph, overlay,
                on)
    if json is not None:
        save(json, "evaluation", replace(item, network=workload), invocation())
    if csv is not None:
        write_text(csv, tables.layers_csv(item))
    console.print(tables.heading(item), style="bold")
    if note:
        console.print(note)
    for table in (tables.summary([item]), tables.energy(item), tables.resources(item),
                  tables.units(item), tables.layers(item, top or None)):
        console.print(table)
    if item.displaced:
        console.print(tables.displaced(item.displaced), markup=False, soft_wrap=True)
    if said := waits(graph, overlay, on):
        console.print(said, markup=False, soft_wrap=True)
    if executor is not Executor.FAST:
        _show_both(console, graph, overlay, on, model, executor)
    for path in filter(None, (json, csv)):
        console.print(f"wrote {path}")
    if trace is not None:
        run = feasible(simulate_design(graph, overlay, on, model, trace=True))
        write_whole(trace, lambda file: write_trace(
            run.lowered.program, run.result, item.clock_hz, file))
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

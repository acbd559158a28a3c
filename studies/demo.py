"""The main job end to end: the full-width AGC decoder on PYNQ-Z1, in about five minutes.

It computes nothing of its own: every figure it prints or stores comes from the studies it calls.
`cosim study demo` runs it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.table import Table

from arch_models.board import Board
from arch_models.overlay import Overlay, overlay_toml
from cosim.analysis.trace import write_trace
from studies.evaluation import inputs
from studies.evaluation.emission import check_emitted, check_layers, emit_for
from studies.evaluation.evaluate import evaluate, feasible, simulate_design
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.files import output_folder, write_json, write_text, write_whole
from studies.plain.made_by import invocation, program
from studies.plain.records import save
from studies.plain.terminal import grid, terminal
from studies.report import tables
from studies.report.collect import Given, collect
from studies.report.documents import Asked, search_document
from studies.report.page import require_library, write_page
from studies.report.search import SearchProgress, show
from studies.search.exploration import Exploration, Means, explore
from studies.search.outcomes import Settings
from workloads.agc.config import AgcConfig, conv_macs, conv_table, folded_parameters
from workloads.graph import Graph

FULL, NARROW, BOARD, DESIGN = "agc-w64", "agc-w16", "pynq-z1", "default"
MEMORY = "ddr3"


class Site(TypedDict):
    """Sites of one kind."""

    used: float
    available: float


class Summary(TypedDict):
    """`summary.json`: the chosen design and the one made by hand (`default`); `predicted` names
    the figures that nobody measured."""

    workload: str
    board: str
    memory_model: str
    predicted: list[str]
    latency_ms: float
    period_ms: float
    fps: float
    energy_uj_per_pixel: float
    default_latency_ms: float
    default_energy_uj_per_pixel: float
    designs_evaluated: int
    designs_infeasible: int
    executors_equal: bool
    csim_bit_exact: bool
    csim_values_compared: int
    resources: dict[str, Site]


class Steps:
    """Prints numbered headings with the time since the start."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.perf_counter()
        self.number = 0

    def step(self, text: str) -> None:
        """Announce the next step."""
        self.number += 1
        spent = time.perf_counter() - self.start
        self.console.rule(f"{self.number}. {text}  ({spent:.0f} s)", align="left")


def workload_table(config: AgcConfig) -> Table:
    """The convolutions of the decoder with MACs and parameters, and the totals."""
    table = grid("AGC decoder, convolutions (exact)", (
        "layer", "in", "out", "kernel", "size", "when", "10^6 MAC", "parameters"), ("when",))
    for conv in conv_table(config):
        table.add_row(conv.name, str(conv.in_channels), str(conv.out_channels),
                      f"{conv.kernel}x{conv.kernel}", f"{conv.rows}x{conv.cols}",
                      "each frame" if conv.part == "frame" else "once a group",
                      f"{conv.macs / 1e6:.2f}", f"{conv.parameters:,}")
    table.add_section()
    table.add_row("all", "", "", "", "", "", f"{conv_macs(config) / 1e6:.2f}",
                  f"{folded_parameters(config):,}")
    table.add_row("each frame", "", "", "", "", "", f"{conv_macs(config, 'frame') / 1e6:.2f}", "")
    return table


def executors_equal(console: Console, graph: Graph, overlay: Overlay, board: Board) -> bool:
    """Simulate one frame burst by burst with both executors and compare every field."""
    runs = {}
    for name in ("fast", "des"):
        began = time.perf_counter()
        runs[name] = feasible(simulate_design(graph, overlay, board, MEMORY, executor=name,
                                              trace=True)).result
        console.print(f"{name}: {runs[name].total_cycles:,} cycles, "
                      f"{int(runs[name].layer_bursts.sum()):,} bursts, "
                      f"{int(runs[name].operations.sum()):,} operations, "
                      f"{time.perf_counter() - began:.1f} s to lower and simulate")
    names = runs["fast"].differences(runs["des"])
    console.print("the two executors are equal in every field" if not names else
                  f"the two executors DIFFER in {', '.join(names)}",
                  style="bold green" if not names else "bold red")
    return not names


def searched(console: Console, graph: Graph, board: Board, base: Overlay, settings: Settings,
             workers: int, out: Path) -> tuple[Exploration, Overlay]:
    """Search, write and show what was found; with the chosen design."""
    with SearchProgress(console, settings.designs) as told:
        found = explore(graph, board, base, settings, means=Means(workers), watcher=told)
    asked = Asked(FULL, graph.name, BOARD, board, base, invocation())
    write_json(out / "explore.json", search_document(found, asked))
    show(console, found)
    if found.chosen is None:
        raise UserError("the search found no feasible design")
    write_text(out / "best.toml", overlay_toml(found.chosen.overlay))
    return found, found.chosen.overlay


def emitted_and_run(console: Console, graph: Graph, chosen: Overlay, board: Board,
                    folder: Path) -> tuple[bool, int]:
    """Emit the design, and run its C++: whether every value is the reference's, how many are."""
    emitted = emit_for(graph, chosen, board, folder)
    console.print(f"wrote {emitted.files} files to {folder}")
    narrow = inputs.workload(NARROW)
    frame = check_emitted(narrow, chosen, board)
    console.print(f"C simulation of the whole {NARROW} frame: {frame.values_compared:,} values "
                  f"of {frame.tensors} tensors compared, {frame.values_differing} differ")
    layers = check_layers(graph, chosen, board)
    console.print(f"C simulation of {layers.layers} full-width layers, one of each distinct "
                  f"shape: {layers.values_compared:,} values compared, "
                  f"{layers.values_differing} differ")
    exact = frame.values_differing == 0 and layers.values_differing == 0
    console.print("bit-exact" if exact else "NOT bit-exact",
                  style="bold green" if exact else "bold red")
    return exact, frame.values_compared + layers.values_compared


def run_demo(out: Path, designs: int, seed: int, workers: int) -> Summary:
    """Do everything, write the files, return what `summary.json` holds."""
    require_library()
    console = terminal()
    output_folder(out)
    steps = Steps(console)
    steps.step("Workload: one inter frame of the full-width AGC decoder, 256x256")
    console.print(workload_table(AgcConfig()))
    graph, board, base = inputs.workload(FULL), inputs.board(BOARD), inputs.design(DESIGN)

    steps.step("Simulate a design made by hand, with both executors")
    before = feasible(evaluate(graph, base, board, MEMORY, detail=True))
    for table in (tables.summary([before]), tables.energy(before), tables.resources(before),
                  tables.units(before), tables.layers(before, 12)):
        console.print(table)
    equal = executors_equal(console, graph, base, board)

    steps.step(f"Search: {designs} designs over the whole frame")
    found, chosen = searched(console, graph, board, base, Settings(designs, seed), workers, out)

    steps.step("The chosen design against the one made by hand")
    after = feasible(evaluate(graph, chosen, board, MEMORY, detail=True))
    for name, item in (("default", before), ("result", after)):
        save(out / f"{name}.json", "evaluation", replace(item, network=FULL), invocation())
    for table in (tables.summary([before, after], ["made by hand", "chosen"]),
                  tables.energy(after), tables.resources(after), tables.units(after),
                  tables.layers(after, 12)):
        console.print(table)

    steps.step("Emit the chosen design as HLS C++, and run it")
    exact, compared = emitted_and_run(console, graph, chosen, board, out / "hls")

    steps.step("Report: page and trace")
    page = write_page(collect([out / "explore.json"], Given(), invocation(), program()),
                      out / "report.html")
    run = feasible(simulate_design(graph, chosen, board, MEMORY, trace=True))
    write_whole(out / "trace.pftrace", lambda file: write_trace(
        run.lowered.program, run.result, after.clock_hz, file))
    result = _summary(before, after, found.found.evaluated, found.found.infeasible, equal, exact,
                      compared)
    write_json(out / "summary.json", result)
    console.print(f"wrote {page} (open it in a browser), trace.pftrace (open it at "
                  f"ui.perfetto.dev), result.json and summary.json to {out}")
    spent = time.perf_counter() - steps.start
    console.print(f"the whole demo took {spent:.0f} s", style="bold")
    if not (equal and exact):
        raise UserError("a check failed; see above")
    return result


def _summary(before: Evaluation, after: Evaluation, evaluated: int, infeasible: int,
             equal: bool, exact: bool, compared: int) -> Summary:
    return {
        "workload": after.workload, "board": after.board, "memory_model": after.memory_model,
        "predicted": ["latency_ms", "period_ms", "fps", "energy_uj_per_pixel",
                      "default_latency_ms", "default_energy_uj_per_pixel", "resources"],
        "latency_ms": after.latency_ms, "period_ms": after.period_ms, "fps": after.fps,
        "energy_uj_per_pixel": after.energy_uj_per_pixel,
        "default_latency_ms": before.latency_ms,
        "default_energy_uj_per_pixel": before.energy_uj_per_pixel,
        "designs_evaluated": evaluated, "designs_infeasible": infeasible,
        "executors_equal": equal, "csim_bit_exact": exact, "csim_values_compared": compared,
        "resources": {item.name: {"used": item.used, "available": item.available}
                      for item in after.resources},
    }

"""`cosim explain`: where the latency of a design lies, and which single changes shorten it.

It does not combine changes; `cosim explore` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from studies import inputs
from studies.commands.options import BoardName, Json, MemoryModel, WorkloadOption
from studies.critical import by_layer, by_unit
from studies.evaluate import feasible
from studies.evaluation import Evaluation
from studies.explain import Explanation, explain
from studies.files import check_writable, write_json
from studies.records import encode, load
from studies.report import tables


def explain_design(
    design: Annotated[str, typer.Argument(
        help="A design (a shipped name or a .toml file), or a result that `cosim simulate "
        "--json` wrote (.json).")],
    workload: WorkloadOption = "agc-w64",
    board: BoardName = "pynq-z1",
    memory: MemoryModel = "ddr3",
    top: Annotated[int, typer.Option(min=1, max=20, help="Changes to name.")] = 3,
    json: Json = None,
) -> None:
    """Name the critical path and the changes that would shorten it, each one simulated.

    Example: cosim explain default --workload agc-w64
    """
    if json is not None:
        check_writable(json)
    model = inputs.memory_model(memory)
    if design.endswith(".json"):
        known = load(Path(design), "evaluation", Evaluation)
        overlay = inputs.design_of(known)
        workload, board, model = inputs.library_name(known), known.board, known.memory_model
    else:
        overlay = inputs.design(design)
    graph, on = inputs.workload(workload), inputs.board(board)
    found = feasible(explain(graph, overlay, on, model, top))
    console = Console()
    _show(console, found)
    if json is not None:
        write_json(json, {"predicted": True, "memory_model": model,
                          "latency_ms": found.evaluation.latency_ms,
                          "path_cycles_by_unit": by_unit(found.path),
                          "path_cycles_by_layer": by_layer(found.path),
                          "changes": encode(found.changes), "tried": found.tried,
                          "infeasible": found.infeasible})


def _show(console: Console, found: Explanation) -> None:
    item = found.evaluation
    console.print(f"{item.workload} on {item.overlay}: {item.latency_ms:.2f} ms "
                  f"(predicted, {item.memory_model})", style="bold")
    total = item.latency_cycles
    table = tables.grid("The critical path, by unit", ("unit", "ms", "%"))
    for unit, cycles in by_unit(found.path).items():
        table.add_row(unit, f"{cycles / item.clock_hz * 1e3:.2f}", f"{100 * cycles / total:.1f}")
    console.print(table)
    longest = sorted(found.path, key=lambda share: -share.cycles)[:8]
    table = tables.grid("Its longest parts", ("layer", "unit", "operations", "ms", "%"),
                        ("unit",))
    for share in longest:
        table.add_row(share.layer, share.unit, str(share.operations),
                      f"{share.cycles / item.clock_hz * 1e3:.2f}",
                      f"{100 * share.cycles / total:.1f}")
    console.print(table)
    if not found.changes:
        console.print(f"no single change of {found.tried} shortens it; {found.infeasible} were "
                      "not feasible. Try several at once: cosim explore")
        return
    table = tables.grid(f"Changes that shorten it, each simulated ({found.tried} tried, "
                        f"{found.infeasible} not feasible)",
                        ("change", "from", "to", "ms", "saved, ms", "uJ/pixel", "relieves"),
                        ("relieves",))
    for change in found.changes:
        table.add_row(change.axis, change.old, change.new, f"{change.latency_ms:.2f}",
                      f"{change.saved_ms:.2f}", f"{change.energy_uj_per_pixel:.2f}",
                      change.relieved)
    console.print(table)

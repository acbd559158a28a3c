"""`cosim explain` and `check`: where the latency of a design lies, and which single changes shorten
it; and whether what a certificate says of a whole space holds.

They search nothing; `cosim explore` does.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from studies.certify.certificate import Certificate, question_of, said
from studies.commands.options import (
    Json,
    MaybeBoard,
    MaybeMemory,
    MaybeWorkload,
    reads_onnx,
    stored_note,
)
from studies.evaluation import inputs
from studies.evaluation.remedy import held
from studies.plain.files import check_writables, write_json
from studies.plain.machine import default_workers
from studies.plain.terminal import each_seconds, grid, terminal
from studies.report import tables
from studies.search.space import default_space
from studies.why.critical import by_unit
from studies.why.explain import Explanation, document, explain
from studies.why.results import waits

#: Coefficients named for the width of the energy's limits.
WIDEST = 4


@reads_onnx
def explain_design(
    design: Annotated[str, typer.Argument(
        help="A design (a shipped name or a .toml file), or a result that `cosim simulate "
        "--json` wrote (.json).")],
    workload: MaybeWorkload = None,
    board: MaybeBoard = None,
    memory: MaybeMemory = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="Changes to name.")] = 3,
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Name the critical path and the changes that would shorten it, each one simulated again.

    A result brings its own network, board and memory model, unless the options replace them.

    Example: cosim explain default --workload agc-w64
    """
    check_writables(json)
    subject = inputs.subject(design, workload, board, memory, reading)
    found = held(explain(subject.graph, subject.overlay, subject.board, subject.memory, top),
                 subject.graph, subject.overlay, subject.board)
    if json is not None:
        write_json(json, document(found, subject.board))
    console = terminal()
    stored_note(console, subject, found.evaluation)
    if said := waits(subject.graph, subject.overlay, subject.board):
        console.print(said, markup=False, soft_wrap=True)
    _show(console, found)
    if found.changes:
        asked = [("-w", workload), ("-b", board), ("-m", subject.memory)]
        console.print("Ask for one, or for several: " + shlex.join(
            ["cosim", "what-if", design, *(word for option, value in asked if value is not None
                                           for word in (option, value)), *reading.words(),
             "--set", f"{found.changes[0].axis}={found.changes[0].new}"]), soft_wrap=True)
    _show_energy(console, found)


def _show_energy(console: Console, found: Explanation) -> None:
    item, shown = found.evaluation, found.widths[:WIDEST]
    console.print(f"Energy: {item.energy_uj_per_pixel:.2f} uJ a pixel, 80 % limits "
                  f"{tables.limits(item)}. What makes the width: "
                  + ", ".join(f"{name} {100 * part:.0f}%" for name, part in shown),
                  soft_wrap=True, highlight=False)


def _show(console: Console, found: Explanation) -> None:
    item = found.evaluation
    console.print(f"{item.workload} on {item.overlay}: {item.latency_ms:.2f} ms "
                  f"(predicted, {item.memory_model}{tables.unchecked(item)})", style="bold")
    total = item.latency_cycles
    length = sum(link.cycles for link in found.chain)
    console.print(f"The critical path: {sum(link.operations for link in found.chain)} operations, "
                  f"{length} of {total} cycles. Each starts where the one before it ends; a "
                  "transfer's length holds what memory made it wait.", soft_wrap=True)
    table = grid("The critical path, by unit", ("unit", "ms", "%"))
    for unit, cycles in by_unit(found.path).items():
        table.add_row(unit, f"{cycles / item.clock_hz * 1e3:.2f}", f"{100 * cycles / total:.1f}")
    console.print(table)
    longest = sorted(found.path, key=lambda share: -share.cycles)[:8]
    table = grid("Its longest parts", ("layer", "unit", "operations", "ms", "%"),
                 ("unit",))
    for share in longest:
        table.add_row(share.layer, share.unit, str(share.operations),
                      f"{share.cycles / item.clock_hz * 1e3:.2f}",
                      f"{100 * share.cycles / total:.1f}")
    console.print(table)
    if item.displaced:
        console.print(tables.displaced(item.displaced), markup=False, soft_wrap=True)
    if not found.changes:
        console.print(f"no single change of {found.tried} shortens it; {found.infeasible} were "
                      "not feasible. Try several at once: cosim explore")
        return
    table = grid(f"Changes that shorten it, each simulated ({found.tried} tried, "
                 f"{found.infeasible} not feasible)",
                 ("change", "from", "to", "ms", "predicted", "saved", "uJ",
                  "relieves"), ("relieves",))
    for change in found.changes:
        table.add_row(change.axis, change.old, change.new, f"{change.latency_ms:.2f}",
                      f"{change.predicted_ms:.2f}", f"{change.saved_ms:.2f}",
                      f"{change.energy_uj_per_pixel:.2f}", change.relieved)
    console.print(table)
    for change in found.changes:
        if change.displaced:
            console.print(f"{change.axis}={change.new} puts more "
                          f"{tables.displaced(change.displaced)}", markup=False, soft_wrap=True)
    console.print("predicted: ms saved by the closed form of the tiles; saved: by "
                  f"simulation with {item.memory_model}; uJ: a pixel", soft_wrap=True)


@reads_onnx
def check_certificate(
    file: Annotated[Path, typer.Argument(
        help="A certificate that `cosim explore --prove` wrote.")],
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Check a certificate: every box of designs is bounded again, the best design is simulated.

    Ends with an error that names the first thing that does not hold.
    """
    console = terminal()
    found = Certificate(file)
    graph, _ = inputs.network(found.claim.workload, reading)
    question = question_of(found, graph, inputs.board(found.claim.board))
    checked = found.check(question, each_seconds(
        console, lambda boxes: f"{boxes:,} boxes hold so far"), default_workers())
    every = question.space == default_space(question.board, graph)
    console.print(f"{file} holds: {said(found.claim)} ({checked.boxes} boxes, {checked.tables} "
                  f"tables, {checked.programs} programs). The space is "
                  f"{'the default one' if every else 'one of its own'}, around the design "
                  f"{question.base.name}.", soft_wrap=True)

"""`cosim what-if`: sweep fields of a design or board, or step every parameter (tornado).

It does not search; every combination asked for is simulated.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arch_models.board import Board
from arch_models.overlay import Overlay
from studies.commands.options import (
    Json,
    MaybeBoard,
    MaybeWorkload,
    MemoryModel,
    OutFolder,
    reads_onnx,
)
from studies.evaluation import inputs
from studies.evaluation.remedy import held, remedy
from studies.evaluation.values import Evaluation
from studies.plain.errors import UserError
from studies.plain.files import check_writables, output_folder, write_json
from studies.plain.made_by import invocation
from studies.plain.records import encode, header
from studies.plain.terminal import grid, say_unchecked, terminal
from studies.report import tables, what_if_pictures
from studies.report.documents import WHAT_IF
from studies.report.pictures import save_picture
from studies.report.what_if_pictures import short_value
from studies.why.field_names import resolve
from studies.why.what_if import (
    Row,
    Sensitivity,
    Setting,
    Step,
    nearest_miss,
    parse_setting,
    sweep,
    tornado,
)
from workloads.graph import Graph


@reads_onnx
def what_if_command(
    base: Annotated[str, typer.Argument(
        help="The design to start from (a shipped name or a .toml file), or a result that `cosim "
        "simulate --json` wrote (.json).")] = "default",
    workload: MaybeWorkload = None,
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="FIELD=VALUE,VALUE,... of the design (engine.conv.tm=16,32 or tm=16,32) or "
        "of the board (board.ddr.bits=16,32). Several --set: every combination.",
        show_default=False)] = None,
    step_all: Annotated[bool, typer.Option(
        "--tornado", help="Step every parameter down and up and sort by effect; the same as no "
        "--set.")] = False,
    board: MaybeBoard = None,
    memory: MemoryModel = "flat",
    out: OutFolder = Path("out/what-if"),
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Show what happens to latency, energy, fabric and the bottleneck when parameters change.

    Example: cosim what-if default --set engine.conv.tm=8,16 --set board.ddr.bits=16,32

    A result brings its own network and board. Without --set every parameter is stepped.
    """
    if step_all and settings:
        raise UserError("--tornado steps every parameter, --set names them; give one of the two.")
    asked = inputs.subject(base, workload, board, memory, reading)
    graph, overlay, on, model = asked.graph, asked.overlay, asked.board, asked.memory
    wanted = _settings(settings or [], overlay, on)
    check_writables(json)
    output_folder(out)
    console, began = terminal(), time.perf_counter()
    if not wanted:
        start, rows = held(tornado(graph, overlay, on, model), graph, overlay, on)
        spent, count, figures = (time.perf_counter() - began, 2 * len(rows) + 1,
                                 _tornado_figures(start, rows))
    else:
        found = sweep(graph, overlay, on, wanted, model)
        spent, count = time.perf_counter() - began, len(found)
        figures = {"rows": [_figures(row) for row in found]}
    if json is not None:
        write_json(json, {**_asked(asked), **figures})
    picture = out / ("what_if.png" if wanted else "tornado.png")
    if not wanted:
        _show_tornado(console, start, rows)
        figure = what_if_pictures.tornado(start, rows)
    else:
        _show_sweep(console, found)
        figure = what_if_pictures.sweep(
            found, f"What if: {graph.name} on {overlay.name} / {on.label}, predicted ({model})")
    save_picture(figure, picture)
    say_unchecked(console, on)
    console.print(f"{count} design{'s' * (count != 1)} in {spent:.1f} s; wrote {picture}",
                  highlight=False)
    near = nearest_miss(found) if wanted else None
    if near is not None:
        _say_nearest(console, graph, near, any(row.evaluation for row in found))


def _say_nearest(console: Console, graph: Graph, near: Row, any_held: bool) -> None:
    """What would make the nearest miss hold; `UserError` with it where nothing held."""
    change = remedy(graph, *near.design) if near.design else ""
    label = what_if_pictures.label(near)
    if not any_held:
        raise UserError(" ".join(filter(None, (
            f"no combination was feasible. Nearest miss: {label}: {near.reason}.", change))))
    if change:
        console.print(f"{label}: {change}", markup=False, highlight=False, soft_wrap=True)


def _settings(texts: list[str], overlay: Overlay, board: Board) -> list[Setting]:
    """What is to be changed; refused where a design and a board have no such thing."""
    wanted = [parse_setting(text) for text in texts]
    for setting in wanted:
        resolve(setting.path, overlay, board)
    return wanted


def _asked(item: inputs.Subject) -> dict[str, object]:
    return {**header(WHAT_IF, invocation()), "memory_model": item.memory, "predicted": True,
            "workload": item.graph.name, "design": item.overlay.name, "board": item.board.name,
            "unchecked": list(item.board.unchecked)}


def _figures(row: Row) -> dict[str, object]:
    return {"values": dict(row.values), "reason": row.reason or None,
            **_headline(row.evaluation), "bottleneck": row.bottleneck or None,
            "critical_path_shares": dict(row.path_shares) if row.path_shares else None,
            "resources": {part.name: part.used for part in row.evaluation.resources}
            if row.evaluation else None}


def _headline(item: Evaluation | None) -> dict[str, object]:
    return {"displaced": encode(item.displaced) if item else None,
            "clock_mhz": item.clock_hz / 1e6 if item else None,
            "clock": encode(item.clock) if item else None,
            "latency_ms": item.latency_ms if item else None,
            "energy_uj_per_pixel": item.energy_uj_per_pixel if item else None,
            "energy_limits_uj_per_pixel": (list(item.energy_limits_uj_per_pixel) if item
                                           else None)}


def _tornado_figures(start: Evaluation, rows: tuple[Sensitivity, ...]) -> dict[str, object]:
    def side(step: Step) -> dict[str, object]:
        return {"value": step.value, "reason": step.reason or None, **_headline(step.evaluation)}

    return {"base": _headline(start),
            "sensitivities": [{"parameter": row.path, "now": row.now, "down": side(row.down),
                               "up": side(row.up)} for row in rows]}


def _show_sweep(console: Console, rows: tuple[Row, ...]) -> None:
    names = [path.rpartition(".")[2] for path in rows[0].values]
    heads = names if len(set(names)) == len(names) else list(rows[0].values)
    table = grid("What if (predicted)", (
        *heads, "MHz", "ms", "uJ/pixel", "80 %", "DSP", "BRAM36", "LUT", "FF", "bottleneck"),
        ("bottleneck",))
    for row in rows:
        item = row.evaluation
        if item is None:
            table.add_row(*row.values.values(), *"--------", "not feasible")
            continue
        used = {part.name: f"{part.used:g}" for part in item.resources}
        share = next(iter(row.path_shares.values())) if row.path_shares else 0.0
        table.add_row(*row.values.values(), tables.megahertz(item), f"{item.latency_ms:.2f}",
                      f"{item.energy_uj_per_pixel:.2f}", tables.limits(item),
                      *(used.get(name, "-") for name in ("DSP", "BRAM36", "LUT", "FF")),
                      f"{row.bottleneck} {100 * share:.0f}%")
    console.print(table)
    console.print("MHz: predicted, or marked where it is assumed or measured; bottleneck: the unit "
                  "with the largest share of the critical path", soft_wrap=True)
    least = min((row.evaluation for row in rows if row.evaluation),
                key=lambda item: len(item.displaced), default=None)
    _show_displaced(console, least, [(what_if_pictures.label(row), row.evaluation)
                                     for row in rows])
    refused: dict[str, list[str]] = {}
    for row in rows:
        if row.evaluation is None:
            refused.setdefault(row.reason, []).append(what_if_pictures.label(row))
    for reason, labels in refused.items():
        more = f" and {len(labels) - 2} more" if len(labels) > 2 else ""
        console.print(f"not feasible: {'; '.join(labels[:2])}{more}: {reason}", markup=False,
                      highlight=False, soft_wrap=True)


def _show_displaced(console: Console, base: Evaluation | None,
                    others: Sequence[tuple[str, Evaluation | None]]) -> None:
    """Which layers the first design has on the host, and which each other one moves there."""
    if base is not None and base.displaced:
        console.print(tables.displaced(base.displaced), markup=False, soft_wrap=True)
    for label, item in others:
        if base is not None and item is not None and item.newly_displaced(base):
            console.print(f"{label} puts more {tables.displaced(item.newly_displaced(base))}",
                          markup=False, highlight=False, soft_wrap=True)


def _show_tornado(console: Console, start: Evaluation, rows: tuple[Sensitivity, ...]) -> None:
    table = grid(
        f"A step down, a step up, against {start.latency_ms:.2f} ms, "
        f"{start.energy_uj_per_pixel:.2f} uJ a pixel (predicted, {start.memory_model})",
        ("parameter", "now", "down", "ms", "uJ", "up", "ms", "uJ"))
    for row in rows:
        table.add_row(row.path, short_value(row.now),
                      *_side(row.down, start), *_side(row.up, start))
    console.print(table)
    _show_displaced(console, start, [(f"{row.path} = {short_value(side.value)}", side.evaluation)
                                     for row in rows for side in (row.down, row.up)])
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for side in (row.down, row.up):
            if side.evaluation is None and side.value != "-":
                reasons.setdefault(side.reason, []).append(f"{row.path} {side.value}")
    for reason, steps in reasons.items():
        console.print(f"not feasible: {', '.join(steps)}: {reason}", markup=False,
                      highlight=False, soft_wrap=True)


def _side(step: Step, start: Evaluation) -> tuple[str, str, str]:
    if step.evaluation is None:
        return short_value(step.value), "-", "-"
    return (short_value(step.value), _difference(step.evaluation.latency_ms - start.latency_ms),
            _difference(step.evaluation.energy_uj_per_pixel - start.energy_uj_per_pixel))


def _difference(value: float) -> str:
    return "0" if value == 0 else f"{value:+.0f}" if abs(value) >= 100 else f"{value:+.2f}"

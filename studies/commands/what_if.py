"""`cosim what-if`: sweep fields of a design or board, or step every parameter (tornado).

It does not search; every combination asked for is simulated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from studies import inputs
from studies.commands.options import BoardName, Json, MemoryModel, WorkloadOption
from studies.errors import UserError
from studies.evaluate import feasible
from studies.evaluation import Evaluation
from studies.files import check_writable, output_folder, write_json
from studies.records import encode
from studies.report import pictures, tables
from studies.what_if import Row, Sensitivity, parse_setting, sweep, tornado


def what_if_command(
    base: Annotated[str, typer.Argument(
        help="The design to start from: a shipped name or a .toml file.")] = "default",
    workload: WorkloadOption = "agc-w64",
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="FIELD=VALUE,VALUE,... of the design (tm=16,32) or of the board "
        "(board.ddr.data_bus_bits=16,32). Several --set: every combination.",
        show_default=False)] = None,
    board: BoardName = "pynq-z1",
    memory: MemoryModel = "flat",
    out: Annotated[Path | None, typer.Option(
        help="Folder for the picture.", show_default=False)] = None,
    json: Json = None,
) -> None:
    """Show what happens to latency, energy and the bottleneck when parameters change.

    Example: cosim what-if default --set tm=8,16 --set clock_hz=100000000,150000000

    Without --set every parameter is stepped down and up (a tornado of sensitivities).
    """
    graph, overlay, on = inputs.workload(workload), inputs.design(base), inputs.board(board)
    model = inputs.memory_model(memory)
    wanted = [parse_setting(text) for text in settings or []]
    if json is not None:
        check_writable(json)
    if out is not None:
        output_folder(out)
    console = Console()
    if not wanted:
        start, rows = feasible(tornado(graph, overlay, on, model))
        _show_tornado(console, start, rows)
        if out is not None:
            _draw_tornado(out, start, rows)
        if json is not None:
            write_json(json, {"predicted": True, "memory_model": model,
                              "base_latency_ms": start.latency_ms,
                              "base_energy_uj_per_pixel": start.energy_uj_per_pixel,
                              "sensitivities": encode(rows)})
        return
    found = sweep(graph, overlay, on, wanted, model)
    _show_sweep(console, found)
    if out is not None:
        pictures.save_picture(pictures.sweep(
            [(_label(row), row.evaluation.latency_ms, row.evaluation.energy_uj_per_pixel)
             for row in found if row.evaluation],
            f"What if: {workload} on {base}, predicted ({model})"), out / "what_if.png")
        console.print(f"wrote {out / 'what_if.png'}")
    if json is not None:
        write_json(json, {"predicted": True, "memory_model": model,
                          "rows": [_figures(row) for row in found]})
    if not any(row.evaluation for row in found):
        raise UserError(f"no combination was feasible. First reason: {found[0].reason}")


def bottleneck(item: Evaluation) -> str:
    """The unit that is busy, or waits for memory, for the largest part of the run."""
    def working(unit):  # type: ignore[no-untyped-def]
        return unit.busy_cycles + unit.stalls.get("memory", 0)

    unit = max(item.units, key=working)
    return f"{unit.name} {100 * working(unit) / max(1, unit.total_cycles):.0f} %"


def _label(row: Row) -> str:
    return ", ".join(f"{path}={value}" for path, value in row.values.items())


def _figures(row: Row) -> dict[str, object]:
    item = row.evaluation
    return {"values": dict(row.values), "reason": row.reason,
            "latency_ms": item.latency_ms if item else None,
            "energy_uj_per_pixel": item.energy_uj_per_pixel if item else None,
            "resources": {part.name: part.used for part in item.resources} if item else None,
            "bottleneck": bottleneck(item) if item else None}


def _show_sweep(console: Console, rows: tuple[Row, ...]) -> None:
    table = tables.grid("What if (predicted)", (
        *rows[0].values, "latency, ms", "uJ a pixel", "DSP", "BRAM36", "LUT", "busiest unit"))
    refused = []
    for row in rows:
        item = row.evaluation
        if item is None:
            table.add_row(*row.values.values(), *"-----", "not feasible")
            refused.append(f"{_label(row)}: {row.reason}")
            continue
        used = {part.name: f"{part.used:g}" for part in item.resources}
        table.add_row(*row.values.values(), f"{item.latency_ms:.2f}",
                      f"{item.energy_uj_per_pixel:.2f}", used.get("DSP", "-"),
                      used.get("BRAM36", "-"), used.get("LUT", "-"), bottleneck(item))
    console.print(table)
    for reason in refused:
        console.print(reason, markup=False, highlight=False)


def _show_tornado(console: Console, start: Evaluation, rows: tuple[Sensitivity, ...]) -> None:
    table = tables.grid(
        f"Sensitivities (predicted); now {start.latency_ms:.2f} ms, "
        f"{start.energy_uj_per_pixel:.2f} uJ a pixel",
        ("parameter", "down", "ms", "uJ/pixel", "up", "ms", "uJ/pixel"))
    for row in rows:
        table.add_row(row.path, row.down, _number(row.down_latency_ms),
                      _number(row.down_energy_uj_per_pixel), row.up, _number(row.up_latency_ms),
                      _number(row.up_energy_uj_per_pixel))
    console.print(table)
    console.print("- : that step is not legal or does not fit the board")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _draw_tornado(out: Path, start: Evaluation, rows: tuple[Sensitivity, ...]) -> None:
    base = start.latency_ms
    bars = [(row.path, base if row.down_latency_ms is None else row.down_latency_ms,
             base if row.up_latency_ms is None else row.up_latency_ms) for row in rows]
    pictures.save_picture(pictures.tornado(
        bars, base, "latency, ms", f"Sensitivity of {start.workload} on {start.overlay}, "
        f"predicted ({start.memory_model})"), out / "tornado.png")

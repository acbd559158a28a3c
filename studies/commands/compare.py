"""`cosim compare`: explain the difference of two designs until the numbers add up.

It does not judge; it says in which layer and on which unit the time went.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from studies import inputs
from studies.commands.options import BoardName, Json, MemoryModel, WorkloadOption
from studies.compare import Difference, compare
from studies.evaluate import feasible
from studies.files import check_writable, write_json
from studies.records import encode
from studies.report import tables


def compare_designs(
    a: Annotated[str, typer.Argument(help="A design: a shipped name or a .toml file.")],
    b: Annotated[str, typer.Argument(help="Another design.")],
    workload: WorkloadOption = "agc-w64",
    board: BoardName = "pynq-z1",
    memory: MemoryModel = "ddr3",
    top: Annotated[int, typer.Option(min=1, help="Rows to show in each table.")] = 12,
    json: Json = None,
) -> None:
    """Compare two designs layer by layer and unit by unit along their critical paths.

    Example: cosim compare default out/explore/best.toml
    """
    if json is not None:
        check_writable(json)
    graph, on = inputs.workload(workload), inputs.board(board)
    first, second = inputs.design(a), inputs.design(b)
    found = feasible(compare(graph, first, second, on, on, inputs.memory_model(memory)))
    console = Console()
    console.print(tables.summary([found.a, found.b], [f"A {a}", f"B {b}"]))
    for title, rows in (("By unit on the critical path", found.units),
                        ("By layer on the critical path", found.layers),
                        ("Largest differences, layer / unit", found.cells)):
        console.print(_table(title, rows, top))
    total = sum(row.delta_ms for row in found.cells)
    console.print(f"the differences sum to {total:.3f} ms; the latencies differ by "
                  f"{found.b.latency_ms - found.a.latency_ms:.3f} ms")
    if json is not None:
        write_json(json, {"predicted": True, "a": encode(found.a), "b": encode(found.b),
                          "units": encode(found.units), "layers": encode(found.layers),
                          "cells": encode(found.cells), "energy_mj": encode(found.energy_mj)})


def _table(title: str, rows: tuple[Difference, ...], top: int) -> Table:
    table = tables.grid(f"{title} (predicted, ms)", ("", "A", "B", "B - A"))
    for row in rows[:top]:
        table.add_row(row.name, f"{row.a_ms:.3f}", f"{row.b_ms:.3f}", f"{row.delta_ms:+.3f}")
    rest = rows[top:]
    if rest:
        table.add_row(f"{len(rest)} more", f"{sum(r.a_ms for r in rest):.3f}",
                      f"{sum(r.b_ms for r in rest):.3f}",
                      f"{sum(r.delta_ms for r in rest):+.3f}")
    table.add_section()
    table.add_row("sum", f"{sum(r.a_ms for r in rows):.3f}", f"{sum(r.b_ms for r in rows):.3f}",
                  f"{sum(r.delta_ms for r in rows):+.3f}")
    return table

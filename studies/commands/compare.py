"""`cosim compare`: explain the difference of two designs until the numbers add up.

It does not judge; it says in which layer, and in which state of its engine, the time went.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated

import typer
from rich.table import Table

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
from studies.plain.made_by import invocation
from studies.plain.records import encode, header
from studies.plain.terminal import grid, terminal
from studies.report import tables
from studies.report.documents import COMPARISON, OneClock
from studies.why.compare import Comparison, Difference, Refused, compare


@reads_onnx
def compare_designs(
    a: Annotated[str, typer.Argument(
        help="A design (a shipped name or a .toml file), or a result that `cosim simulate "
        "--json` wrote (.json).")],
    b: Annotated[str, typer.Argument(help="Another design or result.")],
    workload: MaybeWorkload = None,
    board: MaybeBoard = None,
    memory: MaybeMemory = None,
    top: Annotated[int, typer.Option(min=1, max=10000, help="Rows to show in each table.")] = 12,
    json: Json = None,
    reading: inputs.Reading = inputs.PLAIN,
) -> None:
    """Compare two designs layer by layer and stall by stall; every table adds up exactly.

    A result brings its own network, board and memory model, unless the options replace them.

    Example: cosim compare default out/explore/agc-w64-pynq-z1/best.toml
    """
    check_writables(json)
    first, second = inputs.pair(a, b, workload, board, memory, reading)
    found = compare(first, second)
    if isinstance(found, Refused):
        found = held(found.reason, found.side.graph, found.side.overlay, found.side.board)
    if json is not None:
        write_json(json, {**header(COMPARISON, invocation()), "predicted": True,
                          "a": encode(found.a), "b": encode(found.b),
                          **{name: [_figures(row) for row in getattr(found, name)]
                             for name in ("layers", "states", "cells", "units")},
                          "energy": encode(found.energy),
                          "one_clock": encode(_one_clock(found)),
                          "energy_ratio": encode(found.energy_ratio)})
    console = terminal()
    for side, item in ((first, found.a), (second, found.b)):
        stored_note(console, side, item)
    console.print(tables.summary([found.a, found.b], [f"A {a}", f"B {b}"]))
    for title, rows in (("By layer", found.layers),
                        ("By state of the layer's engine", found.states),
                        ("Largest differences: layer, engine, state", found.cells),
                        ("By unit on the critical path", found.units)):
        console.print(_table(title, rows, top))
    console.print(_energy(found))
    if found.energy_ratio is not None:
        console.print(f"B takes {found.energy_ratio} of A's energy: what both share cancels, so "
                      "that these 80 % limits are narrower than those of either", soft_wrap=True)
    one = _one_clock(found)
    if one is not None:
        console.print(f"at one clock, {one.clock_mhz:.4g} MHz: A {one.a_ms:.2f} ms, B "
                      f"{one.b_ms:.2f} ms; B is {one.a_ms / one.b_ms:.2f} times as fast",
                      soft_wrap=True)
    total = sum((row.delta_s for row in found.cells), Fraction(0))
    exact = total == (Fraction(found.b.latency_cycles, found.b.clock_hz)
                      - Fraction(found.a.latency_cycles, found.a.clock_hz))
    console.print(f"the differences sum to {float(total) * 1e3:.3f} ms; the latencies differ by "
                  f"{found.b.latency_ms - found.a.latency_ms:.3f} ms"
                  + ("; exactly equal" if exact else ""), soft_wrap=True)


def _one_clock(found: Comparison) -> OneClock | None:
    a, b = found.at_one_clock or (None, None)
    return OneClock(a.clock_hz / 1e6, a.latency_ms, b.latency_ms) if a and b else None


def _figures(row: Difference) -> dict[str, object]:
    return {"name": row.name, "a_cycles": row.a_cycles, "b_cycles": row.b_cycles,
            "a_ms": row.a_ms, "b_ms": row.b_ms, "delta_ms": row.delta_ms}


def _table(title: str, rows: Sequence[Difference], top: int) -> Table:
    table = grid(f"{title} (predicted, ms)", ("", "A", "B", "B - A"))

    def add(name: str, some: Sequence[Difference]) -> None:
        delta = sum((row.delta_s for row in some), Fraction(0))
        table.add_row(name, f"{sum(row.a_ms for row in some):.3f}",
                      f"{sum(row.b_ms for row in some):.3f}", f"{float(delta * 1000):+.3f}")

    for row in rows[:top]:
        add(row.name, [row])
    if rows[top:]:
        add(f"{len(rows) - top} more", rows[top:])
    table.add_section()
    add("sum", rows)
    return table


def _energy(found: Comparison) -> Table:
    table = grid("Energy of a frame (predicted, mJ)", ("", "A", "B", "B - A"))
    for part in found.energy:
        table.add_row(part.name, f"{part.a_j * 1e3:.3f}", f"{part.b_j * 1e3:.3f}",
                      f"{(part.b_j - part.a_j) * 1e3:+.3f}")
    table.add_section()
    a_j, b_j = found.a.energy.total_j, found.b.energy.total_j
    table.add_row("sum", f"{a_j * 1e3:.3f}", f"{b_j * 1e3:.3f}", f"{(b_j - a_j) * 1e3:+.3f}")
    return table
